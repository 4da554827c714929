"""Decide about pairs: copies of one picture, or moments of one scene."""

from dataclasses import dataclass

import numpy as np

from .registering import Fit, fits

__all__ = ["Compared", "compared"]

ALIKE = 0.93  # the least correlation of copies
SOUND = 0.3  # the most that a part of an untouched copy differs
# Of a pair that differs more: was something drawn into one of the two, or has something moved? A
# logistic regression on the drawn pairs of bench/duplicates.py, of 73 photographs of 146.
WORST, MOVED, ONE_SIDED, ALWAYS = -3.9, -8.1, 4.8, 4.4
DRAWN = 0.6  # the least log-odds of something drawn


@dataclass(frozen=True, slots=True)
class Compared:
    """What became of pairs: bool (n,) each."""

    is_copy: np.ndarray
    is_mirrored: np.ndarray
    is_added_to: np.ndarray  # a copy, and something was drawn into one of the two


def compared(one: np.ndarray, two: np.ndarray) -> Compared:
    """Compare pictures by their grey versions, uint8 (n, 64, 64) each, in a mirror as well."""
    plain = fits(one, two)
    is_open = ~_copies(plain)[0]
    turned = fits(one[is_open], two[is_open][:, :, ::-1])
    is_mirrored = np.zeros(len(one), bool)
    is_mirrored[is_open] = turned.correlation > plain.correlation[is_open]
    fit = Fit(
        *(
            np.where(is_mirrored, _spread(getattr(turned, name), is_open), getattr(plain, name))
            for name in Fit.__slots__
        )
    )
    is_copy, is_added_to = _copies(fit)
    return Compared(is_copy, is_mirrored & is_copy, is_added_to)


def _spread(values: np.ndarray, places: np.ndarray) -> np.ndarray:
    whole = np.zeros(len(places), np.float32)
    whole[places] = values
    return whole


def _copies(fit: Fit) -> tuple[np.ndarray, np.ndarray]:
    """Return which pairs are copies, and of these those to which something was added.

    What was drawn in lightens its places, or darkens them, and does not go by moving parts of the
    picture; but a subject has moved between two moments, and leaves light and dark behind.
    """
    alike = fit.correlation >= ALIKE
    sound = alike & (fit.worst <= SOUND)
    worst = np.minimum(fit.worst, 10)  # infinite where nothing was laid over
    odds = ALWAYS + WORST * worst + MOVED * fit.moved + ONE_SIDED * fit.one_sided
    added = alike & ~sound & (odds >= DRAWN)
    return sound | added, added
