"""The workers that read, hash and decode files: hand files out, collect answers, replace workers.

Started as programs of their own, so that they import neither torch nor the caller's main module.
"""

import contextlib
import mmap
import os
import signal
import tempfile
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from multiprocessing.connection import wait
from typing import Any, Literal, NamedTuple

import numpy as np

from fovea.indexer.decoding.formats import is_video
from fovea.indexer.decoding.limits import Limits, unexpected
from fovea.search.clip.errors import FoveaError
from fovea.search.clip.preprocess import Preprocess
from fovea.search.library.facts.signatures import StoredSignature

from .host import Process

WORKER = "fovea.indexer.workers.worker"
TICK_S = 0.1  # how long to wait for answers before the caller gets a turn
GRACE_S = 10.0  # a worker's own alarm comes first; this is for one that the kernel cannot end
START_AT = 4  # files that every worker must have waiting before another is started
USUAL_BATCH = 32  # pictures embedded at a time on a CPU
LARGEST_BATCH = 256  # to which a pool can be widened
START_ATTEMPTS = 3  # workers in a row that may die before they are ready


class Task(NamedTuple):
    """A file to read, as the walk saw it, and the image that it showed last time, if any."""

    path: bytes
    root_id: int
    size: int = 0
    mtime_ns: int = 0
    image_id: int | None = None
    force: bool = False  # decode even if the content is known
    retried: bool = False
    reread: bool = False  # with the stamps that are known: only because that was asked for
    ctime_ns: int | None = None
    at: int | None = None  # of a video, only the frame at this time, in milliseconds
    data: bytes | None = None  # the content, where that is not to be read from ``path``


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a task.

    ``pixels``: decoded into ``slot``; ``known``: its content needs no decoding; ``failed``: see
    ``reason``; ``unreachable``: its disk or network failed; ``gone``: no longer there. A slot is
    the caller's until ``Pool.release``.
    """

    task: Task
    outcome: Literal["pixels", "known", "failed", "unreachable", "gone"]
    slot: int | None = None
    hash: bytes | None = None
    bytes: int = 0
    size: int = 0  # of the file and the times of its last changes, from before it was read
    mtime_ns: int = 0
    ctime_ns: int | None = None
    reason: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    captions: Sequence[str] = ()  # what is written into the picture, where words were asked for
    signature: StoredSignature | None = None
    times: Sequence[int] = ()  # of a video's moments, in milliseconds; the slot has its poster
    frames: np.ndarray | None = None  # these moments, uint8 (n, size, size, 3)


class WorkersError(FoveaError):
    """Worker processes cannot be started here."""


class _Worker(Process):
    """A worker, and the files that it has been given, oldest first."""

    def __init__(self, limits: Limits, settings: dict[str, Any], shared: Sequence[int]) -> None:
        super().__init__(WORKER, limits, settings, shared)
        self.given: deque[tuple[Task, int]] = deque()  # (task, slot)
        self.since = time.monotonic()  # when it began with the first of them


class Pool:
    """Worker processes, and the memory through which they hand pixels over.

    Use it as a context manager. ``known`` are hashes whose files need no decoding. Workers are
    started as the work requires it, up to ``workers``. ``words`` asks for ``Outcome.captions``.
    ``batch_size`` is how many pictures the caller takes at a time.
    """

    def __init__(
        self,
        preprocess: Preprocess,
        limits: Limits,
        *,
        workers: int,
        batch_size: int,
        known: Iterable[bytes] = (),
        words: bool = False,
    ) -> None:
        self.limits, self.most = limits, max(1, workers)
        # Room for larger batches costs nothing until it is used: pages are made on first use.
        slots = self._slots_for(max(batch_size, LARGEST_BATCH))
        self.depth, self._slots = self._depth_for(batch_size), self._slots_for(batch_size)
        size = preprocess.size
        prefixes = np.frombuffer(b"".join(hash[:8] for hash in known), "<u8")
        self._memory = _Memory(slots * size * size * 3)
        self._known = _Memory(prefixes.nbytes)
        self._known.array("<u8")[:] = np.sort(prefixes)
        self.pixels = self._memory.array("uint8").reshape(slots, size, size, 3)
        self._free = deque(range(self._slots))
        self._workers: list[_Worker] = []
        self._again: deque[Task] = deque()
        self._early_deaths = 0
        self._pace = 0.0  # seconds that a file takes, lately
        self._settings = {
            "preprocess": asdict(preprocess),
            "slots": slots,
            "pixels": self._memory.descriptor,
            "known": self._known.descriptor,
            "known_count": len(prefixes),
            "words": words,
        }

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End all workers, whatever they are doing."""
        for worker in self._workers:
            worker.kill()
        for worker in self._workers:
            worker.end()
        self._workers.clear()
        self.pixels = self.pixels[:0].copy()
        self._memory.close()
        self._known.close()

    def _depth_for(self, batch_size: int) -> int:
        """Return the files per worker with which none runs dry while a batch is encoded."""
        return 4 + -(-batch_size // self.most)

    def _slots_for(self, batch_size: int) -> int:
        return self.most * self._depth_for(batch_size) + 2 * batch_size

    def widen(self, batch_size: int) -> None:
        """Let the caller take more pictures at a time, up to ``LARGEST_BATCH``."""
        slots = self._slots_for(min(batch_size, LARGEST_BATCH))
        if slots > self._slots:
            self._free.extend(range(self._slots, slots))
            self.depth, self._slots = self._depth_for(min(batch_size, LARGEST_BATCH)), slots

    def warm(self) -> None:
        """Start a worker, unless there is one, so that the first task need not wait for it."""
        self._with_room()

    def release(self, slot: int) -> None:
        """Give a slot back, once its pixels have been used."""
        self._free.append(slot)

    def retry(self, task: Task) -> None:
        """Put a task before all others."""
        self._again.append(task)

    @property
    def retrying(self) -> bool:
        """Say whether a task waits to be tried again."""
        return bool(self._again)

    @property
    def slots(self) -> int:
        """How many pictures can be under way or with the caller at once."""
        return self._slots

    @property
    def process_ids(self) -> list[int]:
        """The workers' process ids."""
        return [worker.pid for worker in self._workers]

    def outcomes(self, tasks: Iterator[Task | None]) -> Iterator[Outcome | None]:
        """Yield what became of each task, in any order; None now and then, when there is no news.

        ``tasks`` may yield None where the next one is not known yet. Tasks are drawn as slots
        become free, so a caller who keeps slots holds everything back.
        """
        exhausted = False
        while True:
            exhausted = self._hand_out(tasks, exhausted)
            busy = any(worker.given for worker in self._workers)
            if exhausted and not busy and not self._again:
                return
            found = self._collect()
            yield from found or (None,)

    def _hand_out(self, tasks: Iterator[Task | None], exhausted: bool) -> bool:
        """Give out what fits; return whether ``tasks`` has ended."""
        while self._free:
            if self._again:
                task: Task | None = self._again.popleft()
            elif exhausted:
                break
            else:
                try:
                    task = next(tasks)
                except StopIteration:
                    return True
            if task is None:
                break
            worker = self._with_room()
            if worker is None:
                self._again.appendleft(task)
                break
            self._give(worker, task)
        return exhausted

    def _with_room(self) -> _Worker | None:
        """Choose the worker with the least to do; start one where all have enough already."""
        least = min(self._workers, key=lambda worker: len(worker.given), default=None)
        enough = least is None or len(least.given) >= START_AT
        if enough and len(self._workers) < self.most:
            shared = (self._memory.descriptor, self._known.descriptor)
            least = _Worker(self.limits, self._settings, shared)
            self._workers.append(least)
        # What a worker has been given it must finish: hand it no more than a second's work ahead.
        room = max(2, min(self.depth, int(1 / max(self._pace, 1e-6))))
        return least if least is not None and len(least.given) < room else None

    def _give(self, worker: _Worker, task: Task) -> None:
        slot = self._free.popleft()
        if not worker.given:
            worker.since = time.monotonic()
        worker.given.append((task, slot))
        with contextlib.suppress(OSError):  # it has died: ``_collect`` notices, and asks another
            asked: dict[str, Any] = {"slot": slot, "force": task.force}
            if task.data is not None:
                worker.send(asked | {"name": os.fsdecode(task.path)}, task.data)
            else:
                worker.send(asked if task.at is None else asked | {"at": task.at}, task.path)

    def _collect(self) -> list[Outcome]:
        """Wait a moment for answers, and replace the workers that are late, dead or tired."""
        by_connection = {worker.connection: worker for worker in self._workers}
        if not by_connection:
            time.sleep(TICK_S / 10)
            return []
        found: list[Outcome] = []
        busy = any(worker.given for worker in self._workers)
        for connection in wait(list(by_connection), TICK_S if busy else 0):
            worker = by_connection[connection]  # type: ignore[index]  # we gave it Connections
            try:
                while worker.connection.poll() and not worker.is_tired:
                    self._hear(worker, found)
            except Exception:  # it has ended, or says what makes no sense
                found += self._clean_up(worker)
            else:
                if worker.is_tired:
                    found += self._clean_up(worker)
        late = time.monotonic() - GRACE_S
        for worker in list(self._workers):
            if not worker.given or not worker.is_ready:
                continue
            if worker.since < late - self._time_for(worker.given[0][0]):
                found += self._clean_up(worker)
        return found

    def _time_for(self, task: Task) -> float:
        """Return the seconds that a file may take."""
        if is_video(task.path):
            return self.limits.video_time(task.size)
        return self.limits.seconds

    def _hear(self, worker: _Worker, found: list[Outcome]) -> None:
        message, now = worker.receive(), time.monotonic()
        if message is None:
            self._early_deaths = 0
        else:
            task, slot = worker.given.popleft()
            found.append(self._outcome(task, slot, *message))
            self._pace += 0.1 * (now - worker.since - self._pace)
        worker.since = now

    @property
    def in_hand(self) -> list[bytes]:
        """The files that the workers are reading or decoding now."""
        return [worker.given[0][0].path for worker in self._workers if worker.given]

    def _outcome(self, task: Task, slot: int, answer: dict[str, Any], data: bytes) -> Outcome:
        try:
            found = outcome_of(task, slot, answer, data)
            if found.times:
                shape = (len(found.times), *self.pixels.shape[1:])
                found = replace(found, frames=np.frombuffer(data, np.uint8).reshape(shape))
        except Exception as exc:  # the answer makes no sense
            found = _failed(task, unexpected(exc))
        if found.slot is None:
            self.release(slot)
        return found

    def _clean_up(self, worker: _Worker) -> list[Outcome]:
        """Clean up a worker; fail the file that it died of, if it did, and requeue the rest."""
        code = worker.end()
        self._workers.remove(worker)
        if not worker.is_ready:
            self._early_deaths += 1
            if self._early_deaths == START_ATTEMPTS:
                raise WorkersError(f"cannot start a worker process: {worker.complaint}")
        failed: list[Outcome] = []
        for position, (task, slot) in enumerate(worker.given):
            self.release(slot)
            if position > 0 or not worker.is_ready or worker.is_tired:
                self._again.append(task)
            elif code in (-signal.SIGKILL, -signal.SIGTERM) and not task.retried:
                self._again.append(task._replace(retried=True))  # perhaps not the file's doing
            else:
                failed.append(_failed(task, self._cause(code, task)))
        return failed

    def _cause(self, code: int | None, task: Task) -> str:
        if code is None or code == -signal.SIGALRM:
            return f"too slow: not decoded within {self._time_for(task):.4g} seconds"
        if code == -signal.SIGKILL:
            return "too large: the system ended its decoder, which happens when memory runs out"
        if code < 0:
            return f"broken: its decoder crashed ({signal.Signals(-code).name})"
        return f"broken: its decoder stopped with exit code {code}"


def batch_of(encoder: object) -> int:
    """Return how many pictures to give an encoder at a time: more where one pass takes more."""
    return min(max(USUAL_BATCH, getattr(encoder, "batch_size", USUAL_BATCH)), LARGEST_BATCH)


def outcome_of(task: Task, slot: int, answer: dict[str, Any], grey: bytes = b"") -> Outcome:
    """Read a worker's answer about a task; the pixels, if any, are in ``slot``."""
    stamps = {"size": task.size, "mtime_ns": task.mtime_ns, "ctime_ns": task.ctime_ns}
    fields = stamps | answer
    if "hash" in fields:
        fields["hash"] = bytes.fromhex(fields["hash"])
    if "signature" in fields:
        version, bits, sharpness = fields["signature"]
        fields["signature"] = StoredSignature(version, bits, sharpness, grey)
    return Outcome(task, slot=slot if fields["outcome"] == "pixels" else None, **fields)


def _failed(task: Task, reason: str) -> Outcome:
    return outcome_of(task, 0, {"outcome": "failed", "reason": reason})


class _Memory:
    """Bytes that processes share through a file descriptor; they go when all have closed it."""

    def __init__(self, length: int) -> None:
        try:
            self.descriptor = os.memfd_create("fovea")
        except (AttributeError, OSError):  # not on macOS, nor in every sandbox
            with tempfile.TemporaryFile() as file:
                self.descriptor = os.dup(file.fileno())
        os.truncate(self.descriptor, length)
        self._map: mmap.mmap | bytearray = bytearray()
        if length:
            self._map = mmap.mmap(self.descriptor, length)

    def array(self, dtype: str) -> np.ndarray:
        """View the whole as an array of one dimension."""
        return np.frombuffer(self._map, dtype)

    def close(self) -> None:
        """Let go of the bytes; they stay while an array shows them."""
        os.close(self.descriptor)
        self._map = bytearray()
