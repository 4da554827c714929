"""Rank images by a query: nearest neighbours of one vector, merged with matching names and text.

The query vector is the weighted sum of the unit vectors of its words and pictures. Images whose
file or folder names, or the text in them, contain all the words are merged in by reciprocal rank
fusion (Cormack, Clarke and Büttcher 2009).
"""

import json
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from typing import Any, Literal

import numpy as np

from fovea.search.analyses.texts import texted_images
from fovea.search.clip.protocols import TextEncoder
from fovea.search.errors import Unanswerable
from fovea.search.index.moments import stored_moment
from fovea.search.index.vector_index import VectorIndex
from fovea.search.library import checks
from fovea.search.library.library import Library
from fovea.search.library.marks import hidden_count, hidden_images
from fovea.search.seam.asking import Eligible, Source
from fovea.search.tags.known import check_tags

from .choosing import chosen
from .columns import Columns
from .filename_search import named_images
from .filters import Filter, Selection, allowed_images, dated, files_chosen, selection, visible
from .known_places import check_places
from .language import Query, Term

__all__ = [
    "DEEPEST",
    "Embedded",
    "Picture",
    "Ranking",
    "Remembered",
    "made_anew",
    "name_order",
    "rank",
    "ranked",
    "reordered",
    "stored_vector",
]

NAMED = 24  # most images found by name; more would push the nearest ones off the first page
TEXTED = 12  # of these, most that are found by the text in them
FUSION = 60  # k of reciprocal rank fusion, from the paper
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
    by_text: frozenset[int] = frozenset()  # ids of images that show the words
    vector: np.ndarray | None = None  # the query vector, float32 (d,), unit length
    likelihoods: np.ndarray | None = None  # float32 (n,), 0 to 1; None until computed
    among: int = 0  # images that pass the filters, near or far
    moments: Mapping[int, int] = field(default_factory=dict)  # of videos: milliseconds by id

    @property
    def by_words(self) -> frozenset[int]:
        """The ids of images found by the words themselves, whatever the model makes of them."""
        return self.by_name | self.by_text


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

    With words or pictures, the nearest come first, whatever the query's order; see ``reordered``.

    ``remembered`` may keep what depends on the library alone until the library changes.
    ``columns`` are those of the library as it is now; without them, SQL filters and sorts.
    ``index`` may be None for a query without words and pictures.

    A query without words and pictures returns the images that pass its filters, newest first.
    Raise ``Unanswerable`` if the query names an unknown image, place or tag, if its terms cancel
    out, or if all their weights are 0.
    """
    source = Embedded(library, index, remembered, columns)
    return ranked(source, encoder, query, pictures=pictures, without=without, limit=limit)


def ranked(
    source: Source,
    encoder: TextEncoder,
    query: Query,
    *,
    pictures: Sequence[Picture] = (),
    without: int | None = None,
    limit: int = DEEPEST,
) -> Ranking:
    """Rank as ``rank`` does, in a library of any kind."""
    source.check(query.filters)
    if not query.terms and not pictures:
        ids, total = source.browse(query.filters, query.sort, limit)
        return Ranking(ids, None, total, "browse", among=total)
    eligible = source.eligible(query.filters, without)
    vector = _vector(source, encoder, query.terms, pictures)
    total = min(eligible.searchable(), DEEPEST)
    ids, scores = eligible.nearest(vector, min(limit, total))
    kind, among = _kind(query, pictures), eligible.count()
    ranking = Ranking(ids, scores, total, kind, vector=vector, among=among)
    ranking = _with_named(eligible, query, without, ranking)
    return replace(ranking, moments=source.moments(ranking.ids, vector))


# A library in SQLite, with its index


@dataclass(frozen=True, slots=True)
class Embedded:
    """A library in SQLite and its FAISS index, as ``seam.asking.Source``."""

    library: Library
    index: VectorIndex | None  # None where it is only browsed
    remembered: Remembered = made_anew
    columns: Columns | None = None

    def check(self, filters: Sequence[Filter]) -> None:
        """Raise ``Unanswerable`` for a place or tag that no picture has."""
        check_places(self.library, filters)
        tags = [entry for entry in filters if entry.kind == "tag"]
        unwanted = [entry.value for entry in tags if entry.negated]
        check_tags(self.library, [entry.value for entry in tags if not entry.negated], unwanted)

    def browse(
        self, filters: Sequence[Filter], sort: str | None, limit: int
    ) -> tuple[np.ndarray, int]:
        """Return the first images that pass the filters, and how many pass them."""
        return _browse(self.library, filters, sort, limit, self.columns)

    def eligible(self, filters: Sequence[Filter], without: int | None) -> "_Eligible":
        """Return what an answer may hold, of the library as it is now."""
        assert self.index is not None
        allowed = _allowed(self.library, filters, self.columns)
        index = self.index  # a later one with the same ``id`` was read later: it is not older
        self.remembered(("refreshed", id(index)), lambda: index.refresh(self.library))
        hidden = hidden_images(self.library)
        return _Eligible(self.library, self.index, allowed, without, hidden, self.remembered)

    def vector(self, image_id: int, at: int | None = None) -> np.ndarray | None:
        """Return an image's embedding, or that of a video's moment; None if it has none."""
        assert self.index is not None
        found = stored_vector(self.library, image_id, self.index.model.id)
        if found is None or at is None:
            return found
        moment = stored_moment(self.library.conn, image_id, self.index.model, at)
        return None if moment is None else moment[1]

    def moments(self, image_ids: np.ndarray, vector: np.ndarray) -> Mapping[int, int]:
        """Return the moment nearest to a vector of each video among images, in milliseconds."""
        assert self.index is not None
        found = self.index.best_moments(image_ids, vector)
        videos = image_ids[found.places].tolist() if len(found.places) else []
        return dict(zip(videos, found.times.tolist(), strict=True))

    def ordered(
        self, image_ids: np.ndarray, filters: Sequence[Filter], sort: str | None
    ) -> np.ndarray:
        """Return those of the images that are still there, in order."""
        (shown, values), (order, more) = dated(filters), _order(filters, sort)
        sql = f"SELECT image_id FROM {shown} WHERE {AMONG} ORDER BY {order}"
        return _ids(self.library, sql, [*values, json.dumps(image_ids.tolist()), *more])

    def hold(self, image_ids: Collection[int]) -> None:
        """Do nothing: all rows are at hand."""


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

    def nearest(self, vector: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the images nearest to a vector: ids (n,) and cosines (n,), n at most ``limit``."""
        index, asked = self.index, max(1, limit)
        while True:
            found = index.search(
                vector[None],
                min(asked, max(1, len(index))),
                allowed=self.allowed,
                exclude=self.exclude,
            )
            ids, scores = found.ids[0], found.scores[0]
            ids, scores = ids[ids >= 0], scores[ids >= 0]
            exhausted = len(ids) < asked
            if self.allowed is None:  # the index also holds what no file shows
                sql = (
                    "SELECT value FROM json_each(?) "
                    "WHERE NOT EXISTS (SELECT 1 FROM shown WHERE image_id = value)"
                )
                with self.library.reading():
                    unseen = _ids(self.library, sql, [json.dumps(ids.tolist())])
                    if len(unseen):  # by their files, or by damage?
                        part = partial(checks.both_ways, image_ids=unseen.tolist())
                        self.library.refuse_damaged(part)
                        kept = ~np.isin(ids, unseen)
                        ids, scores = ids[kept], scores[kept]
            if len(ids) >= limit or exhausted:
                return ids[:limit], np.clip(scores[:limit], -1, 1)  # float16 can round past 1
            asked *= 4

    def scores(self, vector: np.ndarray, image_ids: Sequence[int]) -> dict[int, float]:
        """Return the cosines of those of the images that the index has."""
        found = self.index.search(vector[None], len(image_ids), allowed=image_ids)
        return dict(zip(found.ids[0].tolist(), found.scores[0].tolist(), strict=True))

    def named(self, words: str, limit: int) -> list[int]:
        """Return images whose file and folder names have all words."""
        return named_images(self.library, words, limit, self.allowed, self.exclude)

    def texted(self, words: str, limit: int) -> list[int]:
        """Return images that show all words."""
        return texted_images(self.library, words, limit, self.allowed, self.exclude)

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
    source: Source,
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
            stored = source.vector(int(term.value))
            if stored is not None and term.at is not None:
                stored = source.vector(int(term.value), term.at)
                if stored is None:
                    said = f"like:{term.value}: image {term.value} is not a video; remove its time"
                    raise Unanswerable(said, "query.no_video", id=term.value)
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


def _allowed(
    library: Library, filters: Sequence[Filter], columns: Columns | None
) -> np.ndarray | None:
    """Return the images that pass the filters, int64 (n,), ascending; None where none applies."""
    if not filters:
        return None
    found = None if columns is None else chosen(library, columns, filters)
    if found is None:
        return allowed_images(library, filters)
    return visible(library, found.ids, filters)


def _browse(
    library: Library,
    filters: Sequence[Filter],
    sort: str | None,
    limit: int,
    columns: Columns | None,
) -> tuple[np.ndarray, int]:
    """Return the first images that pass the filters, by date or name, and how many pass them."""
    if columns is not None:
        is_dated = sort != "name"
        found = chosen(library, columns, filters, is_dated=is_dated)
        if found is not None:
            ids = found.newest_first() if is_dated else found.by_name()
            ids = visible(library, ids, filters)
            # A view of a few would keep all of them in memory, for as long as the listing is kept.
            return ids[:limit].copy() if limit < len(ids) else ids, len(ids)
    passing, values = selection(library, filters)
    order, more = _order(filters, sort)
    sql = f"SELECT shown.image_id FROM {passing}"
    if filters:  # the plus sign makes SQLite filter first, then sort
        ids = _ids(library, f"{sql} ORDER BY +{order}", [*values, *more])
        ids = visible(library, ids, filters)
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


def reordered(
    library: Library | Source, ranking: Ranking, query: Query, line: int
) -> tuple[Ranking, int]:
    """Order a ranking by date or name, as the query says, before and after its first ``line`` hits.

    Return it, without images deleted since, and how many hits there are before the line now.
    """
    source = Embedded(library, None) if isinstance(library, Library) else library
    ids = source.ordered(ranking.ids, query.filters, query.sort)
    place_of = {image_id: place for place, image_id in enumerate(ranking.ids.tolist())}
    places = np.array([place_of[image_id] for image_id in ids.tolist()], dtype=np.int64)
    below = places >= line
    places = places[np.argsort(below, kind="stable")]
    scores, likelihoods = (
        None if column is None else column[places]
        for column in (ranking.scores, ranking.likelihoods)
    )
    moved = replace(ranking, ids=ranking.ids[places], scores=scores, likelihoods=likelihoods)
    return moved, int(np.count_nonzero(~below))


def _ids(library: Library, sql: str, values: Sequence[object]) -> np.ndarray:
    rows = library.rows(sql, values)
    return np.fromiter(chain.from_iterable(rows), dtype=np.int64, count=len(rows))


def _order(filters: Sequence[Filter], sort: str | None) -> Selection:
    """Return the ORDER BY clause for rows of ``shown``, and its values."""
    if sort != "name":
        return "shown.date DESC, shown.image_id DESC", []
    name, values = name_order(filters)
    return f"{name}, shown.image_id", values


def name_order(filters: Sequence[Filter]) -> Selection:
    """Return SQL for the name of the first file that passes, of rows of ``shown``, and values."""
    met, values = files_chosen(filters) or ("", [])
    files = (
        "FROM files JOIN folded ON file_id = files.id WHERE files.image_id = shown.image_id "
        "AND state = 'indexed'"
    )
    name = f"SELECT min(name) {files}"
    if met:
        name = f"SELECT name {files} ORDER BY {met} DESC, name LIMIT 1"
    return f"({name})", values


# Names


def _with_named(eligible: Eligible, query: Query, without: int | None, ranking: Ranking) -> Ranking:
    """Merge in images whose names, or the text in them, contain the wanted words.

    At most ``NAMED`` in all. An image scores 1 / (60 + rank) in each of the lists that contain it,
    so the best matches land among the first hits.
    """
    wanted = [str(term.value) for term in query.terms if term.kind == "text" and term.weight > 0]
    if not wanted:
        return ranking
    words = " ".join(wanted)
    texted = eligible.texted(words, TEXTED)
    named = eligible.named(words, NAMED - len(texted))
    assert ranking.scores is not None and ranking.vector is not None
    scores = dict(zip(ranking.ids.tolist(), ranking.scores.tolist(), strict=True))
    found_by_words = dict.fromkeys([*named, *texted])
    unscored = [n for n in found_by_words if n not in scores and n != without]
    if unscored:
        scores |= eligible.scores(ranking.vector, unscored)
    named = [image_id for image_id in named if image_id in scores]
    texted = [image_id for image_id in texted if image_id in scores]
    if not named and not texted:
        return ranking
    fused = _fused(ranking.ids.tolist(), named, texted)
    ids = np.array(fused[: len(ranking.ids)], dtype=np.int64)
    ordered = np.array([scores[image_id] for image_id in ids.tolist()], dtype=np.float32)
    kept = set(ids.tolist())
    by_name, by_text = frozenset(named) & kept, frozenset(texted) & kept
    return replace(ranking, ids=ids, scores=ordered, by_name=by_name, by_text=by_text)


def _fused(*lists: Sequence[int]) -> list[int]:
    """Merge lists; on a tie, the image from the first of them comes first."""
    fused: dict[int, float] = {}
    for image_ids in lists:
        for place, image_id in enumerate(image_ids, start=1):
            fused[image_id] = fused.get(image_id, 0.0) + 1 / (FUSION + place)
    return sorted(fused, key=lambda image_id: -fused[image_id])
