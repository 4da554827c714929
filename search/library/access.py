"""How a database can be opened here: to be written, or only to be read, and then how.

A library may lie on a read-only disk, belong to another user, or be a copy of one in use. SQLite
reads a database in WAL mode only with a file of shared memory (``-shm``) beside it, which it cannot
make there. So:

- Both ``-wal`` and ``-shm`` are there: open it plainly. What its owner writes is seen.
- No ``-wal``, or an empty one: nobody has it open, and it is complete: open it as immutable.
- ``-wal`` without ``-shm``, as in a copy of a library in use: open it without locks, with the
  shared memory in this process's own. What ``-wal`` holds is part of the answers.
- Without WAL: open it plainly; after an interrupted write, open a copy, which SQLite repairs.

Where SQLite takes no lock it notices no change either, and nowhere that its files are replaced. So
each ``Access`` that only reads has a ``mark``. And a connection without locks is not closed while
this process has one with locks to the same file: closing it would drop those.
"""

import os
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakSet

from .copies import beginning, copied_files

__all__ = [
    "Access",
    "Connection",
    "Mark",
    "access_of",
    "has_changed",
    "is_barred",
    "mark_of",
    "ways",
]

Mark = tuple[tuple[int, int, int] | None, ...]

_UNABLE = (
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
)  # kinds of error that another way of opening may avoid; a full disk can still be read


@dataclass(frozen=True, slots=True)
class Access:
    """One way to open a database."""

    uri: str
    is_writable: bool = False
    pragmas: tuple[str, ...] = ()  # to execute before anything else
    mark: Mark | None = None  # of the files, where SQLite may not notice that they change
    keeps_locks: bool = True  # closing it leaves this process's other locks alone
    sees_writes: bool = False  # but not that files are replaced, so ``mark`` is about that alone
    hindrance: sqlite3.Error | None = None  # why it is not writable, if that was tried


def is_barred(error: sqlite3.Error) -> bool:
    """Whether an error on opening leaves hope for another way; not so for a damaged database."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in _UNABLE


class Connection(sqlite3.Connection):
    """A connection that knows how it was opened."""

    access = Access("", is_writable=True)
    file: tuple[int, int] | None = None  # device and inode of the database, if ``joined`` is called

    def joined(self, access: Access, path: Path) -> None:
        """Say how and of what database the connection was opened."""
        self.access = access
        try:
            status = os.stat(path)
        except OSError:
            return
        self.file = status.st_dev, status.st_ino
        if access.keeps_locks:
            with _closing:
                _locking.add(self)

    def close(self) -> None:
        """Close, unless that would drop the locks of this process's other connections."""
        with _closing:
            if self.access.keeps_locks:
                _locking.discard(self)
            elif any(other.file == self.file for other in _locking):
                _left_open.add(self)
                return
        super().close()


_locking: WeakSet[Connection] = WeakSet()  # the open connections that take locks
_left_open: set[Connection] = set()  # few: those that were open when locks became possible
_closing = threading.Lock()


def access_of(conn: sqlite3.Connection) -> Access:
    """Return how a connection was opened."""
    return conn.access if isinstance(conn, Connection) else Access("", is_writable=True)


def ways(path: Path) -> Iterator[Access]:
    """Yield the ways to open a database, the best first."""
    is_there = path.exists()
    places = (path, path.parent) if is_there else (path.parent,)
    if not is_there or all(os.access(place, os.W_OK) for place in places):
        yield Access(_uri(path, "rwc"), is_writable=True)
    if is_there and path.stat().st_size:
        yield from _ways_to_read(path)


def _ways_to_read(path: Path) -> Iterator[Access]:
    mark, uri = mark_of(path), _uri(path, "ro")
    _, wal, shm, journal = mark
    plain = Access(uri, mark=_replaceable(mark), sees_writes=True)
    if not _uses_wal(path):
        yield plain
        if journal is not None and journal[1]:
            yield _copied(path, mark)
    elif wal is None or not wal[1]:
        if wal is not None and shm is not None:
            yield plain
        yield Access(f"{uri}&immutable=1", mark=mark)
    else:
        if shm is not None:
            yield plain
        own_memory = "PRAGMA locking_mode = EXCLUSIVE"
        without_locks = f"{uri}&vfs={_vfs_without_locks()}"
        yield Access(without_locks, pragmas=(own_memory,), mark=mark, keeps_locks=False)
        yield _copied(path, mark)


def _copied(path: Path, mark: Mark) -> Access:
    uri = _uri(copied_files(path), "rwc")
    return Access(uri, pragmas=("PRAGMA query_only = ON",), mark=mark)


def has_changed(access: Access, path: Path) -> bool:
    """Whether a database has changed without SQLite's notice since it was opened like that."""
    if access.mark is None:
        return False
    mark = mark_of(path)
    return access.mark != (_replaceable(mark) if access.sees_writes else mark)


def mark_of(path: Path) -> Mark:
    """Return inode, size and mtime of a database and of ``-wal``, ``-shm`` and ``-journal``.

    None stands for a file that is missing. Of ``-shm`` only whether it is there counts.
    """
    return tuple(_mark(path, ending) for ending in ("", "-wal", "-shm", "-journal"))


def _replaceable(mark: Mark) -> Mark:
    """Return what only changes when the database or its ``-wal`` is another file."""
    return tuple(part and (part[0], 0, 0) for part in mark[:2])


def _mark(path: Path, ending: str) -> tuple[int, int, int] | None:
    try:
        status = os.stat(f"{path}{ending}")
    except OSError:
        return None
    return (0, 0, 0) if ending == "-shm" else (status.st_ino, status.st_size, status.st_mtime_ns)


def _uses_wal(path: Path) -> bool:
    """Whether a database is in WAL mode: https://sqlite.org/fileformat.html, section 1.3.3."""
    try:
        return beginning(path, 20)[18:] == b"\2\2"
    except OSError:
        return False  # opening it says why


def _uri(path: Path, mode: str) -> str:
    return f"{path.absolute().as_uri()}?mode={mode}"


def _vfs_without_locks() -> str:
    return "win32-none" if os.name == "nt" else "unix-none"
