"""Filters as SQL: which images a query may answer with."""

import math
import re
import sqlite3
from collections.abc import Sequence
from typing import Any

import numpy as np

from .library import Library
from .query import Filter

__all__ = ["DATE", "VISIBLE", "allowed_images", "distance_km", "named_images"]

EARTH_KM = 6371.0088  # mean radius
NEARLY_SQUARE = 0.05  # of the longer side
BYTES = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9}
FORMAT_NAMES = {
    "jpg": "jpeg", "jpe": "jpeg", "jfif": "jpeg", "mpo": "jpeg", "heic": "heif", "hif": "heif",
    "tif": "tiff", "jp2": "jpeg2000", "j2k": "jpeg2000", "jpx": "jpeg2000", "dib": "bmp",
    "pgm": "ppm", "pbm": "ppm", "pnm": "ppm",
}  # fmt: skip

# An image is visible where a file shows it; its date is when it was taken, as far as it says so,
# else when its oldest file was changed last, in local time.
VISIBLE = "EXISTS (SELECT 1 FROM files WHERE image_id = images.id AND state = 'indexed')"
DATE = (
    "coalesce(taken_at, (SELECT strftime('%Y-%m-%dT%H:%M:%S', min(mtime_ns) / 1000000000, "
    "'unixepoch', 'localtime') FROM files WHERE image_id = images.id AND state = 'indexed'))"
)
FILE = (
    "EXISTS (SELECT 1 FROM files JOIN names ON names.rowid = files.id "
    "WHERE image_id = images.id AND state = 'indexed' AND {})"
)

Condition = tuple[str, tuple[Any, ...]]


def allowed_images(library: Library, filters: Sequence[Filter]) -> np.ndarray:
    """The ids of the visible images that meet every filter, int64 (n,), ascending."""
    if any(entry.kind == "near" for entry in filters):
        library.conn.create_function("distance_km", 4, distance_km, deterministic=True)
    parts: list[str] = [VISIBLE]
    values: list[Any] = []
    for entry in filters:
        sql, more = _condition(entry)
        # what is not known of an image meets no condition, and so meets its negation
        parts.append(f"{'NOT ' if entry.negated else ''}coalesce({sql}, 0)")
        values += more
    sql = f"SELECT id FROM images WHERE {' AND '.join(parts)} ORDER BY id"
    return np.array([image_id for (image_id,) in library.rows(sql, values)], dtype=np.int64)


def _condition(entry: Filter) -> Condition:
    value = entry.value
    match entry.kind:
        case "in":
            return _in_folder(value)
        case "name":
            return FILE.format("name LIKE ? ESCAPE '\\'"), (_like(value),)
        case "on":
            return f"substr({DATE}, 1, ?) = ?", (len(value), value)
        case "after":
            return f"substr({DATE}, 1, ?) > ?", (len(value), value)
        case "before":
            return f"substr({DATE}, 1, ?) < ?", (len(value), value)
        case "camera":
            return "camera LIKE ? ESCAPE '\\'", (f"%{_escaped(value)}%",)
        case "format":
            name = value.lower().removeprefix(".")
            return "lower(format) = ?", (FORMAT_NAMES.get(name, name),)
        case "is":
            return _shape(value), ()
        case "size":
            return _size(value)
        case "near":
            latitude, longitude, far = value.split(",")
            km = float(far[:-2]) if far.endswith("km") else float(far[:-1]) / 1000
            sql = "distance_km(latitude, longitude, ?, ?) <= ?"
            return sql, (float(latitude), float(longitude), km)
    raise ValueError(f"{entry.kind!r} is no filter")


def _in_folder(value: str) -> Condition:
    """A folder by its whole path, or by the last part of it, wherever that lies."""
    folder = f"{_escaped(value.rstrip('/'))}/%"
    path = "CAST(path AS TEXT) LIKE ? ESCAPE '\\'"
    return FILE.format(path), (folder if value.startswith("/") else f"%/{folder}",)


def _like(value: str) -> str:
    """A name with ``*`` and ``?`` as SQL's LIKE wants it; without them, a part of a name."""
    pattern = _escaped(value).replace("*", "%").replace("?", "_")
    return pattern if re.search(r"[*?]", value) else f"%{pattern}%"


def _escaped(value: str) -> str:
    return re.sub(r"([\\%_])", r"\\\1", value)


def _shape(value: str) -> str:
    longer = f"max(width, height) * {1 - NEARLY_SQUARE}"
    if value == "square":
        return f"min(width, height) >= {longer}"
    sides = "height > width" if value == "portrait" else "width > height"
    return f"{sides} AND min(width, height) < {longer}"


def _size(value: str) -> Condition:
    found = re.fullmatch(r"(<=|>=|<|>)([0-9.]+)([A-Za-z]+)", value)
    assert found is not None  # the parser has checked it
    sign, number, unit = found.groups()
    if unit == "MP":
        return f"width * height {sign} ?", (float(number) * 1e6,)
    return f"bytes {sign} ?", (float(number) * BYTES[unit],)


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


def named_images(library: Library, words: str, limit: int) -> list[int]:
    """Visible images whose file's name and folders hold all the words, the best first.

    bm25 as SQLite's FTS5 computes it; a name counts four times as much as a folder.
    """
    tokens = re.findall(r"\w+", words.replace("_", " "))
    if not tokens:
        return []
    match = " ".join(f'"{token}"' for token in tokens)
    try:
        rows = library.rows(
            "SELECT image_id FROM names JOIN files ON files.id = names.rowid "
            "WHERE names MATCH ? AND state = 'indexed' ORDER BY bm25(names, 4.0, 1.0), files.id "
            "LIMIT ?",
            (match, 4 * limit),
        )
    except sqlite3.OperationalError:
        return []  # FTS5 found nothing in it that it takes for a word
    return list(dict.fromkeys(image_id for (image_id,) in rows))[:limit]
