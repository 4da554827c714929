"""Switch what is looked for in pictures on and off: text, copies, and the names of places."""

from typing import Any

from flask import Blueprint, Flask, current_app

from fovea.indexer.analysing.accounts import PLACES, switch
from fovea.indexer.analysing.kinds import KINDS
from fovea.indexer.placing.place import place_pictures
from fovea.web.contract.describe import bad_request, describe, json_body
from fovea.web.engine.engine import Engine, current_engine
from fovea.web.jobs.scans import scans
from fovea.web.jobs.tasks import Task

__all__ = ["blueprint", "install"]

blueprint = Blueprint("switches", __name__)

SWITCHED = (*KINDS, PLACES)
SWITCHES = {
    "type": "object",
    "properties": {
        name: {"type": "boolean", "description": "Whether it is looked for."} for name in SWITCHED
    },
    "minProperties": 1,
    "additionalProperties": False,
}


def install(app: Flask) -> None:
    """Let the app look places up."""
    engine: Engine = app.extensions["fovea"]
    app.extensions["fovea.placing"] = Task(engine, "the names of places are looked up")


@blueprint.put("/api/analyses")
@describe(
    "Switch analyses on and off",
    {200: "Analyses"},
    tag="Library",
    body={"application/json": SWITCHES},
    problems=(403, 409, 415, 503),
)
def switch_analyses() -> dict[str, Any]:
    """Look for text, for copies and for the names of places in pictures, or no longer.

    False forgets what was found. True begins at once, in the background; `/api/status` counts what
    is done, and says in `missing` what has to be installed first.
    """
    wanted = json_body()
    if not wanted or not all(isinstance(on, bool) for on in wanted.values()):
        raise bad_request(f"send some of {', '.join(SWITCHED)}, true or false")
    engine = current_engine()
    engine.check_writable()
    placing: Task = current_app.extensions["fovea.placing"]
    if wanted.get(PLACES):
        placing.check_idle()
    for name, on in wanted.items():
        switch(engine.library, [name], on)
    if wanted.get(PLACES):
        placing.run(lambda: place_pictures(engine.library, stop=engine.closing))
    if any(wanted.get(kind) for kind in KINDS):
        scans().analyse()
    fields = engine.accounts.anew().fields()
    return {"places": fields["places"], "analyses": fields["analyses"]}
