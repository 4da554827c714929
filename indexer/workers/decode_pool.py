"""Decode pictures in processes of their own, which a hostile file may break."""

import json
import socket
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from fovea.indexer.decoding.limits import Limits, Refused
from fovea.search.clip.preprocess import Preprocess

from .host import available_cores, command

__all__ = ["Crowded", "Renderer"]

GRACE_S = 5.0  # the process's own alarm comes first
START_S = 30.0  # a process has to be ready; importing Pillow takes a second on a busy machine
TURN_S = 60.0  # somebody waits for a turn at most
RENDERER = "fovea.indexer.workers.decode_worker"


class Crowded(Exception):
    """So many pictures wait to be decoded that this one has to be asked for again."""


class _Process:
    """One decoding process, used by one thread at a time."""

    def __init__(self, limits: Limits) -> None:
        self._limits, self.is_tired = limits, False
        ours, theirs = socket.socketpair()
        with ours, theirs:
            self.process = subprocess.Popen(
                command(RENDERER, str(theirs.fileno()), json.dumps(asdict(limits))),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,  # Ctrl-C is for the server alone
            )
            self.connection = Connection(ours.detach())
        if not self._is_ready():
            self.end()
            raise Crowded("no process to decode it can be started")

    def _is_ready(self) -> bool:
        try:
            return self.connection.poll(START_S) and self.connection.recv_bytes() == b"ready"
        except (EOFError, OSError):
            return False

    def ask(self, request: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
        """Raise ``Refused`` for what the process refuses, and ``EOFError`` where it fell."""
        self.connection.send_bytes(json.dumps(request).encode())
        self.connection.send_bytes(data)
        if not self.connection.poll(self._limits.seconds + GRACE_S):
            raise EOFError
        answer, made = json.loads(self.connection.recv_bytes()), self.connection.recv_bytes()
        self.is_tired = answer.pop("tired", False)
        if "refused" in answer:
            raise Refused(answer["refused"])
        return answer, made

    @property
    def is_fit(self) -> bool:
        """Whether the next picture may be asked of it: it runs, and has not grown for good."""
        return not self.is_tired and self.process.poll() is None

    def end(self) -> None:
        self.process.kill()
        self.connection.close()
        self.process.wait()


class Renderer:
    """Thumbnails, previews and pixels of pictures' bytes; safe to use in threads.

    Processes are started as they are needed, one a core at most; callers wait for their turn, and
    ``Crowded`` is raised where that takes too long. Pictures that somebody has sent never take the
    last process from the library's own.
    """

    def __init__(self, limits: Limits | None = None, processes: int | None = None) -> None:
        self.limits = limits or Limits(seconds=20.0)
        self._most = processes or max(2, available_cores())
        self._turns = threading.BoundedSemaphore(self._most)
        self._sent = threading.BoundedSemaphore(max(1, self._most - 1))
        self._idle: list[_Process] = []
        self._lock = threading.Lock()
        self._closed = False

    def thumbnails(self, data: bytes, sizes: Sequence[int], *, raw: bool) -> dict[int, bytes]:
        """WebP by size: that of the short side, in pixels. Smaller pictures keep their size.

        This and the others raise ``Refused`` with a reason for what cannot be decoded.
        """
        return self._webps("thumbnails", data, sizes, raw)

    def preview(self, data: bytes, size: int, *, raw: bool) -> bytes:
        """WebP whose long side has at most ``size`` pixels."""
        return self._webps("preview", data, (size,), raw)[size]

    def pixels(self, data: bytes, preprocess: Preprocess) -> np.ndarray:
        """What a model sees of a picture: uint8 (size, size, 3)."""
        request = {"make": "pixels", "preprocess": asdict(preprocess), "raw": False}
        with _turn(self._sent):
            _, made = self._ask(request, data)
        return np.frombuffer(made, np.uint8).reshape(preprocess.size, preprocess.size, 3)

    def warm(self) -> None:
        """Start all processes, so that the first pictures need not wait for it."""
        for _ in range(self._most):
            if self._closed:
                return
            with suppress(Crowded, OSError):  # whoever needs it will say so
                self._give_back(_Process(self.limits))

    def close(self) -> None:
        """End all processes that are idle, and the others when they have answered."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for process in idle:
            process.end()

    def _webps(self, make: str, data: bytes, sizes: Sequence[int], raw: bool) -> dict[int, bytes]:
        answer, made = self._ask({"make": make, "sizes": list(sizes), "raw": raw}, data)
        found, place = {}, 0
        for size, length in answer["sizes"].items():
            found[int(size)] = made[place : place + length]
            place += length
        return found

    def _ask(self, request: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
        with _turn(self._turns):
            process = self._fit_process()
            try:
                answer = process.ask(request, data)
            except Refused:
                self._give_back(process)
                raise
            except (EOFError, OSError) as exc:
                process.end()
                raise Refused("too slow or too large to decode") from exc
            except BaseException:
                process.end()
                raise
            self._give_back(process)
            return answer

    def _fit_process(self) -> _Process:
        """One that waits, or else a new one; those that have ended meanwhile are put away."""
        while True:
            with self._lock:
                process = self._idle.pop() if self._idle else None
            if process is None:
                try:
                    return _Process(self.limits)
                except OSError as exc:
                    raise Crowded("no process to decode it can be started") from exc
            if process.is_fit:
                return process
            process.end()

    def _give_back(self, process: _Process) -> None:
        with self._lock:
            keep = not self._closed and process.is_fit and len(self._idle) < self._most
            if keep:
                self._idle.append(process)
        if not keep:
            process.end()


@contextmanager
def _turn(turns: threading.BoundedSemaphore) -> Iterator[None]:
    if not turns.acquire(timeout=TURN_S):
        raise Crowded("too many pictures wait to be decoded; try again in a moment")
    try:
        yield
    finally:
        turns.release()
