"""List the pictures under a root, without opening any."""

import errno
import os
import stat
import threading
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Iterator
from operator import attrgetter
from typing import NamedTuple

from fovea.indexer.decoding.formats import EXTENSIONS, extension
from fovea.indexer.decoding.limits import unexpected
from fovea.indexer.decoding.reading import what_is
from fovea.search.library.facts.stamps import HAS_CTIME, stamps, stamps_of

from .ignore import BadIgnoreFile, Ignore

PIECE = 512  # files handed over at a time

# A picture as its folder's file system describes it: path, size, mtime and ctime (nanoseconds). It
# is a plain tuple, and the times may be beyond what a library stores: ``found`` makes them fit.
Stamped = tuple[bytes, int, int, int | None]
Entry = os.DirEntry[bytes]


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
    """Yield what ``pieces`` finds, one by one."""
    for piece in pieces(root, ignore, stops, halt):
        for entry in [piece] if isinstance(piece, Closed) else map(found, piece):
            if halt is not None and halt.is_set():
                return
            yield entry


def pieces(
    root: bytes,
    ignore: Ignore | None = None,
    stops: Collection[bytes] = (),
    halt: threading.Event | None = None,
) -> Iterator[list[Stamped | Found] | Closed]:
    """Yield every picture under an absolute root, up to ``PIECE`` at a time.

    The pictures come in the order of their paths' bytes, within a piece and from piece to piece, as
    SQLite orders them. Symbolic links are not followed: a link to a picture inside the root adds
    nothing, and one that leads out of it must not. Folders in ``stops`` are left out: they are
    roots of their own. Ignored folders are not entered; ignored pictures are yielded with their
    refusal. What disappears meanwhile is left out. ``halt`` ends the walk at once, even in a folder
    of a million other files. Raise ``OSError`` if the root itself cannot be listed.
    """
    ignore, halted = ignore or Ignore(), (halt or threading.Event()).is_set
    offset = len(root) if root.endswith(b"/") else len(root) + 1
    listings = [_listing(root, True, ignore, offset, stops, halted)]
    while listings:  # from the root to the folder at hand
        for part in listings[-1]:
            if isinstance(part, bytes):
                listings.append(_listing(part, False, ignore, offset, stops, halted))
                break
            if halted():
                return
            yield part if isinstance(part, Closed) else _described(part, ignore, offset)
        else:
            if halted():
                return
            listings.pop()


def _listing(
    folder: bytes,
    is_root: bool,
    ignore: Ignore,
    offset: int,
    stops: Collection[bytes],
    halted: Callable[[], bool],
) -> Iterator[list[Entry] | bytes | Closed]:
    """List a folder: its pictures in pieces, and between them the folders to list, in order."""
    pictures: list[Entry] = []
    folders: list[bytes] = []  # with a slash at the end, which decides about their place
    try:
        if not is_root:
            ignore.enter(folder, folder[offset:])
        entries = os.scandir(folder)
    except BadIgnoreFile as exc:
        yield Closed(folder, exc.reason, exc.path)
        return
    except OSError as exc:
        if is_root:
            raise
        if exc.errno not in (errno.ENOENT, errno.ENOTDIR):
            yield Closed(folder, f"folder cannot be read: {exc.strerror}")
        return
    with entries:
        try:
            for entry in entries:
                if halted():
                    return
                try:
                    name = entry.name
                    if entry.is_dir(follow_symlinks=False):
                        path = entry.path
                        ignored = ignore.reason(name, path[offset:], True)
                        if ignored is None and path not in stops:
                            folders.append(path + b"/")
                    elif (dot := name.rfind(b".")) > 0 and name[dot:].lower() in EXTENSIONS:
                        pictures.append(entry)
                except Exception as exc:  # whatever it is, it is the matter of this entry alone
                    if extension(entry.name) in EXTENSIONS:  # a picture by its name
                        pictures.append(_Doubtful(entry, exc))  # type: ignore[arg-type]
                    else:
                        yield Closed(entry.path, _in_words(exc))
        except OSError as exc:  # a disk or network that fails half-way through a folder
            yield Closed(folder, f"folder cannot be read: {exc.strerror}")
    pictures.sort(key=_NAME)
    start, skip = 0, len(folder.rstrip(b"/")) + 1
    for path in sorted(folders):
        end = bisect_left(pictures, path[skip:], start, key=_NAME)
        yield from _cut(pictures, start, end)
        yield path[:-1]
        start = end
    yield from _cut(pictures, start, len(pictures))


_NAME = attrgetter("name")


def _cut(pictures: list[Entry], start: int, end: int) -> Iterator[list[Entry]]:
    for at in range(start, end, PIECE):
        yield pictures[at : min(at + PIECE, end)]


class _Doubtful:
    """Stands for an entry that could not even be told from a folder."""

    def __init__(self, entry: Entry, error: Exception) -> None:
        self.name, self.path, self._error = entry.name, entry.path, error

    def stat(self, *, follow_symlinks: bool) -> os.stat_result:
        raise self._error


def _described(entries: Iterable[Entry], ignore: Ignore, offset: int) -> list[Stamped | Found]:
    """Describe entries that are not folders, without those that have disappeared."""
    described: list[Stamped | Found] = []
    add, is_file, has_patterns = described.append, stat.S_ISREG, ignore.has_patterns
    for entry in entries:  # of a million files: this loop is as short as Python allows
        try:
            status = entry.stat(follow_symlinks=False)
            if has_patterns or not is_file(status.st_mode) or entry.name[0] == _DOT:
                add(_judged(entry, status, ignore, offset))
            elif HAS_CTIME:
                add((entry.path, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
            else:
                add((entry.path, status.st_size, status.st_mtime_ns, None))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except Exception as exc:  # whatever it is, it is the matter of this entry alone
            add(Found(entry.path, -1, -1, _in_words(exc)))
    return described


_DOT = ord(".")


def _judged(entry: Entry, status: os.stat_result, ignore: Ignore, offset: int) -> Stamped | Found:
    """Describe an entry that may have to be refused."""
    path = entry.path
    if stat.S_ISREG(status.st_mode):
        refusal = ignore.reason(entry.name, path[offset:], False)
    else:
        refusal = f"not a file but {what_is(status.st_mode)}"
    size, mtime_ns, ctime_ns = stamps_of(status)
    if refusal is None:
        return path, size, mtime_ns, ctime_ns
    return Found(path, size, mtime_ns, refusal, ctime_ns)


def found(picture: Stamped | Found) -> Found:
    """Return a picture with stamps that a library can store."""
    if isinstance(picture, Found):
        return picture
    path = picture[0]
    size, mtime_ns, ctime_ns = stamps(*picture[1:])
    return Found(path, size, mtime_ns, None, ctime_ns)


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
        except Exception as exc:  # whatever it is, it is the matter of this path alone
            yield Closed(path, _in_words(exc))


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


def _in_words(exc: Exception) -> str:
    if isinstance(exc, OSError):
        return f"unreadable: {exc.strerror or type(exc).__name__}"
    return unexpected(exc)


def is_empty(root: bytes) -> bool:
    """Say whether a root contains nothing but what the built-in rules ignore.

    A disk that is not mounted leaves an empty folder behind, or one with a hidden marker. Raise
    ``OSError`` if the root cannot be listed.
    """
    ignore = Ignore()
    with os.scandir(root) as entries:
        return all(ignore.reason(entry.name, entry.name, False) for entry in entries)
