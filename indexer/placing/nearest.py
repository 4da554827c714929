"""Which town a picture was taken in or near, and which city reaches there.

A picture's *town* is the nearest place of the data, at most 50 km away along a great circle. Cities
are listed with their quarters and suburbs, so that the nearest place within Lisbon is seldom called
Lisbon; therefore each place has a *reach*, the radius of a disc that holds its people at
``DENSITY``, and a picture is also in the *city* that reaches it: a place of at least ``CITY``
people, in the town's country, that is no part of a larger city. Where several do, it is the one
with the least distance for its reach. A city is *part* of a larger one, of the same country and at
least ``LARGER`` times its people, whose middle half of the reach it lies in; parts that reach the
picture are noted as well, so that it is found by their names.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fovea.search.library.facts.earth import EARTH_KM

__all__ = ["FARTHEST_KM", "Spots", "Towns"]

FARTHEST_KM = 50.0
CITY = 100_000  # people
DENSITY = 3_000  # people per square kilometre, as in large cities
LARGER = 3


@dataclass(frozen=True)
class Spots:
    """The places of m coordinates: towns by their numbers in ``Towns``."""

    towns: np.ndarray  # int64 (m,), -1 where no town is near
    cities: np.ndarray  # int64 (m,), -1 where no city reaches there; may be the town itself
    parts: list[tuple[int, ...]]  # the parts of that city that reach there, ascending

    def key(self, spot: int) -> tuple[int, ...] | None:
        """Return the town, the city if there is one, and its parts; None without a town."""
        town, city = int(self.towns[spot]), int(self.cities[spot])
        if town < 0:
            return None
        return (town, city, *self.parts[spot]) if city >= 0 else (town,)


@dataclass(frozen=True)
class Towns:
    """Places with people, of which the nearest is looked for."""

    latitudes: np.ndarray  # float64 (n,), degrees
    longitudes: np.ndarray
    populations: np.ndarray  # int64 (n,)
    countries: np.ndarray  # int32 (n,), a number for each country

    @cached_property
    def reaches(self) -> np.ndarray:
        """How far each place reaches, in kilometres, float64 (n,)."""
        radii = np.sqrt(np.maximum(self.populations, 0) / (np.pi * DENSITY))
        return np.minimum(radii, FARTHEST_KM)

    @cached_property
    def points(self) -> np.ndarray:
        """The places as unit vectors, float64 (n, 3)."""
        return unit_vectors(self.latitudes, self.longitudes)

    @cached_property
    def cities(self) -> np.ndarray:
        """The numbers of the cities, those with the most people first, int64 (c,)."""
        numbers = np.flatnonzero(self.populations >= CITY)
        return numbers[np.argsort(-self.populations[numbers], kind="stable")]

    @cached_property
    def wholes(self) -> np.ndarray:
        """Of each city, the place in ``cities`` of the one that it is part of, or its own."""
        from scipy.spatial import cKDTree

        cities = self.cities
        wholes = np.arange(len(cities))
        if not len(cities):
            return wholes
        people, countries = self.populations[cities], self.countries[cities]
        points, halves = self.points[cities], self.reaches[cities] / 2
        inside = cKDTree(points).query_ball_point(points, chords(halves))
        for place, found in enumerate(inside):  # the largest first
            if wholes[place] != place:
                continue
            near = np.asarray(found)
            near = near[(wholes[near] == near) & (countries[near] == countries[place])]
            wholes[near[people[near] * LARGER <= people[place]]] = place
        return wholes

    def at(self, latitudes: np.ndarray, longitudes: np.ndarray) -> Spots:
        """Find the places of coordinates in degrees, float64 (m,)."""
        from scipy.spatial import cKDTree

        spots = unit_vectors(latitudes, longitudes)
        towns = np.full(len(spots), -1)
        chosen, parts = towns.copy(), list[tuple[int, ...]]([()] * len(spots))
        if not len(spots) or not len(self.points):
            return Spots(towns, chosen, parts)
        limit = float(chords(np.array([FARTHEST_KM]))[0])
        _, nearest = cKDTree(self.points).query(spots, distance_upper_bound=limit)
        has_town = nearest < len(self.points)
        towns[has_town] = nearest[has_town]
        cities = self.cities
        if not len(cities):
            return Spots(towns, chosen, parts)
        within = cKDTree(spots).query_ball_point(self.points[cities], chords(self.reaches[cities]))
        places = np.repeat(np.arange(len(cities)), [len(found) for found in within])
        reached = np.fromiter((spot for found in within for spot in found), np.int64, len(places))
        same = has_town[reached]
        same[same] = self.countries[cities[places[same]]] == self.countries[towns[reached[same]]]
        places, reached = places[same], reached[same]
        is_whole = self.wholes[places] == places
        self._choose(spots, places[is_whole], reached[is_whole], chosen)
        of_chosen = ~is_whole & (cities[self.wholes[places]] == chosen[reached])
        _collect(cities[places[of_chosen]], reached[of_chosen], parts)
        return Spots(towns, chosen, parts)

    def _choose(
        self, spots: np.ndarray, places: np.ndarray, reached: np.ndarray, chosen: np.ndarray
    ) -> None:
        """Set which city each spot is in: the one with the least distance for its reach."""
        numbers = self.cities[places]
        apart = np.linalg.norm(spots[reached] - self.points[numbers], axis=1)
        shares = arcs_km(apart) / self.reaches[numbers]
        order = np.lexsort((places, shares, reached))
        spot_of = reached[order]
        first = np.flatnonzero(np.diff(spot_of, prepend=-1))
        chosen[spot_of[first]] = numbers[order[first]]


def _collect(numbers: np.ndarray, reached: np.ndarray, parts: list[tuple[int, ...]]) -> None:
    order = np.lexsort((numbers, reached))
    spots, starts = np.unique(reached[order], return_index=True)
    for spot, found in zip(spots.tolist(), np.split(numbers[order], starts[1:]), strict=False):
        parts[spot] = tuple(found.tolist())


def unit_vectors(latitudes: np.ndarray, longitudes: np.ndarray) -> np.ndarray:
    """Return points on the unit sphere, float64 (n, 3), of degrees (n,)."""
    phi, theta = np.radians(latitudes), np.radians(longitudes)
    return np.stack([np.cos(phi) * np.cos(theta), np.cos(phi) * np.sin(theta), np.sin(phi)], axis=1)


def chords(km: np.ndarray) -> np.ndarray:
    """Return the straight distance in the unit sphere of points so many kilometres apart."""
    return 2 * np.sin(km / (2 * EARTH_KM))


def arcs_km(chord: np.ndarray | Sequence[float]) -> np.ndarray:
    """Return the great-circle distance in kilometres for chords of the unit sphere."""
    found: np.ndarray = 2 * EARTH_KM * np.arcsin(np.minimum(np.asarray(chord) / 2, 1.0))
    return found
