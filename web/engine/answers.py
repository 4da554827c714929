"""Answer questions page by page: a listing is ranked once, kept for a while, read by cursor."""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from flask import current_app, request

from fovea.search.library.paths import path_fields
from fovea.search.query.hits import Hit, day_of
from fovea.search.query.run import Question
from fovea.web.contract.fields import json_text, name_of, thumbnail_urls
from fovea.web.contract.problems import Problem

from .engine import Engine
from .listings import Cursor, Kept, new_id

__all__ = ["ask", "deepened", "follow", "page", "page_text"]


def ask(engine: Engine, question: Question) -> Kept:
    """Return the listing for a question, ranked now unless the library has not changed since."""
    generation = engine.generation  # first: what is then read may be newer, but not older
    searcher, model = engine.searcher(question), engine.model()
    model_id = None if model is None else model.id
    signs = None if searcher.background is None else searcher.background.signs
    key = (question.key, model_id, generation, signs)
    found = engine.listings.by_key(key)
    if found is None:
        engine.embed_ahead(question)
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
        kept = replace(
            kept, listing=engine.searcher(kept.listing.question).deepened(kept.listing, k)
        )
    engine.listings.keep(kept)
    return kept


def page(engine: Engine, kept: Kept, start: int, limit: int, started: float) -> dict[str, Any]:
    """Return a page of at most ``limit`` hits as members of a JSON document.

    ``started`` is the ``time.perf_counter()`` at which the request began.
    """
    kept, stop = _reaching(engine, kept, start + limit)
    hits = current_app.json.loads(_hits(engine, kept, start, stop))
    return _head(engine, kept, start, stop, started) | {"hits": hits}


def page_text(engine: Engine, kept: Kept, start: int, limit: int, started: float) -> str:
    """Return the same page as the JSON document itself; the hits of a first page are kept so."""
    kept, stop = _reaching(engine, kept, start + limit)
    hits = _hits(engine, kept, start, stop)
    head = json_text(_head(engine, kept, start, stop, started))
    return f'{head[:-1]},"hits":{hits}}}\n'


def _reaching(engine: Engine, kept: Kept, stop: int) -> tuple[Kept, int]:
    """Return the listing with ``stop`` hits, and where its page ends."""
    kept = deepened(engine, kept, stop)
    return kept, min(stop, len(kept.listing.ranking.ids))


def _head(engine: Engine, kept: Kept, start: int, stop: int, started: float) -> dict[str, Any]:
    listing, model = kept.listing, engine.model()
    return {
        "query": listing.question.text,
        "model": None if model is None else model.name,
        "took_ms": round((time.perf_counter() - started) * 1000, 1),
        "total": listing.total,
        "likely": listing.likely,
        "order": listing.order,
        "kind": listing.ranking.kind,
        "cursor": str(Cursor(kept.id, stop)) if start < stop < listing.total else None,
    }


def _hits(engine: Engine, kept: Kept, start: int, stop: int) -> str:
    """Return the hits of a page in JSON; cache a first page until the library or its roots change.

    The addresses of thumbnails also depend on the path under which the client sees the server.
    """
    offline = engine.offline()
    mark = (stop, engine.generation, offline, request.script_root)
    known = None if start else kept.pages.get(mark)
    if known is None:
        found = engine.searcher(kept.listing.question).hits(kept.listing, start, stop)
        known = json_text(_hit_fields(engine, found))
        if not start and engine.offline() == offline:  # so it was while these were read
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
