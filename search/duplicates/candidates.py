"""Propose pairs of pictures that may be one, without comparing each with each.

Whatever the pictures are, even all alike, the work grows as their number does: lists and
neighbourhoods have a largest size.
"""

from collections.abc import Iterator

import numpy as np

from fovea.search.index.base import load_faiss

from .signature import mirrored

__all__ = ["near_hashes", "near_vectors", "unlike_bits"]

K = 10  # neighbours of each vector in a list
COSINE = 0.8  # the least of a pair; embeddings of copies are at 0.85 and more
TOGETHER = 1024  # vectors at most that are compared each with each
PLACES = 3  # lists that a vector is in
TRAINED = 32  # vectors a list that k-means sees
BLOCK = 4096  # vectors put into lists at a time
BAND = 16  # bits of a hash in which a pair must agree
NEXT = 12  # pictures after each one, in the order of hashes, that it is paired with


def near_vectors(vectors: np.ndarray) -> Iterator[np.ndarray]:
    """Yield pairs of rows, int64 (m, 2), whose vectors are near each other; some come again.

    ``vectors`` is float16 or float32 (n, d), unit rows. They are put into the lists of their
    nearest centroids (an inverted file: Jegou, Douze and Schmid 2011), and within a list each is
    paired with its ten nearest at most.
    """
    for rows in _lists(vectors):
        if len(rows) < 2:
            continue
        some = vectors[rows].astype(np.float32)
        scores = some @ some.T
        np.fill_diagonal(scores, -1.0)
        near = _largest(scores, K)
        of, at = np.nonzero(np.take_along_axis(scores, near, axis=1) >= COSINE)
        yield _ordered(rows[of], rows[near[of, at]])


def _lists(vectors: np.ndarray) -> Iterator[np.ndarray]:
    """Yield rows that are compared with each other, int64, at most ``TOGETHER`` of them."""
    count, dim = vectors.shape
    if count <= TOGETHER:
        yield np.arange(count)
        return
    lists = int(4 * np.sqrt(count))
    rng = np.random.default_rng(0)
    sample = np.sort(rng.choice(count, min(count, TRAINED * lists), replace=False))
    means = load_faiss().Kmeans(dim, lists, niter=4, seed=1, min_points_per_centroid=1)
    means.train(vectors[sample].astype(np.float32))
    centroids: np.ndarray = means.centroids
    places = np.empty((count, PLACES), np.int64)
    for start in range(0, count, BLOCK):
        block = vectors[start : start + BLOCK].astype(np.float32)
        # The nearest centroid of all, not that of the largest product: their lengths differ.
        near: np.ndarray = block @ centroids.T - (centroids**2).sum(axis=1) / 2
        places[start : start + len(block)] = _largest(near, PLACES)
    order = np.argsort(places.reshape(-1), kind="stable")
    ends = np.cumsum(np.bincount(places.reshape(-1), minlength=lists))
    aim = rng.standard_normal((dim,)).astype(np.float32)
    for rows in np.split(order // PLACES, ends[:-1]):
        if len(rows) > TOGETHER:  # cut it across a direction: what is alike stays together
            along = np.concatenate(
                [vectors[part].astype(np.float32) @ aim for part in _cut(rows, BLOCK)]
            )
            rows = rows[np.argsort(along, kind="stable")]
        yield from _cut(rows, TOGETHER)


def _cut(rows: np.ndarray, most: int) -> list[np.ndarray]:
    return [rows[start : start + most] for start in range(0, len(rows), most)]


def _largest(values: np.ndarray, k: int) -> np.ndarray:
    """Return where the ``k`` largest of each row are, in any order."""
    width = values.shape[1]
    if width <= k:
        return np.broadcast_to(np.arange(width), values.shape)
    return np.argpartition(values, width - k, axis=1)[:, width - k :]


def near_hashes(found: np.ndarray) -> Iterator[np.ndarray]:
    """Yield pairs of rows, int64 (m, 2), whose hashes, uint64 (n,), agree in one of four bands.

    Mirrored hashes count as well. Hashes are sorted as they begin with each of the bands in turn,
    and each is paired with the few that follow it (after Charikar 2002, "Similarity Estimation
    Techniques from Rounding Algorithms", section 5).
    """
    count = len(found)
    both = np.concatenate([found, mirrored(found)])
    for shift in range(0, 64, BAND):
        turned = (both << np.uint64(shift)) | (both >> np.uint64((64 - shift) % 64))
        order = np.argsort(turned, kind="stable")
        band = turned[order] >> np.uint64(64 - BAND)
        for step in range(1, min(NEXT + 1, len(order))):
            one, two = order[:-step], order[step:]
            same = (band[:-step] == band[step:]) & ((one < count) | (two < count))
            pairs = _ordered(one[same] % count, two[same] % count)
            yield pairs[unlike_bits(found[pairs[:, 0]], found[pairs[:, 1]]) <= BAND]


def _ordered(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Return pairs with the lesser row first, without those of a row with itself."""
    pairs = np.stack([np.minimum(one, two), np.maximum(one, two)], axis=1)
    return pairs[one != two]


def unlike_bits(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Return in how many bits hashes differ, uint8 (n,), in a mirror or not: the fewer counts."""
    plain = np.bitwise_count(one ^ two) if hasattr(np, "bitwise_count") else _ones(one ^ two)
    other = one ^ mirrored(two)
    turned = np.bitwise_count(other) if hasattr(np, "bitwise_count") else _ones(other)
    fewer: np.ndarray = np.minimum(plain, turned)
    return fewer


def _ones(bits: np.ndarray) -> np.ndarray:
    """Count the ones of uint64 (n,): what NumPy has from version 2 on."""
    counted: np.ndarray = np.unpackbits(bits.view(np.uint8).reshape(-1, 8), axis=1).sum(axis=1)
    return counted
