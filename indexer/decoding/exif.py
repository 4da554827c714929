"""Read a photograph's EXIF. None of it can be trusted, so nothing here raises."""

import math
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from PIL import Image

from fovea.search.library.rows import ImageMetadata

from .limits import one_line

TEXT = 100  # characters kept of a camera's or lens's name

# Tags of Exif 2.32, CIPA DC-008-2019.
_MAKE, _MODEL, _DATE_TIME = 0x010F, 0x0110, 0x0132
_EXIF_IFD, _GPS_IFD = 0x8769, 0x8825
_EXPOSURE, _F_NUMBER, _ISO, _TAKEN, _DIGITISED = 0x829A, 0x829D, 0x8827, 0x9003, 0x9004
_FOCAL_LENGTH, _LENS = 0x920A, 0xA434
_LAT_REF, _LAT, _LON_REF, _LON, _ALT_REF, _ALT = 1, 2, 3, 4, 5, 6

_DATE = re.compile(r"(\d{4})[:\-/.](\d\d)[:\-/.](\d\d)[ T](\d\d):(\d\d)(?::(\d\d))?")


def read_shot(exif: Image.Exif) -> ImageMetadata:
    """Read how, when and where a photograph was taken; None for what is missing or invalid."""
    main, details, place = exif, _ifd(exif, _EXIF_IFD), _ifd(exif, _GPS_IFD)
    iso = _number(details, _ISO, 1, 2**31)
    latitude, longitude = _coordinates(place)
    return ImageMetadata(
        taken_at=_taken_at(main, details),
        camera=_camera(_text(main, _MAKE), _text(main, _MODEL)),
        lens=_text(details, _LENS),
        exposure=_number(details, _EXPOSURE, 1e-9, 1e6),
        f_number=_number(details, _F_NUMBER, 0.1, 1000),
        iso=None if iso is None else int(iso),
        focal_length=_number(details, _FOCAL_LENGTH, 0.1, 1e5),
        latitude=latitude,
        longitude=longitude,
        altitude=_altitude(place),
    )


def _ifd(exif: Image.Exif, tag: int) -> Mapping[int, Any]:
    try:
        return exif.get_ifd(tag)
    except Exception:  # Pillow raises many kinds for broken EXIF, which must not cost the picture
        return {}


def _get(values: Mapping[int, Any], tag: int) -> Any:
    try:
        return values.get(tag)
    except Exception:  # values are parsed only now, and may be as broken as the rest
        return None


def _text(values: Mapping[int, Any], tag: int) -> str | None:
    value = _get(values, tag)
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return one_line(value.partition("\0")[0], TEXT) or None if isinstance(value, str) else None


def _float(value: Any) -> float | None:
    """Turn a number or a fraction into a finite float; None for what is not one."""
    if isinstance(value, tuple) and len(value) == 1:
        value = value[0]
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _number(values: Mapping[int, Any], tag: int, low: float, high: float) -> float | None:
    value = _get(values, tag)
    if isinstance(value, tuple) and value:  # some cameras write two ISO speeds
        value = value[0]
    number = _float(value)
    return number if number is not None and low <= number <= high else None


def _camera(make: str | None, model: str | None) -> str | None:
    """Join maker and model, without saying the maker twice ("Canon Canon EOS R5")."""
    if make and model and not model.lower().startswith(make.split()[0].lower()):
        return one_line(f"{make} {model}", TEXT)
    return model or make


def _taken_at(main: Mapping[int, Any], details: Mapping[int, Any]) -> str | None:
    for values, tag in ((details, _TAKEN), (details, _DIGITISED), (main, _DATE_TIME)):
        found = _DATE.match(_text(values, tag) or "")
        if found:
            try:
                taken = datetime(*(int(part or 0) for part in found.groups()))  # type: ignore[arg-type]
            except ValueError:  # 0000:00:00, or the 31st of February
                continue
            return taken.isoformat()
    return None


def _coordinates(place: Mapping[int, Any]) -> tuple[float | None, float | None]:
    """Latitude and longitude in degrees, or neither: one alone is useless."""
    latitude = _degrees(place, _LAT, _LAT_REF, "NS", 90)
    longitude = _degrees(place, _LON, _LON_REF, "EW", 180)
    if latitude is None or longitude is None:
        return None, None
    return latitude, longitude


def _degrees(
    place: Mapping[int, Any], tag: int, reference: int, signs: str, most: float
) -> float | None:
    """Read degrees, minutes and seconds; the reference's letter gives the sign."""
    value, letter = _get(place, tag), (_text(place, reference) or "").upper()[:1]
    if (
        not isinstance(value, tuple)
        or not 1 <= len(value) <= 3
        or letter not in signs
        or not letter
    ):
        return None
    parts = [_float(part) for part in value]
    if any(part is None or part < 0 for part in parts):
        return None
    degrees = sum(part / 60**power for power, part in enumerate(parts) if part is not None)
    if degrees > most:
        return None
    return -degrees if letter == signs[1] else degrees


def _altitude(place: Mapping[int, Any]) -> float | None:
    metres = _number(place, _ALT, 0, 1e6)
    if metres is None:
        return None
    below_sea = _get(place, _ALT_REF) in (1, b"\x01")
    return -metres if below_sea else metres
