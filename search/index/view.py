"""One consistent view of a model's embeddings, read from a snapshot and the database."""

import logging
import sqlite3
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fovea.search.errors import LibraryDamaged
from fovea.search.library.connection import REMEDY
from fovea.search.library.library import DATABASE, Library
from fovea.search.library.rows import ModelRow

from .base import Built, Index
from .kinds import KINDS
from .segments import Segment
from .snapshot import Header, Rows, Snapshot, UnusableSnapshot, read_snapshot
from .stored_vectors import StoredVectors, Vectors, unit_vectors
from .streamed import compared

__all__ = [
    "IndexOptions",
    "View",
    "differences",
    "load_view",
    "refreshed",
    "refreshed_within",
    "snapshot_path",
    "view_of",
]

log = logging.getLogger(__name__)

PAGE = 4096  # rows fetched at a time


@dataclass(frozen=True, slots=True)
class IndexOptions:
    """Which index is built and when, and when its snapshot is written again."""

    kind: str = "ivf"  # a key of ``kinds.KINDS``
    exhaustive_below: int = 50_000  # embeddings; more are worth building an index for
    share: float = 0.05  # of the embeddings, newer than the snapshot or deleted since; or as many
    # as ``exhaustive_below``, if that is less
    at_once: int = 5_000  # newer embeddings that are saved even on opening for a search
    resident: int = 2 << 30  # bytes of vectors held in memory; of more, none

    def stay_stored(self, count: int, dim: int) -> bool:
        """Whether so many vectors of this width stay in the database."""
        return 2 * count * dim > self.resident


@dataclass(frozen=True, slots=True)
class View:
    """One consistent view of a model's embeddings; replaced whole, never changed."""

    stored: Segment  # in the snapshot
    tail: Segment  # written since
    header: Header | None  # the snapshot's
    last_embedding: int
    last_tombstone: int
    database: Path
    options: IndexOptions

    def __len__(self) -> int:
        return len(self.stored) + len(self.tail)

    @property
    def pending(self) -> int:
        """How many rows a new snapshot would add or drop."""
        return len(self.tail.rows) + len(self.stored.rows) - len(self.stored)


def snapshot_path(library: Library, model_id: int) -> Path:
    """Return the path of the snapshot of a model's embeddings."""
    return library.folder / f"index-{model_id}.snapshot"


def load_view(library: Library, model: ModelRow, options: IndexOptions) -> View:
    """View the database as it is now, using the snapshot if it passes every check."""
    library.refuse_damaged_once()
    path = snapshot_path(library, model.id)
    if path.exists():
        try:
            snapshot = read_snapshot(path)
            _vouch(snapshot, library, model)
            with library.reading() as conn:
                view = refreshed_within(view_of(library, snapshot, model, options), conn, model)
                where = "INDEXED BY embeddings_model_id WHERE model_id = ?"
                sql = f"SELECT count(*) FROM embeddings {where}"
                [(count,)] = conn.execute(sql, (model.id,))
            if len(view) != count:
                raise UnusableSnapshot(
                    f"it has {len(view)} embeddings, but the database has {count}"
                )
            return view
        except UnusableSnapshot as exc:
            log.warning(
                "cannot use %s: %s; reading the database instead, until this command or "
                "fovea index saves it again",
                path,
                exc,
            )
    return refreshed(view_of(library, None, model, options), library, model)


def _vouch(snapshot: Snapshot, library: Library, model: ModelRow) -> None:
    """Raise ``UnusableSnapshot`` unless this database wrote the snapshot, and of this model."""
    header = snapshot.header
    if header.library != library.id:
        raise UnusableSnapshot("it belongs to another library")
    if (header.model, header.dim) != (model.identity, model.dim):
        raise UnusableSnapshot("it was made with another model")
    known = library.rows("SELECT checksum FROM snapshots WHERE model_id = ?", (model.id,))
    if (snapshot.checksum,) not in known:
        raise UnusableSnapshot("the database has no record of it")


def view_of(
    library: Library, snapshot: Snapshot | None, model: ModelRow, options: IndexOptions
) -> View:
    """View a snapshot of a library; without one, a model without embeddings."""
    none, database = Segment.of(Rows.none(model.dim)), library.folder / DATABASE
    if snapshot is None:
        return View(none, none, None, 0, 0, database, options)
    header, rows = snapshot.header, snapshot.rows
    index: Index = compared(rows.vectors)
    if snapshot.form is not None:
        try:
            built = Built(snapshot.form, header.settings or {})
            kind = KINDS[str(header.kind)]
            index = kind.open(rows.vectors, built, options.exhaustive_below)
        except (KeyError, ValueError) as exc:
            raise UnusableSnapshot(f"its {header.kind} index cannot be opened: {exc}") from exc
    stored = Segment.of(rows, index)
    return View(stored, none, header, header.generation, header.tombstone, database, options)


def refreshed(view: View, library: Library, model: ModelRow) -> View:
    """Return the view after everything that the library has written and deleted since."""
    with library.reading() as conn:
        return refreshed_within(view, conn, model)


def refreshed_within(view: View, conn: sqlite3.Connection, model: ModelRow) -> View:
    """Return the view after the rows and tombstones that it lacks, in one transaction."""
    rows = _rows_after(conn, model, view)
    deleted = conn.execute(
        "SELECT id, embedding_id FROM tombstones WHERE model_id = ? AND id > ? ORDER BY id",
        (model.id, view.last_tombstone),
    ).fetchall()
    if not len(rows) and not deleted:
        return view
    stored, tail = view.stored, view.tail
    if deleted:
        gone = [embedding_id for _, embedding_id in deleted]
        stored, tail = stored.without(gone), tail.without(gone)
    if len(rows):
        tail = _joined(view, tail, rows)
    return replace(
        view,
        stored=stored,
        tail=tail,
        last_embedding=int(rows.embedding_ids[-1]) if len(rows) else view.last_embedding,
        last_tombstone=deleted[-1][0] if deleted else view.last_tombstone,
    )


def _rows_after(conn: sqlite3.Connection, model: ModelRow, view: View) -> Rows:
    """Read the embeddings of a model that a view has not seen."""
    last = view.last_embedding
    where = "FROM embeddings INDEXED BY embeddings_model_id WHERE model_id = ? AND id > ?"
    [(count,)] = conn.execute(f"SELECT count(*) {where}", (model.id, last))
    if view.options.stay_stored(count, model.dim):
        return _ids_after(conn, model, view, count)
    ids = np.empty((count, 2), dtype=np.int64)
    vectors = np.empty((count, model.dim), dtype="<f2")
    cursor = conn.execute(f"SELECT id, image_id, vector {where} ORDER BY id", (model.id, last))
    start = 0
    while page := cursor.fetchmany(PAGE):
        part = slice(start, start + len(page))
        vectors[part] = unit_vectors([(n, vector) for n, _, vector in page], model.dim)
        ids[part] = [(embedding_id, image_id) for embedding_id, image_id, _ in page]
        start = part.stop
    _check_read(ids[:, 0], start, count)
    return Rows(np.ascontiguousarray(ids[:, 0]), np.ascontiguousarray(ids[:, 1]), vectors)


def _ids_after(conn: sqlite3.Connection, model: ModelRow, view: View, count: int) -> Rows:
    """Read which embeddings a view has not seen, and leave their vectors in the database.

    The SQL index that has nothing but ids is a fortieth of the table.
    """
    cursor = conn.execute(
        "SELECT id, image_id FROM embeddings INDEXED BY sqlite_autoindex_embeddings_1 "
        "WHERE model_id = ? AND id > ?",
        (model.id, view.last_embedding),
    )
    ids, start = np.empty((count, 2), dtype=np.int64), 0
    while page := cursor.fetchmany(PAGE):
        if start + len(page) <= count:
            ids[start : start + len(page)] = page
        start += len(page)
    order = np.argsort(ids[:, 0], kind="stable")
    embedding_ids, image_ids = ids[order, 0], ids[order, 1]
    _check_read(embedding_ids, start, count)
    return Rows(embedding_ids, image_ids, StoredVectors(view.database, embedding_ids, model.dim))


def _check_read(ids: np.ndarray, found: int, count: int) -> None:
    if found != count or not (np.diff(ids) > 0).all():
        raise LibraryDamaged(f"{count} embeddings were written, but {found} can be read; {REMEDY}")


def _joined(view: View, tail: Segment, rows: Rows) -> Segment:
    """Return the tail with newer rows, and without its deleted ones."""
    old, kept = tail.rows, tail.chosen
    if not len(old):
        return Segment.of(rows)
    dim = rows.vectors.shape[1]
    ids = np.concatenate([old.embedding_ids[kept], rows.embedding_ids])
    vectors: Vectors
    if view.options.stay_stored(len(ids), dim):
        vectors = StoredVectors(view.database, ids, dim)
    else:
        vectors = np.concatenate([old.vectors[kept], rows.vectors[:]])
    return Segment.of(
        Rows(ids, np.concatenate([old.image_ids[kept], rows.image_ids]), vectors),
    )


def differences(view: View, conn: sqlite3.Connection, model: ModelRow) -> list[str]:
    """List how the view differs from the database: missing, surplus and altered embeddings."""
    problems, seen = [], 0
    cursor = conn.execute(
        "SELECT id, image_id, vector FROM embeddings WHERE model_id = ? ORDER BY id", (model.id,)
    )
    while page := cursor.fetchmany(PAGE):
        seen += len(page)
        for embedding_id, image_id, vector in page:
            found = _entry(view, embedding_id)
            if found is None:
                problems.append(f"embedding {embedding_id} is missing from the index")
            elif found not in ((image_id, vector), (image_id, None)):
                problems.append(f"embedding {embedding_id} differs in the index")
    if len(view) > seen:
        problems.append(f"the index has {len(view) - seen} embeddings that the database lacks")
    return problems


def _entry(view: View, embedding_id: int) -> tuple[int, bytes | None] | None:
    """Return the image and the bytes of an embedding in the view, unless it is deleted.

    A vector that stays in the database has no others to compare.
    """
    for segment in (view.stored, view.tail):
        ids = segment.rows.embedding_ids
        at = int(np.searchsorted(ids, embedding_id))
        if at < len(ids) and ids[at] == embedding_id:
            if segment.alive is not None and not segment.alive[at]:
                return None
            vectors = segment.rows.vectors
            kept = vectors[at].tobytes() if isinstance(vectors, np.ndarray) else None
            return int(segment.rows.image_ids[at]), kept
    return None
