"""Lay embeddings out in two dimensions: landmarks by t-SNE, all others by their nearest landmarks.

t-SNE (van der Maaten and Hinton 2008, Journal of Machine Learning Research 9) takes minutes for
what a large library holds, and moves everything when something is added. So it is asked about some
thousands only. Another picture is placed between the landmarks that it is most like, which moves
nothing, and depends on nothing but its own vector.
"""

import contextlib
import importlib.util
from collections.abc import Iterator

import numpy as np

from fovea.search.errors import LibraryError

__all__ = ["INSTALL", "WITHOUT", "check_installed", "is_installed", "laid_out", "placed", "spread"]

INSTALL = 'pip install "fovea[map]"'
WITHOUT = f"a map needs scikit-learn, which is not installed; to install it: {INSTALL}"
BETWEEN = 5  # landmarks that a picture is placed between
REACH = 0.03  # of the map's side: places nearer to each other are one neighbourhood
STEEP = 4.0  # how fast a landmark's weight falls with its distance, 1 - cosine
LEAST = 1e-6  # distance, so that copies of landmarks divide by something
PERPLEXITY = 30.0  # neighbours that t-SNE tries to keep; fewer among few
PARTS = 50  # principal components that t-SNE is given
FEW = 10  # pictures, up to which principal components alone lay them out
AT_ONCE = 2048  # vectors compared with the landmarks
SIDE = 65_535  # a place on the map is two whole numbers from 0 to this
TURN = np.pi * (3 - np.sqrt(5))  # the golden angle, for copies around one place
APART = 48.0  # between copies, in the map's units


def is_installed() -> bool:
    """Whether what lays landmarks out is there; placing pictures does without."""
    return importlib.util.find_spec("sklearn") is not None


def check_installed() -> None:
    """Raise ``LibraryError`` where a map cannot be laid out, and say what to install."""
    if not is_installed():
        raise LibraryError(WITHOUT)


def laid_out(vectors: np.ndarray) -> np.ndarray:
    """Return places for unit rows, float32 (m, d), as float32 (m, 2), 0 to ``SIDE``.

    The same rows in the same order get the same places. It takes seconds for a thousand and is
    meant for some thousands. Raise ``LibraryError`` without scikit-learn.
    """
    check_installed()
    if len(vectors) == 0:
        return np.zeros((0, 2), np.float32)
    parts = _principal(vectors.astype(np.float64))
    places = parts[:, :2] if len(vectors) <= FEW else _by_t_sne(parts)
    return _scaled(places)


def _principal(vectors: np.ndarray) -> np.ndarray:
    """Return principal components, float64 (m, 2 to ``PARTS``), each with a fixed sign."""
    apart = vectors - vectors.mean(axis=0)
    _, _, axes = np.linalg.svd(apart, full_matrices=False)
    axes = axes[:PARTS]
    largest = axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)]
    parts: np.ndarray = apart @ (axes * np.sign(largest)[:, None]).T
    missing = max(0, 2 - parts.shape[1])
    return np.pad(parts, ((0, 0), (0, missing)))


def _by_t_sne(parts: np.ndarray) -> np.ndarray:
    from sklearn.manifold import TSNE

    spread = float(parts[:, 0].std())
    jitter = np.random.default_rng(0).standard_normal((len(parts), 2)) * 1e-6  # copies part
    first = parts[:, :2] / (spread or 1.0) * 1e-4 + jitter
    perplexity = min(PERPLEXITY, (len(parts) - 1) / 3)
    with _one_thread():
        reducer = TSNE(perplexity=perplexity, init=first.astype(np.float32), random_state=0)
        places: np.ndarray = reducer.fit_transform(parts.astype(np.float32))
    return places.astype(np.float64)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Let scikit-learn add in one order: several threads add in any, and so end elsewhere."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        yield


def _scaled(places: np.ndarray) -> np.ndarray:
    """Return places in the middle of the map, as large as fits, with a margin."""
    low, high = places.min(axis=0), places.max(axis=0)
    extent = float((high - low).max())
    middle = (low + high) / 2
    scaled = np.zeros_like(places) if extent == 0 else (places - middle) / extent
    return ((0.5 + 0.94 * scaled) * SIDE).astype(np.float32)


def placed(
    vectors: np.ndarray, landmarks: np.ndarray, spots: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return where pictures belong, float32 (n, 2), and at which landmark, int64 (n,).

    ``vectors`` (n, d) and ``landmarks`` (m, d) are unit rows, ``spots`` the landmarks' places
    (m, 2). The ``BETWEEN`` nearest landmarks vote for one of them, each for those within ``REACH``
    of its place. The picture lies in the mean of the places of those within ``REACH`` of that one:
    the mean of places far apart would be a place that none of them is like. Votes and means are
    weighted by how much less like the picture a landmark is than the nearest.
    """
    places = np.full((len(vectors), 2), SIDE / 2, np.float32)
    chosen = np.zeros(len(vectors), np.int64)
    if not len(landmarks):
        return places, chosen
    count = min(BETWEEN, len(landmarks))
    columns = np.ascontiguousarray(landmarks.astype(np.float32).T)
    for start in range(0, len(vectors), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        cosines = vectors[part].astype(np.float32) @ columns  # (p, m)
        near = np.sort(np.argpartition(-cosines, count - 1, axis=1)[:, :count], axis=1)
        found = np.take_along_axis(cosines, near, axis=1)  # (p, k)
        usual = np.maximum((1 - found).mean(axis=1, keepdims=True), LEAST)
        weights = np.exp(-STEEP * (found.max(axis=1, keepdims=True) - found) / usual)
        around = spots[near].astype(np.float32)  # (p, k, 2)
        away = np.linalg.norm(around[:, :, None] - around[:, None], axis=-1)  # (p, k, k)
        votes = ((away <= REACH * SIDE) * weights[:, None]).sum(axis=2)
        best = votes.argmax(axis=1)[:, None]
        kept = np.take_along_axis(away, best[:, :, None], axis=1)[:, 0] <= REACH * SIDE
        weights *= kept
        weights /= weights.sum(axis=1, keepdims=True)
        places[part] = np.einsum("pk,pkc->pc", weights, around)
        chosen[part] = np.take_along_axis(near, best, axis=1)[:, 0]
    return places, chosen


def spread(places: np.ndarray, taken: np.ndarray | None = None) -> np.ndarray:
    """Return places as uint16 (n, 2), those that coincide one beside another.

    They lie on a spiral around their common place, in the order of the rows. ``taken``, uint16
    (t, 2), are places that are not to be met.
    """
    rounded = np.clip(np.rint(places), 0, SIDE).astype(np.int64)
    used = {_key(row) for row in taken} if taken is not None else set()
    counts: dict[int, int] = {}
    out = np.empty((len(rounded), 2), np.uint16)
    for at, row in enumerate(rounded):
        own = _key(row)
        here, key = row, own
        number = counts.get(own, 0)
        while key in used:
            number += 1
            away = APART * np.sqrt(number)
            moved = row + np.rint([away * np.cos(number * TURN), away * np.sin(number * TURN)])
            here = np.clip(moved, 0, SIDE).astype(np.int64)
            key = _key(here)
        counts[own] = number
        used.add(key)
        out[at] = here
    return out


def _key(row: np.ndarray) -> int:
    return int(row[0]) << 16 | int(row[1])
