"""What filters and orders look at, in compact arrays: for libraries too large to ask SQL each time.

``Columns`` are read from one state of the library and never change. Whoever keeps them sees to it
that they are used only while the library is in that state. ``choosing.py`` answers from them.
"""

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from fovea.search.library.connection import in_memory
from fovea.search.library.library import Library

__all__ = ["Codes", "Columns", "Filed", "Names", "Values", "images_within", "read_columns"]

PAGE = 20_000  # rows fetched at a time
ABSENT = -1  # a code, width or height that is not known
SEPARATOR = b"\0"  # between names, which cannot contain it
_CODED = {"camera": "cameras", "lens": "lenses", "format": "formats"}  # of few values each


@dataclass(frozen=True, slots=True)
class Codes:
    """A column of few values: of each row, which of the values it has."""

    of: np.ndarray  # int32 (n,), places in ``values``; ABSENT where the row has none
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Names:
    """The folded names of files, each once, in the order in which SQLite compares them."""

    text: np.ndarray  # uint8: SEPARATOR, the first name in UTF-8, SEPARATOR, the second, …
    starts: np.ndarray  # uint32 (m,), of each name's first byte in ``text``

    def __len__(self) -> int:
        return len(self.starts)

    def having(self, part: str) -> np.ndarray:
        """Return which names contain a text, bool (m,)."""
        wanted = part.encode()
        if not wanted:
            return np.ones(len(self), bool)
        last = max(0, len(self.text) - len(wanted) + 1)
        found = np.flatnonzero(self.text[:last] == wanted[0])
        for place, byte in enumerate(wanted[1:], start=1):
            found = found[self.text[found + place] == byte]
        names = np.zeros(len(self), bool)
        names[np.searchsorted(self.starts, found, side="right") - 1] = True
        return names

    def between(self, first: str, last: str) -> np.ndarray:
        """Return which names begin with one text and, after it, end with another, bool (m,)."""
        starts = self.starts.astype(np.int64)
        ends = np.append(starts[1:] - len(SEPARATOR), len(self.text))
        head, tail = first.encode(), last.encode()
        met = np.flatnonzero(ends - starts >= len(head) + len(tail))
        for place, byte in enumerate(head):
            met = met[self.text[starts[met] + place] == byte]
        for place, byte in enumerate(reversed(tail), start=1):
            met = met[self.text[ends[met] - place] == byte]
        names = np.zeros(len(self), bool)
        names[met] = True
        return names


@dataclass(frozen=True)
class Values:
    """A small database to try SQL conditions on: a file in each folder, each camera, lens, format.

    An id is a place in ``folders``, or in the values of ``Codes``.
    """

    folders: tuple[bytes, ...]
    _database: sqlite3.Connection = field(repr=False)
    _turn: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @classmethod
    def of(cls, folders: Sequence[bytes], **columns: Codes) -> "Values":
        """Make the database; the names of ``columns`` are those that conditions use."""
        database = in_memory(any_thread=True)
        database.execute("CREATE TABLE files (id INTEGER PRIMARY KEY, path BLOB)")
        database.execute("CREATE TABLE folded (file_id INTEGER PRIMARY KEY, folder TEXT)")
        rows = ((place, folder + b"/x") for place, folder in enumerate(folders))
        database.executemany("INSERT INTO files VALUES (?, ?)", rows)
        database.execute("INSERT INTO folded SELECT id, folded_folder(path) FROM files")
        for name, column in columns.items():
            database.execute(f"CREATE TABLE {name} (id INTEGER PRIMARY KEY, {name} TEXT)")
            database.executemany(f"INSERT INTO {name} VALUES (?, ?)", enumerate(column.values))
        return cls(tuple(folders), database)

    def __del__(self) -> None:
        self._database.close()  # Python 3.13 warns of one that is not

    def meeting(self, table: str, condition: str, values: Sequence[Any]) -> np.ndarray:
        """Return which rows of a table meet a condition, bool (m,)."""
        with self._turn:
            [(count,)] = self._database.execute(f"SELECT count(*) FROM {table}")
            rows = self._database.execute(f"SELECT id FROM {table} WHERE {condition}", values)
            found = [place for (place,) in rows]
        met = np.zeros(count, bool)
        met[found] = True
        return met


@dataclass(frozen=True)
class Columns:
    """The searchable images and their indexed files. Images are in the order of their ids."""

    ids: np.ndarray  # int64 (n,), ascending
    dates: np.ndarray  # int32 (n,), places in ``days``; ABSENT where the image has no date
    days: np.ndarray  # bytes S (m,), all dates that there are, ascending
    oldest: np.ndarray  # int32 (n,), places of images, oldest first, those without a date before
    exact: np.ndarray  # bool (n,): the picture says when it was taken, to the second
    cameras: Codes
    lenses: Codes
    formats: Codes
    widths: np.ndarray  # int32 (n,), pixels; ABSENT
    heights: np.ndarray
    bytes: np.ndarray  # int64 (n,)
    damaged: np.ndarray  # int32 (p,), places of images of which something is missing
    placed: np.ndarray  # int32 (p,), places of images with a latitude and longitude
    latitudes: np.ndarray  # float64 (p,)
    longitudes: np.ndarray
    at_places: np.ndarray  # int32 (n,), ids of places by name; 0 where none is known
    starts: np.ndarray  # int32 (n + 1,): the files of image i are starts[i] to starts[i + 1] - 1
    file_ids: np.ndarray  # int64 (f,)
    file_folders: np.ndarray  # int32 (f,), places in ``values.folders``
    file_names: np.ndarray  # int32 (f,), places in ``names``
    names: Names
    values: Values

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def file_images(self) -> np.ndarray:
        """The place of each file's image, int32 (f,), ascending."""
        counts = np.diff(self.starts)
        return np.repeat(np.arange(len(self.ids), dtype=np.int32), counts)

    @cached_property
    def newest(self) -> np.ndarray:
        """The ids by date, the last ids first where dates tie, int64 (n,)."""
        return self.ids[self.oldest[::-1]]

    @cached_property
    def by_name(self) -> np.ndarray:
        """Places of images in the order of their first names, int32 (n,)."""
        first = np.minimum.reduceat(self.file_names, self.starts[:-1]) if len(self) else self.starts
        return sorted_places(first[: len(self)], np.arange(len(self)))

    @property
    def nbytes(self) -> int:
        """The bytes of all arrays."""
        parts = [*vars(self).values(), self.cameras.of, self.lenses.of, self.formats.of]
        parts += [self.names.text, self.names.starts]
        return sum(part.nbytes for part in parts if isinstance(part, np.ndarray))


class Filed(Protocol):
    """Files, each with its image and its folder."""

    @property
    def file_images(self) -> np.ndarray:
        """The number of each file's image, int (f,), ascending."""

    @property
    def file_folders(self) -> np.ndarray:
        """The number of each file's folder, int (f,)."""


def images_within(files: Filed, inside: Sequence[tuple[int, int]], count: int) -> list[int]:
    """Count the images of each of ``count`` groups of folders, an image with several files once.

    ``inside`` has the number of a folder and of a group that it belongs to, each pair once.
    """
    if not inside or not len(files.file_images):
        return [0] * count
    folders, groups = np.array(sorted(inside), np.int64).T
    images, file_folders = files.file_images, files.file_folders
    most = int(max(folders[-1], file_folders.max())) + 1
    follows = images[1:] == images[:-1]
    is_only = ~(np.append(follows, False) | np.append(False, follows))
    alone = np.bincount(file_folders[is_only], minlength=most)
    totals = np.bincount(groups, alone[folders], count).astype(np.int64)
    # Images with several files, once in each group of each folder.
    shared, owners = file_folders[~is_only], images[~is_only].astype(np.int64)
    first = np.searchsorted(folders, np.arange(most + 1))
    each = np.diff(first)[shared]
    ends = np.cumsum(each)
    at = np.arange(each.sum()) - np.repeat(ends - each, each) + np.repeat(first[shared], each)
    pairs = np.unique(np.repeat(owners, each) * count + groups[at])
    totals += np.bincount(pairs % count, minlength=count)
    return [int(total) for total in totals]


def sorted_places(codes: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return places, int32 (n,), by their codes (n,), not negative, and where these tie by place.

    One sort of 64-bit integers takes a tenth of the time of ``lexsort``.
    """
    keys = (codes.astype(np.uint64) << np.uint64(32)) | places.astype(np.uint64)
    keys.sort()
    return (keys & np.uint64(0xFFFFFFFF)).astype(np.int32)


def read_columns(library: Library) -> Columns | None:
    """Read them within one transaction: seconds for a million images.

    None for a library that they cannot represent, such as a damaged one: SQL answers then.
    """
    with library.reading() as conn:
        try:
            return _read(conn)
        except (ValueError, TypeError, KeyError, IndexError, OverflowError, UnicodeError):
            return None


def _read(conn: sqlite3.Connection) -> Columns:
    oldest_ids, codes, days = _dates(conn)
    ids = np.sort(oldest_ids)
    oldest = _places(ids, oldest_ids)
    dates = np.empty(len(ids), np.int32)
    dates[oldest] = codes
    facts = _facts(conn, ids)
    [damaged] = _arrays(conn, "SELECT id FROM images WHERE damaged IS NOT NULL", (np.int64,))
    placed, latitudes, longitudes = _arrays(
        conn,
        "SELECT id, latitude, longitude FROM images "
        "WHERE latitude IS NOT NULL AND longitude IS NOT NULL",
        (np.int64, np.float64, np.float64),
    )
    there = np.isin(placed, ids)
    named, place_ids = _arrays(
        conn,
        "SELECT image_id, place_id FROM placed WHERE place_id IS NOT NULL",
        (np.int64, np.int64),
    )
    is_shown = np.isin(named, ids)
    at_places = np.zeros(len(ids), np.int32)
    at_places[_places(ids, named[is_shown])] = place_ids[is_shown]
    names, name_codes, named_ids = _names(conn)
    starts, file_folders, file_ids, folders = _files(conn, ids)
    file_names = name_codes[_places(named_ids, file_ids)]
    return Columns(
        ids,
        dates,
        days,
        oldest,
        **facts,
        damaged=_places(ids, damaged[np.isin(damaged, ids)]),
        placed=_places(ids, placed[there]),
        latitudes=latitudes[there],
        longitudes=longitudes[there],
        at_places=at_places,
        starts=starts,
        file_ids=file_ids,
        file_folders=file_folders,
        file_names=file_names,
        names=names,
        values=Values.of(folders, **{kind: facts[column] for kind, column in _CODED.items()}),
    )


def _dates(conn: sqlite3.Connection) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the images by date, int64 (n,), the code of each date, int32 (n,), and all dates."""
    ids, codes, days, last, count = [], [], [], b"", -1
    sql = "SELECT image_id, date FROM shown INDEXED BY shown_date"
    nowhere = _arrays(conn, f"{sql} WHERE date IS NULL ORDER BY image_id", (np.int64,), only=1)[0]
    sql += " WHERE date IS NOT NULL ORDER BY date, image_id"
    for page in _pages(conn, sql):
        page_ids, texts = zip(*page, strict=True)
        found = np.array(texts, dtype="S")
        is_new = np.concatenate([[count < 0 or found[0] != last], found[1:] != found[:-1]])
        days.append(found[is_new])
        codes.append((count + np.cumsum(is_new)).astype(np.int32))
        ids.append(np.array(page_ids, np.int64))
        count, last = int(codes[-1][-1]), found[-1]
    all_ids = np.concatenate([nowhere, *ids])
    unknown = np.full(len(nowhere), ABSENT, np.int32)
    return all_ids, np.concatenate([unknown, *codes]), np.concatenate([np.empty(0, "S1"), *days])


def _facts(conn: sqlite3.Connection, ids: np.ndarray) -> dict[str, Any]:
    """Return what each image says of itself: ``Columns`` from ``exact`` to ``bytes``, by name."""
    count = len(ids)
    exact = np.zeros(count, bool)
    widths, heights = (np.full(count, ABSENT, np.int32) for _ in range(2))
    coded = [np.full(count, ABSENT, np.int32) for _ in _CODED]
    sizes, known = np.zeros(count, np.int64), np.zeros(count, bool)
    values: list[dict[str | None, int]] = [{None: ABSENT} for _ in _CODED]
    sql = (
        "SELECT id, coalesce(length(taken_at), 0) >= 19, "
        f"{', '.join(_CODED)}, width, height, bytes FROM images NOT INDEXED ORDER BY id"
    )
    for page in _pages(conn, sql):
        page_ids, page_exact, *texts, page_widths, page_heights, page_sizes = zip(
            *page, strict=True
        )
        found = np.array(page_ids, np.int64)
        is_shown = np.isin(found, ids, assume_unique=True)
        at = _places(ids, found[is_shown])
        known[at] = True
        exact[at] = np.array(page_exact, bool)[is_shown]
        for codes, column, code_of in zip(coded, texts, values, strict=True):
            for text in set(column) - code_of.keys():
                code_of[text] = len(code_of) - 1
            codes[at] = np.array([code_of[text] for text in column], np.int32)[is_shown]
        for numbers, column in ((widths, page_widths), (heights, page_heights)):
            numbers[at] = _sides(column)[is_shown]
        sizes[at] = np.array(page_sizes, np.int64)[is_shown]
    if not known.all():
        raise ValueError("searchable images that are not there")
    made = (
        Codes(codes, tuple(text for text in code_of if text is not None))
        for codes, code_of in zip(coded, values, strict=True)
    )
    kinds = dict(zip(_CODED.values(), made, strict=True))
    return {"exact": exact, **kinds, "widths": widths, "heights": heights, "bytes": sizes}


def _sides(column: Sequence[int | None]) -> np.ndarray:
    """Return widths or heights, int32 (n,), ABSENT for None. Raise ``ValueError`` for odd ones."""
    if None in column:
        known = [number for number in column if number is not None]
        found = np.full(len(column), ABSENT, np.int32)
        found[[number is not None for number in column]] = _sides(known)
        return found
    numbers = np.array(column, np.int64)
    if len(numbers) and not 0 <= numbers.min() <= numbers.max() < 2**31:
        raise ValueError("a width or height that no picture has")
    return numbers.astype(np.int32)


def _names(conn: sqlite3.Connection) -> tuple[Names, np.ndarray, np.ndarray]:
    """Return the names, and of each file by ascending id its name's place, int32, and its id."""
    files, codes, parts, lengths = [], [], [], []
    last, count = None, -1
    for page in _pages(conn, "SELECT file_id, name FROM folded ORDER BY name"):
        page_ids, texts = zip(*page, strict=True)
        before = (last, *texts[:-1])
        is_new = np.array([one != other for one, other in zip(texts, before, strict=True)])
        new = [text.encode() for text, fresh in zip(texts, is_new.tolist(), strict=True) if fresh]
        parts += [SEPARATOR + SEPARATOR.join(new)] if new else []
        lengths.append(np.fromiter(map(len, new), np.int64, len(new)))
        codes.append((count + np.cumsum(is_new)).astype(np.int32))
        files.append(np.array(page_ids, np.int64))
        last, count = texts[-1], int(codes[-1][-1])
    text = np.frombuffer(b"".join(parts), np.uint8)
    sizes = np.concatenate([np.empty(0, np.int64), *lengths]) + len(SEPARATOR)
    if np.count_nonzero(text == 0) != len(sizes) or len(text) >= 2**32:
        raise ValueError("names with a null character, or too many")
    starts = (np.cumsum(sizes) - sizes + len(SEPARATOR)).astype(np.uint32)
    ids = np.concatenate([np.empty(0, np.int64), *files])
    order = np.argsort(ids)
    return Names(text, starts), np.concatenate([np.empty(0, np.int32), *codes])[order], ids[order]


def _files(
    conn: sqlite3.Connection, ids: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[bytes]]:
    """Return the starts of each image's files, their folders and ids, and all folders."""
    images, folders, files = [], [], []
    code_of: dict[bytes, int] = {}
    sql = "SELECT id, image_id, path FROM files NOT INDEXED WHERE state = 'indexed' ORDER BY id"
    for page in _pages(conn, sql):
        page_ids, page_images, paths = zip(*page, strict=True)
        above = [path[: path.rindex(b"/")] for path in paths]
        for folder in set(above) - code_of.keys():
            code_of[folder] = len(code_of)
        folders.append(np.fromiter(map(code_of.__getitem__, above), np.int32, len(above)))
        images.append(_places(ids, np.array(page_images, np.int64)))
        files.append(np.array(page_ids, np.int64))
    nothing = np.empty(0, np.int32)
    owners = np.concatenate([nothing, *images])
    order = np.argsort(owners, kind="stable")
    starts = np.searchsorted(owners[order], np.arange(len(ids) + 1)).astype(np.int32)
    if (np.diff(starts) < 1).any():
        raise ValueError("searchable images without a file")
    return (
        starts,
        np.concatenate([nothing, *folders])[order],
        np.concatenate([np.empty(0, np.int64), *files])[order],
        list(code_of),
    )


def _places(values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return where each wanted number is among ascending values, int32. Raise ``KeyError``."""
    if not len(wanted):
        return np.empty(0, np.int32)
    if not len(values):
        raise KeyError("nothing is there")
    at = np.minimum(np.searchsorted(values, wanted), len(values) - 1)
    if not (values[at] == wanted).all():
        raise KeyError("a row that another one names is not there")
    return at.astype(np.int32)


def _arrays(
    conn: sqlite3.Connection, sql: str, kinds: Sequence[Any], only: int | None = None
) -> list[np.ndarray]:
    """Return the first columns of all rows as arrays of these types."""
    found: list[list[np.ndarray]] = [[np.empty(0, kind)] for kind in kinds]
    for page in _pages(conn, sql):
        columns = list(zip(*page, strict=True))[:only]
        for parts, column, kind in zip(found, columns, kinds, strict=True):
            parts.append(np.array(column, kind))
    return [np.concatenate(parts) for parts in found]


def _pages(conn: sqlite3.Connection, sql: str) -> Iterator[list[tuple[Any, ...]]]:
    with closing(conn.execute(sql)) as cursor:
        yield from iter(lambda: cursor.fetchmany(PAGE), [])
