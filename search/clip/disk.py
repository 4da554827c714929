"""What is told of a disk that is full: which folder it holds, and how much is free."""

import errno
import shutil
from pathlib import Path

__all__ = [
    "FULL",
    "free_bytes",
    "full_text",
    "has_little_room",
    "in_words",
    "is_full",
    "reason_of",
    "room_advice",
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
