"""List the pictures under a root, without opening any."""

import errno
import os
import stat
import threading
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from fovea.indexer.decoding.formats import EXTENSIONS, extension
from fovea.indexer.decoding.limits import unexpected
from fovea.indexer.decoding.reading import what_is
from fovea.search.library.facts.stamps import stamps_of

from .ignore import BadIgnoreFile, Ignore


class Found(NamedTuple):
    """A file with a picture's extension; ``refusal`` says why it must not be opened, if so."""

    path: bytes
    size: int
    mtime_ns: int
    refusal: str | None
    ctime_ns: int | None = None


class Closed(NamedTuple):
    """A folder that could not be listed, so that what it contains is unknown.

    Or one with an ignore file that cannot be used, so that what may be indexed is unknown. Also a
    single file, where that alone is in doubt.
    """

    path: bytes
    reason: str
    rules: bytes | None = None  # that ignore file


def walk(
    root: bytes,
    ignore: Ignore | None = None,
    stops: Collection[bytes] = (),
    halt: threading.Event | None = None,
) -> Iterator[Found | Closed]:
    """Yield every picture under an absolute root, in no particular order.

    Symbolic links are not followed: a link to a picture inside the root adds nothing, and one that
    leads out of it must not. Folders in ``stops`` are left out: they are roots of their own.
    Ignored folders are not entered; ignored pictures are yielded with their refusal. What
    disappears meanwhile is left out. ``halt`` ends the walk at once, even in a folder of a million
    other files. Raise ``OSError`` if the root itself cannot be listed.
    """
    ignore, halted = ignore or Ignore(), (halt or threading.Event()).is_set
    offset = len(root) if root.endswith(b"/") else len(root) + 1
    folders = [root]
    while folders:
        folder = folders.pop()
        try:
            if folder != root:
                ignore.enter(folder, folder[offset:])
            entries = os.scandir(folder)
        except BadIgnoreFile as exc:
            yield Closed(folder, exc.reason, exc.path)
            continue
        except OSError as exc:
            if folder == root:
                raise
            if exc.errno not in (errno.ENOENT, errno.ENOTDIR):
                yield Closed(folder, f"folder cannot be read: {exc.strerror}")
            continue
        with entries:
            try:
                for entry in entries:
                    if halted():
                        return
                    try:
                        if entry.is_dir(follow_symlinks=False):
                            path = entry.path
                            ignored = ignore.reason(entry.name, path[offset:], True)
                            if ignored is None and path not in stops:
                                folders.append(path)
                            continue
                        if extension(entry.name) not in EXTENSIONS:
                            continue
                        found = _picture(entry, ignore, offset)
                    except Exception as exc:  # whatever it is, it is the matter of this entry alone
                        yield _in_doubt(entry, exc)
                        continue
                    if found is not None:
                        yield found
            except OSError as exc:  # a disk or network that fails half-way through a folder
                yield Closed(folder, f"folder cannot be read: {exc.strerror}")


def look(
    root: bytes, paths: Iterable[bytes], ignore: Ignore, stops: Collection[bytes] = ()
) -> Iterator[Found | Closed]:
    """Yield the pictures at some paths below an absolute root, as ``walk`` would.

    Nothing is listed, and no link followed. A path that a walk would not take is yielded as
    ``Closed``, with the reason; so is one where nothing is any more.
    """
    for path in paths:
        try:
            yield _looked_at(root, path, ignore, stops)
        except BadIgnoreFile as exc:
            yield Closed(path, exc.reason, exc.path)
        except OSError as exc:
            yield Closed(path, f"unreadable: {exc.strerror or type(exc).__name__}")
        except Exception as exc:  # whatever it is, it is the matter of this path alone
            yield Closed(path, unexpected(exc))


def _looked_at(
    root: bytes, path: bytes, ignore: Ignore, stops: Collection[bytes]
) -> Found | Closed:
    folder = root
    *parts, name = path[len(root.rstrip(b"/")) + 1 :].split(b"/")
    for part in parts:
        folder = os.path.join(folder, part)
        mode = os.lstat(folder).st_mode
        if not stat.S_ISDIR(mode):
            return Closed(path, f"not a file: its folder is {what_is(mode)}")
        if folder in stops:
            return Closed(path, "its folder is left out")
    status = os.lstat(path)
    if not stat.S_ISREG(status.st_mode):
        return Closed(path, f"not a file but {what_is(status.st_mode)}")
    if extension(name) not in EXTENSIONS:
        return Closed(path, "not a picture by its name")
    if (ignored := ignore.covers(path, root)) is not None:
        return Closed(path, ignored)
    size, mtime_ns, ctime_ns = stamps_of(status)
    return Found(path, size, mtime_ns, None, ctime_ns)


def _picture(entry: "os.DirEntry[bytes]", ignore: Ignore, offset: int) -> Found | None:
    """Describe an entry that is not a folder; None if it has disappeared."""
    path = entry.path
    try:
        status = entry.stat(follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as exc:
        return Found(path, -1, -1, f"unreadable: {exc.strerror}")
    if stat.S_ISREG(status.st_mode):
        refusal = ignore.reason(entry.name, path[offset:], False)
    else:
        refusal = f"not a file but {what_is(status.st_mode)}"
    size, mtime_ns, ctime_ns = stamps_of(status)
    return Found(path, size, mtime_ns, refusal, ctime_ns)


def _in_doubt(entry: "os.DirEntry[bytes]", exc: Exception) -> Found | Closed:
    """Describe an entry that could not be looked at: a picture by its name, or else a folder."""
    if isinstance(exc, OSError):
        reason = f"unreadable: {exc.strerror or type(exc).__name__}"
    else:
        reason = unexpected(exc)
    if os.path.splitext(entry.name)[1].lower() in EXTENSIONS:
        return Found(entry.path, -1, -1, reason)
    return Closed(entry.path, reason)


def is_empty(root: bytes) -> bool:
    """Say whether a root contains nothing but what the built-in rules ignore.

    A disk that is not mounted leaves an empty folder behind, or one with a hidden marker. Raise
    ``OSError`` if the root cannot be listed.
    """
    ignore = Ignore()
    with os.scandir(root) as entries:
        return all(ignore.reason(entry.name, entry.name, False) for entry in entries)
