"""Choose a video's moments among the frames that are looked at: where scenes begin, and between."""

from collections import deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np

__all__ = ["EVERY_S", "MOST", "Scenes"]

MOST = 300  # moments of one video
EVERY_S = 10.0  # the longest time without a moment, in videos that have room for it
LEAST_S = 1.0  # the shortest time between two
CUT = 16.0  # of 255: the least mean difference of frames at which a scene begins
USUAL, MOVING = 2.5, 45.0  # or so many times the usual difference lately, but at most this
RECENT, CLOSE_S = 15, 1.0  # differences that say what is usual, of frames so close to each other
DISSOLVED_S = 3.0  # after which a difference from the last moment counts as one from a scene
DARK, PLAIN = 24.0, 5.0  # mean luma, and standard deviations, up to which a frame shows nothing
GREY = 6.0  # of chroma, from its middle

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Kept(Generic[T]):
    time: float
    small: np.ndarray
    change: float
    value: T


@dataclass(slots=True)
class Scenes(Generic[T]):
    """The moments so far. ``length`` is the video's in seconds, as far as that is known.

    Frames are shown to ``is_wanted`` in the order of their times; what it says yes to is to be
    given to ``keep``, with whatever the caller wants back.
    """

    length: float | None = None
    _moments: list[_Kept[T]] = field(default_factory=list)
    _before: tuple[float, np.ndarray] | None = None
    _recent: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT))
    _change: float = 0.0

    def is_wanted(self, time: float, small: np.ndarray) -> bool:
        """Whether a frame, float32 (h, w, 3) in YUV, is a moment; its time in seconds."""
        before, self._before = self._before, (time, small)
        if before is None or not self._moments:
            self._change = 255.0
            return not is_blank(small)
        last = self._moments[-1]
        self._change = change = difference(small, before[1])
        usual = float(np.median(self._recent)) if len(self._recent) > RECENT // 3 else 0.0
        if time - before[0] <= CLOSE_S:
            self._recent.append(change)
        if is_blank(small) or time - last.time < LEAST_S:
            return False
        least = max(CUT, min(MOVING, USUAL * usual))
        if change > least or time + (time - before[0]) - last.time > self._every:
            return True
        return time - last.time > DISSOLVED_S and difference(small, last.small) > least

    def keep(self, time: float, small: np.ndarray, value: T) -> None:
        """Take a frame as a moment."""
        self._moments.append(_Kept(time, small, self._change, value))
        if len(self._moments) > MOST + MOST // 2:
            self._thin()

    @property
    def _every(self) -> float:
        return max(EVERY_S, 1.2 * (self.length or 0) / MOST)

    def _thin(self) -> None:
        """Keep of each span of the time, of ``MOST`` equal ones, the frame that changed most."""
        first, last = self._moments[0].time, self._moments[-1].time
        spans: dict[int, _Kept[T]] = {}
        for one in self._moments:
            span = min(MOST - 1, int((one.time - first) / max(last - first, 1e-9) * MOST))
            if span not in spans or one.change > spans[span].change:
                spans[span] = one
        self._moments = [spans[span] for span in sorted(spans)]

    def moments(self) -> tuple[list[float], list[T]]:
        """Return the times and values of the moments, at most ``MOST``."""
        if len(self._moments) > MOST:
            self._thin()
        return [one.time for one in self._moments], [one.value for one in self._moments]

    def poster(self) -> int:
        """Return which moment stands for all: the one most like their average."""
        smalls = np.stack([one.small for one in self._moments])
        apart = np.abs(smalls - smalls.mean(axis=0)).mean(axis=(1, 2, 3))
        return int(apart.argmin())


def difference(one: np.ndarray, other: np.ndarray) -> float:
    """Return how much two frames differ, of 255: in luma, or in colour if that is more."""
    apart = np.abs(one - other).mean(axis=(0, 1))
    return float(max(apart[0], 1.5 * (apart[1] + apart[2]) / 2))


def is_blank(small: np.ndarray) -> bool:
    """Whether a frame shows nothing: black, or all of one grey."""
    luma, chroma = small[..., 0], small[..., 1:]
    is_grey = float(np.abs(chroma - 128).mean()) < GREY and float(chroma.std()) < PLAIN
    if float(luma.mean()) < DARK and float(luma.std()) < PLAIN:
        return is_grey
    return float(luma.std()) < PLAIN / 2 and is_grey
