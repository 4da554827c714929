"""Errors as problem documents: ``application/problem+json`` (RFC 9457)."""

import html
import logging
import re
import sqlite3
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from flask import Flask, Response, current_app, request
from werkzeug.exceptions import HTTPException

from fovea.search.errors import (
    FoveaError,
    LibraryAway,
    LibraryBusy,
    LibraryDamaged,
    LibraryReadOnly,
    ModelError,
)
from fovea.search.library.damage import explained
from fovea.search.library.library import DATABASE

__all__ = ["MEDIA_TYPE", "Problem", "members", "problem_response", "refused", "show_problems"]

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
MEMBERS = ("position", "expected", "code", "params")  # optional extensions of the standard
THINGS = {"images": "image", "roots": "folder", "searches": "saved search"}


class Problem(Exception):
    """An error of a request, with its HTTP status.

    ``code`` is a stable name for clients that distinguish or translate errors, and ``params`` are
    the values that ``detail`` mentions.
    """

    def __init__(
        self,
        status: int,
        title: str,
        detail: str,
        *,
        headers: dict[str, str] | None = None,
        code: str | None = None,
        params: dict[str, str | int] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.title, self.detail = status, title, detail
        self.headers = headers or {}
        self.code, self.params = code, params


# By the last part of a refusal's code, as in ``tag.taken``; every other is a bad request.
REFUSED = {
    "taken": HTTPStatus.CONFLICT,
    "full": HTTPStatus.CONFLICT,
    "unknown": HTTPStatus.NOT_FOUND,
}


def refused(error: FoveaError) -> Problem:
    """Return the problem of an error with ``code`` and ``params``, with the status that fits."""
    code, params = getattr(error, "code", ""), getattr(error, "params", None)
    status = REFUSED.get(code.rpartition(".")[2], HTTPStatus.BAD_REQUEST)
    return Problem(status, status.phrase, str(error), code=code, params=params)


def members(error: Problem | FoveaError) -> dict[str, Any]:
    """List the members of a problem document that depend on the error alone."""
    found = {name: getattr(error, name, None) for name in MEMBERS}
    status = error.status if isinstance(error, Problem) else _status_of(error)
    if isinstance(error, LibraryBusy):
        found["code"] = "busy"
    if isinstance(error, LibraryReadOnly):
        found["code"] = "read_only"
    if isinstance(error, LibraryDamaged):
        found["code"] = "damaged"
    more = {name: value for name, value in found.items() if value not in (None, {})}
    return {"status": status, "detail": str(error), **more}


def problem_response(status: int, title: str, detail: str, **more: Any) -> Response:
    """Build the answer to a failed request; ``more`` are further members of its document."""
    body = {
        "type": "about:blank",
        "title": title,
        "status": status,
        "detail": detail,
        "instance": request.script_root + request.path,
        **more,
    }
    if _is_for_people():
        return _page(status, title, detail)
    text = current_app.json.dumps(body)
    return Response(text + "\n", status=status, content_type=MEDIA_TYPE)


def _is_for_people() -> bool:
    """Whether a browser will show the answer: scripts and programs do not accept HTML."""
    return request.method == "GET" and "text/html" in request.accept_mimetypes.values()


def _page(status: int, title: str, detail: str) -> Response:
    """Show a problem as a page; its link sends the cookie that a visit from another site lacks."""
    home = f"{request.script_root}/"
    place = home + quote(request.path.lstrip("/"), safe="/")
    text = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        '<meta name="viewport" content="width=device-width"><meta name="color-scheme" '
        f'content="light dark"><h1>{html.escape(title)}</h1><p>{html.escape(detail)}</p>'
        f'<p><a href="{html.escape(place)}">Try again</a> · '
        f'<a href="{html.escape(home)}">fovea</a></p></html>\n'
    )
    return Response(text, status=status, content_type="text/html; charset=utf-8")


def show_problems(app: Flask) -> None:
    """Answer every error of the app with a problem document."""
    app.register_error_handler(Problem, _show_problem)
    app.register_error_handler(FoveaError, _show_user_error)
    app.register_error_handler(HTTPException, _show_http_error)
    app.register_error_handler(Exception, _show_failure)


def _show_problem(problem: Problem) -> Response:
    response = problem_response(title=problem.title, **members(problem))
    response.headers.update(problem.headers)
    return response


def _show_user_error(error: FoveaError) -> Response:
    title = HTTPStatus(_status_of(error)).phrase
    return problem_response(title=title, **members(error))


def _status_of(error: FoveaError) -> int:
    """Tell whether to try again, to repair something on this machine, or to change the request."""
    if isinstance(error, LibraryBusy):
        return HTTPStatus.CONFLICT
    if isinstance(error, (ModelError, LibraryAway, LibraryDamaged)):
        return HTTPStatus.SERVICE_UNAVAILABLE
    if isinstance(error, LibraryReadOnly):
        return HTTPStatus.FORBIDDEN
    if isinstance(error.__cause__, (OSError, sqlite3.Error)):
        return HTTPStatus.SERVICE_UNAVAILABLE
    return HTTPStatus.BAD_REQUEST


def _show_http_error(error: HTTPException) -> Response:
    original = getattr(error, "original_exception", None)
    if isinstance(original, Exception):  # raised while an answer was sent off
        return _show_failure(original)
    status = error.code or 500
    detail = _unknown() if status == 404 else None
    response = problem_response(status, error.name, detail or error.description or error.name)
    for name, value in error.get_headers():
        if name.lower() not in ("content-type", "content-length"):
            response.headers[name] = value
    return response


def _unknown() -> str | None:
    """Explain a 404 for an image or folder whose id in the address is not a number."""
    found = re.match(
        r"/api/(images|roots|searches)/(?![0-9]{1,18}(?:/|$))([^/]{1,40})", request.path
    )
    return found and f"there is no {THINGS[found[1]]} {found[2]}"


def _show_failure(error: Exception) -> Response:
    """Log a bug in full; tell the client nothing about this machine.

    What a damaged library raises is no bug.
    """
    folder = current_app.extensions["fovea"].folder
    if damage := explained(folder / DATABASE, error):
        log.warning("%s", damage)
        return _show_user_error(damage)
    log.exception("%s %s failed", request.method, request.path, exc_info=error)
    detail = "something went wrong in fovea; the server's log has the details"
    return problem_response(500, "Internal Server Error", detail, code="unexpected")
