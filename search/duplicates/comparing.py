"""Compare proposed pairs, no more of them than are needed, and draw groups as stars.

A star is a best original with its copies: each of these was found to be a copy of that one, so that
no chain of look-alikes leads from one picture to another.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from fovea.search.library.library import Library

from .deciding import compared
from .signature import grey_of

__all__ = ["Comparer", "Copies", "Star", "stars"]

COMPARED = 2048  # pairs at a time; between two calls, ``progress`` is told
KEPT = 40_000  # unpacked signatures in memory, 4 KiB each
ROUNDS = 4  # of comparing what is left of connected pictures with their next best

Pair = tuple[int, int]  # rows, the lesser first
Star = tuple[int, list[int]]  # the best and its copies, as rows
Copies = dict[Pair, tuple[bool, bool]]  # whether one is mirrored, and whether one is added to
Progress = Callable[[int, int], None]


class Comparer:
    """Compares pairs of pictures, each once, and notes those that are copies."""

    def __init__(
        self,
        library: Library,
        image_ids: Sequence[int],
        are_apart: Callable[[int, int], bool],
        progress: Progress | None = None,
    ) -> None:
        """``image_ids`` are those of rows, ``are_apart`` says which two never are copies."""
        self._library, self._image_ids, self._progress = library, image_ids, progress
        self._are_apart = are_apart
        self.found: Copies = {}
        self._parent: dict[int, int] = {}  # of rows that copies connect: union-find
        self._seen: set[Pair] = set()
        self._greys: dict[int, Any] = {}
        self._done = self._total = 0

    def connect(self, pairs: np.ndarray) -> np.ndarray:
        """Compare pairs, int64 (m, 2), and return those that it was not needed for.

        These are of pictures that others connect already: of a hundred copies of one picture, a
        hundred pairs are compared rather than five thousand.
        """
        self._total += len(pairs)
        skipped = [np.empty((0, 2), np.int64)]
        for start in range(0, len(pairs), COMPARED):
            some = pairs[start : start + COMPARED]
            is_known = np.array([self._root(a) == self._root(b) for a, b in some.tolist()], bool)
            skipped.append(some[is_known])
            self._done += int(is_known.sum())
            self._compare(some[~is_known])
        return np.concatenate(skipped)

    def look(self, pairs: Iterable[Pair]) -> None:
        """Compare those of the pairs that were not compared yet."""
        missing = [
            pair
            for pair in dict.fromkeys(pairs)
            if pair not in self._seen and not self._are_apart(*pair)
        ]
        self._total += len(missing)
        for start in range(0, len(missing), COMPARED):
            self._compare(np.array(missing[start : start + COMPARED], np.int64))

    def copies(self, best: int, rows: Iterable[int]) -> list[int]:
        """Return those of the rows that were found to be copies of one."""
        return [row for row in rows if _pair(best, row) in self.found]

    def components(self, pairs: Iterable[Pair] | None = None) -> list[list[int]]:
        """Return the rows that copies connect, or that these pairs do."""
        parent: dict[int, int] = self._parent if pairs is None else {}
        for one, two in pairs or ():
            parent[_root(parent, one)] = _root(parent, two)
        members: dict[int, list[int]] = {}
        for row in sorted(parent):
            members.setdefault(_root(parent, row), []).append(row)
        return [rows for rows in members.values() if len(rows) > 1]

    def _root(self, row: int) -> int:
        return _root(self._parent, row)

    def _compare(self, pairs: np.ndarray) -> None:
        if not len(pairs):
            return
        self._seen.update((a, b) for a, b in pairs.tolist())
        greys = self._unpacked(np.unique(pairs).tolist())
        whole = [(a, b) for a, b in pairs.tolist() if greys[a] is not None and greys[b] is not None]
        if whole:
            result = compared(*(np.stack([greys[pair[at]] for pair in whole]) for at in (0, 1)))
            for at in np.flatnonzero(result.is_copy).tolist():
                pair = whole[at]
                self.found[pair] = bool(result.is_mirrored[at]), bool(result.is_added_to[at])
                self._parent[self._root(pair[0])] = self._root(pair[1])
        self._done += len(pairs)
        if self._progress is not None:
            self._progress(self._done, self._total)

    def _unpacked(self, rows: Sequence[int]) -> dict[int, Any]:
        """Return the grey versions of rows and others, uint8 (64, 64), None for a broken one."""
        missing = {self._image_ids[row]: row for row in rows if row not in self._greys}
        if len(self._greys) + len(missing) > KEPT:
            self._greys = {}
            missing = {self._image_ids[row]: row for row in rows}
        self._greys.update(dict.fromkeys(missing.values()))
        for image_id, stored in self._library.rows(
            "SELECT image_id, grey FROM signatures "
            "WHERE image_id IN (SELECT value FROM json_each(?))",
            [json.dumps(list(missing))],
        ):
            self._greys[missing[image_id]] = grey_of(stored)
        return self._greys


def stars(
    comparer: Comparer, proposed: np.ndarray, best_first: Callable[[list[int]], list[int]]
) -> list[Star]:
    """Compare the proposed pairs, int64 (m, 2), each once and ordered; return the groups.

    ``best_first`` sorts rows. What connected pictures have beside the best one and its copies is
    looked at again, with its own best, a few times.
    """
    skipped = comparer.connect(proposed)
    components, made = comparer.components(), list[Star]()
    for turn in range(ROUNDS):
        heads = _heads(comparer, [best_first(rows) for rows in components])
        owner: dict[int, int] = {}  # of what is left
        for number, (best, *rest) in enumerate(heads):
            copies = comparer.copies(best, rest)
            if copies:
                made.append((best, copies))
            owner.update(dict.fromkeys(set(rest) - set(copies), number))
        if turn == ROUNDS - 1 or not owner:
            break
        comparer.look(pair for pair in map(_as_pair, skipped.tolist()) if _is_in_one(pair, owner))
        components = comparer.components(pair for pair in comparer.found if _is_in_one(pair, owner))
    return made


def _heads(comparer: Comparer, components: list[list[int]]) -> list[list[int]]:
    """Compare the first of each component with the others; put the best original first.

    If most others differ from it in the same manner, by what is drawn in or in a mirror, it is the
    one that was changed, and the first of these takes its place.
    """
    comparer.look(_pair(best, row) for best, *rest in components for row in rest)
    heads = []
    for rows in components:
        copies = comparer.copies(rows[0], rows[1:])
        odd = [row for row in copies if any(comparer.found[_pair(rows[0], row)])]
        is_odd_one = len(copies) > 1 and 2 * len(odd) > len(copies)
        first = odd[0] if is_odd_one else rows[0]
        heads.append([first, *(row for row in rows if row != first)])
    comparer.look(_pair(best, row) for best, *rest in heads for row in rest)
    return heads


def _as_pair(pair: list[int]) -> Pair:
    return pair[0], pair[1]


def _is_in_one(pair: Pair, owner: dict[int, int]) -> bool:
    return pair[0] in owner and owner[pair[0]] == owner.get(pair[1])


def _pair(one: int, two: int) -> Pair:
    return (one, two) if one < two else (two, one)


def _root(parent: dict[int, int], row: int) -> int:
    while parent.setdefault(row, row) != row:
        parent[row] = parent[parent[row]]
        row = parent[row]
    return row
