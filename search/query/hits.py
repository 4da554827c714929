"""Hits: neighbours joined to the files that show them."""

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fovea.search.library.library import Library

__all__ = ["Answer", "Hit", "Place", "places"]


@dataclass(frozen=True, slots=True)
class Hit:
    """One image of an answer. ``os.fsencode`` gives a path's bytes back, whatever they are."""

    rank: int  # from 1
    score: float | None  # cosine, -1 to 1; None where nothing was looked for
    image_id: int
    path: str  # a file that shows the image; one that can be reached, if there is one
    paths: tuple[str, ...]  # all of them, ``path`` first
    offline: bool  # none can be reached now: their roots are missing or unmounted
    width: int | None = None  # pixels, upright
    height: int | None = None
    format: str | None = None
    taken_at: str | None = None  # ISO 8601, the camera's local time, where the image says so
    date: str | None = None  # that, or else when its first file was changed last, in local time
    by_name: bool = False  # a file's or folder's name holds the words
    likelihood: float | None = None  # of being a match at all, 0 to 1


@dataclass(frozen=True, slots=True)
class Answer:
    """What a query led to, and how long that took."""

    query: str
    model: str
    took_ms: float
    hits: Sequence[Hit]


@dataclass(frozen=True, slots=True)
class Place:
    """Where an image can be seen: its files, those that can be reached first."""

    paths: tuple[str, ...]
    offline: bool


def places(library: Library, image_ids: Iterable[int]) -> dict[int, Place]:
    """The files of those images that have any; a missing file does not count."""
    rows = library.rows(
        "SELECT image_id, path, root_id IN (SELECT value FROM json_each(?)) AS offline FROM files "
        "WHERE state = 'indexed' AND image_id IN (SELECT value FROM json_each(?)) "
        "ORDER BY image_id, offline, path",
        [json.dumps(library.offline()), json.dumps([int(image_id) for image_id in image_ids])],
    )
    found: dict[int, Place] = {}
    for image_id, path, offline in rows:
        before = found.get(image_id)
        paths = (*(before.paths if before else ()), os.fsdecode(path))
        found[image_id] = Place(paths, before.offline if before else bool(offline))
    return found
