"""What has changed below the roots and waits until it is whole."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = ["MOST_FILES", "Pending", "Work"]

SETTLED_S = 0.7  # without another change, after which a file that was closed is whole
UNCLOSED_S = 2.5  # the same for a file whose writer has not been seen closing it
PATIENCE_S = 10.0  # for files still being written, where a whole root is to be scanned
MOST_FILES = 200  # read by name; beyond that their root is scanned
FIRST_PAUSE_S, LONGEST_PAUSE_S = 2.0, 300.0  # between two reads of a file that keeps changing
MOST_REMEMBERED = 1000  # files that were read lately


class Work(NamedTuple):
    """What is to be indexed now: whole roots, and single files of other roots."""

    roots: tuple[bytes, ...]
    files: tuple[bytes, ...]


@dataclass(slots=True)
class _File:
    root: bytes
    changed: float  # when, by the clock
    is_closed: bool

    def is_settled(self, now: float) -> bool:
        return now - self.changed >= (SETTLED_S if self.is_closed else UNCLOSED_S)


@dataclass(slots=True)
class _Read:
    """When a file was read, and how long it is left alone then: longer each time in a row."""

    at: float
    pause: float


@dataclass(slots=True)
class _Root:
    first: float
    last: float


@dataclass(slots=True)
class Pending:
    """Changes, told by one thread and taken by another, joined until they have settled.

    A picture that was written is read by name. What says less (a file or folder that was moved or
    has gone, a new folder whose files may have been missed, an ignore file) has its root scanned.
    """

    clock: Callable[[], float] = time.monotonic
    _files: dict[bytes, _File] = field(default_factory=dict)
    _closed: dict[bytes, _File] = field(default_factory=dict)  # those of them that are
    _roots: dict[bytes, _Root] = field(default_factory=dict)
    _read: dict[bytes, _Read] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def written(self, root: bytes, path: bytes, *, is_closed: bool) -> None:
        """Note that a picture was written to; ``is_closed`` if its writer has finished."""
        with self._lock:
            now = self.clock()
            self._closed.pop(path, None)
            self._files[path] = file = _File(root, now, is_closed)
            if is_closed:
                self._closed[path] = file
            if len(self._files) > MOST_FILES:
                self._join(now)

    def unclear(self, root: bytes) -> None:
        """Note that a root has to be scanned."""
        with self._lock:
            now = self.clock()
            before = self._roots.get(root)
            self._roots[root] = _Root(before.first if before else now, now)

    def forget(self, path: bytes) -> None:
        """Note that a file has gone, so that nobody waits for it."""
        with self._lock:
            self._drop(path)

    def _drop(self, path: bytes) -> None:
        self._files.pop(path, None)
        self._closed.pop(path, None)

    def drop(self, root: bytes) -> None:
        """Forget all that waits below a root, which has left the library."""
        with self._lock:
            self._roots.pop(root, None)
            files = self._files.items()
            self._files = {path: file for path, file in files if file.root != root}

    def _join(self, now: float) -> None:
        """Have roots scanned instead of their many files read.

        This comes with each file beyond ``MOST_FILES``, so it goes over those alone that it drops.
        """
        for path, file in self._closed.items():
            del self._files[path]
            before = self._roots.get(file.root)
            self._roots[file.root] = _Root(before.first if before else now, now)
        self._closed.clear()

    def take(self) -> Work | None:
        """Return what has settled, and forget it; None if nothing has."""
        with self._lock:
            now = self.clock()
            roots = [root for root, noted in self._roots.items() if self._is_due(root, noted, now)]
            for root in roots:
                del self._roots[root]
                for path, file in list(self._files.items()):
                    if file.root == root and file.is_settled(now):
                        self._drop(path)
            files = [
                path
                for path, file in self._files.items()
                if file.is_settled(now)
                and file.root not in self._roots
                and not self._is_resting(path, now)
            ]
            for path in files:
                self._drop(path)
            self._remember(files, now)
        return Work(tuple(roots), tuple(files)) if roots or files else None

    def _is_resting(self, path: bytes, now: float) -> bool:
        """Whether a file that keeps changing, such as a camera's newest still, was just read."""
        last = self._read.get(path)
        return last is not None and now - last.at < last.pause

    def _remember(self, files: list[bytes], now: float) -> None:
        for path in files:
            last = self._read.pop(path, None)
            again = last is not None and now - last.at < 4 * last.pause
            pause = min(2 * last.pause, LONGEST_PAUSE_S) if last and again else FIRST_PAUSE_S
            self._read[path] = _Read(now, pause)
        while len(self._read) > MOST_REMEMBERED:
            del self._read[next(iter(self._read))]

    def _is_due(self, root: bytes, noted: _Root, now: float) -> bool:
        """Whether a root is quiet: a scan would read files that are still being written."""
        if now - noted.first >= PATIENCE_S:
            return True
        writing = any(
            file.root == root and not file.is_settled(now) for file in self._files.values()
        )
        return now - noted.last >= SETTLED_S and not writing
