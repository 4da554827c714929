"""What there is: values to filter by, and how many pictures of each month."""

import os
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from flask import Blueprint

from fovea.search.library.library import Library
from fovea.search.library.marks import hidden_images
from fovea.search.query.columns import Codes
from fovea.search.query.known_places import known_places
from fovea.search.query.language import Query
from fovea.search.query.run import Question
from fovea.web.contract.describe import Number, Text, bad_request, describe
from fovea.web.engine.engine import Engine, current_engine
from fovea.web.engine.folders import LONGEST, VISIBLE, Folders, folders_of

from .search import QUERY

blueprint = Blueprint("facets", __name__)

TIMELINES = 64  # most that are kept for a state of the library
FOLDERS = 2000  # those with the most pictures; a menu with more is of no use
PLACES = 1000  # those with the most pictures
PATH = Text("path", "Only the folder with this path, and what is `short` for it.", LONGEST)
PARENT = Text("parent", "Only the folders directly in the one with this path.", LONGEST)
NAMED = Text("q", "Only folders whose names contain these words, the last in their own.", 200)
MOST = Number("limit", "The largest number of folders.", default=200, minimum=1, maximum=1000)


@blueprint.get("/api/facets")
@describe("List values to filter by", {200: "Facets"}, tag="Search", problems=(503,))
def facets() -> dict[str, Any]:
    """Return folders, cameras, formats and places with their numbers of pictures, and all days.

    Hidden pictures do not count.
    """
    engine = current_engine()
    found: dict[str, Any] = engine.remembered("facets", lambda: engine.facets() or _facets(engine))
    return found


@blueprint.get("/api/timeline")
@describe(
    "Count pictures by month", {200: "Timeline"}, tag="Search", parameters=(QUERY,), problems=(503,)
)
def months() -> dict[str, Any]:
    """Return how many pictures the query's filters leave of each month, the newest month first.

    That is the order of a list by date, so a month begins at the `offset` that is the sum of the
    counts before it; `undated` pictures come last. Words and pictures in the query leave out none.
    """
    engine, query = current_engine(), Question.of(QUERY.read()).query
    kept: dict[str, dict[str, Any]] = engine.remembered("timelines", dict)
    key = str(Query(filters=query.filters))
    found = kept.get(key)
    if found is None:
        found = asdict(engine.timeline(query.filters))
        while len(kept) >= TIMELINES:
            kept.pop(next(iter(kept), ""), None)
        kept[key] = found
    return found


def _facets(engine: Engine) -> dict[str, Any]:
    library, columns = engine.library, engine.columns()
    [(first, last)] = library.rows(
        f"SELECT (SELECT substr(min(date) || '-01-01', 1, 10) FROM shown WHERE {VISIBLE}), "
        "(SELECT CASE length(max(date)) WHEN 4 THEN max(date) || '-12-31' "
        "WHEN 7 THEN date(max(date) || '-01', '+1 month', '-1 day') "
        f"ELSE substr(max(date), 1, 10) END FROM shown WHERE {VISIBLE})"
    )
    cameras, formats = None, None
    if columns is not None:
        is_visible = ~np.isin(columns.ids, hidden_images(library))
        cameras, formats = (
            replace(codes, of=codes.of[is_visible]) for codes in (columns.cameras, columns.formats)
        )
    return {
        "folders": [
            {
                "path": os.fsdecode(folder.path),
                "name": os.fsdecode(folder.name),
                "count": folder.count,
            }
            for folder in folders_of(engine).largest(FOLDERS)
        ],
        "cameras": _counted(library, "camera", cameras),
        "formats": _counted(library, "format", formats),
        "places": [
            {"name": place.label, "kind": place.kind, "query": place.query, "count": place.count}
            for place in known_places(library)[:PLACES]
        ],
        "first": first,
        "last": last,
    }


def _counted(library: Library, column: str, codes: Codes | None) -> list[dict[str, Any]]:
    """Count the pictures of each camera or format, the most frequent first.

    ``codes`` are those of visible pictures; without them, SQL counts.
    """
    if codes is None:
        rows = library.rows(
            f"SELECT {column}, count(*) AS n FROM images JOIN shown ON shown.image_id = images.id "
            f"WHERE {column} IS NOT NULL AND {VISIBLE} GROUP BY {column}"
        )
    else:
        counts = np.bincount(codes.of[codes.of >= 0], minlength=len(codes.values))
        rows = [(name, n) for name, n in zip(codes.values, counts.tolist(), strict=True) if n]
    ordered = sorted(rows, key=lambda row: (-row[1], row[0].encode()))
    return [{"name": name, "count": count} for name, count in ordered]


@blueprint.get("/api/folders")
@describe(
    "List folders level by level, or by their names",
    {200: "Folders"},
    tag="Search",
    parameters=(PARENT, PATH, NAMED, MOST),
    problems=(503,),
)
def folders() -> dict[str, Any]:
    """Return the topmost folders, or those that one of `parent`, `path` and `q` asks for.

    Those of a level are in the order of their names, those found by name in that of how well they
    match. `left_out` counts those beyond the limit. Folders without pictures, and those that no
    query can name, are left out; hidden pictures do not count.
    """
    parent, path, text, limit = PARENT.read(), PATH.read(), NAMED.read().strip(), MOST.read()
    if sum(map(bool, (parent, path, text))) > 1:
        raise bad_request("parent, path and q exclude each other; send one of them")
    known = folders_of(current_engine())
    if text:
        places = known.named(text)
    elif parent or path:
        place = known.place_of(parent or path)
        places = [] if place is None else known.within(place) if parent else [place]
    else:
        places = known.within(-1)
    places = [place for place in places if known.askable[place]]
    found = [_folder(known, place) for place in places[:limit]]
    if path and found:
        found[0]["short"] = known.short(places[0])
    return {"folders": found, "left_out": len(places) - len(found)}


def _folder(known: Folders, place: int) -> dict[str, Any]:
    folder = known.entries[place]
    name = os.fsdecode(folder.name)
    return {
        "path": os.fsdecode(folder.path),
        "name": name,
        "label": os.path.basename(name) or name or os.sep,
        "count": folder.count,
        "folders": len(known.within(place)),
    }
