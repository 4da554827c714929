"""Answer questions page by page: a listing is ranked once, kept for a while, read by cursor."""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fovea.search.library.paths import path_fields
from fovea.search.query.hits import Hit, day_of
from fovea.search.query.run import Question
from fovea.web.contract.fields import name_of, thumbnail_urls
from fovea.web.contract.problems import Problem

from .engine import Engine
from .listings import Cursor, Kept, new_id

__all__ = ["ask", "deepened", "follow", "page"]


def ask(engine: Engine, question: Question) -> Kept:
    """Return the listing for a question, ranked now unless the library has not changed since."""
    searcher = engine.searcher()
    model_id = None if searcher.index is None else searcher.index.model.id
    signs = None if searcher.background is None else searcher.background.signs
    key = (question.key, model_id, engine.generation, signs)
    found = engine.listings.by_key(key)
    if found is None:
        with engine.turns:
            found = Kept(new_id(), key, searcher.listing(question), model_id)
        engine.listings.keep(found)
    if found.listing.question.text != question.text:  # the same query, spelt in another way
        found = replace(found, listing=replace(found.listing, question=question))
    return found


def follow(engine: Engine, cursor: Cursor, question: Question | None) -> Kept:
    """Return the listing that a cursor points into; if it is gone, ask the question again.

    A listing is also gone once the library uses another model. Raise ``Problem`` if the cursor
    belongs to another question, or if the listing is gone and there is no question.
    """
    found = engine.listings.by_id(cursor.listing_id)
    model = engine.model()
    if found is not None and found.model_id != (None if model is None else model.id):
        found = None
    if found is None and question is not None:
        return ask(engine, question)
    if found is None:
        raise Problem(410, "Gone", "this cursor has expired; search again")
    if question is not None and question.key != found.listing.question.key:
        raise Problem(400, "Bad Request", "this cursor belongs to another query; search without it")
    return found


def deepened(engine: Engine, kept: Kept, k: int) -> Kept:
    """Return the listing with at least ``k`` hits, if there are as many, and keep it."""
    if kept.listing.is_whole or len(kept.listing.ranking.ids) >= k:
        return kept
    with engine.turns:
        kept = replace(kept, listing=engine.searcher().deepened(kept.listing, k))
    engine.listings.keep(kept)
    return kept


def page(engine: Engine, kept: Kept, start: int, limit: int, started: float) -> dict[str, Any]:
    """Return a page of at most ``limit`` hits as members of a JSON document.

    ``started`` is the ``time.perf_counter()`` at which the request began.
    """
    kept = deepened(engine, kept, start + limit)
    listing = kept.listing
    stop = min(start + limit, len(listing.ranking.ids))
    model = engine.model()
    return {
        "query": listing.question.text,
        "model": None if model is None else model.name,
        "took_ms": round((time.perf_counter() - started) * 1000, 1),
        "total": listing.total,
        "likely": listing.likely,
        "order": listing.order,
        "kind": listing.ranking.kind,
        "cursor": str(Cursor(kept.id, stop)) if start < stop < listing.total else None,
        "hits": _hits(engine, kept, start, stop),
    }


def _hits(engine: Engine, kept: Kept, start: int, stop: int) -> list[dict[str, Any]]:
    """Return the hits of a page; cache a first page until the library or its roots change."""
    searcher = engine.searcher()
    if start:
        return _hit_fields(engine, searcher.hits(kept.listing, start, stop))
    mark = (stop, engine.generation, tuple(engine.library.offline()))
    known = kept.pages.get(mark)
    if known is None:
        known = _hit_fields(engine, searcher.hits(kept.listing, 0, stop))
        kept.pages.clear()
        kept.pages[mark] = known
    return known


def _hit_fields(engine: Engine, found: Sequence[Hit]) -> list[dict[str, Any]]:
    thumbnails = thumbnail_urls(engine.library, (hit.image_id for hit in found))
    return [
        {
            "rank": hit.rank,
            "score": hit.score,
            "likelihood": hit.likelihood,
            "image_id": hit.image_id,
            **path_fields(hit.path),
            "paths": list(hit.paths),
            "offline": hit.offline,
            "by_name": hit.by_name,
            "favourite": hit.favourite,
            "hidden": hit.hidden,
            "name": name_of(hit.path),
            "width": hit.width,
            "height": hit.height,
            "format": hit.format,
            "taken_at": hit.taken_at,
            "day": day_of(hit),
            "thumbnail": thumbnails[hit.image_id],
        }
        for hit in found
        if hit.image_id in thumbnails  # not deleted in the meantime
    ]
