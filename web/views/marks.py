"""Favourites and hidden pictures: mark one or many, export and import all."""

from collections.abc import Iterable
from typing import Any

from flask import Blueprint, Response, current_app

from fovea.search.library.marks import MARKS, Mark, contents, mark, marks_of
from fovea.search.maintenance.keepsakes import exported, imported
from fovea.web.contract.describe import bad_request, describe, json_body
from fovea.web.contract.problems import Problem
from fovea.web.engine.engine import Engine, current_engine

blueprint = Blueprint("marks", __name__)

MOST = 10_000  # images in one request

MANY: dict[str, Any] = {
    "type": "object",
    "properties": {
        "ids": {"type": "array", "items": {"type": "integer"}, "maxItems": MOST, "minItems": 1},
        **dict.fromkeys(MARKS, {"type": "boolean"}),
    },
    "required": ["ids"],
    "anyOf": [{"required": [name]} for name in MARKS],
    "additionalProperties": False,
}
DOCUMENT: dict[str, Any] = {
    "type": "object",
    "properties": {
        "fovea": {"const": 1},
        **{name: {"type": "array"} for name in ("favourites", "hidden", "searches")},
    },
    "required": ["fovea"],
    "additionalProperties": False,
}


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
    problems=(403, 409, 413, 415, 503),
)
def mark_many() -> dict[str, Any]:
    """Give images one or both marks, or take them away; ids that are not there are left out.

    `changed` are the images for which that was a change: to undo it, send these with the opposite.
    `before` and `generation` are the library's generations, as events have them, just before and
    after, so that a page can tell its own changes from those of others.
    """
    body = json_body(["ids", *MARKS])
    ids, wanted = body.get("ids"), {name: body[name] for name in MARKS if name in body}
    if not isinstance(ids, list) or not ids or not all(map(_is_id, ids)):
        raise bad_request("ids must be a list of image ids")
    if len(ids) > MOST:
        raise Problem(413, "Content Too Large", f"at most {MOST:,} images in one request")
    if not wanted or not all(isinstance(on, bool) for on in wanted.values()):
        raise bad_request("send favourite or hidden, true or false")
    engine = current_engine()
    before = engine.generation
    known = contents(engine.library, ids)
    changed = [
        image_id
        for kind in MARKS
        if kind in wanted
        for image_id in _changed(engine, known, kind, wanted[kind])
    ]
    return {
        "changed": list(dict.fromkeys(changed)),
        "before": before,
        "generation": engine.generation,
    }


@blueprint.get("/api/marks")
@describe(
    "Export favourites, hidden images and saved searches",
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
    "Import favourites, hidden images and saved searches",
    {200: "Imported"},
    tag="Marks",
    body={"application/json": DOCUMENT},
    problems=(403, 409, 413, 415, 503),
)
def import_marks() -> dict[str, Any]:
    """Add what an export has; what is there stays, so that the same import changes nothing more.

    Marks of images that are not in the library wait for them: `absent` counts those. `fovea mark
    import` takes documents of more than 1 MiB.
    """
    body = json_body(DOCUMENT["properties"])
    report = imported(current_engine().library, body)
    return {
        "favourites": report.favourites,
        "hidden": report.hidden,
        "searches": report.searches,
        "absent": report.absent,
    }


def _one(image_id: int, kind: Mark, on: bool) -> dict[str, Any]:
    engine = current_engine()
    known = contents(engine.library, [image_id])
    if not known:
        raise Problem(404, "Not Found", f"there is no image {image_id} in this library")
    _changed(engine, known, kind, on)
    return {"image_id": image_id, **marks_of(engine.library, [image_id])[image_id]}


def _changed(engine: Engine, known: dict[int, bytes], kind: Mark, on: bool) -> Iterable[int]:
    done = set(mark(engine.library, known.values(), kind, on))
    return [image_id for image_id, content in known.items() if content in done]


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
