"""Which files need nothing any more: 16 bytes each, so that a hundred million fit into memory."""

from collections.abc import Iterable

import numpy as np

from .items import ID_BYTES

__all__ = ["Done"]

RECENT = 1 << 20  # ids that are kept apart until they are sorted
LARGEST = 1 << 24  # ids in a run that is not merged any more: 256 MB


class Done:
    """A set of ids, each of 16 bytes.

    They are in sorted runs. A new one is merged with those before it that are no longer, so that
    runs double; each id is sorted a few times, whatever their number, and merging needs memory for
    ``LARGEST`` ids. A hundred million are about ten runs.
    """

    def __init__(self, ids: Iterable[bytes] = ()) -> None:
        self._runs: list[np.ndarray] = []  # S16 (n,) each, sorted; the oldest is the longest
        self._recent: set[bytes] = set()
        for one in ids:
            self.add(one)

    def add(self, one: bytes) -> None:
        """Add an id."""
        self._recent.add(one)
        if len(self._recent) >= RECENT:
            # NumPy takes off null bytes at the end of each: one of 256 has some.
            run = np.array(list(self._recent), f"S{ID_BYTES}")
            self._recent = set()
            run.sort()
            while self._runs and len(self._runs[-1]) <= min(len(run), LARGEST // 2):
                run = np.concatenate([self._runs.pop(), run])
                run.sort(kind="stable")  # which finds the two runs, and merges them
            self._runs.append(run)

    def __contains__(self, one: bytes) -> bool:
        if one in self._recent:
            return True
        wanted = np.bytes_(one.rstrip(b"\0"))
        for run in self._runs:
            place = int(np.searchsorted(run, wanted))
            if place < len(run) and run[place] == wanted:
                return True
        return False
