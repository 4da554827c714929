"""The moments of videos in memory: a query is compared with all, and each video counts once.

They are few beside a library's pictures, so there is no snapshot of them and no approximation: 60
moments of 512 numbers take 60 KB.
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from fovea.search.errors import LibraryDamaged
from fovea.search.library.connection import REMEDY
from fovea.search.library.facts.moments import times_stored
from fovea.search.library.library import Library
from fovea.search.library.rows import ModelRow

from .base import best
from .exhaustive import Exhaustive
from .segments import Neighbours

__all__ = ["BestMoments", "KeptMoments", "moment_times", "stored_moment", "video_counts"]

FIRST = 8  # moments looked at for each video that is wanted, at first
PAGE = 200  # videos read at a time


@dataclass(frozen=True, slots=True)
class BestMoments:
    """The moment of each of some videos that is nearest to a query."""

    places: np.ndarray  # int64 (m,), of the videos among the images asked for
    times: np.ndarray  # int64 (m,), milliseconds
    vectors: np.ndarray  # float32 (m, d)


@dataclass(frozen=True, slots=True)
class KeptMoments:
    """The moments of one model, video after video; replaced whole, never changed."""

    embedding_ids: np.ndarray  # int64 (v,), of the videos, ascending
    image_ids: np.ndarray  # int64 (v,)
    starts: np.ndarray  # int64 (v + 1,), where the moments of each begin
    times: np.ndarray  # int64 (n,), milliseconds
    vectors: np.ndarray  # float16 (n, d)
    owners: np.ndarray  # int64 (n,), places in ``image_ids``
    index: Exhaustive = field(repr=False)

    @classmethod
    def none(cls, dim: int) -> "KeptMoments":
        """Return the moments of a library without videos."""
        return _joined([], [], [], [], dim)

    def __len__(self) -> int:
        """How many videos there are."""
        return len(self.image_ids)

    def refreshed(self, conn: sqlite3.Connection, model: ModelRow) -> "KeptMoments":
        """Return the moments that the database has now; these, if they are the same."""
        if not conn.execute("SELECT EXISTS (SELECT 1 FROM moments)").fetchone()[0]:
            return self if not len(self) else KeptMoments.none(model.dim)
        rows = conn.execute(
            "SELECT embedding_id FROM moments JOIN embeddings ON id = embedding_id "
            "WHERE model_id = ? ORDER BY embedding_id",
            (model.id,),
        )
        now = np.fromiter((key for (key,) in rows), np.int64)
        if np.array_equal(now, self.embedding_ids):
            return self
        kept = np.isin(self.embedding_ids, now)
        keys, images = [self.embedding_ids[kept]], [self.image_ids[kept]]
        of_kept = np.repeat(kept, np.diff(self.starts))
        counts = [np.diff(self.starts)[kept]]
        times, vectors = [self.times[of_kept]], [self.vectors[of_kept]]
        new = now[~np.isin(now, self.embedding_ids)]
        for start in range(0, len(new), PAGE):
            some = new[start : start + PAGE].tolist()
            for key, image_id, when, data in conn.execute(
                "SELECT embedding_id, image_id, times, moments.vectors FROM moments "
                "JOIN embeddings ON id = embedding_id "
                f"WHERE embedding_id IN ({','.join('?' * len(some))}) ORDER BY embedding_id",
                some,
            ):
                at, rows16 = _read(key, when, data, model.dim)
                keys.append(np.array([key], np.int64))
                images.append(np.array([image_id], np.int64))
                counts.append(np.array([len(at)], np.int64))
                times.append(at)
                vectors.append(rows16)
        return _joined(
            [np.concatenate(keys), np.concatenate(images)],
            [np.concatenate(counts)],
            times,
            vectors,
            model.dim,
        )

    def merged(
        self,
        found: Neighbours,
        queries: np.ndarray,
        k: int,
        allowed: np.ndarray | None,
        exclude: np.ndarray | None,
    ) -> Neighbours:
        """Return the ``k`` nearest images of ``found`` and of all videos, by their best moments."""
        mask = self._mask(allowed, exclude)
        rows = []
        for place in range(len(queries)):
            own, scores = self._best(queries[place : place + 1], k, mask)
            ids = np.concatenate([found.ids[place], self.image_ids[own]])
            is_video = np.isin(found.ids[place], self.image_ids)
            values = np.concatenate([np.where(is_video, -np.inf, found.scores[place]), scores])
            ids = np.where(np.isneginf(values), -1, ids)
            rows.append((values.astype(np.float32), ids))
        longest = max(len(values) for values, _ in rows)
        scores = np.full((len(rows), longest), -np.inf, np.float32)
        ids = np.full((len(rows), longest), -1, np.int64)
        for place, (values, images) in enumerate(rows):
            scores[place, : len(values)], ids[place, : len(values)] = values, images
        return Neighbours(*best(scores, ids, k))

    def _mask(self, allowed: np.ndarray | None, exclude: np.ndarray | None) -> np.ndarray | None:
        """Return which moments may be hits, bool (n,); None for all."""
        if allowed is None and (exclude is None or not len(exclude)):
            return None
        fits = np.ones(len(self), bool)
        if allowed is not None:
            fits &= np.isin(self.image_ids, allowed)
        if exclude is not None:
            fits &= ~np.isin(self.image_ids, exclude)
        return fits[self.owners]

    def _best(
        self, query: np.ndarray, k: int, mask: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the ``k`` videos nearest to a query, as places, and their scores.

        Moments come best first, so a video's first one is its best.
        """
        total = len(self.times)
        asked = min(total, FIRST * k)
        while True:
            scores, positions = self.index.search(query, asked, mask)
            there = positions[0] >= 0
            owners = self.owners[positions[0][there]]
            _, firsts = np.unique(owners, return_index=True)
            if len(firsts) >= k or asked == total or not there.all():
                firsts = np.sort(firsts)[:k]
                return owners[firsts], scores[0][there][firsts]
            asked = min(total, 4 * asked)

    def nearest(self, image_ids: np.ndarray, query: np.ndarray) -> BestMoments:
        """Return the best moment for a query, float32 (d,), of each video among some images."""
        dim = self.vectors.shape[1]
        none = np.empty(0, np.int64)
        if not len(self) or not len(image_ids):
            return BestMoments(none, none, np.empty((0, dim), np.float32))
        order = np.argsort(self.image_ids, kind="stable")
        at = np.minimum(np.searchsorted(self.image_ids, image_ids, sorter=order), len(order) - 1)
        videos = order[at]
        places = np.flatnonzero(self.image_ids[videos] == image_ids)
        rows = []
        for video in videos[places].tolist():
            some = slice(int(self.starts[video]), int(self.starts[video + 1]))
            scores = self.vectors[some].astype(np.float32) @ query
            rows.append(some.start + int(scores.argmax()))
        chosen = np.array(rows, np.int64)
        return BestMoments(places, self.times[chosen], self.vectors[chosen].astype(np.float32))


def _joined(
    keys: Sequence[np.ndarray],
    counts: Sequence[np.ndarray],
    times: Sequence[np.ndarray],
    vectors: Sequence[np.ndarray],
    dim: int,
) -> KeptMoments:
    none = np.empty(0, np.int64)
    embedding_ids, image_ids = keys or (none, none)
    lengths = counts[0] if counts else none
    table = np.ascontiguousarray(
        np.concatenate(vectors) if vectors else np.empty((0, dim), np.float16), np.float16
    )
    return KeptMoments(
        embedding_ids,
        image_ids,
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        np.concatenate(times) if times else none,
        table,
        np.repeat(np.arange(len(image_ids)), lengths),
        Exhaustive(table),
    )


def _read(key: int, times: object, vectors: object, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Read a row's times and vectors. Raise ``LibraryDamaged`` if they do not fit."""
    is_whole = isinstance(times, bytes) and isinstance(vectors, bytes) and len(times) > 0
    if not is_whole or len(times) % 8 or len(vectors) != len(times) // 8 * 2 * dim:  # type: ignore
        raise LibraryDamaged(f"the moments of embedding {key} do not fit its model; {REMEDY}")
    found = np.frombuffer(vectors, "<f2").reshape(-1, dim)  # type: ignore[call-overload]
    return times_stored(times), found  # type: ignore[arg-type]


def moment_times(library: Library, image_id: int, model_id: int | None = None) -> list[int]:
    """Return the milliseconds of a video's moments, by one model or any; none of other images."""
    found = {
        time
        for (data,) in library.rows(
            "SELECT times FROM embeddings JOIN moments ON embedding_id = id "
            "WHERE image_id = ?1 AND (?2 IS NULL OR model_id = ?2)",
            (image_id, model_id),
        )
        for time in times_stored(data).tolist()
    }
    return sorted(found)


def video_counts(library: Library, model_id: int | None) -> tuple[int, int]:
    """Count the searchable videos, and the moments of a model."""
    [(videos, moments)] = library.rows(
        "SELECT (SELECT count(*) FROM images JOIN shown ON image_id = images.id "
        "WHERE duration_ms IS NOT NULL), (SELECT coalesce(sum(length(times) / 8), 0) "
        "FROM moments JOIN embeddings ON id = embedding_id WHERE model_id = ?)",
        (model_id,),
    )
    return int(videos), int(moments)


def stored_moment(
    conn: sqlite3.Connection, image_id: int, model: ModelRow, at_ms: int
) -> tuple[int, np.ndarray] | None:
    """Return the moment of a video in which a time lies: its own time, and its vector.

    That is the last one up to then, or the first; the vector is float32 (d,), of unit length. None
    for what is not a video with moments of that model.
    """
    row = conn.execute(
        "SELECT embedding_id, times, moments.vectors FROM embeddings "
        "JOIN moments ON embedding_id = id WHERE image_id = ? AND model_id = ?",
        (image_id, model.id),
    ).fetchone()
    if row is None:
        return None
    times, vectors = _read(row[0], row[1], row[2], model.dim)
    place = max(0, int(np.searchsorted(times, at_ms, side="right")) - 1)
    vector = vectors[place].astype(np.float32)
    return int(times[place]), vector / np.linalg.norm(vector)
