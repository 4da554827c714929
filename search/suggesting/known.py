"""What a library knows that people may mean: its folders, cameras, formats, dates and searches.

``Known`` is read from one state of a library and never changes, so that a keystroke needs no more
than a look into sorted lists. Counts come from ``Columns``, for libraries of any size.
"""

import json
import os
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from fovea.search.library.facts.folded import fold_path, words
from fovea.search.library.library import Library
from fovea.search.query.choosing import chosen
from fovea.search.query.columns import (
    ABSENT,
    SEPARATOR,
    Codes,
    Columns,
    images_within,
    read_columns,
)
from fovea.search.query.filename_search import UNSPACED
from fovea.search.query.filters import Filter, visible
from fovea.search.query.known_places import KnownPlace, known_places
from fovea.search.query.saved import SavedSearch, saved_searches

__all__ = ["Counted", "Devices", "Known", "WordIndex"]

FOLDERS = 20_000  # those with the most pictures
PLACES = 20_000  # in a language
CONTEXTS = 32  # filters of which is remembered which folders have pictures
COUNTS = 4096  # numbers of pictures that are remembered
LOOKS = 2000  # places in the names of files that are looked at
LAST = "\U0010ffff"  # sorts after whatever follows the beginning of a word


NOTHING = np.empty(0, np.int32)


class Counted(NamedTuple):
    """A value that a filter can take, and how many pictures have it, hidden ones among them."""

    name: str
    pictures: int


class WordIndex:
    """Finds texts by the beginnings of their words; texts are numbered in their order."""

    def __init__(self, texts: Iterable[Iterable[str]]) -> None:
        """``texts`` are the folded words of each."""
        places: dict[str, list[int]] = {}
        for number, own in enumerate(texts):
            for word in set(own):
                places.setdefault(word, []).append(number)
        self._words = sorted(places)
        self._starts = np.zeros(len(self._words) + 1, np.int64)
        self._starts[1:] = np.cumsum([len(places[word]) for word in self._words])
        self._texts = np.array(
            [number for word in self._words for number in places[word]], np.int32
        )

    def find(self, tokens: Sequence[str]) -> np.ndarray:
        """Return the texts in which each token begins a word, int32, ascending.

        Tokens of scripts without spaces between words are found anywhere in one.
        """
        found = None
        for token in tokens:
            having = np.unique(self._having(token))
            found = having if found is None else np.intersect1d(found, having, assume_unique=True)
        return np.empty(0, np.int32) if found is None else found

    def _having(self, token: str) -> np.ndarray:
        if UNSPACED.search(token):
            inside = [place for place, word in enumerate(self._words) if token in word]
            parts = [self._texts[self._starts[at] : self._starts[at + 1]] for at in inside]
            return np.concatenate([np.empty(0, np.int32), *parts])
        first = bisect_left(self._words, token)
        last = bisect_left(self._words, token + LAST)
        return self._texts[self._starts[first] : self._starts[last]]


class Devices:
    """Cameras or lenses, the most frequent first."""

    def __init__(self, counted: Sequence[Counted]) -> None:
        self._names = [entry.name for entry in counted]
        self._index = WordIndex(map(words, self._names))

    def having(self, tokens: Sequence[str]) -> list[str]:
        """Return the names in which each token begins a word; all without tokens."""
        if not tokens:
            return self._names
        return [self._names[place] for place in self._index.find(tokens).tolist()]


@dataclass(frozen=True)
class Known:
    """One state of a library, for suggestions."""

    columns: Columns | None  # None: what would be counted is not suggested
    folders: tuple[Counted, ...] = ()  # below the roots, with their names from the root's on; the
    places: tuple[KnownPlace, ...] = ()  # most frequent first, as all of these; in two languages
    cameras: "Devices" = field(default_factory=lambda: Devices(()))
    lenses: "Devices" = field(default_factory=lambda: Devices(()))
    formats: tuple[Counted, ...] = ()
    searches: tuple[SavedSearch, ...] = ()
    months: frozenset[tuple[int, int]] = frozenset()  # (year, month) in which there are pictures
    is_south: bool = False  # whether most pictures that say where were taken south of the equator
    folder_names: WordIndex = field(default_factory=lambda: WordIndex([]))
    folder_paths: WordIndex = field(default_factory=lambda: WordIndex([]))  # with folders above
    place_names: WordIndex = field(default_factory=lambda: WordIndex([]))
    place_labels: WordIndex = field(default_factory=lambda: WordIndex([]))  # with the country
    search_names: WordIndex = field(default_factory=lambda: WordIndex([]))
    # Which folders of ``columns`` belong to which of ``folders``: pairs of places, int32 (p,) each.
    belonging: tuple[np.ndarray, np.ndarray] = NOTHING, NOTHING
    _counts: OrderedDict[tuple[Filter, ...], int | None] = field(default_factory=OrderedDict)
    _having: OrderedDict[tuple[Filter, ...], np.ndarray] = field(default_factory=OrderedDict)

    @classmethod
    def of(cls, library: Library, columns: Columns | None = None) -> "Known":
        """Read a library as it is now; ``columns`` are those of this state, if they are at hand."""
        with library.reading():
            searches = tuple(saved_searches(library))
            if columns is None:
                columns = read_columns(library)
            roots = [root.path for root in library.roots()]
            places = _places(library)
        search_names = WordIndex(words(search.name) for search in searches)
        if columns is None:
            return cls(None, searches=searches, search_names=search_names)
        folders, belonging = _folders(columns, roots)
        return cls(
            columns,
            folders,
            places,
            Devices(_counted(columns.cameras)),
            Devices(_counted(columns.lenses)),
            _counted(columns.formats),
            searches,
            _months(columns.days),
            bool(len(columns.latitudes) and np.median(columns.latitudes) < 0),
            WordIndex(words(folder.name.rpartition("/")[2]) for folder in folders),
            WordIndex(words(folder.name) for folder in folders),
            WordIndex(words(place.name) for place in places),
            WordIndex(words(place.label) for place in places),
            search_names,
            belonging,
        )

    def folders_having(self, library: Library, filters: tuple[Filter, ...]) -> np.ndarray:
        """Return which of ``folders`` have pictures that a query with these filters finds, bool."""
        if filters in self._having:
            return self._having[filters]
        having = np.ones(len(self.folders), bool)
        if self.columns is not None and (found := chosen(library, self.columns, filters)):
            columns = self.columns
            ids = visible(library, found.ids, filters)
            is_found = np.zeros(len(columns), bool)
            is_found[np.searchsorted(columns.ids, ids)] = True
            has = np.zeros(len(columns.values.folders), bool)
            has[columns.file_folders[is_found[columns.file_images]]] = True
            numbers, places = self.belonging
            having[:] = False
            having[places[has[numbers]]] = True
        self._having[filters] = having
        _keep(self._having, CONTEXTS)
        return having

    def count(self, library: Library, filters: tuple[Filter, ...]) -> int | None:
        """Count the pictures that a query with these filters finds; None where SQL has to."""
        if self.columns is None:
            return None
        if filters in self._counts:
            return self._counts[filters]
        found = chosen(library, self.columns, filters)
        count = None if found is None else len(visible(library, found.ids, filters))
        self._counts[filters] = count
        _keep(self._counts, COUNTS)
        return count

    def files_named(self, library: Library, part: str, most: int) -> list[str]:
        """Return paths of files in whose folded name a word begins with a text.

        Those whose names begin with it come first. ``os.fsencode`` returns a path's bytes.
        """
        columns, wanted = self.columns, part.encode()
        if columns is None or not wanted:
            return []
        text = columns.names.text.tobytes()
        places = [at + 1 for at in _found(text, SEPARATOR + wanted, most)]
        for at in _found(text, wanted, LOOKS):
            if len(places) >= most:
                break
            if not text[at - 1 : at].isalnum() and text[at - 1 : at] != SEPARATOR:
                places.append(at)
        codes = np.searchsorted(columns.names.starts, places, side="right") - 1
        first = [np.flatnonzero(columns.file_names == code)[:1] for code in dict.fromkeys(codes)]
        ids = [int(columns.file_ids[at[0]]) for at in first if len(at)]
        rows = dict(
            library.rows(
                "SELECT id, path FROM files WHERE id IN (SELECT value FROM json_each(?))",
                [json.dumps(ids)],
            )
        )
        return [os.fsdecode(rows[key]) for key in ids if key in rows]


def _keep(kept: OrderedDict[tuple[Filter, ...], Any], most: int) -> None:
    """Drop the oldest entries."""
    while len(kept) > most:
        with suppress(KeyError, RuntimeError):  # another thread has been faster
            kept.popitem(last=False)


def _found(text: bytes, wanted: bytes, most: int) -> Iterator[int]:
    """Yield the first places of ``wanted``."""
    at = text.find(wanted)
    while at >= 0 and most > 0:
        yield at
        most -= 1
        at = text.find(wanted, at + 1)


def _counted(codes: Codes) -> tuple[Counted, ...]:
    counts = np.bincount(codes.of[codes.of != ABSENT], minlength=len(codes.values))
    named = zip(codes.values, counts.tolist(), strict=True)
    found = (Counted(name, count) for name, count in named if count)
    return tuple(sorted(found, key=lambda entry: (-entry.pictures, entry.name)))


def _months(days: np.ndarray) -> frozenset[tuple[int, int]]:
    """Return the months among dates, bytes S (m,); a year alone stands for its January."""
    found = {bytes(day)[:7].decode() for day in days.astype("S7").tolist()}
    return frozenset((int(day[:4]), int(day[5:7] or 1)) for day in found if day[:4].isdigit())


def _places(library: Library) -> tuple[KnownPlace, ...]:
    """Return the places by their English names, and then those with Chinese ones by these."""
    found: dict[str, KnownPlace] = {}
    for chinese in (False, True):
        for place in known_places(library, chinese=chinese)[:PLACES]:
            found.setdefault(place.value, place)
    return tuple(found.values())


def _folders(
    columns: Columns, roots: Sequence[bytes]
) -> tuple[tuple[Counted, ...], tuple[np.ndarray, np.ndarray]]:
    """Count the pictures below each folder from the roots on, those with the most first.

    Folders of one name, as ``in:`` compares names, are one: a query finds the pictures of all. Also
    return ``Known.belonging``.
    """
    outermost = sorted(roots, key=len)
    groups: dict[str, int] = {}
    names: list[str] = []
    inside: set[tuple[int, int]] = set()
    for number, folder in enumerate(columns.values.folders):
        root = next((root for root in outermost if _is_below(folder, root)), None)
        if root is None:
            continue
        try:
            place = folder[len(os.path.dirname(root)) :].decode().strip("/")
        except UnicodeDecodeError:
            continue  # no query in a browser can name it
        depth = root.count(b"/") - os.path.dirname(root).rstrip(b"/").count(b"/")
        parts = place.split("/")
        for length in range(max(1, depth), len(parts) + 1):
            name = "/".join(parts[:length])
            group = groups.setdefault(fold_path(name), len(groups))
            if group == len(names):
                names.append(name)
            inside.add((number, group))
    counts = images_within(columns, list(inside), len(groups))
    largest = sorted(range(len(names)), key=lambda group: (-counts[group], names[group]))
    shown = [group for group in largest[:FOLDERS] if names[group]]
    place_of = np.full(len(names), ABSENT, np.int32)
    place_of[shown] = np.arange(len(shown))
    numbers, groups_of = np.array(sorted(inside), np.int32).reshape(-1, 2).T
    places = place_of[groups_of]
    kept = places != ABSENT
    found = tuple(Counted(names[group], counts[group]) for group in shown)
    return found, (numbers[kept], places[kept])


def _is_below(folder: bytes, root: bytes) -> bool:
    return (folder + b"/").startswith(root.rstrip(b"/") + b"/")
