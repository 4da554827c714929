"""Fit a probe: a regularised logistic regression on embeddings, for one tag.

Newton's method (iteratively reweighted least squares; Hastie, Tibshirani and Friedman 2009, The
Elements of Statistical Learning, 4.4.1). Its margins become probabilities by Platt's scaling (Platt
1999, Probabilistic outputs for support vector machines), fitted to what people answered about
pictures that were suggested to them: pictures that they chose themselves say nothing of how many of
those that a probe finds are right.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

__all__ = [
    "ANSWERS",
    "LEAST",
    "PRECISE",
    "Probe",
    "average_precision",
    "fit_logistic",
    "fit_probe",
    "settled",
]

LEAST = 3  # examples that have the tag, from which a probe is fitted
STRENGTH = 0.1  # C: the weight of the examples against that of the regularisation
STEPS = 50  # of Newton's method, which takes about ten
CLOSE = 1e-9  # a step this small ends it
FOLDS = 5  # of the cross-validation
ANSWERS = 10  # about suggestions, from which it is estimated how many are right
PRECISE = 0.7  # expected share, of the pictures found that nobody spoke about, that have the tag
UNPROVEN = 10  # pictures, at most, that are found for each example without enough answers
FEW, UNPROVEN_OF_FEW = 5, 5  # the same for each of fewer examples than ``FEW``
FLOOR = 0.3  # probability below which no picture is found
SLOPE, SLOPE_WEIGHT = 0.7, 1.0  # of Platt's scaling before any answer, and how much that counts
LEAST_SLOPE = 0.05
DOUBT = 0.05  # answers "no" for which each random picture counts
TAUGHT_SHARE = 0.5  # of the weight of all pictures without the tag, for those that people named


@dataclass(frozen=True, slots=True)
class Probe:
    """What tells the pictures of a tag from others."""

    weights: np.ndarray  # float32 (d,)
    bias: float
    threshold: float  # probability from which a picture has the tag
    right: float | None = None  # estimated share of those that have it; None: unproven
    is_proven: bool = False  # its probabilities were fitted to enough answers

    def probabilities(self, vectors: np.ndarray) -> np.ndarray:
        """Return the probability of each picture, float32 (n,), for vectors (n, d)."""
        return _sigmoid(vectors @ self.weights + np.float32(self.bias))


def fit_probe(
    yes: np.ndarray, no: np.ndarray, others: np.ndarray, answers: Sequence[bool] | None = None
) -> Probe | None:
    """Fit a probe to pictures that have the tag, have not, and whatever the library has.

    All are unit vectors, float32 (n, d). ``others`` are random pictures: nobody said what they
    show, so they count as having not, with less weight. ``answers`` says which of ``yes`` and then
    ``no`` were suggested to whoever spoke about them. With ``ANSWERS`` of these the probe is
    proven; otherwise half of ``yes`` are above its threshold. ``settled`` raises that. None below
    ``LEAST`` examples that have it, and where there is nothing to tell them from.
    """
    if len(yes) < LEAST or not len(no) + len(others):
        return None
    rows = np.concatenate([yes, no, others]).astype(np.float64)
    rows, basis = _turned(rows)
    is_so = np.arange(len(rows)) < len(yes)
    weights = _balanced(len(yes), len(no), len(others))
    named = len(yes) + len(no)
    found = fit_logistic(rows, is_so, weights)
    held_out = _held_out(rows, is_so, weights, named)
    probe = Probe((found[:-1] @ basis).astype(np.float32), float(found[-1]), 0.0)
    asked = np.zeros(named, bool) if answers is None else np.asarray(answers, bool)
    if asked.sum() < ANSWERS:
        return replace(probe, threshold=_chance(np.median(held_out[: len(yes)])))
    judged = held_out[:named][asked]
    slope, bias = _scaled(judged, is_so[:named][asked], held_out[named:])
    return Probe(
        probe.weights * np.float32(slope),
        probe.bias * slope + bias,
        max(FLOOR, _chance(judged.min() * slope + bias)),  # less likely ones were never looked at
        is_proven=True,
    )


def settled(probe: Probe, chances: np.ndarray, said: int) -> Probe:
    """Return a probe with its threshold and, if it is proven, the share that is right.

    ``chances`` are the probabilities, float (n,), of the pictures above the probe's threshold that
    nobody spoke about: as many of them get the tag as leave ``PRECISE`` of them right on average,
    or ``UNPROVEN`` for each of the ``said`` pictures that people said to have it, fewer of few.
    """
    chances = np.sort(chances.astype(np.float64))[::-1]
    if not probe.is_proven:
        most = (UNPROVEN if said >= FEW else UNPROVEN_OF_FEW) * said
        return replace(probe, threshold=float(chances[most - 1])) if most < len(chances) else probe
    sums = np.cumsum(chances)
    good = np.flatnonzero(sums >= PRECISE * np.arange(1, len(chances) + 1))
    if not len(good):
        right = 1.0 if said else None  # what people said themselves
        beyond = float(chances[0]) if len(chances) else probe.threshold
        return replace(probe, threshold=min(1 - 1e-6, max(PRECISE, beyond + 1e-6)), right=right)
    last = int(good[-1])
    threshold = float(chances[last]) if last + 1 < len(chances) else probe.threshold
    right = (said + sums[last]) / (said + last + 1)
    return replace(probe, threshold=threshold, right=float(right))


def _scaled(margins: np.ndarray, is_so: np.ndarray, others: np.ndarray) -> tuple[float, float]:
    """Return the slope and bias that make margins of answers probabilities, by Platt's scaling.

    ``others`` are margins of random pictures: each counts a little as one that has not the tag, so
    that what nobody has looked at is not taken for what somebody has.
    """
    yes, no = int(is_so.sum()), int((~is_so).sum())
    aims = np.where(is_so, (yes + 1) / (yes + 2), 1 / (no + 2))  # Platt's, shrunken
    weights = np.concatenate([np.ones(len(margins)), np.full(len(others), DOUBT)])
    aims = np.concatenate([aims, np.zeros(len(others))])
    wide = np.stack([np.concatenate([margins, others]), np.ones(len(aims))], axis=1)
    before = np.array([SLOPE, 0.0])
    found = np.array([SLOPE, np.log((yes + 1) / (no + 1))])
    pull = np.array([SLOPE_WEIGHT, 0.0])
    for _ in range(STEPS):
        chances = _sigmoid(wide @ found)
        slope = wide.T @ (weights * (chances - aims)) + pull * (found - before)
        bends = (wide.T * (weights * chances * (1 - chances))) @ wide + np.diag(pull + 1e-6)
        step = np.linalg.solve(bends, slope)
        found = found - np.clip(step, -2, 2)
        if np.abs(step).max() < CLOSE:
            break
    return max(LEAST_SLOPE, float(found[0])), float(found[1])


def _chance(margin: float) -> float:
    """Return the probability at a margin, away from 0 and 1."""
    return float(np.clip(_sigmoid(np.array(margin)), 1e-6, 1 - 1e-6))


def _turned(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return rows of fewer numbers where there are fewer rows, and what turns them back.

    Turning keeps lengths and angles, and so what is fitted.
    """
    if len(rows) >= rows.shape[1]:
        return rows, np.eye(rows.shape[1])
    basis, turned = np.linalg.qr(rows.T)
    return turned.T, basis.T


def _balanced(yes: int, no: int, others: int) -> np.ndarray:
    """Return the weight of each picture: those with the tag weigh as much as those without."""
    total = yes + no + others
    named = 0.0 if not no else TAUGHT_SHARE if others else 1.0
    return np.concatenate(
        [
            np.full(yes, total / 2 / max(1, yes)),
            np.full(no, total / 2 * named / max(1, no)),
            np.full(others, total / 2 * (1 - named) / max(1, others)),
        ]
    )


def fit_logistic(
    rows: np.ndarray, is_so: np.ndarray, weights: np.ndarray, strength: float = STRENGTH
) -> np.ndarray:
    """Return the coefficients of a logistic regression, float64 (d + 1,), the bias last.

    ``rows`` is (n, d), ``is_so`` bool (n,), ``weights`` (n,). They minimise half the squared length
    of the coefficients without the bias, plus ``strength`` times the weighted log-loss: what
    scikit-learn's LogisticRegression does with ``C=strength`` and ``sample_weight``.
    """
    rows = rows.astype(np.float64)
    found = np.zeros(rows.shape[1] + 1)
    wide = np.hstack([rows, np.ones((len(rows), 1))])
    penalty = np.full(len(found), 1 / strength)
    penalty[-1] = 0.0
    aims = is_so.astype(np.float64)

    def loss(at: np.ndarray) -> float:
        margins = np.where(is_so, 1, -1) * (wide @ at)
        return float(weights @ np.logaddexp(0, -margins) + penalty @ at**2 / 2)

    now = loss(found)
    for _ in range(STEPS):
        chances = _sigmoid(wide @ found)
        slope = wide.T @ (weights * (chances - aims)) + penalty * found
        bends = (wide.T * (weights * chances * (1 - chances))) @ wide + np.diag(penalty + 1e-12)
        step = np.linalg.solve(bends, slope)
        share = 1.0
        while (then := loss(found - share * step)) > now and share > 1e-4:
            share /= 2  # too far: the loss must fall
        found, now = found - share * step, min(now, then)
        if np.abs(step).max() < CLOSE:
            break
    return found


def _sigmoid(margins: np.ndarray) -> np.ndarray:
    chances: np.ndarray = 0.5 * (1 + np.tanh(margins / 2))
    return chances


def average_precision(scores: np.ndarray, is_so: np.ndarray) -> float:
    """Return the mean, over pictures that have it, of the precision down to each, 0 to 1."""
    found = is_so[np.argsort(-scores, kind="stable")]
    places = np.flatnonzero(found)
    return float((np.arange(1, len(places) + 1) / (places + 1)).mean()) if len(places) else 0.0


def _held_out(rows: np.ndarray, is_so: np.ndarray, weights: np.ndarray, named: int) -> np.ndarray:
    """Return each picture's margin by a probe that was not fitted to it, (n,).

    The examples with the tag, those without and the random pictures are dealt to the folds in turn.
    """
    turns = np.concatenate(
        [np.arange(count) for count in (is_so.sum(), named - is_so.sum(), len(rows) - named)]
    )
    margins = np.empty(len(rows))
    for fold in range(FOLDS):
        out = turns % FOLDS == fold
        if is_so[~out].any() and out.any():
            found = fit_logistic(rows[~out], is_so[~out], weights[~out])
            margins[out] = rows[out] @ found[:-1] + found[-1]
    return margins
