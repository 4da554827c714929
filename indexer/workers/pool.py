"""The parent's side of the workers: hand out files, take answers, replace whoever falls."""

import json
import mmap
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import IO, Any, Literal, NamedTuple

import numpy as np

from fovea.indexer.decoding.limits import Limits, one_line
from fovea.search.clip.errors import FoveaError
from fovea.search.clip.preprocess import Preprocess

from .host import command
from .worker import FORCE, TIRED

WORKER = "fovea.indexer.workers.worker"
TICK_S = 0.1  # how long to wait for answers before the caller gets a turn
GRACE_S = 10.0  # a worker's own alarm comes first; this is for one that the kernel cannot end
BUFFER = 1 << 18  # bytes of a connection each way: all requests and answers under way fit
START_AT = 4  # files that every worker must have waiting before another is started
START_ATTEMPTS = 3  # workers in a row that may fall before they are ready


class Task(NamedTuple):
    """A file to read, as the walk saw it, and the image that it showed last time, if any."""

    path: bytes
    root_id: int
    size: int = 0
    mtime_ns: int = 0
    image_id: int | None = None
    force: bool = False  # decode even if the content is known
    retried: bool = False


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
    size: int = 0  # of the file and its modification time, from before it was read
    mtime_ns: int = 0
    reason: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    captions: Sequence[str] = ()  # what is written into the picture, where words were asked for


class WorkersError(FoveaError):
    """Worker processes cannot be started here."""


class _Process:
    """One worker: its process, its connection, and what it has been asked, oldest first."""

    def __init__(self, settings: dict[str, Any], shared: tuple[int, ...]) -> None:
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        self.complaints: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # closed by ``end``
        with theirs:
            self.process = subprocess.Popen(
                command(WORKER, json.dumps(settings | {"connection": theirs.fileno()})),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self.complaints,
                pass_fds=(theirs.fileno(), *shared),
                start_new_session=True,  # Ctrl-C is for the parent alone
            )
        self.connection = Connection(ours.detach())
        self.asked: deque[tuple[Task, int]] = deque()  # (task, slot)
        self.ready = False
        self.since = time.monotonic()  # when the oldest request became the one at hand

    def end(self) -> int | None:
        """Kill the process and return how it ended: an exit code, or minus a signal."""
        self.connection.close()
        try:
            code: int | None = self.process.wait(0.5 if self.process.poll() is None else 0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                pass  # held by a dead disk or network; the kernel ends it when that answers
            code = None
        return code

    def complaint(self) -> str:
        """Return the last line that the process wrote before it was ready."""
        self.complaints.seek(0)
        lines = self.complaints.read().decode("utf-8", "replace").strip().splitlines()
        return one_line(lines[-1]) if lines else "no reason given"


class Pool:
    """Worker processes, and the memory through which they hand pixels over.

    Use it as a context manager. ``known`` are hashes whose files need no decoding. Workers are
    started as the work requires it, up to ``workers``. ``words`` asks for ``Outcome.captions``.
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
        # Deep enough that no worker runs dry while the caller encodes one batch.
        self.depth = 4 + -(-batch_size // self.most)
        slots = self.most * self.depth + 2 * batch_size
        size = preprocess.size
        prefixes = np.frombuffer(b"".join(hash[:8] for hash in known), "<u8")
        self._memory = _Memory(slots * size * size * 3)
        self._known = _Memory(prefixes.nbytes)
        self._known.array("<u8")[:] = np.sort(prefixes)
        self.pixels = self._memory.array("uint8").reshape(slots, size, size, 3)
        self._free = deque(range(slots))
        self._processes: list[_Process] = []
        self._again: deque[Task] = deque()
        self._early_deaths = 0
        self._pace = 0.0  # seconds that a file takes, lately
        self._settings = {
            "preprocess": asdict(preprocess),
            "slots": slots,
            "pixels": self._memory.descriptor,
            "known": self._known.descriptor,
            "known_count": len(prefixes),
            "limits": asdict(limits),
            "words": words,
        }

    def __enter__(self) -> "Pool":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all workers, whatever they are doing."""
        for process in self._processes:
            process.process.kill()
        for process in self._processes:
            process.end()
            process.complaints.close()
        self._processes.clear()
        self.pixels = self.pixels[:0].copy()
        self._memory.close()
        self._known.close()

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
    def process_ids(self) -> list[int]:
        """The workers' process ids."""
        return [process.process.pid for process in self._processes]

    def outcomes(self, tasks: Iterator[Task | None]) -> Iterator[Outcome | None]:
        """Yield what became of each task, in any order; None now and then, when there is no news.

        ``tasks`` may yield None where the next one is not known yet. Tasks are drawn as slots
        become free, so a caller who keeps slots holds everything back.
        """
        exhausted = False
        while True:
            exhausted = self._hand_out(tasks, exhausted)
            busy = any(process.asked for process in self._processes)
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
            process = self._with_room()
            if process is None:
                self._again.appendleft(task)
                break
            self._ask(process, task)
        return exhausted

    def _with_room(self) -> _Process | None:
        """Choose the worker with the least to do; start one where all have enough already."""
        least = min(self._processes, key=lambda process: len(process.asked), default=None)
        enough = least is None or len(least.asked) >= START_AT
        if enough and len(self._processes) < self.most:
            least = _Process(self._settings, (self._memory.descriptor, self._known.descriptor))
            self._processes.append(least)
        # What a worker has been given it must finish: hand it no more than a second's work ahead.
        room = max(2, min(self.depth, int(1 / max(self._pace, 1e-6))))
        return least if least is not None and len(least.asked) < room else None

    def _ask(self, process: _Process, task: Task) -> None:
        slot = self._free.popleft()
        if not process.asked:
            process.since = time.monotonic()
        process.asked.append((task, slot))
        path = FORCE + task.path if task.force else task.path
        try:
            process.connection.send_bytes(slot.to_bytes(4, "big") + path)
        except OSError:
            pass  # it has fallen; ``_collect`` finds out and asks another

    def _collect(self) -> list[Outcome]:
        """Wait a moment for answers, and see to the workers that are late or gone."""
        by_connection = {process.connection: process for process in self._processes}
        if not by_connection:
            time.sleep(TICK_S / 10)
            return []
        found: list[Outcome] = []
        busy = any(process.asked for process in self._processes)
        for connection in wait(list(by_connection), TICK_S if busy else 0):
            process = by_connection[connection]  # type: ignore[index]  # we gave it Connections
            try:
                while process.connection.poll():
                    self._heard(process, process.connection.recv_bytes(), found)
            except (EOFError, OSError):
                found += self._fallen(process)
        late = time.monotonic() - self.limits.seconds - GRACE_S
        for process in list(self._processes):
            if process.asked and process.ready and process.since < late:
                found += self._fallen(process)
        return found

    def _heard(self, process: _Process, message: bytes, found: list[Outcome]) -> None:
        now = time.monotonic()
        if process.ready:
            task, slot = process.asked.popleft()
            found.append(self._outcome(task, slot, json.loads(message)))
            self._pace += 0.1 * (now - process.since - self._pace)
        else:
            process.ready = True
            self._early_deaths = 0
        process.since = now

    def _outcome(self, task: Task, slot: int, answer: dict[str, Any]) -> Outcome:
        if "hash" in answer:
            answer["hash"] = bytes.fromhex(answer["hash"])
        if answer["outcome"] == "pixels":
            return Outcome(task, slot=slot, **answer)
        self.release(slot)
        return Outcome(task, **({"size": task.size, "mtime_ns": task.mtime_ns} | answer))

    def _fallen(self, process: _Process) -> list[Outcome]:
        """Bury a worker; blame the file it had at hand, and ask others for the rest.

        A worker that was tired had none at hand.
        """
        code = process.end()
        self._processes.remove(process)
        if not process.ready:
            self._early_deaths += 1
            if self._early_deaths == START_ATTEMPTS:
                complaint = process.complaint()
                process.complaints.close()
                raise WorkersError(f"cannot start a worker process: {complaint}")
        process.complaints.close()
        failed: list[Outcome] = []
        for place, (task, slot) in enumerate(process.asked):
            self.release(slot)
            if place > 0 or not process.ready or code == TIRED:
                self._again.append(task)
            elif code in (-signal.SIGKILL, -signal.SIGTERM) and not task.retried:
                self._again.append(task._replace(retried=True))  # perhaps not the file's doing
            else:
                answer: dict[str, Any] = {"outcome": "failed", "reason": self._cause(code)}
                failed.append(Outcome(task, size=task.size, mtime_ns=task.mtime_ns, **answer))
        return failed

    def _cause(self, code: int | None) -> str:
        if code is None or code == -signal.SIGALRM:
            return f"too slow: not decoded within {self.limits.seconds:g} seconds"
        if code == -signal.SIGKILL:
            return "too large: the system ended its decoder, which happens when memory runs out"
        if code < 0:
            return f"broken: its decoder crashed ({signal.Signals(-code).name})"
        return f"broken: its decoder stopped with exit code {code}"


class _Memory:
    """Bytes that processes share through a file descriptor; they go when all have closed it."""

    def __init__(self, length: int) -> None:
        if hasattr(os, "memfd_create"):
            self.descriptor = os.memfd_create("fovea")
        else:
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
