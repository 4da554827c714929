"""From a question to a page of hits: ranked once, kept for a while, read by cursor."""

import time
from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fovea.search.library.paths import path_fields
from fovea.search.query.cutoff import falling, lined
from fovea.search.query.hits import Hit
from fovea.search.query.likelihood import LINE
from fovea.search.query.rank import Ranking, day_of, hits, left_out, rank
from fovea.web.contract.fields import name_of, thumbnail_urls
from fovea.web.contract.problems import Problem

from .engine import Engine
from .listings import Cursor, Listing, new_id
from .questions import Question

__all__ = ["ask", "follow", "page"]

DEPTHS = (200, 2_000, 10_000)  # hits ranked: most people look at the first page, few any further
DEEPEST = DEPTHS[-1]  # hits that a cursor leads to at most, but for browsing
ALL = 2**31 - 1


def ask(engine: Engine, question: Question) -> Listing:
    """The listing that answers a question as the library is now."""
    index = engine.index()
    model_id = None if index is None else index.model.id
    key = (question.key, model_id, engine.generation, engine.background() is not None)
    found = engine.listings.by_key(key)
    if found is None:
        with engine.turns:
            found = _listing(engine, question, new_id(), key)
            while len(found.ranking.ids) < DEPTHS[1] and _goes_on(found):
                found = _deepened(engine, found)
        engine.listings.keep(found)
    return found


def follow(engine: Engine, cursor: Cursor, question: Question | None) -> Listing:
    """The listing that a cursor means; where it was forgotten, the question is asked anew.

    An answer of a model that does not answer any more counts as forgotten. Raise ``Problem`` for a
    cursor of another question, or a forgotten one without its question.
    """
    found = engine.listings.by_id(cursor.listing_id)
    model = engine.model()
    if found is not None and found.model_id != (None if model is None else model.id):
        found = None
    if found is None and question is not None:
        return ask(engine, question)
    if found is None:
        raise Problem(410, "Gone", "this answer was forgotten; search again")
    if question is not None and question.key != found.question.key:
        raise Problem(400, "Bad Request", "cursor belongs to another query")
    return found


def page(
    engine: Engine, listing: Listing, start: int, limit: int, started: float
) -> dict[str, Any]:
    """The document of some hits, from ``start`` on; ``started`` is when the work began."""
    while start + limit > len(listing.ranking.ids) and not listing.is_whole:
        listing = _deepened(engine, listing)
        engine.listings.keep(listing)
    stop = min(start + limit, len(listing.ranking.ids))
    index = engine.index()
    return {
        "query": listing.question.text,
        "model": None if index is None else index.model.name,
        "took_ms": round((time.perf_counter() - started) * 1000, 1),
        "total": listing.reach,
        "likely": listing.likely,
        "kind": listing.ranking.kind,
        "cursor": str(Cursor(listing.id, stop)) if start < stop < listing.reach else None,
        "hits": _hits(engine, listing, start, stop),
    }


# Ranking


class _Words:
    """The encoder, looked for only once a query has words."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        return self._engine.encoder().encode_texts(texts)


def _listing(engine: Engine, question: Question, listing_id: str, key: Hashable) -> Listing:
    ranking = _rank(engine, question, DEPTHS[0])
    most = ALL if ranking.scores is None else DEEPEST
    reach = min(most, ranking.total)
    if len(ranking.ids) < DEPTHS[0]:
        reach = len(ranking.ids)  # there are no more
    ranking, likelihoods, likely = _drawn(engine, question, ranking)
    model = engine.model()
    return Listing(
        listing_id,
        key,
        question,
        ranking,
        likelihoods,
        likely,
        reach,
        None if model is None else model.id,
    )


def _goes_on(listing: Listing) -> bool:
    """Whether nearly all that is ranked is likely, so that the line may lie further down."""
    likely = listing.likely or 0
    return not listing.is_whole and 10 * likely > 9 * len(listing.ranking.ids)


def _deepened(engine: Engine, listing: Listing) -> Listing:
    """The listing one step deeper; what was there keeps its place."""
    head = listing.ranking
    depth = next((depth for depth in DEPTHS if depth > len(head.ids)), ALL)
    if head.scores is None:
        depth = ALL
    deep = _rank(engine, listing.question, depth)
    new = ~np.isin(deep.ids, head.ids)
    ids = np.concatenate([head.ids, deep.ids[new]])
    scores = None
    if head.scores is not None and deep.scores is not None:
        scores = np.concatenate([head.scores, deep.scores[new]])
    ranking = replace(deep, ids=ids, scores=scores, by_name=head.by_name | deep.by_name)
    likelihoods, likely = engine.likelihoods(ranking), listing.likely
    if likelihoods is not None and likely is not None:
        assert listing.likelihoods is not None
        lowest = float(listing.likelihoods.min(initial=1.0))
        more = falling(likelihoods[len(head.ids) :], lowest)
        likelihoods = np.concatenate([listing.likelihoods, more])
        likely += int(np.count_nonzero(more >= LINE))
    is_whole = len(deep.ids) < depth or depth >= DEEPEST
    return replace(
        listing,
        ranking=ranking,
        likelihoods=likelihoods,
        likely=likely,
        reach=len(ids) if is_whole else max(listing.reach, len(ids)),
    )


def _drawn(
    engine: Engine, question: Question, ranking: Ranking
) -> tuple[Ranking, np.ndarray | None, int | None]:
    """The ranking, its likelihoods, and how many are likely; None where there is no line."""
    likelihoods = engine.likelihoods(ranking)
    if likelihoods is None:
        return ranking, None, None
    if question.query.sort in ("date", "name"):
        return ranking, likelihoods, None
    found = lined(ranking, likelihoods)
    return found.ranking, found.likelihoods, found.likely


def _rank(engine: Engine, question: Question, limit: int) -> Ranking:
    """The images nearest to a question, without the one that it leaves out."""
    index = engine.index()
    if index is None:
        nothing = np.empty(0, np.int64)
        return Ranking(nothing, None, 0, "browse")
    ranking = rank(
        engine.library,
        index,
        _Words(engine),
        question.query,
        pictures=question.pictures,
        limit=limit,
    )
    return ranking if question.without is None else left_out(ranking, question.without)


# Hits


def _hits(engine: Engine, listing: Listing, start: int, stop: int) -> list[dict[str, Any]]:
    """The hits of a page; a first page's are kept while library and disks stay as they are."""
    if start:
        return _hit_fields(engine, listing, hits(engine.library, listing.ranking, start, stop))
    mark = (stop, engine.generation, tuple(engine.library.offline()))
    kept = listing.pages.get(mark)
    if kept is None:
        kept = _hit_fields(engine, listing, hits(engine.library, listing.ranking, 0, stop))
        listing.pages.clear()
        listing.pages[mark] = kept
    return kept


def _hit_fields(engine: Engine, listing: Listing, found: Sequence[Hit]) -> list[dict[str, Any]]:
    addresses = thumbnail_urls(engine.library, (hit.image_id for hit in found))
    return [
        {
            "rank": hit.rank,
            "score": None if listing.ranking.scores is None else hit.score,
            "likelihood": listing.likelihood_at(hit.rank - 1),
            "image_id": hit.image_id,
            **path_fields(hit.path),
            "paths": list(hit.paths),
            "offline": hit.offline,
            "by_name": hit.by_name,
            "name": name_of(hit.path),
            "width": hit.width,
            "height": hit.height,
            "format": hit.format,
            "taken_at": hit.taken_at,
            "day": day_of(hit),
            "thumbnail": addresses[hit.image_id],
        }
        for hit in found
        if hit.image_id in addresses  # it was not deleted this moment
    ]
