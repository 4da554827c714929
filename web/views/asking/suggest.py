"""Suggestions for what is being typed."""

from typing import Any

from flask import Blueprint

from fovea.search.library.paths import printable
from fovea.search.suggesting.suggest import LONGEST, MOST, Suggestion, suggest
from fovea.web.contract.describe import Number, Text, describe
from fovea.web.engine.engine import current_engine

__all__ = ["blueprint"]

blueprint = Blueprint("suggest", __name__)

QUERY = Text("q", "The query as it is typed.", LONGEST)
AT = Number(
    "at", "After how many of its characters the caret is.", default=LONGEST, minimum=0,
    maximum=LONGEST,
)  # fmt: skip
BESIDE = Text("beside", "Filters that hold besides, as chips do; they count.", LONGEST)


@blueprint.get("/api/suggest")
@describe(
    f"Suggest up to {MOST} ways to go on",
    {200: "Suggestions"},
    tag="Search",
    parameters=(QUERY, AT, BESIDE),
    problems=(503,),
)
def suggestions() -> dict[str, Any]:
    """Return folders, cameras, dates in words, formats, files and saved searches that are meant.

    And names of filters and their values, where those are typed. A query finds `count` pictures
    once a suggestion has been chosen. In a library that is being indexed, that is some seconds old.
    """
    engine = current_engine()
    at, beside = AT.read(), BESIDE.read()
    found = suggest(engine.library, engine.known(), QUERY.read(), at, beside=beside)
    return {"suggestions": [_fields(one) for one in found]}


def _fields(one: Suggestion) -> dict[str, Any]:
    return {
        "kind": one.kind,
        "label": one.label,
        "detail": printable(one.detail),
        "count": one.count,
        "words": one.words,
        "filter": one.filter,
        "matched": [list(part) for part in one.matched],
    }
