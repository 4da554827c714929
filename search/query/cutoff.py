"""Draw the line in an answer where the likely matches end."""

from dataclasses import replace

import numpy as np

from .likelihood import LINE
from .rank import Ranking

__all__ = ["falling", "line_drawn"]


def line_drawn(ranking: Ranking, likelihoods: np.ndarray) -> tuple[Ranking, int]:
    """Draw the line in a ranking by score; return it reordered, and how many hits are likely.

    ``falling`` first makes the likelihoods fall with the score. Images with at least ``LINE`` then
    stay above the line, and so do all images found by words, which keep their own likelihoods. The
    order on each side of the line stays the same.
    """
    named = np.isin(ranking.ids, list(ranking.by_words))
    fallen = np.array(likelihoods, dtype=np.float32)
    fallen[~named] = falling(fallen[~named])
    below = ~named & (fallen < LINE)
    order = np.argsort(below, kind="stable")
    scores = None if ranking.scores is None else ranking.scores[order]
    moved = replace(ranking, ids=ranking.ids[order], scores=scores, likelihoods=fallen[order])
    return moved, int(np.count_nonzero(~below))


def falling(likelihoods: np.ndarray, most: float = 1.0) -> np.ndarray:
    """Return the non-increasing sequence nearest to the likelihoods, float32 (n,), up to ``most``.

    The likelihoods are in order of score, best first. Nearest means by least squares: isotonic
    regression, as used to calibrate scores (Zadrozny and Elkan 2002, KDD), computed by pooling
    adjacent violators (Ayer et al. 1955, Annals of Mathematical Statistics 26).
    """
    pools: list[tuple[float, int]] = []  # sum and count of each; the means decrease
    for value in np.asarray(likelihoods, dtype=np.float64).tolist():
        total, count = value, 1
        while pools and pools[-1][0] * count <= total * pools[-1][1]:
            before, more = pools.pop()
            total, count = total + before, count + more
        pools.append((total, count))
    sums, counts = np.array(pools, dtype=np.float64).reshape(-1, 2).T
    means = np.repeat(sums / counts, counts.astype(np.int64))
    return np.minimum(means, most).astype(np.float32)
