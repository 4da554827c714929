"""Look up the places of a library's pictures: those that have none yet, or all if the data is new.

A picture is looked up once. Nothing is loaded where nothing is to be looked up.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from threading import Event
from typing import Protocol

import numpy as np

from fovea.search.library.library import Library
from fovea.search.places.stored import (
    NewPlace,
    data_of,
    place_counts,
    place_keys,
    replace_places,
    unplaced,
)

from .gazetteer import Gazetteer, data_version
from .nearest import Towns

__all__ = ["Placed", "Places", "place_pictures"]

log = logging.getLogger(__name__)

BATCH = 50_000  # pictures written at a time


class Places(Protocol):
    """Towns of the world, and what they are called; numbers are places in ``towns``."""

    @property
    def towns(self) -> Towns:
        """Where the towns are."""

    def key(self, numbers: tuple[int, ...]) -> tuple[int, ...]:
        """Return the numbers of towns that stay the same in later data."""

    def place(self, numbers: tuple[int, ...]) -> NewPlace:
        """Describe a place by its town, the city if there is one, and parts of that."""


@dataclass(frozen=True, slots=True)
class Placed:
    """How many pictures were looked up, and how many wait for the extra to be installed."""

    looked_up: int = 0
    waiting: int = 0


def place_pictures(
    library: Library,
    *,
    stop: Event | None = None,
    data: Callable[[], str | None] | None = None,
    load: Callable[[], Places] | None = None,
) -> Placed:
    """Look up the places of the pictures that have coordinates and no place yet.

    All of them again if the library's places are from other data than what ``data`` names, by
    default that which is installed; ``load`` loads it. Without data (None), pictures wait. ``stop``
    ends it after the batch in flight; the next run goes on.
    """
    counts = place_counts(library)
    if counts.is_off or not counts.located:
        return Placed()
    name = (data or data_version)()
    if name is None:
        return Placed(waiting=counts.waiting)
    is_new = data_of(library) != name
    if not counts.waiting and not is_new:
        return Placed()
    try:
        places = (load or Gazetteer)()
        ids, latitudes, longitudes = unplaced(library, everything=is_new)
        done = 0
        for start in range(0, len(ids), BATCH):
            if stop is not None and stop.is_set():
                break
            part = slice(start, start + BATCH)
            _write(library, name, places, ids[part], latitudes[part], longitudes[part])
            done += len(ids[part])
    except (ImportError, KeyError, TypeError, ValueError, OSError) as exc:  # other data than known
        log.warning("the names of places cannot be looked up: %s: %s", type(exc).__name__, exc)
        return Placed(waiting=place_counts(library).waiting)
    return Placed(done, len(ids) - done)


def _write(
    library: Library,
    data: str,
    places: Places,
    ids: np.ndarray,
    latitudes: np.ndarray,
    longitudes: np.ndarray,
) -> None:
    """Look up and write some pictures; those at the same spot are looked up once."""
    valid = np.isfinite(latitudes) & np.isfinite(longitudes)
    table = np.stack([np.where(valid, latitudes, 0), np.where(valid, longitudes, 0)], axis=1)
    spots, where = np.unique(table, axis=0, return_inverse=True)
    found = places.towns.at(spots[:, 0], spots[:, 1])
    keys = [found.key(spot) for spot in range(len(spots))]
    stored = {key: places.key(key) for key in set(keys) if key is not None}
    known = place_keys(library) if data_of(library) == data else set()
    placed = (
        (image_id, stored[key] if is_valid and (key := keys[spot]) is not None else None)
        for image_id, spot, is_valid in zip(
            ids.tolist(), where.ravel().tolist(), valid.tolist(), strict=True
        )
    )
    new = (places.place(key) for key, number in stored.items() if number not in known)
    replace_places(library, data, [*new], placed)
