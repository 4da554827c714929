"""Turn any decoded image into the square of pixels that an image tower takes.

Imports Pillow and NumPy only, because indexing workers use it and must stay light.
"""

import math
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
        image = to_rgb(image)
        resampling = Image.Resampling[self.resampling]
        if self.fit == "patches":
            return packed(image, self.patch, self.patches, resampling)
        if self.fit == "squash":
            return np.asarray(image.resize((self.size, self.size), resampling))
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
        return np.asarray(square)

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

    Transparent parts become white. Greys of 16 bits or more are scaled to 8. Raise what Pillow
    raises for an image that cannot be decoded.
    """
    if image.mode == "RGB" and not image.info and not hasattr(image, "fp"):
        return image  # made in memory
    if hasattr(image, "tell") and image.tell():
        image.seek(0)
    image.load()  # a TIFF turns itself upright here, and drops its tag
    turn = _TURNS.get(orientation(image))
    return _as_rgb(image if turn is None else image.transpose(turn))


def orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8, or 1 if it is missing or unreadable."""
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except Exception:  # Pillow raises many types for broken EXIF, which must not cost the image
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        return _eight_bits(image).convert("RGB")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image.convert("RGBA"))
        return white.convert("RGB")
    if image.mode == "LAB":
        return _from_lab(image)
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scale a grey of 16 or 32 bits, or of floats, to 8 bits.

    The range is the smallest of 0 to 1 (floats only), 255 and 65535 that holds all values, or else
    the values' own.
    """
    values = np.nan_to_num(np.asarray(image).astype(np.float32), posinf=0, neginf=0)
    low, high = float(values.min()), float(values.max())
    ranges = {"F": (1, 255, 65535), "I": (255, 65535)}.get(image.mode, (65535,))
    top = next((top for top in ranges if low >= 0 and high <= top), None)
    if top is not None:
        low, high = 0, top
    scaled = (values - low) * (255 / max(high - low, 1e-30))
    return Image.fromarray(np.rint(scaled).astype(np.uint8))


def _from_lab(image: Image.Image) -> Image.Image:
    from PIL import ImageCms

    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    assert converted is not None
    return converted
