"""The one place that opens a library's database, and SQLite's errors as advice.

Before SQLite 3.51.3 (and its backports), a checkpoint that runs while another connection's commit
resets the WAL can lose what was committed (sqlite.org/wal.html, "The WAL-Reset Bug"). Here no
checkpoint runs beside a write, whatever the version: none is automatic, only the holder of the
writer's lock runs one, and it and every write hold the lock ``COMMIT`` meanwhile. As the last
connection closes, SQLite runs one by itself: under the writer's lock alone, since nobody writes.
"""

import contextlib
import logging
import os
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from fovea.search.clip.disk import free_bytes, has_little_room, in_words, room_advice
from fovea.search.errors import LibraryDamaged, LibraryError, LibraryReadOnly

from . import access
from .access import Access, is_barred, ways
from .facts.folded import register
from .locks import briefly
from .network import remote_kind

__all__ = [
    "BUSY_S",
    "REMEDY",
    "WRITER",
    "Connection",
    "advised",
    "alone",
    "checkpoint",
    "connect",
    "immediate",
    "in_memory",
    "is_out_of_room",
    "new_file",
    "read_only",
    "reader",
    "relieve",
    "translated",
]

log = logging.getLogger(__name__)

BUSY_S = 30.0  # a write waits this long for another connection's; writes last milliseconds
WRITER = "writer"  # the lock of the process that indexes
COMMIT = "commit"  # the lock of a transaction that writes, and of a checkpoint
WAL_BYTES = 4 << 20  # from which the holder of the writer's lock runs a checkpoint
WAL_MOST = 64 << 20  # from which any other writer takes that lock for one, if it is free

REMEDY = (
    "go back to a backup with fovea library restore, or keep what is whole with "
    "fovea library salvage; fovea verify lists the damage"
)

# What SQLite's messages contain -> what to tell.
ADVICE = {
    "locked": f"has been locked for {BUSY_S:.0f} s; close the program that uses it",
    "busy": f"has been busy for {BUSY_S:.0f} s; close the program that uses it",
    "not a database": "is not a library's database, or its first page is damaged; choose another "
    "folder, or go back to a backup with fovea library restore",
    "malformed": f"is damaged; {REMEDY}",
    "corrupt": f"is damaged; {REMEDY}",
    "decode to UTF-8": f"is damaged; {REMEDY}",
    "full": "cannot grow, since the disk is full; make room and try again",
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


def connect(path: Path, *, any_thread: bool = False) -> "Connection":
    """Open a database in WAL mode and autocommit: readers never wait for a writer.

    ``synchronous`` stays FULL, so that a committed batch survives a power failure. Where the
    database cannot be written, it is opened to be read; ``access_of`` tells. With ``any_thread``,
    the caller sees to it that one thread at a time uses the connection. Raise ``LibraryDamaged``
    for an empty file that cannot be written.
    """
    failure: sqlite3.Error | None = None
    for way in ways(path):
        try:
            return _opened(path, replace(way, hindrance=failure), any_thread)
        except sqlite3.DatabaseError as exc:
            failure = failure or exc
            if not is_barred(exc):
                break
    if failure is None:  # no way was tried
        raise LibraryDamaged(f"{path} is empty; go back to a backup with fovea library restore")
    raise failure


def _opened(path: Path, way: Access, any_thread: bool) -> "Connection":
    conn = sqlite3.connect(
        way.uri,
        uri=True,
        timeout=BUSY_S,
        isolation_level=None,
        check_same_thread=not any_thread,
        factory=Connection,
    )
    conn.joined(way, path)
    try:
        for pragma in way.pragmas:
            conn.execute(pragma)
        conn.execute("PRAGMA wal_autocheckpoint = 0")
        if way.is_writable:
            _set_journal(conn, path)
            conn.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
            conn.execute("PRAGMA secure_delete = ON")  # deleted rows are overwritten
        else:
            conn.execute("SELECT count(*) FROM sqlite_master")  # only reading shows that it can
        conn.execute("PRAGMA foreign_keys = ON")
        conn.execute("PRAGMA cell_size_check = ON")  # notices damage sooner
        conn.execute("PRAGMA cache_size = -16384")  # KiB
        register(conn)  # triggers call these: with PRAGMA trusted_schema off they could not
    except BaseException:
        conn.close()
        raise
    return conn


class Connection(access.Connection):
    """A connection that runs no checkpoint unless it holds the writer's lock."""

    wal: Path | None = None  # of the database, if this connection writes to it

    def close(self) -> None:
        """Close; the last connection moves the WAL into the database if nobody is writing."""
        if self.wal is None:
            super().close()
            return
        database = self.wal.with_name(self.wal.name.removesuffix("-wal"))
        with briefly(database.parent, WRITER) as is_writer:
            with contextlib.nullcontext() if is_writer else _kept_open(database):
                super().close()


def reader(path: Path) -> Connection:
    """Open a database that is only read, such as a backup, without writing anything beside it.

    A damaged one is opened, too.
    """
    failure: sqlite3.Error | None = None
    for way in access._ways_to_read(path):
        conn = sqlite3.connect(way.uri, uri=True, isolation_level=None, factory=Connection)
        conn.joined(way, path)
        try:
            for pragma in way.pragmas:
                conn.execute(pragma)
            conn.execute("SELECT count(*) FROM sqlite_master")
        except (sqlite3.Error, UnicodeDecodeError) as exc:
            if isinstance(exc, sqlite3.Error) and is_barred(exc):
                failure = failure or exc
                conn.close()
                continue
        register(conn)
        return conn
    assert failure is not None  # there is always a way to try
    raise failure


def new_file(path: Path) -> Connection:
    """Open a database that only this process knows, to be moved into place when it is closed."""
    conn = sqlite3.connect(path, isolation_level=None, factory=Connection)
    conn.execute("PRAGMA foreign_keys = ON")
    register(conn)
    return conn


def in_memory(*, any_thread: bool = False) -> sqlite3.Connection:
    """Open an empty database that is on no disk.

    With ``any_thread``, the caller sees to it that one thread at a time uses it.
    """
    conn = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=not any_thread)
    register(conn)
    return conn


@contextlib.contextmanager
def _kept_open(database: Path) -> Iterator[None]:
    """Hold the database open by a connection that cannot run a checkpoint when it closes."""
    keeper = None
    with contextlib.suppress(sqlite3.Error):
        keeper = sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)
        keeper.execute("PRAGMA user_version").fetchone()  # takes the lock of an open database
    try:
        yield
    finally:
        if keeper is not None:
            keeper.close()


def _set_journal(conn: Connection, path: Path) -> None:
    """Use a WAL, or on a network's file system, where no memory is shared, a rollback journal."""
    kind = remote_kind(path.parent)
    if kind is None:
        _set_mode(conn, "WAL")
        conn.wal = path.with_name(f"{path.name}-wal")
        return
    [(pages,)] = conn.execute("PRAGMA page_count")
    [(before,)] = conn.execute("PRAGMA journal_mode")
    _set_mode(conn, "DELETE")
    if before == "wal" or not pages:  # said once for each library
        log.warning(
            "%s is on a network file system (%s): SQLite keeps a rollback journal there, so that "
            "searching and indexing wait for each other; a local disk is faster",
            path.parent,
            kind,
        )


def _set_mode(conn: sqlite3.Connection, mode: str) -> None:
    """Switch the journal; two first openers may collide, and here SQLite does not wait."""
    for attempt in range(100):
        try:
            conn.execute(f"PRAGMA journal_mode = {mode}")
            return
        except sqlite3.OperationalError as exc:
            if "locked" not in str(exc) or attempt == 99:
                raise
            time.sleep(0.05)


@contextlib.contextmanager
def alone(conn: sqlite3.Connection) -> Iterator[None]:
    """Let no other connection write or run a checkpoint meanwhile."""
    wal = getattr(conn, "wal", None)
    if wal is None:
        yield
        return
    with briefly(wal.parent, COMMIT, BUSY_S) as is_mine:
        if is_mine is False:
            raise sqlite3.OperationalError("database is locked")
        yield


@contextlib.contextmanager
def immediate(conn: sqlite3.Connection) -> Iterator[None]:
    """Write everything or nothing, through a connection in autocommit mode."""
    with alone(conn):
        conn.execute("BEGIN IMMEDIATE")
        try:
            yield
            conn.execute("COMMIT")
        except BaseException:
            if conn.in_transaction:
                conn.execute("ROLLBACK")
            raise


def checkpoint(conn: sqlite3.Connection, *, wait_s: float = 0.0) -> None:
    """Move the WAL into the database, and empty it unless others read it for ``wait_s``.

    The caller holds the writer's lock. What cannot be moved stays in the WAL, which loses nothing.
    """
    if getattr(conn, "wal", None) is None:
        return
    with contextlib.suppress(sqlite3.Error), alone(conn):
        conn.execute(f"PRAGMA busy_timeout = {int(wait_s * 1000)}")
        try:
            conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        finally:
            conn.execute(f"PRAGMA busy_timeout = {int(BUSY_S * 1000)}")


def relieve(conn: sqlite3.Connection, *, is_writer: bool) -> None:
    """After a write, run a checkpoint if the WAL has grown; ``is_writer`` has the writer's lock."""
    wal = getattr(conn, "wal", None)
    try:
        size = 0 if wal is None else os.stat(wal).st_size
    except OSError:
        return
    if size > WAL_BYTES and is_writer:
        checkpoint(conn)
    elif wal is not None and size > WAL_MOST:
        with briefly(wal.parent, WRITER) as has_lock:
            if has_lock:
                checkpoint(conn)


def advised(exc: BaseException) -> str | None:
    """Return what to tell of one of SQLite's errors about the file; None for any other."""
    if not isinstance(exc, sqlite3.DatabaseError):
        return None
    if isinstance(exc, (sqlite3.IntegrityError, sqlite3.ProgrammingError)):
        return None  # our own mistake, not the file's
    return next((advice for sign, advice in ADVICE.items() if sign in str(exc)), None)


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn SQLite's errors about the file itself into a ``LibraryError``; not those about SQL."""
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
        advice = advised(exc)
        if advice is None and _kind(exc) == sqlite3.SQLITE_ERROR:
            raise  # SQL that does not fit the tables: damage, which is looked for, or our mistake
        kind = LibraryDamaged if advice and REMEDY in advice else LibraryError
        raise kind(f"{path} {advice}" if advice else f"{path}: {exc}") from exc


def _kind(exc: sqlite3.Error) -> int | None:
    code: int | None = getattr(exc, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


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
