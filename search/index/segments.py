"""A run of embeddings with its index: those in a snapshot, or those written since."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from .base import Index, best
from .snapshot import Rows
from .streamed import compared

__all__ = ["Neighbours", "Segment", "nearest"]


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The nearest images of each query, best first, padded with -inf and -1."""

    scores: np.ndarray  # float32 (q, k), cosine
    ids: np.ndarray  # int64 (q, k), images


@dataclass(frozen=True, slots=True)
class Segment:
    """Rows, the index that searches them, and which of them were deleted since."""

    rows: Rows
    index: Index
    alive: np.ndarray | None = None  # bool (n,); None where all are
    by_image: np.ndarray | None = None  # positions by image id; None where rows are

    @classmethod
    def of(cls, rows: Rows, index: Index | None = None) -> "Segment":
        """Make a segment of rows; without an index, they are searched exhaustively."""
        ids = rows.image_ids
        ordered = bool((ids[1:] > ids[:-1]).all())
        by_image = None if ordered else np.argsort(ids, kind="stable")
        return cls(rows, index or compared(rows.vectors), None, by_image)

    def __len__(self) -> int:
        """How many rows are not deleted."""
        return len(self.rows) if self.alive is None else int(np.count_nonzero(self.alive))

    @property
    def chosen(self) -> slice | np.ndarray:
        """What selects the rows that are not deleted."""
        return slice(None) if self.alive is None else self.alive

    def without(self, embedding_ids: Iterable[int]) -> "Segment":
        """Return this segment with some embeddings deleted; ids that it lacks are ignored."""
        ids = np.fromiter(embedding_ids, dtype=np.int64)
        _, found = _find(self.rows.embedding_ids, None, ids)
        if not len(found):
            return self
        alive = np.ones(len(self.rows), bool) if self.alive is None else self.alive.copy()
        alive[found] = False
        return replace(self, alive=alive)

    def search(
        self,
        queries: np.ndarray,
        k: int,
        allowed: np.ndarray | None = None,
        exclude: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return scores and image ids (q, k) of the nearest rows that are not deleted."""
        mask = self.alive
        if allowed is not None:
            mask = np.zeros(len(self.rows), bool)
            mask[self.positions(allowed)] = True
            if self.alive is not None:
                mask &= self.alive
        if exclude is not None and len(out := self.positions(exclude)):
            mask = np.ones(len(self.rows), bool) if mask is None else mask.copy()
            mask[out] = False
        scores, positions = self.index.search(queries, k, mask)
        if not len(self.rows):
            return scores, positions
        return scores, np.where(positions < 0, -1, self.rows.image_ids[positions])

    def positions(self, image_ids: np.ndarray) -> np.ndarray:
        """Return the positions of the images in this segment, deleted ones included."""
        return _find(self.rows.image_ids, self.by_image, image_ids)[1]

    def vectors(self, image_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return places in ``image_ids`` and vectors, float32 (m, d), of the images here."""
        places, positions = self._alive(image_ids)
        vectors = self.rows.vectors[positions].astype(np.float32)
        there = vectors.any(axis=1)  # not if deleted while they were read
        return places[there], vectors[there]

    def places(self, image_ids: np.ndarray) -> np.ndarray:
        """Return places in ``image_ids`` of the images here."""
        return self._alive(image_ids)[0]

    def _alive(self, image_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        places, positions = _find(self.rows.image_ids, self.by_image, image_ids)
        if self.alive is None:
            return places, positions
        kept = self.alive[positions]
        return places[kept], positions[kept]


def nearest(
    segments: Iterable[Segment],
    queries: np.ndarray,
    k: int,
    allowed: np.ndarray | None,
    exclude: np.ndarray | None,
) -> Neighbours:
    """Search several segments as if they were one."""
    found = [segment.search(queries, k, allowed, exclude) for segment in segments if len(segment)]
    if not found:
        shape = (len(queries), k)
        return Neighbours(np.full(shape, -np.inf, np.float32), np.full(shape, -1, np.int64))
    if len(found) == 1:
        return Neighbours(*found[0])
    scores = np.concatenate([scores for scores, _ in found], axis=1)
    ids = np.concatenate([ids for _, ids in found], axis=1)
    return Neighbours(*best(scores, ids, k))


def _find(
    values: np.ndarray, order: np.ndarray | None, wanted: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return where wanted values are in ``wanted`` and in ``values``, which ``order`` sorts."""
    if not len(values):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    if order is None and int(values[-1]) - int(values[0]) == len(values) - 1:
        at = np.clip(wanted, values[0], values[-1]) - values[0]  # none is missing in between
    else:
        at = np.minimum(np.searchsorted(values, wanted, sorter=order), len(values) - 1)
        at = at if order is None else order[at]
    found = np.flatnonzero(values[at] == wanted)
    return found, at[found]
