"""The places of a library by name: those to choose from, and what a name that is none may mean."""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from fovea.search.errors import Unanswerable
from fovea.search.library.facts.places import OFF, place_words
from fovea.search.library.library import Library
from fovea.search.places.stored import Kind, data_of

from .filters import Filter, split_places
from .language import SIMILAR, Query

__all__ = ["KnownPlace", "check_places", "known_places"]

NEAR = 3  # names that are suggested
NAMED = 5  # places that are listed where no name is like the one asked for

_MISSING = (
    "there are no names of places in this library yet; run fovea index, which looks them up for "
    "pictures with coordinates"
)
_OFF = "names of places are switched off in this library; fovea index --places brings them back"
_UNKNOWN = "no picture here is from a place called {found}."


@dataclass(frozen=True, slots=True)
class KnownPlace:
    """A town, region or country with pictures."""

    label: str  # as in ``Lisbon, Portugal``
    query: str  # the filter that finds its pictures
    count: int  # of these, without hidden ones
    kind: Kind
    name: str  # its own, without the country
    value: str  # of the filter


@dataclass(frozen=True, slots=True)
class _Locality:
    kind: Kind
    name: str
    chinese: str | None
    places: frozenset[int]
    country: int  # its own id for a country

    def called(self, chinese: bool) -> str:
        return (chinese and self.chinese) or self.name


def known_places(library: Library, *, chinese: bool = False) -> list[KnownPlace]:
    """Return the places where pictures were taken, those with the most pictures first.

    A town and its region of the same name are one. ``chinese`` asks for the names in simplified
    Chinese, where they are known.
    """
    with library.reading():
        counts, localities = _counts(library), _localities(library)
        names = {place_words(one.called(chinese)) for one in localities.values()}
        named = _named(library, names)
    found: dict[str, KnownPlace] = {}
    for one in localities.values():
        name = one.called(chinese)
        alike = [localities[number] for number in named[place_words(name)] if number in localities]
        places = frozenset().union(*(other.places for other in alike))
        label, value = name, name
        if one.kind != "country":
            country = localities[one.country].called(chinese)
            label = f"{name}{'，' if chinese else ', '}{country}"
            if any(other.country != one.country for other in alike):
                value = f"{name}, {country}"
                places &= localities[one.country].places
        count = sum(counts.get(place, 0) for place in places)
        query = str(Query(filters=(Filter("place", value),)))
        if count and (query not in found or found[query].kind == "region"):
            found[query] = KnownPlace(label, query, count, one.kind, name, value)
    return sorted(found.values(), key=lambda place: (-place.count, place.label))


def _counts(library: Library) -> dict[int, int]:
    """Count the searchable pictures at each place, without hidden ones."""
    return dict(
        library.rows(
            "SELECT place_id, count(*) FROM placed CROSS JOIN shown USING (image_id) "
            "WHERE place_id IS NOT NULL AND image_id NOT IN (SELECT image_id FROM hidden) "
            "GROUP BY place_id"
        )
    )


def _localities(library: Library) -> dict[int, _Locality]:
    places = defaultdict(set)
    countries = {}
    rows = library.rows(
        "SELECT locality_id, place_id, country_id FROM place_localities "
        "JOIN places ON places.id = place_id"
    )
    for number, place, country in rows:
        places[number].add(place)
        countries[number] = country
    return {
        number: _Locality(kind, name, chinese, frozenset(places[number]), countries[number])
        for number, kind, name, chinese in library.rows(
            "SELECT id, kind, name, chinese FROM localities ORDER BY id"
        )
        if number in countries
    }


def _named(library: Library, names: Iterable[str]) -> dict[str, list[int]]:
    """Return the localities that go by each name."""
    found = defaultdict(list)
    rows = library.rows(
        "SELECT name, locality_id FROM json_each(?) CROSS JOIN locality_names ON name = value "
        "ORDER BY locality_id",
        [json.dumps(sorted(names))],
    )
    for name, number in rows:
        found[name].append(number)
    return found


def check_places(library: Library, filters: Sequence[Filter]) -> None:
    """Raise ``Unanswerable`` where a filter names a place that no picture is from.

    One that leaves pictures out may: then there are none to leave out.
    """
    asked = [entry for entry in filters if entry.kind == "place"]
    if not asked:
        return
    if not library.rows("SELECT 1 FROM placed LIMIT 1"):
        if data_of(library) == OFF:
            raise Unanswerable(_OFF, "query.places_off")
        raise Unanswerable(_MISSING, "query.no_places")
    wanted = [entry.value for entry in asked if not entry.negated]
    for name in (name for value in wanted for name in split_places(value)):
        if not library.rows("SELECT 1 FROM locality_names WHERE name = ?", [place_words(name)]):
            raise _unknown(library, name.strip())


def _unknown(library: Library, name: str) -> Unanswerable:
    called: dict[str, str] = {}
    for one in _localities(library).values():
        for said in (one.name, one.chinese):
            if said:
                called.setdefault(place_words(said), said)
    found = repr(name if len(name) <= 20 else f"{name[:19]}…")
    message = _UNKNOWN.format(found=found)
    near = get_close_matches(place_words(name), called, NEAR, SIMILAR)
    if near:
        said = ", ".join(called[words] for words in near)
        return Unanswerable(
            f"{message} Did you mean {said}?", "query.unknown_place_near", found=found, near=said
        )
    most = "; ".join(place.label for place in known_places(library)[:NAMED]) or "–"
    said = f"{message} Most are from: {most}"
    return Unanswerable(said, "query.unknown_place", found=found, places=most)
