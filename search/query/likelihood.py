"""How likely a hit is a match at all, so that an answer can end where the matches end.

A cosine says little by itself: its level differs from model to model, between words and pictures,
and from image to image. It is compared with a background: for words, what a few hundred everyday
labels score with the same image; for pictures, how the library's own images resemble each other.
docs/likelihood.md has the method, its sources and its figures.
"""

import hashlib
import json
import logging
import math
import os
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib.resources import files
from pathlib import Path
from statistics import NormalDist
from typing import Protocol
from zipfile import BadZipFile

import numpy as np

from fovea.search.clip.protocols import TextEncoder
from fovea.search.index.vector_index import VectorIndex
from fovea.search.library.library import Library

from .rank import Ranking

__all__ = [
    "LINE",
    "Background",
    "background_path",
    "default_labels",
    "likelihoods",
    "likeliest",
]

log = logging.getLogger(__name__)

LINE = 0.5  # the likelihood at which the likely matches end
TAIL = 0.01  # share of the labels' scores that shows how they fall off
FEW = 20  # images that tell half of what many would
SAME = 0.9995  # a cosine of one picture with itself, but for rounding
SAMPLE = 400  # images of the library that stand for all of them
TEMPLATE = "a photo of a {}."


class ScaledTextEncoder(TextEncoder, Protocol):
    """Embeds texts, and knows the factor of cosines in its model's logits."""

    @property
    def logit_scale(self) -> float: ...


@cache
def default_labels() -> tuple[str, ...]:
    """Everyday things, beings and scenes, in English, that ship with the program."""
    text = files("fovea.data").joinpath("labels.txt").read_text("utf-8")
    return tuple(line for line in text.splitlines() if line)


@dataclass(frozen=True, eq=False)
class Background:
    """What one model makes of the default labels; it is kept beside the library's index."""

    identity: str  # the model's
    vectors: np.ndarray  # float32 (b, d), unit rows, in the order of ``default_labels``
    scale: float  # the inverse temperature of the model's training
    measured: dict[str, tuple[tuple[int, ...], "Surroundings"]] = field(
        default_factory=dict, repr=False
    )  # of the library that was searched last

    @classmethod
    def of(cls, identity: str, encoder: ScaledTextEncoder) -> "Background":
        """Embed the default labels; this takes seconds where the model is large."""
        texts = [TEMPLATE.format(label) for label in default_labels()]
        parts = [encoder.encode_texts(texts[n : n + 64]) for n in range(0, len(texts), 64)]
        return cls(identity, np.concatenate(parts), float(encoder.logit_scale))

    @classmethod
    def load(cls, folder: Path, identity: str) -> "Background | None":
        """Read what ``save`` has left in a library's folder; None on any doubt."""
        try:
            with background_path(folder, identity).open("rb") as file:
                data = np.load(file, allow_pickle=False)
                mark, scale, vectors = str(data["mark"]), float(data["scale"]), data["vectors"]
        except (OSError, ValueError, KeyError, EOFError, IndexError, BadZipFile):
            return None
        rows = vectors.astype(np.float32)
        sound = mark == _mark(identity) and rows.ndim == 2 and len(rows) == len(default_labels())
        if not sound or not np.isfinite(rows).all() or not 0 < scale < 1000:
            return None
        return cls(identity, rows / np.linalg.norm(rows, axis=1, keepdims=True), scale)

    def save(self, folder: Path) -> None:
        """Keep it; a disk that is full or may not be written costs no more than time later."""
        path = background_path(folder, self.identity)
        part = path.with_suffix(f".{os.getpid()}.part")
        try:
            with part.open("wb") as file:
                np.savez(
                    file,
                    mark=_mark(self.identity),
                    scale=self.scale,
                    vectors=self.vectors.astype(np.float16),
                )
            part.replace(path)
        except OSError as exc:
            part.unlink(missing_ok=True)
            log.debug("the background is not kept: %s", exc)

    def levels(self, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and deviation (n,) of the cosines of all labels with each image (n, d)."""
        mean, covariance = self._moments
        variance = np.einsum("nd,nd->n", vectors @ covariance, vectors)
        return vectors @ mean, np.sqrt(np.maximum(variance, 1e-6))

    @cached_property
    def _moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean (d,) and covariance (d, d) of the labels: they tell as much as every cosine does."""
        mean = self.vectors.mean(axis=0)
        apart = self.vectors - mean
        return mean, apart.T @ apart / len(apart)


@dataclass(frozen=True, eq=False)
class Surroundings:
    """Some images of a library, and how the labels' highest scores with them fall off.

    They do so exponentially above ``start``.
    """

    vectors: np.ndarray  # float32 (m, d), unit rows
    mean: np.ndarray  # (m,), of the cosines of all labels with each
    deviation: np.ndarray  # (m,)
    start: float
    slope: float  # mean of what lies above the start, measured from there
    expected: float  # labels above the start with an average image

    @classmethod
    def of(cls, background: Background, vectors: np.ndarray) -> "Surroundings":
        """Measure images (m, d)."""
        mean, deviation = background.levels(vectors)
        scores = (background.vectors @ vectors.T - mean) / deviation  # (b, m)
        scores -= _usual(scores)[:, None]
        start = float(np.quantile(scores, 1 - TAIL))
        above = scores[scores > start] - start
        slope = max(float(above.mean()) if len(above) else 0.0, 1e-3)
        return cls(vectors, mean, deviation, start, slope, TAIL * len(background.vectors))

    def usual(self, query: np.ndarray) -> float:
        """What a query (d,) scores with images that it does not mean."""
        return float(_usual(((self.vectors @ query - self.mean) / self.deviation)[None])[0])


def likeliest(background: Background, vector: np.ndarray, k: int = 5) -> list[tuple[str, float]]:
    """The ``k`` default labels that fit an image (d,) best, with zero-shot probabilities.

    The probabilities of all labels add up to 1 (Radford et al. 2021, arXiv:2103.00020, 3.1.2).
    """
    logits = background.scale * background.vectors @ (vector / np.linalg.norm(vector))
    powers = np.exp(logits - logits.max())
    shares = powers / powers.sum()
    order = np.argsort(-shares, kind="stable")[:k]
    return [(default_labels()[place], float(shares[place])) for place in order]


def likelihoods(
    library: Library, index: VectorIndex, background: Background, ranking: Ranking
) -> np.ndarray | None:
    """How likely each image of a ranking is a match, float32 (n,), 0 to 1; None when browsing.

    An image that the index does not hold, or no longer, gets 0.
    """
    if ranking.scores is None or ranking.vector is None:
        return None
    places, vectors = index.vectors(ranking.ids)
    out = np.zeros(len(ranking.ids), dtype=np.float32)
    if not len(places):
        return out
    scores = ranking.scores[places]
    around = _surroundings(library, index.model.id, background)
    if ranking.kind == "words":
        out[places] = of_words(background, around, ranking.vector, scores, vectors)
    else:
        out[places] = of_pictures(ranking.vector, scores, vectors, around.vectors, ranking.among)
    return out


def of_words(
    background: Background,
    around: Surroundings,
    query: np.ndarray,
    scores: np.ndarray,
    vectors: np.ndarray,
) -> np.ndarray:
    """The likelihood of words (d,), float32 (n,), from their cosines (n,) with images (n, d).

    Each cosine is measured against what the labels score with the same image, then against what
    the words score with the library: the normalisations of speaker verification, by cohort and
    by query (Auckenthaler et al. 2000). Of all labels, so many would score as high with an image
    by the tail of their own scores (Pickands 1975): where that is one, the words are as likely a
    match as not.
    """
    mean, deviation = background.levels(vectors)
    standard = (scores - mean) / deviation - around.usual(query)
    return _sigmoid((standard - around.start) / around.slope - math.log(around.expected))


def _usual(standard: np.ndarray) -> np.ndarray:
    """What each row of scores (q, m) comes to with images that it does not mean, (q,).

    The lower quartile, since the words may mean most of the library; nearer to 0, the labels'
    own mean, where there are few images to tell by.
    """
    count = standard.shape[1]
    quartile: np.ndarray = np.percentile(standard, 25, axis=1) * (count / (count + FEW))
    return quartile


def of_pictures(
    query: np.ndarray, scores: np.ndarray, vectors: np.ndarray, sample: np.ndarray, total: int
) -> np.ndarray:
    """The likelihood of pictures, float32 (n,), from their cosines (n,) with images (n, d).

    Each cosine, its range stretched to that of a normal law (Fisher 1915), is measured against
    those that the image, and the query, have with a sample (m, d) of the library: the symmetric
    normalisation of speaker verification (Kenny 2010). Of ``total`` unrelated images the largest
    such score follows a Gumbel law (Leadbetter et al. 1983, theorem 1.5.3): the likelihood is
    that it stays below this one.
    """
    if len(sample) < 3:
        return np.ones(len(scores), dtype=np.float32)
    by_query = _standard(scores, (query @ sample.T)[None])
    by_image = _standard(scores, vectors @ sample.T)
    standard = (by_query + by_image) / 2
    count = max(total, 3)
    slope, place = math.sqrt(2 * math.log(count)), NormalDist().inv_cdf(1 - 1 / count)
    reach = np.clip(-slope * (standard - place), -50, 50)
    return np.exp(-np.exp(reach)).astype(np.float32)


def _standard(scores: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Scores (n,) in deviations from the mean of those in each row of ``others`` (n or 1, m)."""
    others = np.where(others > SAME, np.nan, others)  # the image itself, or a copy of it
    usual = np.isfinite(others).sum(axis=1) > 1
    others = _stretched(np.where(usual[:, None], others, 0.0))
    deviation = np.maximum(np.nanstd(others, axis=1), 1e-3)
    standard: np.ndarray = (_stretched(scores) - np.nanmean(others, axis=1)) / deviation
    return standard


def _stretched(cosines: np.ndarray) -> np.ndarray:
    """Fisher's transform; what is nearly 1 counts as ``SAME``."""
    stretched: np.ndarray = np.arctanh(np.clip(cosines, -SAME, SAME))
    return stretched


def _sigmoid(odds: np.ndarray) -> np.ndarray:
    return (1 / (1 + np.exp(-np.clip(odds, -50, 50)))).astype(np.float32)


def _floats(blobs: bytes, count: int) -> np.ndarray:
    return np.frombuffer(blobs, "<f2").astype(np.float32).reshape(count, -1 if count else 0)


def _surroundings(library: Library, model_id: int, background: Background) -> Surroundings:
    """What was measured last, unless the library has grown much or lost images since.

    It depends on nothing but the library, so that every process comes to the same likelihoods.
    """
    first, last = (  # min() and max() at once would read the whole SQL index
        library.rows(
            f"SELECT id FROM embeddings WHERE model_id = ? ORDER BY id {order} LIMIT 1",
            (model_id,),
        )[0][0]
        for order in ("ASC", "DESC")
    )
    last = _stepped(first, last)
    deleted = library.rows("SELECT seq FROM sqlite_sequence WHERE name = 'tombstones'")
    key = (model_id, first, last, deleted[0][0] if deleted else 0)
    known = background.measured.get("last")
    if known is None or known[0] != key:
        around = Surroundings.of(background, _sample(library, model_id, first, last))
        known = background.measured["last"] = (key, around)
    return known[1]


def _stepped(first: int, last: int) -> int:
    """The end of what stands for a library that grows: of many images, a few more change nothing.

    It moves on by a sixteenth to a thirty-second of all, for every process at the same places.
    """
    span = last - first + 1
    step = 1 if span <= SAMPLE else 1 << (span.bit_length() - 5)
    return first + span // step * step - 1


def _sample(library: Library, model_id: int, first: int, last: int) -> np.ndarray:
    """Embeddings (m, d) of some of the library's images, the same ones while it is the same."""
    span = last - first + 1
    rng = np.random.default_rng(span)
    chosen = np.arange(span) if span <= SAMPLE else rng.choice(span, 4 * SAMPLE)
    ids = json.dumps((np.unique(chosen) + first).tolist())
    rows = library.rows(
        "SELECT vector FROM embeddings WHERE +model_id = ? "
        "AND id IN (SELECT value FROM json_each(?)) ORDER BY id LIMIT ?",
        (model_id, ids, SAMPLE),
    )
    if len(rows) < min(span, FEW):  # there are gaps: deleted images, or another model's
        rows = library.rows(
            "SELECT vector FROM embeddings WHERE model_id = ? AND id <= ? ORDER BY id LIMIT ?",
            (model_id, last, SAMPLE),
        )
    return _floats(b"".join(vector for (vector,) in rows), len(rows))


def background_path(folder: Path, identity: str) -> Path:
    """Where a library keeps the background of a model."""
    return folder / f"background-{identity[:16]}.npz"


def _mark(identity: str) -> str:
    """What a kept background must agree in: the model, the labels and how they are asked."""
    asked = "\0".join((identity, TEMPLATE, *default_labels()))
    return hashlib.sha256(asked.encode()).hexdigest()
