"""Answer a query: rank the images that it means, and show some of them.

Words and pictures are weighted, added and subtracted as unit vectors. Names of files and folders
that hold all the words join by reciprocal rank fusion (Cormack, Clarke and Büttcher 2009).
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Literal, Protocol

import numpy as np

from fovea.search.errors import Unanswerable
from fovea.search.index.vector_index import VectorIndex
from fovea.search.library.library import Library

from .filename_search import named_images
from .filters import allowed_images, selection
from .hits import Hit, Place, places
from .language import Query, Term

__all__ = [
    "Picture",
    "Ranking",
    "TextEncoder",
    "day_of",
    "hits",
    "left_out",
    "rank",
    "stored_vector",
]

NAMED = 24  # images that names may add to an answer, so that they do not drown the others
FUSION = 60  # k of reciprocal rank fusion, from the paper
SORTED = 200  # nearest images that sort:date and sort:name put in order
EVERYTHING = 1 << 62

Kind = Literal["words", "pictures", "mixed", "browse"]


class TextEncoder(Protocol):
    """What turns words into embeddings."""

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """float32 (n, d), unit rows."""
        ...


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
    total: int  # how many images the filters leave, near or far
    kind: Kind
    by_name: frozenset[int] = frozenset()  # those whose names hold the words
    vector: np.ndarray | None = None  # what was looked for, float32 (d,), unit length


def rank(
    library: Library,
    index: VectorIndex,
    encoder: TextEncoder,
    query: Query,
    *,
    pictures: Sequence[Picture] = (),
    limit: int = 10_000,
) -> Ranking:
    """The first ``limit`` images that a query means; all that the filters leave, by their date,
    where it names neither words nor pictures.

    Raise ``Unanswerable`` for an image that is not there, and for terms that cancel out
    or have no weight.
    """
    if not query.terms and not pictures:
        ids, total = _browse(library, query, limit)
        return Ranking(ids, None, total, "browse")
    allowed = allowed_images(library, query.filters) if query.filters else None
    index.refresh(library)
    vector = _vector(library, index, encoder, query.terms, pictures)
    if query.sort in ("date", "name"):
        limit = min(limit, SORTED)
    ids, scores = _nearest(library, index, vector, allowed, limit)
    total = _count(library) if allowed is None else len(allowed)
    ranking = Ranking(ids, scores, total, _kind(query, pictures), vector=vector)
    if query.sort in ("date", "name"):
        return _sorted(library, ranking, query)
    return _with_named(library, index, query, vector, allowed, ranking, limit)


def hits(library: Library, ranking: Ranking, start: int, stop: int) -> list[Hit]:
    """The hits of a ranking from ``start`` to before ``stop``; those gone since are left out."""
    ids = ranking.ids[start:stop].tolist()
    seen, facts = places(library, ids), _facts(library, ids)
    found = []
    for number, image_id in enumerate(ids, start):
        if image_id in seen and image_id in facts:
            score = None if ranking.scores is None else float(ranking.scores[number])
            named = image_id in ranking.by_name
            found.append(_hit(number + 1, score, image_id, seen[image_id], facts[image_id], named))
    return found


def left_out(ranking: Ranking, image_id: int) -> Ranking:
    """The ranking without one image, which need not be in it."""
    kept = ranking.ids != image_id
    scores = None if ranking.scores is None else ranking.scores[kept]
    return replace(ranking, ids=ranking.ids[kept], scores=scores, total=max(0, ranking.total - 1))


def day_of(hit: Hit) -> str | None:
    """The day under which browsing shows an image: 2024-07-01."""
    return hit.date[:10] if hit.date else None


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


def _nearest(
    library: Library, index: VectorIndex, vector: np.ndarray, allowed: np.ndarray | None, limit: int
) -> tuple[np.ndarray, np.ndarray]:
    """The visible images nearest to a vector: ids (n,) and cosines (n,), n at most ``limit``."""
    asked = limit
    while True:
        found = index.search(vector[None], min(asked, max(1, len(index))), allowed=allowed)
        ids, scores = found.ids[0], found.scores[0]
        ids, scores = ids[ids >= 0], scores[ids >= 0]
        exhausted = len(ids) < asked
        if allowed is None:  # the filters leave none but visible ones
            kept = np.isin(ids, _visible(library, ids))
            ids, scores = ids[kept], scores[kept]
        if len(ids) >= limit or exhausted:
            return ids[:limit], np.clip(scores[:limit], -1, 1)  # float16 rounds a little beyond
        asked *= 4


def _visible(library: Library, ids: np.ndarray) -> np.ndarray:
    chosen, values = _among(ids)
    return _ids(library, f"SELECT image_id FROM {chosen}", values)


def _count(library: Library) -> int:
    [(count,)] = library.rows("SELECT count(*) FROM shown")
    return int(count)


def _browse(library: Library, query: Query, limit: int) -> tuple[np.ndarray, int]:
    """The first of the images that the filters leave, by date or name, and how many they leave."""
    chosen, values = selection(library, query.filters)
    sql = f"SELECT shown.image_id FROM {chosen} ORDER BY"
    if query.filters:  # the plus sign: selected first and sorted then, not read in order
        ids = _ids(library, f"{sql} +{_order(query)}", values)
        return ids[:limit], len(ids)
    ids = _ids(library, f"{sql} {_order(query)} LIMIT ?", [min(limit, EVERYTHING)])
    return ids, _count(library)


def _sorted(library: Library, ranking: Ranking, query: Query) -> Ranking:
    """The same images by date or by name."""
    chosen, values = _among(ranking.ids)
    ids = _ids(library, f"SELECT image_id FROM {chosen} ORDER BY {_order(query)}", values)
    assert ranking.scores is not None
    scores = dict(zip(ranking.ids.tolist(), ranking.scores.tolist(), strict=True))
    ordered = np.array([scores[image_id] for image_id in ids.tolist()], dtype=np.float32)
    return replace(ranking, ids=ids, scores=ordered)


def _among(ids: np.ndarray) -> tuple[str, list[str]]:
    """Those of the images that are visible, as what follows FROM."""
    return "shown WHERE image_id IN (SELECT value FROM json_each(?))", [json.dumps(ids.tolist())]


def _ids(library: Library, sql: str, values: Sequence[object]) -> np.ndarray:
    rows = library.rows(sql, values)
    return np.fromiter(chain.from_iterable(rows), dtype=np.int64, count=len(rows))


def _order(query: Query) -> str:
    if query.sort == "name":
        return (
            "(SELECT min(name COLLATE NOCASE) FROM files JOIN names ON names.rowid = files.id "
            "WHERE files.image_id = shown.image_id AND state = 'indexed'), shown.image_id"
        )
    return "shown.date DESC, shown.image_id DESC"


# Names


def _with_named(
    library: Library,
    index: VectorIndex,
    query: Query,
    vector: np.ndarray,
    allowed: np.ndarray | None,
    ranking: Ranking,
    limit: int,
) -> Ranking:
    """Mix in the images whose names hold the wanted words.

    An image gets 1 / (60 + rank) from each of the two lists that it is in; a list that it is not
    in gives nothing. So the best names stand among the first hits, two dozen at most.
    """
    wanted = [str(term.value) for term in query.terms if term.kind == "text" and term.weight > 0]
    named = named_images(library, " ".join(wanted), NAMED, allowed) if wanted else []
    if not named:
        return ranking
    assert ranking.scores is not None
    scores = dict(zip(ranking.ids.tolist(), ranking.scores.tolist(), strict=True))
    missing = np.array([image_id for image_id in named if image_id not in scores], dtype=np.int64)
    if len(missing):
        found = index.search(vector[None], len(missing), allowed=missing)
        scores |= dict(zip(found.ids[0].tolist(), found.scores[0].tolist(), strict=True))
    fused = _fused(ranking.ids.tolist(), [image_id for image_id in named if image_id in scores])
    ids = np.array(fused[:limit], dtype=np.int64)
    ordered = np.array([scores[image_id] for image_id in ids.tolist()], dtype=np.float32)
    return replace(ranking, ids=ids, scores=ordered, by_name=frozenset(named) & set(ids.tolist()))


def _fused(near: Sequence[int], named: Sequence[int]) -> list[int]:
    """Both lists in one order; equal shares keep the nearer one first."""
    shares: dict[int, float] = {}
    for image_ids in (near, named):
        for place, image_id in enumerate(image_ids, start=1):
            shares[image_id] = shares.get(image_id, 0.0) + 1 / (FUSION + place)
    return sorted(shares, key=lambda image_id: -shares[image_id])


# Hits


def _facts(library: Library, ids: Iterable[int]) -> dict[int, tuple[object, ...]]:
    rows = library.rows(
        "SELECT id, width, height, format, taken_at, date FROM images "
        "JOIN shown ON shown.image_id = id WHERE id IN (SELECT value FROM json_each(?))",
        [json.dumps(list(ids))],
    )
    return {image_id: tuple(facts) for image_id, *facts in rows}


def _hit(
    rank: int,
    score: float | None,
    image_id: int,
    place: Place,
    facts: tuple[object, ...],
    by_name: bool,
) -> Hit:
    paths = place.paths
    return Hit(rank, score, image_id, paths[0], paths, place.offline, *facts, by_name)  # type: ignore[arg-type, call-arg]
