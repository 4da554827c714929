"""Places on their way from one library to another, each with the names that it is found by."""

import json
import sqlite3
from collections.abc import Iterable
from typing import Any

from fovea.search.library.library import Library

__all__ = ["names_of", "places_at", "put_places"]

ROLES = ("town", "city", "region", "country")


def places_at(library: Library, image_ids: Iterable[int]) -> dict[int, dict[str, Any]]:
    """Return the place of each image that has one, as JSON takes it, by image id."""
    placed = dict(
        library.rows(
            "SELECT image_id, place_id FROM placed WHERE place_id IS NOT NULL "
            "AND image_id IN (SELECT value FROM json_each(?))",
            [json.dumps([int(image_id) for image_id in image_ids])],
        )
    )
    if not placed:
        return {}
    ids = json.dumps(sorted(set(placed.values())))
    among = "IN (SELECT value FROM json_each(?))"
    places = {
        number: {"key": key, **dict(zip(ROLES, roles, strict=True)), "found": []}
        for number, key, *roles in library.rows(
            f"SELECT id, key, {', '.join(f'{role}_id' for role in ROLES)} FROM places "
            f"WHERE id {among}",
            [ids],
        )
    }
    for place, locality in library.rows(
        f"SELECT place_id, locality_id FROM place_localities WHERE place_id {among} ORDER BY 1, 2",
        [ids],
    ):
        places[place]["found"].append(locality)
    asked = {one for place in places.values() for one in _parts(place)}
    localities = _localities(library, asked)
    for place in places.values():
        parts = _parts(place)
        place["localities"] = [localities[one] for one in parts]
        place["found"] = [localities[one][0] for one in place["found"]]
        for role in ROLES:
            place[role] = None if place[role] is None else localities[place[role]][0]
    return {image_id: places[place] for image_id, place in placed.items()}


def _parts(place: dict[str, Any]) -> list[int]:
    parts = [*(place[role] for role in ROLES), *place["found"]]
    return list(dict.fromkeys(one for one in parts if one is not None))


def _localities(library: Library, asked: Iterable[int]) -> dict[int, list[Any]]:
    ids = json.dumps(sorted(asked))
    found = {
        number: [key, kind, name, chinese, []]
        for number, key, kind, name, chinese in library.rows(
            "SELECT id, key, kind, name, chinese FROM localities "
            "WHERE id IN (SELECT value FROM json_each(?))",
            [ids],
        )
    }
    for number, name in library.rows(
        "SELECT locality_id, name FROM locality_names "
        "WHERE locality_id IN (SELECT value FROM json_each(?)) ORDER BY name",
        [ids],
    ):
        found[number][4].append(name)
    return found


def names_of(place: dict[str, Any] | None) -> set[str]:
    """Return the names that a place is found by, as ``place_words`` returns them."""
    if place is None:
        return set()
    found = set(place["found"])
    return {name for key, *_, names in place["localities"] if key in found for name in names}


def put_places(conn: sqlite3.Connection, places: dict[int, dict[str, Any]]) -> None:
    """Write at which place each image is, within a transaction; what is known of places stays."""
    for image_id, place in places.items():
        numbers = {key: _number(conn, *rest) for key, rest in _keyed(place)}
        roles = [None if place[role] is None else numbers[place[role]] for role in ROLES]
        conn.execute(
            "INSERT INTO places (key, town_id, city_id, region_id, country_id) "
            "VALUES (?, ?, ?, ?, ?) ON CONFLICT (key) DO NOTHING",
            (place["key"], *roles),
        )
        [(place_id,)] = conn.execute("SELECT id FROM places WHERE key = ?", (place["key"],))
        conn.executemany(
            "INSERT OR IGNORE INTO place_localities (place_id, locality_id) VALUES (?, ?)",
            ((place_id, numbers[key]) for key in place["found"]),
        )
        conn.execute("INSERT OR REPLACE INTO placed VALUES (?, ?)", (image_id, place_id))


def _keyed(place: dict[str, Any]) -> list[tuple[str, tuple[Any, ...]]]:
    return [(row[0], tuple(row)) for row in place["localities"]]


def _number(
    conn: sqlite3.Connection, key: str, kind: str, name: str, chinese: str | None, names: list[str]
) -> int:
    conn.execute(
        "INSERT INTO localities (key, kind, name, chinese) VALUES (?, ?, ?, ?) "
        "ON CONFLICT (key) DO NOTHING",
        (key, kind, name, chinese),
    )
    [(number,)] = conn.execute("SELECT id FROM localities WHERE key = ?", (key,)).fetchall()
    conn.executemany(
        "INSERT OR IGNORE INTO locality_names VALUES (?, ?)", ((one, number) for one in names)
    )
    return int(number)
