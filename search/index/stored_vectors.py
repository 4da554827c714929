"""Vectors that stay in the database, for libraries whose vectors would fill the memory.

An embedding is written once and its id is never used again, so a row that is read later is the one
that was indexed. What would be a copy in a snapshot is left out of it, and a query reads only the
rows that it compares exactly.
"""

import contextlib
import json
import sqlite3
import weakref
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import numpy as np

from fovea.search.errors import LibraryDamaged, LibraryError
from fovea.search.library.access import access_of, has_changed
from fovea.search.library.connection import REMEDY, Connection, connect
from fovea.search.library.damage import guarded
from fovea.search.library.facts.unit import are_unit

__all__ = ["BLOCK", "StoredVectors", "Vectors", "blocks"]

BLOCK = 1 << 16  # vectors held as float32 at a time
PAGE = 4096  # rows fetched at a time
DENSE = 4  # a run of ids is read whole if it has at most so many rows for each that is wanted


class Vectors(Protocol):
    """float16 vectors (n, d): an array, or ``StoredVectors``."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Their number and their width."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice | np.ndarray, /) -> np.ndarray:
        """Return some of them as an array, float16 (m, d)."""


class StoredVectors:
    """float16 vectors (n, d) of a library, read when they are asked for; threads may share them.

    A row that was deleted meanwhile is all zeros, which no embedding is.
    """

    def __init__(self, database: Path, embedding_ids: np.ndarray, dim: int) -> None:
        """``embedding_ids`` is int64 (n,), ascending."""
        self.shape = (len(embedding_ids), dim)
        self._path, self._ids = database, embedding_ids
        self._idle: deque[Connection] = deque()  # each is used by one thread at a time
        weakref.finalize(self, _close, self._idle)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        """Read a slice, positions (m,) or the rows of a mask, bool (n,), in that order.

        Raise ``LibraryDamaged`` for a row that is no unit vector of this width.
        """
        ids = self._ids[rows]
        wanted, places = ids, None
        if not (ids[1:] > ids[:-1]).all():
            wanted, places = np.unique(ids, return_inverse=True)
        out = np.zeros((len(wanted), self.shape[1]), np.float16)
        with self._connection() as conn:
            for start in range(0, len(wanted), PAGE):
                some = wanted[start : start + PAGE]
                found, vectors = self._read(conn, some)
                out[start + np.searchsorted(some, found)] = vectors
        return out if places is None else out[places]

    def _read(self, conn: sqlite3.Connection, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return which ids were found, int64 (m,), and their vectors, float16 (m, d)."""
        if wanted[-1] - wanted[0] < DENSE * len(wanted):
            sql = "SELECT id, vector FROM embeddings NOT INDEXED WHERE id BETWEEN ? AND ?"
            rows = conn.execute(f"{sql} ORDER BY id", (int(wanted[0]), int(wanted[-1]))).fetchall()
            if len(rows) != len(wanted):  # there are others between
                kept = np.isin([embedding_id for embedding_id, _ in rows], wanted)
                rows = [row for row, keep in zip(rows, kept, strict=True) if keep]
        else:
            sql = "SELECT id, vector FROM embeddings WHERE id IN (SELECT value FROM json_each(?))"
            rows = conn.execute(sql, (json.dumps(wanted.tolist()),)).fetchall()
        ids = np.fromiter((embedding_id for embedding_id, _ in rows), np.int64, len(rows))
        return ids, unit_vectors(rows, self.shape[1])

    @contextlib.contextmanager
    def _connection(self) -> Iterator[Connection]:
        with guarded(self._path):
            conn = self._idle_one() or self._another()
            try:
                yield conn
            finally:
                self._idle.append(conn)

    def _idle_one(self) -> Connection | None:
        """Take a connection that is not in use, and sees what has been written since."""
        while self._idle:
            try:
                conn = self._idle.pop()
            except IndexError:  # another thread was quicker
                break
            if not has_changed(access_of(conn), self._path):
                return conn
            conn.close()
        return None

    def _another(self) -> Connection:
        if not self._path.exists():  # else an empty one would be made in its place
            raise LibraryError(f"{self._path} is gone; bring its disk back, or restore a backup")
        return connect(self._path, any_thread=True)


def unit_vectors(rows: list[tuple[int, bytes]], dim: int) -> np.ndarray:
    """Return the vectors of rows (id, vector), float16 (n, d). Raise ``LibraryDamaged``."""
    stored = [vector for _, vector in rows]
    why = None
    if any(not isinstance(vector, bytes) or len(vector) != 2 * dim for vector in stored):
        why = f"are not of width {dim}"
    elif not are_unit(stored, dim).all():
        why = "are not all unit vectors"
    if why is not None:
        raise LibraryDamaged(f"embeddings {rows[0][0]} to {rows[-1][0]} {why}; {REMEDY}")
    return np.frombuffer(b"".join(stored), "<f2").reshape(-1, dim)


def blocks(
    vectors: Vectors, chosen: np.ndarray | None = None, start: int = 0
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield positions, int64 (m,), and vectors, float32 (m, d), at most ``BLOCK`` at a time.

    They are all from ``start`` on, or the ``chosen`` positions. The next block is read while the
    caller works on one, so two are in memory.
    """
    total = len(vectors) if chosen is None else len(chosen)

    def read(first: int) -> tuple[np.ndarray, np.ndarray]:
        some = slice(first, min(first + BLOCK, total))
        if chosen is None:
            return np.arange(some.start, some.stop), vectors[some].astype(np.float32)
        return chosen[some], vectors[chosen[some]].astype(np.float32)

    with ThreadPoolExecutor(1) as pool:
        coming = None
        for first in range(start, total, BLOCK):
            now = coming or pool.submit(read, first)
            following = first + BLOCK
            block = now.result()
            coming = pool.submit(read, following) if following < total else None
            yield block


def _close(idle: deque[Connection]) -> None:
    while idle:
        idle.pop().close()
