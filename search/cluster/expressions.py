"""Filters as Milvus's expressions, made of field names and numbers alone.

Milvus cannot say everything that a filter says: of a picture with several files it does not know
which of them has a name and lies in a folder, and a part of a name longer than three characters is
only known by its parts. So each filter has two expressions: what surely meets it, and what may.
Where these differ for some pictures, SQLite decides, on rows that are fetched (``source.py``).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from fovea.search.errors import Unanswerable
from fovea.search.library.facts.earth import EARTH_KM
from fovea.search.library.facts.moments import read_time
from fovea.search.library.facts.places import place_words
from fovea.search.library.marks import TABLES
from fovea.search.query.columns import Codes, Values
from fovea.search.query.filters import (
    BYTES,
    DAMAGED,
    FILTERS,
    SIZE,
    VIDEO,
    Filter,
    split_places,
)

from .entity import CODED, NONE, SHAPES, moment
from .tokens import parts_of_folder, parts_of_name, token

__all__ = [
    "EVERYTHING",
    "NOTHING",
    "Known",
    "Meets",
    "all_of",
    "among",
    "both",
    "either",
    "meeting",
    "without",
]

EVERYTHING, NOTHING = "number >= 0", "number < 0"
DATES = ("on", "after", "before")
UNKNOWN = "a library on Milvus cannot answer {kind}: yet; leave it out (docs/scale.md)"
MOST_MARKED = 10_000


@dataclass(frozen=True, slots=True)
class Meets:
    """What surely meets a condition, and what may: the former is part of the latter."""

    surely: str
    maybe: str

    @classmethod
    def exactly(cls, expression: str) -> "Meets":
        """Say that an expression is just the condition."""
        return cls(expression, expression)

    @property
    def is_exact(self) -> bool:
        """Whether nothing is in doubt."""
        return self.surely == self.maybe

    def __invert__(self) -> "Meets":
        return Meets(_not(self.maybe), _not(self.surely))

    def __and__(self, other: "Meets") -> "Meets":
        return Meets(_and(self.surely, other.surely), _and(self.maybe, other.maybe))


@dataclass(frozen=True, slots=True)
class Known:
    """What expressions need to know of a library besides its entities."""

    values: dict[str, tuple[str, ...]]  # all cameras, lenses and formats that there are
    marked: Callable[[str], Sequence[bytes]]  # the contents with a mark


def meeting(filters: Sequence[Filter], known: Known) -> Meets:
    """Return what meets all filters, hidden or not. Raise ``Unanswerable`` for an unknown kind."""
    for entry in filters:
        if entry.kind not in FILTERS or (entry.kind not in _KINDS and not _of_files(entry)):
            raise Unanswerable(
                UNKNOWN.format(kind=entry.kind), "query.not_on_milvus", kind=f"{entry.kind}:"
            )
    chosen = [entry for entry in filters if _of_files(entry) and not entry.negated]
    found = Meets.exactly(EVERYTHING)
    if chosen:
        found = _with_file(chosen)
    for entry in filters:
        if entry in chosen:
            continue
        one = _with_file([entry]) if _of_files(entry) else _KINDS[entry.kind](entry, known)
        if chosen and entry.kind in DATES:  # the date is that of the files that are chosen
            sure = "(is_plain == true or is_exact == true)"
            one = Meets(_and(one.surely, sure), _or(one.maybe, _not(sure)))
            inverse = Meets(_and(_not(one.maybe), sure), _or(_not(one.surely), _not(sure)))
            found = found & (inverse if entry.negated else one)
            continue
        found = found & (~one if entry.negated else one)
    return found


def _of_files(entry: Filter) -> bool:
    return entry.kind in _FILES


def _with_file(chosen: Sequence[Filter]) -> Meets:
    """What has one file that meets all of these conditions."""
    parts = [_FILES[entry.kind](entry.value) for entry in chosen]
    wanted = sorted({number for numbers, _ in parts for number in numbers})
    is_sure = all(sure for _, sure in parts)
    if not wanted:
        return Meets(EVERYTHING if is_sure else NOTHING, EVERYTHING)
    has = f"array_contains_all(tokens, {wanted})"
    maybe = _or(has, "is_cut == true")
    if not is_sure:
        return Meets(NOTHING, maybe)
    is_one = len(chosen) == 1 and len(wanted) == 1
    return Meets(has if is_one else _and(has, "is_plain == true"), maybe)


_FILES: dict[str, Callable[[str], tuple[list[int], bool]]] = {
    "in": parts_of_folder,
    "name": parts_of_name,
}


# Images


def _day(entry: Filter, known: Known) -> Meets:
    """Dates are as long as they are sure, and a shorter one is the beginning of others."""
    first = moment(entry.value)
    after = first + 10 * 10 ** (14 - len(entry.value.replace("-", "")))
    if entry.kind == "on":
        return Meets.exactly(f"(moment >= {first} and moment < {after})")
    if entry.kind == "after":
        return Meets.exactly(f"moment >= {after}")
    vague = [moment(entry.value[:length]) for length in (4, 7) if length < len(entry.value)]
    earlier = f"moment > {NONE} and moment < {first}"
    return Meets.exactly(f"({earlier} and moment not in {vague})" if vague else f"({earlier})")


def _coded(entry: Filter, known: Known) -> Meets:
    """Try the filter's own condition on each value that there is."""
    names = known.values[entry.kind]
    codes = {
        kind: Codes(np.empty(0, np.int32), names if kind == entry.kind else ()) for kind in CODED
    }
    condition, values = FILTERS[entry.kind].condition(entry.value)
    met = Values.of((), **codes).meeting(entry.kind, condition, values)
    tokens = [token(entry.kind, name) for name, meets in zip(names, met, strict=True) if meets]
    return Meets.exactly(f"{entry.kind} in {tokens}" if tokens else NOTHING)


def _is(entry: Filter, known: Known) -> Meets:
    if entry.value in TABLES:
        marked = known.marked(entry.value)
        if len(marked) > MOST_MARKED:
            message = (
                f"is:{entry.value} is on more than {MOST_MARKED:,} pictures, too many for a "
                "library on Milvus; leave it out"
            )
            raise Unanswerable(message, "query.not_on_milvus", kind=f"is:{entry.value}")
        return Meets.exactly(among(marked))
    if entry.value == DAMAGED:
        return Meets.exactly("is_damaged == true")
    if entry.value == VIDEO:
        return Meets.exactly(f"duration > {NONE}")
    return Meets.exactly(f"shape == {SHAPES[entry.value]}")


def among(hashes: Sequence[bytes]) -> str:
    """Return the expression for pictures with these contents."""
    if not hashes:
        return NOTHING
    return f"hash in [{', '.join(chr(34) + digest.hex() + chr(34) for digest in hashes)}]"


def _size(entry: Filter, known: Known) -> Meets:
    found = SIZE.fullmatch(entry.value)
    assert found is not None  # the filter's ``read`` has checked it
    sign, number, unit = found.groups()
    field = "pixels" if unit == "MP" else "bytes"
    wanted = float(number) * (1e6 if unit == "MP" else BYTES[unit])
    whole = int(wanted)
    if whole != wanted:  # of whole numbers, all below it are at most ``whole``
        sign = {"<": "<=", "<=": "<=", ">": ">", ">=": ">"}[sign]
    bound = min(whole, 2**62)
    return Meets.exactly(f"({field} {sign} {bound} and {field} > {NONE})")


def _near(entry: Filter, known: Known) -> Meets:
    """A circle lies within its band of latitudes and, away from the poles, of longitudes."""
    _, (low, high, latitude, longitude, km) = FILTERS["near"].condition(entry.value)
    band = f"latitude >= {low:.9f} and latitude <= {high:.9f}"
    if low > -90 and high < 90:
        reach = np.degrees(
            np.arcsin(min(1.0, np.sin(km / EARTH_KM) / np.cos(np.radians(latitude))))
        )
        reach = float(reach) + 1e-6
        if km < EARTH_KM * np.pi / 2 and reach < 90:
            sides = [
                f"(longitude >= {longitude - reach + turn:.9f} "
                f"and longitude <= {longitude + reach + turn:.9f})"
                for turn in (-360, 0, 360)
            ]
            band = f"{band} and ({' or '.join(sides)})"
    return Meets(NOTHING, f"({band})")


def _longer(entry: Filter, known: Known) -> Meets:
    return Meets.exactly(f"duration > {read_time(entry.value)}")


def _place(entry: Filter, known: Known) -> Meets:
    wanted = sorted({token("place", place_words(name)) for name in split_places(entry.value)})
    return Meets.exactly(f"array_contains_all(tokens, {wanted})")


_KINDS: dict[str, Callable[[Filter, Known], Meets]] = {
    **dict.fromkeys(DATES, _day),
    **dict.fromkeys(CODED, _coded),
    "is": _is,
    "size": _size,
    "longer": _longer,
    "near": _near,
    "place": _place,
}


# Joined


def _not(expression: str) -> str:
    if expression in (EVERYTHING, NOTHING):
        return NOTHING if expression == EVERYTHING else EVERYTHING
    return f"not ({expression})"


def _and(one: str, other: str) -> str:
    return _joined("and", one, other, settles=NOTHING, counts_not=EVERYTHING)


def _or(one: str, other: str) -> str:
    return _joined("or", one, other, settles=EVERYTHING, counts_not=NOTHING)


def _joined(word: str, one: str, other: str, *, settles: str, counts_not: str) -> str:
    if settles in (one, other):
        return settles
    if counts_not in (one, other):
        return other if one == counts_not else one
    return f"({one}) {word} ({other})"


def both(one: str, other: str) -> str:
    """Return the expression for what meets both."""
    return _and(one, other)


def all_of(expressions: Sequence[str]) -> str:
    """Return the expression for what meets all of some, at least one."""
    return " and ".join(f"({one})" for one in expressions)


def either(one: str, other: str) -> str:
    """Return the expression for what meets one or both."""
    return _or(one, other)


def without(one: str, other: str) -> str:
    """Return the expression for what meets the first and not the second."""
    return _and(one, _not(other))
