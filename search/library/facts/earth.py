"""Distances on the earth."""

import math

__all__ = ["EARTH_KM", "distance_km"]

EARTH_KM = 6371.0088  # mean radius


def distance_km(
    latitude: float | None, longitude: float | None, other_latitude: float, other_longitude: float
) -> float | None:
    """Return the great-circle distance of two places in degrees; None where one is unknown.

    The haversine formula (Sinnott 1984, Sky and Telescope 68, 158).
    """
    if latitude is None or longitude is None:
        return None
    phi, other_phi = math.radians(latitude), math.radians(other_latitude)
    half = math.sin((phi - other_phi) / 2) ** 2
    half += (
        math.cos(phi)
        * math.cos(other_phi)
        * math.sin(math.radians(longitude - other_longitude) / 2) ** 2
    )
    return 2 * EARTH_KM * math.asin(min(1.0, math.sqrt(half)))
