"""Read a photograph's EXIF. None of it can be trusted, so nothing here raises."""

from collections.abc import Mapping
from typing import Any

from PIL import Image

from fovea.search.library.rows import ImageMetadata

from .dates import date_taken
from .limits import one_line
from .places import altitude, coordinates
from .tags import Tags, finite, get

TEXT = 100  # characters kept of a camera's or lens's name

# Tags of Exif 2.32, CIPA DC-008-2019.
_MAKE, _MODEL = 0x010F, 0x0110
_EXPOSURE, _F_NUMBER, _ISO = 0x829A, 0x829D, 0x8827
_FOCAL_LENGTH, _LENS = 0x920A, 0xA434


def read_shot(
    exif: Image.Exif, image: Image.Image | None = None, data: bytes = b""
) -> ImageMetadata:
    """Read how, when and where a photograph was taken; None for what is missing or invalid.

    ``image`` is the opened picture, for the XMP, IPTC and PNG tags that stand in where Exif says
    nothing that is sure, and ``data`` the bytes that it was opened from.
    """
    tags = Tags(exif, image, data)
    main, details = tags.main, tags.details
    iso = _number(details, _ISO, 1, 2**31)
    latitude, longitude = coordinates(tags)
    taken = date_taken(tags)
    return ImageMetadata(
        taken_at=None if taken is None else taken.date,
        dated_by=None if taken is None else taken.tag,
        camera=camera_name(_text(main, _MAKE), _text(main, _MODEL)),
        lens=_text(details, _LENS),
        exposure=_number(details, _EXPOSURE, 1e-9, 1e6),
        f_number=_number(details, _F_NUMBER, 0.1, 1000),
        iso=None if iso is None else int(iso),
        focal_length=_number(details, _FOCAL_LENGTH, 0.1, 1e5),
        latitude=latitude,
        longitude=longitude,
        altitude=altitude(tags.gps),
    )


def _text(values: Mapping[int, Any], tag: int) -> str | None:
    value = get(values, tag)
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return one_line(value.partition("\0")[0], TEXT) or None if isinstance(value, str) else None


def _number(values: Mapping[int, Any], tag: int, low: float, high: float) -> float | None:
    value = get(values, tag)
    if isinstance(value, tuple) and value:  # some cameras write two ISO speeds
        value = value[0]
    number = finite(value)
    return number if number is not None and low <= number <= high else None


def camera_name(make: str | None, model: str | None) -> str | None:
    """Join maker and model, without saying the maker twice ("Canon Canon EOS R5")."""
    if make and model and not model.lower().startswith(make.split()[0].lower()):
        return one_line(f"{make} {model}", TEXT)
    return model or make
