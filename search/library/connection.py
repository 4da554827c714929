"""The one place that opens a library's database, and SQLite's errors as advice."""

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from fovea.search.errors import LibraryError

from .folded import register

__all__ = ["BUSY_S", "connect", "immediate", "translated"]

BUSY_S = 30.0  # a write waits this long for another connection's; writes last milliseconds

# What SQLite's messages contain -> what to tell.
ADVICE = {
    "locked": f"has been locked for {BUSY_S:.0f} s; close the program that uses it",
    "busy": f"has been busy for {BUSY_S:.0f} s; close the program that uses it",
    "not a database": "is not a library's database; move it away, or choose another folder",
    "malformed": "is damaged; restore it from a backup, or move it away and index again",
    "full": "cannot grow, since the disk is full; make room and try again",
    "readonly": "is read-only; check its permissions",
    "unable to open": "cannot be opened; check that it exists, and its permissions",
}


def connect(path: Path, *, any_thread: bool = False) -> sqlite3.Connection:
    """Open a database in WAL mode and autocommit: readers never wait for a writer.

    ``synchronous`` stays FULL, so that a committed batch survives a power failure. A file or folder
    without write permission is opened read-only. With ``any_thread``, the caller sees to it that
    one thread at a time uses the connection.
    """
    writable = all(os.access(place, os.W_OK) for place in (path, path.parent) if place.exists())
    mode = "rwc" if writable else "ro"
    if not writable and not path.with_name(f"{path.name}-wal").exists():
        mode += "&immutable=1"  # nobody has it open, and SQLite could not create its shared memory
    conn = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        timeout=BUSY_S,
        isolation_level=None,
        check_same_thread=not any_thread,
    )
    try:
        if writable:
            _enable_wal(conn)
            conn.execute("PRAGMA secure_delete = ON")  # deleted rows are overwritten
        conn.execute("PRAGMA foreign_keys = ON")
        conn.execute("PRAGMA cache_size = -16384")  # KiB
        register(conn)  # triggers call these: with PRAGMA trusted_schema off they could not
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
        advice = next((advice for sign, advice in ADVICE.items() if sign in str(exc)), None)
        raise LibraryError(f"{path} {advice}" if advice else f"{path}: {exc}") from exc
