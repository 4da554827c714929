"""When, where and by which camera a video was taken: what is sure of its container's tags."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime

from fovea.indexer.decoding.exif import camera_name
from fovea.indexer.decoding.limits import one_line
from fovea.search.library.facts.dates import is_plausible
from fovea.search.library.rows import ImageMetadata

__all__ = ["facts_of"]

TEXT = 100  # characters of a camera's name
_APPLE, _ANDROID = "com.apple.quicktime.", "com.android."
_EARLIEST = "1970-01-02"  # an earlier day is a clock that was not set
_DAY = re.compile(r"(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d):(\d\d)(?:\.\d+)?\s*(Z|[+-]\d\d:?\d\d)?$")
# ISO 6709: degrees, or with minutes, or with seconds, by how many digits there are.
_PLACE = re.compile(r"([+-])(\d+(?:\.\d+)?)([+-])(\d+(?:\.\d+)?)(?:([+-]\d+(?:\.\d+)?))?")
NOWHERE = 1e-6  # degrees of 0, 0, which stands for "not known"


def facts_of(*tags: Mapping[str, str]) -> ImageMetadata:
    """Read the tags of a container and its stream; None for what is missing or invalid.

    A phone says the local time; else the time is in UTC, and becomes that of this machine's zone.
    """
    found: dict[str, str] = {}
    for some in reversed(tags):
        found |= {str(key).lower(): str(value)[:1000] for key, value in some.items()}
    taken_at, dated_by = _taken(found)
    latitude, longitude, altitude = _place(found)
    make = found.get(f"{_APPLE}make") or found.get(f"{_ANDROID}manufacturer") or found.get("make")
    model = found.get(f"{_APPLE}model") or found.get(f"{_ANDROID}model") or found.get("model")
    return ImageMetadata(
        taken_at=taken_at,
        dated_by=dated_by,
        camera=camera_name(one_line(make or "", TEXT) or None, one_line(model or "", TEXT) or None),
        latitude=latitude,
        longitude=longitude,
        altitude=altitude,
    )


def _taken(tags: Mapping[str, str]) -> tuple[str | None, str | None]:
    for key in (f"{_APPLE}creationdate", "date_recorded", "creation_time", "date"):
        date = _date(tags.get(key, ""))
        if date is not None and date >= _EARLIEST and is_plausible(date):
            return date, key.removeprefix(_APPLE)
    return None, None


def _date(text: str) -> str | None:
    """Read a date as local time: its own if it has an offset, this machine's if it is in UTC."""
    read = _DAY.match(text.strip())
    if read is None:
        return None
    try:
        when = datetime(*map(int, read.groups()[:6]))  # type: ignore[arg-type]
        if read[7] == "Z":
            when = when.replace(tzinfo=UTC).astimezone().replace(tzinfo=None)
    except (ValueError, OverflowError, OSError):
        return None
    return when.isoformat()


def _place(tags: Mapping[str, str]) -> tuple[float | None, float | None, float | None]:
    keys = (f"{_APPLE}location.iso6709", "location", "location-eng")
    text = next((tags[key] for key in keys if tags.get(key)), "")
    read = _PLACE.match(text.strip())
    if read is None:
        return None, None, None
    latitude, longitude = _degrees(read[1], read[2], 2), _degrees(read[3], read[4], 3)
    if abs(latitude) > 90 or abs(longitude) > 180 or max(abs(latitude), abs(longitude)) < NOWHERE:
        return None, None, None
    altitude = float(read[5]) if read[5] else None
    return latitude, longitude, altitude if altitude is None or abs(altitude) < 1e6 else None


def _degrees(sign: str, digits: str, width: int) -> float:
    """Read DD.DDDD, DDMM.MMM or DDMMSS.SS; ``width`` is how many digits the degrees have."""
    whole = digits.partition(".")[0]
    degrees = float(digits)
    if len(whole) == width + 2:
        degrees = float(digits[:width]) + float(digits[width:]) / 60
    elif len(whole) == width + 4:
        minutes, seconds = float(digits[width : width + 2]), float(digits[width + 2 :])
        degrees = float(digits[:width]) + minutes / 60 + seconds / 3600
    return -degrees if sign == "-" else degrees
