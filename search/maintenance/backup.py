"""Back a library up while it is in use, and put a backup in its place."""

import contextlib
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fovea.search.clip.disk import room_advice, sync_folder
from fovea.search.errors import LibraryBusy, LibraryError
from fovea.search.library import checks, schema
from fovea.search.library.connection import WRITER, connect, is_out_of_room, new_file, reader
from fovea.search.library.damage import guarded, refuse_damaged
from fovea.search.library.library import DATABASE, Library, has_library
from fovea.search.library.locks import exclusive, is_alive

from .changeover import LOCK as CHANGE

__all__ = ["BackupReport", "RestoreReport", "back_up", "restore"]

PAGES = 4096  # copied at a time
WHOLE = (checks.structure, checks.tables, checks.rows, checks.counts, checks.links, checks.vectors)

Told = Callable[[int, int], None]  # called with the bytes copied so far, and all of them


@dataclass(frozen=True, slots=True)
class BackupReport:
    """What a backup holds."""

    folder: Path
    images: int
    files: int
    bytes: int


@dataclass(frozen=True, slots=True)
class RestoreReport:
    """What a library holds now; ``aside`` is where the one before lies, None if there was none."""

    images: int
    files: int
    aside: Path | None


def back_up(library: Library, folder: Path, progress: Told | None = None) -> BackupReport:
    """Copy the library's database, as it is at this moment, into a new or empty folder.

    Others may search and index meanwhile: what they write is not in the backup. Indexes and
    thumbnails are not copied, since they are made again. The copy is checked as ``verify`` does.
    Raise ``LibraryError`` for a folder that holds anything, ``LibraryDamaged`` if the library is
    damaged; then nothing is left in the folder.
    """
    path = folder / DATABASE
    with _new_folder(folder), _temporary(path) as copy:
        with guarded(library.folder / DATABASE), library.reading() as conn:
            conn.execute("SELECT count(*) FROM library").fetchone()  # from here on, one state
            _copy(conn, copy, progress)
        images, files = _checked(copy, library.folder / DATABASE)
        os.replace(copy, path)
        _sync(folder)
    return BackupReport(folder, images, files, path.stat().st_size)


def restore(backup: Path, folder: Path, progress: Told | None = None) -> RestoreReport:
    """Put a backup in the place of the library in ``folder``, or make one of it there.

    The backup is copied, brought to the tables of this version and checked before anything is
    replaced, and stays as it is. The library before is kept beside, in a folder of its own. Raise
    ``LibraryError`` if the backup is damaged or no library, ``LibraryBusy`` while any process
    uses the library; then it stays as it was.
    """
    if not has_library(backup):
        raise LibraryError(f"no backup in {backup}: it has no {DATABASE}; name another folder")
    if backup.resolve() == folder.resolve():
        raise LibraryError(f"{backup} is the library itself; name the folder of a backup")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise LibraryError(f"cannot make {folder}: {exc.strerror}; choose another folder") from exc
    path = folder / DATABASE
    with (
        exclusive(folder, WRITER),
        exclusive(folder, CHANGE, doing="is changing the model of"),
        _temporary(path) as copy,
    ):
        _clean(folder)
        with guarded(backup / DATABASE), contextlib.closing(reader(backup / DATABASE)) as conn:
            _copy(conn, copy, progress)
        images, files = _checked(copy, backup / DATABASE)
        with _to_itself(path):
            aside = _set_aside(folder) if path.exists() else None
            os.replace(copy, path)
            _sync(folder)
    return RestoreReport(images, files, aside)


@contextlib.contextmanager
def _new_folder(folder: Path) -> Iterator[None]:
    """Make a folder, or use an empty one; on failure, leave what was there before."""
    try:
        existed = folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        _clean(folder)
        if any(folder.iterdir()):
            raise LibraryError(f"{folder} is not empty; choose a new folder for the backup")
    except OSError as exc:
        raise LibraryError(f"cannot use {folder}: {exc.strerror}; choose another folder") from exc
    try:
        yield
    except BaseException:
        if not existed:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


def _clean(folder: Path) -> None:
    """Delete the copies that killed processes have left."""
    for left in folder.glob(f"{DATABASE}.*.tmp*"):
        pid = left.name.removeprefix(f"{DATABASE}.").partition(".")[0]
        if pid.isdigit() and not is_alive(int(pid)):
            with contextlib.suppress(OSError):
                left.unlink(missing_ok=True)


@contextlib.contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """Name a file beside ``path`` that is gone afterwards, with all that SQLite puts beside it."""
    copy = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        yield copy
    except OSError as exc:
        raise LibraryError(
            f"cannot write {path}: {exc.strerror}; check the disk, and try again"
        ) from exc
    finally:
        for ending in ("", "-journal", "-wal", "-shm"):
            copy.with_name(copy.name + ending).unlink(missing_ok=True)


def _copy(conn: sqlite3.Connection, copy: Path, progress: Told | None) -> None:
    """Copy what a connection reads; its errors are the caller's to explain, the disk's are not."""
    [(size,)] = conn.execute("PRAGMA page_size")

    def tell(status: int, remaining: int, total: int) -> None:
        if progress:
            progress((total - remaining) * size, total * size)

    with _on_disk(copy), contextlib.closing(new_file(copy)) as target:
        conn.backup(target, pages=PAGES, progress=tell)


@contextlib.contextmanager
def _on_disk(copy: Path) -> Iterator[None]:
    """Put a full disk down to where the copy is, not to what it is a copy of."""
    try:
        yield
    except sqlite3.Error as exc:
        if is_out_of_room(exc, copy.parent):
            raise LibraryError(f"cannot write {copy}: {room_advice(copy.parent)}") from exc
        raise


def _checked(copy: Path, source: Path) -> tuple[int, int]:
    """Bring a copy to the present tables and check all of it; count its images and files.

    ``source`` is what it is a copy of, for errors.
    """
    with guarded(source), _on_disk(copy), contextlib.closing(new_file(copy)) as conn:
        conn.execute("PRAGMA journal_mode = DELETE")  # so that it is one file
        schema.migrate(conn, str(source))
        refuse_damaged(source, conn, *WHOLE)
        [(images,)] = conn.execute("SELECT count(*) FROM images")
        [(files,)] = conn.execute("SELECT count(*) FROM files")
    return images, files


@contextlib.contextmanager
def _to_itself(path: Path) -> Iterator[None]:
    """Keep every other process from a database. Raise ``LibraryBusy`` if one has it open.

    Its WAL is moved into it, unless it is too damaged for that.
    """
    if not path.exists():
        yield
        return
    busy = LibraryBusy(
        f"{path.parent} is in use; stop the fovea that serves or searches it, and try again"
    )
    conn = None
    try:
        conn = connect(path)
        conn.execute("PRAGMA busy_timeout = 0")
        [(mode,)] = conn.execute("PRAGMA journal_mode = DELETE")  # needs it alone
        if mode != "delete":
            raise busy
        conn.wal = None
        conn.execute("BEGIN EXCLUSIVE")
    except (sqlite3.Error, UnicodeDecodeError) as exc:
        if conn is not None:
            conn.close()
        if "locked" in str(exc) or "busy" in str(exc) or _is_open_elsewhere(path):
            raise busy from exc
        conn = None
    except BaseException:
        if conn is not None:
            conn.close()
        raise
    try:
        yield
    finally:
        if conn is not None:
            with contextlib.suppress(sqlite3.Error):
                conn.close()


def _is_open_elsewhere(path: Path) -> bool:
    """Whether another process has a database open, told by the lock that SQLite keeps on it."""
    try:
        import fcntl
    except ImportError:
        return False  # an open file cannot be replaced there anyway
    first, length = 0x40000002, 510  # SHARED_FIRST and SHARED_SIZE (sqlite.org/src, os.h)
    try:
        with open(path, "r+b") as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, length, first)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _set_aside(folder: Path) -> Path:
    """Move the library's database and its snapshots into a new folder beside; return that.

    Until the last step, the library's own name leads to a whole database.
    """
    stamp = time.strftime("replaced-%Y%m%d-%H%M%S")
    aside = folder / stamp
    number = 1
    while aside.exists():
        number += 1
        aside = folder / f"{stamp}-{number}"
    aside.mkdir()
    for ending in ("-wal", "-shm"):  # only of a damaged one: they would be taken for the backup's
        with contextlib.suppress(FileNotFoundError):
            os.replace(folder / f"{DATABASE}{ending}", aside / f"{DATABASE}{ending}")
    try:
        os.link(folder / DATABASE, aside / DATABASE)
    except OSError:  # a file system without links
        shutil.copyfile(folder / DATABASE, aside / DATABASE)
    for snapshot in folder.glob("index-*.snapshot"):
        os.replace(snapshot, aside / snapshot.name)
    _sync(aside)
    return aside


def _sync(folder: Path) -> None:
    with contextlib.suppress(OSError):  # not every system can synchronise a folder
        sync_folder(folder)
