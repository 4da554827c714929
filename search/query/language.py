"""The query language: what is looked for, and where. Its grammar is in docs/queries.md.

``parse`` is the only reader of queries, in the terminal, the page and the API; ``str`` writes one
that reads the same.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from fovea.search.errors import FoveaError

__all__ = ["EXPECTED", "FILTERS", "SORTS", "Filter", "Query", "QueryError", "Term", "parse"]

FilterKind = Literal[
    "in", "name", "on", "after", "before", "camera", "format", "is", "size", "near"
]
Sort = Literal["score", "date", "name"]

SORTS = ("score", "date", "name")
SHAPES = ("portrait", "landscape", "square")
LIGHTEST, HEAVIEST = 0.001, 100
LARGEST_ID = 2**63 - 1
MOST = 64  # terms and filters
LONGEST = 2000  # characters of a value
FARTHEST_KM = 20_100  # half the way round the earth
UNITS = {"mp": "MP", "b": "B", "kb": "kB", "mb": "MB", "gb": "GB"}


# What can be expected at a place, by the names that others translate it by.
EXPECTED = {
    "closing_quote": "a closing quotation mark",
    "date": "a date: 2019, 2019-07 or 2019-07-01",
    "folder": "a folder",
    "image": "the number of an image",
    "kind": "one of {kinds} before a colon, or words in quotes",
    "length": "at most {most:,} characters",
    "near": "latitude,longitude,distance such as 48.2,16.4,10km",
    "no_null": "no null character",
    "no_plus": "no plus: a filter without a sign is to be met",
    "no_weight": "no weight: a filter is met or not",
    "one_sort": "one sort: at most",
    "quoted_words": "words between the quotation marks",
    "shape": "portrait, landscape or square",
    "size": "a size such as >10MP, <=2MP, >5MB or <500kB",
    "sort": "sort:score, sort:date or sort:name",
    "space": "a space after the quotation mark",
    "terms": "at most {most} terms and filters",
    "utf8": "words in UTF-8",
    "value": "a value after {key}:",
    "weight": "a weight from {least} to {most}",
    "weight_form": "a weight such as 2 or 0.5, or words in quotes",
    "weighted_words": "words after the weight",
    "whole": "whole characters",
}


class QueryError(FoveaError):
    """A query that cannot be read: where, and what was expected there, by its name in ``EXPECTED``.

    ``code`` and ``params`` say the latter to programs.
    """

    def __init__(self, text: str, position: int, name: str, **params: str | int) -> None:
        self.text, self.position = text, position
        self.expected = EXPECTED[name].format_map(params)
        self.code, self.params = f"query.{name}", params
        found = repr(text[position : position + 20]) if position < len(text) else "its end"
        place = f"the query at character {position + 1}, {found}"
        super().__init__(f"{place}: expected {self.expected}")


@dataclass(frozen=True, slots=True)
class Term:
    """Words, or the id of an image, that an answer is to be near to (or, below 0, far from)."""

    kind: Literal["text", "like"]
    value: str | int
    weight: float = 1.0  # -100 to 100, in thousandths, not 0


@dataclass(frozen=True, slots=True)
class Filter:
    """A condition that an image meets or, negated, does not; its value in the form of ``str``."""

    kind: FilterKind
    value: str
    negated: bool = False

    def __str__(self) -> str:
        return f"{'-' if self.negated else ''}{self.kind}:{_quoted_if_needed(self.value)}"


@dataclass(frozen=True, slots=True)
class Query:
    """What is looked for, where, and in which order; without ``sort``, what suits the terms."""

    terms: tuple[Term, ...] = ()
    filters: tuple[Filter, ...] = ()
    sort: Sort | None = None

    def __str__(self) -> str:
        sort = (f"sort:{self.sort}",) if self.sort else ()
        return " ".join((*_shown(self.terms), *map(str, self.filters), *sort))


def parse(text: str) -> Query:
    """Read a query. Raise ``QueryError`` where it cannot be read."""
    terms: list[Term] = []
    filters: list[Filter] = []
    sort: Sort | None = None
    words: list[_Item] = []  # plain ones, that no other term stands between
    for item in _items(text):
        if item.is_plain:
            words.append(item)
        elif item.key == "sort":
            if sort is not None:
                raise item.wrong("one_sort", at=item.position)
            sort = _sort(item)
        elif item.key in FILTERS:
            filters.append(Filter(item.key, FILTERS[item.key](item), item.sign == "-"))  # type: ignore[arg-type]
        else:
            terms += (*_plain(words), _term(item))
            words = []
        if len(terms) + bool(words) + len(filters) > MOST:
            raise QueryError(text, item.position, "terms", most=MOST)
    return Query((*terms, *_plain(words)), tuple(filters), sort)


# Items: [sign] [weight or key ":"] (word or quoted words)

PREFIX = re.compile(r"([+-]?)(?:(\.*[0-9][0-9.]*):)?(?:([A-Za-z]+):)?")
WEIGHT = re.compile(r"[0-9]+(?:\.[0-9]+)?")
WORD = re.compile(r"\S+")
QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_SURROGATE = re.compile("[\ud800-\udfff]")  # half a character, or a byte that is not UTF-8


@dataclass(frozen=True, slots=True)
class _Item:
    text: str  # the whole query
    position: int  # of the item
    sign: str
    weight: str  # "" where there is none
    key: str  # "" where there is none
    value: str
    start: int  # of the value
    quoted: bool

    @property
    def is_plain(self) -> bool:
        return not (self.sign or self.weight or self.key or self.quoted)

    def wrong(self, name: str, *, at: int | None = None, **params: str | int) -> QueryError:
        return QueryError(self.text, self.start if at is None else at, name, **params)


def _items(text: str) -> Iterator[_Item]:
    position = _skip_space(text, 0)
    while position < len(text):
        item, end = _item(text, position)
        yield item
        position = _skip_space(text, end)


def _skip_space(text: str, position: int) -> int:
    while position < len(text) and text[position].isspace():
        position += 1
    return position


def _item(text: str, position: int) -> tuple[_Item, int]:
    """Read the item that begins here; return it and where it ends."""
    whole = WORD.match(text, position)
    assert whole is not None  # no space stands here
    sign, weight, key, start = "", "", "", position
    if whole[0] not in ("+", "-"):  # alone it is a word
        prefix = PREFIX.match(text, position)
        assert prefix is not None  # all of it may be missing
        sign, weight, key, start = prefix[1], prefix[2] or "", prefix[3] or "", prefix.end()
    key = key.lower()
    if key and key not in FILTERS and key not in ("like", "sort"):
        kinds = ", ".join(f"{name}:" for name in (*FILTERS, "like", "sort"))
        raise QueryError(text, position, "kind", kinds=kinds)
    if start == whole.end():
        if key:
            raise QueryError(text, start, "value", key=key)
        raise QueryError(text, start, "weighted_words")
    value, end, quoted = _value(text, start)
    return _Item(text, position, sign, weight, key, value, start, quoted), end


def _value(text: str, start: int) -> tuple[str, int, bool]:
    """Read a word, or what stands between quotation marks: return it, its end, and which it is."""
    if text[start] != '"':
        word = WORD.match(text, start)
        assert word is not None
        return word[0], word.end(), False
    quoted = QUOTED.match(text, start)
    if quoted is None:
        raise QueryError(text, start, "closing_quote")
    end = quoted.end()
    if end < len(text) and not text[end].isspace():
        raise QueryError(text, end, "space")
    value = re.sub(r"\\(.)", r"\1", quoted[1], flags=re.DOTALL)
    if not value.strip():
        raise QueryError(text, start, "quoted_words")
    return value, end, True


# Terms


def _plain(words: list[_Item]) -> list[Term]:
    """The one term that these words are, if there are any."""
    length = -1
    for item in words:
        length += 1 + len(_words(item))
        _check_length(item, length)
    return [Term("text", " ".join(item.value for item in words))] if words else []


def _words(item: _Item) -> str:
    """Words to be embedded: white space in them counts as one space."""
    if _SURROGATE.search(item.value):
        raise item.wrong("utf8")
    words = " ".join(item.value.split())
    _check_length(item, len(words))
    return words


def _check_length(item: _Item, length: int) -> None:
    if length > LONGEST:
        raise item.wrong("length", most=LONGEST)


def _term(item: _Item) -> Term:
    weight = _weight(item)
    if item.key != "like":
        return Term("text", _words(item), weight)
    if not re.fullmatch(r"[0-9]{1,19}", item.value) or not 0 < int(item.value) <= LARGEST_ID:
        raise item.wrong("image")
    return Term("like", int(item.value), weight)


def _weight(item: _Item) -> float:
    if not item.weight:
        weight = 1.0
    elif not WEIGHT.fullmatch(item.weight):
        raise item.wrong("weight_form", at=item.position)
    else:
        weight = float(item.weight)
    if not LIGHTEST <= weight <= HEAVIEST:
        raise item.wrong("weight", at=item.position, least=str(LIGHTEST), most=HEAVIEST)
    return round(-weight if item.sign == "-" else weight, 3)


def _shown(terms: tuple[Term, ...]) -> Iterator[str]:
    """Write terms; plain words that follow plain words get a sign, or they would be one term."""
    plain = False
    for term in terms:
        sign, weight = "-" if term.weight < 0 else "", ""
        if abs(term.weight) != 1:
            weight = f"{abs(term.weight):.3f}".rstrip("0").rstrip(".") + ":"
        if term.kind == "like":
            yield f"{sign}{weight}like:{term.value}"
            plain = False
            continue
        words = str(term.value)
        bare = term.weight == 1 and all(map(_is_plain_word, words.split()))
        if bare and not plain:
            yield words
        else:
            yield f"{sign or ('' if weight else '+')}{weight}{_quoted_if_needed(words)}"
        plain = bare and not plain


def _is_plain_word(word: str) -> bool:
    if word in ("+", "-"):
        return True
    prefix = PREFIX.match(word)
    return prefix is not None and prefix.end() == 0 and word[0] != '"'


def _quoted_if_needed(value: str) -> str:
    """Write a value so that it reads as one and is taken for nothing else."""
    if WORD.fullmatch(value) and _is_plain_word(value) and value not in ("+", "-"):
        return value
    return '"' + re.sub(r'(["\\])', r"\\\1", value) + '"'


# Filters: each reader checks a value and returns it in one form


def _check(item: _Item) -> None:
    if item.weight:
        raise item.wrong("no_weight", at=item.position)
    if item.sign == "+":
        raise item.wrong("no_plus", at=item.position)
    if "\0" in item.value:
        raise item.wrong("no_null")
    _check_length(item, len(item.value))


def _check_text(item: _Item) -> None:
    """Refuse halves of characters; names may have bytes that are no characters, as ``os`` does."""
    try:
        item.value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as exc:
        raise item.wrong("whole") from exc


def _folder(item: _Item) -> str:
    _check(item)
    _check_text(item)
    value = item.value.rstrip("/") or "/"
    if not value.strip():
        raise item.wrong("folder")
    return value if value == "/" else re.sub(r"/+", "/", value)


def _name(item: _Item) -> str:
    _check(item)
    _check_text(item)
    return item.value


def _label(item: _Item) -> str:
    _check(item)
    return _words(item)


def _date(item: _Item) -> str:
    """A year, a month or a day."""
    _check(item)
    found = re.fullmatch(r"([0-9]{4})(?:-([0-9]{2})(?:-([0-9]{2}))?)?", item.value)
    if found:
        year, month, day = (int(part) if part else 1 for part in found.groups())
        if _is_date(year, month, day):
            return item.value
    raise item.wrong("date")


def _is_date(year: int, month: int, day: int) -> bool:
    from datetime import date

    try:
        date(year, month, day)
    except ValueError:
        return False
    return True


def _shape(item: _Item) -> str:
    _check(item)
    if item.value.lower() not in SHAPES:
        raise item.wrong("shape")
    return item.value.lower()


def _size(item: _Item) -> str:
    _check(item)
    found = re.fullmatch(r"(<=|>=|<|>)([0-9]{1,12}(?:\.[0-9]{1,6})?)([A-Za-z]+)", item.value)
    if not found or found[3].lower() not in UNITS:
        raise item.wrong("size")
    return f"{found[1]}{found[2]}{UNITS[found[3].lower()]}"


def _near(item: _Item) -> str:
    """Latitude, longitude and a distance."""
    _check(item)
    number = r"([+-]?[0-9]{1,3}(?:\.[0-9]{1,9})?)"
    far = r"([0-9]{1,8}(?:\.[0-9]{1,6})?)(km|m)"
    found = re.fullmatch(rf"{number},{number},{far}", item.value, re.IGNORECASE)
    if found:
        unit = found[4].lower()
        far_km = float(found[3]) / (1 if unit == "km" else 1000)
        if abs(float(found[1])) <= 90 and abs(float(found[2])) <= 180 and far_km <= FARTHEST_KM:
            return f"{found[1]},{found[2]},{found[3]}{unit}"
    raise item.wrong("near")


def _sort(item: _Item) -> Sort:
    _check(item)
    if item.sign or item.value.lower() not in SORTS:
        raise item.wrong("sort", at=item.position)
    return item.value.lower()  # type: ignore[return-value]


FILTERS: dict[str, Callable[[_Item], str]] = {
    "in": _folder,
    "name": _name,
    "on": _date,
    "after": _date,
    "before": _date,
    "camera": _label,
    "format": _label,
    "is": _shape,
    "size": _size,
    "near": _near,
}
