"""The query language: terms to rank by, filters to select by. Its grammar is in docs/queries.md.

``parse`` is the only reader of queries, in the terminal, the page and the API; ``str`` writes one
that reads the same.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher, get_close_matches
from typing import Any, Literal

from fovea.search.errors import QueryError
from fovea.search.library.facts.moments import clock, read_time

from .filters import FILTERS, Filter

__all__ = ["PROBLEMS", "SORTS", "Filter", "Query", "Term", "parse"]

Sort = Literal["score", "date", "name"]

SORTS = ("score", "date", "name")
LIGHTEST, HEAVIEST = 0.001, 100
LARGEST_ID = 2**63 - 1
MOST = 64  # terms and filters
LONGEST = 2000  # characters of a value
SIMILAR = 0.6  # difflib's ratio, from which a key is worth suggesting
FIRST_LETTER = 0.25  # more, where the first letter is right: it seldom is mistyped

_NO_FILTER = "there is no filter '{key}:'."
_FILTERS = 'Filters: {filters}. Words with a colon go in quotation marks: "{key}:…"'

# What can be wrong with a query and how to put it right; translations use the same names.
PROBLEMS = {
    "closing_quote": "the quotation mark {found} is never closed; add another one at the end",
    "date": "{found} is not a date; write 2019, 2019-07 or 2019-07-01",
    "folder": "{found} does not name a folder; write it as in {examples}",
    "format": "{found} is not a format; write the name of one, {values}, or a file extension",
    "format_near": "{found} is not a format. Did you mean {near}? Formats: {values}; "
    "their file extensions will do, too",
    "image": "{found} is not the number of a picture; write one such as like:12",
    "kind": f"{_NO_FILTER} {_FILTERS}",
    "kind_near": f"{_NO_FILTER} Did you mean '{{near}}:'? {_FILTERS}",
    "length": "this is too long; use at most {most:,} characters",
    "moment": "{found} does not name a moment of a video; write it as in like:12@1:23",
    "near": "{found} is not a place and distance; write latitude,longitude,distance such as "
    "48.2,16.4,10km",
    "no_null": "the value contains a null character; remove it",
    "no_plus": "{key}: takes no plus sign; remove it",
    "no_weight": "{key}: takes no weight; remove it",
    "one_sort": "sort: appears twice; remove one",
    "place": "{found} does not name a place; write it as in {examples}",
    "quoted_words": "the quotation marks are empty; write words between them, or remove them",
    "shape": "{found} does not fit is:; write portrait, landscape, square, damaged, video, "
    "favourite or hidden",
    "seconds": "{found} is not a length of time; write one such as 90s, 1m30s or 2h",
    "size": "{found} is not a size; write one such as >10MP, <=2MP, >5MB or <500kB",
    "sort": "{found} is not an order; write sort:score, sort:date or sort:name",
    "space": "a space is missing after the closing quotation mark; add one",
    "text": "{found} has no word to look for in pictures; write it as in {examples}",
    "terms": "the query is too long; use at most {most} terms and filters",
    "utf8": "{found} contains bytes that are not UTF-8; type it again",
    "value": "{key}: has no value; write one right after the colon",
    "value_form": "{found} does not fit {key}:; write it as in {examples}",
    "weight": "the weight {found} is out of range; use one from {least} to {most}",
    "weight_form": "{found} is not a weight; write one such as 2: or 0.5:, or put words with a "
    "colon in quotation marks",
    "weighted_words": "the weight {found} has no words; write them right after the colon",
    "whole": "{found} contains half a character; type it again",
}


@dataclass(frozen=True, slots=True)
class Term:
    """Words, or the id of an image, that hits should be near (or, with a negative weight, far)."""

    kind: Literal["text", "like"]
    value: str | int
    weight: float = 1.0  # -100 to 100, in thousandths, not 0
    at: int | None = None  # milliseconds, of a moment of a video


@dataclass(frozen=True, slots=True)
class Query:
    """Terms, filters and an order; without ``sort``, whatever order suits the terms."""

    terms: tuple[Term, ...] = ()
    filters: tuple[Filter, ...] = ()
    sort: Sort | None = None

    def __str__(self) -> str:
        filters = (
            f"{'-' if entry.negated else ''}{entry.kind}:{_quoted_if_needed(entry.value)}"
            for entry in self.filters
        )
        sort = (f"sort:{self.sort}",) if self.sort else ()
        return " ".join((*_written(self.terms), *filters, *sort))


def parse(text: str) -> Query:
    """Read a query. Raise ``QueryError`` where it cannot be read."""
    terms: list[Term] = []
    filters: list[Filter] = []
    sort: Sort | None = None
    words: list[_Item] = []  # plain ones, with no other term between them
    for item in _items(text):
        if item.is_plain:
            words.append(item)
        elif item.key == "sort":
            if sort is not None:
                raise item.wrong("one_sort", at=item.position)
            sort = _sort(item)
        elif item.key in FILTERS:
            filters.append(_filter(item))
        else:
            terms += (*_plain(words), _term(item))
            words = []
        if len(terms) + bool(words) + len(filters) > MOST:
            raise _error(item.position, "terms", most=MOST)
    return Query((*terms, *_plain(words)), tuple(filters), sort)


def _error(position: int, name: str, **params: str | int) -> QueryError:
    said = PROBLEMS[name].format_map(params)
    message = f"{said} (character {position + 1} of the query)"
    return QueryError(message, f"query.{name}", position=position, expected=said, **params)


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
        if self.key:
            params["key"] = self.key
        return _error(self.start if at is None else at, name, **params)


def _items(text: str) -> Iterator[_Item]:
    position = _skip_space(text, 0)
    while position < len(text):
        item, end = _item(text, position)
        yield item
        position = _skip_space(text, end)


def _short(found: str) -> str:
    """The beginning of what was found, in quotation marks and printable."""
    return repr(found if len(found) <= 20 else f"{found[:19]}…")


def _skip_space(text: str, position: int) -> int:
    while position < len(text) and text[position].isspace():
        position += 1
    return position


def _item(text: str, position: int) -> tuple[_Item, int]:
    """Read the item that begins here; return it and where it ends."""
    whole = WORD.match(text, position)
    assert whole is not None  # the caller has skipped white space
    sign, weight, key, start = "", "", "", position
    if whole[0] not in ("+", "-"):  # alone it is a word
        prefix = PREFIX.match(text, position)
        assert prefix is not None  # each of its parts is optional
        sign, weight, key, start = prefix[1], prefix[2] or "", prefix[3] or "", prefix.end()
    key = key.lower()
    if key and key not in FILTERS and key not in ("like", "sort"):
        raise _unknown(position, key)
    if start == whole.end():
        if key:
            raise _error(start, "value", key=key)
        raise _error(start, "weighted_words", found=_short(weight))
    value, end, quoted = _value(text, start)
    return _Item(text, position, sign, weight, key, value, start, quoted), end


def _unknown(position: int, key: str) -> QueryError:
    """Name the filters there are, and the one that was probably meant."""

    def likeness(known: str) -> float:
        also = FILTERS[known].also if known in FILTERS else ()
        bonus = FIRST_LETTER if known[0] == key[0] else 0.0
        return 2.0 if key in also else SequenceMatcher(None, known, key).ratio() + bonus

    keys = (*FILTERS, "like", "sort")
    params = {"key": key if len(key) <= 20 else f"{key[:19]}…", "filters": ", ".join(keys)}
    near = max(keys, key=likeness)
    if likeness(near) < SIMILAR:
        return _error(position, "kind", **params)
    return _error(position, "kind_near", near=near, **params)


def _value(text: str, start: int) -> tuple[str, int, bool]:
    """Read a word or quoted words; return them, their end, and whether they are quoted."""
    if text[start] != '"':
        word = WORD.match(text, start)
        assert word is not None
        return word[0], word.end(), False
    quoted = QUOTED.match(text, start)
    if quoted is None:
        raise _error(start, "closing_quote", found=_short(text[start:]))
    end = quoted.end()
    if end < len(text) and not text[end].isspace():
        raise _error(end, "space")
    value = re.sub(r"\\(.)", r"\1", quoted[1], flags=re.DOTALL)
    if not value.strip():
        raise _error(start, "quoted_words")
    return value, end, True


# Terms


def _plain(words: list[_Item]) -> list[Term]:
    """Join plain words to one term; none without words."""
    length = -1
    for item in words:
        length += 1 + len(_words(item))
        _check_length(item, length)
    return [Term("text", " ".join(item.value for item in words))] if words else []


def _words(item: _Item) -> str:
    """Read words to embed; white space in them counts as one space."""
    if _SURROGATE.search(item.value):
        raise item.wrong("utf8", found=_short(item.value))
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
    number, has_time, moment = item.value.partition("@")
    if not re.fullmatch(r"[0-9]{1,19}", number) or not 0 < int(number) <= LARGEST_ID:
        raise item.wrong("image", found=_short(item.value))
    at = read_time(moment) if has_time else None
    if has_time and at is None:
        raise item.wrong("moment", found=_short(item.value))
    return Term("like", int(number), weight, at)


def _weight(item: _Item) -> float:
    if not item.weight:
        weight = 1.0
    elif not WEIGHT.fullmatch(item.weight):
        raise item.wrong("weight_form", at=item.position, found=_short(item.weight))
    else:
        weight = float(item.weight)
    if not LIGHTEST <= weight <= HEAVIEST:
        found, least = _short(item.weight), str(LIGHTEST)
        raise item.wrong("weight", at=item.position, found=found, least=least, most=HEAVIEST)
    return round(-weight if item.sign == "-" else weight, 3)


def _written(terms: tuple[Term, ...]) -> Iterator[str]:
    """Write terms; plain words after plain words get a sign, or they would read as one term."""
    plain = False
    for term in terms:
        sign, weight = "-" if term.weight < 0 else "", ""
        if abs(term.weight) != 1:
            weight = f"{abs(term.weight):.3f}".rstrip("0").rstrip(".") + ":"
        if term.kind == "like":
            at = "" if term.at is None else f"@{clock(term.at, exact=True)}"
            yield f"{sign}{weight}like:{term.value}{at}"
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
    """Write a value so that it reads as one value and as nothing else."""
    if WORD.fullmatch(value) and _is_plain_word(value) and value not in ("+", "-"):
        return value
    return '"' + re.sub(r'(["\\])', r"\\\1", value) + '"'


# Filters and the order


def _filter(item: _Item) -> Filter:
    _check(item)
    kind = FILTERS[item.key]
    value = kind.read(item.value)
    if value is None:
        params: dict[str, Any] = {"examples": ", ".join(kind.examples), "found": _short(item.value)}
        if kind.values is None:
            raise item.wrong(kind.problem, **params)
        known = kind.values()
        params["values"] = ", ".join(dict.fromkeys(known.values()))
        near = get_close_matches(item.value.lower().removeprefix("."), known, 1, SIMILAR)
        if not near:
            raise item.wrong(kind.problem, **params)
        raise item.wrong(f"{kind.problem}_near", near=near[0], **params)
    return Filter(item.key, value, item.sign == "-")


def _check(item: _Item) -> None:
    """Refuse what no filter takes; names may have bytes that are not characters, as in ``os``."""
    if item.weight:
        raise item.wrong("no_weight", at=item.position)
    if item.sign == "+":
        raise item.wrong("no_plus", at=item.position)
    if "\0" in item.value:
        raise item.wrong("no_null")
    _check_length(item, len(item.value))
    try:
        item.value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as exc:
        raise item.wrong("whole", found=_short(item.value)) from exc


def _sort(item: _Item) -> Sort:
    _check(item)
    if item.sign or item.value.lower() not in SORTS:
        raise item.wrong("sort", at=item.position, found=_short(item.text[item.position :]))
    return item.value.lower()  # type: ignore[return-value]
