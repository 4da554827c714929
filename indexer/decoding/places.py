"""Where a photograph was taken: what is sure of the latitude and longitude in its tags."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .tags import Tags, as_bytes, finite, get

__all__ = ["altitude", "coordinates"]

# Exif 2.32, section 4.6.6
_LAT_REF, _LAT, _LON_REF, _LON, _ALT_REF, _ALT, _STATUS = 1, 2, 3, 4, 5, 6, 9
_BELOW = (1, 3)  # sea level; the ellipsoid

_XMP = "{http://ns.adobe.com/exif/1.0/}"  # ISO 16684-2: "48,51.5N", "48,51,30N"

ROUNDING = 1e-3  # degrees; further beyond a pole, or the 180th meridian, nothing is sure
NOWHERE = 1e-6  # degrees of 0, 0, which stands for "not known"

_NUMBER = re.compile(r"([+-]?[0-9]+(?:\.[0-9]*)?|[+-]?\.[0-9]+)(?:/([0-9]+(?:\.[0-9]+)?))?")
_WORD = re.compile(r"[^\W\d_]+")
_INSIDE = ("N", "NORTH", "S", "SOUTH", "E", "EAST", "W", "WEST")  # of a text with numbers


@dataclass(frozen=True, slots=True)
class _Angle:
    degrees: float  # not negative
    is_minus: bool
    letter: str  # N, S, E or W; empty without a reference


def coordinates(tags: Tags) -> tuple[float | None, float | None]:
    """Return latitude and longitude in degrees, or neither: one alone is useless.

    Exif's if it is sure, else XMP's. Neither where the receiver was void.
    """
    gps, xmp = tags.gps, tags.xmp
    tag_sets: tuple[tuple[Any, ...], ...] = (
        (get(gps, _STATUS), get(gps, _LAT), get(gps, _LAT_REF), get(gps, _LON), get(gps, _LON_REF)),
        (
            xmp.get(f"{_XMP}GPSStatus"),
            xmp.get(f"{_XMP}GPSLatitude"),
            xmp.get(f"{_XMP}GPSLatitudeRef"),
            xmp.get(f"{_XMP}GPSLongitude"),
            xmp.get(f"{_XMP}GPSLongitudeRef"),
        ),
    )
    for status, latitude, latitude_ref, longitude, longitude_ref in tag_sets:
        if _plain(status).upper().startswith("V"):
            return None, None
        found = _place(_angle(latitude, latitude_ref), _angle(longitude, longitude_ref))
        if found is not None:
            return found
    return None, None


def altitude(gps: Mapping[int, Any]) -> float | None:
    """Return the metres above the sea, negative below it."""
    metres = finite(get(gps, _ALT))
    if metres is None or abs(metres) > 1e6:
        return None
    reference = get(gps, _ALT_REF)
    if isinstance(reference, bytes):
        reference = reference[0] if reference else 0
    return -abs(metres) if reference in _BELOW else metres


def _place(latitude: _Angle | None, longitude: _Angle | None) -> tuple[float, float] | None:
    if latitude is None or longitude is None:
        return None
    # Where one number has a sign of its own, the writer uses signs, and so the other one is plus.
    signs = latitude.is_minus or longitude.is_minus
    north = _signed(latitude, "N", "S", 90, signs)
    east = _signed(longitude, "E", "W", 180, signs)
    if north is None or east is None or max(abs(north), abs(east)) < NOWHERE:
        return None
    return north, east


def _signed(angle: _Angle, plus: str, minus: str, most: float, signs: bool) -> float | None:
    """Return degrees with their sign; None where it is not sure.

    A number without a letter may be on either side of the equator unless it has a sign. A minus
    and the letter for plus contradict each other.
    """
    if angle.degrees > most + ROUNDING or angle.letter not in (plus, minus, ""):
        return None
    if (not angle.letter and not (angle.is_minus or signs)) or (
        angle.letter == plus and angle.is_minus
    ):
        return None
    degrees = min(angle.degrees, most)
    return -degrees if angle.is_minus or angle.letter == minus else degrees


def _angle(value: Any, reference: Any) -> _Angle | None:
    """Read an angle: a number, a tuple of up to three, or a text of them with a letter.

    A reference may be a word, of which the first letter counts: "north", "Sud".
    """
    side = _plain(reference).upper()[:1]
    if isinstance(value, str | bytes):
        text = _plain(value).upper()
        inside = [word for word in _WORD.findall(text) if word in _INSIDE]
        side = inside[0][0] if len(inside) == 1 else side
        numbers: list[float | None] = [_ratio(*found) for found in _NUMBER.findall(text)]
    elif isinstance(value, tuple | list):
        numbers = [finite(part) for part in value]
    else:
        numbers = [finite(value)]
    return _sum(numbers, side)


def _sum(numbers: list[float | None], letter: str) -> _Angle | None:
    """Add up degrees, minutes and seconds. Seconds that are not sure, as 0/0, are left out.

    So are minutes that are not sure, if the degrees are a decimal fraction; whole degrees alone
    would be up to 111 km off.
    """
    if not 1 <= len(numbers) <= 4 or numbers[0] is None:
        return None
    degrees, minutes, seconds = (*numbers[:3], *[0.0] * (3 - len(numbers)))[:3]
    assert degrees is not None
    is_minus = any(math.copysign(1, part) < 0 for part in numbers[:3] if part)
    is_minus = is_minus or math.copysign(1, degrees) < 0
    if degrees > 0 and is_minus:
        return None
    if minutes is None or abs(minutes) > 60:
        if degrees.is_integer():
            return None
        minutes = seconds = 0.0
    if seconds is None or abs(seconds) > 60:
        seconds = 0.0
    total = abs(degrees) + abs(minutes) / 60 + abs(seconds) / 3600
    return _Angle(total, is_minus, letter)


def _ratio(numerator: str, denominator: str) -> float | None:
    try:
        return finite(float(numerator) / float(denominator or 1))
    except (ValueError, ZeroDivisionError, OverflowError):
        return None


def _plain(value: Any) -> str:
    """Return a short text without NULs and spaces around it; an empty one for anything else."""
    if isinstance(value, bytes | tuple):
        value = as_bytes(value).decode("latin-1")
    return value.replace("\0", " ").strip()[:100] if isinstance(value, str) else ""
