"""The one place that opens a library's database, and SQLite's errors as advice."""

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from fovea.search.clip.disk import free_bytes, has_little_room, in_words, room_advice
from fovea.search.errors import LibraryError, LibraryReadOnly

from .access import Access, Connection, is_barred, ways

__all__ = ["BUSY_S", "connect", "immediate", "is_out_of_room", "read_only", "translated"]

BUSY_S = 30.0  # a write waits this long for another connection's; writes last milliseconds

# What SQLite's messages contain -> what to tell.
ADVICE = {
    "locked": f"has been locked for {BUSY_S:.0f} s; close the program that uses it",
    "busy": f"has been busy for {BUSY_S:.0f} s; close the program that uses it",
    "not a database": "is not a library's database; move it away, or choose another folder",
    "malformed": "is damaged; restore it from a backup, or move it away and index again",
    "disk I/O error": "cannot be read or written (disk I/O error); check the disk",
    "readonly": "is read-only; check its permissions, or copy the library to a folder of your own",
    "unable to open": "cannot be opened; check that it exists, and its permissions",
}

# Errors of writing that SQLite does not tell apart from a disk that has failed.
_WRITES = (
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_IOERR_FSYNC,
    sqlite3.SQLITE_IOERR_SHMMAP,
    sqlite3.SQLITE_IOERR_SHMOPEN,
    sqlite3.SQLITE_IOERR_SHMSIZE,
    sqlite3.SQLITE_IOERR_TRUNCATE,
    sqlite3.SQLITE_IOERR_WRITE,
    sqlite3.SQLITE_CANTOPEN,
)


def connect(path: Path, *, any_thread: bool = False) -> Connection:
    """Open a database in WAL mode and autocommit: readers never wait for a writer.

    ``synchronous`` stays FULL, so that a committed batch survives a power failure. Where the
    database cannot be written, it is opened to be read; ``access_of`` tells. With ``any_thread``,
    the caller sees to it that one thread at a time uses the connection.
    """
    failure: sqlite3.Error | None = None
    for way in ways(path):
        try:
            return _opened(replace(way, hindrance=failure), any_thread)
        except sqlite3.DatabaseError as exc:
            failure = failure or exc
            if not is_barred(exc):
                break
    assert failure is not None  # there is always a way to try
    raise failure


def _opened(way: Access, any_thread: bool) -> Connection:
    conn = sqlite3.connect(
        way.uri,
        uri=True,
        timeout=BUSY_S,
        isolation_level=None,
        check_same_thread=not any_thread,
        factory=Connection,
    )
    conn.access = way
    try:
        for pragma in way.pragmas:
            conn.execute(pragma)
        if way.is_writable:
            _enable_wal(conn)
            conn.execute("PRAGMA secure_delete = ON")  # deleted rows are overwritten
        else:
            conn.execute("SELECT count(*) FROM sqlite_master")  # only reading shows that it can
        conn.execute("PRAGMA foreign_keys = ON")
        conn.execute("PRAGMA cache_size = -16384")  # KiB
    except BaseException:
        conn.close()
        raise
    return conn


def _enable_wal(conn: sqlite3.Connection) -> None:
    """Switch to WAL; two first openers may collide, and here SQLite does not wait."""
    for attempt in range(100):
        try:
            conn.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as exc:
            if "locked" not in str(exc) or attempt == 99:
                raise
            time.sleep(0.05)


@contextlib.contextmanager
def immediate(conn: sqlite3.Connection) -> Iterator[None]:
    """Write everything or nothing, through a connection in autocommit mode."""
    conn.execute("BEGIN IMMEDIATE")
    try:
        yield
        conn.execute("COMMIT")
    except BaseException:
        if conn.in_transaction:
            conn.execute("ROLLBACK")
        raise


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn SQLite's errors about the file itself into a ``LibraryError``."""
    try:
        yield
    except (sqlite3.IntegrityError, sqlite3.ProgrammingError):
        raise  # our own mistake, not the file's
    except sqlite3.DatabaseError as exc:
        if is_out_of_room(exc, path.parent):
            raise LibraryError(f"cannot write {path}: {room_advice(path.parent)}") from exc
        if "readonly" in str(exc):
            raise read_only(path) from exc
        if getattr(exc, "sqlite_errorcode", None) in _WRITES[:-1]:
            free = free_bytes(path.parent)
            left = "" if free is None else f", with {in_words(free)} free there"
            raise LibraryError(
                f"cannot write {path}: disk I/O error{left}; check the disk, and your quota of it"
            ) from exc
        advice = next((advice for sign, advice in ADVICE.items() if sign in str(exc)), None)
        raise LibraryError(f"{path} {advice}" if advice else f"{path}: {exc}") from exc


def read_only(path: Path) -> LibraryReadOnly:
    """Return the error of a change that a read-only database refuses."""
    return LibraryReadOnly(f"{path} {ADVICE['readonly']}")


def is_out_of_room(error: sqlite3.Error, folder: Path) -> bool:
    """Whether a database in this folder could not be written since the disk is full.

    SQLite calls that a disk I/O error where its shared memory cannot grow, and for quotas.
    """
    code = getattr(error, "sqlite_errorcode", None)
    if code is None or code & 0xFF == sqlite3.SQLITE_FULL:
        return code is not None
    return code in _WRITES and has_little_room(folder)
