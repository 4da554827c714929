"""Augmentation: random crops, flips, colours, sharpness and dropped words."""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from fovea.search.clip.errors import ModelError

MOST_DETAIL = 4.0  # largest factor of an image's detail at a sharpness of 1; the least is 1/4


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How much to vary: shares of the area, ratios of the sides, strengths from 0 to 1.

    ``sharpness`` blurs or sharpens, so that a model trained on enlarged images does not depend on
    sharpness. ``words`` is the probability of dropping each word of a caption; prompts of class
    names stay complete.
    """

    area: tuple[float, float] = (0.35, 1.0)
    aspect: tuple[float, float] = (0.6, 1.67)
    flip: float = 0.5
    colour: float = 0.3
    grey: float = 0.05
    sharpness: float = 0.0
    words: float = 0.0

    def __post_init__(self) -> None:
        """Raise ``ModelError`` for invalid ranges."""
        for name in ("area", "aspect"):
            value = getattr(self, name)
            is_pair = isinstance(value, tuple) and len(value) == 2 and all(map(_is_number, value))
            if not is_pair or not 0 < value[0] <= value[1] < math.inf:
                raise ModelError(
                    f"augmentation: {name} is {value}; give two numbers above 0, the lower first"
                )
        for name in ("flip", "colour", "grey", "sharpness", "words"):
            value = getattr(self, name)
            if not _is_number(value) or not 0 <= value <= 1:
                raise ModelError(f"augmentation: {name} is {value!r}; give a number from 0 to 1")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def random_crop(
    image: Image.Image, size: int, how: Augmentation, rng: np.random.Generator
) -> np.ndarray:
    """Cut a random box out of an RGB image and resize it to uint8 (size, size, 3).

    As in Szegedy et al. 2015 (arXiv:1409.4842), section 6, its share of the area and the logarithm
    of its aspect ratio are uniform.
    """
    width, height = image.size
    area = width * height * rng.uniform(*how.area)
    ratio = math.exp(rng.uniform(math.log(how.aspect[0]), math.log(how.aspect[1])))
    w = min(width, math.sqrt(area * ratio))
    h = min(height, math.sqrt(area / ratio))
    x, y = rng.uniform(0, width - w), rng.uniform(0, height - h)
    out = image.resize((size, size), Image.Resampling.BILINEAR, box=(x, y, x + w, y + h))
    pixels = np.asarray(out)
    return pixels[:, ::-1] if rng.random() < how.flip else pixels


def drop_words(text: str, share: float, rng: np.random.Generator) -> str:
    """Drop each word of a text with this probability, but keep at least one."""
    words = text.split()
    if not share or len(words) < 2:
        return text
    drawn = rng.random(len(words))
    drawn[drawn.argmax()] = 1
    return " ".join(word for word, luck in zip(words, drawn, strict=True) if luck >= share)


def draw_colours(count: int, how: Augmentation, rng: np.random.Generator) -> np.ndarray:
    """Draw float32 (count, 4): each image's factors of brightness, contrast, saturation, detail."""
    drawn = np.ones((count, 4), np.float32)
    drawn[:, :3] = rng.uniform(1 - how.colour, 1 + how.colour, size=(count, 3))
    drawn[rng.random(count) < how.grey, 2] = 0
    if how.sharpness:
        drawn[:, 3] = MOST_DETAIL ** rng.uniform(-how.sharpness, how.sharpness, size=count)
    return drawn


def vary_colour(images: Tensor, factors: np.ndarray) -> Tensor:
    """Change float (n, 3, s, s) in 0 to 1 by the factors (n, 4) of ``draw_colours``.

    A saturation of 0 makes an image grey; contrast is relative to its mean luma; detail is the
    difference from a binomial blur over 3 x 3 pixels. Runs on the images' device.
    """
    drawn = torch.from_numpy(factors).to(images.device)
    bright, contrast, colourful, detail = drawn.T[:, :, None, None, None]
    weights = images.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)  # ITU-R BT.601 luma
    if (factors[:, 3] != 1).any():
        line = images.new_tensor([0.25, 0.5, 0.25])
        kernel = (line[:, None] * line).expand(images.shape[1], 1, 3, 3)
        padded = F.pad(images, (1, 1, 1, 1), mode="replicate")
        blurred = F.conv2d(padded, kernel, groups=images.shape[1])
        images = blurred + (images - blurred) * detail
    images = images * bright
    grey = (images * weights).sum(dim=1, keepdim=True)
    images = grey + (images - grey) * colourful
    mean = grey.mean(dim=(2, 3), keepdim=True)
    return (mean + (images - mean) * contrast).clamp_(0, 1)
