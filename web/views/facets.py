"""The values that filters can take: folders, cameras, formats and the range of days."""

import os
from collections import Counter
from typing import Any

from flask import Blueprint

from fovea.search.library.facts.folded import canonical_path
from fovea.search.library.library import Library
from fovea.search.query.language import Filter, Query
from fovea.web.contract.describe import describe
from fovea.web.engine.engine import current_engine

from .search import LONGEST

blueprint = Blueprint("facets", __name__)

FOLDERS = 2000  # those with the most pictures; a menu with more is of no use
SEPARATOR = os.fsencode(os.sep)
VISIBLE = "image_id NOT IN (SELECT image_id FROM hidden)"


@blueprint.get("/api/facets")
@describe("List values to filter by", {200: "Facets"}, tag="Search", problems=(503,))
def facets() -> dict[str, Any]:
    """Return folders, cameras and formats with their numbers of pictures, and the range of days.

    Hidden pictures do not count.
    """
    engine = current_engine()
    found: dict[str, Any] = engine.remembered("facets", lambda: _facets(engine.library))
    return found


def _facets(library: Library) -> dict[str, Any]:
    [(first, last)] = library.rows(
        f"SELECT (SELECT substr(min(date) || '-01-01', 1, 10) FROM shown WHERE {VISIBLE}), "
        "(SELECT CASE length(max(date)) WHEN 4 THEN max(date) || '-12-31' "
        "WHEN 7 THEN date(max(date) || '-01', '+1 month', '-1 day') "
        f"ELSE substr(max(date), 1, 10) END FROM shown WHERE {VISIBLE})"
    )
    return {
        "folders": _folders(library),
        "cameras": _counted(library, "camera"),
        "formats": _counted(library, "format"),
        "first": first,
        "last": last,
    }


def _counted(library: Library, column: str) -> list[dict[str, Any]]:
    rows = library.rows(
        f"SELECT {column}, count(*) AS n FROM images JOIN shown ON shown.image_id = images.id "
        f"WHERE {column} IS NOT NULL AND {VISIBLE} GROUP BY {column} ORDER BY n DESC, {column}"
    )
    return [{"name": name, "count": count} for name, count in rows]


def _folders(library: Library) -> list[dict[str, Any]]:
    """Count the pictures below each folder of the library that a query can name, by path.

    Folders whose paths differ in their Unicode form only are one entry, as they are to ``in:``.
    """
    rows = library.rows(
        f"SELECT DISTINCT path, image_id FROM files WHERE state = 'indexed' AND {VISIBLE}"
    )
    direct: dict[bytes, set[int]] = {}
    for path, image_id in rows:
        direct.setdefault(os.path.dirname(path), set()).add(image_id)
    seen: dict[str, set[int]] = {}
    names: dict[str, tuple[bytes, bytes]] = {}  # the path as it is, and how the menu calls it
    for root in sorted((root.path for root in library.roots()), key=len):
        stem = os.path.dirname(root)
        for folder, images in sorted(direct.items()):
            for place in _upwards(folder, root):
                path = canonical_path(os.fsdecode(place))
                seen.setdefault(path, set()).update(images)
                names.setdefault(path, (place, place[len(stem) :].strip(SEPARATOR)))
    counts = Counter({path: len(seen[path]) for path in seen if _has_query(names[path][0])})
    return [
        {"path": os.fsdecode(place), "name": os.fsdecode(name), "count": count}
        for (place, name), count in sorted(
            (names[path], count) for path, count in counts.most_common(FOLDERS)
        )
    ]


def _has_query(place: bytes) -> bool:
    """Whether a query for the folder fits into a search box and an address."""
    try:
        text = str(Query(filters=(Filter("in", place.decode()),)))
    except UnicodeDecodeError:
        return False
    return len(text) <= LONGEST and len(text.splitlines()) == 1


def _upwards(folder: bytes, root: bytes) -> list[bytes]:
    """List a folder and its parents up to a root; empty if it is not below the root."""
    inside = root.rstrip(SEPARATOR) + SEPARATOR
    places = []
    while (folder + SEPARATOR).startswith(inside):
        places.append(folder)
        above = os.path.dirname(folder)
        if above == folder:
            break
        folder = above
    return places
