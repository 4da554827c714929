"""Indexing while the server runs: one process at a time, with live progress."""

import os
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flask import Blueprint, Flask, current_app

from fovea.indexer.workers.host import command
from fovea.search.library.paths import printable
from fovea.web.contract.describe import bad_request, describe, json_body
from fovea.web.contract.problems import Problem
from fovea.web.engine.engine import Engine, current_engine

from .process import Child, close, ended, lines, start, tell

__all__ = ["Scans", "blueprint", "install", "scans"]

blueprint = Blueprint("scans", __name__)

NEW_SCAN = {
    "type": "object",
    "properties": {"root": {"type": ["integer", "null"], "description": "Scan only this folder."}},
    "additionalProperties": False,
}


class Scans:
    """The running scan or the last one, and the scans that wait for it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._changed = threading.Condition()
        self._document: dict[str, Any] | None = None
        self._process: Child | None = None
        self._waiting: list[tuple[Path, ...]] = []
        self._count = 0

    def document(self) -> dict[str, Any] | None:
        """Return the newest scan as the API shows it; None before the first."""
        with self._changed:
            return None if self._document is None else dict(self._document)

    def start(self, folders: Sequence[Path] = ()) -> dict[str, Any]:
        """Index these folders, or all, now or after the running scan; return the newest scan.

        Raise ``LibraryReadOnly`` if the library cannot be changed here.
        """
        self._engine.check_writable()
        wanted = tuple(folders)
        with self._changed:
            if self._engine.closing.is_set():
                raise Problem(503, "Service Unavailable", "the server is shutting down")
            if self._process is None:
                self._begin(wanted)
            elif wanted not in self._waiting:
                self._waiting.append(wanted)
            assert self._document is not None
            return dict(self._document)

    def stop(self) -> None:
        """Stop the scan after the batch in flight, and drop the scans that wait."""
        with self._changed:
            self._waiting.clear()
            if self._process is not None:
                tell(self._process, "stop\n")

    def close(self) -> None:
        """Stop the scan as the server stops, waiting a few seconds for the batch in flight."""
        self.stop()
        close(self._process)

    def wait(self, seen: dict[str, Any] | None, timeout: float) -> dict[str, Any] | None:
        """Return the newest scan once it differs from ``seen``, or after ``timeout`` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._document != seen, timeout)
            return None if self._document is None else dict(self._document)

    def _begin(self, folders: tuple[Path, ...]) -> None:
        """Start the process; the caller has locked ``_changed``."""
        self._count += 1
        self._document = {
            "id": self._count,
            "state": "running",
            **dict.fromkeys(("found", "done", "embedded", "failed", "skipped"), 0),
            "rate": 0.0,
            "seconds_left": None,
            "roots": [printable(os.fspath(folder)) for folder in folders],
            "unreached": [],
            "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "message": None,
        }
        wanted = {
            "library": str(self._engine.folder.absolute()),
            "folders": [os.fspath(folder) for folder in folders],
            "model": self._engine.requested_model,
        }
        try:
            process = self._process = start(command("fovea.web.jobs.index_worker"), wanted)
        except OSError as exc:
            self._document |= _ended({"error": f"cannot start indexing: {exc.strerror}"}, 1)
        else:
            threading.Thread(target=self._follow, args=(process,), daemon=True).start()
        self._changed.notify_all()

    def _follow(self, process: Child) -> None:
        """Read the process's output until it ends, then start the next scan that waits."""
        last: dict[str, Any] = {}
        for said in lines(process):
            if "progress" in said:
                self._show(_progressed(said["progress"]))
            elif "waiting" in said:
                self._show({"message": str(said["waiting"])})
            last = said
        code = ended(process)
        with self._changed:
            self._process = None
            self._document = {**(self._document or {}), **_ended(last, code)}
            if self._waiting and not self._engine.closing.is_set():
                self._begin(self._waiting.pop(0))
            self._changed.notify_all()

    def _show(self, changes: dict[str, Any]) -> None:
        with self._changed:
            self._document = {**(self._document or {}), **changes}
            self._changed.notify_all()


def _progressed(now: dict[str, Any]) -> dict[str, Any]:
    rate, left = float(now["rate"]), None
    if rate > 0 and not now["walking"]:
        left = round(max(0, now["found"] - now["done"]) / rate, 1)
    names = ("found", "done", "embedded", "failed", "skipped")
    counts = {name: now[name] for name in names}
    return {**counts, "rate": round(rate, 1), "seconds_left": left, "message": None}


def _ended(last: dict[str, Any], code: int) -> dict[str, Any]:
    """Tell from the process's last line and exit code how a scan has ended."""
    if "report" in last and code == 0:
        report = last["report"]
        names = ("found", "embedded", "failed", "skipped")
        counts = {name: report[name] for name in names}
        unreached = [printable(path) for path in report["unreached"]]
        if report["stopped"]:
            done = sum(report[name] for name in ("embedded", "unchanged", "moved", *names[2:]))
        else:
            done = report["found"]
        state = "stopped" if report["stopped"] else "done"
        ended = {"done": done, "state": state, "seconds_left": None, "message": None}
        return {**counts, **ended, "unreached": unreached}
    message = f"the indexing process ended unexpectedly (exit code {code}); see the server's log"
    return {"state": "failed", "message": str(last.get("error", message)), "seconds_left": None}


def install(app: Flask) -> None:
    """Add scans to the app; they end with it."""
    engine: Engine = app.extensions["fovea"]
    app.extensions["fovea.scans"] = found = Scans(engine)
    engine.on_close(found.close)


def scans() -> Scans:
    """Return the current app's scans."""
    found: Scans = current_app.extensions["fovea.scans"]
    return found


# Routes


@blueprint.get("/api/scans")
@describe("Get the scan", {200: "Scans"}, tag="Folders")
def show_scan() -> dict[str, Any]:
    """Return the running scan or the last one; null before the first."""
    return {"scan": scans().document()}


@blueprint.post("/api/scans")
@describe(
    "Scan all folders, or one",
    {202: "Scans"},
    tag="Folders",
    body={"application/json": NEW_SCAN},
    problems=(404, 415, 503),
)
def start_scan() -> tuple[dict[str, Any], int]:
    """Scan now, or after the running scan."""
    root_id = json_body(["root"]).get("root")
    if root_id is None:
        return {"scan": scans().start()}, 202
    if not isinstance(root_id, int) or isinstance(root_id, bool):
        raise bad_request("root must be the id of a folder, or null for all folders")
    for root in current_engine().library.roots():
        if root.id == root_id:
            return {"scan": scans().start([Path(os.fsdecode(root.path))])}, 202
    raise Problem(404, "Not Found", f"there is no folder {root_id}")


@blueprint.delete("/api/scans/current")
@describe("Stop the scan", {202: "Scans"}, tag="Folders")
def stop_scan() -> tuple[dict[str, Any], int]:
    """Stop after the batch in flight; indexed pictures stay in the library."""
    scans().stop()
    return {"scan": scans().document()}, 202
