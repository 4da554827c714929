"""Filters: how each kind reads its value, which pictures it selects, and how it is explained.

``FILTERS`` is the one list of them; the query language, its error messages and docs/queries.md
follow it.
"""

import math
import os
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import chain
from typing import Any

import numpy as np

from fovea.search.analyses.texts import matching
from fovea.search.clip.formats import FORMATS, format_named
from fovea.search.library.facts import dates
from fovea.search.library.facts.earth import EARTH_KM, distance_km
from fovea.search.library.facts.folded import canonical_path, fold, fold_path
from fovea.search.library.facts.moments import read_length, read_time
from fovea.search.library.facts.places import place_words
from fovea.search.library.facts.tags import tag_words
from fovea.search.library.library import Library
from fovea.search.library.marks import TABLES, hidden_images
from fovea.search.tags.known import tagged_images

__all__ = [
    "FILTERS",
    "Filter",
    "FilterKind",
    "Selection",
    "allowed_images",
    "asks_for_hidden",
    "dated",
    "files_chosen",
    "places_named",
    "selection",
    "split_places",
    "texts_with",
    "visible",
]

FARTHEST_KM = 20_100  # half the way round the earth
NEARLY_SQUARE = 0.05  # of the longer side
SHAPES = ("portrait", "landscape", "square")
DAMAGED = "damaged"
VIDEO = "video"
ALSO = {"favorite": "favourite", "movie": "video"}  # what ``is:`` takes too
SIZE = re.compile(r"(<=|>=|<|>)([0-9]{1,12}(?:\.[0-9]{1,6})?)([A-Za-z]+)")
UNITS = {"mp": "MP", "b": "B", "kb": "kB", "mb": "MB", "gb": "GB"}
BYTES = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9}
WILDCARDS = {"*": "%", "?": "_"}  # in SQL
LONGEST_PATTERN = 50_000  # bytes of a LIKE pattern (SQLITE_MAX_LIKE_PATTERN_LENGTH)
AFTER_ANY_DATE = "~"  # sorts after whatever follows the year, month or day of a date

Selection = tuple[str, list[Any]]  # what follows FROM, up to ORDER BY, or a condition; its values


@dataclass(frozen=True, slots=True)
class Filter:
    """A condition that a picture meets or, negated, does not."""

    kind: str  # a key of ``FILTERS``
    value: str  # as the kind's ``read`` returns it
    negated: bool = False


@dataclass(frozen=True, slots=True)
class FilterKind:
    """One kind of filter; ``help`` completes "leaves pictures …"."""

    read: Callable[[str], str | None]  # the value in its one written form; None: invalid
    condition: Callable[[str], Selection]  # SQL over the columns of ``shown`` and ``images``, or
    # of ``files`` where ``of_files``: pictures match of which a file does, and that one is shown
    examples: tuple[str, ...]
    help: str
    also: tuple[str, ...] = ()  # what people write instead of its key
    problem: str = "value_form"  # for an invalid value, by its name in ``language.PROBLEMS``
    of_files: bool = False
    values: Callable[[], dict[str, str]] | None = None  # all there are -> how errors name them


def allowed_images(library: Library, filters: Sequence[Filter]) -> np.ndarray:
    """Return the ids of the searchable images that meet every filter, int64 (n,), ascending.

    Hidden ones are among them only if a filter asks for those.
    """
    chosen, values = selection(library, filters)
    rows = library.rows(f"SELECT image_id FROM {chosen}", values)
    ids = np.sort(np.fromiter(chain.from_iterable(rows), dtype=np.int64, count=len(rows)))
    return visible(library, ids, filters)


def asks_for_hidden(filters: Sequence[Filter]) -> bool:
    """Whether a query is about hidden pictures, which other answers leave out."""
    return any((one.kind, one.value, one.negated) == ("is", "hidden", False) for one in filters)


def visible(library: Library, ids: np.ndarray, filters: Sequence[Filter]) -> np.ndarray:
    """Return the ids, int64 (n,), in their order, without hidden images unless asked for."""
    if asks_for_hidden(filters):
        return ids
    hidden = hidden_images(library)
    if not len(hidden) or not len(ids):
        return ids
    at = np.minimum(np.searchsorted(hidden, ids), len(hidden) - 1)
    return ids[hidden[at] != ids]


def selection(library: Library, filters: Sequence[Filter]) -> Selection:
    """Return the rows of ``shown`` that meet every filter, for a statement on this connection.

    Hidden images are among them; ``visible`` leaves those out.
    """
    if any(entry.kind == "near" for entry in filters):
        library.conn.create_function("distance_km", 4, distance_km, deterministic=True)
    shown, values = dated(filters)
    conditions = []  # SQL, its values, and whether it is negated
    if met := files_chosen(filters):
        conditions.append((*_with_file(met), False))
    for entry in filters:
        if not _selects(entry):
            kind = FILTERS[entry.kind]
            condition = kind.condition(entry.value)
            condition = _with_file(condition) if kind.of_files else condition
            conditions.append((*condition, entry.negated))
    parts = ["TRUE"]
    for sql, more, negated in conditions:
        # A picture without the metadata meets no condition, and so matches the negated filter.
        parts.append(f"NOT coalesce({sql}, FALSE)" if negated else f"({sql})")
        values = [*values, *more]
    # SQLite leaves the join out where no column of it is used.
    joined = f"{shown} LEFT JOIN images ON images.id = shown.image_id"
    return f"{joined} WHERE {' AND '.join(parts)}", values


def files_chosen(filters: Sequence[Filter]) -> Selection | None:
    """Return the condition that one row of ``files`` meets all filters that select files.

    None where no filter does.
    """
    chosen = [FILTERS[entry.kind].condition(entry.value) for entry in filters if _selects(entry)]
    if not chosen:
        return None
    met = " AND ".join(f"({sql})" for sql, _ in chosen)
    return f"({met})", [value for _, values in chosen for value in values]


def dated(filters: Sequence[Filter]) -> Selection:
    """Return ``shown``, for FROM; where filters select files, with the dates of those files.

    For a picture that does not say when it was taken, that is the date in their names, or of the
    oldest of them.
    """
    met, values = files_chosen(filters) or ("", [])
    if not met:
        return "shown", []
    among = f"FROM files WHERE image_id = shown.image_id AND state = 'indexed' AND {met}"
    return (
        f"(SELECT image_id, {dates.DATE} AS date, {dates.DATE_SOURCE} AS date_source FROM ("
        f"SELECT shown.image_id, taken_at, dated_by, (SELECT {dates.NAMED} {among}) AS named, "
        f"(SELECT {dates.OLDEST} {among}) AS oldest "
        "FROM shown JOIN images ON images.id = shown.image_id)) AS shown",
        [*values, *values],
    )


def _with_file(condition: Selection) -> Selection:
    """Return the condition on images that one of their files meets ``condition``."""
    sql, values = condition
    return (
        f"shown.image_id IN (SELECT image_id FROM files WHERE state = 'indexed' AND {sql})",
        values,
    )


def _selects(entry: Filter) -> bool:
    return FILTERS[entry.kind].of_files and not entry.negated


# Files: a name is bytes, and one name is written in several ways, depending on the system


def _read_folder(value: str) -> str | None:
    value = value.rstrip("/") or "/"
    if not value.strip():
        return None
    return value if value == "/" else re.sub(r"/+", "/", value)


def _in_folder(value: str) -> Selection:
    """A folder by its whole path, or by the last part of its path, wherever it lies."""
    folder = value.rstrip("/") + "/"
    if folder.startswith("/"):
        return _below(folder)
    return _folded("instr(folder, ?) > 0", f"/{fold_path(folder)}")


def _below(folder: str) -> Selection:
    """Paths that begin so, in any Unicode form.

    Bytes are compared first; few paths are left to look at the characters of.
    """
    forms = {folder, *(unicodedata.normalize(form, folder) for form in ("NFC", "NFD"))}
    starts = sorted(map(os.fsencode, forms))
    same = " OR ".join("substr(path, 1, ?) = ?" for _ in starts)
    alike, folded = _folded("substr(folder, 1, ?) = ?", *_beginning(fold_path(folder)))
    return (
        f"({same} OR ({alike} AND substr(canonical_path(path), 1, ?) = ?))",
        [value for start in starts for value in (len(start), start)]
        + [*folded, *_beginning(canonical_path(folder))],
    )


def _beginning(text: str) -> tuple[int, str]:
    return len(text), text


def _named(value: str) -> Selection:
    """A name with ``*`` and ``?``; without them, a part of a name."""
    if not re.search(r"[*?]", value):
        return _folded("instr(name, ?) > 0", fold(value))
    pieces = re.split(r"([*?])", value)  # full-width ones stand for themselves
    pattern = "".join(WILDCARDS.get(piece) or _escaped(fold(piece)) for piece in pieces)
    if len(pattern.encode()) > LONGEST_PATTERN:
        return "FALSE", []  # longer than any name
    return _folded("name LIKE ? ESCAPE '\\'", pattern)


def _folded(condition: str, *values: Any) -> Selection:
    """Files whose folded name or folder meets a condition, of ``files`` in the statement around.

    Asked of each file, since of a million names most would be looked at for a few files.
    """
    return f"EXISTS (SELECT 1 FROM folded WHERE file_id = files.id AND {condition})", list(values)


def _escaped(value: str) -> str:
    return re.sub(r"([\\%_])", r"\\\1", value)


# Images


def _read_date(value: str) -> str | None:
    """Read a year, a month or a day."""
    if not re.fullmatch(r"[0-9]{4}(-[0-9]{2}){0,2}", value):
        return None
    try:
        date.fromisoformat(f"{value}-01-01"[:10])
    except ValueError:
        return None
    return value


def _before(day: str) -> Selection:
    """Surely earlier: 2020-06 is not before 2020-06-15, although it sorts before it."""
    return "shown.date < ? AND substr(?, 1, length(shown.date)) <> shown.date", [day, day]


def _read_words(value: str) -> str | None:
    """Read words; white space in them counts as one space. None for what is not UTF-8."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return None
    return " ".join(value.split())


def _read_format(value: str) -> str | None:
    return value if format_named(fold(value).removeprefix(".")) else None


def _format(value: str) -> Selection:
    found = format_named(fold(value).removeprefix("."))
    assert found is not None  # ``_read_format`` has checked it
    return "format = ? COLLATE NOCASE", [found.name]


def _formats() -> dict[str, str]:
    """Return what ``format:`` takes, each name and extension, with its format's name."""
    return {
        name: entry.name.lower()
        for entry in FORMATS
        for name in (entry.name.lower(), *entry.extensions.split())
    }


def _read_shape(value: str) -> str | None:
    value = ALSO.get(value.lower(), value.lower())
    return value if value in (*SHAPES, DAMAGED, VIDEO, *TABLES) else None


def _shape(value: str) -> Selection:
    if value in TABLES:
        return f"shown.image_id IN (SELECT image_id FROM {TABLES[value]})", []
    if value == DAMAGED:
        return "damaged IS NOT NULL", []
    if value == VIDEO:
        return "duration_ms IS NOT NULL", []
    longer = f"max(width, height) * {1 - NEARLY_SQUARE}"
    if value == "square":
        return f"min(width, height) >= {longer}", []
    sides = "height > width" if value == "portrait" else "width > height"
    return f"{sides} AND min(width, height) < {longer}", []


def _read_size(value: str) -> str | None:
    found = SIZE.fullmatch(value)
    if not found or found[3].lower() not in UNITS:
        return None
    return f"{found[1]}{found[2]}{UNITS[found[3].lower()]}"


def _size(value: str) -> Selection:
    found = SIZE.fullmatch(value)
    assert found is not None  # ``_read_size`` has checked it
    sign, number, unit = found.groups()
    if unit == "MP":
        return f"width * height {sign} ?", [float(number) * 1e6]
    return f"bytes {sign} ?", [float(number) * BYTES[unit]]


def _read_near(value: str) -> str | None:
    """Read a latitude, a longitude and a distance."""
    number = r"([+-]?[0-9]{1,3}(?:\.[0-9]{1,9})?)"
    far = r"([0-9]{1,8}(?:\.[0-9]{1,6})?)(km|m)"
    found = re.fullmatch(rf"{number},{number},{far}", value, re.IGNORECASE)
    if not found:
        return None
    unit = found[4].lower()
    far_km = float(found[3]) / (1 if unit == "km" else 1000)
    if abs(float(found[1])) > 90 or abs(float(found[2])) > 180 or far_km > FARTHEST_KM:
        return None
    return f"{found[1]},{found[2]},{found[3]}{unit}"


def _near(value: str) -> Selection:
    """A circle; only images in its band of latitudes need the exact distance."""
    latitude, longitude, far = value.split(",")
    km = float(far[:-2]) if far.endswith("km") else float(far[:-1]) / 1000
    place = float(latitude), float(longitude)
    band = math.degrees(km / EARTH_KM) + 1e-6
    return (
        "latitude BETWEEN ? AND ? AND distance_km(latitude, longitude, ?, ?) <= ?",
        [place[0] - band, place[0] + band, *place, km],
    )


def _read_place(value: str) -> str | None:
    """Read names of places with commas between them."""
    words = _read_words(value)
    return words if words and all(map(place_words, split_places(words))) else None


def split_places(value: str) -> list[str]:
    """Return the names that narrow a place down, as in ``Paris, Texas``."""
    return re.split("[,\uff0c\u3001]", value)


def places_named(value: str) -> Selection:
    """Return SQL for the ids of the places that have all the names of a filter's value."""
    names = [place_words(name) for name in split_places(value)]
    one = (
        "SELECT place_id FROM place_localities JOIN locality_names USING (locality_id) "
        "WHERE name = ?"
    )
    return " INTERSECT ".join([one] * len(names)), list(names)


def _read_text(value: str) -> str | None:
    """Read words that a picture shows."""
    words = _read_words(value)
    return words if words and matching(words) else None


def texts_with(value: str) -> Selection:
    """Return SQL for the ids of the images that show the words of a filter's value."""
    found = matching(value)
    assert found is not None  # ``_read_text`` has checked it
    return found


def _with_text(value: str) -> Selection:
    found, values = texts_with(value)
    return f"shown.image_id IN ({found})", [*values]


def _at_place(value: str) -> Selection:
    named, values = places_named(value)
    found = f"SELECT image_id FROM placed WHERE place_id IN ({named})"
    return f"shown.image_id IN ({found})", values


def _read_tag(value: str) -> str | None:
    words = _read_words(value)
    return words if words and tag_words(words) else None


def _has_tag(value: str) -> Selection:
    found, values = tagged_images(value)
    return f"shown.image_id IN ({found})", [*values]


FILTERS: dict[str, FilterKind] = {
    "in": FilterKind(
        _read_folder, _in_folder, ("in:holidays/2019", "in:/photos/a"),
        "below a folder, given by the last part of its path or by its whole path",
        ("folder", "path", "dir", "directory"), "folder", of_files=True,
    ),
    "name": FilterKind(
        str, _named, ("name:IMG_*", "name:beach"),
        "with such a file name; `*` and `?` work as in a shell, without them a part is enough",
        ("file", "filename", "title"),
        of_files=True,
    ),
    "on": FilterKind(
        _read_date, lambda day: ("shown.date >= ? AND shown.date < ?", [day, day + AFTER_ANY_DATE]),
        ("on:2024-07-01", "on:2024-07", "on:2024"), "of that day, month or year",
        ("date", "day", "month", "year", "taken"), "date",
    ),
    "after": FilterKind(
        _read_date, lambda day: ("shown.date >= ?", [day + AFTER_ANY_DATE]),
        ("after:2019",), "later than the end of that day, month or year", ("since", "from"), "date",
    ),
    "before": FilterKind(
        _read_date, _before, ("before:2020-06",),
        "earlier than its beginning; `-before:2019 -after:2020` leaves 2019 and 2020",
        ("until", "to"), "date",
    ),
    "camera": FilterKind(
        _read_words, lambda name: ("camera LIKE ? ESCAPE '\\'", [f"%{_escaped(name)}%"]),
        ("camera:canon",), "whose camera's name contains that", ("make", "model", "device"), "utf8",
    ),
    "lens": FilterKind(
        _read_words, lambda name: ("lens LIKE ? ESCAPE '\\'", [f"%{_escaped(name)}%"]),
        ("lens:50mm",), "whose lens's name contains that", ("objective",), "utf8",
    ),
    "format": FilterKind(
        _read_format, _format, ("format:heic",),
        "of that format, given by its name or a file extension",
        ("type", "ext", "extension"), "format", values=_formats,
    ),
    "is": FilterKind(
        _read_shape, _shape,
        (
            "is:portrait", "is:landscape", "is:square", "is:damaged", "is:video", "is:favourite",
            "is:hidden",
        ),
        "of that shape (sides that differ by up to 5 % count as square); damaged: something is "
        "missing; videos; favourites; or hidden ones, which are in no other answer",
        ("shape", "orientation"), "shape",
    ),
    "size": FilterKind(
        _read_size, _size, ("size:>10MP", "size:<=500kB"),
        "of so many megapixels, or bytes (`B`, `kB`, `MB`, `GB`)",
        ("pixels", "resolution", "bytes"), "size",
    ),
    "longer": FilterKind(
        read_length, lambda value: ("duration_ms > ?", [read_time(value)]),
        ("longer:1m", "longer:90s", "longer:1h30m"),
        "that are videos longer than that; `is:video -longer:1m` leaves the others",
        ("duration", "length", "minutes", "seconds"), "seconds",
    ),
    "near": FilterKind(
        _read_near, _near, ("near:48.2,16.4,10km",),
        "taken within that distance of a latitude and longitude (`km` or `m`)",
        ("gps", "geo", "around"), "near",
    ),
    "place": FilterKind(
        _read_place, _at_place, ("place:lisbon", 'place:"paris, texas"'),
        "taken in or near that town, or in that region or country, in any language; commas narrow "
        "it down",
        ("location", "town", "city", "country", "region", "where"), "place",
    ),
    "text": FilterKind(
        _read_text, _with_text, ('text:"boarding pass"', "text:登机牌"),
        "that show these words, one after another, in the picture",
        ("ocr", "says", "reads", "writing"), "text",
    ),
    "tag": FilterKind(
        _read_tag, _has_tag, ("tag:rex", "-tag:document"),
        "with that tag, taught by examples (`fovea teach`) or given by a label (`fovea tag label`)",
        ("tags", "tagged", "label", "keyword", "who"), "utf8",
    ),
}  # fmt: skip
