"""Suggestions for what is being typed, from what the library knows.

Each says what the query would be afterwards; that query is one that ``parse`` reads, and finds the
number of pictures that is shown beside the suggestion.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from itertools import islice
from typing import Literal, get_args

from fovea.search.analyses.texts import texts_begun
from fovea.search.clip.formats import format_named
from fovea.search.errors import QueryError
from fovea.search.library.facts.folded import fold, words
from fovea.search.library.facts.tags import tag_words
from fovea.search.library.library import Library
from fovea.search.query.filename_search import UNSPACED
from fovea.search.query.filters import FILTERS, Filter
from fovea.search.query.language import SORTS, Query, parse

from .caret import Typed, typed_at
from .dates_in_words import Calendar, filters_of, is_date, spans, written
from .known import Devices, Known
from .matched import matched

__all__ = ["KINDS", "LONGEST", "MOST", "Suggestion", "suggest"]

Kind = Literal[
    "date", "folder", "place", "tag", "camera", "lens", "is", "format", "search", "name", "text",
    "size", "sort", "filter",
]  # fmt: skip

KINDS: tuple[Kind, ...] = get_args(Kind)
MOST = 6
LONGEST = 2000  # characters of a query
NAMES = 3  # of single files
TEXTS = 3  # of texts in pictures
UNTYPED = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")  # in no search box
TRIES = 12  # of one kind that are counted, until as many as are wanted have pictures
ALL_TRIES = 36
SHORTEST = 2  # characters of a word that may be the beginning of a name
SHORTEST_NAME = 3  # of a file's, or of a text in a picture
DATES = ("on", "after", "before")
LENGTHS = ("10s", "30s", "1m", "5m", "30m", "1h")
SIZES = (">10MP", ">20MP", "<2MP", ">5MB", ">20MB", "<500kB")
# What people write for the values of ``is:``.
SHAPES = {
    "favourite": ("favourites", "favorites", "starred", "收藏"),
    "hidden": ("隐藏", "已隐藏"),
    "landscape": ("横向", "横图"),
    "portrait": ("纵向", "竖向", "竖图"),
    "square": ("方形", "正方形"),
    "damaged": ("损坏", "已损坏"),
    "video": ("videos", "movies", "clips", "films", "视频", "影片"),
}


@dataclass(frozen=True, slots=True)
class Suggestion:
    """One suggestion. The query afterwards is ``words`` and, after a space, ``filter``."""

    kind: Kind
    label: str  # what it is called
    detail: str  # more about it; "" where there is nothing to say
    count: int | None  # pictures that the query finds; None for names of filters, orders, searches
    words: str  # what the search box has afterwards, beside ``filter``
    filter: str  # "" for a saved search, which replaces the query, and for a filter's name
    matched: tuple[tuple[int, int], ...] = ()  # parts of ``label`` that were typed: start, end


@dataclass(frozen=True, slots=True)
class _Draft:
    kind: Kind
    label: str
    filters: tuple[Filter, ...] = ()
    detail: str = ""
    text: str | None = None  # the filter, where it is none of ``FILTERS``
    query: str | None = None  # the whole query afterwards
    tokens: tuple[str, ...] = ()
    place: int | None = None  # of a folder, in ``known.folders``


def suggest(
    library: Library,
    known: Known,
    text: str,
    at: int | None = None,
    *,
    beside: str = "",
    today: date | None = None,
    most: int = MOST,
) -> list[Suggestion]:
    """Return at most ``most`` suggestions for a query with the caret after ``at`` characters.

    ``at`` is the end by default, and ``today`` the day in local time. ``beside`` is a further part
    of the query, which stays; its filters count. What would find nothing is left out. Empty where
    the rest of the query cannot be read. Raise ``ValueError`` for a negative ``at``.
    """
    if at is not None and at < 0:
        raise ValueError(f"at is {at}; it cannot be negative")
    at = len(text) if at is None else min(at, len(text))
    if len(text) > LONGEST:
        return []
    calendar = Calendar(today or date.today(), known.months, known.is_south)
    if not text.strip():
        drafts: Iterable[_Draft] = (
            _Draft("search", s.name, detail=s.query, query=s.query) for s in known.searches
        )
        nothing = Typed("", "", "", "", True)
        return [_made(draft, nothing, None) for draft in islice(drafts, most)]
    maker = _Maker(library, known, calendar, beside, most)
    for typed in typed_at(text, at):
        maker.add(typed)
    return maker.picked()


class _Maker:
    """Collects suggestions of each kind; of a kind, those for the most words win."""

    def __init__(
        self, library: Library, known: Known, calendar: Calendar, beside: str, most: int
    ) -> None:
        self._library, self._known, self._calendar = library, known, calendar
        self._beside = beside
        self._most, self._tries = most, ALL_TRIES
        self._found: dict[Kind, list[Suggestion]] = {}
        self._settled: set[Kind] = set()  # of which fewer words would say something else

    def add(self, typed: Typed) -> None:
        try:
            rest = _parsed(f"{typed.rest} {self._beside}".strip())
        except QueryError:
            return
        if typed.sign == "+":
            return
        made: dict[Kind, Iterator[_Draft]] = (
            {_kind_of(typed.key): _values(self._known, self._calendar, typed, self._library)}
            if typed.key
            else _meanings(self._known, self._calendar, typed, self._library)
        )
        for kind, drafts in made.items():
            if not self._found.get(kind) and kind not in self._settled:
                self._found[kind] = list(self._counted(drafts, typed, rest))
        if not typed.key and is_date(typed.value, self._calendar):
            self._settled |= {"date", "filter"}  # of "last summer", "last" is no word to search for

    def _counted(self, drafts: Iterator[_Draft], typed: Typed, rest: Query) -> Iterator[Suggestion]:
        """Yield those that have pictures and can be written as a query."""
        left = self._most
        for draft in islice(self._likely(drafts, rest), TRIES):
            if left == 0 or self._tries == 0:
                return
            count = None
            if draft.filters:
                self._tries -= 1
                count = self._known.count(self._library, (*rest.filters, *draft.filters))
                if not count:
                    continue
            made = _made(draft, typed, count)
            beside = "" if draft.kind == "search" else self._beside  # which that replaces, too
            if draft.kind == "filter" or _is_query(f"{made.words} {beside} {made.filter}"):
                left -= 1
                yield made

    def _likely(self, drafts: Iterator[_Draft], rest: Query) -> Iterator[_Draft]:
        """Leave out folders without any picture that the rest of the query finds."""
        for draft in drafts:
            if draft.place is None or not rest.filters:
                yield draft
            elif self._known.folders_having(self._library, rest.filters)[draft.place]:
                yield draft

    def picked(self) -> list[Suggestion]:
        """Return the first of each kind, then the second ones, and so on; kinds stay together."""
        queues = {kind: list(found) for kind, found in self._found.items() if found}
        counts = dict.fromkeys(queues, 0)
        left = self._most
        while left and any(counts[kind] < len(found) for kind, found in queues.items()):
            for kind in KINDS:
                if left and kind in queues and counts[kind] < len(queues[kind]):
                    counts[kind] += 1
                    left -= 1
        return [made for kind in KINDS if kind in queues for made in queues[kind][: counts[kind]]]


_parsed = lru_cache(maxsize=64)(parse)  # the rest of a query stays the same while a word is typed


def _is_query(text: str) -> bool:
    if len(text) > LONGEST or UNTYPED.search(text):
        return False
    try:
        parse(text)
    except QueryError:
        return False
    return True


def _made(draft: _Draft, typed: Typed, count: int | None) -> Suggestion:
    text = draft.text
    if text is None:
        text = str(Query(filters=draft.filters))
    rest = typed.rest if draft.query is None else draft.query
    if draft.kind == "filter":  # unfinished: its value is typed next, at the end
        rest, text = f"{typed.rest} {text}".strip(), ""
    marks = matched(draft.label, draft.tokens)
    return Suggestion(draft.kind, draft.label, draft.detail, count, rest, text, marks)


def _kind_of(key: str) -> Kind:
    kinds: dict[str, Kind] = {"in": "folder", "on": "date", "after": "date", "before": "date"}
    kinds["longer"] = "size"
    own: dict[str, Kind] = {kind: kind for kind in KINDS}
    return kinds.get(key) or own.get(key, "filter")


# Plain words


def _meanings(
    known: Known, calendar: Calendar, typed: Typed, library: Library
) -> dict[Kind, Iterator[_Draft]]:
    """Return what plain words may mean, by kind."""
    is_one = " " not in typed.value
    is_long = any(len(token) >= SHORTEST or not token.isascii() for token in words(typed.value))
    negated = typed.sign == "-"
    found: dict[Kind, Iterator[_Draft]] = {"date": _dates(calendar, typed.value, "on", negated)}
    if is_long:
        found["folder"] = _folders(known, typed.value, negated)
        found["place"] = _places(known, typed.value, negated)
        found["tag"] = _tags(library, typed.value, negated)
        found["camera"] = _devices("camera", known.cameras, typed.value, negated)
        found["lens"] = _devices("lens", known.lenses, typed.value, negated)
    if is_one:
        found["is"] = _shapes(typed.value, negated)
        found["filter"] = _keys(typed)
    if is_one and is_long:
        found["format"] = _formats(known, typed.value, negated)
    if not typed.rest and is_long and not negated:
        found["search"] = _searches(known, typed.value)
    if len(typed.value) >= SHORTEST_NAME or not typed.value.isascii():
        found["name"] = _names(known, library, typed.value, negated)
        found["text"] = _texts(library, typed.value, negated)
    return found


def _dates(calendar: Calendar, phrase: str, key: str, negated: bool) -> Iterator[_Draft]:
    tokens = tuple(words(phrase))
    for span in spans(phrase, calendar):
        if filters := filters_of(span, key, negated):
            yield _Draft("date", span.label, filters, written(span), tokens=tokens)


def _folders(known: Known, text: str, negated: bool) -> Iterator[_Draft]:
    """Folders whose own name has a word that was typed, and whose path has all of them."""
    tokens = words(text)
    places: Iterable[int] = range(len(known.folders))
    if tokens:
        own = {place for token in tokens for place in known.folder_names.find([token]).tolist()}
        places = (place for place in known.folder_paths.find(tokens).tolist() if place in own)
    for place in places:
        name = known.folders[place].name
        yield _Draft(
            "folder",
            name,
            (Filter("in", name, negated),),
            tokens=tuple(tokens),
            place=None if negated else place,
        )


def _places(known: Known, text: str, negated: bool) -> Iterator[_Draft]:
    """Towns, regions and countries whose own name has a word that was typed."""
    tokens = words(text)
    if tokens:
        own = {place for token in tokens for place in known.place_names.find([token]).tolist()}
        numbers = [at for at in known.place_labels.find(tokens).tolist() if at in own]
    else:
        numbers = [at for at, one in enumerate(known.places) if not UNSPACED.search(one.name)]
    for at in numbers:
        place = known.places[at]
        value = Filter("place", place.value, negated)
        yield _Draft("place", place.label, (value,), tokens=tuple(tokens))


def _devices(
    kind: Literal["camera", "lens"], devices: Devices, text: str, negated: bool
) -> Iterator[_Draft]:
    tokens = words(text)
    for name in devices.having(tokens):
        value = FILTERS[kind].read(name)
        if value:
            yield _Draft(kind, name, (Filter(kind, value, negated),), tokens=tuple(tokens))


def _formats(known: Known, text: str, negated: bool) -> Iterator[_Draft]:
    begun = fold(text).removeprefix(".")
    for format_name, _ in known.formats:
        entry = format_named(format_name)
        if entry and any(
            name.startswith(begun) for name in (fold(entry.name), *entry.extensions.split())
        ):
            value = Filter("format", entry.name.lower(), negated)
            yield _Draft("format", entry.name, (value,), tokens=(begun,))


def _shapes(text: str, negated: bool, shortest: int = SHORTEST_NAME) -> Iterator[_Draft]:
    begun = fold(text)
    if len(begun) < shortest and begun.isascii():
        return
    for value, also in SHAPES.items():
        if any(fold(name).startswith(begun) for name in (value, *also)):
            yield _Draft("is", f"is:{value}", (Filter("is", value, negated),), tokens=(begun,))


def _searches(known: Known, text: str) -> Iterator[_Draft]:
    tokens = words(text)
    for place in known.search_names.find(tokens).tolist():
        search = known.searches[place]
        yield _Draft(
            "search",
            search.name,
            detail=search.query,
            query=search.query,
            text="",
            tokens=tuple(tokens),
        )


def _names(known: Known, library: Library, text: str, negated: bool) -> Iterator[_Draft]:
    """All files whose names begin so, where that is several, then single ones."""
    begun = fold(text)
    paths = known.files_named(library, begun, NAMES)
    names = list(dict.fromkeys(os.path.basename(path) for path in paths))
    folders = {os.path.basename(path): _folder_of(path) for path in reversed(paths)}
    starting = [name for name in names if fold(name).startswith(begun)]
    if len(starting) > 1 and not set("*?") & set(begun):
        yield _Draft("name", f"{text}*", (Filter("name", f"{text}*", negated),), tokens=(begun,))
    for name in names:
        filters = (Filter("name", name, negated),)
        yield _Draft("name", name, filters, folders[name], tokens=(begun,))


def _texts(library: Library, text: str, negated: bool) -> Iterator[_Draft]:
    """Words that pictures show, of which the last may be unfinished."""
    for begun in texts_begun(library, text, TEXTS):
        yield _Draft("text", begun, (Filter("text", begun, negated),), tokens=tuple(words(text)))


def _folder_of(path: str) -> str:
    return os.path.basename(os.path.dirname(path))


def _keys(typed: Typed) -> Iterator[_Draft]:
    """Names of filters, also by the words that people take for them."""
    begun = typed.value.lower()
    if not begun.isascii() or not begun.isalpha():
        return
    if len(begun) < SHORTEST or (len(begun) == SHORTEST and not typed.is_alone):
        return  # "dog on": a word of the sentence
    for key in (*FILTERS, "sort"):
        also = FILTERS[key].also if key in FILTERS else ("order",)
        if key.startswith(begun) or (
            len(begun) >= SHORTEST_NAME and any(name.startswith(begun) for name in also)
        ):
            help = FILTERS[key].help if key in FILTERS else "the order of the pictures"
            help = help.replace("`", "")  # of the documentation's markup
            yield _Draft(
                "filter", f"{key}:", detail=help, text=f"{typed.sign}{key}:", tokens=(begun,)
            )


# Values of a filter


def _values(known: Known, calendar: Calendar, typed: Typed, library: Library) -> Iterator[_Draft]:
    """Return what may follow the colon."""
    key, value, negated = typed.key, typed.value, typed.sign == "-"
    makers: dict[str, Callable[[], Iterator[_Draft]]] = {
        "in": lambda: _folders(known, value, negated),
        "place": lambda: _places(known, value, negated),
        "camera": lambda: _devices("camera", known.cameras, value, negated),
        "lens": lambda: _devices("lens", known.lenses, value, negated),
        "format": lambda: _formats(known, value, negated),
        "is": lambda: _shapes(value, negated, 0),
        "size": lambda: _sizes(value, negated),
        "longer": lambda: _lengths(value, negated),
        "sort": lambda: _sorts(value, negated),
        "tag": lambda: _tags(library, value, negated),
        "name": lambda: _names(known, library, value, negated) if value else iter(()),
        "text": lambda: _texts(library, value, negated),
    }
    if key in DATES:
        return _dates_after(calendar, key, value, negated)
    return makers[key]() if key in makers else iter(())


def _dates_after(calendar: Calendar, key: str, value: str, negated: bool) -> Iterator[_Draft]:
    """Years, months of a year, or dates in words."""
    tokens = tuple(words(value))
    year, _, month = value.partition("-")
    if not value:
        for known_year in calendar.years:
            filters = (Filter(key, str(known_year), negated),)
            yield _Draft("date", str(known_year), filters, str(known_year))
    elif "-" in value and year.isdigit():
        begun = f"{year}-{month}"
        for number, of_year in sorted(calendar.months, reverse=True):
            written_month = f"{number:04}-{of_year:02}"
            if written_month.startswith(begun) and len(begun) <= len(written_month):
                filters = (Filter(key, written_month, negated),)
                yield _Draft("date", written_month, filters, tokens=tokens)
        yield from _dates(calendar, value, key, negated)
    else:
        yield from _dates(calendar, value, key, negated)


def _sizes(value: str, negated: bool) -> Iterator[_Draft]:
    for size in SIZES:
        if size.lower().startswith(value.lower()):
            yield _Draft("size", f"size:{size}", (Filter("size", size, negated),))


def _tags(library: Library, value: str, negated: bool) -> Iterator[_Draft]:
    """Tags of which a word begins so."""
    begun = tag_words(value)
    rows = library.rows(
        "SELECT name FROM tags WHERE instr(' ' || folded, ?) > 0 OR (? AND instr(folded, ?) > 0) "
        "ORDER BY instr(folded, ?), folded",
        [f" {begun}" if begun else "", bool(UNSPACED.search(begun)), begun, begun],
    )
    for (name,) in rows:
        yield _Draft("tag", name, (Filter("tag", name, negated),), tokens=(begun,))


def _lengths(value: str, negated: bool) -> Iterator[_Draft]:
    for length in LENGTHS:
        if length.startswith(value.lower()):
            yield _Draft("size", f"longer:{length}", (Filter("longer", length, negated),))


def _sorts(value: str, negated: bool) -> Iterator[_Draft]:
    for sort in SORTS:
        if sort.startswith(value.lower()) and not negated:
            yield _Draft("sort", f"sort:{sort}", text=f"sort:{sort}", tokens=(value.lower(),))
