"""The lease of a library on Milvus: who may write pictures to it just now.

A picture's files are read, completed and written back, so that two machines must not do it at once.
Milvus has nothing that compares and sets. Whoever wants the lease writes a row of its own, and then
reads all such rows with strong consistency: alone there, it has the lease; otherwise it takes its
row back, and tries again after a random time. Of two who want it at once, the second to write sees
the first, so that never both have it. Whoever has it writes its row again while it works, and stops
once others may have taken it for dead.
"""

import logging
import random
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from fovea.search.errors import LibraryError

from .client import STRONG

__all__ = ["Lease"]

log = logging.getLogger(__name__)

DEAD_S = 120.0  # after which the row of a process that does not write any more is removed
RENEW_S = 30.0  # after which whoever has the lease writes its row again
PAUSE_S = 0.5  # between two tries, on average
SAID_S = 10.0  # of waiting, after which it is said


class Rows(Protocol):
    """Where the rows are."""

    @property
    def address(self) -> object:
        """The library's."""

    def bodies(self, kind: int, *, consistency: str) -> Iterator[dict[str, Any]]:
        """Yield what rows of a kind say."""

    def note(self, kind: int, bodies: Iterable[tuple[str, dict[str, Any]]]) -> None:
        """Write what rows of a kind say, each under a key of its own."""

    def forget(self, kind: int, keys: Iterable[str]) -> None:
        """Remove rows of a kind."""


class Lease:
    """The right of one process to write pictures; its threads take turns."""

    def __init__(self, rows: Rows, kind: int) -> None:
        self._rows, self._kind = rows, kind
        self._key = uuid.uuid4().hex
        self._turn = threading.Lock()
        self._count = 0
        self._written = 0.0

    @contextmanager
    def held(self) -> Iterator[None]:
        """Wait for the lease, and hold it: others take who does not ``renew`` it for dead.

        Raise ``LibraryAway`` if Milvus does not answer.
        """
        with self._turn:
            self._take()
            try:
                yield
            finally:
                self._give_back()

    def renew(self) -> None:
        """Say that the lease is still held, before something is written.

        Raise ``LibraryError`` where another may have it by now.
        """
        silent = time.time() - self._written
        if 0 <= silent < RENEW_S:
            return
        rows = self._rows.bodies(self._kind, consistency=STRONG)
        if not 0 <= silent < DEAD_S or self._key not in {row["of"] for row in rows}:
            raise LibraryError(
                f"this machine was silent for too long while it wrote to {self._rows.address}, so "
                "that another took its turn; run it again"
            )
        self._write()

    def _write(self) -> None:
        self._count += 1
        self._written = time.time()  # which goes on while the machine sleeps
        self._rows.note(self._kind, [(self._key, {"of": self._key, "count": self._count})])

    def _take(self) -> None:
        seen: dict[str, tuple[int, float]] = {}  # by row: what it says, and since when
        started, is_said = time.monotonic(), False
        while True:
            self._write()
            try:
                others = self._others()
            except BaseException:
                self._give_back()
                raise
            if not others:
                return
            self._give_back()
            now = time.monotonic()
            seen = {
                key: seen[key] if key in seen and seen[key][0] == count else (count, now)
                for key, count in others.items()
            }
            if dead := [key for key, (_, since) in seen.items() if now > since + DEAD_S]:
                self._rows.forget(self._kind, dead)
            if not is_said and now > started + SAID_S:
                log.warning("waiting for another machine that writes to %s", self._rows.address)
                is_said = True
            time.sleep(PAUSE_S * (0.5 + random.random()))

    def _others(self) -> dict[str, int]:
        """Return who else has a row, and what it says: it differs whenever it is written."""
        found = self._rows.bodies(self._kind, consistency=STRONG)
        return {row["of"]: row["count"] for row in found if row["of"] != self._key}

    def _give_back(self) -> None:
        self._rows.forget(self._kind, [self._key])
