"""Believe what a row says of its picture only where a picture can be so."""

import math
from collections.abc import Mapping
from dataclasses import fields
from datetime import datetime
from typing import get_args

from fovea.indexer.decoding.limits import one_line
from fovea.search.library.rows import ImageMetadata

__all__ = ["FACTS", "sound_facts"]

OF_VIDEOS = ("duration_ms", "poster_ms")
FACTS = {
    one.name: get_args(one.type)[0] for one in fields(ImageMetadata) if one.name not in OF_VIDEOS
}
TEXT = 1000  # characters
DATE = "0001-01-01T00:00:00"
LONGEST_DATE = 32
RANGES = {  # of numbers, as ``decoding`` reads them from files
    "width": (1, 1 << 31),
    "height": (1, 1 << 31),
    "orientation": (1, 8),
    "exposure": (1e-9, 1e6),
    "f_number": (0.1, 1000),
    "iso": (1, 1 << 31),
    "focal_length": (0.1, 1e5),
    "latitude": (-90, 90),
    "longitude": (-180, 180),
    "altitude": (-1e6, 1e6),
}


def sound_facts(row: Mapping[str, object]) -> dict[str, str | int | float]:
    """Return the fields of ``ImageMetadata`` that a row has right; its texts are bytes."""
    found: dict[str, str | int | float] = {}
    for name, kind in FACTS.items():
        value = row.get(name)
        if kind is str and isinstance(value, bytes):
            if (text := _text(value)) is not None and (name != "taken_at" or _is_date(text)):
                found[name] = text
        elif isinstance(value, int | float) and isinstance(value, kind) and math.isfinite(value):
            low, high = RANGES[name]
            if low <= value <= high:
                found[name] = value
    return found


def _text(value: bytes) -> str | None:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return None
    return text if text and one_line(text, TEXT) == text else None


def _is_date(text: str) -> bool:
    """Whether a text is a date, or the beginning of one, from the year to the second or further."""
    if not text.isascii() or len(text) > LONGEST_DATE or text[4:5] not in ("", "-"):
        return False
    try:
        datetime.fromisoformat(text + DATE[len(text) :])
    except ValueError:
        return False
    return True
