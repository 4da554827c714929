"""The one place that tells a damaged database from our own mistakes.

A damaged file can raise nearly anything, here or far from here: SQLite's errors, their messages not
even UTF-8, values of impossible types, rows that are missing. So when something unexpected is
raised, the database is checked: only if it fails is the error put down to it.
"""

import contextlib
import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from fovea.search.errors import FoveaError, LibraryDamaged

from . import checks
from .access import access_of, has_changed
from .connection import REMEDY, advised, connect, translated

__all__ = ["Check", "damage_of", "explained", "guarded", "refuse_damaged", "refuse_damaged_once"]

UNEXPECTED = (sqlite3.Error, UnicodeDecodeError, OverflowError, MemoryError)
KEPT_S = 60.0  # for which a result is reused, so that requests cannot keep a server checking

CHECKED = "checked.json"  # beside the database: how its files were when they passed last
SETTLED_S = 1.0  # a file that was written later may be written again within one tick of its clock

Check = Callable[[sqlite3.Connection], Iterator[str]]  # of ``checks``
FULL: tuple[Check, ...] = (checks.structure, checks.tables, checks.rows)
QUICK: tuple[Check, ...] = (checks.everyday, checks.tables)
_Stamp = tuple[tuple[int, int], ...]


class _Result(NamedTuple):
    checked: float  # by ``time.monotonic``
    stamp: _Stamp
    problem: str | None
    is_full: bool


_checked: dict[Path, _Result] = {}
_checking = threading.Lock()


def damage_of(path: Path, *, briefly: bool = False) -> str | None:
    """Say what is wrong with a database, in one line; None if nothing is, or it cannot be told.

    It reads all of the database, which takes a minute or so for a million pictures. ``briefly``
    does so once, and then is content with quick checks, at most one each ``KEPT_S``.
    """
    with _checking:
        stamp, known = _stamp(path), _checked.get(path)
        if known is not None and time.monotonic() - known.checked <= KEPT_S:
            if known.stamp == stamp and (known.is_full or briefly):
                return known.problem
            if known.problem is None and briefly:
                return None
        is_full = known is None or not briefly
        problem = _first_problem(path, FULL if is_full else QUICK)
        _checked[path] = _Result(time.monotonic(), stamp, problem, is_full)
        return problem


def _stamp(path: Path) -> _Stamp:
    found = []
    for file in (path, path.with_name(f"{path.name}-wal")):
        with contextlib.suppress(OSError):
            status = os.stat(file)
            found.append((status.st_mtime_ns, status.st_size))
    return tuple(found)


def _first_problem(path: Path, parts: tuple[Check, ...]) -> str | None:
    try:
        with contextlib.closing(connect(path)) as conn:
            for part in parts:
                if problem := next(part(conn), None):
                    return problem
    except sqlite3.Error as exc:
        return str(exc) if _is_damage(exc) else None
    except UnicodeDecodeError:
        return "what SQLite says of it is not text"
    except (OverflowError, MemoryError, ValueError, TypeError):
        return "it has impossible values"
    except (OSError, FoveaError):
        return None
    return None


def _is_damage(exc: sqlite3.Error) -> bool:
    """Whether an error while checking is the file's: not the disk's, another's lock, and so on."""
    code = getattr(exc, "sqlite_errorcode", None)
    if "UTF-8" in str(exc):
        return True
    elsewhere = (
        sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH,
        sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_NOMEM,
    )  # fmt: skip
    return code is not None and code & 0xFF not in elsewhere


def explained(path: Path, exc: Exception) -> LibraryDamaged | None:
    """Return the error to raise instead of an unexpected one, if the database is damaged.

    A row that is refused is the row's matter rather than the file's, and there may be many.
    """
    if isinstance(exc, FoveaError):
        return None
    refusals = (sqlite3.IntegrityError, sqlite3.ProgrammingError)
    problem = damage_of(path, briefly=isinstance(exc, refusals))
    return None if problem is None else _damaged(path, problem)


def _damaged(path: Path, problem: str) -> LibraryDamaged:
    return LibraryDamaged(f"{path} is damaged ({problem}); {REMEDY}")


@contextlib.contextmanager
def guarded(path: Path) -> Iterator[None]:
    """Turn SQLite's errors about the file, and what a damaged one raises, into ``LibraryError``."""
    with translated(path):
        try:
            yield
        except UNEXPECTED as exc:
            if advised(exc) is None and (error := explained(path, exc)):
                raise error from exc
            raise


def refuse_damaged(path: Path, conn: sqlite3.Connection, *parts: Check) -> None:
    """Raise ``LibraryDamaged`` if one of the ``checks`` finds anything."""
    with guarded(path):
        for part in parts:
            if problem := next(part(conn), None):
                raise _damaged(path, problem)


def refuse_damaged_once(path: Path, conn: sqlite3.Connection) -> None:
    """Raise ``LibraryDamaged`` if the everyday checks find anything.

    They are made once for each state of the database's files, by any process: what is written to
    them, by whomever, changes a time that is not set back by accident. That is remembered beside
    the database, which may fail.
    """
    state = _state(path)
    if state is not None and _remembered(path) == state:
        return
    refuse_damaged(path, conn, checks.everyday)
    if state is None or state != _state(path) or has_changed(access_of(conn), path):
        return  # what is there now may not be what was read
    newest = max(times[-1] for times in state)
    if time.time_ns() - newest > SETTLED_S * 1e9:
        _remember(path, state)


def _state(path: Path) -> list[list[int]] | None:
    """Return what changes with each write to the database or its WAL; None if it cannot be told.

    A WAL without content is made and removed as the library is opened and closed, and SQLite sets
    its owner each time, which counts as a change of its inode.
    """
    found, wal = [], path.with_name(f"{path.name}-wal")
    for file in (path, wal):
        try:
            status = os.stat(file)
        except FileNotFoundError:
            continue
        except OSError:
            return None
        if status.st_size:
            times = [status.st_mtime_ns] + ([status.st_ctime_ns] if file == path else [])
            found.append([status.st_ino, status.st_size, *times])
    return found or None


def _remembered(path: Path) -> object:
    try:
        return json.loads((path.parent / CHECKED).read_bytes())
    except (OSError, ValueError, RecursionError):
        return None


def _remember(path: Path, state: list[list[int]]) -> None:
    part = path.parent / f"{CHECKED}.{os.getpid()}.part"
    try:
        part.write_text(json.dumps(state))
        part.replace(path.parent / CHECKED)
    except OSError:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
