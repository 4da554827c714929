"""Locks that let one process at a time write to a library."""

import contextlib
import errno
import glob
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from fovea.search.clip.disk import FULL, room_advice
from fovea.search.errors import LibraryBusy, LibraryError, LibraryReadOnly

__all__ = ["briefly", "exclusive", "holder_of", "is_alive", "sweep_parts"]

UNKNOWN = "unknown"
LONG_S = 86_400.0  # after which a process that is alive is not the one that began a file
MOMENT_S = 5.0  # most that a lock is held by a process that does not name itself

_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextlib.contextmanager
def exclusive(
    folder: Path, name: str, wait_s: float | None = 0.0, *, doing: str = "is indexing into"
) -> Iterator[None]:
    """Hold the lock ``name`` of a library folder, waiting up to ``wait_s`` (``None``: for ever).

    The operating system releases it when the process ends, however that happens; a file beside it
    names the process. Raise ``LibraryBusy``, which says what another process is ``doing`` there,
    and ``LibraryReadOnly`` where the folder cannot be written. A folder that is gone stays so.
    """
    holder = folder / f"{name}.pid"
    try:
        lock = _lock(folder, name)
        try:
            lock.acquire(timeout=-1 if wait_s is None else wait_s)
        except Timeout:
            pid = _pid(holder)
            if pid.isdecimal() and is_alive(int(pid)):
                raise
            lock.acquire(timeout=MOMENT_S)  # it is held ``briefly``
    except Timeout as exc:
        raise LibraryBusy(
            f"another fovea (pid {_pid(holder)}) {doing} {folder}; "
            "wait until it has finished, or stop it"
        ) from exc
    except OSError as exc:
        if exc.errno in FULL:
            raise LibraryError(f"cannot lock {folder}: {room_advice(folder, exc)}") from exc
        kind = LibraryReadOnly if exc.errno in _REFUSED else LibraryError
        raise kind(
            f"cannot lock {folder}: {exc.strerror or exc}; make the folder writable, or use another"
        ) from exc
    try:
        _clean(folder, name)
        _announce(holder)
        yield
    finally:
        with contextlib.suppress(OSError):
            holder.unlink(missing_ok=True)
        lock.release()


@contextlib.contextmanager
def briefly(folder: Path, name: str, wait_s: float = 0.0) -> Iterator[bool | None]:
    """Hold a lock for a moment, without naming this process.

    Yield False if another process holds it after ``wait_s``, None where the system has no lock, or
    the folder is gone.
    """
    try:
        lock = _lock(folder, name)
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


def _lock(folder: Path, name: str) -> FileLock:
    """Return a lock, which makes its file and its folder. Raise ``OSError`` for a missing folder.

    A disk that was taken away must not look as if it were there, and empty.
    """
    if not folder.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder))
    return FileLock(folder / f"{name}.lock")


def _announce(holder: Path) -> None:
    temporary = holder.with_suffix(f".{os.getpid()}.tmp")
    try:
        temporary.write_text(json.dumps({"pid": os.getpid()}), encoding="utf-8")
        os.replace(temporary, holder)
    except OSError:  # only for messages: the lock itself is held
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _clean(folder: Path, name: str) -> None:
    """Delete what earlier holders have left, who were killed or met a full disk."""
    for left in folder.glob(f"{glob.escape(name)}.*.tmp"):
        with contextlib.suppress(OSError):
            left.unlink(missing_ok=True)


def sweep_parts(folder: Path, stem: str) -> None:
    """Delete the files STEM.PID.part of a library's folder that killed processes have left.

    ``stem`` is a glob pattern. Files that a living process may be writing stay.
    """
    for left in folder.glob(f"{stem}.*.part"):
        pid = left.name.split(".")[-2]
        with contextlib.suppress(OSError):
            is_old = time.time() - left.lstat().st_mtime > LONG_S
            if pid.isdecimal() and (is_old or not is_alive(int(pid))):
                left.unlink()


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
    except OSError:  # it cannot be written here, but its owner may hold it
        return _pid(folder / f"{name}.pid") if _is_held(path) else None


def _is_held(path: Path) -> bool:
    """Whether a process holds a lock that can only be read here."""
    try:
        import fcntl
    except ImportError:  # not on Windows
        return False
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # closing the file lets go of it
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _pid(holder: Path) -> str:
    for _ in range(10):  # the holder may not have written it yet
        try:
            return str(json.loads(holder.read_text(encoding="utf-8"))["pid"])
        except (OSError, ValueError, KeyError):
            time.sleep(0.01)
    return UNKNOWN


def is_alive(pid: int) -> bool:
    """Whether a process of this machine has an id; True where it cannot be told."""
    if os.name == "nt":
        return True  # there, signal 0 is not a question
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True  # another user's
    return True
