"""Estimate how likely each hit is a match at all, so that an answer can end with the matches.

A cosine says little by itself: its level differs from model to model, between words and pictures,
and from image to image. So it is compared with a background: for words, the cosines of a few
hundred everyday labels with the same image; for pictures, those between the library's own images.
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
    "ScaledTextEncoder",
    "background_path",
    "default_labels",
    "likelihoods",
    "likeliest",
]

log = logging.getLogger(__name__)

LINE = 0.5  # hits with at least this likelihood are likely matches
TAIL = 0.01  # share of the labels' scores to which the tail is fitted
FEW = 20  # sample size at which a measured quartile counts half
SAME = 0.9995  # from this cosine on, two embeddings are those of one picture
SAMPLE = 400  # images that represent the whole library
TEMPLATE = "a photo of a {}."


class ScaledTextEncoder(TextEncoder, Protocol):
    """Embeds texts, and has the logit scale of its model."""

    @property
    def logit_scale(self) -> float:
        """The factor that turns cosines into logits."""


@cache
def default_labels() -> tuple[str, ...]:
    """Return the everyday things, beings and scenes, in English, that ship with fovea."""
    text = files("fovea.data").joinpath("labels.txt").read_text("utf-8")
    return tuple(line for line in text.splitlines() if line)


@dataclass(frozen=True, eq=False)
class Background:
    """The default labels as embedded by one model, saved beside the library's index."""

    identity: str  # the model's
    vectors: np.ndarray  # float32 (b, d), unit rows, in the order of ``default_labels``
    scale: float  # the model's logit scale
    measured: dict[str, tuple[tuple[int, ...], "Surroundings"]] = field(
        default_factory=dict, repr=False
    )  # a cache: the surroundings of the library that was searched last, with their key

    @classmethod
    def of(cls, identity: str, encoder: ScaledTextEncoder) -> "Background":
        """Embed the default labels, which takes seconds with a large model."""
        texts = [TEMPLATE.format(label) for label in default_labels()]
        parts = [encoder.encode_texts(texts[n : n + 64]) for n in range(0, len(texts), 64)]
        return cls(identity, np.concatenate(parts), float(encoder.logit_scale))

    @classmethod
    def load(cls, folder: Path, identity: str) -> "Background | None":
        """Read a saved background from a library's folder; None if it is missing or unsound."""
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
        """Save the background in a library's folder. Log a failed write: it can be made again."""
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
            log.debug("cannot save %s: %s; it will be computed again", path, exc)

    def levels(self, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and standard deviation (n,) of all labels' cosines with images (n, d)."""
        mean, covariance = self._moments
        variance = np.einsum("nd,nd->n", vectors @ covariance, vectors)
        return vectors @ mean, np.sqrt(np.maximum(variance, 1e-6))

    @cached_property
    def _moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean (d,) and covariance (d, d) of the labels, from which ``levels`` are exact."""
        mean = self.vectors.mean(axis=0)
        apart = self.vectors - mean
        return mean, apart.T @ apart / len(apart)


@dataclass(frozen=True, eq=False)
class Surroundings:
    """A sample of a library's images, and the tail of the labels' scores with them.

    Above ``start``, the scores follow an exponential distribution with mean excess ``slope``.
    """

    vectors: np.ndarray  # float32 (m, d), unit rows
    mean: np.ndarray  # (m,), of all labels' cosines with each image
    deviation: np.ndarray  # (m,), their standard deviation
    start: float
    slope: float
    expected: float  # mean number of labels that score above ``start`` with an image

    @classmethod
    def of(cls, background: Background, vectors: np.ndarray) -> "Surroundings":
        """Fit the tail on a sample of images, float32 (m, d), unit rows."""
        mean, deviation = background.levels(vectors)
        scores = (background.vectors @ vectors.T - mean) / deviation  # (b, m)
        scores -= _usual(scores)[:, None]
        start = float(np.quantile(scores, 1 - TAIL))
        above = scores[scores > start] - start
        slope = max(float(above.mean()) if len(above) else 0.0, 1e-3)
        return cls(vectors, mean, deviation, start, slope, TAIL * len(background.vectors))

    def usual(self, query: np.ndarray) -> float:
        """Return the typical score of a query (d,) with images that do not match it."""
        return float(_usual(((self.vectors @ query - self.mean) / self.deviation)[None])[0])


def likeliest(background: Background, vector: np.ndarray, k: int = 5) -> list[tuple[str, float]]:
    """Return the ``k`` default labels that fit an image (d,) best, with their probabilities.

    The zero-shot probabilities of all labels, not only of these ``k``, add up to 1 (Radford et al.
    2021, arXiv:2103.00020, section 3.1.2).
    """
    logits = background.scale * background.vectors @ (vector / np.linalg.norm(vector))
    powers = np.exp(logits - logits.max())
    shares = powers / powers.sum()
    order = np.argsort(-shares, kind="stable")[:k]
    return [(default_labels()[place], float(shares[place])) for place in order]


def likelihoods(
    library: Library, index: VectorIndex, background: Background, ranking: Ranking
) -> np.ndarray | None:
    """Return how likely each image of a ranking is a match, float32 (n,), 0 to 1.

    None when browsing. An image that the index does not have, or no longer has, gets 0.
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
    """Return the likelihoods of images (n, d) for words (d,), float32 (n,).

    ``scores`` are the cosines (n,) of both. Each is normalised as in speaker verification
    (Auckenthaler et al. 2000): by cohort, against the labels' scores with the same image, then by
    query, against the words' scores with the library. The exponential tail of the labels' scores
    (Pickands 1975) then gives the number of labels expected to score as high with an image; where
    that is 1, the likelihood is 0.5.
    """
    mean, deviation = background.levels(vectors)
    standard = (scores - mean) / deviation - around.usual(query)
    log_odds = (standard - around.start) / around.slope - math.log(around.expected)
    return (1 / (1 + np.exp(-np.clip(log_odds, -50, 50)))).astype(np.float32)


def _usual(standard: np.ndarray) -> np.ndarray:
    """Return the typical score of each row (q, m) with images that do not match, (q,).

    That is the lower quartile, since a query may match most of the library, shrunk towards 0, the
    labels' own mean, when there are few images.
    """
    count = standard.shape[1]
    quartile: np.ndarray = np.percentile(standard, 25, axis=1) * (count / (count + FEW))
    return quartile


def of_pictures(
    query: np.ndarray, scores: np.ndarray, vectors: np.ndarray, sample: np.ndarray, total: int
) -> np.ndarray:
    """Return the likelihoods of images (n, d) for pictures, embedded as one vector, float32 (n,).

    ``scores`` are the cosines (n,) of both. Each is made roughly normal by Fisher's transform
    (Fisher 1915) and normalised against the cosines of image and query with a sample (m, d) of the
    library, as in speaker verification (symmetric normalisation, Kenny 2010). The largest such
    score among ``total`` unrelated images follows a Gumbel distribution (Leadbetter et al. 1983,
    theorem 1.5.3); the likelihood is the probability that it is lower than this one.
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
    """Standardise scores (n,) by mean and deviation of each row of ``others`` (n or 1, m)."""
    others = np.where(others > SAME, np.nan, others)  # the image itself, or a copy of it
    usual = np.isfinite(others).sum(axis=1) > 1
    others = _stretched(np.where(usual[:, None], others, 0.0))
    deviation = np.maximum(np.nanstd(others, axis=1), 1e-3)
    standard: np.ndarray = (_stretched(scores) - np.nanmean(others, axis=1)) / deviation
    return standard


def _stretched(cosines: np.ndarray) -> np.ndarray:
    """Apply Fisher's transform; cosines beyond ``SAME`` count as ``SAME``."""
    stretched: np.ndarray = np.arctanh(np.clip(cosines, -SAME, SAME))
    return stretched


def _surroundings(library: Library, model_id: int, background: Background) -> Surroundings:
    """Return the library's surroundings, measured anew once it has grown much or lost images.

    They depend on the library alone, so all processes compute the same likelihoods.
    """
    first, last = (  # one query with both min() and max() would scan the whole SQL index
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
    """Return the last embedding id to sample from: ``last``, rounded down to a coarse step.

    A step is 1/32 to 1/16 of the span, so a few more images change nothing, and all processes step
    at the same ids.
    """
    span = last - first + 1
    step = 1 if span <= SAMPLE else 1 << (span.bit_length() - 5)
    return first + span // step * step - 1


def _sample(library: Library, model_id: int, first: int, last: int) -> np.ndarray:
    """Return the embeddings (m, d) of a sample of the images; the same library, the same sample."""
    span = last - first + 1
    rng = np.random.default_rng(span)
    chosen = np.arange(span) if span <= SAMPLE else rng.choice(span, 4 * SAMPLE)
    ids = json.dumps((np.unique(chosen) + first).tolist())
    rows = library.rows(
        "SELECT vector FROM embeddings WHERE +model_id = ? "
        "AND id IN (SELECT value FROM json_each(?)) ORDER BY id LIMIT ?",
        (model_id, ids, SAMPLE),
    )
    if len(rows) < min(span, FEW):  # most ids are of deleted images or of another model
        rows = library.rows(
            "SELECT vector FROM embeddings WHERE model_id = ? AND id <= ? ORDER BY id LIMIT ?",
            (model_id, last, SAMPLE),
        )
    vectors = np.frombuffer(b"".join(vector for (vector,) in rows), "<f2")
    return vectors.astype(np.float32).reshape(len(rows), -1 if rows else 0)


def background_path(folder: Path, identity: str) -> Path:
    """Return the file in a library's folder that holds a model's background."""
    return folder / f"background-{identity[:16]}.npz"


def _mark(identity: str) -> str:
    """Return a digest of model, template and labels, which a saved background must match."""
    parts = "\0".join((identity, TEMPLATE, *default_labels()))
    return hashlib.sha256(parts.encode()).hexdigest()
