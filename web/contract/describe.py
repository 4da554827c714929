"""What a route takes and answers, said once: views read by it, the API is described by it."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar
from urllib.parse import unquote_to_bytes

from flask import request
from werkzeug.exceptions import BadRequest, UnsupportedMediaType

from .problems import Problem

__all__ = [
    "Choice",
    "Number",
    "Operation",
    "Parameter",
    "Text",
    "bad_request",
    "json_body",
    "describe",
    "text_of",
]

View = TypeVar("View", bound=Callable[..., Any])

Schema = Mapping[str, Any]


class Parameter(Protocol):
    """A value in the query of an address."""

    @property
    def name(self) -> str: ...
    @property
    def help(self) -> str: ...
    @property
    def schema(self) -> Schema: ...


@dataclass(frozen=True, slots=True)
class Number:
    """A whole number between bounds, both included."""

    name: str
    help: str
    default: int
    minimum: int
    maximum: int

    @property
    def schema(self) -> Schema:
        bounds = {"minimum": self.minimum, "maximum": self.maximum}
        return {"type": "integer", **bounds, "default": self.default}

    def read(self) -> int:
        """The request's value. Raise ``Problem`` for what is no such number."""
        text = request.args.get(self.name)
        if text is None:
            return self.default
        if re.fullmatch(r"-?[0-9]{1,9}", text, re.ASCII):
            value = int(text)
            if self.minimum <= value <= self.maximum:
                return value
        raise bad_request(
            f"{self.name} is a whole number from {self.minimum:,} to {self.maximum:,}"
        )


@dataclass(frozen=True, slots=True)
class Text:
    """A text of bounded length, of a pattern where that is given."""

    name: str
    help: str
    longest: int
    pattern: str | None = None

    @property
    def schema(self) -> Schema:
        pattern = {"pattern": f"^({self.pattern})?$"} if self.pattern else {}
        return {"type": "string", "maxLength": self.longest, **pattern}

    def read(self) -> str:
        """The request's value, "" without one. Raise ``Problem`` for what does not fit."""
        if not _is_utf8(unquote_to_bytes(request.query_string)):
            raise bad_request("the address has bytes that are not UTF-8")
        value = text_of(self.name, request.args.get(self.name, ""), self.longest)
        if value and self.pattern and not re.fullmatch(self.pattern, value, re.ASCII):
            raise bad_request(f"{self.name} is not one that this server has given")
        return value


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few words."""

    name: str
    help: str
    choices: tuple[str, ...]
    default: str

    @property
    def schema(self) -> Schema:
        return {"type": "string", "enum": list(self.choices), "default": self.default}

    def read(self) -> str:
        """The request's value. Raise ``Problem`` for another word."""
        value = request.args.get(self.name, self.default)
        if value not in self.choices:
            raise bad_request(f"{self.name} is one of {', '.join(self.choices)}")
        return value


@dataclass(frozen=True, slots=True)
class Operation:
    """One route of the API as its document shows it."""

    summary: str
    answers: Mapping[int, str | Schema]  # status -> a schema or its name, or {media type: schema}
    tag: str
    parameters: Sequence[Parameter] = ()
    body: Mapping[str, Schema] = field(default_factory=dict)  # media type -> schema
    problems: Sequence[int] = ()  # beside those that every route can end in
    body_required: bool = True


def describe(
    summary: str, answers: Mapping[int, str | Schema], **more: Any
) -> Callable[[View], View]:
    """Say what a view takes and answers; see ``Operation`` for the names in ``more``."""

    def attach(view: View) -> View:
        view.operation = Operation(summary, answers, **more)  # type: ignore[attr-defined]
        return view

    return attach


def text_of(name: str, value: object, longest: int) -> str:
    """A text from a request that can be stored and compared. Raise ``Problem`` for another."""
    if not isinstance(value, str):
        raise bad_request(f"{name} is a text")
    if len(value) > longest:
        raise bad_request(f"{name} has at most {longest:,} characters, not {len(value):,}")
    if "\0" in value or not _is_unicode(value):
        raise bad_request(f"{name} has characters that no text has")
    return value


def json_body(names: Iterable[str], *, any_type: bool = False) -> dict[str, Any]:
    """The object in the request's body, with no members but ``names``.

    ``any_type`` also takes a body that is not declared to be JSON. Raise ``Problem`` for others.
    """
    try:
        body = request.get_json(force=any_type)
    except UnsupportedMediaType as exc:
        raise Problem(415, "Unsupported Media Type", "send JSON, as application/json") from exc
    except (BadRequest, RecursionError) as exc:
        raise bad_request("the body is not JSON") from exc
    if not isinstance(body, dict):
        raise bad_request("the body is no JSON object")
    if foreign := set(body).difference(names):
        raise bad_request(f"the body has a member that is not known: {min(foreign)!a:.100}")
    return body


def bad_request(detail: str) -> Problem:
    """The error that a malformed request ends in."""
    return Problem(400, "Bad Request", detail)


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, by way of JSON
        return False
    return True
