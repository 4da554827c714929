"""Hits: ranked images joined to their files and metadata."""

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, Literal

from fovea.search.library import checks
from fovea.search.library.library import Library
from fovea.search.library.marks import MARKS, hidden_images, marks_of
from fovea.search.places.stored import whereabouts

from .empty import Hint
from .filters import Filter, asks_for_hidden, dated, files_chosen
from .rank import Ranking

__all__ = ["Answer", "Hit", "Order", "Place", "day_of", "hits", "places"]

# "nearest" has images whose names match among the first; "date" is the newest first.
Order = Literal["nearest", "date", "name"]


@dataclass(frozen=True, slots=True)
class Hit:
    """One image of an answer. ``os.fsencode`` turns a path back into its exact bytes."""

    rank: int  # from 1
    score: float | None  # cosine, -1 to 1; None when browsing
    image_id: int
    path: str  # one of the image's files, preferably one that passes the filters and is online
    paths: tuple[str, ...]  # all of its files, ``path`` first
    offline: bool  # ``path`` is offline: its root is missing or unmounted
    width: int | None = None  # pixels, after rotation to upright
    height: int | None = None
    format: str | None = None
    taken_at: str | None = None  # ISO 8601, the camera's local time, if the file records it
    date: str | None = None  # ``taken_at``, else of the name or the time of a file that passes
    date_source: str | None = None  # a tag, "file name" or "file time"
    by_name: bool = False  # the name of a file or folder contains the words
    by_text: bool = False  # the picture shows the words
    likelihood: float | None = None  # of being a match at all, 0 to 1
    favourite: bool = False
    hidden: bool = False
    place: str | None = None  # where it was taken, as in "Belém, Lisbon, Portugal"
    duration: float | None = None  # seconds, of a video
    time: float | None = None  # seconds: the moment of a video that is nearest to the query


ALL = frozenset(field.name for field in fields(Hit))
FILES = frozenset(("path", "paths", "offline"))  # what is read of ``files``
FACTS = ("width", "height", "format", "taken_at", "date", "date_source", "duration")
COLUMNS = ", ".join(FACTS).replace("duration", "duration_ms / 1000.0 AS duration")


@dataclass(frozen=True, slots=True)
class Answer:
    """The first hits of a query, with figures about all of its hits."""

    query: str
    model: str | None  # None before anything is indexed
    took_ms: float
    total: int  # hits that can be reached by asking for more
    likely: int | None  # how many of the first ``total`` are likely; None where no line is drawn
    order: Order
    hits: tuple[Hit, ...]
    hints: tuple[Hint, ...] = ()  # why there are no hits, or what to know of the query


@dataclass(frozen=True, slots=True)
class Place:
    """An image's files: those that pass the filters first, of these those that are online first."""

    paths: tuple[str, ...]
    offline: bool  # the first of them is offline


NOWHERE = Place(("",), False)  # where files are not asked for


def places(
    library: Library, image_ids: Iterable[int], filters: Sequence[Filter] = ()
) -> dict[int, Place]:
    """Return the files of each image that has any, by image id; missing files do not count."""
    met, values = files_chosen(filters) or ("NULL", [])
    rows = library.rows(
        "SELECT image_id, path, root_id IN (SELECT value FROM json_each(?)) AS offline FROM files "
        "WHERE state = 'indexed' AND image_id IN (SELECT value FROM json_each(?)) "
        f"ORDER BY image_id, {met} DESC, offline, path",
        [json.dumps(library.offline()), json.dumps([int(key) for key in image_ids]), *values],
    )
    found: dict[int, Place] = {}
    for image_id, path, offline in rows:
        before = found.get(image_id)
        paths = (*(before.paths if before else ()), os.fsdecode(path))
        found[image_id] = Place(paths, before.offline if before else bool(offline))
    return found


def hits(
    library: Library,
    ranking: Ranking,
    start: int,
    stop: int,
    filters: Sequence[Filter] = (),
    wanted: frozenset[str] = ALL,
) -> list[Hit]:
    """Return the hits ``start`` to ``stop - 1`` of a ranking.

    Images deleted or hidden since are left out. ``filters`` decide which of an image's files comes
    first. Fields that are not ``wanted`` may be empty: what they alone need is not read.
    """
    ids = ranking.ids[start:stop].tolist()
    all_seen = asks_for_hidden(filters)
    with library.reading():
        needs_files = not wanted.isdisjoint(FILES)
        needs_facts = not (wanted.isdisjoint(FACTS) and needs_files)
        needs_marks = not wanted.isdisjoint(MARKS) or len(hidden_images(library)) > 0
        facts = _facts(library, ids, filters, wanted) if needs_facts else dict.fromkeys(ids, {})
        seen = places(library, ids, filters) if needs_files else dict.fromkeys(facts, NOWHERE)
        unmarked = dict.fromkeys(MARKS, False)
        marks = marks_of(library, ids) if needs_marks else dict.fromkeys(ids, unmarked)
        where = whereabouts(library, ids) if "place" in wanted else {}
        gone = [image_id for image_id in ids if image_id not in seen or image_id not in facts]
        if gone:  # deleted, or lost by damage?
            library.refuse_damaged(partial(checks.both_ways, image_ids=gone))
    scores, likelihoods = ranking.scores, ranking.likelihoods
    return [
        Hit(
            rank=number + 1,
            score=None if scores is None else float(scores[number]),
            image_id=image_id,
            path=seen[image_id].paths[0],
            paths=seen[image_id].paths,
            offline=seen[image_id].offline,
            by_name=image_id in ranking.by_name,
            by_text=image_id in ranking.by_text,
            likelihood=None if likelihoods is None else float(likelihoods[number]),
            favourite=marks[image_id]["favourite"],
            hidden=marks[image_id]["hidden"],
            place=where[image_id].label if image_id in where else None,
            time=ranking.moments[image_id] / 1000 if image_id in ranking.moments else None,
            **facts[image_id],
        )
        for number, image_id in enumerate(ids, start)
        if image_id in seen and image_id in facts and (all_seen or not marks[image_id]["hidden"])
    ]


def day_of(hit: Hit) -> str | None:
    """Return the day of a hit's date, as in 2024-07-01; the month or year if no day is known."""
    return hit.date[:10] if hit.date else None


def _facts(
    library: Library, ids: Iterable[int], filters: Sequence[Filter], wanted: frozenset[str]
) -> dict[int, dict[str, Any]]:
    """Return metadata by image id; of searchable images alone, so also to tell which these are."""
    if wanted.isdisjoint(FACTS):
        sql = "SELECT image_id FROM shown WHERE image_id IN (SELECT value FROM json_each(?))"
        return {image_id: {} for (image_id,) in library.rows(sql, [json.dumps(list(ids))])}
    shown, values = dated(filters)
    rows = library.rows(
        f"SELECT id, {COLUMNS} FROM {shown} "
        "JOIN images ON shown.image_id = id WHERE image_id IN (SELECT value FROM json_each(?))",
        [*values, json.dumps(list(ids))],
    )
    return {image_id: dict(zip(FACTS, facts, strict=True)) for image_id, *facts in rows}
