"""A file's stamps: what a file system says of it, in numbers that can be stored and compared.

Nothing that a file system says is sure to fit: times in nanoseconds outgrow SQLite's integers
before 1677 and after 2262, and broken disks and networks give anything.
"""

import os
from datetime import UTC, datetime
from typing import NamedTuple

__all__ = ["EARLIEST", "HAS_CTIME", "LATEST", "Stamps", "moment", "stamps", "stamps_of"]

EARLIEST, LATEST = -(2**63), 2**63 - 1  # SQLite's integers; times beyond are stored as these

HAS_CTIME = os.name != "nt"  # Windows gives the time of creation, which no edit changes


class Stamps(NamedTuple):
    """A file's size in bytes, and in nanoseconds since 1970 when its content and inode changed.

    ``ctime_ns`` is None where the file system does not know it.
    """

    size: int
    mtime_ns: int
    ctime_ns: int | None


def stamps_of(status: os.stat_result) -> Stamps:
    """Return a file's stamps, each within SQLite's integers."""
    return stamps(status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def stamps(size: int, mtime_ns: int, ctime_ns: int | None) -> Stamps:
    """Return the stamps that a file system gives, each within SQLite's integers.

    A time out of range becomes the nearest one in range, so that the same file always has the same
    stamps, whoever looks.
    """
    if not 0 <= size <= LATEST:
        size = _within(size, 0)
    if not EARLIEST <= mtime_ns <= LATEST:
        mtime_ns = _within(mtime_ns, EARLIEST)
    if ctime_ns is not None and not EARLIEST <= ctime_ns <= LATEST:
        ctime_ns = _within(ctime_ns, EARLIEST)
    return Stamps(size, mtime_ns, ctime_ns if ctime_ns and HAS_CTIME else None)


def _within(number: int, least: int) -> int:
    return min(max(number, least), LATEST)


def moment(mtime_ns: int) -> datetime | None:
    """Return a time as a date and time in UTC; None if it is out of range."""
    if not EARLIEST < mtime_ns < LATEST:
        return None
    return datetime.fromtimestamp(mtime_ns // 1_000_000_000, UTC)
