"""One consistent view of a model's embeddings, read from a snapshot and the database."""

import logging
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fovea.search.errors import LibraryError
from fovea.search.library.library import Library
from fovea.search.library.rows import ModelRow

from .exhaustive import Exhaustive
from .ivf import Effort, Trained
from .kinds import Kind, load_faiss
from .segments import Segment
from .snapshot import Header, Rows, Snapshot, Unusable, read_snapshot

__all__ = [
    "IndexOptions",
    "State",
    "differences",
    "load",
    "refreshed",
    "refreshed_within",
    "snapshot_path",
    "state_of",
]

log = logging.getLogger(__name__)

PAGE = 4096  # rows fetched at a time


@dataclass(frozen=True, slots=True)
class IndexOptions:
    """When an index is trained, and when its snapshot is written again."""

    exhaustive_below: int = 50_000  # embeddings; more are worth training for
    share: float = 0.05  # of the embeddings, newer than the snapshot or deleted since
    at_once: int = 5_000  # newer embeddings that even opening for a search stores


@dataclass(frozen=True, slots=True)
class State:
    """One consistent view of a model's embeddings; replaced whole, never changed."""

    stored: Segment  # what the snapshot holds
    tail: Segment  # what was written since
    header: Header | None  # the snapshot's
    last_embedding: int
    last_tombstone: int

    def __len__(self) -> int:
        return len(self.stored) + len(self.tail)

    @property
    def pending(self) -> int:
        """How many rows a new snapshot would add or drop."""
        return len(self.tail.rows) + len(self.stored.rows) - len(self.stored)


def snapshot_path(library: Library, model_id: int) -> Path:
    """Where the snapshot of a model's embeddings lies."""
    return library.folder / f"index-{model_id}.snapshot"


def load(library: Library, model: ModelRow, options: IndexOptions) -> State:
    """The state of the database, by way of the snapshot if that can be believed."""
    path = snapshot_path(library, model.id)
    if path.exists():
        try:
            snapshot = read_snapshot(path)
            _vouch(snapshot, library, model)
            with library.reading() as conn:
                state = refreshed_within(state_of(snapshot, model, options), conn, model)
                _check_count(state, conn, model)
            return state
        except Unusable as exc:
            log.warning(
                "%s is not used: %s; reading the database instead. "
                "fovea index writes it anew, if this does not",
                path,
                exc,
            )
    return refreshed(state_of(None, model, options), library, model)


def _vouch(snapshot: Snapshot, library: Library, model: ModelRow) -> None:
    """Raise ``Unusable`` unless this database wrote the snapshot, and of this model."""
    header = snapshot.header
    if header.library != library.id:
        raise Unusable("it belongs to another library")
    if (header.model, header.dim) != (model.identity, model.dim):
        raise Unusable("it was made with another model")
    known = library.rows("SELECT checksum FROM snapshots WHERE model_id = ?", (model.id,))
    if (snapshot.checksum,) not in known:
        raise Unusable("the database does not know it")


def _check_count(state: State, conn: sqlite3.Connection, model: ModelRow) -> None:
    """Raise ``Unusable`` unless the state has as many embeddings as the database."""
    where = "INDEXED BY embeddings_model_id WHERE model_id = ?"
    [(count,)] = conn.execute(f"SELECT count(*) FROM embeddings {where}", (model.id,))
    if len(state) != count:
        raise Unusable(f"it leads to {len(state)} embeddings, the database has {count}")


def state_of(snapshot: Snapshot | None, model: ModelRow, options: IndexOptions) -> State:
    """The state that a snapshot holds; without one, the state before the first embedding."""
    none = Segment.of(Rows.none(model.dim))
    if snapshot is None:
        return State(none, none, None, 0, 0)
    header, rows = snapshot.header, snapshot.rows
    kind: Kind = Exhaustive(rows.vectors)
    if snapshot.base is not None and header.training is not None:
        kind = _trained(snapshot, header.training, options)
    return State(Segment.of(rows, kind), none, header, header.generation, header.tombstone)


def _trained(snapshot: Snapshot, training: dict[str, Any], options: IndexOptions) -> Trained:
    """The trained index of a snapshot. Raise ``Unusable`` if this FAISS cannot read it."""
    vectors = snapshot.rows.vectors
    try:
        effort = Effort(**training["effort"])
        base = load_faiss().deserialize_index(snapshot.base)
    except (RuntimeError, TypeError, KeyError) as exc:
        raise Unusable(f"its trained index cannot be read: {exc}") from exc
    if (base.ntotal, base.d) != vectors.shape:
        raise Unusable(f"its trained index holds {base.ntotal} embeddings of width {base.d}")
    return Trained(vectors, base, effort, options.exhaustive_below)


def refreshed(state: State, library: Library, model: ModelRow) -> State:
    """The state after what the library has written and deleted since."""
    with library.reading() as conn:
        return refreshed_within(state, conn, model)


def refreshed_within(state: State, conn: sqlite3.Connection, model: ModelRow) -> State:
    """The state after the rows and tombstones that it has not seen; in one transaction."""
    rows = _rows_after(conn, model, state.last_embedding)
    deleted = conn.execute(
        "SELECT id, embedding_id FROM tombstones WHERE model_id = ? AND id > ? ORDER BY id",
        (model.id, state.last_tombstone),
    ).fetchall()
    if not len(rows) and not deleted:
        return state
    stored, tail = state.stored, state.tail
    if deleted:
        gone = [embedding_id for _, embedding_id in deleted]
        stored, tail = stored.without(gone), tail.without(gone)
    if len(rows):
        tail = _joined(tail, rows)
    return State(
        stored,
        tail,
        state.header,
        int(rows.embedding_ids[-1]) if len(rows) else state.last_embedding,
        deleted[-1][0] if deleted else state.last_tombstone,
    )


def _rows_after(conn: sqlite3.Connection, model: ModelRow, last: int) -> Rows:
    """The embeddings of a model whose ids are higher than ``last``."""
    where = "FROM embeddings INDEXED BY embeddings_model_id WHERE model_id = ? AND id > ?"
    [(count,)] = conn.execute(f"SELECT count(*) {where}", (model.id, last))
    ids = np.empty((count, 2), dtype=np.int64)
    vectors = np.empty((count, model.dim), dtype="<f2")
    cursor = conn.execute(f"SELECT id, image_id, vector {where} ORDER BY id", (model.id, last))
    start = 0
    while page := cursor.fetchmany(PAGE):
        part = slice(start, start + len(page))
        raw = np.frombuffer(b"".join(vector for _, _, vector in page), dtype="<f2")
        if raw.size != len(page) * model.dim:
            raise LibraryError(
                f"embeddings {page[0][0]} to {page[-1][0]} are not of width {model.dim}; "
                "restore the library from a backup, or index again into another folder"
            )
        vectors[part] = raw.reshape(-1, model.dim)
        ids[part] = [(embedding_id, image_id) for embedding_id, image_id, _ in page]
        start = part.stop
    return Rows(np.ascontiguousarray(ids[:, 0]), np.ascontiguousarray(ids[:, 1]), vectors)


def _joined(tail: Segment, rows: Rows) -> Segment:
    """The tail with newer rows, its deleted ones dropped."""
    old = tail.rows
    if not len(old):
        return Segment.of(rows)
    kept = slice(None) if tail.alive is None else tail.alive
    return Segment.of(
        Rows(
            np.concatenate([old.embedding_ids[kept], rows.embedding_ids]),
            np.concatenate([old.image_ids[kept], rows.image_ids]),
            np.concatenate([old.vectors[kept], rows.vectors]),
        )
    )


def differences(state: State, conn: sqlite3.Connection, model: ModelRow) -> list[str]:
    """Where the state and the database differ: missing, foreign and altered embeddings."""
    problems, seen = [], 0
    cursor = conn.execute(
        "SELECT id, image_id, vector FROM embeddings WHERE model_id = ? ORDER BY id", (model.id,)
    )
    while page := cursor.fetchmany(PAGE):
        seen += len(page)
        for embedding_id, image_id, vector in page:
            held = _held(state, embedding_id)
            if held is None:
                problems.append(f"embedding {embedding_id} is missing from the index")
            elif held != (image_id, vector):
                problems.append(f"embedding {embedding_id} differs in the index")
    if len(state) > seen:
        problems.append(f"the index has {len(state) - seen} embeddings that the database lacks")
    return problems


def _held(state: State, embedding_id: int) -> tuple[int, bytes] | None:
    """The image and the bytes of a living embedding, as the index has them."""
    for segment in (state.stored, state.tail):
        ids = segment.rows.embedding_ids
        at = int(np.searchsorted(ids, embedding_id))
        if at < len(ids) and ids[at] == embedding_id:
            if segment.alive is not None and not segment.alive[at]:
                return None
            return int(segment.rows.image_ids[at]), segment.rows.vectors[at].tobytes()
    return None
