"""Tags by labels: whether pictures get them, and which."""

from collections.abc import Sequence
from typing import Any

from flask import Blueprint, Flask, current_app

from fovea.search.errors import LibraryError
from fovea.search.maintenance.labelling import (
    MOST,
    Label,
    label_pictures,
    labels_wanted,
    unlabel_pictures,
)
from fovea.search.tags.stored import LONGEST_NAME, TagRefused, checked_name
from fovea.web.contract.describe import bad_request, describe, json_body, text_of
from fovea.web.contract.problems import refused
from fovea.web.engine.engine import Engine, current_engine
from fovea.web.jobs.tasks import Task

__all__ = ["blueprint", "install"]

blueprint = Blueprint("labels", __name__)

SHIPPED = "shipped"
PROMPTS, LONGEST_PROMPT = 20, 200  # of a label, and characters of one

OWN = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": LONGEST_NAME},
        "prompts": {
            "type": "array",
            "items": {"type": "string", "minLength": 1, "maxLength": LONGEST_PROMPT},
            "minItems": 1,
            "maxItems": PROMPTS,
            "description": "What it is called to the model; by default `a photo of a NAME.`",
        },
    },
    "required": ["name"],
    "additionalProperties": False,
}
WANTED = {
    "type": "object",
    "properties": {
        "labels": {
            "oneOf": [
                {"const": SHIPPED},
                {"type": "array", "items": OWN, "minItems": 1, "maxItems": MOST},
            ],
            "description": "Those that ship, alone or with your own.",
        },
        "right": {
            "type": "number",
            "exclusiveMinimum": 0,
            "maximum": 1,
            "description": "Share of labels that must have been measured to be right.",
        },
    },
    "required": ["labels"],
    "additionalProperties": False,
}


def install(app: Flask) -> None:
    """Let the app give pictures labels."""
    engine: Engine = app.extensions["fovea"]
    app.extensions["fovea.labelling"] = Task(engine, "pictures get labels")


@blueprint.get("/api/labels")
@describe("Get which labels pictures get", {200: "Labels"}, tag="Tags", problems=(503,))
def labels() -> dict[str, Any]:
    """Return `shipped`, your own labels, which are beside these, or null: no labels.

    `working` says that pictures get them now, and `problem` why the last time ended early.
    `available` says whether the model's labels were measured to be right often enough.
    """
    engine, task = current_engine(), _task()
    wanted = labels_wanted(engine.library)
    own = () if wanted is None else wanted.own
    background = engine.background()
    signs = None if background is None or background.signs is None else background.signs.labels
    return {
        "labels": None if wanted is None else _fields(own) or SHIPPED,
        "right": None if wanted is None else wanted.right,
        "available": signs is not None and signs.are_shown,
        "working": task.is_running,
        "problem": task.problem,
    }


@blueprint.put("/api/labels")
@describe(
    "Give pictures labels",
    {200: "Labels"},
    tag="Tags",
    body={"application/json": WANTED},
    problems=(403, 409, 415, 503),
)
def label() -> dict[str, Any]:
    """Give each picture the tag that it most probably shows, now and when others are indexed.

    That takes some seconds for 100,000 pictures, and goes on after the answer, which says
    `working` then. Until it is done, pictures have the labels that they had. `right` asks for
    fewer mistakes, of fewer pictures; 400 also says that the model's labels were not measured to be
    right so often.
    """
    body = json_body()
    own = _own(body.get("labels"))
    right = body.get("right")
    if right is not None and (isinstance(right, bool) or not isinstance(right, int | float)):
        raise bad_request("right must be a number")
    if right is not None and not 0 < right <= 1:
        raise bad_request("right must be greater than 0 and at most 1")
    engine = current_engine()
    engine.check_writable()
    _task().run(lambda: _label(engine, own, right))
    return labels()


@blueprint.delete("/api/labels")
@describe("Give pictures no labels", {204: {}}, tag="Tags", problems=(403, 409, 503))
def unlabel() -> tuple[str, int]:
    """Forget the tags by labels that nobody has spoken about."""
    engine = current_engine()
    engine.check_writable()
    _task().check_idle()
    unlabel_pictures(engine.library)
    return "", 204


def _task() -> Task:
    found: Task = current_app.extensions["fovea.labelling"]
    return found


def _label(engine: Engine, own: list[Label], right: float | None) -> None:
    model = engine.model()
    if model is None:
        raise LibraryError("nothing is indexed yet; add a folder first")
    encoder = engine.encoder() if own else None
    label_pictures(engine.library, model, engine.background(), own, encoder, right=right)


def _fields(own: Sequence[Label]) -> list[dict[str, Any]]:
    return [{"name": one.name, "prompts": list(one.prompts)} for one in own]


def _own(wanted: object) -> list[Label]:
    """Read the labels of a request beside those that ship. Raise ``Problem`` 400."""
    if wanted == SHIPPED:
        return []
    if not isinstance(wanted, list) or not 0 < len(wanted) <= MOST:
        raise bad_request(f'labels must be "{SHIPPED}", or a list of 1 to {MOST:,} labels')
    found = {made.name: made for made in map(_label_of, wanted)}
    return list(found.values())


def _label_of(one: object) -> Label:
    if not isinstance(one, dict) or not {"name"} <= set(one) <= {"name", "prompts"}:
        raise bad_request("a label has a name, and may have prompts")
    try:
        name = checked_name(text_of("name", one["name"], LONGEST_NAME))
    except TagRefused as exc:
        raise refused(exc) from exc
    prompts = one.get("prompts", [f"a photo of a {name}."])
    if not isinstance(prompts, list) or not 0 < len(prompts) <= PROMPTS:
        raise bad_request(f"prompts must be a list of 1 to {PROMPTS} texts")
    made = tuple(text_of("a prompt", prompt, LONGEST_PROMPT) for prompt in prompts)
    if not all(prompt.strip() for prompt in made):
        raise bad_request("a prompt is empty")
    return Label(name, made)
