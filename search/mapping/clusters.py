"""Group what lies together on the map, in up to three levels, and say what sets a group apart.

Ward's clusters (1963, Journal of the American Statistical Association 58) of the landmarks' places
are cut at three numbers of groups, so that each group of a level lies within one of the level
above.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

__all__ = ["Cluster", "grouped", "members", "named"]

LEVELS = (8, 32, 128)  # groups at most, from the coarsest level to the finest
LEAST = 12  # landmarks of a group on average, at least
NAMES = 3  # of a group at most
SHARE = 0.03  # mean probability of a label in a group, from which the label may name it
ODDS = 3.0  # times the odds in the library, from which it may
CERTAIN = 4.0  # standard errors above the library's mean, from which it may
ALSO = 0.4  # of the first name's excess over the library, from which another is told beside it


@dataclass(frozen=True, slots=True)
class Cluster:
    """Pictures that lie together."""

    id: int
    level: int  # 0 is the coarsest
    parent: int | None  # the id of the cluster around it; None at level 0
    names: tuple[str, ...]  # labels that set it apart from the library, the first most; may be none
    count: int  # of its pictures
    x: float  # of its middle, 0 to 1 from the left
    y: float  # 0 to 1 from the top
    radius: float  # of the circle around it that has nine tenths of its pictures, on the same scale
    image_id: int | None  # the picture nearest to its middle; None while it has none


def grouped(spots: np.ndarray) -> tuple[np.ndarray, list[tuple[int, int | None]]]:
    """Return each place's finest group, int64 (m,), and of all groups their level and parent.

    Groups are numbered from the coarsest level on, and within a level by size, the largest first.
    ``spots`` are float (m, 2).
    """
    levels: list[int] = []
    for most in LEVELS:
        number = min(most, len(spots) // LEAST)
        if number >= 2 * (levels[-1] if levels else 1):
            levels.append(number)
    if not levels:
        return np.zeros(len(spots), np.int64), [(0, None)]
    from scipy.cluster.hierarchy import cut_tree, ward

    cuts = cut_tree(ward(spots.astype(np.float64)), n_clusters=levels)  # (m, levels)
    groups: list[tuple[int, int | None]] = []
    above = np.zeros(len(spots), np.int64)
    for level in range(len(levels)):
        _, first, own, counts = np.unique(
            cuts[:, level], return_index=True, return_inverse=True, return_counts=True
        )
        order = np.lexsort((first, -counts))
        numbers = np.empty_like(order)
        numbers[order] = np.arange(len(order)) + len(groups)
        parents = [None if level == 0 else int(above[first[at]]) for at in order]
        groups += [(level, parent) for parent in parents]
        above = numbers[own]
    return above, groups


def named(
    clusters: Sequence[Cluster],
    leaves: np.ndarray,
    shares: np.ndarray,
    labels: Sequence[str],
) -> list[Cluster]:
    """Return the clusters with the labels that set them apart.

    ``shares`` are the labels' probabilities for some pictures, (m, b), ``leaves`` these pictures'
    finest clusters (m,). A label names a cluster where its mean probability there exceeds the
    library's clearly: what is everywhere names nothing. Where that only gives names that the
    cluster around it has, what sets it apart within that one comes first, if anything does.
    """
    if not len(shares):
        return list(clusters)
    within = members(clusters, leaves)
    done: dict[int, Cluster] = {}
    for cluster in clusters:
        found = _apart(shares[within[cluster.id]], shares)
        if cluster.parent is not None:
            around = done[cluster.parent].names
            if all(labels[at] in around for at in found):
                beside = shares[within[cluster.parent]]
                found = [*_apart(shares[within[cluster.id]], beside)[:1], *found]
            found.sort(key=lambda at: labels[at] in around)
        names = tuple(labels[at] for at in dict.fromkeys(found))
        done[cluster.id] = replace(cluster, names=names[:NAMES])
    return list(done.values())


def _apart(some: np.ndarray, others: np.ndarray) -> list[int]:
    """Return the columns of shares (m, b) in which some of the rows, (s, b), exceed them clearly.

    Those that exceed them most are first.
    """
    if not 0 < len(some) < len(others):
        return []
    mean, usual = some.mean(axis=0), others.mean(axis=0)
    excess, error = mean - usual, others.std(axis=0) / np.sqrt(len(some))
    odds = mean * (1 - usual) >= ODDS * usual * (1 - mean)
    fits = (mean >= SHARE) & odds & (excess >= CERTAIN * error)
    order = [int(at) for at in np.argsort(-excess, kind="stable") if fits[at]]
    return [at for at in order if excess[at] >= ALSO * excess[order[0]]][:NAMES]


def members(clusters: Sequence[Cluster], leaves: np.ndarray) -> dict[int, np.ndarray]:
    """Return which rows of ``leaves`` (m,) lie in each cluster, as positions int64."""
    parents = {cluster.id: cluster.parent for cluster in clusters}
    found: dict[int, list[np.ndarray]] = {cluster.id: [] for cluster in clusters}
    for leaf in np.unique(leaves).tolist():
        rows = np.flatnonzero(leaves == leaf)
        at: int | None = int(leaf)
        while at is not None:
            found[at].append(rows)
            at = parents[at]
    empty = np.zeros(0, np.int64)
    return {
        number: np.sort(np.concatenate(parts)) if parts else empty
        for number, parts in found.items()
    }
