"""A run of embeddings with its index: what a snapshot holds, or what came after it."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from .exhaustive import Exhaustive
from .kinds import Kind, best
from .snapshot import Rows

__all__ = ["Neighbours", "Segment", "nearest"]


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The nearest images of each query, best first; -inf and -1 fill up short answers."""

    scores: np.ndarray  # float32 (q, k), cosine
    ids: np.ndarray  # int64 (q, k), images


@dataclass(frozen=True, slots=True)
class Segment:
    """Rows, the kind of index that searches them, and which of them were deleted since."""

    rows: Rows
    kind: Kind
    alive: np.ndarray | None = None  # bool (n,); None where all are
    by_image: np.ndarray | None = None  # positions in the order of the image ids, unless they are

    @classmethod
    def of(cls, rows: Rows, kind: Kind | None = None) -> "Segment":
        ids = rows.image_ids
        ordered = bool((ids[1:] > ids[:-1]).all())
        by_image = None if ordered else np.argsort(ids, kind="stable")
        return cls(rows, kind or Exhaustive(rows.vectors), None, by_image)

    def __len__(self) -> int:
        """How many rows are alive."""
        return len(self.rows) if self.alive is None else int(np.count_nonzero(self.alive))

    def without(self, embedding_ids: Iterable[int]) -> "Segment":
        """This segment with some embeddings deleted; ids that it lacks do not matter."""
        ids = np.fromiter(embedding_ids, dtype=np.int64)
        _, held = _find(self.rows.embedding_ids, None, ids)
        if not len(held):
            return self
        alive = np.ones(len(self.rows), bool) if self.alive is None else self.alive.copy()
        alive[held] = False
        return replace(self, alive=alive)

    def search(
        self,
        queries: np.ndarray,
        k: int,
        allowed: np.ndarray | None = None,
        exclude: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Scores and image ids (q, k) of the nearest rows that are alive."""
        mask = self.alive
        if allowed is not None:
            mask = np.zeros(len(self.rows), bool)
            mask[self.positions(allowed)] = True
            if self.alive is not None:
                mask &= self.alive
        if exclude is not None and len(out := self.positions(exclude)):
            mask = np.ones(len(self.rows), bool) if mask is None else mask.copy()
            mask[out] = False
        scores, positions = self.kind.search(queries, k, mask)
        if not len(self.rows):
            return scores, positions
        return scores, np.where(positions < 0, -1, self.rows.image_ids[positions])

    def positions(self, image_ids: np.ndarray) -> np.ndarray:
        """Where those of the images are that this segment holds, deleted ones included."""
        return _find(self.rows.image_ids, self.by_image, image_ids)[1]

    def vectors(self, image_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Places in ``image_ids`` and vectors, float32 (m, d), of those that are alive here."""
        places, positions = self._alive(image_ids)
        return places, self.rows.vectors[positions].astype(np.float32)

    def places(self, image_ids: np.ndarray) -> np.ndarray:
        """Places in ``image_ids`` of those that are alive here."""
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
    answers = [segment.search(queries, k, allowed, exclude) for segment in segments if len(segment)]
    if not answers:
        shape = (len(queries), k)
        return Neighbours(np.full(shape, -np.inf, np.float32), np.full(shape, -1, np.int64))
    if len(answers) == 1:
        return Neighbours(*answers[0])
    scores = np.concatenate([scores for scores, _ in answers], axis=1)
    ids = np.concatenate([ids for _, ids in answers], axis=1)
    return Neighbours(*best(scores, ids, k))


def _find(
    values: np.ndarray, order: np.ndarray | None, wanted: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Those wanted that are among ``values``, which ``order`` sorts: their places, and where."""
    if not len(values):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    at = np.searchsorted(values, wanted, sorter=order)
    at = np.minimum(at, len(values) - 1)
    at = at if order is None else order[at]
    found = np.flatnonzero(values[at] == wanted)
    return found, at[found]
