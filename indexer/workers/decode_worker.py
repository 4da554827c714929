"""The process that decodes pictures for ``decode_pool``, under the limits of indexing.

A request says what to make of a picture, whose bytes follow it; what was made follows the answer.
"""

import io
import json
import os
from collections.abc import Mapping
from functools import partial
from typing import Any

from PIL import Image, ImageCms

from fovea.indexer.decoding.formats import VIDEO_REASON, video_available
from fovea.indexer.decoding.limits import Limits, Refused
from fovea.indexer.decoding.pillow import decode, explained, open_picture, plain
from fovea.indexer.decoding.raw import developed
from fovea.search.clip.preprocess import Preprocess

from .host import Message, serve

QUALITY = 80  # of WebP
WHOLE_QUALITY = 92  # of a JPEG to be looked at closely
LONGEST = 4  # a thumbnail's long side, as a multiple of its short one; more of it is cut off
PROFILE_BYTES = 1 << 20  # a larger colour profile is ignored


def main(settings: str) -> None:
    """Serve requests until the other end closes the connection; ``settings`` are JSON."""
    options = json.loads(settings)
    limits = Limits(**options["limits"])
    serve(options["connection"], limits, partial(answer, limits=limits))


def answer(request: Mapping[str, Any], data: bytes, *, limits: Limits) -> Message:
    """Make what is asked for of a picture's bytes; ``refused`` in the answer says why not."""
    try:
        if request["make"] == "pixels":
            preprocess = Preprocess(**request["preprocess"])
            return {}, decode(data, preprocess, limits, request["raw"]).pixels.tobytes()
        return _pictures(data, request, limits)
    except Refused as exc:
        return {"refused": str(exc)}, b""
    except MemoryError:
        return {"refused": "too large: no memory to decode it"}, b""


def _pictures(data: bytes, request: Mapping[str, Any], limits: Limits) -> Message:
    """Return the picture in each of the sizes asked for, the largest first."""
    sizes = sorted(request["sizes"], reverse=True)
    with explained(data, limits):
        if "at" in request:
            image = _frame(request["file"], request["at"], sizes[0], limits)
        else:
            image = _opened(data, request["raw"], sizes[0], limits)
        parts = []
        for size in sizes:
            image = _fitted(image, size, request["make"] == "thumbnails")
            parts.append(_jpeg(image) if request["make"] == "whole" else _webp(image))
    return {"sizes": dict(zip(map(str, sizes), map(len, parts), strict=True))}, b"".join(parts)


def _frame(descriptor: int, at: int, size: int, limits: Limits) -> Image.Image:
    """Decode a video's frame at so many milliseconds, no larger than needed."""
    with os.fdopen(descriptor, "rb") as file:
        if not video_available():
            raise Refused(VIDEO_REASON)
        from fovea.indexer.decoding.video.decode import still

        file.seek(0)  # it shares its place with the descriptor that was sent
        return still(file, at, size, limits)


def _opened(data: bytes, raw: bool, size: int, limits: Limits) -> Image.Image:
    """Decode a picture upright, as sRGB, no larger than needed."""
    if raw:
        image = developed(data, size, limits)
        return plain(_as_srgb(image, image.info.get("icc_profile")))
    image = open_picture(data, limits, lambda image: image.draft(None, (size, size))).image
    return plain(_as_srgb(image, image.info.get("icc_profile")))


def _as_srgb(image: Image.Image, profile: object) -> Image.Image:
    """Apply a picture's colour profile, for CMYK and grey too; a broken one changes nothing.

    Transparent pictures are left as they are: white behind them is white in any profile.
    """
    sound = isinstance(profile, bytes) and len(profile) <= PROFILE_BYTES
    if not sound or image.mode not in ("RGB", "L", "CMYK") or image.has_transparency_data:
        return image
    assert isinstance(profile, bytes)
    try:
        own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        srgb = ImageCms.createProfile("sRGB")
        found = ImageCms.profileToProfile(image, own, srgb, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image
    assert found is not None
    return found


def _fitted(image: Image.Image, size: int, by_short_side: bool) -> Image.Image:
    """Scale a picture down until its short (or else its long) side has ``size`` pixels."""
    width, height = image.size
    if by_short_side and max(width, height) > LONGEST * min(width, height):
        most = LONGEST * min(width, height)
        left, top = max(0, (width - most) // 2), max(0, (height - most) // 2)
        image = image.crop((left, top, left + min(width, most), top + min(height, most)))
        width, height = image.size
    side = min(width, height) if by_short_side else max(width, height)
    if side <= size:
        return image
    shape = max(1, round(width * size / side)), max(1, round(height * size / side))
    return image.resize(shape, Image.Resampling.LANCZOS, reducing_gap=3.0)


def _jpeg(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.convert("RGB").save(file, "JPEG", quality=WHOLE_QUALITY)
    return file.getvalue()


def _webp(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.convert("RGB").save(file, "WEBP", quality=QUALITY, method=2)
    return file.getvalue()
