"""Which of several copies is the best original, and what the others lack, in words."""

from dataclasses import dataclass
from math import log

__all__ = ["LACKS", "Facts", "lacking", "rank"]

# What a copy lacks beside the best, or what was done to it: in this order.
LACKS = {
    "nothing": "the same file content",
    "whole": "damaged",
    "pixels": "fewer pixels",
    "date": "no date",
    "camera": "no camera",
    "place": "no coordinates",
    "format": "a lossier format",
    "sharpness": "less sharp",
    "quality": "stored more coarsely",
    "mirrored": "mirrored",
    "changed": "something drawn in, here or there",
}

# The less a format has lost, the better; unknown ones come last.
_FORMATS = {
    "RAW": 6, "TIFF": 5, "PNG": 4, "BMP": 4, "PPM": 4, "HEIF": 3, "AVIF": 3, "JPEG": 3,
    "JPEG2000": 3, "WEBP": 2, "GIF": 1,
}  # fmt: skip
STEP = 0.1  # of pixels, within which other things decide
CLEARER = 0.5  # of sharpness: a factor of 1.6; editing and turning change it a little
SMALLER = 0.98  # of the pixels: what has fewer is smaller
SOFTER = 0.8  # of the sharpness
COARSER = 0.7  # of the bytes for the same pixels, in the same format


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of one picture of a group."""

    pixels: int
    format: str
    bytes: int
    sharpness: float
    has_date: bool  # as its file records it
    has_camera: bool
    has_place: bool
    is_damaged: bool = False


def rank(facts: Facts, is_burst: bool = False) -> tuple[float, ...]:
    """Return a key that is largest for the best original, or the best of a burst.

    Whole before damaged; then pixels, in steps of 10 %; which metadata are there; the format;
    sharpness, in steps that one sees; bytes; and what is left of sharpness and pixels. In a burst,
    sharpness comes first.
    """
    known = facts.has_date + facts.has_camera + facts.has_place
    size = round(log(max(facts.pixels, 1)) / STEP)
    kind = _FORMATS.get(facts.format, 0)
    sharp = facts.sharpness if is_burst else 0.0
    clear = round(log(max(facts.sharpness, 0.1)) / CLEARER)
    return (
        not facts.is_damaged, sharp, size, known, kind, clear, facts.bytes, facts.sharpness,
        facts.pixels,
    )  # fmt: skip


def lacking(
    facts: Facts, best: Facts, is_mirrored: bool = False, is_changed: bool = False
) -> tuple[str, ...]:
    """Return the keys of ``LACKS`` that hold of a copy."""
    is_as_large = facts.pixels >= best.pixels * SMALLER
    is_coarse = facts.format == best.format and facts.bytes < best.bytes * COARSER
    found = {
        "whole": facts.is_damaged and not best.is_damaged,
        "pixels": not is_as_large,
        "date": best.has_date and not facts.has_date,
        "camera": best.has_camera and not facts.has_camera,
        "place": best.has_place and not facts.has_place,
        "format": _FORMATS.get(facts.format, 0) < _FORMATS.get(best.format, 0),
        "sharpness": facts.sharpness < best.sharpness * SOFTER,
        "quality": is_as_large and is_coarse,
        "mirrored": is_mirrored,
        "changed": is_changed,
    }
    return tuple(name for name, holds in found.items() if holds)
