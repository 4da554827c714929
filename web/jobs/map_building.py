"""Laying out the library's map while the server runs: in a process of low priority."""

import threading
from datetime import UTC, datetime
from typing import Any

from flask import Flask, current_app

from fovea.indexer.workers.host import command
from fovea.search.mapping.layout import WITHOUT, is_installed
from fovea.web.contract.problems import Problem
from fovea.web.engine.engine import Engine

from .process import Child, close, ended, follow, lines, start

__all__ = ["MapBuilding", "building", "install"]


class MapBuilding:
    """The map that is being laid out, or the last one that was."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._document: dict[str, Any] | None = None
        self._process: Child | None = None

    def document(self) -> dict[str, Any] | None:
        """Return how far the map is, as the API shows it; None before the first."""
        with self._lock:
            return None if self._document is None else dict(self._document)

    def start(self) -> None:
        """Lay the map out anew, unless that is being done.

        Raise ``Problem`` 409 without scikit-learn, ``LibraryReadOnly`` if the library cannot be
        changed here.
        """
        self._engine.check_writable()
        if not is_installed():
            raise Problem(409, "Conflict", WITHOUT, code="map.not_installed")
        with self._lock:
            if self._engine.closing.is_set():
                raise Problem(503, "Service Unavailable", "the server is shutting down")
            if self._process is None:
                self._begin()

    def close(self) -> None:
        """Stop as the server stops."""
        close(self._process)

    def _begin(self) -> None:
        """Start the process; the caller holds the lock."""
        self._document = {
            "state": "running",
            "step": "reading",
            "done": 0,
            "total": 0,
            "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "message": None,
        }
        asked = {"library": str(self._engine.folder.absolute())}
        try:
            process = start(command("fovea.web.jobs.map_worker"), asked)
            follow(process, self._follow)
        except OSError as exc:
            message = f"cannot lay out the map: {exc.strerror}; try again"
            self._document |= {"state": "failed", "message": message}
        else:
            self._process = process

    def _follow(self, process: Child) -> None:
        """Read the process's output until it ends."""
        last: dict[str, Any] = {}
        for said in lines(process):
            last = said
            if "progress" in said:
                with self._lock:
                    self._document = {**(self._document or {}), **said["progress"]}
        code = ended(process)
        with self._lock:
            self._process = None
            self._document = {**(self._document or {}), **_ended(last, code)}


def _ended(last: dict[str, Any], exit_code: int) -> dict[str, Any]:
    if exit_code == 0 and "report" in last:
        return {"state": "done", "message": None}
    unknown = f"laying out the map ended unexpectedly (exit code {exit_code}); try again"
    return {"state": "failed", "message": last.get("error", {}).get("message", unknown)}


def install(app: Flask) -> None:
    """Add the building of maps to the app; it ends with it."""
    engine: Engine = app.extensions["fovea"]
    app.extensions["fovea.map"] = found = MapBuilding(engine)
    engine.on_close(found.close)


def building() -> MapBuilding:
    """Return the current app's building of maps."""
    found: MapBuilding = current_app.extensions["fovea.map"]
    return found
