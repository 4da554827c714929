"""Turn any decoded image into the square of pixels that an image tower takes.

Imports Pillow and NumPy only, because indexing workers use it and must stay light.
"""

import math
import re
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from .config import PUBLISHED_MEAN, PUBLISHED_STD, ClipConfig, Colour
from .patches import packed

ORIENTATION = 0x0112  # the EXIF tag
LONGEST = 40  # sides up to this many times the short one are resized whole, as references do
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_XMP_TURN = re.compile(r"\btiff:Orientation\s*(?:=\s*[\"']|>)\s*([1-8])\s*[\"'<]")
_GREYS = {"F", "I", "I;16", "I;16L", "I;16B", "I;16N"}
_PREMULTIPLIED = {"La": "LA", "RGBa": "RGBA"}
_BITS, _PHOTOMETRIC, _SAMPLES = 258, 262, 339  # TIFF 6.0: BitsPerSample and so on, SampleFormat

Fit = Literal["crop", "squash", "patches"]


@dataclass(frozen=True, slots=True)
class Preprocess:
    """How a model's images become pixels, ``size`` a side; mean and deviation are those of 0 to 1.

    ``fit`` is how an image becomes a square: cropped from its middle, squashed, or packed as
    patches (see ``patches.py``), in which case ``size`` is that of the packed square. Before a
    crop, the short side is resized to ``resize`` pixels, or ``size`` if that is 0. ``resampling``
    is Pillow's name of the filter. If a crop leaves an odd number of pixels, ``rounds_down`` puts
    the larger half after it, as ``transformers`` does; otherwise Python's ``round`` decides, as in
    the reference code.
    """

    size: int
    mean: Colour = PUBLISHED_MEAN
    std: Colour = PUBLISHED_STD
    fit: Fit = "crop"
    resize: int = 0
    resampling: str = "BICUBIC"
    rounds_down: bool = False
    patch: int = 0  # pixels a side of a patch, and
    patches: int = 0  # the most of them an image may have, if ``fit`` is "patches"

    @classmethod
    def from_config(cls, config: ClipConfig) -> "Preprocess":
        """Return the preprocessing that a model's configuration asks for."""
        return cls(
            config.vision.image_size,
            config.mean,
            config.std,
            config.fit,
            config.resize,
            config.resampling,
        )

    @property
    def draft_size(self) -> tuple[int, int]:
        """The least (width, height) to decode at; a square, so that it suits rotated images too."""
        if self.fit == "patches":
            side = math.isqrt(self.patches) * self.patch  # no short side exceeds a square's
        else:
            side = max(self.size, self.resize)
        return side, side

    def draft(self, image: Image.Image) -> None:
        """Have an opened, not yet loaded JPEG decode at the smallest scale that suffices.

        ``image.size`` shrinks to no less than ``draft_size``, so read the true size before.
        """
        image.draft(None, self.draft_size)

    def pixels(self, image: Image.Image) -> np.ndarray:
        """Return uint8 (size, size, 3): upright, RGB, resized and fitted into the square."""
        if image.mode != "L" or not _is_plain(image):  # a grey one is resized first: it is smaller
            image = to_rgb(image)
        resampling = Image.Resampling[self.resampling]
        if self.fit == "patches":
            return packed(to_rgb(image), self.patch, self.patches, resampling)
        if self.fit == "squash":
            return np.asarray(image.resize((self.size, self.size), resampling).convert("RGB"))
        return self._cropped(image, resampling)

    def _cropped(self, image: Image.Image, resampling: Image.Resampling) -> np.ndarray:
        short, target = min(image.size), self.resize or self.size
        width, height = (int(target * side / short) for side in image.size)
        left, top = self._margin(width), self._margin(height)
        right, bottom = left + self.size, top + self.size
        if max(width, height) > LONGEST * target:
            # Resize the crop only: all of a panorama, resized, might not fit in memory.
            x, y = image.width / width, image.height / height
            box = (left * x, top * y, min(right * x, image.width), min(bottom * y, image.height))
            square = image.resize((self.size, self.size), resampling, box=box)
        else:
            square = image.resize((width, height), resampling)
            square = square.crop((left, top, right, bottom))
        return np.asarray(square.convert("RGB"))

    def _margin(self, side: int) -> int:
        """Return the number of pixels before the crop."""
        left = side - self.size
        return left // 2 if self.rounds_down else round(left / 2)

    def normalise(self, pixels: np.ndarray) -> np.ndarray:
        """Turn uint8 (n, s, s, 3) into the float32 (n, 3, s, s) that the reference model takes."""
        mean, std = np.array(self.mean, np.float32), np.array(self.std, np.float32)
        values = (pixels.astype(np.float32) / np.float32(255) - mean) / std
        return np.ascontiguousarray(values.transpose(0, 3, 1, 2))


def to_rgb(image: Image.Image) -> Image.Image:
    """Return the image upright and as RGB, its first frame if it is animated.

    Transparent parts become white. Greys of more than 8 bits are scaled to 8. Raise what Pillow
    raises for an image that cannot be decoded.
    """
    if image.mode == "RGB" and _is_plain(image):
        return image
    return as_rgb(upright(image)[0])


def _is_plain(image: Image.Image) -> bool:
    """Say whether an image is made in memory, and nothing but pixels."""
    return not image.info and not hasattr(image, "fp")


def upright(image: Image.Image) -> tuple[Image.Image, int]:
    """Decode an image and turn it; return it with the orientation, 1 to 8, that it was stored in.

    Of several frames it is the first, or the one that a HEIF file names as its primary item. What
    the result's ``info`` and EXIF say of an orientation is void.
    """
    if image.format != "HEIF" and hasattr(image, "tell") and image.tell():
        image.seek(0)
    stored, is_tagged = orientation(image), _has_tag(image)
    image.load()
    # A TIFF turns itself upright while it is loaded, and then drops its tag.
    if stored == 1 or (image.format == "TIFF" and is_tagged and not _has_tag(image)):
        return image, stored
    return turned(image, stored), stored


def _has_tag(image: Image.Image) -> bool:
    try:
        return ORIENTATION in image.getexif()
    except Exception:  # Pillow raises many types for broken EXIF, which must not cost the image
        return False


def turned(image: Image.Image, stored: int) -> Image.Image:
    """Return an image upright that is stored in this orientation, 1 to 8."""
    return image.transpose(_TURNS[stored]) if stored in _TURNS else image


def orientation(image: Image.Image) -> int:
    """Return the orientation, 1 to 8, that an image is stored in, before it is decoded.

    That is its EXIF's, if it is valid, or else its XMP's; 1 if both are missing or unreadable. HEIF
    and AVIF turn their pictures by rules of their own (ISO/IEC 23008-12, section 6.5.10), which
    their decoders apply or, for AVIF, hand on as EXIF: what else their metadata say is void.
    """
    if image.format == "HEIF":
        return 1
    try:
        found = _valid_turn(image.getexif().get(ORIENTATION))
    except Exception:  # Pillow raises many types for broken EXIF, which must not cost the image
        found = None
    if image.format == "AVIF":
        return 1 if found is None or "exif" not in image.info else found
    return found or _xmp_turn(image) or 1


def _valid_turn(value: object) -> int | None:
    """Return an orientation as a number of 1 to 8, however it is stored; None if it is not one."""
    if isinstance(value, tuple | list | bytes) and value:
        value = value[0]
    if isinstance(value, str | bytes | tuple | list) or value not in range(1, 9):
        return None
    return int(value)  # type: ignore[call-overload]  # it equals one of them


def _xmp_turn(image: Image.Image) -> int | None:
    for key in ("xmp", "XML:com.adobe.xmp"):
        packet = image.info.get(key)
        if isinstance(packet, bytes):
            packet = packet.decode("utf-8", "replace")
        if isinstance(packet, str) and (found := _XMP_TURN.search(packet)):
            return int(found[1])
    return None


def as_rgb(image: Image.Image) -> Image.Image:
    """Convert a decoded image, of whatever mode, to RGB; transparent parts become white."""
    if image.mode in _GREYS:
        return _eight_bits(image).convert("RGB")
    if image.mode in _PREMULTIPLIED:
        image = image.convert(_PREMULTIPLIED[image.mode])
    if image.has_transparency_data:
        rgba = image if image.mode == "RGBA" else image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), rgba).convert("RGB")
    if image.mode == "LAB":
        return _from_lab(image)
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scale a grey of more than 8 bits, or of floats, to 8 bits.

    The range is the smallest of 0 to 1 (floats only), 255, 65535 and, without a sign, 32 bits that
    holds all values, or else the values' own; a TIFF of 9 to 15 bits says so itself. One whose 0 is
    white (TIFF 6.0, PhotometricInterpretation 0) is inverted; Pillow does so for 8 bits alone.
    """
    raw = np.asarray(image)
    ranges: tuple[int, ...] = {"F": (1, 255, 65535), "I": (255, 65535)}.get(image.mode, (65535,))
    bits = _tag(image, _BITS)
    if 8 < bits < 16:
        ranges = (2**bits - 1, *ranges)
    elif image.mode == "I" and bits == 32 and _tag(image, _SAMPLES, 1) == 1:
        raw, ranges = raw.view(np.uint32), (*ranges, 2**32 - 1)  # Pillow's integers have a sign
    values = np.nan_to_num(raw.astype(np.float32), posinf=0, neginf=0)
    low, high = float(values.min()), float(values.max())
    top = next((top for top in ranges if low >= 0 and high <= top), None)
    if top is not None:
        low, high = 0, top
    scaled = (values - low) * (255 / max(high - low, 1e-30))
    grey = np.rint(scaled).astype(np.uint8)
    return Image.fromarray(255 - grey if _tag(image, _PHOTOMETRIC, 1) == 0 else grey)


def _tag(image: Image.Image, tag: int, default: int = 0) -> int:
    """Return the first number of a TIFF's tag."""
    value = getattr(image, "tag_v2", {}).get(tag, default)
    if isinstance(value, tuple):
        value = value[0] if value else default
    return value if isinstance(value, int) else default


def _from_lab(image: Image.Image) -> Image.Image:
    from PIL import ImageCms

    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    assert converted is not None
    return converted
