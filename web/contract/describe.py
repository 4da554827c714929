"""Declare what a route takes and returns: for reading requests and for describing the API."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import unquote_to_bytes

from flask import request
from werkzeug.exceptions import BadRequest, UnsupportedMediaType

from .problems import Problem

__all__ = [
    "Choice",
    "Number",
    "Operation",
    "Text",
    "bad_request",
    "json_body",
    "describe",
    "text_of",
]

View = TypeVar("View", bound=Callable[..., Any])

Schema = Mapping[str, Any]

NOT_ASCII = re.compile(rb"[^\x00-\x7f]|%[^0-7]")  # in an address


@dataclass(frozen=True, slots=True)
class Number:
    """A parameter that is an integer between two bounds, inclusive."""

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
        """Read the request's value. Raise ``Problem`` 400 if it is not such a number."""
        text = request.args.get(self.name)
        if text is None:
            return self.default
        if re.fullmatch(r"-?[0-9]{1,9}", text, re.ASCII):
            value = int(text)
            if self.minimum <= value <= self.maximum:
                return value
        raise bad_request(
            f"{self.name} must be a whole number from {self.minimum:,} to {self.maximum:,}"
        )


@dataclass(frozen=True, slots=True)
class Text:
    """A parameter that is a text of limited length, which may have to match a pattern."""

    name: str
    help: str
    longest: int
    pattern: str | None = None

    @property
    def schema(self) -> Schema:
        pattern = {"pattern": f"^({self.pattern})?$"} if self.pattern else {}
        return {"type": "string", "maxLength": self.longest, **pattern}

    def read(self) -> str:
        """Read the request's value, "" by default. Raise ``Problem`` 400 if it is not valid."""
        if NOT_ASCII.search(request.query_string) and not _is_utf8(
            unquote_to_bytes(request.query_string)
        ):
            raise bad_request("the address contains bytes that are not UTF-8")
        value = text_of(self.name, request.args.get(self.name, ""), self.longest)
        if value and self.pattern and not re.fullmatch(self.pattern, value, re.ASCII):
            raise bad_request(f"{self.name} is not a value that this server has issued")
        return value


@dataclass(frozen=True, slots=True)
class Choice:
    """A parameter that is one of a few words."""

    name: str
    help: str
    choices: tuple[str, ...]
    default: str

    @property
    def schema(self) -> Schema:
        return {"type": "string", "enum": list(self.choices), "default": self.default}

    def read(self) -> str:
        """Read the request's value. Raise ``Problem`` 400 if it is another word."""
        value = request.args.get(self.name, self.default)
        if value not in self.choices:
            raise bad_request(f"{self.name} must be one of {', '.join(self.choices)}")
        return value


Parameter = Number | Text | Choice  # in the query of an address


@dataclass(frozen=True, slots=True)
class Operation:
    """A route of the API as its description shows it."""

    summary: str
    answers: Mapping[int, str | Schema]  # status -> a schema or its name, or {media type: schema}
    tag: str
    parameters: Sequence[Parameter] = ()
    body: Mapping[str, Schema] = field(default_factory=dict)  # media type -> schema
    problems: Sequence[int] = ()  # statuses of errors beside those that every route can return
    body_required: bool = True


def describe(
    summary: str, answers: Mapping[int, str | Schema], **more: Any
) -> Callable[[View], View]:
    """Describe what a view takes and returns; ``more`` are further fields of ``Operation``."""

    def attach(view: View) -> View:
        view.operation = Operation(summary, answers, **more)  # type: ignore[attr-defined]
        return view

    return attach


def text_of(name: str, value: object, longest: int) -> str:
    """Check a text from a request: its length and characters. Raise ``Problem`` 400."""
    if not isinstance(value, str):
        raise bad_request(f"{name} must be a string")
    if len(value) > longest:
        raise bad_request(f"{name} has {len(value):,} characters; at most {longest:,} are allowed")
    if "\0" in value or not _is_unicode(value):
        raise bad_request(f"{name} contains a null character or half a surrogate pair")
    return value


def json_body(names: Iterable[str], *, any_type: bool = False) -> dict[str, Any]:
    """Read a JSON object with no members but ``names`` from the request's body.

    With ``any_type``, its Content-Type does not matter. Raise ``Problem`` 415 or 400.
    """
    try:
        body = request.get_json(force=any_type)
    except UnsupportedMediaType as exc:
        detail = "send JSON with Content-Type: application/json"
        raise Problem(415, "Unsupported Media Type", detail) from exc
    except (BadRequest, RecursionError) as exc:
        raise bad_request("the body is not valid JSON") from exc
    if not isinstance(body, dict):
        raise bad_request("the body must be a JSON object")
    if foreign := set(body).difference(names):
        raise bad_request(f"the body has an unknown member: {min(foreign)!a:.100}")
    return body


def bad_request(detail: str) -> Problem:
    """Build the error for a malformed request."""
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
