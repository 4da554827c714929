"""Favourites and hidden pictures: mark one or many, export and import all."""

import threading
from collections.abc import Iterable
from typing import Any

from flask import Blueprint, Flask, Response, current_app, request

from fovea.search.library.library import Library
from fovea.search.library.marks import MARKS, Mark, contents, mark, marks_of
from fovea.search.maintenance.keepsakes import exported, imported
from fovea.web.contract.describe import bad_request, describe, json_body
from fovea.web.contract.problems import Problem
from fovea.web.engine.choices import CHOICE, chosen, one_of, read_choice
from fovea.web.engine.engine import current_engine

blueprint = Blueprint("marks", __name__)

DOCUMENT_BYTES = 16 << 20  # of an import: about 100,000 marks

MANY: dict[str, Any] = {
    "type": "object",
    "properties": {**CHOICE, **dict.fromkeys(MARKS, {"type": "boolean"})},
    "oneOf": one_of(),
    "anyOf": [{"required": [name]} for name in MARKS],
    "additionalProperties": False,
}
DOCUMENT: dict[str, Any] = {
    "type": "object",
    "properties": {
        "fovea": {"const": 1},
        **{name: {"type": "array"} for name in ("favourites", "hidden", "searches", "tags")},
    },
    "required": ["fovea"],
    "additionalProperties": False,
}


def install(app: Flask) -> None:
    """Let the app import one document at a time."""
    app.extensions["fovea.imports"] = threading.Lock()


@blueprint.put("/api/images/<int:image_id>/favourite")
@describe("Make an image a favourite", {200: "Marks"}, tag="Marks", problems=(403, 409, 503))
def favourite(image_id: int) -> dict[str, Any]:
    """Mark the image and its copies; `is:favourite` finds them.

    Marks belong to contents: they outlast moves, changes of model and removed folders.
    """
    return _one(image_id, "favourite", True)


@blueprint.delete("/api/images/<int:image_id>/favourite")
@describe(
    "Make an image a favourite no longer", {200: "Marks"}, tag="Marks", problems=(403, 409, 503)
)
def no_favourite(image_id: int) -> dict[str, Any]:
    """Take the mark away."""
    return _one(image_id, "favourite", False)


@blueprint.put("/api/images/<int:image_id>/hidden")
@describe("Hide an image", {200: "Marks"}, tag="Marks", problems=(403, 409, 503))
def hide(image_id: int) -> dict[str, Any]:
    """Keep the image and its copies out of all answers but those to `is:hidden`.

    Whoever knows its number can still ask for it.
    """
    return _one(image_id, "hidden", True)


@blueprint.delete("/api/images/<int:image_id>/hidden")
@describe("Show a hidden image again", {200: "Marks"}, tag="Marks", problems=(403, 409, 503))
def show(image_id: int) -> dict[str, Any]:
    """Take the mark away."""
    return _one(image_id, "hidden", False)


@blueprint.post("/api/marks")
@describe(
    "Mark images",
    {200: "Marked"},
    tag="Marks",
    body={"application/json": MANY},
    problems=(403, 409, 410, 413, 415, 503),
)
def mark_many() -> dict[str, Any]:
    """Give images one or both marks, or take them away; ids that are not there are left out.

    Instead of `ids`, a `query` marks all that it finds now, but for `except`.

    `changed` are the images for which that was a change: to undo it, send these with the opposite.
    `before` and `generation` are the library's generations, as events have them, just before and
    after, so that a page can tell its own changes from those of others.
    """
    body = json_body()
    choice, wanted = read_choice(body), {name: body[name] for name in MARKS if name in body}
    if not wanted or not all(isinstance(on, bool) for on in wanted.values()):
        raise bad_request("send favourite or hidden, true or false")
    engine = current_engine()
    ids = chosen(engine, choice)
    with engine.remarks() as library:
        before = engine.generation
        known = contents(library, ids)
        changed = [
            image_id
            for kind in MARKS
            if kind in wanted
            for image_id in _changed(library, known, kind, wanted[kind])
        ]
        return {
            "changed": list(dict.fromkeys(changed)),
            "before": before,
            "generation": engine.generation,
        }


@blueprint.get("/api/marks")
@describe(
    "Export favourites, hidden images, tags and saved searches",
    {200: "Kept"},
    tag="Marks",
    problems=(503,),
)
def export_marks() -> Response:
    """Return all as one document, for a backup or another library.

    Images are named by the SHA-256 of their content; `path` is one of their files now.
    """
    text = current_app.json.dumps(exported(current_engine().library))
    response = current_app.response_class(f"{text}\n", mimetype="application/json")
    response.headers["Content-Disposition"] = 'attachment; filename="fovea-marks.json"'
    response.headers["Cache-Control"] = "no-store"
    return response


@blueprint.put("/api/marks")
@describe(
    "Import favourites, hidden images, tags and saved searches",
    {200: "Imported"},
    tag="Marks",
    body={"application/json": DOCUMENT},
    problems=(403, 409, 413, 415, 503),
)
def import_marks() -> dict[str, Any]:
    """Add what an export has; what is there stays, so that the same import changes nothing more.

    Marks of images that are not in the library wait for them: `absent` counts those. One document
    is imported at a time, of at most 16 MiB; `fovea mark import` takes larger ones.
    """
    request.max_content_length = DOCUMENT_BYTES
    turn: threading.Lock = current_app.extensions["fovea.imports"]
    if not turn.acquire(blocking=False):  # a document takes several times its size in memory
        detail = "another document is being imported; try again in a moment"
        raise Problem(503, "Service Unavailable", detail, headers={"Retry-After": "5"})
    try:
        document = json_body()
        with current_engine().remarks() as library:
            report = imported(library, document)
    finally:
        turn.release()
    return {
        "favourites": report.favourites,
        "hidden": report.hidden,
        "searches": report.searches,
        "tags": report.tags,
        "absent": report.absent,
    }


def _one(image_id: int, kind: Mark, on: bool) -> dict[str, Any]:
    engine = current_engine()
    known = contents(engine.library, [image_id])
    if not known:
        raise Problem(404, "Not Found", f"there is no image {image_id} in this library")
    with engine.remarks() as library:
        _changed(library, known, kind, on)
    return {"image_id": image_id, **marks_of(engine.library, [image_id])[image_id]}


def _changed(library: Library, known: dict[int, bytes], kind: Mark, on: bool) -> Iterable[int]:
    done = set(mark(library, known.values(), kind, on))
    return [image_id for image_id, content in known.items() if content in done]
