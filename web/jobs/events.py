"""What changes while a page is open, as a stream of events."""

import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator

from flask import Blueprint, Flask, Response, current_app, request

from fovea.web.contract.problems import Problem
from fovea.web.engine.engine import Engine, current_engine

from .model_changes import ModelChanges, changes
from .scans import Scans, scans

__all__ = ["blueprint", "install"]

blueprint = Blueprint("events", __name__)

LISTENERS = 8  # event streams at once: each occupies a thread
LOOK_S = 1.0  # between two checks for changes of the library
HEARTBEAT_S = 15.0  # proxies close silent streams


def install(app: Flask) -> None:
    """Bound the number of listeners, and give this run of the server an id."""
    app.extensions["fovea.run"] = secrets.token_hex(8)
    app.extensions["fovea.listeners"] = threading.BoundedSemaphore(LISTENERS)


@blueprint.get("/api/events")
def events() -> Response:
    """Server-sent events: ``scan``, ``model`` and ``library``, as they change.

    The first, ``server``, says which run of the server this is, and the library's generation: a
    page that has been without events learns whether it has missed any.
    """
    seats: threading.BoundedSemaphore = current_app.extensions["fovea.listeners"]
    if not seats.acquire(blocking=False):
        detail = "too many pages are listening for events; close one"
        raise Problem(503, "Service Unavailable", detail, headers={"Retry-After": "15"})
    gone = request.environ.get("waitress.client_disconnected", lambda: False)
    run = current_app.extensions["fovea.run"]
    stream = _stream(run, current_engine(), scans(), changes(), gone)
    response = Response(stream, mimetype="text/event-stream")
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Accel-Buffering"] = "no"
    response.call_on_close(seats.release)
    return response


def _stream(
    run: str, engine: Engine, found: Scans, models: ModelChanges, gone: Callable[[], bool]
) -> Iterator[str]:
    """Send the present state, then changes; comments keep a silent connection open."""
    scan, model = None, None
    generation, quiet_since, patience = engine.generation, time.monotonic(), 0.0
    yield "retry: 5000\n\n"
    text = _event("server", {"run": run, "generation": generation})
    while not (engine.closing.is_set() or gone()):
        newest, patience = found.wait(scan, patience), LOOK_S
        if newest != scan:
            scan = newest
            text += _event("scan", scan)
        state = models.state()
        if state != model and (model or state["better"] or state["change"]):
            model = state
            text += _event("model", state)
        if engine.generation != generation:
            generation = engine.generation
            images = engine.counts().images
            text += _event("library", {"images": images, "generation": generation})
        if text or time.monotonic() - quiet_since > HEARTBEAT_S:
            quiet_since = time.monotonic()
            yield text or ": no change\n\n"
            text = ""


def _event(name: str, value: object) -> str:
    return f"event: {name}\ndata: {json.dumps(value)}\n\n"
