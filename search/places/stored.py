"""What a library knows of the places where its pictures were taken.

Nothing here needs the data of places: the names of those that occur are in the library.
"""

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fovea.search.library.facts.places import DATA, OFF
from fovea.search.library.library import Library

__all__ = [
    "Kind",
    "Locality",
    "NewLocality",
    "NewPlace",
    "PlaceCounts",
    "Whereabouts",
    "data_of",
    "place_counts",
    "place_keys",
    "replace_places",
    "switch",
    "unplaced",
    "whereabouts",
]

Kind = Literal["town", "region", "country"]

LOCATED = "latitude IS NOT NULL AND longitude IS NOT NULL"
TABLES = ("placed", "place_localities", "places", "locality_names", "localities")


@dataclass(frozen=True, slots=True)
class Locality:
    """A town, region or country."""

    name: str
    chinese: str | None = None  # in simplified Chinese, if that is known
    key: str = ""  # a town's number in the data, a region as in PT.14, a country as in PT


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """Where a picture was taken, by name."""

    town: Locality  # the nearest, at most 50 km away
    city: Locality | None  # the city that reaches there, if that is another
    region: Locality | None
    country: Locality

    @property
    def label(self) -> str:
        """The place in few words, as in ``Belém, Lisbon, Portugal``."""
        names = (one.name for one in (self.town, self.city, self.country) if one is not None)
        return ", ".join(dict.fromkeys(names))

    @property
    def chinese(self) -> str:
        """The same as it is said in Chinese, the largest first; names that are not known stay."""
        parts = (self.country, self.city, self.town)
        names = dict.fromkeys(one.chinese or one.name for one in parts if one is not None)
        said = ""
        for name in names:
            is_latin = said and (said[-1].isascii() or name[:1].isascii())
            said += f" {name}" if is_latin else name
        return said


@dataclass(frozen=True, slots=True)
class NewLocality:
    """A locality to store, with every name that it goes by, as ``place_words`` returns them."""

    kind: Kind
    locality: Locality
    names: frozenset[str]


@dataclass(frozen=True, slots=True)
class NewPlace:
    """A place to store; ``parts`` are the parts of its city that it is found by as well."""

    key: tuple[int, ...]  # its towns' numbers in the data
    town: NewLocality
    city: NewLocality | None
    region: NewLocality | None
    country: NewLocality
    parts: tuple[NewLocality, ...] = ()


@dataclass(frozen=True, slots=True)
class PlaceCounts:
    """Pictures with coordinates: how many there are, and of how many the place was looked up."""

    located: int
    looked_up: int
    named: int  # of these, with a town within 50 km
    is_off: bool  # names of places are switched off

    @property
    def waiting(self) -> int:
        """Pictures whose place is still to be looked up; none where that is switched off."""
        return 0 if self.is_off else self.located - self.looked_up


def whereabouts(library: Library, image_ids: Iterable[int]) -> dict[int, Whereabouts]:
    """Return the place of each image that has one, by image id."""
    rows = library.rows(
        "SELECT image_id, town.name, town.chinese, town.key, city.name, city.chinese, city.key, "
        "region.name, region.chinese, region.key, country.name, country.chinese, country.key "
        "FROM placed JOIN places ON places.id = place_id "
        "JOIN localities AS town ON town.id = town_id "
        "LEFT JOIN localities AS city ON city.id = city_id "
        "LEFT JOIN localities AS region ON region.id = region_id "
        "JOIN localities AS country ON country.id = country_id "
        "WHERE image_id IN (SELECT value FROM json_each(?))",
        [json.dumps([int(image_id) for image_id in image_ids])],
    )
    found = {}
    for image_id, *facts in rows:
        town, city, region, country = (Locality(*facts[at : at + 3]) for at in range(0, 12, 3))
        found[image_id] = Whereabouts(
            town, city if city.key else None, region if region.key else None, country
        )
    return found


def place_counts(library: Library) -> PlaceCounts:
    """Count the pictures with coordinates, with and without a place, shown or not."""
    [(located, looked_up, named)] = library.rows(
        f"SELECT (SELECT count(*) FROM images INDEXED BY images_located WHERE {LOCATED}), "
        "(SELECT count(*) FROM placed), "
        "(SELECT count(*) FROM placed WHERE place_id IS NOT NULL)"
    )
    return PlaceCounts(located, looked_up, named, data_of(library) == OFF)


def data_of(library: Library) -> str | None:
    """Return the data that the places are from, ``OFF``, or None where none was looked up."""
    rows = library.rows("SELECT value FROM library WHERE key = ?", [DATA])
    return rows[0][0] if rows else None


def place_keys(library: Library) -> set[tuple[int, ...]]:
    """Return the keys of the places that are stored."""
    return {tuple(json.loads(key)) for (key,) in library.rows("SELECT key FROM places")}


def unplaced(library: Library, everything: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return ids, int64 (n,), latitudes and longitudes, float64 (n,), of images to look up.

    Those that have not been, or with ``everything`` all that have coordinates.
    """
    sql = f"SELECT id, latitude, longitude FROM images INDEXED BY images_located WHERE {LOCATED}"
    if not everything:
        sql += " AND NOT EXISTS (SELECT 1 FROM placed WHERE image_id = images.id)"
    rows = library.rows(f"{sql} ORDER BY id")
    table = np.array([row[1:] for row in rows], np.float64).reshape(-1, 2)
    return np.array([row[0] for row in rows], np.int64), table[:, 0], table[:, 1]


def replace_places(
    library: Library,
    data: str,
    places: Iterable[NewPlace],
    placed: Iterable[tuple[int, tuple[int, ...] | None]],
) -> None:
    """Write places, and which image is at which, by its key; None: no town is near.

    Places from other data than ``data`` are removed before. Images that are gone since are left
    out; so is everything where places are switched off.
    """
    with library.transaction() as conn:
        known = conn.execute("SELECT value FROM library WHERE key = ?", (DATA,)).fetchall()
        if known == [(OFF,)]:
            return
        if known != [(data,)]:
            _clear(conn)
            conn.execute("INSERT OR REPLACE INTO library VALUES (?, ?)", (DATA, data))
        numbers = dict(conn.execute("SELECT key, id FROM localities").fetchall())
        place_ids = dict(conn.execute("SELECT key, id FROM places").fetchall())
        for place in places:
            if (key := json.dumps(place.key)) not in place_ids:
                place_ids[key] = _insert(conn, place, numbers)
        conn.executemany(
            f"INSERT OR REPLACE INTO placed SELECT id, ?2 FROM images WHERE id = ?1 AND {LOCATED}",
            (
                (image_id, None if key is None else place_ids[json.dumps(key)])
                for image_id, key in placed
            ),
        )


def _insert(conn: sqlite3.Connection, place: NewPlace, numbers: dict[str, int]) -> int:
    """Write a place, and of its localities those that are not in ``numbers`` yet; return its id."""
    parts = (place.town, place.city, place.region, place.country)
    ids = [None if one is None else _number(conn, one, numbers) for one in parts]
    row = conn.execute(
        "INSERT INTO places (key, town_id, city_id, region_id, country_id) "
        "VALUES (?, ?, ?, ?, ?) RETURNING id",
        (json.dumps(place.key), *ids),
    ).fetchall()
    ids += [_number(conn, one, numbers) for one in place.parts]
    conn.executemany(
        "INSERT INTO place_localities (place_id, locality_id) VALUES (?, ?)",
        ((row[0][0], number) for number in {number for number in ids if number is not None}),
    )
    return int(row[0][0])


def _number(conn: sqlite3.Connection, new: NewLocality, numbers: dict[str, int]) -> int:
    locality = new.locality
    if locality.key not in numbers:
        [(number,)] = conn.execute(
            "INSERT INTO localities (key, kind, name, chinese) VALUES (?, ?, ?, ?) RETURNING id",
            (locality.key, new.kind, locality.name, locality.chinese),
        ).fetchall()
        numbers[locality.key] = number
        conn.executemany(
            "INSERT INTO locality_names VALUES (?, ?)",
            ((name, number) for name in sorted(new.names) if name),
        )
    return numbers[locality.key]


def switch(library: Library, on: bool) -> None:
    """Switch names of places on or off; off removes those that are there."""
    if on == (data_of(library) != OFF):
        return
    with library.transaction() as conn:
        conn.execute("DELETE FROM library WHERE key = ?", (DATA,))
        if not on:
            _clear(conn)
            conn.execute("INSERT INTO library VALUES (?, ?)", (DATA, OFF))


def _clear(conn: sqlite3.Connection) -> None:
    for table in TABLES:
        conn.execute(f"DELETE FROM {table}")
