"""Saved searches: list, save, change and delete them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flask import Blueprint

from fovea.search.library.library import Library
from fovea.search.query import saved
from fovea.search.query.saved import SavedSearch, SearchRefused
from fovea.web.contract.describe import bad_request, describe, json_body, text_of
from fovea.web.contract.problems import refused
from fovea.web.engine.engine import current_engine

blueprint = Blueprint("searches", __name__)

NAME = {"type": "string", "minLength": 1, "maxLength": saved.LONGEST_NAME}
QUERY = {"type": "string", "maxLength": saved.LONGEST_QUERY}
PLACE = {
    "type": "integer",
    "minimum": 0,
    "maximum": saved.MOST,
    "description": "Where in the list, from 0.",
}
NEW = {
    "type": "object",
    "properties": {"name": NAME, "query": QUERY, "place": PLACE},
    "required": ["name", "query"],
    "additionalProperties": False,
}


@blueprint.get("/api/searches")
@describe("List the saved searches", {200: "SavedSearches"}, tag="Marks", problems=(503,))
def searches() -> dict[str, Any]:
    """Return them in their order. Numbers of pictures in a query are those they have now."""
    found = saved.saved_searches(current_engine().library)
    return {"searches": [_fields(search) for search in found]}


@blueprint.post("/api/searches")
@describe(
    "Save a search",
    {201: "SavedSearch"},
    tag="Marks",
    body={"application/json": NEW},
    problems=(403, 409, 415, 503),
)
def save() -> tuple[dict[str, Any], int]:
    """Keep a query under a name that no other search has, whatever its case.

    A picture of the library in it (`like:12`) is kept by its content.
    """
    name, query, place = _asked()
    with _writing() as library:
        return _fields(saved.save_search(library, name, query, place=place)), 201


@blueprint.put("/api/searches/<int:search_id>")
@describe(
    "Change a saved search",
    {200: "SavedSearch"},
    tag="Marks",
    body={"application/json": NEW},
    problems=(403, 409, 415, 503),
)
def edit(search_id: int) -> dict[str, Any]:
    """Replace its name and its query, and put it elsewhere in the list if `place` is given."""
    name, query, place = _asked()
    with _writing() as library:
        return _fields(saved.edit_search(library, search_id, name=name, query=query, place=place))


@blueprint.delete("/api/searches/<int:search_id>")
@describe("Delete a saved search", {204: {}}, tag="Marks", problems=(403, 409, 503))
def delete(search_id: int) -> tuple[str, int]:
    """Forget the query and its name."""
    with _writing() as library:
        saved.delete_search(library, search_id)
    return "", 204


@contextmanager
def _writing() -> Iterator[Library]:
    """Give a library to write to; answer what is refused with the status that fits it."""
    engine = current_engine()
    engine.library.check_writable()
    try:
        with engine.remarks() as library:
            yield library
    except SearchRefused as exc:
        raise refused(exc) from exc


def _fields(search: SavedSearch) -> dict[str, Any]:
    return {
        "id": search.id,
        "name": search.name,
        "query": search.query,
        "saved_at": search.saved_at,
    }


def _asked() -> tuple[str, str, int | None]:
    body = json_body()
    name = text_of("name", body.get("name"), saved.LONGEST_NAME)
    query = text_of("query", body.get("query"), saved.LONGEST_QUERY)
    place = body.get("place")
    if "place" in body and (type(place) is not int or not 0 <= place <= saved.MOST):
        raise bad_request(f"place must be a whole number from 0 to {saved.MOST:,}")
    return name, query, place
