"""Changing the library's model while the server runs: fetch it, embed with it, activate it."""

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from flask import Blueprint, Flask, current_app

from fovea.indexer.workers.host import command
from fovea.search.library.locks import holder_of
from fovea.search.maintenance.changeover import LOCK, find_meant
from fovea.search.models.better import better_model
from fovea.search.models.installed import available_models, better_bundled
from fovea.search.models.named_hub import find_named
from fovea.search.models.openai import find_openai
from fovea.web.contract.describe import describe, json_body, text_of
from fovea.web.contract.problems import Problem
from fovea.web.engine.engine import Engine, current_engine

from .process import Child, close, ended, follow, lines, start, tell

__all__ = ["ModelChanges", "blueprint", "changes", "install"]

blueprint = Blueprint("model", __name__)

LONGEST = 200  # characters of a model's name

NEW_CHANGE = {
    "type": "object",
    "properties": {
        "name": {
            "type": "string",
            "minLength": 1,
            "maxLength": LONGEST,
            "description": "A model that fovea or the library knows by name.",
        }
    },
    "required": ["name"],
    "additionalProperties": False,
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """The model to change to, by its name; by its identity too, if the library knows it."""

    name: str
    identity: str | None = None


class ModelChanges:
    """The running change of model, or the last one."""

    def __init__(self, engine: Engine, rescan: Callable[[], object]) -> None:
        """``rescan`` indexes all folders, for pictures that the new model has left out."""
        self._engine, self._rescan = engine, rescan
        self._lock = threading.Lock()
        self._document: dict[str, Any] | None = None
        self._process: Child | None = None
        self._wanted: Wanted | None = None
        self._count = 0

    def state(self) -> dict[str, Any]:
        """Return the library's model, the better one that can be had, and the newest change.

        No model is offered while another process changes it, nor for a read-only library.
        """
        with self._lock:
            change = None if self._document is None else dict(self._document)
            is_running = self._process is not None
        library = self._engine.library
        offer = self._engine.remembered("better", lambda: better_model(library.model()))
        if not self._engine.is_writable or not is_running and holder_of(self._engine.folder, LOCK):
            offer = None
        model = library.model()
        return {
            "model": None if model is None else model.name,
            "bundled": better_bundled(model),
            "better": None if offer is None else asdict(offer),
            "change": change,
        }

    def start(self, wanted: Wanted) -> None:
        """Fetch a model, embed the library with it and activate it, in the background.

        Raise ``Problem`` 409 while the library changes to another model, ``LibraryReadOnly`` if it
        cannot be changed here.
        """
        self._engine.check_writable()
        with self._lock:
            if self._engine.closing.is_set():
                raise Problem(503, "Service Unavailable", "the server is shutting down")
            if self._process is None:
                self._begin(wanted)
            elif self._wanted is not None and self._wanted != wanted:
                other = self._wanted.name
                detail = f"the library is changing to {other}; wait for that, or cancel it"
                raise Problem(
                    409, "Conflict", detail, code="model.changing", params={"model": other}
                )

    def cancel(self) -> None:
        """Stop at once while downloading, after the batch in flight while embedding."""
        with self._lock:
            if self._process is not None:
                tell(self._process, "stop\n")

    def close(self) -> None:
        """Stop as the server stops; the same change can be resumed later."""
        close(self._process)

    def _begin(self, wanted: Wanted) -> None:
        """Start the process; the caller holds the lock."""
        self._count += 1
        self._wanted = wanted
        self._document = {
            "id": self._count,
            "model": wanted.name,
            "state": "starting",
            "bytes": 0,
            "total_bytes": None,
            "images": 0,
            "embedded": 0,
            "rate": 0.0,
            "seconds_left": None,
            "left_out": 0,
            "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "code": None,
            "message": None,
        }
        asked = {"library": str(self._engine.folder.absolute()), **asdict(wanted)}
        try:
            process = start(command("fovea.web.jobs.model_worker"), asked)
            follow(process, self._follow)
        except OSError as exc:
            message = f"cannot start the change of model: {exc.strerror}; try again"
            self._document |= {"state": "failed", "code": "unexpected", "message": message}
        else:
            self._process = process

    def _follow(self, process: Child) -> None:
        """Read the process's output until it ends."""
        last: dict[str, Any] = {}
        for said in lines(process):
            if "downloading" in said:
                self._show({"state": "downloading", **said["downloading"]})
            elif "embedding" in said:
                self._show(_embedding(said["embedding"]))
            last = said
        code = ended(process)
        with self._lock:
            self._process = None
            self._document = {**(self._document or {}), **_ended(last, code)}
            is_incomplete = self._document["left_out"] > 0
        if is_incomplete:
            with suppress(Problem):  # the server ends; the next run of the index finds them
                self._rescan()

    def _show(self, news: dict[str, Any]) -> None:
        with self._lock:
            self._document = {**(self._document or {}), **news}


def _embedding(now: dict[str, Any]) -> dict[str, Any]:
    images, embedded, rate = now["images"], now["embedded"], float(now["rate"])
    return {
        "state": "embedding",
        "images": images,
        "embedded": embedded,
        "rate": round(rate, 1),
        "seconds_left": round((images - embedded) / rate, 1) if rate > 0 else None,
        "message": now["waiting"],
    }


def _ended(last: dict[str, Any], exit_code: int) -> dict[str, Any]:
    """Tell from the process's last line and exit code how a change has ended."""
    ended = {"seconds_left": None, "code": None, "message": None}
    report = last.get("report")
    if report is None or exit_code != 0:
        unknown = f"the change of model ended unexpectedly (exit code {exit_code}); try again"
        error = last.get("error", {"message": unknown, "code": "unexpected"})
        return {**ended, **error, "state": "failed"}
    if report["switched"]:
        left_out = report.get("changed", 0) + report.get("failed", 0)
        return {**ended, "state": "done", "left_out": left_out, "message": _left_out(left_out)}
    if report.get("superseded"):
        message = "another change of model has been started meanwhile; this one has ended"
        return {**ended, "state": "stopped", "code": "superseded", "message": message}
    if report["stopped"]:
        return {**ended, "state": "stopped"}
    counts = {
        "unreachable": report["unreachable"],
        "changed or gone": report["changed"],
        "damaged": report["failed"],
    }
    left_out = ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)
    message = (
        f"some pictures cannot be embedded now ({left_out}); bring them back or rescan their "
        "folders, and try again"
    )
    return {**ended, "state": "failed", "code": "pictures", "message": message}


def _left_out(count: int) -> str | None:
    if not count:
        return None
    they = "1 picture has" if count == 1 else f"{count:,} pictures have"
    return f"{they} changed, or cannot be read, and will be searchable once indexed again"


def install(app: Flask) -> None:
    """Add changes of model to the app; they end with it."""
    engine: Engine = app.extensions["fovea"]

    def rescan() -> None:
        app.extensions["fovea.scans"].start()

    app.extensions["fovea.changes"] = found = ModelChanges(engine, rescan)
    engine.on_close(found.close)


def changes() -> ModelChanges:
    """Return the current app's changes of model."""
    found: ModelChanges = current_app.extensions["fovea.changes"]
    return found


# Routes


@blueprint.get("/api/model")
@describe("Get the model", {200: "Model"}, tag="Model", problems=(503,))
def show_model() -> dict[str, Any]:
    """Return the library's model, a better one that can be had, and the newest change of model."""
    return changes().state()


@blueprint.post("/api/model")
@describe(
    "Change the model",
    {202: "Model"},
    tag="Model",
    body={"application/json": NEW_CHANGE},
    problems=(409, 415, 422, 503),
)
def change_model() -> tuple[dict[str, Any], int]:
    """Fetch a model if need be, embed all pictures with it, and activate it.

    Searches use the present model meanwhile. An interrupted change resumes.
    """
    name = text_of("name", json_body().get("name"), LONGEST)
    changes().start(_known(name))
    return changes().state(), 202


@blueprint.delete("/api/model/change")
@describe("Cancel the change of model", {202: "Model"}, tag="Model", problems=(503,))
def cancel_change() -> tuple[dict[str, Any], int]:
    """Keep the present model. What was downloaded and embedded is kept for another try."""
    changes().cancel()
    return changes().state(), 202


def _known(name: str) -> Wanted:
    """Return a model that the library or fovea knows by this name, as ``models use`` finds it.

    A page may not make the server fetch anything else. Raise ``Problem`` 422 for other names,
    ``LibraryError`` for one that several models of the library have.
    """
    library = current_engine().library
    row = find_meant(library, name)
    if row is not None:
        return Wanted(row.name, row.identity)
    if model := find_openai(name) or find_named(name):
        return Wanted(model.name)
    known = available_models()
    for other in known:
        if other.lower() == name.lower():
            return Wanted(other)
    known += [row.name for row in library.models()]
    detail = f"there is no model {name!r}; choose {', '.join(dict.fromkeys(known))}"
    raise Problem(422, "Unprocessable Content", detail, code="model.unknown", params={"name": name})
