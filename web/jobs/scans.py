"""Indexing while the server runs: one process at a time, with live progress."""

import os
import signal
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

from flask import Blueprint, Flask, current_app

from fovea.indexer.analysing.background import Background
from fovea.indexer.scanning.changes import inside
from fovea.indexer.workers.host import command
from fovea.search.library.paths import printable, printable_name
from fovea.web.contract.describe import bad_request, describe, json_body
from fovea.web.contract.problems import Problem
from fovea.web.engine.engine import Engine, current_engine

from . import changed_files
from .process import Child, InHand, close, ended, follow, lines, start, tell

__all__ = ["Scans", "blueprint", "install", "scans"]

blueprint = Blueprint("scans", __name__)

REREAD_AT_ONCE = 1000  # files; what comes beyond is told again when it is looked at again

NEW_SCAN = {
    "type": "object",
    "properties": {"root": {"type": ["integer", "null"], "description": "Scan only this folder."}},
    "additionalProperties": False,
}


class Wanted(NamedTuple):
    """What a scan is to do."""

    folders: tuple[Path, ...] = ()  # all roots, if there are none
    reread: bool = False  # they are files found changed, and only these are read
    adds: bool = False  # those that are no roots become ones


class Scans:
    """The running scan or the last one, and the scans that wait for it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._changed = threading.Condition()
        self._document: dict[str, Any] | None = None
        self._process: Child | None = None
        self._waiting: list[Wanted] = []
        self._running = Wanted()
        self._count = 0
        self._analyses = Background(engine.folder, engine.remarks)

    def document(self) -> dict[str, Any] | None:
        """Return the newest scan as the API shows it; None before the first."""
        with self._changed:
            return None if self._document is None else dict(self._document)

    def start(
        self, folders: Sequence[Path] = (), *, reread: bool = False, adds: bool = False
    ) -> dict[str, Any]:
        """Index these roots, or all, now or after the running scan; return the newest scan.

        One that has been removed by then is passed over, unless ``adds``: then folders that are no
        roots become ones. With ``reread``, they are files found changed, and only these are read.
        Raise ``LibraryReadOnly`` if the library cannot be changed here.
        """
        self._engine.check_writable()
        wanted = Wanted(tuple(folders), reread, adds)
        with self._changed:
            if self._engine.closing.is_set():
                raise Problem(503, "Service Unavailable", "the server is shutting down")
            if self._process is None:
                self._begin(wanted)
            elif reread and folders:
                self._add_to_reread(wanted.folders)
            elif wanted not in self._waiting:
                self._waiting.append(wanted)
            assert self._document is not None
            return dict(self._document)

    def _add_to_reread(self, folders: tuple[Path, ...]) -> None:
        """Add to the scan that waits to read files anew: many small ones would walk for ever."""
        for place, wanted in enumerate(self._waiting):
            if wanted.reread and wanted.folders:
                joined = tuple(dict.fromkeys((*wanted.folders, *folders)))
                self._waiting[place] = Wanted(joined[:REREAD_AT_ONCE], True)
                return
        self._waiting.append(Wanted(folders, True))

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
        self._analyses.close()

    def analyse(self) -> None:
        """Analyse the pictures that wait for it, in the background."""
        self._analyses.start()

    @property
    def is_analysing(self) -> bool:
        """Whether pictures are analysed in the background now."""
        return self._analyses.is_running

    def turn_of(self, folder: bytes) -> Literal["running", "waiting"] | None:
        """Say whether a folder is being scanned or is to be, with all others or by itself."""
        with self._changed:
            running = None if self._process is None else self._running
            waiting = list(self._waiting)
        if running is not None and _covers(running, folder):
            return "running"
        return "waiting" if any(_covers(wanted, folder) for wanted in waiting) else None

    def wait(self, seen: dict[str, Any] | None, timeout: float) -> dict[str, Any] | None:
        """Return the newest scan once it differs from ``seen``, or after ``timeout`` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._document != seen, timeout)
            return None if self._document is None else dict(self._document)

    def _begin(self, wanted: Wanted) -> None:
        """Start the process; the caller has locked ``_changed``."""
        self._count += 1
        self._running = wanted
        self._document = {
            "id": self._count,
            "state": "running",
            "doing": "starting",
            **dict.fromkeys(("found", "done", "embedded", "failed", "skipped"), 0),
            "rate": 0.0,
            "seconds_left": None,
            "roots": [printable(os.fspath(folder)) for folder in wanted.folders],
            "unreached": [],
            "ignore_files": [],
            "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "in_hand": [],
            "code": None,
            "message": None,
        }
        asked = {
            "library": str(self._engine.folder.absolute()),
            "folders": [os.fspath(folder) for folder in wanted.folders],
            "reread": wanted.reread,
            "adds": wanted.adds,
            "model": self._engine.requested_model,
        }
        in_hand = None
        try:
            in_hand = InHand()
            asked["in_hand"] = in_hand.descriptor
            program = command("fovea.web.jobs.index_worker")
            process = start(program, asked, [in_hand.descriptor])
            follow(process, self._follow, in_hand)
        except OSError as exc:
            if in_hand is not None:
                in_hand.close()
            self._document |= _ended({"error": f"cannot start indexing: {exc.strerror}"}, 1)
        else:
            self._process = process
        self._changed.notify_all()

    def _follow(self, process: Child, in_hand: InHand) -> None:
        """Read the process's output until it ends, then start the next scan that waits."""
        last: dict[str, Any] = {}
        for said in lines(process):
            if "progress" in said:
                before = (self._document or {}).get("doing")
                self._show(_progressed(said["progress"], before))
            elif "waiting" in said:
                self._show({"doing": "waiting", "message": str(said["waiting"])})
            elif "doing" in said:
                self._show({"doing": str(said["doing"])})
            last = said
        code = ended(process)
        at = in_hand.read()
        in_hand.close()
        with self._changed:
            self._process = None
            self._document = {**(self._document or {}), **_ended(last, code, at)}
            if self._waiting and not self._engine.closing.is_set():
                self._begin(self._waiting.pop(0))
            elif self._document["state"] == "done":
                self._analyses.start()
            self._changed.notify_all()

    def _show(self, changes: dict[str, Any]) -> None:
        with self._changed:
            self._document = {**(self._document or {}), **changes}
            self._changed.notify_all()


def _covers(wanted: Wanted, folder: bytes) -> bool:
    """Whether a scan walks a folder. A scan of one also walks the roots in it."""
    if wanted.reread:  # single files
        return False
    places = map(os.fsencode, wanted.folders)
    return not wanted.folders or any(inside(folder, place) for place in places)


def _progressed(now: dict[str, Any], before: str | None) -> dict[str, Any]:
    """Tell from the process's progress how far a scan is; ``before`` is what it did until now."""
    rate, left = float(now["rate"]), None
    if rate > 0 and not now["walking"]:
        left = round(max(0, now["found"] - now["done"]) / rate, 1)
    names = ("found", "done", "embedded", "failed", "skipped")
    counts = {name: now[name] for name in names}
    doing = _doing(now, before)
    return {**counts, "doing": doing, "rate": round(rate, 1), "seconds_left": left, "message": None}


def _doing(now: dict[str, Any], before: str | None) -> str:
    if before == "loading":  # until the process says that the model is there
        return before
    if now["walking"]:
        return "indexing" if before == "indexing" else "counting"
    return "indexing" if now["done"] < now["found"] else "finishing"


def _ended(
    last: dict[str, Any], code: int, in_hand: tuple[str, list[str], int] | None = None
) -> dict[str, Any]:
    """Tell from the process's last line and exit code how a scan has ended.

    ``in_hand`` is what it was doing, to which files (the first few), and to how many.
    """
    if "report" in last and code == 0:
        report = last["report"]
        names = ("found", "embedded", "failed", "skipped")
        counts = {name: report[name] for name in names}
        places = {
            name: [printable(path) for path in report.get(name, [])]
            for name in ("unreached", "ignore_files")
        }
        message = report.get("message")
        if report["stopped"]:
            done = sum(report[name] for name in ("embedded", "unchanged", "moved", *names[2:]))
        else:
            done = report["found"]
        state = "stopped" if report["stopped"] else "done"
        ended = {"done": done, "state": state, "doing": None, "seconds_left": None}
        return {**counts, **ended, **places, "message": message and printable(message)}
    failed = {"state": "failed", "doing": None, "seconds_left": None}
    if "error" in last:
        return {**failed, "message": str(last["error"])}
    files: list[str] = []
    place = ""
    if in_hand is not None:
        doing, paths, count = in_hand
        files = [printable_name(path) for path in paths]
        others = f" and {count - 1} other files" if count > 2 else " and another file"
        place = f" while {doing} {files[0]}{others if count > 1 else ''}"
    message = f"the indexing process ended unexpectedly ({_how(code)}){place}; see the server's log"
    return {**failed, "code": "unexpected", "message": message, "in_hand": files}


def _how(code: int) -> str:
    """Say how a process has ended: an exit code, or minus the signal that ended it."""
    try:
        return f"exit code {code}" if code >= 0 else signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def install(app: Flask) -> None:
    """Add scans to the app; they end with it."""
    engine: Engine = app.extensions["fovea"]
    app.extensions["fovea.scans"] = found = Scans(engine)
    engine.on_close(found.close)
    changed_files.install(app)


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
    root_id = json_body().get("root")
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
