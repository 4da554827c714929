"""Search by words, by pictures, or by both."""

import base64
import json
import math
import time
from collections.abc import Sequence
from dataclasses import replace

from flask import Blueprint, Response, current_app, request

from fovea.search.query.rank import Picture
from fovea.search.query.run import Question
from fovea.web.contract.describe import Number, Text, bad_request, describe, json_body, text_of
from fovea.web.engine.answers import ask, follow, page_text
from fovea.web.engine.engine import Engine, current_engine
from fovea.web.engine.listings import CURSOR_PATTERN, Cursor, Kept

from .uploads import embed_pictures

__all__ = ["CURSOR", "LIMIT", "PICTURES_BYTES", "answer_page", "decoded"]

blueprint = Blueprint("search", __name__)

LONGEST = 2000  # characters of a query
PICTURES = 8  # most in one request
PICTURES_BYTES = 64 << 20  # most in the body of a request with pictures
WEIGHTS = (-10.0, 10.0)

QUERY = Text("q", "The query: words and filters, as typed into the page.", LONGEST)
LIMIT = Number("limit", "The largest number of hits to return.", default=50, minimum=1, maximum=200)
CURSOR = Text("cursor", "The `cursor` of the previous page, to continue it.", 26, CURSOR_PATTERN)

WEIGHT = {"type": "number", "minimum": WEIGHTS[0], "maximum": WEIGHTS[1], "default": 1}
QUERY_BODY = {"type": "string", "maxLength": LONGEST}
LIMIT_BODY = dict(LIMIT.schema)
BODY = {
    "type": "object",
    "properties": {
        "q": QUERY_BODY,
        "limit": LIMIT_BODY,
        "pictures": {
            "type": "array",
            "maxItems": PICTURES,
            "items": {
                "type": "object",
                "properties": {
                    "data": {"type": "string", "contentEncoding": "base64"},
                    "weight": WEIGHT,
                },
                "required": ["data"],
                "additionalProperties": False,
            },
        },
    },
    "additionalProperties": False,
}
FORM = {
    "type": "object",
    "properties": {
        "q": QUERY_BODY,
        "limit": LIMIT_BODY,
        "picture": {
            "type": "array",
            "maxItems": PICTURES,
            "items": {"type": "string", "contentMediaType": "application/octet-stream"},
        },
        "weights": {"type": "string", "description": "A JSON list of one number per picture."},
    },
}


@blueprint.get("/api/search")
@describe(
    "Search by a query",
    {200: "Search"},
    tag="Search",
    parameters=(QUERY, LIMIT, CURSOR),
    problems=(410, 503),
)
def search() -> Response:
    """Return the pictures nearest to the query, best first; without words, the newest first.

    `likely` is the number of hits, from the first, that are likely matches; null where no line is
    drawn, as with a model whose line is no better than chance. A cursor continues the same answer,
    even if the library has changed in the meantime.
    """
    started = time.perf_counter()
    engine, text = current_engine(), QUERY.read()
    question = Question.of(text) if text or not CURSOR.read() else None
    return answer_page(engine, question, started)


@blueprint.post("/api/search")
@describe(
    "Search by pictures, with or without a query",
    {200: "Search"},
    tag="Search",
    body={"application/json": BODY, "multipart/form-data": FORM},
    problems=(415, 422, 503),
)
def search_by_pictures() -> Response:
    """Add weighted pictures to the words; a negative weight means "less like this".

    Pictures stay in memory, and only until the request is answered. To continue with the `cursor`,
    use `GET /api/search` without `q`.
    """
    started = time.perf_counter()
    request.max_content_length = PICTURES_BYTES
    if request.mimetype == "multipart/form-data":
        text, limit, files, weights = _form()
    else:
        text, limit, files, weights = _body()
    engine, question = current_engine(), Question.of(text)
    question = replace(question, pictures=_pictures(engine, files, weights))
    return _as_json(engine, ask(engine, question), 0, limit, started)


def answer_page(engine: Engine, question: Question | None, started: float) -> Response:
    """Return the page of hits selected by the request's ``limit`` and ``cursor``."""
    limit, cursor = LIMIT.read(), CURSOR.read()
    if not cursor:
        assert question is not None
        return _as_json(engine, ask(engine, question), 0, limit, started)
    place = Cursor.read(cursor)
    return _as_json(engine, follow(engine, place, question), place.offset, limit, started)


def _as_json(engine: Engine, kept: Kept, start: int, limit: int, started: float) -> Response:
    text = page_text(engine, kept, start, limit, started)
    return current_app.response_class(text, mimetype="application/json")


def decoded(name: str, value: object) -> bytes:
    """Decode a base64 string. Raise ``Problem`` for any other value."""
    if not isinstance(value, str):
        raise bad_request(f"{name} must be a string in base64")
    try:
        return base64.b64decode(value, validate=True)
    except ValueError as exc:
        raise bad_request(f"{name} is not valid base64") from exc


def _pictures(
    engine: Engine, files: Sequence[bytes], weights: Sequence[float]
) -> tuple[Picture, ...]:
    if not files:
        return ()
    vectors = embed_pictures(engine, files)
    return tuple(map(Picture, vectors, weights))


def _body() -> tuple[str, int, list[bytes], list[float]]:
    """Read query, limit, pictures and their weights from a JSON body."""
    body = json_body(["q", "limit", "pictures"])
    pictures = body.get("pictures", [])
    if not isinstance(pictures, list) or len(pictures) > PICTURES:
        raise bad_request(f"pictures must be a list of at most {PICTURES}")
    files, weights = [], []
    for picture in pictures:
        if not isinstance(picture, dict) or set(picture) - {"data", "weight"}:
            raise bad_request('each picture must be {"data": base64, "weight": number}')
        files.append(decoded("data", picture.get("data")))
        weights.append(_weight(picture.get("weight", 1)))
    text = text_of("q", body.get("q", ""), LONGEST)
    return text, _limit(body.get("limit", LIMIT.default)), files, weights


def _form() -> tuple[str, int, list[bytes], list[float]]:
    """Read query, limit, pictures and their weights from a form."""
    uploads = request.files.getlist("picture")
    if len(uploads) > PICTURES:
        raise bad_request(f"{len(uploads)} pictures; send at most {PICTURES}")
    weights: object = [1.0] * len(uploads)
    if "weights" in request.form:
        try:
            weights = json.loads(request.form["weights"])
        except (ValueError, RecursionError) as exc:
            raise bad_request("weights must be a JSON list of numbers") from exc
    if not isinstance(weights, list) or len(weights) != len(uploads):
        raise bad_request(f"weights must be a JSON list of {len(uploads)} numbers, one per picture")
    limit = request.form.get("limit", str(LIMIT.default))
    text = text_of("q", request.form.get("q", ""), LONGEST)
    return (
        text,
        _limit(int(limit) if limit.isascii() and limit.isdigit() and len(limit) < 9 else limit),
        [upload.read() for upload in uploads],
        [_weight(weight) for weight in weights],
    )


def _limit(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        if LIMIT.minimum <= value <= LIMIT.maximum:
            return value
    raise bad_request(f"limit must be a whole number from {LIMIT.minimum} to {LIMIT.maximum}")


def _weight(value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        if WEIGHTS[0] <= value <= WEIGHTS[1]:
            return float(value)
    raise bad_request(f"each weight must be a number from {WEIGHTS[0]:g} to {WEIGHTS[1]:g}")
