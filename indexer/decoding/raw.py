"""Camera RAW, through the optional extra ``raw`` (rawpy, which wraps LibRaw)."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO
from typing import Any

from PIL import Image

from fovea.search.clip.preprocess import ORIENTATION, Preprocess, orientation, to_rgb
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
        pixels = preprocess.pixels(_postprocessed(raw) if preview is None else preview)
        shot = _shot(data, preview)
    width, height = size[::-1] if turned >= 5 else size
    metadata = replace(shot, width=width, height=height, format="RAW", orientation=turned)
    return DecodedPicture(pixels, metadata)


def developed(data: bytes, size: int, limits: Limits) -> Image.Image:
    """Return a RAW file as an upright picture to look at.

    That is its preview if the short side has ``size`` pixels, else the data at half its size.
    Raise ``Refused`` as ``decode_raw`` does.
    """
    with _opened(data, limits) as raw:
        preview = _preview(raw, Preprocess(size), limits)
        return _postprocessed(raw) if preview is None else to_rgb(preview)


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


def _preview(raw: Any, preprocess: Preprocess, limits: Limits) -> Image.Image | None:
    """Open the stored JPEG, if it has enough pixels for the model."""
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
    if min(image.size) < preprocess.draft_size[0]:
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
