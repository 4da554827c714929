"""Example queries and their first hits, which show what a model misses."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image

from fovea.search.clip.datasets.pairs import PairSet
from fovea.search.clip.preprocess import to_rgb

from .evaluate import Embedded

SIDE = 128  # pixels, the longest of a thumbnail
QUALITY = 70  # of its WebP


@dataclass(frozen=True, slots=True)
class ShownImage:
    """An image of an answer: its name, a small WebP, and whether it is a right one."""

    file: str
    picture: bytes
    is_right: bool


@dataclass(frozen=True, slots=True)
class ModelAnswer:
    """One model's first hits, and the rank, from 1, of the first right image."""

    rank: int
    hits: tuple[ShownImage, ...]


@dataclass(frozen=True, slots=True)
class ExampleQuery:
    """A query, the first of its right images, and each model's answer."""

    query: str
    right: ShownImage
    answers: tuple[ModelAnswer, ...]


def pick_examples(
    found: PairSet, measured: Sequence[Embedded], *, count: int = 24, hits: int = 8, seed: int = 0
) -> list[ExampleQuery]:
    """Draw ``count`` texts, each of another image, with each model's answer.

    All of ``measured`` are of the same pairs. The draw depends only on the seed and the number of
    texts, so that two models are compared by the same queries.
    """
    first = measured[0]
    thumbnail = cache(lambda image: _thumbnail(found.read(first.pairs[image])))

    def shown(image: int, text: int) -> ShownImage:
        is_right = bool(_right(first, text)[image])
        return ShownImage(first.pairs[image].file, thumbnail(image), is_right)

    def answer(one: Embedded, text: int) -> ModelAnswer:
        order = np.argsort(-(one.images @ one.text_rows[text]), kind="stable")  # (n,)
        rank = int(_right(one, text)[order].argmax()) + 1
        return ModelAnswer(rank, tuple(shown(int(image), text) for image in order[:hits]))

    return [
        ExampleQuery(
            first.texts[text],
            shown(int(_right(first, text).argmax()), text),
            tuple(answer(one, text) for one in measured),
        )
        for text in _drawn(first, count, seed)
    ]


def _drawn(one: Embedded, count: int, seed: int) -> list[int]:
    """Return the numbers of texts with a right image, at most one per key."""
    seen: set[int] = set()
    drawn: list[int] = []
    keys = set(one.image_keys.tolist())
    for text in np.random.default_rng(seed).permutation(len(one.texts)).tolist():
        key = int(one.text_keys[text])
        if key in keys and key not in seen and len(drawn) < count:
            seen.add(key)
            drawn.append(text)
    return drawn


def _right(one: Embedded, text: int) -> np.ndarray:
    """Return bool (n,): which images are right for a text."""
    right: np.ndarray = one.image_keys == one.text_keys[text]
    return right


def _thumbnail(data: bytes) -> bytes:
    with Image.open(io.BytesIO(data)) as file:
        file.draft("RGB", (SIDE, SIDE))
        image = to_rgb(file)
    image.thumbnail((SIDE, SIDE))
    out = io.BytesIO()
    image.save(out, "WEBP", quality=QUALITY)
    return out.getvalue()
