"""Whether two pictures are one, by laying one over the other.

After Lucas and Kanade 1981, "An Iterative Image Registration Technique", and Baker and Matthews
2004, "Lucas-Kanade 20 Years On": the affine map and the change of brightness and contrast under
which the small grey versions differ least are found by Gauss-Newton steps, coarse to fine, for many
pairs at once. What still differs then decides.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from .signature import SIDE

__all__ = ["PARTS", "Fit", "fits"]

# Before it is moved, a copy's correlation at 16 pixels is 0.7 and more, 99 in 100 of them; that of
# another picture is below 0.6, 95 in 100.
AT_FIRST = 0.55
# Pixels a side, Gauss-Newton steps, and the least correlation with which a pair goes on.
LEVELS = ((16, 3, 0.65), (16, 6, 0.8), (32, 3, 0.9), (64, 2, 0.0))
BATCH = 64  # pairs at a time: what is computed stays in the processor's caches
THREADS = 2
PARTS = 8  # a side, that a picture is compared in
DIFFERS = 0.25  # of the contrast: a part whose root mean square error is larger differs
REACH = 5  # pixels of 64 that a subject may move between two moments
LEAST_OVERLAP = 0.6  # of the area
MOST_SHIFT = 0.4  # of half a side
SCALES = (0.72, 1.38)  # of one side, along both axes
MOST_SHEAR = 0.12  # about 7 degrees


@dataclass(frozen=True, slots=True)
class Fit:
    """How well pairs fit, float32 (n,) each.

    ``correlation`` is that of the overlap, 1 for the same picture; ``worst`` the root mean square
    error of that of 8 x 8 parts which differs most, in units of the contrast; ``spread`` the share
    of parts that differ; and ``moved`` how much of their squared error goes if each part may move
    by some pixels: most of it for a subject that has moved, little for a watermark. ``one_sided``
    is how much of what differs is lighter throughout, or darker, as where something was drawn in: 0
    to 1. Pairs that cannot be laid over each other have a correlation of 0.
    """

    correlation: np.ndarray
    worst: np.ndarray
    spread: np.ndarray
    moved: np.ndarray
    one_sided: np.ndarray


def fits(one: np.ndarray, two: np.ndarray) -> Fit:
    """Lay each of ``two`` over that of ``one``; both are uint8 (n, 64, 64)."""
    count = len(one)
    found = Fit(
        np.zeros(count, np.float32),
        np.full(count, np.inf, np.float32),
        np.ones(count, np.float32),
        np.zeros(count, np.float32),
        np.zeros(count, np.float32),
    )

    def lay(rows: slice) -> None:
        places = np.arange(rows.start, min(rows.stop, count))
        target, moving = (_standard(_scaled(grey[places], 16)) for grey in (one, two))
        kept = (target * moving).mean(axis=(1, 2)) >= AT_FIRST
        knobs = np.zeros((len(places), 8), np.float32)
        for side, steps, least in LEVELS:
            places, knobs = places[kept], knobs[kept]
            if not len(places):
                return
            if side == target.shape[1]:
                target, moving = target[kept], moving[kept]
            else:
                target, moving = (_standard(_scaled(grey[places], side)) for grey in (one, two))
            knobs = _settled(target, moving, knobs, steps)
            value, inside = _sampled(moving, *_mapped(knobs, *_grid(side)))[:2]
            goal = target.reshape(len(target), -1)
            alike = _correlation(goal, value, inside)
            kept = (alike >= least) & _is_sane(knobs) & (inside.mean(axis=1) >= LEAST_OVERLAP)
        places, knobs = places[kept], knobs[kept]
        if not len(places):
            return
        goal, value, inside = goal[kept], value[kept], inside[kept]
        fitted = (1 + knobs[:, 6:7]) * value + knobs[:, 7:8]
        error = (goal - fitted) * inside
        found.correlation[places] = alike[kept]
        parts, seen = _by_parts(error**2, inside)
        found.worst[places] = np.sqrt(parts.max(axis=1))
        differing = parts > DIFFERS**2
        found.spread[places] = differing.sum(axis=1) / np.maximum(seen.sum(axis=1), 1)
        found.moved[places] = _moved(goal, fitted, inside, parts, differing)
        found.one_sided[places] = _one_sided(error, differing)

    with ThreadPoolExecutor(THREADS) as threads:
        for _ in threads.map(lay, _batches(count)):
            pass
    return found


def _batches(count: int) -> Iterator[slice]:
    return (slice(start, start + BATCH) for start in range(0, count, BATCH))


def _scaled(grey: np.ndarray, side: int) -> np.ndarray:
    """Return float32 (n, side, side) of uint8 (n, 64, 64), a little blurred."""
    halves = _summing(side) / np.float32(SIDE // side)
    small = halves.T @ grey.astype(np.float32) @ halves
    # (1, 2, 1) / 4 in both directions, so that half a pixel matters little
    padded = np.pad(small, ((0, 0), (1, 1), (1, 1)), mode="edge")
    rows = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    blurred: np.ndarray = (rows[:, :, :-2] + 2 * rows[:, :, 1:-1] + rows[:, :, 2:]) / 16
    return blurred


def _standard(grey: np.ndarray) -> np.ndarray:
    """Return the pictures with a mean of 0 and a deviation of 1; one without contrast is all 0."""
    centred = grey - grey.mean(axis=(1, 2), keepdims=True)
    deviation = grey.std(axis=(1, 2), keepdims=True)
    standard: np.ndarray = centred / np.maximum(deviation, 1.0)
    return standard


def _grid(side: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of the pixels across and down, -1 to 1: float32 (side * side,) each."""
    at = (np.arange(side, dtype=np.float32) - (side - 1) / 2) / (side / 2)
    return np.tile(at, side), np.repeat(at, side)


def _mapped(
    knobs: np.ndarray, across: np.ndarray, down: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Map places: x + k0 + k1 x + k2 y, and y + k3 + k4 x + k5 y."""
    k = knobs[:, :, None]
    x = across + k[:, 0] + k[:, 1] * across + k[:, 2] * down
    return x, down + k[:, 3] + k[:, 4] * across + k[:, 5] * down


def _settled(target: np.ndarray, moving: np.ndarray, knobs: np.ndarray, steps: int) -> np.ndarray:
    """Return the knobs, float32 (n, 8), after some Gauss-Newton steps.

    Six of the affine map, then the gain less 1 and the bias of the brightness.
    """
    count, side = target.shape[:2]
    across, down = _grid(side)
    goal = target.reshape(count, -1)
    weak = 1e-3 * side * side  # keeps flat pictures where they are
    jacobian = np.empty((count, 8, side * side), np.float32)
    for _ in range(steps):
        value, inside, right, below = _sampled(moving, *_mapped(knobs, across, down))
        gain = (1 + knobs[:, 6:7]) * inside
        right *= gain * (side / 2)
        below *= gain * (side / 2)
        jacobian[:, 0], jacobian[:, 3] = right, below
        jacobian[:, 1], jacobian[:, 2] = right * across, right * down
        jacobian[:, 4], jacobian[:, 5] = below * across, below * down
        jacobian[:, 6], jacobian[:, 7] = value * inside, inside
        error = (goal - ((1 + knobs[:, 6:7]) * value + knobs[:, 7:8])) * inside
        normal = jacobian @ jacobian.transpose(0, 2, 1)
        normal[:, np.arange(8), np.arange(8)] += weak
        step = np.linalg.solve(normal, jacobian @ error[:, :, None])[:, :, 0]
        knobs = np.clip(knobs + np.clip(step, -0.1, 0.1), -1.0, 1.0)
    return knobs


def _sampled(
    image: np.ndarray, x: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Sample pictures at places of -1 to 1, between their pixels.

    Return the values, whether the places are inside, and the slopes across and down by pixel:
    float32 (n, places) each.
    """
    side = image.shape[1]
    column, row = (part * (side / 2) + (side - 1) / 2 for part in (x, y))
    held_x, held_y = np.clip(column, 0, side - 1.001), np.clip(row, 0, side - 1.001)
    inside = ((np.abs(column - held_x) < 0.01) & (np.abs(row - held_y) < 0.01)).astype(np.float32)
    left, top = held_x.astype(np.int32), held_y.astype(np.int32)
    dx, dy = held_x - left, held_y - top
    at = top * side + left + np.arange(len(image), dtype=np.int32)[:, None] * (side * side)
    flat = image.reshape(-1)
    a, b, c, d = (flat.take(at + step) for step in (0, 1, side, side + 1))
    upper, lower = a + (b - a) * dx, c + (d - c) * dx
    right = (b - a) + ((d - c) - (b - a)) * dy
    return upper + (lower - upper) * dy, inside, right, lower - upper


def _correlation(one: np.ndarray, two: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return the correlations of rows where ``weight`` is 1."""
    total = np.maximum(weight.sum(axis=1, keepdims=True), 1e-6)
    one = (one - (one * weight).sum(axis=1, keepdims=True) / total) * weight
    two = (two - (two * weight).sum(axis=1, keepdims=True) / total) * weight
    norm = np.sqrt((one**2).sum(axis=1) * (two**2).sum(axis=1))
    product: np.ndarray = (one * two).sum(axis=1) / np.maximum(norm, 1e-6)
    return product


def _is_sane(knobs: np.ndarray) -> np.ndarray:
    """Whether maps are what people do to pictures: moved, scaled and turned a little."""
    low, high = SCALES
    scales = 1 + knobs[:, [1, 5]]
    return np.asarray(
        (np.abs(knobs[:, [0, 3]]) <= MOST_SHIFT).all(axis=1)
        & (np.abs(knobs[:, [2, 4]]) <= MOST_SHEAR).all(axis=1)
        & ((scales >= low) & (scales <= high)).all(axis=1)
    )


def _summing(groups: int) -> np.ndarray:
    """Return float32 (64, groups), which sums neighbours when it is multiplied with."""
    return np.repeat(np.eye(groups, dtype=np.float32), SIDE // groups, axis=0)


def _summed(values: np.ndarray) -> np.ndarray:
    """Return the sums of 8 x 8 parts, (n, 64), of (n, 64 * 64)."""
    sums = _summing(PARTS)
    parts: np.ndarray = sums.T @ values.reshape(-1, SIDE, SIDE) @ sums
    return parts.reshape(len(values), -1)


def _by_parts(values: np.ndarray, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the means of 8 x 8 parts, (n, 64), and which are at least half inside."""
    weight = _summed(inside)
    seen = weight > (SIDE // PARTS) ** 2 / 2
    return np.where(seen, _summed(values) / np.maximum(weight, 1), 0.0), seen


def _one_sided(error: np.ndarray, differing: np.ndarray) -> np.ndarray:
    """Return how much of the differing parts' error has one sign, 0 to 1."""
    whole = (_summed(np.abs(error)) * differing).sum(axis=1)
    share: np.ndarray = np.abs((_summed(error) * differing).sum(axis=1)) / np.maximum(whole, 1e-6)
    return share


def _moved(
    goal: np.ndarray,
    fitted: np.ndarray,
    inside: np.ndarray,
    parts: np.ndarray,
    differing: np.ndarray,
) -> np.ndarray:
    """Return how much of the differing parts' squared error goes if each may move, 0 to 1."""
    pair, part = np.nonzero(differing)
    if not len(pair):
        return np.zeros(len(goal), np.float32)
    size = SIDE // PARTS
    shape = (len(goal), PARTS, size, PARTS, size)
    row, column = part // PARTS, part % PARTS
    goals, weights = (one.reshape(shape)[pair, row, :, column, :] for one in (goal, inside))
    wide = np.pad(
        fitted.reshape(-1, SIDE, SIDE), ((0, 0), (REACH, REACH), (REACH, REACH)), mode="edge"
    )
    windows = sliding_window_view(wide, (size + 2 * REACH, size + 2 * REACH), axis=(1, 2))
    around = windows[pair, row * size, column * size]  # (parts, 18, 18)
    weight = np.maximum(weights.sum(axis=(1, 2)), 1)
    least = parts[pair, part]
    for down in range(2 * REACH + 1):
        for across in range(2 * REACH + 1):
            there = around[:, down : down + size, across : across + size]
            error = ((goals - there) * weights).reshape(len(pair), -1)
            least = np.minimum(least, np.einsum("ij,ij->i", error, error) / weight)
    before = (parts * differing).sum(axis=1)
    after = np.bincount(pair, least, len(goal))
    share: np.ndarray = 1 - after / np.maximum(before, 1e-6)
    return np.where(differing.any(axis=1), share, 0).astype(np.float32)
