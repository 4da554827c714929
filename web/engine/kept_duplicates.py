"""Keep the groups of copies, found in the background: that takes a minute for 100,000 pictures.

One search for them runs at a time, and no more than a tenth of the time while the library changes.
"""

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from fovea.search.duplicates.groups import (
    Duplicate,
    DuplicateGroup,
    Duplicates,
    Kind,
    find_duplicates,
)

from .large import Watched

__all__ = ["Found", "KeptDuplicates", "OfKind", "equal_files", "of_kind"]

PATIENCE_S = 2.0  # that a request waits for what takes no longer
SHARE = 10  # times as long as the search took, is the pause after it
STATES = 10**9  # a state's number is less


@dataclass(frozen=True, slots=True)
class OfKind:
    """The groups of one kind, and what they have in all."""

    groups: tuple[DuplicateGroup, ...] = ()
    files: int = 0  # that are not the best
    bytes: int = 0  # of these
    same: int = 0  # of them with the content of another one


@dataclass(frozen=True, slots=True)
class Found:
    """The groups of the library as it was once; ``state`` names them while they are kept."""

    state: int
    generation: int
    pictures: int  # that were looked at
    waiting: int  # of them without a signature yet
    copies: OfKind  # summed up once: there may be 100,000 groups, asked for page by page
    bursts: OfKind


def of_kind(found: Duplicates, kind: Kind) -> OfKind:
    """Choose the groups of one kind, and sum them up."""
    groups = tuple(group for group in found.groups if group.kind == kind)
    return OfKind(
        groups,
        sum(len(group.others) for group in groups),
        sum(group.spare for group in groups),
        sum(len(equal_files(group)) for group in groups),
    )


def equal_files(group: DuplicateGroup) -> list[Duplicate]:
    """Return the others that have the content of a file before them."""
    seen, found = {group.best.image_id}, []
    for one in group.others:
        if one.image_id in seen:
            found.append(one)
        seen.add(one.image_id)
    return found


class KeptDuplicates:
    """The groups that were found last, and how far the next search is."""

    def __init__(
        self, engine: Watched, in_background: Callable[[Callable[[], None]], None] | None
    ) -> None:
        """``in_background`` runs a function in another thread; without it, requests search."""
        self._engine, self._in_background = engine, in_background
        self._searching = threading.Lock()  # held by the thread that searches
        self._has_news = threading.Condition()
        self._kept: Found | None = None
        self._not_before = 0.0
        self.progress = 0.0  # of the running search, 0 to 1

    @property
    def kept(self) -> Found | None:
        """What was found last, however long ago."""
        return self._kept

    def now(self) -> Found | None:
        """Return the groups, of an earlier state while a search runs; None before the first one."""
        kept = self._kept
        if kept is not None and kept.generation == self._engine.generation:
            return kept
        if self._in_background is None:
            with self._searching:
                self._search()
            return self._kept
        if time.monotonic() >= self._not_before and self._searching.acquire(blocking=False):
            self.progress = 0.0
            try:
                self._in_background(self._search_and_release)
            except BaseException:
                self._searching.release()
                raise
        with self._has_news:
            self._has_news.wait_for(
                lambda: self._kept is not kept or not self._searching.locked(), PATIENCE_S
            )
        return self._kept

    def _search_and_release(self) -> None:
        started = time.monotonic()
        try:
            self._search()
        except Exception:
            if not self._engine.closing.is_set():  # then there is no library any more
                raise
        finally:
            now = time.monotonic()
            self._not_before = now + SHARE * (now - started)
            self._searching.release()
            with self._has_news:
                self._has_news.notify_all()

    def _search(self) -> None:
        generation = self._engine.generation
        found = find_duplicates(self._engine.library, bursts=True, progress=self._note)
        self._kept = Found(
            random.randrange(1, STATES),
            generation,
            found.pictures,
            found.waiting,
            of_kind(found, "copies"),
            of_kind(found, "burst"),
        )

    def _note(self, done: int, total: int) -> None:
        self.progress = done / max(total, 1)
        if self._engine.closing.is_set():
            raise InterruptedError("the server is closing")
