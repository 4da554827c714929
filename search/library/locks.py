"""Locks that let one process at a time write to a library."""

import contextlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from fovea.search.errors import LibraryBusy, LibraryError

__all__ = ["briefly", "exclusive", "holder_of"]

UNKNOWN = "unknown"
MOMENT_S = 5.0  # most that a lock is held by a process that does not name itself


@contextlib.contextmanager
def exclusive(
    folder: Path, name: str, wait_s: float | None = 0.0, *, doing: str = "is indexing into"
) -> Iterator[None]:
    """Hold the lock ``name`` of a library folder, waiting up to ``wait_s`` (``None``: for ever).

    The operating system releases it when the process ends, however that happens; a file beside it
    names the process. Raise ``LibraryBusy``, which says what another process is ``doing`` there.
    """
    lock = FileLock(folder / f"{name}.lock", timeout=-1 if wait_s is None else wait_s)
    holder = folder / f"{name}.pid"
    try:
        try:
            lock.acquire()
        except Timeout:
            if _pid(holder) != UNKNOWN:
                raise
            lock.acquire(timeout=MOMENT_S)  # it is held ``briefly``
    except Timeout as exc:
        raise LibraryBusy(
            f"another fovea (pid {_pid(holder)}) {doing} {folder}; "
            "wait until it has finished, or stop it"
        ) from exc
    except OSError as exc:
        raise LibraryError(
            f"cannot lock {folder}: {exc.strerror or exc}; make the folder writable, or use another"
        ) from exc
    try:
        _announce(holder)
        yield
    finally:
        with contextlib.suppress(OSError):
            holder.unlink(missing_ok=True)
        lock.release()


@contextlib.contextmanager
def briefly(folder: Path, name: str, wait_s: float = 0.0) -> Iterator[bool | None]:
    """Hold a lock for a moment, without naming this process.

    Yield False if another process holds it after ``wait_s``, None where the system has no lock.
    """
    lock = FileLock(folder / f"{name}.lock")
    try:
        lock.acquire(timeout=wait_s, poll_interval=0.01)
    except Timeout:
        yield False
        return
    except OSError:
        yield None
        return
    try:
        yield True
    finally:
        lock.release()


def _announce(holder: Path) -> None:
    temporary = holder.with_suffix(f".{os.getpid()}.tmp")
    with contextlib.suppress(OSError):  # only for messages: the lock itself is held
        temporary.write_text(json.dumps({"pid": os.getpid()}), encoding="utf-8")
        os.replace(temporary, holder)


def holder_of(folder: Path, name: str) -> str | None:
    """Return the id of the process that holds the lock ``name``; None if none does."""
    path = folder / f"{name}.lock"
    if not path.exists():  # asking makes no file, and no folder
        return None
    try:
        with FileLock(path, timeout=0):
            return None
    except Timeout:
        return _pid(folder / f"{name}.pid")
    except OSError:
        return None  # a read-only folder


def _pid(holder: Path) -> str:
    for _ in range(10):  # the holder may not have written it yet
        try:
            return str(json.loads(holder.read_text(encoding="utf-8"))["pid"])
        except (OSError, ValueError, KeyError):
            time.sleep(0.01)
    return UNKNOWN
