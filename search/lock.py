"""The lock that lets one process at a time write to a library."""

import contextlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from .errors import LibraryBusy, LibraryError

__all__ = ["exclusive"]


@contextlib.contextmanager
def exclusive(folder: Path, name: str, wait_s: float | None = 0.0) -> Iterator[None]:
    """Hold the lock ``name`` of a library folder, waiting up to ``wait_s`` (``None``: for ever).

    The operating system releases it when the process ends, however that happens. A file beside
    it says who holds it. Raise ``LibraryBusy`` if another holder stays.
    """
    lock = FileLock(folder / f"{name}.lock", timeout=-1 if wait_s is None else wait_s)
    holder = folder / f"{name}.pid"
    try:
        lock.acquire()
    except Timeout as exc:
        raise LibraryBusy(_busy(folder, holder)) from exc
    except OSError as exc:
        raise LibraryError(f"cannot lock {folder}: {exc.strerror or exc}") from exc
    try:
        _announce(holder)
        yield
    finally:
        with contextlib.suppress(OSError):
            holder.unlink(missing_ok=True)
        lock.release()


def _announce(holder: Path) -> None:
    temporary = holder.with_suffix(f".{os.getpid()}.tmp")
    with contextlib.suppress(OSError):  # only a courtesy: the lock itself is held
        temporary.write_text(json.dumps({"pid": os.getpid()}), encoding="utf-8")
        os.replace(temporary, holder)


def _busy(folder: Path, holder: Path) -> str:
    pid = "unknown"
    for _ in range(10):  # the holder may have locked a moment ago and not yet said so
        try:
            pid = str(json.loads(holder.read_text(encoding="utf-8"))["pid"])
            break
        except (OSError, ValueError, KeyError):
            time.sleep(0.01)
    return (
        f"another fovea (pid {pid}) is indexing into {folder}; "
        "wait until it has finished, or stop it"
    )
