"""The process that decodes pictures for the server, under the limits that hold for indexed ones.

Started by ``rendering`` as a program of its own. A request is a line of JSON and a file's bytes,
an answer a line of JSON and bytes. An alarm of the kernel ends the process where a picture takes
too long, an address-space limit where it grows too large.
"""

import io
import json
import os
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image

    from fovea.indexer.decoding.limits import Limits

QUALITY = 80  # of WebP
LONGEST = 4  # a thumbnail's long side, as a multiple of its short one; more of it is cut off
PROFILE_BYTES = 1 << 20  # of a colour profile that is heeded


def main(descriptor: str, limits: str) -> None:
    """Answer requests until the other end closes the connection."""
    os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"
    from signal import ITIMER_REAL, setitimer

    from fovea.indexer.decoding.limits import Limits
    from fovea.indexer.decoding.pillow import prepare

    from .worker import GROWTH, address_space, confine

    prepare()
    bounds = Limits(**json.loads(limits))
    connection = Connection(int(descriptor))
    most = confine(bounds.memory) + int(GROWTH * bounds.memory)
    connection.send_bytes(b"ready")
    while True:
        try:
            request, data = json.loads(connection.recv_bytes()), connection.recv_bytes()
        except (EOFError, ConnectionError):
            return
        setitimer(ITIMER_REAL, bounds.seconds)  # nobody handles the alarm: it ends the process
        answer, made = answered(request, data, bounds)
        setitimer(ITIMER_REAL, 0)
        # what decoders leak would some day make a sound picture exceed the limit
        answer["tired"] = address_space() > most
        connection.send_bytes(json.dumps(answer).encode())
        connection.send_bytes(made)


def answered(
    request: Mapping[str, Any], data: bytes, limits: "Limits"
) -> tuple[dict[str, Any], bytes]:
    """Do what is asked with a picture's bytes; ``refused`` in the answer says why not."""
    from fovea.indexer.decoding.limits import Refused

    try:
        if request["make"] == "pixels":
            return {}, _pixels(data, request["preprocess"], request["raw"], limits)
        return _webps(data, request, limits)
    except Refused as exc:
        return {"refused": str(exc)}, b""
    except MemoryError:
        return {"refused": "too large: no memory to decode it"}, b""


def _pixels(data: bytes, preprocess: dict[str, Any], raw: bool, limits: "Limits") -> bytes:
    """What a model sees: uint8 (size, size, 3)."""
    from fovea.indexer.decoding.pillow import decode
    from fovea.search.clip.preprocess import Preprocess

    return decode(data, Preprocess(**preprocess), limits, raw).pixels.tobytes()


def _webps(
    data: bytes, request: Mapping[str, Any], limits: "Limits"
) -> tuple[dict[str, Any], bytes]:
    """The picture in each of the sizes asked for, the largest first, one after another."""
    from PIL import UnidentifiedImageError

    from fovea.indexer.decoding.limits import Refused, one_line

    sizes = sorted(request["sizes"], reverse=True)
    try:
        image = _opened(data, request["raw"], sizes[0], limits)
        parts = []
        for size in sizes:
            image = _fitted(image, size, request["make"] == "thumbnails")
            parts.append(_webp(image))
    except (Refused, MemoryError):
        raise
    except Exception as exc:  # Pillow's decoders raise nearly every kind for a broken file
        reason = one_line(str(exc)) or type(exc).__name__
        if isinstance(exc, UnidentifiedImageError):
            reason = "no picture that can be read"
        raise Refused(f"broken: {reason}") from exc
    return {"sizes": dict(zip(map(str, sizes), map(len, parts), strict=True))}, b"".join(parts)


def _opened(data: bytes, raw: bool, size: int, limits: "Limits") -> "Image.Image":
    """The picture upright, as sRGB, decoded no larger than needed."""
    from PIL import Image

    from fovea.indexer.decoding.formats import PILLOW_FORMATS
    from fovea.indexer.decoding.picture import check_decoded, check_pixels
    from fovea.indexer.decoding.precheck import screened
    from fovea.search.clip.preprocess import to_rgb

    if raw:
        from fovea.indexer.decoding.raw import developed

        return developed(data, size, limits)
    with Image.open(io.BytesIO(screened(data, limits)), formats=PILLOW_FORMATS) as image:
        check_pixels(image.size, limits)
        profile = image.info.get("icc_profile")
        image.draft(None, (size, size))
        check_decoded(image, limits)
        return to_rgb(_as_srgb(image, profile))


def _as_srgb(image: "Image.Image", profile: object) -> "Image.Image":
    """Heed the colour profile of a picture, of ink and of grey too; a broken one changes nothing.

    Only of pictures without transparency: what they are laid upon is white in any profile.
    """
    from PIL import ImageCms

    sound = isinstance(profile, bytes) and len(profile) <= PROFILE_BYTES
    if not sound or image.mode not in ("RGB", "L", "CMYK") or image.has_transparency_data:
        return image
    assert isinstance(profile, bytes)
    image.load()
    try:
        own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        srgb = ImageCms.createProfile("sRGB")
        found = ImageCms.profileToProfile(image, own, srgb, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image
    assert found is not None
    found.info = dict(image.info)  # it says which side is up
    return found


def _fitted(image: "Image.Image", size: int, by_short_side: bool) -> "Image.Image":
    """The picture so that its short (or else its long) side has ``size`` pixels, if it has more."""
    from PIL import Image

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


def _webp(image: "Image.Image") -> bytes:
    file = io.BytesIO()
    image.save(file, "WEBP", quality=QUALITY, method=2)
    return file.getvalue()
