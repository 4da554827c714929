"""The library: its folders, files, images and embeddings, and its model.

One SQLite database in a folder is the only truth; everything else beside it can be deleted and is
made again. A ``Library`` is one connection and belongs to one thread.
"""

import contextlib
import json
import os
import sqlite3
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
from sqlite_utils import Database

from fovea.data import former_name
from fovea.search.clip.user_path import check_path, user_path
from fovea.search.errors import LibraryDamaged, LibraryError

from . import files
from .access import access_of, has_changed
from .connection import (
    BUSY_S,
    REMEDY,
    WRITER,
    alone,
    checkpoint,
    connect,
    immediate,
    is_out_of_room,
    read_only,
    relieve,
    translated,
)
from .damage import Check, guarded, refuse_damaged, refuse_damaged_once
from .locks import exclusive
from .older import up_to_date
from .reachable import unreachable
from .rows import (
    Counts,
    FileEntry,
    FileState,
    ModelRow,
    NewImage,
    Root,
    RootState,
    WriteBatch,
)

__all__ = ["DATABASE", "Library", "default_library_folder", "has_library"]

DATABASE = "library.db"
PAGE = 1000  # rows fetched at a time where a cursor must not stay open


def default_library_folder() -> Path:
    """Return ``FOVEA_LIBRARY``, else where this platform keeps a user's data.

    Raise ``LibraryError`` if the variable is empty: whoever set it meant another place.
    """
    named = os.environ.get("FOVEA_LIBRARY")
    if named is not None:
        if not named:
            raise LibraryError("FOVEA_LIBRARY is empty; set it to a folder, or unset it")
        return user_path(named)
    from platformdirs import user_data_path

    return user_data_path("fovea", appauthor=False) / "library"


class Library:
    """An open library. Use it as a context manager, or call ``close``."""

    def __init__(self, folder: Path, db: Database) -> None:
        self.folder = folder
        self.db = db
        self._database = folder / DATABASE
        self._is_writer = False
        found = self.rows("SELECT value FROM library WHERE key = 'id'")
        if not found:
            raise LibraryDamaged(f"{folder / DATABASE} has lost its settings; {REMEDY}")
        self.id: str = found[0][0]

    @classmethod
    def open(
        cls, folder: Path | str, *, create: bool = False, any_thread: bool = False
    ) -> "Library":
        """Open the library in a folder, migrating its tables if they are older.

        ``create`` makes the folder and the library if they are missing. With ``any_thread``, the
        caller sees to it that one thread at a time uses it. Raise ``LibraryError`` for a folder
        without a library, and for a database that is unreadable, another program's, or written by a
        newer fovea. One that cannot be written is opened to be searched.
        """
        folder = Path(check_path(folder))
        path = folder / DATABASE
        if create:
            with _usable(folder):
                folder.mkdir(parents=True, exist_ok=True)
        elif not has_library(folder):
            raise LibraryError(f"no library in {folder}; index a folder first")
        with guarded(path):
            conn = connect(path, any_thread=any_thread)
            try:
                conn = up_to_date(conn, path)
                db = Database(conn, execute_plugins=False)
                return cls(folder, db)
            except BaseException:
                conn.close()
                raise

    def close(self) -> None:
        """Close the connection; nothing is lost, since every write was committed."""
        self.db.close()

    def __enter__(self) -> "Library":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # Transactions

    @property
    def conn(self) -> sqlite3.Connection:
        """The connection itself, in autocommit mode."""
        return self.db.conn

    def rows(
        self, sql: str, parameters: Sequence[Any] | dict[str, Any] = ()
    ) -> list[tuple[Any, ...]]:
        """Read rows as plain tuples."""
        with guarded(self._database):
            return self.conn.execute(sql, parameters).fetchall()

    @property
    def is_writable(self) -> bool:
        """Whether the library can be changed here."""
        return access_of(self.conn).is_writable

    @property
    def has_changed_unnoticed(self) -> bool:
        """Whether somebody has changed the library without SQLite's notice; open it anew then."""
        return has_changed(access_of(self.conn), self.folder / DATABASE)

    def check_writable(self) -> None:
        """Raise ``LibraryReadOnly`` if the library cannot be changed here; say what to do.

        Raise ``LibraryError`` where only the disk has no room.
        """
        access = access_of(self.conn)
        if access.is_writable:
            return
        path = self.folder / DATABASE
        if access.hindrance is not None and is_out_of_room(access.hindrance, self.folder):
            with translated(path):
                raise access.hindrance
        raise read_only(path)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Write everything or nothing; another writer is waited for at the start, not later.

        Raise ``LibraryReadOnly`` if the library cannot be changed here.
        """
        self.check_writable()
        with guarded(self.folder / DATABASE), immediate(self.conn):
            yield self.conn
        relieve(self.conn, is_writer=self._is_writer)

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Read several times from one state of the database, even while others write."""
        with guarded(self._database):
            if self.conn.in_transaction:
                yield self.conn
                return
            self.conn.execute("BEGIN")
            try:
                yield self.conn
            finally:
                if self.conn.in_transaction:
                    self.conn.execute("ROLLBACK")

    @contextlib.contextmanager
    def writing(self, wait_s: float | None = 0.0) -> Iterator[None]:
        """Be the only process that indexes, waiting up to ``wait_s`` (``None``: for ever).

        Raise ``LibraryBusy``, naming its process, if another one is still indexing then, and
        ``LibraryReadOnly`` if the library cannot be changed here.
        """
        self.check_writable()
        with exclusive(self.folder, WRITER, wait_s):
            self._is_writer = True
            try:
                yield
            finally:
                self._is_writer = False
                checkpoint(self.conn)

    def refuse_damaged(self, *parts: Check) -> None:
        """Raise ``LibraryDamaged`` if one of the ``checks`` finds anything wrong."""
        with self.reading() as conn:
            refuse_damaged(self.folder / DATABASE, conn, *parts)

    def refuse_damaged_once(self) -> None:
        """Raise ``LibraryDamaged`` if the everyday checks find anything, once for each state."""
        with self.reading() as conn:
            refuse_damaged_once(self.folder / DATABASE, conn)

    # Models

    def model(self, key: Literal["model_id", "next_model_id"] = "model_id") -> ModelRow | None:
        """Return the model that the library uses, or the next one; ``None`` if not chosen."""
        found = self.rows(
            "SELECT id, name, identity, dim, source FROM models "
            "WHERE id = (SELECT value FROM library WHERE key = ?)",
            (key,),
        )
        if not found and key == "model_id":
            chosen = self.rows("SELECT value FROM library WHERE key = 'model_id'")
            if chosen != [(None,)]:  # as it is before anything is indexed
                raise LibraryDamaged(f"{self.folder / DATABASE} has lost its model; {REMEDY}")
        return _model_row(*found[0]) if found else None

    def models(self) -> list[ModelRow]:
        """List every model that the library knows, whether it uses it or not."""
        found = self.rows("SELECT id, name, identity, dim, source FROM models ORDER BY id")
        return [_model_row(*row) for row in found]

    def add_model(self, name: str, identity: str, dim: int, source: str) -> ModelRow:
        """Add a model without using it; its identity decides whether it is new."""
        known = next((row for row in self.models() if row.identity == identity), None)
        if known is not None and (known.name, known.dim, known.source) == (name, dim, source):
            return known
        with self.transaction() as conn:
            return _store_model(conn, name, identity, dim, source)

    def set_model(self, name: str, identity: str, dim: int, source: str) -> ModelRow:
        """Add a model if it is new, and use it."""
        with self.transaction() as conn:
            model = _store_model(conn, name, identity, dim, source)
            conn.execute("UPDATE library SET value = ? WHERE key = 'model_id'", (model.id,))
            conn.execute(
                "DELETE FROM library WHERE key = 'next_model_id' AND value = ?", (model.id,)
            )
        return model

    # Roots

    def add_root(self, path: bytes | str | Path) -> Root:
        """Register a folder, or return the root that it already is, without touching the disk.

        Files below it pass to it from a root around it, since it may be offline alone.
        """
        absolute = os.path.abspath(os.fsencode(check_path(path)))
        now = datetime.now(UTC).isoformat(timespec="seconds")
        with self.transaction() as conn:
            added = conn.execute(
                "INSERT INTO roots (path, added_at) VALUES (?, ?) ON CONFLICT (path) DO NOTHING "
                "RETURNING id",
                (absolute, now),
            ).fetchall()
            if added:
                [(new,)] = added
                for root in self.roots():
                    low, high = files.below(root.path)
                    if low <= absolute < high:
                        conn.execute(
                            "UPDATE files SET root_id = ? "
                            "WHERE root_id = ? AND path >= ? AND path < ?",
                            (new, root.id, *files.below(absolute)),
                        )
        return next(root for root in self.roots() if root.path == absolute)

    def roots(self) -> list[Root]:
        """List the registered folders, oldest first."""
        found = self.rows("SELECT id, path, state, added_at, scanned_at FROM roots ORDER BY id")
        return [Root(*row) for row in found]

    def roots_now(self) -> list[Root]:
        """List the roots; offline are those that a scan found so or that are unreachable now."""
        found = self.roots()
        gone = unreachable(root.path for root in found)
        return [replace(root, state="offline") if root.path in gone else root for root in found]

    def offline(self) -> list[int]:
        """Return the ids of the roots that are offline now."""
        return [root.id for root in self.roots_now() if root.state == "offline"]

    def set_root_state(
        self, root_id: int, state: RootState, *, scanned_at: str | None = None
    ) -> None:
        """Mark a root online or offline; ``scanned_at`` (ISO 8601) also says when it was walked."""
        with self.transaction() as conn:
            conn.execute(
                "UPDATE roots SET state = ?, scanned_at = coalesce(?, scanned_at) WHERE id = ?",
                (state, scanned_at, root_id),
            )

    def remove_root(self, root_id: int) -> int:
        """Forget a root and the files that no other root covers; return their number.

        Files under another root pass to the innermost one; images left without a file are deleted
        with their embeddings.
        """
        others = [root for root in self.roots() if root.id != root_id]
        with self.transaction() as conn:
            for other in sorted(others, key=lambda root: len(root.path), reverse=True):
                conn.execute(
                    "UPDATE files SET root_id = ? WHERE root_id = ? AND path >= ? AND path < ?",
                    (other.id, root_id, *files.below(other.path)),
                )
            gone = conn.execute(
                "DELETE FROM files WHERE root_id = ? RETURNING image_id", (root_id,)
            ).fetchall()
            files.purge_images(conn, {image_id for (image_id,) in gone})
            conn.execute("DELETE FROM roots WHERE id = ?", (root_id,))
        return len(gone)

    def compact(self, share: float = 0.0) -> None:
        """Give free pages back to the disk, and leave no trace of deleted rows in the files.

        The database is rewritten if ``share`` of it is free and the disk has room; otherwise later
        rows reuse the free pages, which contain zeros.
        """
        [(free,)], [(pages,)] = self.rows("PRAGMA freelist_count"), self.rows("PRAGMA page_count")
        with contextlib.suppress(LibraryError, sqlite3.OperationalError):
            with self.transaction() as conn:
                conn.execute("INSERT INTO names (names) VALUES ('optimize')")  # of deleted rows
        if free >= share * pages:
            with contextlib.suppress(LibraryError, sqlite3.OperationalError), alone(self.conn):
                self.rows("VACUUM")
        checkpoint(self.conn, wait_s=BUSY_S)

    # Files and images

    def entries(self) -> Iterator[FileEntry]:
        """Yield every file ever seen, in the order of the paths."""
        sql = f"SELECT path, {files.REPORTED}, reason FROM files NOT INDEXED ORDER BY path"
        with guarded(self.folder / DATABASE):
            rows = self.conn.execute(sql, (json.dumps(self.offline()), files.HELD_REASON))
            yield from (FileEntry(*row) for row in rows)

    def image_by_hash(self, hashes: Iterable[bytes]) -> dict[bytes, int]:
        """Return the ids of those hashes that are stored."""
        with guarded(self.folder / DATABASE):
            return files.image_by_hash(self.conn, hashes)

    def has_embedding(self, image_ids: Iterable[int], model_id: int) -> set[int]:
        """Return those images that the model has embedded."""
        found = self.rows(
            "SELECT image_id FROM embeddings WHERE model_id = ? "
            "AND image_id IN (SELECT value FROM json_each(?))",
            (model_id, json.dumps([int(image_id) for image_id in image_ids])),
        )
        return {image_id for (image_id,) in found}

    def write_batch(self, batch: WriteBatch) -> None:
        """Store images, embeddings and files in one transaction.

        A known content keeps its image, a known file gets its new row, and an image without a file
        left is deleted. Metadata of known images stay, except those that ``batch.refreshed`` has.
        Raise ``ValueError``, before anything is written, for a vector that does not fit the model.
        """
        embedded = [image for image in batch.new_images if image.vector is not None]
        model_id = self._check_vectors(embedded, batch.model_id) if embedded else None
        hashes = [image.hash for image in batch.new_images]
        hashes += [file.hash for file in batch.files if file.hash is not None]
        with self.transaction() as conn:
            files.write_images(conn, batch.new_images)
            files.refresh_images(conn, batch.refreshed)
            files.write_signatures(conn, (*batch.new_images, *batch.refreshed))
            ids = files.image_by_hash(conn, hashes)
            if model_id is not None:
                files.write_embeddings(conn, embedded, ids, model_id)
            files.purge_images(conn, files.write_files(conn, batch.files, ids))

    def mark_missing(self, paths: Iterable[bytes], reason: str | None = None) -> None:
        """Record that files are gone, and why; their images are kept, but not searchable."""
        self._mark("missing", ((path, reason) for path in paths))

    def mark_skipped(self, reasons: Iterable[tuple[bytes, str | None]]) -> None:
        """Record why each path is ignored; the images are kept, but not searchable."""
        self._mark("skipped", reasons)

    def _mark(self, state: FileState, reasons: Iterable[tuple[bytes, str | None]]) -> None:
        sql = "UPDATE files SET state = ?, reason = ? WHERE path = ?"
        with self.transaction() as conn:
            conn.executemany(sql, ((state, reason, path) for path, reason in reasons))

    def mark_present(self, paths: Iterable[bytes]) -> None:
        """Record that missing or ignored files are back unchanged.

        Files that were never indexed stay as they are.
        """
        with self.transaction() as conn:
            conn.executemany(
                "UPDATE files SET state = 'indexed', reason = NULL "
                "WHERE path = ? AND image_id IS NOT NULL AND state <> 'failed'",
                ((path,) for path in paths),
            )

    def note_ctimes(self, ctimes: Iterable[tuple[bytes, int]]) -> None:
        """Record when inodes have changed, in nanoseconds, of files that are otherwise known."""
        with self.transaction() as conn:
            conn.executemany(
                "UPDATE files SET ctime_ns = ? WHERE path = ?",
                ((ctime_ns, path) for path, ctime_ns in ctimes),
            )

    def note(self, paths: Iterable[bytes], reason: str) -> None:
        """Record a remark about files that does not change their state."""
        sql = "UPDATE files SET reason = ? WHERE path = ?"
        with self.transaction() as conn:
            conn.executemany(sql, ((reason, path) for path in paths))

    def delete_files(self, paths: Iterable[bytes]) -> None:
        """Forget files; an image without a file left is deleted with its embeddings."""
        with self.transaction() as conn:
            lost: set[int | None] = set()
            for path in paths:
                gone = conn.execute("DELETE FROM files WHERE path = ? RETURNING image_id", (path,))
                lost.update(image_id for (image_id,) in gone.fetchall())
            files.purge_images(conn, lost)

    def counts(self) -> Counts:
        """Count the images, the embeddings of the current model, and the files of each state."""
        [(images,)] = self.rows("SELECT count(*) FROM images")
        [(embeddings,)] = self.rows(
            "SELECT count(*) FROM embeddings "
            "WHERE model_id = (SELECT value FROM library WHERE key = 'model_id')"
        )
        with self.reading() as conn:
            states = files.count_states(conn, self.offline())
        return Counts(images, embeddings, states)

    def _check_vectors(self, images: Sequence[NewImage], model_id: int | None) -> int:
        """Return the id of the model of these vectors, once they have its shape and unit length."""
        known = {model.id: model for model in self.models()}
        current = self.model()
        model = current if model_id is None else known.get(model_id)
        if model is None:
            raise ValueError("vectors without a model; call set_model first")
        for image in images:
            vector = np.asarray(image.vector)
            if vector.shape != (model.dim,):
                raise ValueError(f"a vector of shape {vector.shape}; {model.name} has {model.dim}")
            length = float(np.linalg.norm(vector.astype("float32")))
            if not abs(length - 1) < 1e-2:  # also refuses nan
                raise ValueError(f"a vector of length {length}, not 1")
        return model.id


def has_library(folder: Path) -> bool:
    """Whether there is a library in a folder. Raise ``LibraryError`` if it cannot be read."""
    with _usable(folder):
        try:
            mode = (folder / DATABASE).stat().st_mode  # is_file() hides errors from Python 3.14 on
        except (FileNotFoundError, NotADirectoryError):
            return False
        return stat.S_ISREG(mode)


@contextlib.contextmanager
def _usable(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise LibraryError(
            f"cannot use {folder} as a library: {exc.strerror}; choose another folder"
        ) from exc


def _store_model(
    conn: sqlite3.Connection, name: str, identity: str, dim: int, source: str
) -> ModelRow:
    """Insert or rename the model of this identity. Raise ``ValueError`` for another width."""
    row = conn.execute(
        "INSERT INTO models (name, identity, dim, source) VALUES (?, ?, ?, ?) "
        "ON CONFLICT (identity) DO UPDATE SET name = excluded.name, source = excluded.source "
        "RETURNING id, name, identity, dim, source",
        (name, identity, dim, source),
    ).fetchall()[0]
    if row[3] != dim:
        raise ValueError(f"{name} has embeddings of width {row[3]}, not {dim}")
    return _model_row(*row)


def _model_row(id: int, name: str, identity: str, dim: int, source: str) -> ModelRow:
    """Return a model's row; a former bundled model goes by its name now, whatever is stored."""
    if source == "bundled":
        name = former_name(identity) or name
    return ModelRow(id, name, identity, dim, source)
