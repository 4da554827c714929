"""Declare what a route takes and returns: for reading requests and for describing the API."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import unquote_to_bytes

from flask import Flask, current_app, request
from werkzeug.datastructures import FileStorage
from werkzeug.exceptions import BadRequest, UnsupportedMediaType

from .problems import Problem
from .unknown import nearest, refuse_unknown

__all__ = [
    "Choice",
    "Flag",
    "Names",
    "Number",
    "Operation",
    "Text",
    "bad_request",
    "describe",
    "form_body",
    "install",
    "json_body",
    "text_of",
]

View = TypeVar("View", bound=Callable[..., Any])

Schema = Mapping[str, Any]

ANYWHERE = ("token",)  # parameters of any address: how a browser signs in
FORMS = ("multipart/form-data", "application/x-www-form-urlencoded")

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
        text = _given(self)
        if text is None:
            return self.default
        if re.fullmatch(r"-?[0-9]{1,16}", text, re.ASCII):
            value = int(text)
            if self.minimum <= value <= self.maximum:
                return value
        raise bad_request(
            f"{self.name} must be a whole number from {self.minimum:,} to {self.maximum:,}"
        )

    def given(self) -> int | None:
        """Read the request's value as ``read`` does; None if the request has none."""
        return None if _given(self) is None else self.read()


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
        value = text_of(self.name, _given(self) or "", self.longest)
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
        value = _given(self)
        if value is None:
            return self.default
        if value not in self.choices:
            raise bad_request(f"{self.name} must be one of {', '.join(self.choices)}")
        return value


@dataclass(frozen=True, slots=True)
class Flag:
    """A parameter that is true or false, and false by default."""

    name: str
    help: str

    @property
    def schema(self) -> Schema:
        return {"type": "boolean", "default": False}

    def read(self) -> bool:
        """Read the request's value. Raise ``Problem`` 400 if it is neither."""
        return self.of_text(_given(self))

    def of_text(self, text: str | None) -> bool:
        """Read a value from a query or a form. Raise ``Problem`` 400 if it is neither."""
        return self.of({"true": True, "false": False, None: False}.get(text))

    def of(self, value: object) -> bool:
        """Read a value from a JSON body. Raise ``Problem`` 400 if it is neither."""
        if not isinstance(value, bool):
            raise bad_request(f"{self.name} must be true or false")
        return value


@dataclass(frozen=True, slots=True)
class Names:
    """A parameter that is a list of some of a few names, with commas between them."""

    name: str
    help: str
    choices: tuple[str, ...]

    @property
    def schema(self) -> Schema:
        items = {"type": "string", "enum": list(self.choices)}
        return {"type": "array", "items": items, "minItems": 1, "uniqueItems": True}

    def read(self) -> tuple[str, ...] | None:
        """Read the request's names, in the order of ``choices``; None if there is no list.

        Raise ``Problem`` 400 for other names.
        """
        return self.of_text(_given(self))

    def of_text(self, text: str | None) -> tuple[str, ...] | None:
        """Read names from a query or a form, as ``read`` does."""
        return None if text is None else self.of(text.split(","))

    def of(self, names: object) -> tuple[str, ...]:
        """Read a list from a JSON body, in the order of ``choices``.

        Raise ``Problem`` 400 for other names.
        """
        if not isinstance(names, list) or not names:
            raise bad_request(f"{self.name} must be a list of some of {', '.join(self.choices)}")
        for name in names:
            if name not in self.choices:
                near = nearest(name, self.choices) if isinstance(name, str) else None
                hint = f"did you mean {near}?" if near else f"choose from {', '.join(self.choices)}"
                raise bad_request(f"{self.name} has no {name!a:.42}; {hint}")
        if len(set(names)) < len(names):
            raise bad_request(f"{self.name} names one of them twice")
        return tuple(name for name in self.choices if name in names)


Parameter = Number | Text | Choice | Flag | Names  # in the query of an address


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
    lenient: bool = False  # for clients of another program: ignore what is not declared

    def members(self, media_type: str) -> Mapping[str, Schema]:
        """The members that a body of this type may have, with their schemas."""
        found: Mapping[str, Schema] = self.body.get(media_type, {}).get("properties", {})
        return found


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


def json_body(*, any_type: bool = False) -> dict[str, Any]:
    """Read a JSON object from the request's body, with no members but those declared.

    With ``any_type``, its Content-Type does not matter. Raise ``Problem`` 415 or 400.
    """
    operation = _operation()
    assert operation is not None and "application/json" in operation.body, "declare the body"
    try:
        body = request.get_json(force=any_type)
    except UnsupportedMediaType as exc:
        detail = "send JSON with Content-Type: application/json"
        raise Problem(415, "Unsupported Media Type", detail) from exc
    except (BadRequest, RecursionError) as exc:
        raise bad_request("the body is not valid JSON") from exc
    if not isinstance(body, dict):
        raise bad_request("the body must be a JSON object")
    if not operation.lenient:
        refuse_unknown(body, operation.members("application/json"), _route(), kind="member")
    return body


def form_body() -> tuple[dict[str, str], dict[str, list[FileStorage]]]:
    """Read a form from the request's body: its texts and its files, none but those declared.

    Raise ``Problem`` 400 for others, also for a text that comes twice or as a file.
    """
    operation = _operation()
    assert operation is not None and request.mimetype in operation.body, "declare the form"
    members = operation.members(request.mimetype)
    texts, files = request.form, request.files
    refuse_unknown([*texts, *files], members, _route(), kind="member")
    for name in [*texts, *files]:
        if _is_file(members[name]) != (name in files) or (name in files and name in texts):
            kind = "a file" if _is_file(members[name]) else "text, not a file"
            raise bad_request(f"{name} must be {kind}")
    _refuse_repeated({name: texts.getlist(name) for name in texts})
    return texts.to_dict(), {name: files.getlist(name) for name in files}


def _is_file(schema: Schema) -> bool:
    return "contentMediaType" in schema.get("items", schema)


def install(app: Flask) -> None:
    """Refuse parameters and members that routes of the API do not declare."""
    app.before_request(_refuse_undeclared)


def _refuse_undeclared() -> None:
    """Check the query of an address, and the body where the route takes none.

    Views read their bodies themselves, some after a check of who asks or how large they are.
    """
    operation = _operation()
    is_api = operation is not None or request.path.startswith("/api/")
    if not is_api or request.url_rule is None or request.method == "OPTIONS":
        return
    if operation is None:
        operation = Operation("", {}, "")
    if operation.lenient:
        return
    if request.query_string:
        known = [parameter.name for parameter in operation.parameters]
        inside = [name for kind in operation.body for name in operation.members(kind)]
        given = [name for name in request.args if name not in ANYWHERE]
        refuse_unknown(given, known, _route(), elsewhere=inside)
        _refuse_repeated({name: request.args.getlist(name) for name in given})
    if not operation.body and request.content_length:
        refuse_unknown(_members_sent(), (), _route(), kind="member")


def _members_sent() -> list[str]:
    if request.mimetype in FORMS:
        return [*request.form, *request.files]
    try:
        body = request.get_json(silent=True) if request.is_json else None
    except RecursionError as exc:
        raise bad_request("the body is not valid JSON") from exc
    return list(body) if isinstance(body, dict) else []


def _refuse_repeated(given: Mapping[str, Sequence[str]]) -> None:
    for name, values in given.items():
        if len(values) > 1:
            raise bad_request(f"{name} is there {len(values):,} times; send it once")


def _operation() -> Operation | None:
    """Return what the view that answers this request declares."""
    view = current_app.view_functions.get(request.endpoint or "")
    return getattr(view, "operation", None)


def _route() -> str:
    return f"{'GET' if request.method == 'HEAD' else request.method} {request.path}"


def _given(parameter: Parameter) -> str | None:
    """Return a parameter's value as it was sent; None if it was not.

    Raise ``LookupError`` if the route does not declare it: then nobody could send it.
    """
    operation = _operation()
    declared = operation.parameters if operation is not None else ()
    if parameter not in declared and (operation is not None or request.path.startswith("/api/")):
        raise LookupError(f"{_route()} reads {parameter.name!r} but does not declare it")
    return request.args.get(parameter.name)


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
