"""Choose and order images by their columns, as SQL would, in milliseconds for a million.

What the columns cannot tell is asked of SQL, for few images; where that is too much, ``chosen``
returns None, and SQL answers the whole question.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from fovea.search.library.facts import dates as dating
from fovea.search.library.facts.earth import EARTH_KM, distance_km
from fovea.search.library.facts.folded import fold
from fovea.search.library.library import Library
from fovea.search.library.marks import TABLES
from fovea.search.tags.known import tagged_images

from .columns import ABSENT, Codes, Columns, Names, sorted_places
from .filters import (
    AFTER_ANY_DATE,
    BYTES,
    DAMAGED,
    FILTERS,
    NEARLY_SQUARE,
    SIZE,
    VIDEO,
    Filter,
    places_named,
    texts_with,
)

__all__ = ["Chosen", "chosen"]

PARTED = 20_000  # most images with files of which some are chosen, whose dates SQL has to tell
CLOSE_KM = 1e-3  # to the edge of a circle: NumPy's functions and Python's may round differently
DATES = ("on", "after", "before")
DATED = (  # the dates of images as of some of their files
    f"SELECT id, {dating.DATE} FROM (SELECT images.id, taken_at, dated_by, "
    f"{dating.NAMED} AS named, {dating.OLDEST} AS oldest "
    "FROM files JOIN images ON images.id = image_id "
    "WHERE files.id IN (SELECT value FROM json_each(?)) GROUP BY images.id)"
)


@dataclass(frozen=True, slots=True)
class Chosen:
    """The images that pass some filters, and what they are ordered by."""

    columns: Columns
    places: np.ndarray  # int32 (k,), ascending, in ``columns``
    files: np.ndarray | None  # bool (f,): those that pass filters on files; None without such
    dates: np.ndarray | None  # int32 (n,), codes of the dates of those files, where they differ
    days: (
        np.ndarray
    )  # bytes S (m,), ascending: what the codes stand for, of ``columns`` or ``dates``

    @property
    def ids(self) -> np.ndarray:
        """The images' ids, int64 (k,), ascending."""
        if len(self.places) == len(self.columns):
            return self.columns.ids
        return self.columns.ids[self.places]

    def newest_first(self) -> np.ndarray:
        """Return their ids by date, the last ids first where dates tie, int64 (k,)."""
        columns = self.columns
        if self.dates is not None:
            codes = self.dates[self.places] - ABSENT
            return columns.ids[sorted_places(codes, self.places)[::-1]]
        if len(self.places) == len(columns):
            return columns.newest
        places = columns.oldest[::-1]
        return columns.ids[places[_mask(len(columns), self.places)[places]]]

    def by_name(self) -> np.ndarray:
        """Return their ids by the name of the first of their chosen files, int64 (k,)."""
        columns = self.columns
        if self.files is None:
            places = columns.by_name
            if len(self.places) < len(columns):
                places = places[_mask(len(columns), self.places)[places]]
            return columns.ids[places]
        files = np.flatnonzero(self.files & _mask(len(columns), self.places)[columns.file_images])
        owners = columns.file_images[files]
        firsts = np.flatnonzero(np.diff(owners, prepend=ABSENT))
        names = columns.file_names[files]
        codes = np.minimum.reduceat(names, firsts) if len(firsts) else names
        return columns.ids[sorted_places(codes, owners[firsts])]


def chosen(
    library: Library, columns: Columns, filters: Sequence[Filter], *, is_dated: bool = False
) -> Chosen | None:
    """Choose the images that meet every filter, hidden or not; None where SQL should.

    ``is_dated`` says that their order by date will be asked for.
    """
    files = _files_meeting(columns, filters)
    if isinstance(files, _Unknown):
        return None
    met = np.ones(len(columns), bool)
    dates, days = None, columns.days
    if files is not None:
        met = _with_file(columns, files)
        if is_dated or any(entry.kind in DATES for entry in filters):
            dates, days, is_known = _dates_of(library, columns, files, met)
            if not is_known:
                return None
    for entry in filters:
        if FILTERS[entry.kind].of_files:
            if not entry.negated:
                continue
            with_it = _one_file_filter(columns, entry)
            if with_it is None:
                return None
            part = _with_file(columns, with_it)
        elif entry.kind in DATES:
            codes, values = (columns.dates, columns.days) if dates is None else (dates, days)
            part = _dated(codes, values, entry)
        elif entry.kind == "is" and entry.value in TABLES:
            rows = library.rows(f"SELECT image_id FROM {TABLES[entry.value]}")
            part = np.isin(columns.ids, [image_id for (image_id,) in rows])
        elif entry.kind == "longer" or (entry.kind, entry.value) == ("is", VIDEO):
            condition, given = FILTERS[entry.kind].condition(entry.value)
            # Few, and found along an SQL index.
            sql = f"SELECT id FROM images WHERE duration_ms IS NOT NULL AND {condition}"
            part = np.isin(columns.ids, [key for (key,) in library.rows(sql, given)])
        elif entry.kind == "place":
            rows = library.rows(*places_named(entry.value))
            part = np.isin(columns.at_places, [place_id for (place_id,) in rows])
        elif entry.kind == "text":
            rows = library.rows(*texts_with(entry.value))
            part = np.isin(columns.ids, [image_id for (image_id,) in rows])
        elif entry.kind == "tag":
            rows = library.rows(*tagged_images(entry.value))
            part = np.isin(columns.ids, [image_id for (image_id,) in rows])
        elif entry.kind in _IMAGES:
            part = _IMAGES[entry.kind](columns, entry.value)
        else:
            return None
        met &= ~part if entry.negated else part
    return Chosen(columns, np.flatnonzero(met).astype(np.int32), files, dates, days)


class _Unknown:
    """What the columns cannot tell."""


def _mask(count: int, places: np.ndarray) -> np.ndarray:
    mask = np.zeros(count, bool)
    mask[places] = True
    return mask


# Files


def _files_meeting(columns: Columns, filters: Sequence[Filter]) -> "np.ndarray | None | _Unknown":
    """Return which files meet all filters that select files, bool (f,); None without such."""
    files = None
    for entry in filters:
        if FILTERS[entry.kind].of_files and not entry.negated:
            met = _one_file_filter(columns, entry)
            if met is None:
                return _Unknown()
            files = met if files is None else files & met
    return files


def _one_file_filter(columns: Columns, entry: Filter) -> np.ndarray | None:
    """Return which files meet a condition on files, bool (f,); None if only SQL can tell."""
    if entry.kind == "in":
        condition, values = FILTERS["in"].condition(entry.value)
        return columns.values.meeting("files", condition, values)[columns.file_folders]
    met = _named(columns.names, entry.value) if entry.kind == "name" else None
    return None if met is None else met[columns.file_names]


def _named(names: Names, value: str) -> np.ndarray | None:
    """Return which names match, bool (m,): a part of them, ``a*``, ``*b``, ``a*b`` or ``*a*``."""
    if "?" in value:
        return None
    first, *middle = map(fold, value.split("*"))
    if not middle:
        return names.having(first)
    last, inside = middle.pop(), [part for part in middle if part]
    if not inside:
        return names.between(first, last)
    return names.having(inside[0]) if not first and not last and len(inside) == 1 else None


def _with_file(columns: Columns, files: np.ndarray) -> np.ndarray:
    """Return which images have at least one of the files, bool (n,)."""
    met = np.zeros(len(columns), bool)
    met[columns.file_images[files]] = True
    return met


# Dates


def _dates_of(
    library: Library,
    columns: Columns,
    files: np.ndarray,
    met: np.ndarray,
) -> tuple[np.ndarray | None, np.ndarray, bool]:
    """Return the dates of the chosen files, as codes and what they stand for, and if it is known.

    They are the images' own, None, unless only some of an image's files are chosen, and it does not
    say itself when it was taken.
    """
    counts = np.bincount(columns.file_images[files], minlength=len(columns))
    parted = np.flatnonzero(met & ~columns.exact & (counts < np.diff(columns.starts)))
    if not len(parted):
        return None, columns.days, True
    if len(parted) > PARTED:
        return None, columns.days, False
    asked = files & _mask(len(columns), parted)[columns.file_images]
    rows = library.rows(DATED, [json.dumps(columns.file_ids[asked].tolist())])
    date_of = {image_id: date for image_id, date in rows if date is not None}
    own = np.array([date_of.get(key, "") for key in columns.ids[parted].tolist()], dtype="S")
    more = np.setdiff1d(own[own != b""], columns.days)
    at = np.searchsorted(columns.days, more)
    days = np.insert(columns.days.astype(np.promote_types(columns.days.dtype, own.dtype)), at, more)
    moved = np.arange(len(columns.days)) + np.searchsorted(
        at, np.arange(len(columns.days)), "right"
    )
    dates = columns.dates.copy()
    known = dates != ABSENT
    dates[known] = moved[dates[known]]
    dates[parted] = np.where(own == b"", ABSENT, np.searchsorted(days, own))
    return dates, days, True


def _dated(codes: np.ndarray, days: np.ndarray, entry: Filter) -> np.ndarray:
    """Return which dates meet a filter: codes (n,) of ``days``, bool (n,)."""

    def place(day: str) -> int:
        return int(np.searchsorted(days, np.bytes_(day)))

    first, after = place(entry.value), place(entry.value + AFTER_ANY_DATE)
    if entry.kind == "on":
        return (codes >= first) & (codes < after)
    if entry.kind == "after":
        return codes >= after
    met = (codes != ABSENT) & (codes < first)
    for length in range(len(entry.value)):  # 2020-06 is not before 2020-06-15
        beginning = np.bytes_(entry.value[:length])
        at = int(np.searchsorted(days, beginning))
        if at < len(days) and days[at] == beginning:
            met &= codes != at
    return met


# Images


def _coded(kind: str, column: str) -> Callable[[Columns, str], np.ndarray]:
    """Try the filter's own condition on each value that there is in a column of codes."""

    def met(columns: Columns, value: str) -> np.ndarray:
        codes: Codes = getattr(columns, column)
        condition, values = FILTERS[kind].condition(value)
        has = columns.values.meeting(kind, condition, values)
        return np.append(has, False)[codes.of]  # ABSENT is the last one

    return met


def _shaped(columns: Columns, value: str) -> np.ndarray:
    if value == DAMAGED:
        return _mask(len(columns), columns.damaged)
    widths, heights = columns.widths, columns.heights
    known = (widths != ABSENT) & (heights != ABSENT)
    is_square = np.minimum(widths, heights) >= np.maximum(widths, heights) * (1 - NEARLY_SQUARE)
    if value == "square":
        return known & is_square
    sides = heights > widths if value == "portrait" else widths > heights
    return known & sides & ~is_square


def _sized(columns: Columns, value: str) -> np.ndarray:
    found = SIZE.fullmatch(value)
    assert found is not None  # the filter's ``read`` has checked it
    sign, number, unit = found.groups()
    compare = {"<": np.less, "<=": np.less_equal, ">": np.greater, ">=": np.greater_equal}[sign]
    if unit != "MP":
        met: np.ndarray = compare(columns.bytes, float(number) * BYTES[unit])
        return met
    known = (columns.widths != ABSENT) & (columns.heights != ABSENT)
    pixels = columns.widths.astype(np.int64) * columns.heights
    return known & compare(pixels, float(number) * 1e6)


def _near(columns: Columns, value: str) -> np.ndarray:
    _, (low, high, latitude, longitude, km) = FILTERS["near"].condition(value)
    near = np.flatnonzero((columns.latitudes >= low) & (columns.latitudes <= high))
    latitudes, longitudes = columns.latitudes[near], columns.longitudes[near]
    phi, other_phi = np.radians(latitudes), math.radians(latitude)
    half = np.sin((phi - other_phi) / 2) ** 2
    half += np.cos(phi) * np.cos(other_phi) * np.sin(np.radians(longitudes - longitude) / 2) ** 2
    distances = 2 * EARTH_KM * np.arcsin(np.minimum(1.0, np.sqrt(half)))
    met = distances <= km
    for at in np.flatnonzero(np.abs(distances - km) < CLOSE_KM).tolist():
        exact = distance_km(float(latitudes[at]), float(longitudes[at]), latitude, longitude)
        met[at] = exact is not None and exact <= km
    return _mask(len(columns), columns.placed[near[met]])


_IMAGES: dict[str, Callable[[Columns, str], np.ndarray]] = {
    "camera": _coded("camera", "cameras"),
    "lens": _coded("lens", "lenses"),
    "format": _coded("format", "formats"),
    "is": _shaped,
    "size": _sized,
    "near": _near,
}
