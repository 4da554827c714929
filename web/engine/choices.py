"""Which images a request is about: those it lists, or all that a query finds."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fovea.search.query.filters import visible
from fovea.search.query.run import Question
from fovea.web.contract.describe import bad_request, text_of
from fovea.web.contract.problems import Problem

from .answers import ask, deepened, follow
from .engine import Engine
from .listings import CURSOR_PATTERN, Cursor

__all__ = ["CHOICE", "LISTED", "MEMBERS", "MOST", "Choice", "chosen", "one_of", "read_choice"]

LISTED = 10_000  # images that one request lists
MOST = 100_000  # images that one request is about
LONGEST = 2000  # characters of a query

MEMBERS = ("ids", "query", "cursor", "likely_only", "except")
_IDS = {"type": "array", "items": {"type": "integer"}, "maxItems": LISTED}
CHOICE: dict[str, Any] = {
    "ids": {**_IDS, "minItems": 1},
    "query": {
        "type": "string",
        "maxLength": LONGEST,
        "description": f"All that it finds now, instead of `ids`; at most {MOST:,}.",
    },
    "cursor": {
        "type": "string",
        "pattern": f"^{CURSOR_PATTERN}$",
        "description": "All hits of the answer that it continues, as of a search by pictures.",
    },
    "likely_only": {"type": "boolean", "description": "Of a query or cursor, the likely matches."},
    "except": {**_IDS, "description": "These are left out."},
}


def one_of() -> list[dict[str, Any]]:
    """Return the alternatives of a JSON body whose properties include ``CHOICE``."""
    listed = {"required": ["ids"], "properties": {"likely_only": False}}
    return [listed, {"required": ["query"]}, {"required": ["cursor"]}]


@dataclass(frozen=True, slots=True)
class Choice:
    """Images by their ids, by a query, or by the answer that a cursor continues."""

    ids: tuple[int, ...] = ()
    question: Question | None = None
    cursor: Cursor | None = None
    likely_only: bool = False
    exceptions: frozenset[int] = frozenset()


def read_choice(body: Mapping[str, Any]) -> Choice:
    """Read a choice from the members of a request's body.

    Raise ``Problem`` 400 or 413 if it is malformed or too long, ``QueryError`` for such a query.
    """
    given = [name for name in ("ids", "query", "cursor") if name in body]
    if len(given) != 1:
        raise bad_request("send one of ids, query and cursor")
    exceptions = frozenset(_ids("except", body.get("except", [])))
    likely_only = body.get("likely_only", False)
    if not isinstance(likely_only, bool):
        raise bad_request("likely_only must be true or false")
    if given == ["ids"]:
        ids = _ids("ids", body["ids"])
        if not ids:
            raise bad_request("ids must be a list of image ids")
        if "likely_only" in body:
            raise bad_request("likely_only needs a query or a cursor")
        return Choice(tuple(ids), exceptions=exceptions)
    if given == ["query"]:
        question = Question.of(text_of("query", body["query"], LONGEST))
        return Choice((), question, None, likely_only, exceptions)
    text = text_of("cursor", body["cursor"], 26)
    if not re.fullmatch(CURSOR_PATTERN, text, re.ASCII):
        raise bad_request("cursor is not a value that this server has issued")
    return Choice((), None, Cursor.read(text), likely_only, exceptions)


def chosen(engine: Engine, choice: Choice) -> list[int]:
    """Return the ids of a choice, those of an answer in its order, each once.

    A query finds what the library has now; an image that was listed may be gone. Raise ``Problem``
    413 if a query finds more than ``MOST``, 410 if an answer has expired.
    """
    if choice.ids:
        return [one for one in dict.fromkeys(choice.ids) if one not in choice.exceptions]
    if choice.cursor is not None:
        kept = follow(engine, choice.cursor, None)
    else:
        assert choice.question is not None
        kept = ask(engine, choice.question)
    listing = kept.listing
    count = listing.total
    if choice.likely_only and not listing.question.browses:  # then there are no others
        if listing.likely is None:
            raise bad_request("this answer has no line between likely matches and others")
        count = listing.likely
    _refuse_more_than_most(count - len(choice.exceptions))
    listing = deepened(engine, kept, count).listing
    found = listing.ranking.ids[:count]
    found = visible(engine.library, np.asarray(found), listing.question.query.filters)
    ids = [one for one in found.tolist() if one not in choice.exceptions]
    _refuse_more_than_most(len(ids))
    return ids


def _refuse_more_than_most(count: int) -> None:
    if count > MOST:
        detail = f"{count:,} images; at most {MOST:,} at once: choose fewer, for example one year"
        raise Problem(413, "Content Too Large", detail)


def _ids(name: str, value: object) -> Sequence[int]:
    if not isinstance(value, list) or not all(map(_is_id, value)):
        raise bad_request(f"{name} must be a list of image ids")
    if len(value) > LISTED:
        detail = f"at most {LISTED:,} images can be listed in one request"
        raise Problem(413, "Content Too Large", detail)
    return value


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
