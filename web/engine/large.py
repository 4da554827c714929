"""Keep the columns of a large library, read in the background once it is left alone."""

import threading
from collections.abc import Callable
from typing import Protocol

from fovea.search.library.library import Library
from fovea.search.query.columns import Columns, read_columns

__all__ = ["FEWEST", "KeptColumns"]

FEWEST = 20_000  # searchable images from which SQL takes longer than people should wait
QUIET_S = 2.0  # without a change, before they are read; doubled each time they are read in vain
LONGEST_S = 60.0


class Watched(Protocol):
    """What this needs of the engine."""

    closing: threading.Event

    @property
    def generation(self) -> int:
        """A number that changes with the library."""

    @property
    def pictures_since(self) -> int:
        """A number that changes with the pictures, and with nothing that is only said of them."""

    @property
    def library(self) -> Library:
        """This thread's connection."""


class KeptColumns:
    """The columns of one state of the library's pictures: an answer from them is never stale.

    They have no marks and tags, which are read as they are asked for.
    """

    def __init__(
        self, engine: Watched, in_background: Callable[[Callable[[], None]], None] | None
    ) -> None:
        """``in_background`` runs a function in another thread; without it, nothing is read."""
        self._engine, self._in_background = engine, in_background
        self._kept: tuple[int, Columns | None] | None = None  # and ``pictures_since``
        self._reading = threading.Lock()  # held by the thread that reads

    def now(self) -> Columns | None:
        """Return the columns of the library as it is now.

        None if there are none, as for a small library, or none yet: they will be read then, once
        the library has not changed for a while.
        """
        kept = self._kept
        if kept is not None and kept[0] == self._engine.pictures_since:
            return kept[1]
        if self._in_background is not None and self._reading.acquire(blocking=False):
            try:
                self._in_background(self._read_when_quiet)
            except BaseException:
                self._reading.release()
                raise
        return None

    def _read_when_quiet(self) -> None:
        try:
            wait_s, seen = QUIET_S, self._engine.pictures_since
            while not self._engine.closing.wait(wait_s):
                before, seen = seen, self._engine.pictures_since
                if self._kept is not None and self._kept[0] == seen:  # asked for amid a remark
                    return
                if seen != before:
                    continue
                self._kept = None  # of an earlier state: not needed any more, and large
                found = self.read()
                if self._engine.pictures_since == seen:
                    self._kept = (seen, found)
                    return
                wait_s = min(2 * wait_s, LONGEST_S)
        except Exception:
            if not self._engine.closing.is_set():  # then there is no generation any more
                raise
        finally:
            self._reading.release()

    def read(self) -> Columns | None:
        """Read the columns now, unless the library is small."""
        library = self._engine.library
        with library.reading():  # one state, from the first statement on
            [(count,)] = library.rows("SELECT count(*) FROM shown")
            return read_columns(library) if count >= FEWEST else None
