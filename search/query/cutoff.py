"""The line in an answer at which the likely matches end."""

from dataclasses import replace

import numpy as np

from .likelihood import LINE
from .rank import Ranking

__all__ = ["falling", "line_drawn"]


def line_drawn(ranking: Ranking, likelihoods: np.ndarray) -> tuple[Ranking, int]:
    """Draw the line in a ranking by score: return it reordered, and how many are likely.

    Above the line stand the first images, as far as their likelihoods, made to fall with the score
    (see ``falling``), reach ``LINE``, and those that are found by name, which are mixed in by rank
    and keep their own likelihood. Within either side the order stays.
    """
    named = np.isin(ranking.ids, list(ranking.by_name))
    fallen = np.array(likelihoods, dtype=np.float32)
    fallen[~named] = falling(fallen[~named])
    below = ~named & (fallen < LINE)
    order = np.argsort(below, kind="stable")
    scores = None if ranking.scores is None else ranking.scores[order]
    moved = replace(ranking, ids=ranking.ids[order], scores=scores, likelihoods=fallen[order])
    return moved, int(np.count_nonzero(~below))


def falling(likelihoods: np.ndarray, most: float = 1.0) -> np.ndarray:
    """The falling sequence nearest to likelihoods in the order of their scores, float32 (n,).

    Nearest by least squares, and at most ``most``: the isotonic regression by which scores are
    calibrated (Zadrozny and Elkan 2002, KDD), found by pooling adjacent violators (Ayer et al.
    1955, Annals of Mathematical Statistics 26).
    """
    pools: list[tuple[float, int]] = []  # sums and counts, their means falling
    for value in np.asarray(likelihoods, dtype=np.float64).tolist():
        total, count = value, 1
        while pools and pools[-1][0] * count <= total * pools[-1][1]:
            before, more = pools.pop()
            total, count = total + before, count + more
        pools.append((total, count))
    sums, counts = np.array(pools, dtype=np.float64).reshape(-1, 2).T
    means = np.repeat(sums / counts, counts.astype(np.int64))
    return np.minimum(means, most).astype(np.float32)
