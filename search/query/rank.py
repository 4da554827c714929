"""Rank images by a query: nearest neighbours of one vector, merged with matching file names.

The query vector is the weighted sum of the unit vectors of its words and pictures. Images whose
file or folder names contain all the words are merged in by reciprocal rank fusion (Cormack, Clarke
and Büttcher 2009).
"""

import json
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any, Literal

import numpy as np

from fovea.search.clip.protocols import TextEncoder
from fovea.search.errors import Unanswerable
from fovea.search.index.vector_index import VectorIndex
from fovea.search.library import checks
from fovea.search.library.library import Library
from fovea.search.library.marks import hidden_count, hidden_images

from .choosing import chosen
from .columns import Columns
from .filename_search import named_images
from .filters import Selection, allowed_images, dated, files_chosen, selection, visible
from .language import Query, Term

__all__ = [
    "DEEPEST",
    "Picture",
    "Ranking",
    "Remembered",
    "made_anew",
    "rank",
    "stored_vector",
]

NAMED = 24  # most images found by name; more would push the nearest ones off the first page
FUSION = 60  # k of reciprocal rank fusion, from the paper
SORTED = 200  # nearest images reordered by sort:date and sort:name; at most ``run.DEPTHS[0]``
VISIBLE = " AND shown.image_id NOT IN (SELECT image_id FROM hidden)"  # of rows of ``shown``
AMONG = "image_id IN (SELECT value FROM json_each(?))"
DEEPEST = 10_000  # most hits of a query with words or pictures; browsing has no limit

Kind = Literal["words", "pictures", "mixed", "browse"]

# Returns what a function returns, from a cache until the library changes, by a name for it.
Remembered = Callable[[Hashable, Callable[[], Any]], Any]


def made_anew(name: Hashable, make: Callable[[], Any]) -> Any:
    """Be ``Remembered`` without a cache."""
    return make()


@dataclass(frozen=True, slots=True)
class Picture:
    """An embedded picture to search by; with a negative weight, one to stay away from."""

    vector: np.ndarray  # float32 (d,), unit length
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Ranking:
    """The first images of an answer, in order."""

    ids: np.ndarray  # int64 (n,)
    scores: np.ndarray | None  # float32 (n,), cosines; None when browsing
    total: int  # hits that can be reached with a larger limit
    kind: Kind
    by_name: frozenset[int] = frozenset()  # ids of images whose file or folder names match
    vector: np.ndarray | None = None  # the query vector, float32 (d,), unit length
    likelihoods: np.ndarray | None = None  # float32 (n,), 0 to 1; None until computed
    among: int = 0  # images that pass the filters, near or far


def rank(
    library: Library,
    index: VectorIndex | None,
    encoder: TextEncoder,
    query: Query,
    *,
    pictures: Sequence[Picture] = (),
    without: int | None = None,
    limit: int = DEEPEST,
    remembered: Remembered = made_anew,
    columns: Columns | None = None,
) -> Ranking:
    """Return the first ``limit`` images for a query, leaving out the image ``without``.

    ``remembered`` may keep what depends on the library alone until the library changes.
    ``columns`` are those of the library as it is now; without them, SQL filters and sorts.
    ``index`` may be None for a query without words and pictures.

    A query without words and pictures returns the images that pass its filters, newest first.
    Raise ``Unanswerable`` if the query names an unknown image, if its terms cancel out, or if all
    their weights are 0.
    """
    if not query.terms and not pictures:
        ids, total = _browse(library, query, limit, columns)
        return Ranking(ids, None, total, "browse", among=total)
    assert index is not None
    allowed = _allowed(library, query, columns)
    _refresh(library, index, remembered)
    vector = _vector(library, index, encoder, query.terms, pictures)
    hidden = hidden_images(library)
    eligible = _Eligible(library, index, allowed, without, hidden, remembered)
    is_sorted = query.sort in ("date", "name")
    total = min(eligible.searchable(), SORTED if is_sorted else DEEPEST)
    ids, scores = _nearest(eligible, vector, min(limit, total))
    kind, among = _kind(query, pictures), eligible.count()
    ranking = Ranking(ids, scores, total, kind, vector=vector, among=among)
    if is_sorted:
        return _sorted(library, ranking, query)
    return _with_named(eligible, query, ranking)


def _refresh(library: Library, index: VectorIndex, remembered: Remembered) -> None:
    """Let the index take in what was written, unless it has since the library changed.

    A later index with the same ``id`` was read later, and so is not older.
    """
    remembered(("refreshed", id(index)), lambda: index.refresh(library))


@dataclass(frozen=True, slots=True)
class _Eligible:
    """The images that an answer may hold: visible, passing the filters, and not excluded."""

    library: Library
    index: VectorIndex
    allowed: np.ndarray | None  # int64 (n,), ascending; None where no filter applies
    without: int | None
    hidden: np.ndarray  # int64 (n,), ascending; where filters apply, these are not allowed
    remembered: Remembered

    @property
    def exclude(self) -> np.ndarray:
        """The ids to keep out of an answer, int64 (n,), ascending."""
        out = self.hidden if self.allowed is None else self.hidden[:0]
        return out if self.without is None else np.union1d(out, [self.without])

    def count(self) -> int:
        """Count the images, embedded or not."""
        if self.allowed is None:
            count = self.remembered("visible", lambda: _visible_count(self.library))
            return max(0, int(count) - (not self._hides(self.without)))
        return max(0, len(self.allowed) - (self.without is not None))

    def _hides(self, image_id: int | None) -> bool:
        return image_id is None or bool(np.isin(image_id, self.hidden))

    def searchable(self) -> int:
        """Count the images with an embedding; without filters, stop counting at ``DEEPEST``."""
        if self.allowed is not None:
            held = self.allowed[self.index.holds(self.allowed)]
            return int(np.count_nonzero(~np.isin(held, self.exclude)))
        if self.without is None:
            name = "searchable", self.index.model.id
            return int(self.remembered(name, self._searchable))
        return self._searchable()

    def _searchable(self) -> int:
        rows = (
            "(SELECT 1 FROM shown JOIN embeddings USING (image_id) WHERE model_id = ? "
            f"AND image_id IS NOT ?{VISIBLE if len(self.hidden) else ''} LIMIT ?)"
        )
        return _count(self.library, rows, (self.index.model.id, self.without, DEEPEST))


def _count(library: Library, rows: str, values: Sequence[object] = ()) -> int:
    [(count,)] = library.rows(f"SELECT count(*) FROM {rows}", values)
    return int(count)


# The query vector


def _vector(
    library: Library,
    index: VectorIndex,
    encoder: TextEncoder,
    terms: Sequence[Term],
    pictures: Sequence[Picture],
) -> np.ndarray:
    """Return the weighted sum of the terms and pictures, scaled to unit length, float32 (d,)."""
    parts = [(picture.weight, np.asarray(picture.vector, np.float32)) for picture in pictures]
    texts = [term for term in terms if term.kind == "text"]
    if texts:
        rows = encoder.encode_texts([str(term.value) for term in texts])
        parts += [(term.weight, row) for term, row in zip(texts, rows, strict=True)]
    for term in terms:
        if term.kind == "like":
            stored = stored_vector(library, int(term.value), index.model.id)
            if stored is None:
                message = f"like:{term.value}: this library has no image {term.value}"
                raise Unanswerable(message, "query.no_image", id=term.value)
            parts.append((term.weight, stored))
    if not any(weight for weight, _ in parts):
        message = "every term has weight 0; give at least one of them another weight"
        raise Unanswerable(message, "query.weightless")
    total = np.stack([np.float32(weight) * row for weight, row in parts]).sum(axis=0)
    length = float(np.linalg.norm(total))
    if not length > 1e-6:
        message = "these terms cancel each other out; remove one or change its weight"
        raise Unanswerable(message, "query.cancelled")
    unit: np.ndarray = total / np.float32(length)
    return unit


def stored_vector(library: Library, image_id: int, model_id: int) -> np.ndarray | None:
    """Return an image's embedding by a model, float32 (d,), unit length; None if it has none."""
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


def _nearest(eligible: _Eligible, vector: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the images nearest to a vector: ids (n,) and cosines (n,), n at most ``limit``."""
    index, asked = eligible.index, max(1, limit)
    while True:
        found = index.search(
            vector[None],
            min(asked, max(1, len(index))),
            allowed=eligible.allowed,
            exclude=eligible.exclude,
        )
        ids, scores = found.ids[0], found.scores[0]
        ids, scores = ids[ids >= 0], scores[ids >= 0]
        exhausted = len(ids) < asked
        if eligible.allowed is None:  # the index also holds what no file shows
            sql = (
                "SELECT value FROM json_each(?) "
                "WHERE NOT EXISTS (SELECT 1 FROM shown WHERE image_id = value)"
            )
            with eligible.library.reading():
                unseen = _ids(eligible.library, sql, [json.dumps(ids.tolist())])
                if len(unseen):  # by their files, or by damage?
                    part = partial(checks.both_ways, image_ids=unseen.tolist())
                    eligible.library.refuse_damaged(part)
                    kept = ~np.isin(ids, unseen)
                    ids, scores = ids[kept], scores[kept]
        if len(ids) >= limit or exhausted:
            return ids[:limit], np.clip(scores[:limit], -1, 1)  # float16 can round past 1
        asked *= 4


def _allowed(library: Library, query: Query, columns: Columns | None) -> np.ndarray | None:
    """Return the images that pass the filters, int64 (n,), ascending; None where none applies."""
    if not query.filters:
        return None
    found = None if columns is None else chosen(library, columns, query.filters)
    if found is None:
        return allowed_images(library, query.filters)
    return visible(library, found.ids, query.filters)


def _browse(
    library: Library, query: Query, limit: int, columns: Columns | None
) -> tuple[np.ndarray, int]:
    """Return the first images that pass the filters, by date or name, and how many pass them."""
    if columns is not None:
        is_dated = query.sort != "name"
        found = chosen(library, columns, query.filters, is_dated=is_dated)
        if found is not None:
            ids = found.newest_first() if is_dated else found.by_name()
            ids = visible(library, ids, query.filters)
            # A view of a few would keep all of them in memory, for as long as the listing is kept.
            return ids[:limit].copy() if limit < len(ids) else ids, len(ids)
    passing, values = selection(library, query.filters)
    order, more = _order(query)
    sql = f"SELECT shown.image_id FROM {passing}"
    if query.filters:  # the plus sign makes SQLite filter first, then sort
        ids = _ids(library, f"{sql} ORDER BY +{order}", [*values, *more])
        ids = visible(library, ids, query.filters)
        return ids[:limit], len(ids)
    with library.reading():
        if len(hidden_images(library)):
            sql += VISIBLE
        ids = _ids(library, f"{sql} ORDER BY {order} LIMIT ?", [*more, limit])
        count = _visible_count(library)
        if len(ids) != min(limit, count):
            library.refuse_damaged(checks.structure)
    return ids, count


def _visible_count(library: Library) -> int:
    """Count the searchable images that are not hidden."""
    [(count,)] = library.rows("SELECT count(*) FROM shown")
    return int(count) - hidden_count(library)


def _sorted(library: Library, ranking: Ranking, query: Query) -> Ranking:
    """Return the ranking reordered by date or by name."""
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
    """Return the ORDER BY clause for rows of ``shown``, and its values."""
    if query.sort != "name":
        return "shown.date DESC, shown.image_id DESC", []
    met, values = files_chosen(query.filters) or ("", [])
    files = (
        "FROM files JOIN folded ON file_id = files.id WHERE files.image_id = shown.image_id "
        "AND state = 'indexed'"
    )
    name = f"SELECT min(name) {files}"
    if met:
        name = f"SELECT name {files} ORDER BY {met} DESC, name LIMIT 1"
    return f"({name}), shown.image_id", values


# Names


def _with_named(eligible: _Eligible, query: Query, ranking: Ranking) -> Ranking:
    """Merge in images whose file and folder names contain the wanted words, at most ``NAMED``.

    An image scores 1 / (60 + rank) in each of the two lists that contain it, so the best name
    matches land among the first hits.
    """
    wanted = [str(term.value) for term in query.terms if term.kind == "text" and term.weight > 0]
    if not wanted:
        return ranking
    words, exclude = " ".join(wanted), eligible.exclude
    named = named_images(eligible.library, words, NAMED, eligible.allowed, exclude)
    assert ranking.scores is not None and ranking.vector is not None
    scores = dict(zip(ranking.ids.tolist(), ranking.scores.tolist(), strict=True))
    unscored = [n for n in named if n not in scores and n != eligible.without]
    if unscored:
        found = eligible.index.search(ranking.vector[None], len(unscored), allowed=unscored)
        scores |= dict(zip(found.ids[0].tolist(), found.scores[0].tolist(), strict=True))
    named = [image_id for image_id in named if image_id in scores]
    if not named:
        return ranking
    fused = _fused(ranking.ids.tolist(), named)
    ids = np.array(fused[: len(ranking.ids)], dtype=np.int64)
    ordered = np.array([scores[image_id] for image_id in ids.tolist()], dtype=np.float32)
    return replace(ranking, ids=ids, scores=ordered, by_name=frozenset(named) & set(ids.tolist()))


def _fused(near: Sequence[int], named: Sequence[int]) -> list[int]:
    """Merge both lists; on a tie, the image from ``near`` comes first."""
    fused: dict[int, float] = {}
    for image_ids in (near, named):
        for place, image_id in enumerate(image_ids, start=1):
            fused[image_id] = fused.get(image_id, 0.0) + 1 / (FUSION + place)
    return sorted(fused, key=lambda image_id: -fused[image_id])
