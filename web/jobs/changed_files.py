"""Files that a request found changed: have them indexed again, soon and together."""

import os
import threading
import time
from pathlib import Path

from flask import Flask, current_app

from fovea.search.library.facts.stamps import Stamps
from fovea.search.library.library import DATABASE, Library
from fovea.web.contract.problems import Problem
from fovea.web.engine.engine import Engine

__all__ = ["ChangedFiles", "changed_files", "has_changed", "install"]

DELAY_S = 1.0  # from the first file that is told to the scan, for others to come
QUIET_S = 60.0  # for which a file that was told is not told again
MOST = 100  # files of one scan; what comes beyond is told again when it is looked at again


class ChangedFiles:
    """Collects files whose content is not what the library knows, and has them scanned.

    A page may ask for hundreds of pictures at once, and a file may change all the time: many files
    make one scan, and one file makes few.
    """

    def __init__(self, app: Flask, engine: Engine) -> None:
        self._app, self._engine = app, engine
        self._lock = threading.Lock()
        self._waiting: dict[str, None] = {}
        self._told: dict[str, float] = {}  # path -> when
        self._timer: threading.Timer | None = None

    def tell(self, path: str) -> bool:
        """Have a file read again; return whether it will be, or has just been.

        Nothing can be indexed into a library that is read-only.
        """
        if self._engine.closing.is_set() or not self._is_writable():
            return False
        now = time.monotonic()
        with self._lock:
            self._told = {path: when for path, when in self._told.items() if now - when < QUIET_S}
            if path not in self._told and len(self._waiting) < MOST:
                self._told[path] = now
                self._waiting[path] = None
                if self._timer is None:
                    self._timer = threading.Timer(DELAY_S, self._scan)
                    self._timer.daemon = True
                    self._timer.start()
            return path in self._told

    def close(self) -> None:
        """Forget what waits, as the server ends."""
        with self._lock:
            self._waiting.clear()
            if self._timer is not None:
                self._timer.cancel()

    def _is_writable(self) -> bool:
        folder = self._engine.folder
        return self._engine.is_writable and all(
            os.access(place, os.W_OK) for place in (folder, folder / DATABASE)
        )

    def _scan(self) -> None:
        with self._lock:
            paths, self._waiting, self._timer = list(self._waiting), {}, None
        if not paths or self._engine.closing.is_set():
            return
        try:
            self._app.extensions["fovea.scans"].start(list(map(Path, paths)), reread=True)
        except Problem:  # the server is shutting down; the next scan finds them
            return


def has_changed(library: Library, path: str, stamps: Stamps) -> bool:
    """Whether a file's stamps are not those with which it was indexed."""
    sql = "SELECT size, mtime_ns, ctime_ns FROM files WHERE path = ?"
    for size, mtime_ns, ctime_ns in library.rows(sql, (os.fsencode(path),)):
        # A file indexed in the tick of its last change is remembered by a time just before it.
        if stamps.size != size or stamps.mtime_ns - mtime_ns not in (0, 1):
            return True
        if ctime_ns is not None and stamps.ctime_ns is not None:
            return stamps.ctime_ns - ctime_ns not in (0, 1)
    return False


def install(app: Flask) -> None:
    """Add the collection to the app; it ends with it."""
    engine: Engine = app.extensions["fovea"]
    app.extensions["fovea.changed_files"] = found = ChangedFiles(app, engine)
    engine.on_close(found.close)


def changed_files() -> ChangedFiles:
    """Return the current app's collection of changed files."""
    found: ChangedFiles = current_app.extensions["fovea.changed_files"]
    return found
