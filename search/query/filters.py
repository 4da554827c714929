"""Filters as SQL: which images a query may answer with."""

import math
import os
import re
import unicodedata
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

from fovea.search.library.library import Library

from .language import Filter

__all__ = ["Selection", "allowed_images", "date_of", "distance_km", "files_chosen", "selection"]

EARTH_KM = 6371.0088  # mean radius
NEARLY_SQUARE = 0.05  # of the longer side
BYTES = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9}
FORMAT_NAMES = {
    "jpg": "jpeg", "jpe": "jpeg", "jfif": "jpeg", "mpo": "jpeg", "heic": "heif", "hif": "heif",
    "tif": "tiff", "jp2": "jpeg2000", "j2k": "jpeg2000", "jpx": "jpeg2000", "dib": "bmp",
    "pgm": "ppm", "pbm": "ppm", "pnm": "ppm",
}  # fmt: skip
AFTER_ANY_DATE = "~"  # sorts after whatever follows the year, month or day of a date

Selection = tuple[str, list[Any]]  # what follows FROM, up to ORDER BY, and its values


def allowed_images(library: Library, filters: Sequence[Filter]) -> np.ndarray:
    """The ids of the visible images that meet every filter, int64 (n,), ascending."""
    chosen, values = selection(library, filters)
    rows = library.rows(f"SELECT image_id FROM {chosen}", values)
    return np.sort(np.fromiter(chain.from_iterable(rows), dtype=np.int64, count=len(rows)))


def selection(library: Library, filters: Sequence[Filter]) -> Selection:
    """The rows of ``shown`` that meet every filter, for a statement on this connection."""
    if any(entry.kind == "near" for entry in filters):
        library.conn.create_function("distance_km", 4, distance_km, deterministic=True)
    date = date_of(filters)
    parts, values = ["TRUE"], []
    for entry in filters:
        sql, more = _condition(entry, date)
        # what is not known of an image meets no condition, and so meets its negation
        parts.append(f"NOT coalesce({sql}, FALSE)" if entry.negated else f"({sql})")
        values += more
    # SQLite leaves the join out where no column of it is asked for
    joined = "shown LEFT JOIN images ON images.id = shown.image_id"
    return f"{joined} WHERE {' AND '.join(parts)}", values


def files_chosen(filters: Sequence[Filter]) -> Selection | None:
    """How many of the filters on files a row of ``files`` meets, as an expression and its values.

    None where no filter asks for certain files.
    """
    found = [_file_condition(entry) for entry in filters if _selects_files(entry)]
    if not found:
        return None
    return " + ".join(f"({sql})" for sql, _ in found), [v for _, values in found for v in values]


def date_of(filters: Sequence[Filter]) -> Selection:
    """The date of an image of ``shown`` joined with ``images``, as an expression and its values.

    It is the oldest file's where the image does not say when it was taken; where filters ask for
    certain files, the oldest of those.
    """
    chosen = files_chosen(filters)
    if chosen is None:
        return "shown.date", []
    sql, values = chosen
    count = sum(map(_selects_files, filters))
    oldest = (
        "SELECT strftime('%Y-%m-%dT%H:%M:%S', min(mtime_ns) / 1000000000, 'unixepoch', 'localtime')"
        f" FROM files WHERE image_id = shown.image_id AND state = 'indexed' AND {sql} = {count}"
    )
    return f"coalesce(taken_at, ({oldest}), shown.date)", values


def _selects_files(entry: Filter) -> bool:
    return entry.kind in ("in", "name") and not entry.negated


def _condition(entry: Filter, date: Selection) -> Selection:
    value, (day, values) = entry.value, date
    match entry.kind:
        case "in" | "name":
            sql, more = _file_condition(entry)
            files = f"SELECT image_id FROM files WHERE state = 'indexed' AND ({sql})"
            return f"shown.image_id IN ({files})", more
        case "on":
            both = [*values, value, *values, value + AFTER_ANY_DATE]
            return f"{day} >= ? AND {day} < ?", both
        case "after":
            return f"{day} >= ?", [*values, value + AFTER_ANY_DATE]
        case "before":
            return f"{day} < ?", [*values, value]
        case "camera":
            return "camera LIKE ? ESCAPE '\\'", [f"%{_escaped(value)}%"]
        case "format":
            name = value.lower().removeprefix(".")
            return "lower(format) = ?", [FORMAT_NAMES.get(name, name)]
        case "is":
            return _shape(value), []
        case "size":
            return _size(value)
        case "near":
            return _near(value)
    raise ValueError(f"{entry.kind!r} is no filter")


# Files: a name is bytes, and an accent in it one character or two, as its system writes them


def _file_condition(entry: Filter) -> Selection:
    """What a file's row meets in any of the forms that Unicode has for the filter's value."""
    condition = _in_folder if entry.kind == "in" else _named
    value = entry.value
    forms = {value: None} | {unicodedata.normalize(form, value): None for form in ("NFC", "NFD")}
    found = [condition(form) for form in forms]
    sql = " OR ".join(f"({sql})" for sql, _ in found)
    return f"({sql})", [value for _, values in found for value in values]


def _in_folder(value: str) -> Selection:
    """A folder by its whole path, or by the last part of it, wherever that lies."""
    folder = value.rstrip("/") + "/"
    if folder.startswith("/"):
        start = os.fsencode(folder)
        return "substr(path, 1, ?) = ?", [len(start), start]
    return _path_like(f"%/{_escaped(folder)}%")


def _named(value: str) -> Selection:
    """A name with ``*`` and ``?``; without them, a part of a name."""
    pattern = _escaped(value).replace("*", "%").replace("?", "_")
    pattern = pattern if re.search(r"[*?]", value) else f"%{pattern}%"
    names = "SELECT rowid FROM names WHERE name LIKE CAST(? AS TEXT) ESCAPE '\\'"
    return f"id IN ({names})", [os.fsencode(pattern)]


def _path_like(pattern: str) -> Selection:
    return "CAST(path AS TEXT) LIKE CAST(? AS TEXT) ESCAPE '\\'", [os.fsencode(pattern)]


def _escaped(value: str) -> str:
    return re.sub(r"([\\%_])", r"\\\1", value)


# Images


def _shape(value: str) -> str:
    longer = f"max(width, height) * {1 - NEARLY_SQUARE}"
    if value == "square":
        return f"min(width, height) >= {longer}"
    sides = "height > width" if value == "portrait" else "width > height"
    return f"{sides} AND min(width, height) < {longer}"


def _size(value: str) -> Selection:
    found = re.fullmatch(r"(<=|>=|<|>)([0-9.]+)([A-Za-z]+)", value)
    assert found is not None  # the parser has checked it
    sign, number, unit = found.groups()
    if unit == "MP":
        return f"width * height {sign} ?", [float(number) * 1e6]
    return f"bytes {sign} ?", [float(number) * BYTES[unit]]


def _near(value: str) -> Selection:
    """A circle; the band of latitudes around it spares most images the exact distance."""
    latitude, longitude, far = value.split(",")
    km = float(far[:-2]) if far.endswith("km") else float(far[:-1]) / 1000
    place = float(latitude), float(longitude)
    band = math.degrees(km / EARTH_KM) + 1e-6
    return (
        "latitude BETWEEN ? AND ? AND distance_km(latitude, longitude, ?, ?) <= ?",
        [place[0] - band, place[0] + band, *place, km],
    )


def distance_km(
    latitude: float | None, longitude: float | None, other_latitude: float, other_longitude: float
) -> float | None:
    """The great-circle distance of two places in degrees; None where one is not known.

    The haversine formula (Sinnott 1984, Sky and Telescope 68, 158).
    """
    if latitude is None or longitude is None:
        return None
    phi, other_phi = math.radians(latitude), math.radians(other_latitude)
    half = math.sin((phi - other_phi) / 2) ** 2
    half += (
        math.cos(phi)
        * math.cos(other_phi)
        * math.sin(math.radians(longitude - other_longitude) / 2) ** 2
    )
    return 2 * EARTH_KM * math.asin(min(1.0, math.sqrt(half)))
