"""Work in a thread beside the requests: its request waits for it a while, and it goes on then."""

import logging
import threading
from collections.abc import Callable

from fovea.search.errors import FoveaError, LibraryBusy
from fovea.web.engine.engine import Engine

__all__ = ["Task"]

PATIENCE_S = 2.0  # that a request waits for work that takes no longer
FAREWELL_S = 5.0  # that a server waits for it as it stops

log = logging.getLogger(__name__)


class Task:
    """One kind of work; ``doing`` says in a few words what is done, as in "pictures get labels"."""

    def __init__(self, engine: Engine, doing: str) -> None:
        self._engine, self._doing = engine, doing
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None
        engine.on_close(self._close)

    @property
    def is_running(self) -> bool:
        """Whether the work goes on."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def problem(self) -> str | None:
        """Why the last work ended early; None if it did not."""
        return None if self.is_running or self._error is None else str(self._error)

    def check_idle(self) -> None:
        """Raise ``LibraryBusy`` while the work goes on."""
        if self.is_running:
            raise LibraryBusy(f"{self._doing} just now; wait until that has ended")

    def run(self, work: Callable[[], object]) -> None:
        """Work, and return once that is done or goes on for longer than a request should wait.

        Raise ``LibraryBusy`` while earlier work goes on, and what the work raises so soon.
        """
        with self._lock:
            self.check_idle()
            self._error = None
            thread = threading.Thread(target=self._work, args=(work,), daemon=True)
            self._thread = thread
            thread.start()
        thread.join(PATIENCE_S)
        if not thread.is_alive() and self._error is not None:
            raise self._error

    def _work(self, work: Callable[[], object]) -> None:
        try:
            work()
        except Exception as exc:  # the request raises it, or its route tells of it later
            self._error = exc
            if not isinstance(exc, FoveaError) and not self._engine.closing.is_set():
                log.exception("work in the background failed: %s", self._doing)

    def _close(self) -> None:
        thread = self._thread
        if thread is not None:
            thread.join(FAREWELL_S)
