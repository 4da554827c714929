"""How near the embeddings of one tower are to those of another."""

from dataclasses import dataclass

import numpy as np

__all__ = ["Agreement", "agreement"]

NEIGHBOURS = 10
ROUNDING = 1e-6  # of the cosine of two copies of a picture, in float32
MEAN_COSINE, WORST_COSINE, RECALL = 0.99, 0.98, 0.95  # what counts as faithful


@dataclass(frozen=True, slots=True)
class Agreement:
    """How near embeddings are to the exact ones of the same pictures."""

    mean: float  # cosine
    worst: float  # cosine
    recall: float  # share of each picture's exact neighbours that are found
    pictures: int

    @property
    def is_faithful(self) -> bool:
        """Whether a library may hold both kinds side by side."""
        return self.mean >= MEAN_COSINE and self.worst >= WORST_COSINE and self.recall >= RECALL

    def __str__(self) -> str:
        return (
            f"cosine {self.mean:.4f} mean / {self.worst:.4f} worst on {self.pictures} pictures, "
            f"recall@{NEIGHBOURS} {self.recall:.3f}"
        )


def agreement(rows: np.ndarray, exact: np.ndarray) -> Agreement:
    """Compare unit rows (n, d) with the exact ones of the same pictures, n > 10.

    Recall@10 looks for each picture among the others: by ``rows`` alone, and by ``exact`` alone.
    Copies of a picture are as near as each other, so that any of them counts as found.
    Raise ``ValueError`` for too few rows.
    """
    if len(rows) <= NEIGHBOURS or rows.shape != exact.shape:
        raise ValueError(f"{rows.shape} and {exact.shape} are too few rows, or do not match")
    cosines = (rows * exact).sum(axis=1)
    if not np.isfinite(cosines).all():
        return Agreement(0.0, 0.0, 0.0, len(rows))
    nearness = _nearness(exact)
    tenth = np.partition(nearness, -NEIGHBOURS, axis=1)[:, -NEIGHBOURS, None]
    found = np.take_along_axis(nearness, _neighbours(rows), axis=1)
    recall = float((found >= tenth - ROUNDING).mean())
    return Agreement(float(cosines.mean()), float(cosines.min()), recall, len(rows))


def _neighbours(rows: np.ndarray) -> np.ndarray:
    """Return the positions (n, 10) of each row's nearest others, in no order."""
    nearest: np.ndarray = np.argpartition(-_nearness(rows), NEIGHBOURS, axis=1)[:, :NEIGHBOURS]
    return nearest


def _nearness(rows: np.ndarray) -> np.ndarray:
    """Return the cosines (n, n) of all pairs, and minus infinity for a row with itself."""
    cosines: np.ndarray = rows @ rows.T
    np.fill_diagonal(cosines, -np.inf)
    return cosines
