"""The line in an answer at which the likely matches end."""

from dataclasses import dataclass, replace

import numpy as np

from .answer import Ranking
from .likelihood import LINE

__all__ = ["Lined", "lined"]


@dataclass(frozen=True, slots=True)
class Lined:
    """A ranking with the likelihood of each image, and how many of the first are likely."""

    ranking: Ranking
    likelihoods: np.ndarray  # float32 (n,), 0 to 1
    likely: int


def lined(ranking: Ranking, likelihoods: np.ndarray) -> Lined:
    """Draw the line in a ranking by score.

    As many of the nearest images stand above it as are likely, and so do those that are found by
    name, which are mixed in by rank whatever they show. Within either side the order stays.
    """
    named = np.isin(ranking.ids, list(ranking.by_name))
    near = int(np.count_nonzero((likelihoods >= LINE) & ~named))
    below = ~named & (np.cumsum(~named) > near)
    order = np.argsort(below, kind="stable")
    scores = None if ranking.scores is None else ranking.scores[order]
    moved = replace(ranking, ids=ranking.ids[order], scores=scores)
    return Lined(moved, likelihoods[order], near + int(np.count_nonzero(named)))
