"""Estimate how likely each hit is a match at all, so that an answer can end with the matches.

A cosine says little by itself: its level differs from model to model, between words and pictures,
and from image to image. So words are compared with the library's other images and a background of
everyday labels, weighted by constants measured for the model; pictures with the library's own.
Where a model's line was not measured, or is no better than chance, there are no likelihoods.
docs/likelihood.md has the method, its sources and its figures.
"""

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any, Protocol
from zipfile import BadZipFile

import numpy as np

from fovea.search.clip.disk import FULL, full_text
from fovea.search.clip.protocols import TextEncoder
from fovea.search.index.vector_index import VectorIndex
from fovea.search.library.library import Library
from fovea.search.library.locks import sweep_parts

from .measured import Measured, Signs
from .rank import Ranking

__all__ = [
    "EVIDENCE",
    "LINE",
    "Background",
    "ScaledTextEncoder",
    "Surroundings",
    "background_path",
    "default_labels",
    "evidence",
    "evidence_of_pictures",
    "label_shares",
    "likelihoods",
    "likelihoods_of",
    "likeliest",
    "probabilities",
    "surroundings",
]

log = logging.getLogger(__name__)

LINE = 0.5  # hits with at least this likelihood are likely matches
EVIDENCE = ("cosine", "among images", "among labels")  # of words
FEW = 20  # images at which a library counts half, and what was measured elsewhere the other half
SAME = 0.9995  # from this cosine on, two embeddings are those of one image
MATCHING = 0.05  # share of a library's images that a query may be meant for
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
    signs: Measured | None = None  # None: the model was never measured
    around: dict[str, tuple[tuple[int, ...], "Surroundings"]] = field(
        default_factory=dict, repr=False
    )  # a cache: the surroundings of the library that was searched last, with their key

    @classmethod
    def of(
        cls, identity: str, encoder: ScaledTextEncoder, signs: Measured | None = None
    ) -> "Background":
        """Embed the default labels, which takes seconds with a large model."""
        texts = [TEMPLATE.format(label) for label in default_labels()]
        parts = [encoder.encode_texts(texts[n : n + 64]) for n in range(0, len(texts), 64)]
        return cls(identity, np.concatenate(parts), float(encoder.logit_scale), signs)

    @classmethod
    def load(cls, folder: Path, identity: str) -> "Background | None":
        """Read a saved background from a library's folder; None if it is missing or unsound."""
        try:
            with background_path(folder, identity).open("rb") as file:
                data = np.load(file, allow_pickle=False)
                mark, scale, vectors = str(data["mark"]), float(data["scale"]), data["vectors"]
                kept = json.loads(str(data["signs"]))
                signs = None if kept is None else Measured.from_dict(kept)
        except (OSError, ValueError, KeyError, EOFError, IndexError, BadZipFile):
            return None
        rows = vectors.astype(np.float32)
        sound = mark == _mark(identity) and rows.ndim == 2 and len(rows) == len(default_labels())
        if not sound or not np.isfinite(rows).all() or not 0 < scale < 1000:
            return None
        return cls(identity, rows / np.linalg.norm(rows, axis=1, keepdims=True), scale, signs)

    def save(self, folder: Path) -> None:
        """Save the background in a library's folder. Log a failed write: it can be made again."""
        path = background_path(folder, self.identity)
        sweep_parts(folder, path.stem)
        part = path.with_suffix(f".{os.getpid()}.part")
        try:
            with part.open("wb") as file:
                np.savez(
                    file,
                    mark=_mark(self.identity),
                    scale=self.scale,
                    signs=json.dumps(None if self.signs is None else self.signs.to_dict()),
                    vectors=self.vectors.astype(np.float16),
                )
            part.replace(path)
        except OSError as exc:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            reason: object = full_text(folder, exc) if exc.errno in FULL else exc
            level = logging.WARNING if exc.errno in FULL else logging.DEBUG
            log.log(level, "cannot save %s: %s; it will be computed again", path, reason)

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
    """A sample of a library's images, which words are compared with."""

    vectors: np.ndarray  # float32 (m, d), unit rows
    centre: np.ndarray  # (d,): their mean, drawn towards that of images elsewhere if they are few
    elsewhere: np.ndarray  # (d,): the mean of the images that the model was measured on, or 0

    @classmethod
    def of(cls, signs: Measured | None, vectors: np.ndarray) -> "Surroundings":
        """Average a sample of images, float32 (m, d), unit rows."""
        usual = vectors.mean(axis=0)
        if signs is None:
            return cls(vectors, usual, np.zeros_like(usual))
        elsewhere = np.array(signs.centre, np.float32)
        return cls(vectors, _drawn(usual, elsewhere, len(vectors)), elsewhere)

    def usual(self, query: np.ndarray, signs: Signs) -> tuple[float, float]:
        """Return mean and standard deviation of a query's cosines with the library's other images.

        The ``MATCHING`` highest of them do not count: they may be of matches, which in a small
        library would hide themselves.
        """
        cosines = np.sort(self.vectors @ query)
        count = len(cosines)
        others = cosines[: count - max(1, int(count * MATCHING))] if count > 2 else cosines
        mean = _drawn(float(others.mean()), float(self.elsewhere @ query), count)
        return mean, _drawn(float(others.std()), signs.spread, count)


def _drawn(own: Any, elsewhere: Any, count: int) -> Any:
    """Average what ``count`` images say and what was measured elsewhere, halves at ``FEW``."""
    share = count / (count + FEW)
    return share * own + (1 - share) * elsewhere


def likeliest(
    background: Background, centre: np.ndarray, vector: np.ndarray, k: int = 5
) -> list[tuple[str, float]]:
    """Return the default labels that an image (d,) may show, at most ``k``, with probabilities.

    The zero-shot probabilities of all labels add up to 1 (Radford et al. 2021, arXiv:2103.00020,
    section 3.1.2). Before, each label's mean cosine with the library's images, whose mean is
    ``centre`` (d,), is subtracted: some labels are near to everything. Labels below the model's
    threshold are left out; all are where the model was not measured, or its labels often wrong.
    """
    signs = None if background.signs is None else background.signs.labels
    if signs is None or not signs.are_shown:
        return []
    shares = label_shares(background, centre, vector[None])[0]
    order = np.argsort(-shares, kind="stable")[:k]
    return [
        (default_labels()[place], float(shares[place]))
        for place in order
        if shares[place] >= signs.threshold
    ]


def label_shares(background: Background, centre: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Return each label's probability for images (n, d), as ``likeliest`` has them, (n, b)."""
    apart = vectors / np.linalg.norm(vectors, axis=1, keepdims=True) - centre
    logits = background.scale * apart @ background.vectors.T
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: np.ndarray = powers / powers.sum(axis=1, keepdims=True)
    return shares


def likelihoods(
    library: Library, index: VectorIndex, background: Background, ranking: Ranking
) -> np.ndarray | None:
    """Return how likely each image of a ranking is a match, float32 (n,), 0 to 1.

    None when browsing, and where the model's line is not drawn: it was never measured, or is no
    better than chance. An image that the index does not have, or no longer has, gets 0.
    """

    def vectors_of(image_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        places, vectors = index.vectors(image_ids)
        if len(places) and ranking.vector is not None:
            best = index.best_moments(image_ids[places], ranking.vector)
            vectors[best.places] = best.vectors  # a video is judged by the moment that it shows
        return places, vectors

    def around() -> Surroundings:
        return surroundings(library, index.model.id, background)

    return likelihoods_of(ranking, background, vectors_of, around)


def likelihoods_of(
    ranking: Ranking,
    background: Background,
    vectors_of: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
    surroundings_now: Callable[[], Surroundings],
) -> np.ndarray | None:
    """Compute ``likelihoods`` from what a library of any kind returns when it is asked.

    ``vectors_of`` is as ``seam.asking.Vectors`` has it.
    """
    if ranking.scores is None or ranking.vector is None or background.signs is None:
        return None
    by_words = ranking.kind == "words"
    signs = background.signs.words if by_words else background.signs.pictures
    if signs is None or not signs.worth.is_drawn:
        return None
    places, vectors = vectors_of(ranking.ids)
    out = np.zeros(len(ranking.ids), dtype=np.float32)
    if not len(places):
        return out
    scores = ranking.scores[places]
    around = surroundings_now()
    if by_words:
        found = evidence(background, around, signs, ranking.vector, scores, vectors)
    else:
        found = evidence_of_pictures(around, signs, ranking.vector, scores, vectors)
    out[places] = probabilities(signs, found)
    return out


def evidence(
    background: Background,
    around: Surroundings,
    signs: Signs,
    query: np.ndarray,
    scores: np.ndarray,
    vectors: np.ndarray,
) -> np.ndarray:
    """Return what speaks for images (n, d) matching words (d,), (n, 3), as in ``EVIDENCE``.

    ``scores`` are the cosines (n,) of both. The others are these in standard deviations from the
    mean: of the words' cosines with the library's images, and of the labels' cosines with the same
    image; as in speaker verification, normalisation by query and by cohort (Auckenthaler, Carey and
    Lloyd-Thomas 2000, Digital Signal Processing 10).
    """
    usual, spread = around.usual(query, signs)
    mean, deviation = background.levels(vectors)
    return np.stack([scores, (scores - usual) / spread, (scores - mean) / deviation], axis=1)


def evidence_of_pictures(
    around: Surroundings,
    signs: Signs,
    query: np.ndarray,
    scores: np.ndarray,
    vectors: np.ndarray,
) -> np.ndarray:
    """Return what speaks for images (n, d) matching pictures, embedded as one vector, (n, 3).

    ``scores`` are the cosines (n,) of both. The others are these in standard deviations from the
    mean, of the query's and of each image's cosines with the library's images: the two sides of the
    symmetric normalisation of speaker verification (Kenny 2010, Odyssey).
    """
    by_query = _standard(scores, (query @ around.vectors.T)[None], query[None], around, signs)
    by_image = _standard(scores, vectors @ around.vectors.T, vectors, around, signs)
    return np.stack([scores, by_query, by_image], axis=1)


def probabilities(signs: Signs, found: np.ndarray) -> np.ndarray:
    """Return the likelihoods (n,) that follow from evidence (n, 3), by logistic regression."""
    log_odds = found @ np.array(signs.weights) + signs.bias
    return (1 / (1 + np.exp(-np.clip(log_odds, -50, 50)))).astype(np.float32)


def _standard(
    scores: np.ndarray, others: np.ndarray, own: np.ndarray, around: Surroundings, signs: Signs
) -> np.ndarray:
    """Standardise scores (n,) by the cosines (n or 1, m) of ``own`` (n or 1, d) with the library.

    Those of an image with itself, or with a copy of it, do not count.
    """
    counted = others < SAME
    count = counted.sum(axis=1)
    mean = np.where(counted, others, 0).sum(axis=1) / np.maximum(count, 1)
    apart = np.where(counted, others - mean[:, None], 0)
    deviation = np.sqrt((apart**2).sum(axis=1) / np.maximum(count, 1))
    usual, spread = (
        _drawn(mean, own @ around.elsewhere, count),
        _drawn(deviation, signs.spread, count),
    )
    standard: np.ndarray = (scores - usual) / spread
    return standard


def surroundings(library: Library, model_id: int, background: Background) -> Surroundings:
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
    known = background.around.get("last")
    if known is None or known[0] != key:
        around = Surroundings.of(background.signs, _sample(library, model_id, first, last))
        known = background.around["last"] = (key, around)
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
