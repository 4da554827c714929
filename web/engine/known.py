"""Keep what the library knows for suggestions, read again in the background as it changes.

A keystroke does not wait: while a library is being indexed, suggestions are some seconds old.
"""

import threading
import time
from collections.abc import Callable
from typing import Protocol

from fovea.search.query.columns import Columns
from fovea.search.query.saved import saved_searches
from fovea.search.suggesting.known import Known

from .large import FEWEST, Watched

__all__ = ["AT_ONCE", "KeptKnown"]

AT_ONCE = 2_000  # searchable images up to which reading takes no longer than a keystroke may
PAUSE_S = 3.0  # at least, between two readings
SHARE = 10  # times as long as reading takes, is the pause after it
PATIENCE_S = 6.0  # for the columns that filters use, which then need not be read twice


class Engine(Watched, Protocol):
    """What this needs of the engine."""

    @property
    def rows_version(self) -> int:
        """A number that changes with any row."""

    def columns(self) -> Columns | None:
        """Return what filters look at, where that is kept."""


class KeptKnown:
    """What the library knew when it was last read: one state, and one that is being read."""

    def __init__(
        self, engine: Engine, in_background: Callable[[Callable[[], None]], None] | None
    ) -> None:
        """``in_background`` runs a function in another thread; without it, readers wait."""
        self._engine, self._in_background = engine, in_background
        self._kept: tuple[int, Known] | None = None  # and the version of the rows
        self._reading = threading.Lock()  # held by the thread that reads in the background
        self._not_before = 0.0

    def now(self) -> Known:
        """Return what is known: of a small library as it is, of a large one as it lately was."""
        kept, version = self._kept, self._engine.rows_version
        if kept is not None and kept[0] == version:
            return kept[1]
        if self._in_background is None or self._count(AT_ONCE) <= AT_ONCE:
            known = Known.of(self._engine.library, self._engine.columns())
            self._kept = (version, known)
            return known
        if time.monotonic() >= self._not_before and self._reading.acquire(blocking=False):
            try:
                self._in_background(self._read)
            except BaseException:
                self._reading.release()
                raise
        if kept:
            return kept[1]
        return Known(None, searches=tuple(saved_searches(self._engine.library)))

    def _count(self, most: int) -> int:
        """Count the searchable images, up to a few more than ``most``."""
        sql = "SELECT count(*) FROM (SELECT 1 FROM shown LIMIT ?)"
        [(count,)] = self._engine.library.rows(sql, [most + 1])
        return int(count)

    def _read(self) -> None:
        try:
            columns = self._columns()
            started, version = time.monotonic(), self._engine.rows_version
            self._kept = (version, Known.of(self._engine.library, columns))
            now = time.monotonic()
            self._not_before = now + max(PAUSE_S, SHARE * (now - started))
        except Exception:
            if not self._engine.closing.is_set():  # then there is no version any more
                raise
        finally:
            self._reading.release()

    def _columns(self) -> Columns | None:
        """Wait a while for the columns of a large library, which are read for filters anyway."""
        until = time.monotonic() + PATIENCE_S
        found = self._engine.columns()
        while found is None and self._count(FEWEST) >= FEWEST and time.monotonic() < until:
            if self._engine.closing.wait(0.25):
                break
            found = self._engine.columns()
        return found
