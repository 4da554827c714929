"""Camera RAW, through the optional extra ``raw`` (rawpy, which wraps LibRaw)."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO
from typing import Any

from PIL import Image

from fovea.search.clip.preprocess import ORIENTATION, Preprocess, orientation, to_rgb
from fovea.search.duplicates.signature import signature_of
from fovea.search.library.rows import ImageMetadata

from .exif import read_shot
from .limits import Limits, Refused
from .picture import DecodedPicture, check_decoded, check_pixels

_TURNS = {3: 3, 5: 8, 6: 6}  # LibRaw's flip -> EXIF orientation


def decode_raw(data: bytes, preprocess: Preprocess, limits: Limits) -> DecodedPicture:
    """Decode a RAW file: the camera's preview if it is large enough, else the sensor's data.

    Developing the data takes seconds, and the preview looks as the photographer saw it.
    """
    with _opened(data, limits) as raw:
        size, turned = (raw.sizes.width, raw.sizes.height), _turn(raw)
        preview = _preview(raw, preprocess, limits)
        image = to_rgb(_postprocessed(raw) if preview is None else preview)
        pixels, signature = preprocess.pixels(image), signature_of(image)
        shot = _shot(data, preview)
    width, height = size[::-1] if turned >= 5 else size
    metadata = replace(shot, width=width, height=height, format="RAW", orientation=turned)
    return DecodedPicture(pixels, metadata, signature=signature)


def developed(data: bytes, size: int, limits: Limits) -> Image.Image:
    """Return a RAW file as an upright picture to look at.

    That is its preview if the short side has ``size`` pixels, or as many as the data at half its
    size, which it is else. A preview's colour profile stays in its ``info``. Raise ``Refused`` as
    ``decode_raw`` does.
    """
    with _opened(data, limits) as raw:
        least = min(size, (min(raw.sizes.width, raw.sizes.height) + 1) // 2)
        preview = _preview(raw, Preprocess(size), limits, least)
        if preview is None:
            return _postprocessed(raw)
        profile = preview.info.get("icc_profile")
        made = to_rgb(preview)
        made.info = {"icc_profile": profile}
        return made


@contextmanager
def _opened(data: bytes, limits: Limits) -> Iterator[Any]:
    """Open a RAW file. Raise ``Refused`` if it, or what is done with it, is beyond LibRaw."""
    import rawpy

    try:
        with rawpy.imread(BytesIO(data)) as raw:
            check_pixels((raw.sizes.width, raw.sizes.height), limits)
            yield raw
    except rawpy.LibRawError as exc:
        said = exc.args[0] if exc.args else exc
        text = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
        raise Refused(f"broken: cannot read RAW data: {text}") from exc


def _turn(raw: Any) -> int:
    """Return the EXIF orientation of the sensor's data."""
    return _TURNS.get(raw.sizes.flip, 1)


def _postprocessed(raw: Any) -> Image.Image:
    """Develop the sensor's data at half its size; LibRaw turns it upright."""
    return Image.fromarray(raw.postprocess(half_size=True, use_camera_wb=True))


def _preview(
    raw: Any, preprocess: Preprocess, limits: Limits, least: int | None = None
) -> Image.Image | None:
    """Open the stored JPEG, if its short side has enough pixels for the model, or ``least``."""
    import rawpy

    try:
        thumb = raw.extract_thumb()
    except (rawpy.LibRawNoThumbnailError, rawpy.LibRawUnsupportedThumbnailError):
        return None
    if thumb.format != rawpy.ThumbFormat.JPEG:
        return None
    try:
        image = Image.open(BytesIO(thumb.data), formats=("JPEG",))
    except (OSError, SyntaxError):
        return None  # the sensor's data may still be good
    if min(image.size) < (preprocess.draft_size[0] if least is None else least):
        return None
    check_pixels(image.size, limits)
    preprocess.draft(image)
    check_decoded(image, limits)
    if orientation(image) == 1:  # it need not carry the orientation itself
        image.getexif()[ORIENTATION] = _turn(raw)
    return image


def _shot(data: bytes, preview: Image.Image | None) -> ImageMetadata:
    """Read the EXIF of the RAW file itself, mostly a TIFF, or else its preview's."""
    exif = Image.Exif()
    try:
        if data[:4] in (b"II*\0", b"MM\0*"):
            exif.load(data)
        elif preview is not None:
            exif = preview.getexif()
    except Exception:  # Pillow raises many kinds for broken EXIF, which must not cost the picture
        return ImageMetadata()
    return read_shot(exif, preview)
