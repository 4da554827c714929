"""Temporary copies of databases that can be read but not brought into a readable state.

A copy serves all connections of a process, and goes when the process ends; what a killed process
has left is deleted by the next one that makes a copy.

A system that has POSIX's locks drops all that a process holds on a file once the process closes any
descriptor of it (sqlite.org/howtocorrupt.html, section 2.2), so a database in use could be taken
from under its readers. Hence the descriptors by which databases are read here stay open.
"""

import atexit
import contextlib
import os
import shutil
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from fovea.search.clip.disk import free_bytes, in_words
from fovea.search.errors import LibraryError

from .locks import is_alive

__all__ = ["beginning", "copied_database", "copied_files"]

PREFIX = "fovea-copy-"

_copies: dict[Path, tuple[object, Path]] = {}  # by database: the state of its files, the copy
_making = threading.Lock()
_descriptors: dict[tuple[int, int], int] = {}  # by device and inode, for the process's life
_keeping = threading.Lock()


def beginning(path: Path, size: int) -> bytes:
    """Read the first bytes of a database, whose locks stay. Raise ``OSError`` as reading does."""
    if os.name == "nt":  # its locks belong to a handle, and an open file could not be replaced
        with path.open("rb") as file:
            return file.read(size)
    return os.pread(_kept_descriptor(path), size, 0)


def _kept_descriptor(path: Path) -> int:
    with _keeping:
        status = os.stat(path)
        known = _descriptors.get((status.st_dev, status.st_ino))
        if known is not None:
            return known
        opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        status = os.fstat(opened)  # another file may have been moved there meanwhile
        return _descriptors.setdefault((status.st_dev, status.st_ino), opened)


def _copy(path: Path, copy: Path) -> None:
    """Copy a database, whose locks stay."""
    if os.name == "nt":
        shutil.copyfile(path, copy)
        return
    source, place = _kept_descriptor(path), 0
    with copy.open("wb") as target:
        while piece := os.pread(source, 1 << 20, place):
            place += target.write(piece)


def copied_files(path: Path) -> Path:
    """Copy a database's files as they are, unless they are copied already; return the copy."""
    parts = [part for part in (path, *_beside(path)) if part.exists()]

    def fill(place: Path) -> None:
        for part in parts:
            (_copy if part == path else shutil.copyfile)(part, place / part.name)

    return _copied(path, sum(part.stat().st_size for part in parts), fill)


def copied_database(
    path: Path,
    conn: sqlite3.Connection,
    opened: Callable[[Path], sqlite3.Connection],
    finish: Callable[[sqlite3.Connection], None],
) -> Path:
    """Copy what a connection reads of a database, unless it is copied already; return the copy.

    ``opened`` opens a new copy, in autocommit mode; ``finish`` is called with that connection.
    """
    [pages], [size] = (
        conn.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "page_size")
    )

    def fill(place: Path) -> None:
        with contextlib.closing(opened(place / path.name)) as copy:
            copy.execute("PRAGMA synchronous = OFF")
            conn.backup(copy)
            finish(copy)

    return _copied(path, pages * size, fill)


def _copied(path: Path, size: int, fill: Callable[[Path], None]) -> Path:
    """Return the copy of a database as it is now; an earlier one is deleted once it is not used."""
    with _making:
        state = tuple(map(_stamp, (path, *_beside(path))))
        known = _copies.get(path)
        if known is not None and known[0] == state:
            return known[1]
        if known is not None:
            shutil.rmtree(known[1].parent, ignore_errors=True)
        place = _folder(path, size)
        with _told(path, place):
            fill(place)
        _copies[path] = state, place / path.name
        return place / path.name


def _beside(path: Path) -> tuple[Path, Path]:
    return path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-journal")


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _folder(path: Path, needed: int) -> Path:
    """Make a temporary folder with room for so many bytes. Raise ``LibraryError`` without it."""
    here = Path(tempfile.gettempdir())
    _clean(here)
    free = free_bytes(here)
    if free is not None and free < needed:
        raise LibraryError(
            f"{path} cannot be read where it is, and a copy takes {in_words(needed)}, but "
            f"{here} has {in_words(free)} free; make room there, or set TMPDIR to another folder"
        )
    with _told(path, here):
        made = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))
    atexit.register(_discard, made, os.getpid())
    return made


@contextlib.contextmanager
def _told(path: Path, place: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, sqlite3.Error) as exc:
        reason = getattr(exc, "strerror", None) or exc
        raise LibraryError(
            f"{path} cannot be read where it is, and cannot be copied to {place}: {reason}; make "
            "room there, or set TMPDIR to another folder"
        ) from exc


def _discard(place: Path, pid: int) -> None:
    if os.getpid() == pid:  # not a child's that was forked
        shutil.rmtree(place, ignore_errors=True)


def _clean(here: Path) -> None:
    """Delete copies whose processes have ended."""
    for left in here.glob(f"{PREFIX}*-*"):
        pid = left.name.removeprefix(PREFIX).partition("-")[0]
        if pid.isdigit() and not is_alive(int(pid)):
            shutil.rmtree(left, ignore_errors=True)
