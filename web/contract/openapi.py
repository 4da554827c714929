"""Describe the API as OpenAPI 3.1, made from its routes, and as a page to read."""

import html
import inspect
import re
import shlex
from collections.abc import Iterator
from http import HTTPStatus
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from flask import Blueprint, Flask, current_app, render_template, request
from markupsafe import Markup
from werkzeug.routing import Rule

from .describe import Operation
from .problems import MEDIA_TYPE
from .schemas import SCHEMAS

__all__ = ["blueprint", "document", "program_version", "written"]

blueprint = Blueprint("openapi", __name__)

ALWAYS = (400, 401, 403, 413, 421)  # errors that any request can end in
INTRODUCTION = (
    "Search a library of photographs by words and pictures. Errors are problem documents "
    "(RFC 9457). What a route does not take is an error, too: a parameter or member with another "
    "name is answered with 400. Browsers may send requests that change something only from this "
    "server's own pages. A server that is reachable from other machines requires its token, as "
    "`Authorization: Bearer TOKEN`."
)
# The groups of routes, in the order in which people read about them; others follow these.
TAGS = {
    "Search": "Find pictures by words, by pictures and by filters.",
    "Images": "One picture: what is known of it, its file, and what is like it.",
    "Marks": "Favourites, hidden pictures and saved searches.",
    "Tags": "What people teach by examples, and what is found by it.",
    "Map": "Where pictures lie near those that they are like, and what lies together.",
    "Folders": "What is indexed.",
    "Library": "The state of the server and of its library.",
    "Model": "What embeds the pictures.",
}
LAST = {"clip-retrieval": "The protocol of clip-retrieval, for its clients."}


@blueprint.get("/api/openapi.json")
def openapi() -> dict[str, Any]:
    """Return the description for programs."""
    return document(current_app, request.script_root)


@blueprint.get("/api/docs")
def docs() -> str:
    """Show the description to people."""
    found = document(current_app, request.script_root)
    return render_template(
        "api.html",
        api=found,
        sections=list(_sections(found)),
        about={tag["name"]: tag["description"] for tag in found["tags"]},
        examples=list(_examples()),
        written=written,
    )


def _examples() -> Iterator[tuple[str, str]]:
    """Yield what can be tried at once in a terminal: what it does, and the command."""
    server = request.host_url.rstrip("/").removesuffix(request.script_root) + request.script_root
    curl = "curl"
    if current_app.extensions["fovea.has_token"]:
        curl = 'curl -H "Authorization: Bearer $FOVEA_TOKEN"'
    query = "q=red+bicycle&limit=3&fields=name,score,original"
    yield "The three best matches", f"{curl} {shlex.quote(f'{server}/api/search?{query}')}"
    search = shlex.quote(f"{server}/api/search")
    yield "By a picture and words", f"{curl} -F picture=@beach.jpg -F q='at night' {search}"


def written(text: str) -> Markup:
    """Return a text of the description as HTML: escaped, with what is in backticks as code.

    Empty lines separate paragraphs.
    """
    parts = html.escape(text).replace("``", "`").split("`")
    if len(parts) % 2 == 0:  # one backtick has no other
        parts[-2:] = ["`".join(parts[-2:])]
    marked = "".join(
        f"<code>{part}</code>" if number % 2 else part for number, part in enumerate(parts)
    )
    return Markup("</p><p>".join(re.split(r"\n\s*\n", marked)))


def document(app: Flask, prefix: str = "") -> dict[str, Any]:
    """Build the OpenAPI document of the routes that have a description; they follow ``prefix``."""
    paths: dict[str, dict[str, Any]] = {}
    found = sorted(_operations(app), key=lambda one: _place(one[1].tag))  # else as registered
    for rule, operation in found:
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            view = app.view_functions[rule.endpoint]
            paths.setdefault(_template(rule), {})[method.lower()] = _operation(
                rule, operation, inspect.getdoc(view) or ""
            )
    return {
        "openapi": "3.1.0",
        "info": {"title": "fovea", "version": program_version(), "description": INTRODUCTION},
        "servers": [{"url": prefix or "/"}],
        "tags": [
            {"name": tag, "description": (TAGS | LAST).get(tag, "")}
            for tag in dict.fromkeys(operation.tag for _, operation in found)
        ],
        "paths": paths,
        "components": {"schemas": SCHEMAS},
    }


def program_version() -> str:
    """Return the installed version; "0" in a checkout that is not installed."""
    try:
        return version("fovea")
    except PackageNotFoundError:
        return "0"


def _operations(app: Flask) -> Iterator[tuple[Rule, Operation]]:
    for rule in app.url_map.iter_rules():
        operation = getattr(app.view_functions[rule.endpoint], "operation", None)
        if operation is not None:
            yield rule, operation


def _operation(rule: Rule, operation: Operation, description: str) -> dict[str, Any]:
    written: dict[str, Any] = {
        "operationId": rule.endpoint.replace(".", "_"),
        "summary": operation.summary,
        "description": description,
        "tags": [operation.tag],
        "parameters": [*_path_parameters(rule), *_query_parameters(operation)],
        "responses": _responses(operation, bool(rule.arguments)),
    }
    if operation.body:
        written["requestBody"] = {
            "required": operation.body_required,
            "content": {kind: {"schema": schema} for kind, schema in operation.body.items()},
        }
    return written


def _responses(operation: Operation, has_arguments: bool) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for status, answer in operation.answers.items():
        responses[str(status)] = {"description": HTTPStatus(status).phrase, **_content(answer)}
    problem = {"schema": {"$ref": "#/components/schemas/Problem"}}
    missing = [404] if has_arguments else []
    for status in sorted({*ALWAYS, *missing, *operation.problems}):
        phrase = HTTPStatus(status).phrase
        responses[str(status)] = {"description": phrase, "content": {MEDIA_TYPE: problem}}
    return responses


def _content(answer: Any) -> dict[str, Any]:
    """List the media types of an answer: JSON of a named schema, those given, or none."""
    if not answer:
        return {}
    if isinstance(answer, str):
        schema = {"$ref": f"#/components/schemas/{answer}"}
        return {"content": {"application/json": {"schema": schema}}}
    return {"content": {kind: {"schema": schema} for kind, schema in answer.items()}}


def _template(rule: Rule) -> str:
    """Write a rule as OpenAPI does: ``/api/images/{image_id}``."""
    return re.sub(r"<(?:[^:>]+:)?([^>]+)>", r"{\1}", rule.rule)


def _path_parameters(rule: Rule) -> Iterator[dict[str, Any]]:
    for name in sorted(rule.arguments):
        schema = {"type": "integer", "minimum": 0, "maximum": 10**18 - 1}
        yield {"name": name, "in": "path", "required": True, "schema": schema}


def _query_parameters(operation: Operation) -> Iterator[dict[str, Any]]:
    for parameter in operation.parameters:
        listed = parameter.schema["type"] == "array"
        yield {
            "name": parameter.name,
            "in": "query",
            "description": parameter.help,
            "schema": dict(parameter.schema),
            **({"style": "form", "explode": False} if listed else {}),  # commas
        }


def _sections(api: dict[str, Any]) -> Iterator[tuple[str, list[tuple[str, str, dict[str, Any]]]]]:
    """Group the operations by tag, each as (method, path, operation), in their order."""
    found: dict[str, list[tuple[str, str, dict[str, Any]]]] = {}
    for path, methods in api["paths"].items():
        for method, operation in methods.items():
            found.setdefault(operation["tags"][0], []).append((method.upper(), path, operation))
    yield from found.items()


def _place(tag: str) -> tuple[int, str]:
    """Where a group stands among the others."""
    if tag in TAGS:
        return list(TAGS).index(tag), ""
    return (len(TAGS) + 1 if tag in LAST else len(TAGS)), tag
