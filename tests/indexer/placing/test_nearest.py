"""Towns, cities and their parts against an exhaustive search by haversines."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fovea.search.library.facts.earth import distance_km

pytest.importorskip("scipy", reason="needs the extra fovea[places]: scipy is not installed")

from fovea.indexer.placing.nearest import CITY, DENSITY, FARTHEST_KM, LARGER, Towns

CLOSE = 1e-6  # km: distances that are as good as equal
LATITUDES = st.one_of(st.floats(-90, 90), st.floats(48, 49), st.sampled_from([-90.0, 0.0, 90.0]))
LONGITUDES = st.one_of(
    st.floats(-180, 180), st.floats(16, 17), st.floats(179.5, 180), st.floats(-180, -179.5)
)
SPOTS = st.lists(st.tuples(LATITUDES, LONGITUDES), min_size=1, max_size=12)
TOWNS = st.lists(
    st.tuples(
        LATITUDES,
        LONGITUDES,
        st.one_of(st.integers(0, 5_000), st.integers(CITY - 1, 30_000_000)),
        st.integers(0, 1),
    ),
    max_size=40,
)


def made(rows):
    table = np.array(rows, np.float64).reshape(-1, 4)
    people, countries = table[:, 2].astype(np.int64), table[:, 3].astype(np.int32)
    return Towns(table[:, 0], table[:, 1], people, countries)


def reach(people):
    return min(FARTHEST_KM, math.sqrt(people / (math.pi * DENSITY)))


def wholes(rows):
    """Of each city, the one that it is part of; those with the most people first."""
    cities = sorted(
        (number for number, row in enumerate(rows) if row[2] >= CITY), key=lambda n: -rows[n][2]
    )
    whole_of = {}
    for city in cities:
        latitude, longitude, people, country = rows[city]
        larger = [
            other
            for other in cities[: cities.index(city)]
            if whole_of[other] == other
            and rows[other][3] == country
            and rows[other][2] >= LARGER * people
            and distance_km(latitude, longitude, *rows[other][:2]) <= reach(rows[other][2]) / 2
        ]
        whole_of[city] = larger[0] if larger else city
    return whole_of


@settings(max_examples=300, deadline=None)
@given(TOWNS, SPOTS)
def test_the_places_are_those_of_an_exhaustive_search(rows, spots):
    table = np.array(spots)
    found = made(rows).at(table[:, 0], table[:, 1])
    whole_of = wholes(rows)
    for spot, place in enumerate(spots):
        apart = [distance_km(*place, *row[:2]) for row in rows]
        near = min(apart, default=math.inf)
        town, city = int(found.towns[spot]), int(found.cities[spot])
        if town < 0:
            assert near > FARTHEST_KM - CLOSE
            assert (city, found.parts[spot], found.key(spot)) == (-1, (), None)
            continue
        assert apart[town] <= min(near, FARTHEST_KM) + CLOSE
        shares = {
            other: apart[other] / reach(rows[other][2])
            for other, whole in whole_of.items()
            if whole == other and rows[other][3] == rows[town][3]
        }
        best = min(shares.values(), default=math.inf)
        assert (best > 1 - CLOSE) if city < 0 else (shares[city] <= min(best, 1) + CLOSE)
        parts = [n for n, whole in whole_of.items() if whole == city != n]
        for part in parts:
            over = apart[part] - reach(rows[part][2])
            assert abs(over) < CLOSE or (part in found.parts[spot]) == (over < 0)
        assert set(found.parts[spot]) <= set(parts)
        assert found.key(spot) == ((town, city, *found.parts[spot]) if city >= 0 else (town,))


@pytest.mark.parametrize(
    ("town", "spot", "is_near"),
    [
        ((0, 179.9), (0, -179.9), True),  # 22 km across the date line
        ((0, 179.9), (0, -179.6), False),  # 56 km
        ((90, 0), (89.6, 123), True),  # 44 km from the pole
        ((-89.7, 0), (-89.8, 180), False),  # 56 km over the pole
        ((-89.9, 0), (-89.9, 180), True),
    ],
)
def test_the_date_line_and_the_poles_are_places_like_any_other(town, spot, is_near):
    found = made([(*town, 500, 0)]).at(np.array([spot[0]]), np.array([spot[1]]))
    assert (found.towns[0] == 0) == is_near


PARIS, NEUILLY, VAUGIRARD, BOULOGNE, HAMLET = range(5)
AROUND_PARIS = [
    (48.85341, 2.3488, 2_138_551, 0),
    (48.8846, 2.26965, 59_940, 0),
    (48.84121, 2.30338, 229_713, 0),
    (48.83545, 2.24128, 116_794, 0),
    (48.6, 2.0, 30, 0),
]


@pytest.mark.parametrize(
    ("spot", "key"),
    [
        ((48.8584, 2.2945), (VAUGIRARD, PARIS, VAUGIRARD)),  # the Eiffel Tower
        ((48.8846, 2.2697), (NEUILLY, PARIS)),
        ((48.8354, 2.2413), (BOULOGNE, BOULOGNE)),  # a city of its own, beside Paris
        ((48.61, 2.01), (HAMLET,)),
        ((30, -40), None),
    ],
)
def test_quarters_and_suburbs_do_not_hide_their_city(spot, key):
    found = made(AROUND_PARIS).at(np.array([spot[0]]), np.array([spot[1]]))
    assert found.key(0) == key


def test_a_city_across_a_border_is_none():
    rows = [(22.54, 114.06, 17_000_000, 0), (22.28, 114.16, 900, 1)]  # Shenzhen; in Hong Kong
    found = made(rows).at(np.array([22.28]), np.array([114.15]))
    assert found.key(0) == (1,)


def test_nothing_is_near_without_towns_and_nothing_without_spots():
    assert made([]).at(np.array([1.0]), np.array([2.0])).key(0) is None
    assert len(made(AROUND_PARIS).at(np.empty(0), np.empty(0)).towns) == 0
