"""Decode pictures for a server, in processes that a hostile file may break."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO

import numpy as np

from fovea.indexer.decoding.limits import Limits, Refused
from fovea.search.clip.preprocess import Preprocess

from .host import Message, Process, available_cores

__all__ = ["Crowded", "Frame", "Renderer"]

GRACE_S = 5.0  # the process's own alarm comes first
START_S = 30.0  # for a process to become ready; importing Pillow takes a second on a busy machine
TURN_S = 60.0  # for a caller to get a turn
WORKER = "fovea.indexer.workers.decode_worker"


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame of a video in an open file, in place of a picture's bytes."""

    file: BinaryIO
    at: int  # milliseconds

    def close(self) -> None:
        """Close the file."""
        self.file.close()


class Crowded(Exception):
    """Too many pictures are waiting to be decoded; ask for this one again later."""


class Renderer:
    """Make smaller or converted pictures and model input of pictures' bytes; safe in threads.

    Processes are started as they are needed, one a core at most; callers wait for their turn, and
    ``Crowded`` is raised where that takes too long. Uploaded pictures always leave one process to
    the library's own.
    """

    def __init__(self, limits: Limits | None = None, processes: int | None = None) -> None:
        self.limits = limits or Limits(seconds=20.0)
        self._most = processes or max(2, available_cores())
        self._turns = threading.BoundedSemaphore(self._most)
        self._upload_turns = threading.BoundedSemaphore(max(1, self._most - 1))
        self._idle: list[Process] = []
        self._lock = threading.Lock()
        self._closed = False

    def thumbnails(
        self, data: bytes | Frame, sizes: Sequence[int], *, raw: bool
    ) -> dict[int, bytes]:
        """Return WebP by size, in pixels of the short side; smaller pictures keep their size.

        Like the other methods, raise ``Refused`` with the reason for what cannot be decoded.
        """
        return self._pictures("thumbnails", data, sizes, raw)

    def preview(self, data: bytes | Frame, size: int, *, raw: bool) -> bytes:
        """Return WebP whose long side has at most ``size`` pixels."""
        return self._pictures("preview", data, (size,), raw)[size]

    def whole(self, data: bytes | Frame, size: int, *, raw: bool) -> bytes:
        """Return JPEG of all pixels there are; the long side has at most ``size``."""
        return self._pictures("whole", data, (size,), raw)[size]

    def pixels(self, data: bytes, preprocess: Preprocess) -> np.ndarray:
        """Return what a model sees of an uploaded picture: uint8 (size, size, 3)."""
        request = {"make": "pixels", "preprocess": asdict(preprocess), "raw": False}
        with _turn(self._upload_turns):
            _, made = self._ask(request, data)
        return np.frombuffer(made, np.uint8).reshape(preprocess.size, preprocess.size, 3)

    def warm(self) -> None:
        """Start all processes, so that the first pictures need not wait for them."""
        for _ in range(self._most):
            if self._closed:
                return
            with suppress(Crowded):  # whoever needs one will be told
                self._give_back(self._start())

    def close(self) -> None:
        """End all idle processes now, and the others when they have answered."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for process in idle:
            _discard(process)

    def _pictures(
        self, make: str, data: bytes | Frame, sizes: Sequence[int], raw: bool
    ) -> dict[int, bytes]:
        request = {"make": make, "sizes": list(sizes), "raw": raw}
        if isinstance(data, Frame):
            answer, made = self._ask(request | {"at": data.at}, b"", data.file.fileno())
        else:
            answer, made = self._ask(request, data)
        found, start = {}, 0
        for size, length in answer["sizes"].items():
            found[int(size)] = made[start : start + length]
            start += length
        return found

    def _ask(self, request: dict[str, Any], data: bytes, descriptor: int | None = None) -> Message:
        with _turn(self._turns):
            process = self._fit_process()
            try:
                process.send(request, data, descriptor)
                answer = process.receive(self.limits.seconds + GRACE_S)
            except (EOFError, OSError) as exc:
                _discard(process)
                raise Refused("too slow or too large to decode") from exc
            except BaseException:
                _discard(process)
                raise
            self._give_back(process)
        assert answer is not None  # it has been ready since it was started
        if "refused" in answer[0]:
            raise Refused(answer[0]["refused"])
        return answer

    def _fit_process(self) -> Process:
        """Take an idle process, or start one; discard those that have died meanwhile."""
        while True:
            with self._lock:
                process = self._idle.pop() if self._idle else None
            if process is None:
                return self._start()
            if process.is_running:
                return process
            _discard(process)

    def _start(self) -> Process:
        try:
            process = Process(WORKER, self.limits, {})
        except OSError as exc:
            raise Crowded(f"cannot start a process to decode it: {exc.strerror}") from exc
        try:
            process.receive(START_S)
        except (EOFError, OSError) as exc:
            _discard(process)
            raise Crowded(f"cannot start a process to decode it: {process.complaint}") from exc
        return process

    def _give_back(self, process: Process) -> None:
        """Keep a process for the next picture, unless it has grown or is not needed any more."""
        with self._lock:
            keep = not self._closed and not process.is_tired and len(self._idle) < self._most
            if keep:
                self._idle.append(process)
        if not keep:
            _discard(process)


def _discard(process: Process) -> None:
    process.kill()
    process.end()


@contextmanager
def _turn(turns: threading.BoundedSemaphore) -> Iterator[None]:
    if not turns.acquire(timeout=TURN_S):
        raise Crowded("too many pictures are waiting to be decoded; try again in a moment")
    try:
        yield
    finally:
        turns.release()
