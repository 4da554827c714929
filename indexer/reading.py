"""Read a file whole, once, without ever waiting on something that is no file."""

import errno
import os
import stat
from dataclasses import dataclass

from .limits import Gone, Limits, Refused, Unreadable, megabytes

# O_NONBLOCK: opening a FIFO must not wait for a writer. O_NOFOLLOW: a link may point out of the
# root. O_NOCTTY: a terminal must not become ours. Platforms without one of them get 0.
_FLAGS = os.O_RDONLY
for _name in ("O_NONBLOCK", "O_NOFOLLOW", "O_NOCTTY", "O_CLOEXEC", "O_BINARY"):
    _FLAGS |= getattr(os, _name, 0)

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
    """A file's bytes, and its size and modification time from before they were read."""

    data: bytes
    size: int
    mtime_ns: int


def what_is(mode: int) -> str:
    """Name the kind of thing that a mode describes, where it is no regular file."""
    return KINDS.get(stat.S_IFMT(mode), "no regular file")


def read_file(path: bytes, limits: Limits) -> Contents:
    """Read a regular file of at most ``limits.file_bytes``.

    Raise ``Gone`` if it is no longer there, ``Unreadable`` if the system refuses it, and
    ``Refused`` if it is too large or no regular file; neither is read at all.
    """
    try:
        descriptor = os.open(path, _FLAGS)
    except OSError as exc:
        raise _translate(exc) from exc
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise Refused(f"not a file: {what_is(found.st_mode)}")
        if found.st_size > limits.file_bytes:
            raise _too_large(found.st_size, limits)
        with os.fdopen(descriptor, "rb", buffering=0, closefd=False) as file:
            data = file.read(limits.file_bytes + 1) if _may_grow(found) else _exactly(file, found)
    except OSError as exc:
        raise _translate(exc) from exc
    finally:
        os.close(descriptor)
    if len(data) > limits.file_bytes:
        raise _too_large(len(data), limits)
    return Contents(data, found.st_size, found.st_mtime_ns)


def _may_grow(found: os.stat_result) -> bool:
    """Say whether a file's size is unknown beforehand, as of those that a kernel makes up."""
    return found.st_size == 0


def _exactly(file: object, found: os.stat_result) -> bytes:
    """Read as many bytes as the file had when it was opened; fewer if it has shrunk since."""
    parts: list[bytes] = []
    left = found.st_size
    while left > 0:
        part = file.read(left)  # type: ignore[attr-defined]  # one read returns at most 2 GB
        if not part:
            break
        parts.append(part)
        left -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _too_large(size: int, limits: Limits) -> Refused:
    limit = megabytes(limits.file_bytes)
    return Refused(f"too large: the file has {megabytes(size)}; the limit is {limit}")


def _translate(exc: OSError) -> Exception:
    if exc.errno in (errno.ENOENT, errno.ENOTDIR):
        return Gone(exc.strerror)
    if exc.errno == errno.ELOOP:
        return Refused("not a file: a symbolic link")
    if exc.errno == errno.ENXIO:
        return Refused("not a file: a socket")
    return Unreadable(f"unreadable: {exc.strerror or type(exc).__name__}")
