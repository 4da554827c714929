"""Rank the images that a query means.

Words and pictures are weighted, added and subtracted as unit vectors. Names of files and folders
that hold all the words join by reciprocal rank fusion (Cormack, Clarke and Büttcher 2009).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Literal

import numpy as np

from fovea.search.clip.protocols import TextEncoder
from fovea.search.errors import Unanswerable
from fovea.search.index.vector_index import VectorIndex
from fovea.search.library.library import Library

from .filename_search import named_images
from .filters import Selection, allowed_images, dated, files_chosen, selection
from .language import Query, Term

__all__ = ["DEEPEST", "Picture", "Ranking", "rank", "stored_vector"]

NAMED = 24  # images that names may add to an answer, so that they do not drown the others
FUSION = 60  # k of reciprocal rank fusion, from the paper
SORTED = 200  # nearest images that sort:date and sort:name put in order
AMONG = "image_id IN (SELECT value FROM json_each(?))"
DEEPEST = 10_000  # hits of words or pictures that can be reached

Kind = Literal["words", "pictures", "mixed", "browse"]


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture to be near to (or, with a weight below 0, far from), embedded already."""

    vector: np.ndarray  # float32 (d,), unit length
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Ranking:
    """The images of an answer in its order."""

    ids: np.ndarray  # int64 (n,)
    scores: np.ndarray | None  # float32 (n,), cosines; None where nothing was looked for
    total: int  # how many of them a larger limit reaches
    kind: Kind
    by_name: frozenset[int] = frozenset()  # those whose names hold the words
    vector: np.ndarray | None = None  # what was looked for, float32 (d,), unit length
    likelihoods: np.ndarray | None = None  # float32 (n,), 0 to 1, once they are known
    among: int = 0  # how many images the filters leave, near or far


def rank(
    library: Library,
    index: VectorIndex,
    encoder: TextEncoder,
    query: Query,
    *,
    pictures: Sequence[Picture] = (),
    without: int | None = None,
    limit: int = DEEPEST,
) -> Ranking:
    """The first ``limit`` images that a query means, but for the image ``without``.

    Where it names neither words nor pictures, these are all that the filters leave, the newest
    first. Raise ``Unanswerable`` for an image that is not there, and for terms that cancel out or
    have no weight.
    """
    if not query.terms and not pictures:
        ids, total = _browse(library, query, limit)
        return Ranking(ids, None, total, "browse", among=total)
    allowed = allowed_images(library, query.filters) if query.filters else None
    index.refresh(library)
    vector = _vector(library, index, encoder, query.terms, pictures)
    left = _Left(library, index, allowed, without)
    is_sorted = query.sort in ("date", "name")
    total = min(left.count(), SORTED if is_sorted else DEEPEST)
    ids, scores = _nearest(left, vector, min(limit, total))
    kind, among = _kind(query, pictures), left.among()
    ranking = Ranking(ids, scores, total, kind, vector=vector, among=among)
    if is_sorted:
        return _sorted(library, ranking, query)
    return _with_named(left, query, ranking)


@dataclass(frozen=True, slots=True)
class _Left:
    """The images that may be in an answer: visible, allowed by the filters, and not left out."""

    library: Library
    index: VectorIndex
    allowed: np.ndarray | None  # int64 (n,), ascending; None where no filter applies
    without: int | None

    @property
    def exclude(self) -> Sequence[int]:
        return () if self.without is None else (self.without,)

    def among(self) -> int:
        """How many the filters leave, embedded or not."""
        if self.allowed is None:
            [(count,)] = self.library.rows("SELECT count(*) FROM shown")
        else:
            count = len(self.allowed)
        return max(0, int(count) - len(self.exclude))

    def count(self) -> int:
        """How many of them the index holds, as far as ``DEEPEST`` and one more."""
        if self.allowed is not None:
            held = self.allowed[self.index.holds(self.allowed)]
            return int(np.count_nonzero(~np.isin(held, self.exclude)))
        [(count,)] = self.library.rows(
            "SELECT count(*) FROM (SELECT 1 FROM shown JOIN embeddings USING (image_id) "
            "WHERE model_id = ? AND image_id IS NOT ? LIMIT ?)",
            (self.index.model.id, self.without, DEEPEST),
        )
        return int(count)


# What is looked for


def _vector(
    library: Library,
    index: VectorIndex,
    encoder: TextEncoder,
    terms: Sequence[Term],
    pictures: Sequence[Picture],
) -> np.ndarray:
    """The unit vector (d,) that the terms and pictures add up to."""
    parts = [(picture.weight, np.asarray(picture.vector, np.float32)) for picture in pictures]
    texts = [term for term in terms if term.kind == "text"]
    if texts:
        rows = encoder.encode_texts([str(term.value) for term in texts])
        parts += [(term.weight, row) for term, row in zip(texts, rows, strict=True)]
    for term in terms:
        if term.kind == "like":
            stored = stored_vector(library, int(term.value), index.model.id)
            if stored is None:
                message = f"like:{term.value} names no image of this library"
                raise Unanswerable(message, "query.no_image", id=term.value)
            parts.append((term.weight, stored))
    if not any(weight for weight, _ in parts):
        message = "what has weight 0 is not looked for; give it another weight"
        raise Unanswerable(message, "query.weightless")
    total = np.stack([np.float32(weight) * row for weight, row in parts]).sum(axis=0)
    length = float(np.linalg.norm(total))
    if not length > 1e-6:
        message = "these terms cancel each other out; leave one out, or weigh it"
        raise Unanswerable(message, "query.cancelled")
    unit: np.ndarray = total / np.float32(length)
    return unit


def stored_vector(library: Library, image_id: int, model_id: int) -> np.ndarray | None:
    """The unit vector that a model gave an image, float32 (d,); None where there is none."""
    rows = library.rows(
        "SELECT vector FROM embeddings WHERE image_id = ? AND model_id = ?", (image_id, model_id)
    )
    if not rows:
        return None
    row = np.frombuffer(rows[0][0], "<f2").astype(np.float32)
    unit: np.ndarray = row / np.float32(np.linalg.norm(row))
    return unit


def _kind(query: Query, pictures: Sequence[Picture]) -> Kind:
    kinds = {term.kind for term in query.terms} | ({"like"} if pictures else set())
    if len(kinds) > 1:
        return "mixed"
    return "words" if "text" in kinds else "pictures"


# Order


def _nearest(left: _Left, vector: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """The images nearest to a vector: ids (n,) and cosines (n,), n at most ``limit``."""
    index, asked = left.index, max(1, limit)
    while True:
        found = index.search(
            vector[None],
            min(asked, max(1, len(index))),
            allowed=left.allowed,
            exclude=left.exclude or None,
        )
        ids, scores = found.ids[0], found.scores[0]
        ids, scores = ids[ids >= 0], scores[ids >= 0]
        exhausted = len(ids) < asked
        if left.allowed is None:  # the filters leave none but visible ones
            kept = np.isin(ids, _visible(left.library, ids))
            ids, scores = ids[kept], scores[kept]
        if len(ids) >= limit or exhausted:
            return ids[:limit], np.clip(scores[:limit], -1, 1)  # float16 rounds a little beyond
        asked *= 4


def _visible(library: Library, ids: np.ndarray) -> np.ndarray:
    sql = f"SELECT image_id FROM shown WHERE {AMONG}"
    return _ids(library, sql, [json.dumps(ids.tolist())])


def _browse(library: Library, query: Query, limit: int) -> tuple[np.ndarray, int]:
    """The first of the images that the filters leave, by date or name, and how many they leave."""
    chosen, values = selection(library, query.filters)
    order, more = _order(query)
    sql = f"SELECT shown.image_id FROM {chosen} ORDER BY"
    if query.filters:  # the plus sign: selected first and sorted then, not read in order
        ids = _ids(library, f"{sql} +{order}", [*values, *more])
        return ids[:limit], len(ids)
    ids = _ids(library, f"{sql} {order} LIMIT ?", [*more, limit])
    [(count,)] = library.rows("SELECT count(*) FROM shown")
    return ids, int(count)


def _sorted(library: Library, ranking: Ranking, query: Query) -> Ranking:
    """The same images by date or by name."""
    (shown, values), (order, more) = dated(query.filters), _order(query)
    sql = f"SELECT image_id FROM {shown} WHERE {AMONG} ORDER BY {order}"
    ids = _ids(library, sql, [*values, json.dumps(ranking.ids.tolist()), *more])
    assert ranking.scores is not None
    scores = dict(zip(ranking.ids.tolist(), ranking.scores.tolist(), strict=True))
    ordered = np.array([scores[image_id] for image_id in ids.tolist()], dtype=np.float32)
    return replace(ranking, ids=ids, scores=ordered)


def _ids(library: Library, sql: str, values: Sequence[object]) -> np.ndarray:
    rows = library.rows(sql, values)
    return np.fromiter(chain.from_iterable(rows), dtype=np.int64, count=len(rows))


def _order(query: Query) -> Selection:
    """What follows ORDER BY for rows of ``shown``, and its values."""
    if query.sort != "name":
        return "shown.date DESC, shown.image_id DESC", []
    met, values = files_chosen(query.filters) or ("NULL", [])
    name = (
        "SELECT name FROM files JOIN names ON names.rowid = files.id WHERE files.image_id = "
        f"shown.image_id AND state = 'indexed' ORDER BY {met} DESC, name COLLATE NOCASE LIMIT 1"
    )
    return f"({name}) COLLATE NOCASE, shown.image_id", values


# Names


def _with_named(left: _Left, query: Query, ranking: Ranking) -> Ranking:
    """Mix in the images whose names hold the wanted words.

    An image gets 1 / (60 + rank) from each of the two lists that it is in; a list that it is not
    in gives nothing. So the best names stand among the first hits, two dozen at most.
    """
    wanted = [str(term.value) for term in query.terms if term.kind == "text" and term.weight > 0]
    if not wanted:
        return ranking
    named = named_images(left.library, " ".join(wanted), NAMED, left.allowed)
    assert ranking.scores is not None and ranking.vector is not None
    scores = dict(zip(ranking.ids.tolist(), ranking.scores.tolist(), strict=True))
    missing = np.array([n for n in named if n not in scores and n != left.without], dtype=np.int64)
    if len(missing):
        found = left.index.search(ranking.vector[None], len(missing), allowed=missing)
        scores |= dict(zip(found.ids[0].tolist(), found.scores[0].tolist(), strict=True))
    named = [image_id for image_id in named if image_id in scores]
    if not named:
        return ranking
    fused = _fused(ranking.ids.tolist(), named)
    ids = np.array(fused[: len(ranking.ids)], dtype=np.int64)
    ordered = np.array([scores[image_id] for image_id in ids.tolist()], dtype=np.float32)
    return replace(ranking, ids=ids, scores=ordered, by_name=frozenset(named) & set(ids.tolist()))


def _fused(near: Sequence[int], named: Sequence[int]) -> list[int]:
    """Both lists in one order; equal shares keep the nearer one first."""
    shares: dict[int, float] = {}
    for image_ids in (near, named):
        for place, image_id in enumerate(image_ids, start=1):
            shares[image_id] = shares.get(image_id, 0.0) + 1 / (FUSION + place)
    return sorted(shares, key=lambda image_id: -shares[image_id])
