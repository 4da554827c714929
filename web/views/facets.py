"""The values that filters can take: folders, cameras, formats and the range of days."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
from flask import Blueprint

from fovea.search.library.facts.folded import canonical_path
from fovea.search.library.library import Library
from fovea.search.library.marks import hidden_images
from fovea.search.query.columns import Codes, Columns, images_within
from fovea.search.query.language import Filter, Query
from fovea.web.contract.describe import describe
from fovea.web.engine.engine import Engine, current_engine

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
    found: dict[str, Any] = engine.remembered("facets", lambda: _facets(engine))
    return found


def _facets(engine: Engine) -> dict[str, Any]:
    library, columns = engine.library, engine.columns()
    [(first, last)] = library.rows(
        f"SELECT (SELECT substr(min(date) || '-01-01', 1, 10) FROM shown WHERE {VISIBLE}), "
        "(SELECT CASE length(max(date)) WHEN 4 THEN max(date) || '-12-31' "
        "WHEN 7 THEN date(max(date) || '-01', '+1 month', '-1 day') "
        f"ELSE substr(max(date), 1, 10) END FROM shown WHERE {VISIBLE})"
    )
    if columns is None:
        files, cameras, formats = _files(library), None, None
    else:
        is_visible = ~np.isin(columns.ids, hidden_images(library))
        files = _filed(columns, is_visible)
        cameras, formats = (
            replace(codes, of=codes.of[is_visible]) for codes in (columns.cameras, columns.formats)
        )
    return {
        "folders": _folders(library, files),
        "cameras": _counted(library, "camera", cameras),
        "formats": _counted(library, "format", formats),
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


@dataclass(frozen=True, slots=True)
class _Files:
    """Where the indexed files of each image lie."""

    folders: Sequence[bytes]
    file_images: np.ndarray
    file_folders: np.ndarray  # places in ``folders``


def _filed(columns: Columns, is_visible: np.ndarray) -> _Files:
    kept = is_visible[columns.file_images]
    return _Files(columns.values.folders, columns.file_images[kept], columns.file_folders[kept])


def _files(library: Library) -> _Files:
    sql = (
        "SELECT image_id, path FROM files WHERE state = 'indexed' AND image_id IS NOT NULL "
        f"AND {VISIBLE} ORDER BY image_id"
    )
    code_of: dict[bytes, int] = {}
    images, folders = [], []
    for image_id, path in library.rows(sql):
        images.append(image_id)
        folders.append(code_of.setdefault(os.path.dirname(path), len(code_of)))
    return _Files(list(code_of), np.array(images, np.int64), np.array(folders, np.int64))


def _folders(library: Library, files: _Files) -> list[dict[str, Any]]:
    """Count the pictures below each folder of the library that a query can name, by path.

    Folders whose paths differ in their Unicode form only are one entry, as they are to ``in:``.
    """
    groups: dict[str, int] = {}
    inside: set[tuple[int, int]] = set()
    names: list[tuple[bytes, bytes]] = []  # the path as it is, and how the menu calls it
    folders = sorted((path, number) for number, path in enumerate(files.folders))
    for root in sorted((root.path for root in library.roots()), key=len):
        stem = os.path.dirname(root)
        for folder, number in folders:
            for place in _upwards(folder, root):
                group = groups.setdefault(canonical_path(os.fsdecode(place)), len(groups))
                inside.add((number, group))
                if group == len(names):
                    names.append((place, place[len(stem) :].strip(SEPARATOR)))
    counts = images_within(files, list(inside), len(groups))
    largest = sorted(range(len(counts)), key=lambda group: -counts[group])
    shown = (group for group in largest if counts[group] and _has_query(names[group][0]))
    named = islice(shown, FOLDERS)
    return [
        {"path": os.fsdecode(place), "name": os.fsdecode(name), "count": count}
        for (place, name), count in sorted((names[group], counts[group]) for group in named)
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
