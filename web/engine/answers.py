"""Answer questions page by page: a listing is ranked once, kept for a while, read by cursor."""

import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from flask import current_app, request

from fovea.search.models.languages import languages_of
from fovea.search.query.empty import Hint
from fovea.search.query.run import Listing, Question
from fovea.search.suggesting.languages import hint_for
from fovea.web.contract.fields import json_text
from fovea.web.contract.problems import Problem

from .engine import Engine
from .hit_fields import FIELDS, hit_fields, read_for
from .listings import Cursor, Kept, new_id
from .understood import filter_fields, like_fields

__all__ = ["ask", "deepened", "follow", "page", "page_text", "place_in"]


def ask(engine: Engine, question: Question) -> Kept:
    """Return the listing for a question, ranked now unless the library has not changed since."""
    if any(entry.kind == "tag" for entry in question.query.filters):
        engine.refresh_tags()  # as a search would, which may say nothing of the pictures
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


def follow(
    engine: Engine, cursor: Cursor, question: Question | None, *, likely_only: bool = False
) -> Kept:
    """Return the listing that a cursor points into; if it is gone, ask the question again.

    A listing is also gone once the library uses another model. Raise ``Problem`` if the cursor
    belongs to another question, or to all matches where ``likely_only`` is asked for, or if the
    listing is gone and there is no question.
    """
    found = engine.listings.by_id(cursor.listing_id)
    model = engine.model()
    if found is not None and found.model_id != (None if model is None else model.id):
        found = None
    if found is None and question is not None:
        return ask(engine, question)
    if found is None:
        raise Problem(410, "Gone", "this cursor has expired; search again")
    if likely_only and not found.listing.question.likely_only:
        detail = "this cursor belongs to an answer with all matches; search without it"
        raise Problem(400, "Bad Request", detail)
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


def place_in(engine: Engine, kept: Kept, image_id: int) -> tuple[Kept, int]:
    """Return the number of hits before an image, and the listing ranked as far as that took.

    By date or name, the whole list is looked through; by likeness, what is ranked by now. Raise
    ``Problem`` if it is not there.
    """
    if kept.listing.order != "nearest":
        kept = deepened(engine, kept, kept.listing.total)
    places = np.flatnonzero(kept.listing.ranking.ids == image_id)
    if not len(places):
        raise Problem(404, "Not Found", f"image {image_id} is not among the hits")
    return kept, int(places[0])


def page(engine: Engine, kept: Kept, start: int, limit: int, started: float) -> dict[str, Any]:
    """Return a page of at most ``limit`` hits as members of a JSON document.

    ``started`` is the ``time.perf_counter()`` at which the request began.
    """
    kept, stop = _reaching(engine, kept, start + limit)
    hits = current_app.json.loads(_hits(engine, kept, start, stop))
    return _head(engine, kept, start, stop, started) | {"hits": hits}


def page_text(
    engine: Engine,
    kept: Kept,
    start: int,
    limit: int,
    started: float,
    fields: Sequence[str] = FIELDS,
) -> str:
    """Return the same page as the JSON document itself, with these fields of each hit.

    The hits of a first page are kept so.
    """
    kept, stop = _reaching(engine, kept, start + limit)
    hits = _hits(engine, kept, start, stop, fields)
    head = json_text(_head(engine, kept, start, stop, started))
    return f'{head[:-1]},"hits":{hits}}}\n'


def _reaching(engine: Engine, kept: Kept, stop: int) -> tuple[Kept, int]:
    """Return the listing with ``stop`` hits, and where its page ends."""
    kept = deepened(engine, kept, stop)
    return kept, min(stop, len(kept.listing.ranking.ids))


def _head(engine: Engine, kept: Kept, start: int, stop: int, started: float) -> dict[str, Any]:
    listing, model = kept.listing, engine.model()
    query = listing.question.query
    return {
        "query": listing.question.text,
        "filters": filter_fields(engine.library, query),
        "likes": like_fields(engine.library, query),
        "model": None if model is None else model.name,
        "took_ms": round((time.perf_counter() - started) * 1000, 1),
        "total": listing.total,
        "likely": listing.likely,
        "order": listing.order,
        "kind": listing.ranking.kind,
        "hints": [asdict(hint) for hint in _hints(engine, listing, start)],
        "cursor": str(Cursor(kept.id, stop)) if start < stop < listing.total else None,
    }


def _hints(engine: Engine, listing: Listing, start: int) -> list[Hint]:
    """Say why there are no hits and, on a first page, what to know of the words."""
    hints, query, model = list(listing.hints), listing.question.query, engine.model()
    if not start and model is not None and any(term.kind == "text" for term in query.terms):
        reads = languages_of(engine.encoder().place)
        if hint := hint_for(engine.library, query, model.name, reads):
            hints.append(hint)
    return hints


def _hits(engine: Engine, kept: Kept, start: int, stop: int, fields: Sequence[str] = FIELDS) -> str:
    """Return the hits of a page in JSON; cache a first page until the library or its roots change.

    The addresses of thumbnails also depend on the path under which the client sees the server.
    """
    offline = engine.offline()
    mark = (stop, engine.generation, offline, request.script_root, fields)
    known = None if start else kept.pages.get(mark)
    if known is None:
        searcher = engine.searcher(kept.listing.question)
        found = searcher.hits(kept.listing, start, stop, read_for(fields))
        known = json_text(hit_fields(engine.library, found, fields))
        if not start and engine.offline() == offline:  # so it was while these were read
            kept.pages.clear()
            kept.pages[mark] = known
    return known
