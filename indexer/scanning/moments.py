"""Embed the moments of videos, a few frames at a time."""

from collections.abc import Sequence

import numpy as np

from fovea.indexer.workers.pool import Outcome, batch_of
from fovea.search.clip.protocols import IndexingEncoder
from fovea.search.library.rows import Moments

from .refusals import encoded

__all__ = ["embedded_moments", "pictures_in"]


def pictures_in(outcomes: Sequence[Outcome]) -> int:
    """Count the pictures of decoded files, of which videos have many."""
    return sum(1 + len(outcome.times) for outcome in outcomes)


def embedded_moments(encoder: IndexingEncoder, outcome: Outcome, dim: int) -> Moments | None:
    """Return the moments of a decoded video that the model takes; None for a picture."""
    if outcome.frames is None:
        return None
    size, rows, sound = batch_of(encoder), [], []
    for start in range(0, len(outcome.frames), size):
        some = outcome.frames[start : start + size]
        vectors, reasons = encoded(encoder, some, dim, is_first=False)
        rows.append(vectors)
        sound += [reason is None for reason in reasons]
    taken = np.array(sound, bool)
    return Moments(np.array(outcome.times, np.int64)[taken], np.concatenate(rows)[taken])
