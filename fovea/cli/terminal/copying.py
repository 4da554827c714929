"""Copy the files of hits into a folder, where nothing is ever overwritten."""

import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import BinaryIO

from fovea.search.clip.disk import reason_of
from fovea.search.clip.errors import FoveaError
from fovea.search.clip.user_path import user_path
from fovea.search.library.paths import printable_name

__all__ = ["Check", "checked_target", "copy_file", "open_regular"]

Check = Callable[[int, str], bool]  # whether an open file, of a path, is the picture's

LONGEST_NAME = 255  # bytes, on all common file systems
BUFFER = 1 << 20  # bytes
_FLAGS = os.O_RDONLY
for _name in ("O_NONBLOCK", "O_NOFOLLOW", "O_NOCTTY", "O_CLOEXEC"):  # as in indexing: no pipes
    _FLAGS |= getattr(os, _name, 0)


def checked_target(folder: Path, roots: Iterable[Path]) -> bytes:
    """Return the path of the folder to copy into, without links; it need not exist yet.

    Raise ``FoveaError`` if it lies in one of the library's folders: nothing there is ever written,
    and the copies would be indexed.
    """
    place = os.path.realpath(os.fsencode(user_path(folder)))
    known: dict[bytes | tuple[int, int], Path] = {}  # by path, and by device and inode
    for path in roots:
        known[os.path.realpath(os.fsencode(path))] = path  # also one that is unplugged
        with suppress(OSError):
            known[_identity(os.fsencode(path))] = path
    above = place
    while True:
        root = known.get(above)
        with suppress(OSError):
            root = root or known.get(_identity(above))
        if root is not None:
            raise FoveaError(
                f"{printable_name(os.fsdecode(place))} is in {printable_name(root)}, which the "
                "library covers, and fovea writes nothing there; choose another folder, or copy "
                "by yourself: fovea search -0 QUERY | xargs -0 cp -n -t DIR"
            )
        if above == os.path.dirname(above):
            return place
        above = os.path.dirname(above)


def _identity(path: bytes) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def copy_file(paths: Iterable[str], folder: bytes, check: Check | None = None) -> str:
    """Copy the first of an image's files that can be read into a folder; return the new path.

    The copy has the file's name, with a number where that is taken, its times, and no permissions
    that the file lacks. Raise
    ``FoveaError`` with the reason if it cannot be made; nothing of it is left then.
    """
    names = tuple(paths)
    try:
        path, source = open_regular(names, check)
        with source:
            return os.fsdecode(_copied(source, os.path.basename(os.fsencode(path)), folder))
    except OSError as exc:
        reason = reason_of(exc, Path(os.fsdecode(folder)))
        raise FoveaError(f"cannot copy {printable_name(names[0])}: {reason}") from exc


def open_regular(paths: tuple[str, ...], check: Check | None = None) -> tuple[str, BinaryIO]:
    """Open the first regular file that passes; raise the first error if there is none."""
    first: OSError | None = None
    for path in paths:
        try:
            file = open(os.open(path, _FLAGS), "rb")
            try:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise OSError(errno.EINVAL, "it is not a regular file")
                if check is not None and not check(file.fileno(), path):
                    raise OSError(errno.EINVAL, "it is not the picture that was indexed")
            except BaseException:
                file.close()
                raise
            return path, file
        except OSError as exc:
            first = first or exc
    assert first is not None  # an image of an answer has a file
    raise first


def _copied(source: BinaryIO, name: bytes, folder: bytes) -> bytes:
    os.makedirs(folder, exist_ok=True)
    status = os.fstat(source.fileno())
    target, file = _created(folder, name, stat.S_IMODE(status.st_mode) & 0o666)
    try:
        with file:
            shutil.copyfileobj(source, file, BUFFER)
        with suppress(OSError):  # some systems keep no times
            os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
    except BaseException:
        with suppress(OSError):
            os.unlink(target)
        raise
    return target


def _created(folder: bytes, name: bytes, mode: int) -> tuple[bytes, BinaryIO]:
    """Create a file of this name, or with a number before its extension if the name is taken."""
    stem, extension = os.path.splitext(name)
    for number in count(1):
        end = b"-%d" % number + extension if number > 1 else extension
        target = os.path.join(folder, stem[: LONGEST_NAME - len(end)] + end)
        try:
            return target, open(target, "xb", opener=partial(os.open, mode=mode))
        except FileExistsError:
            continue
    raise AssertionError  # numbers do not end
