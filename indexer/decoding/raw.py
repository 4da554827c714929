"""Camera RAW, through the optional extra ``raw`` (rawpy, which wraps LibRaw)."""

from io import BytesIO

import numpy as np
from PIL import Image

from fovea.search.clip.preprocess import Preprocess, orientation, to_rgb

from .exif import Shot, read_shot
from .limits import Limits, Refused
from .picture import Picture, check_decoded, check_pixels

_TURNS = {3: 3, 5: 8, 6: 6}  # LibRaw's flip -> EXIF orientation
_TRANSPOSED = {
    3: Image.Transpose.ROTATE_180,
    6: Image.Transpose.ROTATE_270,
    8: Image.Transpose.ROTATE_90,
}


def decode_raw(data: bytes, preprocess: Preprocess, limits: Limits) -> Picture:
    """Decode a RAW file: the camera's preview if it is large enough, else the sensor's data.

    Developing the data takes seconds, and the preview looks as the photographer saw it.
    """
    import rawpy

    try:
        with rawpy.imread(BytesIO(data)) as raw:
            size = raw.sizes.width, raw.sizes.height
            turned = _TURNS.get(raw.sizes.flip, 1)
            check_pixels(size, limits)
            preview = _preview(raw, preprocess, limits)
            if preview is None:
                upright = Image.fromarray(raw.postprocess(half_size=True, use_camera_wb=True))
                pixels = preprocess.pixels(upright)  # LibRaw has applied the orientation
            else:
                pixels = _turned_pixels(preview, turned, preprocess)
            shot = _shot(data, preview)
    except rawpy.LibRawError as exc:
        raise Refused(f"broken: cannot read RAW data: {_said(exc)}") from exc
    width, height = size[::-1] if turned >= 5 else size
    return Picture(pixels, width, height, "RAW", turned, shot)


def developed(data: bytes, size: int, limits: Limits) -> Image.Image:
    """Return a RAW file as an upright picture to look at.

    That is its preview if the short side has ``size`` pixels, else the data at half its size.
    Raise ``Refused`` as ``decode_raw`` does.
    """
    import rawpy

    try:
        with rawpy.imread(BytesIO(data)) as raw:
            check_pixels((raw.sizes.width, raw.sizes.height), limits)
            preview = _preview(raw, Preprocess(size), limits)
            if preview is None:
                return Image.fromarray(raw.postprocess(half_size=True, use_camera_wb=True))
            if orientation(preview) == 1:  # it need not carry the orientation itself
                turned = _TURNS.get(raw.sizes.flip, 1)
                quarters = {3: 180, 6: 270, 8: 90}.get(turned)
                return preview.convert("RGB").rotate(quarters or 0, expand=True)
            return to_rgb(preview)
    except rawpy.LibRawError as exc:
        raise Refused(f"broken: cannot read RAW data: {_said(exc)}") from exc


def _said(exc: Exception) -> str:
    message = exc.args[0] if exc.args else exc
    return message.decode("utf-8", "replace") if isinstance(message, bytes) else str(message)


def _preview(raw: object, preprocess: Preprocess, limits: Limits) -> Image.Image | None:
    """Open the stored JPEG, if it has enough pixels for the model."""
    import rawpy

    try:
        thumb = raw.extract_thumb()  # type: ignore[attr-defined]
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
    return image


def _turned_pixels(preview: Image.Image, turned: int, preprocess: Preprocess) -> np.ndarray:
    """Return the preview's pixels, upright; it need not carry the orientation itself."""
    if orientation(preview) != 1 or turned == 1:
        return preprocess.pixels(preview)
    return preprocess.pixels(to_rgb(preview).transpose(_TRANSPOSED[turned]))


def _shot(data: bytes, preview: Image.Image | None) -> Shot:
    """Read the EXIF of the RAW file itself, mostly a TIFF, or else its preview's."""
    exif = Image.Exif()
    try:
        if data[:4] in (b"II*\0", b"MM\0*"):
            exif.load(data)
        elif preview is not None:
            exif = preview.getexif()
    except Exception:  # Pillow raises many kinds for broken EXIF, which must not cost the picture
        return Shot()
    return read_shot(exif)
