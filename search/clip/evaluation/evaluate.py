"""Measure a model on captioned or labelled images, as its paper does.

Retrieval: Radford et al. 2021 (arXiv:2103.00020), table 13. Zero-shot classification: section 3.1.
"""

import io
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice

import numpy as np
from PIL import Image

from fovea.search.clip.datasets.pairs import Pair, PairSet
from fovea.search.clip.errors import ModelError
from fovea.search.clip.protocols import ImageTextEncoder
from fovea.search.clip.zeroshot import class_embeddings

log = logging.getLogger(__name__)

BATCH = 32
SCORES = 1 << 24  # cosines held at once; 64 MiB
DEPTHS = (1, 5, 10)
TEMPLATES = ("a photo of a {}.", "a picture of a {}.", "a close-up photo of a {}.", "{}")


@dataclass(frozen=True, slots=True)
class Retrieval:
    """Recall, the share of queries with a right answer among the first k, from 0 to 1, by k."""

    images: int
    captions: int
    text_to_image: dict[int, float]
    image_to_text: dict[int, float]

    def to_dict(self) -> dict[str, object]:
        """Return the figures for JSON."""
        return {
            "images": self.images,
            "captions": self.captions,
            "text_to_image": {f"recall@{k}": value for k, value in self.text_to_image.items()},
            "image_to_text": {f"recall@{k}": value for k, value in self.image_to_text.items()},
        }


@dataclass(frozen=True, slots=True)
class Accuracy:
    """The share of images whose class comes first, or among the first five, from 0 to 1."""

    images: int
    classes: int
    top1: float
    top5: float

    def to_dict(self) -> dict[str, object]:
        """Return the figures for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Embedded:
    """Images and texts embedded by one model: unit rows (n, d) and (m, d).

    A text is right for the images whose key, int (n,), equals its own, int (m,): a caption for its
    image, a class name for all images of the class.
    """

    pairs: Sequence[Pair]
    images: np.ndarray
    image_keys: np.ndarray
    texts: Sequence[str]
    text_rows: np.ndarray
    text_keys: np.ndarray

    def figures(self) -> "Retrieval | Accuracy":
        """Return the recall of captions and images, or the accuracy of classes."""
        if self.pairs[0].label >= 0:
            right = self.image_keys[:, None] == self.text_keys
            ranks = _ranks(self.images @ self.text_rows.T, right)
            tops = (float((ranks < k).mean()) for k in (1, 5))
            return Accuracy(len(self.pairs), len(self.texts), *tops)
        found = recalls(self.images, self.text_rows, self.text_keys)
        return Retrieval(len(self.pairs), len(self.texts), **found)


def embed_pairs(
    encoder: ImageTextEncoder, found: PairSet, progress: Callable[[int, int], None] | None = None
) -> Embedded:
    """Embed the images, and their captions or the names of all classes.

    Images that cannot be decoded are logged and left out. Raise ``ModelError`` if none is left or
    an embedding is not finite.
    """
    pairs, images = embed_images(encoder, found, progress)
    if found.class_names:
        numbers = sorted(found.class_names)
        names = [found.class_names[number] for number in numbers]
        keys = np.array([numbers.index(pair.label) for pair in pairs])
        rows, own = _finite(encoder, class_rows(encoder, names)), np.arange(len(names))
        return Embedded(pairs, images, keys, [entry[0] for entry in names], rows, own)
    texts = [text for pair in pairs for text in pair.captions]
    owners = np.repeat(np.arange(len(pairs)), [len(pair.captions) for pair in pairs])  # (m,)
    rows = _finite(encoder, encoder.encode_texts(texts))
    return Embedded(pairs, images, np.arange(len(pairs)), texts, rows, owners)


def _finite(encoder: ImageTextEncoder, rows: np.ndarray) -> np.ndarray:
    if not np.isfinite(rows).all():
        raise ModelError(
            f"{encoder.name} gives embeddings that are not finite: its weights are damaged, or "
            "were trained at too high a rate; fetch it again, or train it at a lower rate"
        )
    return rows


def recalls(
    images: np.ndarray, texts: np.ndarray, owner: np.ndarray
) -> dict[str, dict[int, float]]:
    """Return recall at 1, 5 and 10 in both directions, each text belonging to one image.

    ``images`` (n, d) and ``texts`` (m, d) are unit rows; ``owner`` int (m,) is the number of each
    text's image. An image counts as found if any of its texts is among the k nearest. A tie counts
    against the right answer, and so does a score that is not a number.
    """
    numbers = np.arange(len(images))
    return {
        "text_to_image": _recall(texts, images, lambda rows: owner[rows, None] == numbers),
        "image_to_text": _recall(images, texts, lambda rows: owner == numbers[rows, None]),
    }


def shared_recalls(
    images: np.ndarray, texts: np.ndarray, right: np.ndarray
) -> dict[str, dict[int, float]]:
    """Do as ``recalls`` where a text may belong to several images: ``right`` is bool (n, m)."""
    return {
        "text_to_image": _recall(texts, images, lambda rows: right.T[rows]),
        "image_to_text": _recall(images, texts, lambda rows: right[rows]),
    }


def _recall(
    queries: np.ndarray, targets: np.ndarray, right: Callable[[slice], np.ndarray]
) -> dict[int, float]:
    """Return by k the share of ``queries`` (q, d) with a right target (t, d) among the k nearest.

    ``right`` gives bool (b, t) for a slice of the queries; blocks bound the memory.
    """
    size = max(1, SCORES // max(1, len(targets)))
    blocks = [slice(start, start + size) for start in range(0, len(queries), size)]
    ranks = np.concatenate([_ranks(queries[rows] @ targets.T, right(rows)) for rows in blocks])
    return {k: float((ranks < k).mean()) for k in DEPTHS}


def _ranks(scores: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return for each row (b, t) how many wrong columns reach the best of the ``right`` ones."""
    best = np.where(right, scores, -np.inf).max(axis=1)
    return (~(scores < best[:, None]) & ~right).sum(axis=1)


def class_rows(encoder: ImageTextEncoder, classes: Sequence[Sequence[str]]) -> np.ndarray:
    """Return a unit row per class (c, d): the ensemble over its prompts and all its names."""
    names = [name for entry in classes for name in entry]
    rows = class_embeddings(encoder, names, TEMPLATES)
    owner = np.repeat(np.arange(len(classes)), [len(entry) for entry in classes])
    sums = np.zeros((len(classes), rows.shape[1]), np.float32)
    np.add.at(sums, owner, rows)
    return sums / np.linalg.norm(sums, axis=1, keepdims=True)


def embed_images(
    encoder: ImageTextEncoder, found: PairSet, progress: Callable[[int, int], None] | None = None
) -> tuple[list[Pair], np.ndarray]:
    """Return the pairs whose image can be decoded and those images' unit rows (n, d).

    Raise ``ModelError`` if there are none or a row is not finite.
    """
    kept: list[Pair] = []
    rows: list[np.ndarray] = []
    decoded = _decoded(encoder, found)
    while batch := list(islice(decoded, BATCH)):
        kept += [pair for pair, _ in batch]
        pixels = np.stack([pixels for _, pixels in batch])
        rows.append(_finite(encoder, encoder.encode_pixels(pixels)))
        if progress is not None:
            progress(len(kept), len(found.pairs))
    if not kept:
        raise ModelError(f"none of the {len(found.pairs)} images can be decoded")
    return kept, np.concatenate(rows)


def _decoded(encoder: ImageTextEncoder, found: PairSet) -> Iterator[tuple[Pair, np.ndarray]]:
    """Yield each image's pixels, uint8 (s, s, 3); log and skip what cannot be decoded."""
    for pair in found.pairs:
        try:
            with Image.open(io.BytesIO(found.read(pair))) as image:
                encoder.preprocess.draft(image)
                pixels = encoder.preprocess.pixels(image)
        except Exception as exc:  # Pillow's decoders raise nearly every type for a broken file
            log.warning("left out %s: %s", pair.file, exc or repr(exc))
            continue
        yield pair, pixels
