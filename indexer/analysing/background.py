"""Analyse in the background of a program that goes on: a watch, or a server."""

import logging
import threading
from pathlib import Path

from fovea.indexer.workers.pool import WorkersError
from fovea.search.clip.errors import FoveaError
from fovea.search.errors import LibraryBusy
from fovea.search.library.library import Library

from .analyse import Writing, analyse, has_work
from .kinds import automatic

__all__ = ["Background"]

WAIT_S = 5.0  # between two looks whether another process still analyses

log = logging.getLogger(__name__)


class Background:
    """A thread that runs the automatic kinds whenever ``start`` is called; safe in threads.

    The work is done by processes of low priority, the thread waits for them.
    """

    def __init__(self, folder: Path, writing: Writing | None = None) -> None:
        """``writing`` is that of ``analyse``."""
        self._folder, self._writing = folder, writing
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._again = self._is_closed = False

    def start(self) -> None:
        """Analyse what is pending, after the present run if there is one."""
        with self._lock:
            if self._is_closed or not automatic():
                return
            if self._thread is not None:
                self._again = True
                return
            self._thread = threading.Thread(target=self._run, name="analyses", daemon=True)
            self._thread.start()

    @property
    def is_running(self) -> bool:
        """Whether pictures are analysed now, or what waits is looked for."""
        return self._thread is not None

    def close(self, timeout: float | None = 5.0) -> None:
        """Stop for good, waiting for the pictures in flight."""
        with self._lock:
            self._is_closed, thread = True, self._thread
            self._stop.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)

    def _run(self) -> None:
        while True:
            try:
                self._analyse()
            except (FoveaError, WorkersError, OSError) as exc:
                log.warning("pictures cannot be analysed now: %s", exc)
            except Exception:
                if not self._stop.is_set():  # then what it worked with is closed
                    log.exception("pictures cannot be analysed now")
            with self._lock:
                if not self._again or self._is_closed:
                    self._thread = None
                    return
                self._again = False

    def _analyse(self) -> None:
        with Library.open(self._folder) as library:
            kinds = automatic()
            while library.is_writable and has_work(library, kinds) and not self._stop.is_set():
                try:
                    analyse(library, kinds, stop=self._stop, writing=self._writing)
                    return
                except LibraryBusy:
                    self._stop.wait(WAIT_S)
