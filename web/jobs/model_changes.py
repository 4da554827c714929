"""Changing the library's model while the server runs: fetch it, embed with it, activate it."""

import subprocess
import threading
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from flask import Blueprint, Flask, current_app

from fovea.indexer.workers.host import command
from fovea.search.models.better import better_model
from fovea.search.models.installed import available_models
from fovea.search.models.named_hub import find_named
from fovea.search.models.openai import find_openai
from fovea.web.contract.describe import describe, json_body, text_of
from fovea.web.contract.problems import Problem
from fovea.web.engine.engine import Engine, current_engine

from .process import Child, ended, lines, start, tell

__all__ = ["ModelChanges", "blueprint", "changes", "install"]

blueprint = Blueprint("model", __name__)

LONGEST = 200  # characters of a model's name
PATIENCE_S = 5.0  # for the batch in flight when the server stops

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


class ModelChanges:
    """The running change of model, or the last one."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._document: dict[str, Any] | None = None
        self._process: Child | None = None
        self._count = 0

    def state(self) -> dict[str, Any]:
        """Return the library's model, the better one that can be had, and the newest change."""
        with self._lock:
            change = None if self._document is None else dict(self._document)
        model = self._engine.library.model()
        offer = self._engine.remembered("better", lambda: better_model(model))
        return {
            "model": None if model is None else model.name,
            "better": None if offer is None else asdict(offer),
            "change": change,
        }

    def start(self, name: str) -> None:
        """Fetch a model, embed the library with it and activate it, in the background.

        Raise ``Problem`` 409 while the library changes to another model.
        """
        with self._lock:
            if self._engine.closing.is_set():
                raise Problem(503, "Service Unavailable", "the server is shutting down")
            if self._process is None:
                self._begin(name)
            elif self._document is not None and self._document["model"] != name:
                other = self._document["model"]
                detail = f"the library is changing to {other}; wait for that, or cancel it"
                raise Problem(409, "Conflict", detail)

    def cancel(self) -> None:
        """Stop at once while downloading, after the batch in flight while embedding."""
        with self._lock:
            if self._process is not None:
                tell(self._process, "stop\n")

    def close(self) -> None:
        """Stop as the server stops; the same change can be resumed later."""
        process = self._process
        if process is None or process.stdin is None:
            return
        with suppress(OSError):  # a line that could not be written
            process.stdin.close()
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _begin(self, name: str) -> None:
        """Start the process; the caller holds the lock."""
        self._count += 1
        self._document = {
            "id": self._count,
            "model": name,
            "state": "downloading",
            "bytes": 0,
            "total_bytes": None,
            "images": 0,
            "embedded": 0,
            "rate": 0.0,
            "seconds_left": None,
            "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "code": None,
            "message": None,
        }
        wanted = {"library": str(self._engine.folder.absolute()), "name": name}
        try:
            process = self._process = start(command("fovea.web.jobs.model_worker"), wanted)
        except OSError as exc:
            message = f"cannot start the change of model: {exc.strerror}; try again"
            self._document |= {"state": "failed", "message": message}
        else:
            threading.Thread(target=self._follow, args=(process,), daemon=True).start()

    def _follow(self, process: Child) -> None:
        """Read the process's output until it ends."""
        last: dict[str, Any] = {}
        for said in lines(process):
            if "downloading" in said:
                self._show(said["downloading"])
            elif "embedding" in said:
                self._show(_embedding(said["embedding"]))
            last = said
        code = ended(process)
        with self._lock:
            self._process = None
            self._document = {**(self._document or {}), **_ended(last, code)}

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
        error = last.get("error", {"message": unknown, "code": None})
        return {**ended, **error, "state": "failed"}
    if report["switched"]:
        return {**ended, "state": "done"}
    if report["stopped"] or report.get("superseded"):
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


def install(app: Flask) -> None:
    """Add changes of model to the app; they end with it."""
    engine: Engine = app.extensions["fovea"]
    app.extensions["fovea.changes"] = found = ModelChanges(engine)
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
    name = text_of("name", json_body(["name"]).get("name"), LONGEST)
    changes().start(_known(name))
    return changes().state(), 202


@blueprint.delete("/api/model/change")
@describe("Cancel the change of model", {202: "Model"}, tag="Model", problems=(503,))
def cancel_change() -> tuple[dict[str, Any], int]:
    """Keep the present model. What was downloaded and embedded is kept for another try."""
    changes().cancel()
    return changes().state(), 202


def _known(name: str) -> str:
    """Return the proper name of a model that fovea or the library knows.

    A page may not make the server fetch anything else. Raise ``Problem`` 422 for other names.
    """
    if model := find_openai(name) or find_named(name):
        return model.name
    known = [*available_models(), *(row.name for row in current_engine().library.models())]
    for other in known:
        if other.lower() == name.lower():
            return other
    detail = f"there is no model {name!r}; choose {', '.join(dict.fromkeys(known))}"
    raise Problem(422, "Unprocessable Content", detail, code="model.unknown", params={"name": name})
