"""Write a file whole or not at all; say of a full disk which folder it holds, and what is free."""

import contextlib
import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, cast

from .errors import ModelError

__all__ = [
    "FULL",
    "free_bytes",
    "full_text",
    "has_little_room",
    "in_words",
    "is_full",
    "reason_of",
    "replace_file",
    "room_advice",
    "sync_folder",
]

# The disk, the user's quota of it, or the limit on the size of a file (``ulimit -f``).
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
LITTLE = 1 << 20  # bytes: SQLite may say "disk I/O error" where so little is free


def is_full(error: BaseException | None) -> bool:
    """Whether an error, or one that it was raised from, says that a disk has no room."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL:
            return True
        error = error.__cause__
    return False


def free_bytes(folder: Path) -> int | None:
    """Return how many bytes this user may still write below a folder; None if it is not known.

    The folder need not exist yet.
    """
    for place in (folder, *folder.absolute().parents):
        try:
            return shutil.disk_usage(place).free
        except FileNotFoundError:
            continue
        except OSError:
            return None
    return None


def in_words(size: int) -> str:
    """Write a number of bytes for people."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:,.1f} {unit}"
    return f"{size} bytes"


def full_text(folder: Path, error: OSError | None = None, needed: int | None = None) -> str:
    """Say which folder's disk is full, how much is needed and how much is free.

    ``error`` is what the disk answered, and ``needed`` the bytes that were to be written, if known.
    """
    free = free_bytes(folder)
    parts = [] if needed is None else [f"{in_words(needed)} needed"]
    parts += [] if free is None else [f"{in_words(free)} free"]
    figures = f" ({', '.join(parts)})" if parts else ""
    what = f"the disk of {folder} is full"
    if error is not None and error.errno == errno.EDQUOT:
        what = f"your quota on the disk of {folder} is used up"
    elif error is not None and error.errno == errno.EFBIG:
        what = f"the file has reached the largest size allowed in {folder} (ulimit -f)"
    return f"{what}{figures}"


def room_advice(folder: Path, error: OSError | None = None, needed: int | None = None) -> str:
    """Return ``full_text`` with what to do."""
    return f"{full_text(folder, error, needed)}; make room there and try again"


def reason_of(error: OSError, folder: Path) -> str:
    """Say why a write below a folder has failed; for a full disk with figures and what to do."""
    return room_advice(folder, error) if error.errno in FULL else str(error.strerror or error)


def has_little_room(folder: Path) -> bool:
    """Whether a disk has less room than a small write takes; False where that is not known."""
    free = free_bytes(folder)
    return free is not None and free < LITTLE


def replace_file(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Let ``write`` fill a new file, then replace the one at ``path`` with it.

    A kill or a power failure leaves either the old file or the new one, complete. The new one's
    permissions follow the user's umask. Raise ``ModelError`` if it cannot be written, for example
    because the disk is full; the old one is then unchanged.
    """
    partial = path.with_name(f"{path.name}.part")
    watched = None
    try:
        with partial.open("wb") as file:
            watched = _Watched(file)
            write(cast(IO[bytes], watched))
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        sync_folder(path.parent)
    except (OSError, RuntimeError) as exc:  # torch turns errors of the disk into a RuntimeError
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        cause = (watched and watched.error) or exc
        reason = (isinstance(cause, OSError) and cause.strerror) or cause
        whole = "; the earlier file is unchanged" if path.exists() else ""
        if isinstance(cause, OSError) and cause.errno in FULL:
            reason = room_advice(path.parent, cause)
        raise ModelError(f"cannot write {path}: {reason}{whole}") from exc


class _Watched:
    """A file that keeps the error of a failed write, which its writer may disguise."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        """Write to the file."""
        try:
            return self._file.write(data)
        except OSError as exc:
            self.error = exc
            raise

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def sync_folder(folder: Path) -> None:
    """Make a rename durable; only POSIX systems can synchronise a folder."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
