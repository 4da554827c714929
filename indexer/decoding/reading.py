"""Read a regular file whole, without ever waiting for a pipe or a device."""

import errno
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256

from fovea.search.library.facts.stamps import stamps_of

from .limits import Gone, Limits, Refused, Unreachable, Unreadable, megabytes

# O_NONBLOCK: opening a FIFO must not wait for a writer. O_NOFOLLOW: a link may point out of the
# root. O_NOCTTY: a terminal must not become ours. Systems without one of them do without.
_FLAGS = os.O_RDONLY
for _name in ("O_NONBLOCK", "O_NOFOLLOW", "O_NOCTTY", "O_CLOEXEC", "O_BINARY"):
    _FLAGS |= getattr(os, _name, 0)

TICK_NS = 20_000_000  # the coarsest clock that stamps files with parts of a second: 50 Hz
SECONDS_NS = 2_000_000_000  # file systems that only know whole seconds may know every other one

STEP = 16 << 20  # bytes per read, which allocates as many

KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
    stat.S_IFLNK: "a symbolic link",
}


@dataclass(frozen=True, slots=True)
class Contents:
    """A file's bytes, and its stamps from before they were read.

    A time is one less than the truth if a later change might leave no other trace: in a file
    modified a moment ago, within the same tick of its clock. ``ctime_ns`` is None where the file
    system has none.
    """

    data: bytes
    size: int
    mtime_ns: int
    ctime_ns: int | None = None


def what_is(mode: int) -> str:
    """Name what a mode describes, if that is not a regular file."""
    return KINDS.get(stat.S_IFMT(mode), "of an unknown kind")


def read_file(path: bytes, limits: Limits) -> Contents:
    """Read a regular file of at most ``limits.file_bytes``.

    Raise ``Gone`` if it is no longer there, ``Unreadable`` if the system refuses it,
    ``Unreachable`` if a device fails, and ``Refused``, without reading it, if it is too large or
    not a regular file.
    """
    with open_file(path, limits.file_bytes) as opened:
        # A size of 0 may also mean that the kernel generates the contents as they are read.
        data = _read(opened.descriptor, opened.size or limits.file_bytes + 1)
    if len(data) > limits.file_bytes:
        raise _too_large(len(data), limits.file_bytes)
    return Contents(data, opened.size, opened.mtime_ns, opened.ctime_ns)


@dataclass(frozen=True, slots=True)
class Opened:
    """An open regular file, and its stamps as ``Contents`` has them."""

    descriptor: int
    size: int
    mtime_ns: int
    ctime_ns: int | None

    def hash(self) -> bytes:
        """Return the SHA-256 of its contents, and go back to its beginning."""
        digest = sha256()
        while part := os.read(self.descriptor, STEP):
            digest.update(part)
        os.lseek(self.descriptor, 0, os.SEEK_SET)
        return digest.digest()


@contextmanager
def open_file(path: bytes, most: int) -> Iterator[Opened]:
    """Open a regular file of at most ``most`` bytes; raise as ``read_file`` does."""
    now = time.time_ns()
    try:
        descriptor = os.open(path, _FLAGS)
    except OSError as exc:
        raise _translate(exc) from exc
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise Refused(f"not a file but {what_is(found.st_mode)}")
        size, mtime_ns, ctime_ns = stamps_of(found)
        if size > most:
            raise _too_large(size, most)
        if ctime_ns is not None:
            ctime_ns = distinct_time(ctime_ns, now)
        yield Opened(descriptor, size, distinct_time(mtime_ns, now), ctime_ns)
    except OSError as exc:
        raise _translate(exc) from exc
    finally:
        os.close(descriptor)


def distinct_time(time_ns: int, now_ns: int) -> int:
    """Return the time to store for a file read now, or another if a later change may repeat it."""
    tick = TICK_NS if time_ns % 1_000_000_000 else SECONDS_NS
    return time_ns - 1 if abs(now_ns - time_ns) < tick else time_ns


def _read(descriptor: int, most: int) -> bytes:
    """Read to the end of a file, or ``most`` bytes if that is less."""
    parts: list[bytes] = []
    left = most
    while left > 0:
        part = os.read(descriptor, min(left, STEP))
        if not part:
            break
        parts.append(part)
        left -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _too_large(size: int, most: int) -> Refused:
    return Refused(f"too large: the file has {megabytes(size)}; the limit is {megabytes(most)}")


def _translate(exc: OSError) -> Exception:
    if exc.errno in (errno.ENOENT, errno.ENOTDIR):
        return Gone(exc.strerror)
    if exc.errno == errno.ELOOP:
        return Refused("not a file but a symbolic link")
    if exc.errno == errno.ENXIO:
        return Refused("not a file but a socket")
    denied = exc.errno in (errno.EACCES, errno.EPERM)
    kind = Unreadable if denied else Unreachable
    return kind(f"unreadable: {exc.strerror or type(exc).__name__}")
