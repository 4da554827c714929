"""Answers read page by page: ranked once, kept for a while, followed by cursor."""

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

__all__ = ["ask", "follow", "page"]


def ask(engine: Engine, question: Question) -> Kept:
    """The listing that answers a question as the library is now."""
    searcher = engine.searcher()
    model_id = None if searcher.index is None else searcher.index.model.id
    key = (question.key, model_id, engine.generation, searcher.background is not None)
    found = engine.listings.by_key(key)
    if found is None:
        with engine.turns:
            found = Kept(new_id(), key, searcher.listing(question), model_id)
        engine.listings.keep(found)
    return found


def follow(engine: Engine, cursor: Cursor, question: Question | None) -> Kept:
    """The listing that a cursor means; where it was forgotten, the question is asked again.

    A listing of a model that the library no longer uses counts as forgotten. Raise ``Problem`` for
    a cursor of another question, or a forgotten one without its question.
    """
    found = engine.listings.by_id(cursor.listing_id)
    model = engine.model()
    if found is not None and found.model_id != (None if model is None else model.id):
        found = None
    if found is None and question is not None:
        return ask(engine, question)
    if found is None:
        raise Problem(410, "Gone", "this answer was forgotten; search again")
    if question is not None and question.key != found.listing.question.key:
        raise Problem(400, "Bad Request", "cursor belongs to another query")
    return found


def page(engine: Engine, kept: Kept, start: int, limit: int, started: float) -> dict[str, Any]:
    """The document of some hits, from ``start`` on; ``started`` is when the work began."""
    listing = engine.searcher().deepened(kept.listing, start + limit)
    if listing is not kept.listing:
        kept = replace(kept, listing=listing)
        engine.listings.keep(kept)
    stop = min(start + limit, len(listing.ranking.ids))
    model = engine.model()
    return {
        "query": listing.question.text,
        "model": None if model is None else model.name,
        "took_ms": round((time.perf_counter() - started) * 1000, 1),
        "total": listing.total,
        "likely": listing.likely,
        "kind": listing.ranking.kind,
        "cursor": str(Cursor(kept.id, stop)) if start < stop < listing.total else None,
        "hits": _hits(engine, kept, start, stop),
    }


def _hits(engine: Engine, kept: Kept, start: int, stop: int) -> list[dict[str, Any]]:
    """The hits of a page; a first page's are kept while library and disks stay as they are."""
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
    addresses = thumbnail_urls(engine.library, (hit.image_id for hit in found))
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
