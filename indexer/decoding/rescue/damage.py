"""Say in words what a picture lacks, from the pixels that its file does not hold."""

import numpy as np

__all__ = ["COARSE", "COLOURS", "LATER_FRAMES", "LATER_PAGES", "PALETTE", "in_words"]

COARSE = "its fine detail is missing"
COLOURS = "its colours are missing"
LATER_FRAMES = "its later frames are missing"
LATER_PAGES = "its later pages are missing"
PALETTE = "its palette is damaged; colours may be wrong"


def in_words(missing: np.ndarray) -> str | None:
    """Describe the missing pixels of an upright picture: bool (height, width); None if none is.

    ``"the lower 40 % is missing"``, or ``"40 % of it is missing"`` where they are not at one edge.
    """
    if not missing.any():
        return None
    share = float(missing.mean())
    rows, columns = np.any(missing, 1), np.any(missing, 0)
    for name, edge, other in (
        ("lower", rows, rows[::-1]),
        ("upper", rows[::-1], rows),
        ("right", columns, columns[::-1]),
        ("left", columns[::-1], columns),
    ):
        lost = int(edge.sum())
        if not edge[0] and other[:lost].all():  # all of it lies at this edge, and nowhere else
            return f"the {name} {_percent(lost / len(edge))} is missing"
    return f"{_percent(share)} of it is missing"


def _percent(share: float) -> str:
    return "less than 1 %" if share < 0.01 else f"{min(99, round(100 * share))} %"
