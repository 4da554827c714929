"""Keep what the library knows of its pictures beyond their embeddings, for pages that ask often."""

import threading
import time
from typing import Protocol

from fovea.indexer.analysing.accounts import Accounts

from .large import Watched

__all__ = ["KeptAccounts"]

QUICK_S = 0.1  # counting that takes no longer is done for every state of the library
SHARE = 20  # times as long as slower counting took, is the pause after it


class Engine(Watched, Protocol):
    """What this needs of the engine."""

    is_writable: bool


class KeptAccounts:
    """What was counted last; in a large library that changes, it is some seconds old."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._counting = threading.Lock()
        self._kept: tuple[int, Accounts] | None = None  # and the generation
        self._not_before = 0.0

    def now(self) -> Accounts:
        """Return the counts, anew once the library has changed."""
        with self._counting:
            generation, started = self._engine.generation, time.monotonic()
            kept = self._kept
            # Where it cannot be written, connections notice a change later than the generation.
            is_same = kept is not None and kept[0] == generation and self._engine.is_writable
            if kept is not None and (is_same or started < self._not_before):
                return kept[1]
            found = Accounts.of(self._engine.library)
            self._kept = (generation, found)
            now = time.monotonic()
            took = now - started
            self._not_before = now + (SHARE * took if took > QUICK_S else 0.0)
            return found

    def anew(self) -> Accounts:
        """Return the counts of this moment, after something was switched."""
        with self._counting:
            self._kept = None
        return self.now()
