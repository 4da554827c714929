"""Search by words, by pictures, or by both."""

import base64
import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from flask import Blueprint, Response, current_app, request

from fovea.search.query.rank import Picture
from fovea.search.query.run import Question
from fovea.web.contract.describe import (
    Flag,
    Names,
    Number,
    Text,
    bad_request,
    describe,
    form_body,
    json_body,
    text_of,
)
from fovea.web.engine.answers import ask, follow, page_text, place_in
from fovea.web.engine.engine import Engine, current_engine
from fovea.web.engine.hit_fields import FIELDS as HIT_FIELDS
from fovea.web.engine.listings import CURSOR_PATTERN, Cursor, Kept

from .uploads import PICTURES as KEPT
from .uploads import PICTURES_BYTES, WEIGHTS, embed_pictures, named_pictures

__all__ = ["CURSOR", "FIELDS", "LIKELY_ONLY", "LIMIT", "answer_page", "asked", "decoded"]

blueprint = Blueprint("search", __name__)

LONGEST = 2000  # characters of a query
PICTURES = 8  # most in one request

QUERY = Text("q", "The query: words and filters, as typed into the page.", LONGEST)
LIMIT = Number("limit", "The largest number of hits to return.", default=50, minimum=1, maximum=200)
CURSOR = Text("cursor", "The `cursor` of the previous page, to continue it.", 26, CURSOR_PATTERN)
LIKELY_ONLY = Flag("likely_only", "Only the likely matches; `total` then counts these.")
FIELDS = Names("fields", "Only these fields of each hit, with commas between them.", HIT_FIELDS)

OFFSET = Number(
    "offset",
    "Hits before the page; with a `cursor`, in the same answer, instead of its place.",
    default=0,
    minimum=0,
    maximum=999_999_999,
)

IMAGE = Number(
    "image",
    "Begin the page at this image, instead of at an `offset`; 404 if it is not among the hits.",
    default=0,  # which no image has
    minimum=0,
    maximum=2**53 - 1,
)

WEIGHT = {"type": "number", "minimum": WEIGHTS[0], "maximum": WEIGHTS[1], "default": 1}
QUERY_BODY = {"type": "string", "maxLength": LONGEST}
LIMIT_BODY = dict(LIMIT.schema)
BODY = {
    "type": "object",
    "properties": {
        "q": QUERY_BODY,
        "limit": LIMIT_BODY,
        "likely_only": LIKELY_ONLY.schema,
        "fields": FIELDS.schema,
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
        "likely_only": LIKELY_ONLY.schema,
        "fields": {"type": "string", "description": "As in the query, with commas."},
        "picture": {
            "type": "array",
            "maxItems": PICTURES,
            "items": {"type": "string", "contentMediaType": "application/octet-stream"},
        },
        "weights": {"type": "string", "description": "A JSON list of one number per picture."},
    },
    "additionalProperties": False,
}


@blueprint.get("/api/search")
@describe(
    "Search by a query",
    {200: "Search"},
    tag="Search",
    parameters=(QUERY, KEPT, LIMIT, CURSOR, OFFSET, IMAGE, LIKELY_ONLY, FIELDS),
    problems=(404, 410, 503),
)
def search() -> Response:
    """Return the pictures nearest to the query, best first; without words, the newest first.

    `pictures` adds some that were sent before; 410 with the code `picture_gone` says that one is
    not kept any more.

    `likely` is the number of hits, from the first, that are likely matches; null where no line is
    drawn, as with a model whose line is no better than chance. A cursor continues the same answer,
    even if the library has changed in the meantime. `hints` say what may help, as where a filter
    leaves no picture. In a list by date, `/api/timeline` says at which `offset` a month begins, and
    `image` leads to the place of a picture. Lists by likeness are ranked no deeper for that.

    With `likely_only`, the answer ends where the likely matches end; a query without words and
    pictures has no others. A model without a line answers 400 then, with the code
    `query.no_line`. With `fields`, what only the others need is not even read.
    """
    started = time.perf_counter()
    begin = {"offset": OFFSET.given(), "image": IMAGE.given()}
    for part in (LIMIT, LIKELY_ONLY, FIELDS):
        part.read()  # what is malformed is said before what is gone
    continues = bool(CURSOR.read())
    question = asked()
    is_asked = question.text or question.pictures or not continues
    return answer_page(current_engine(), question if is_asked else None, started, **begin)


def asked() -> Question:
    """Return the question in the request's address. Raise ``QueryError`` or ``Problem``."""
    return Question.of(QUERY.read(), *named_pictures())


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
    wanted = _form() if request.mimetype == "multipart/form-data" else _body()
    engine, question = current_engine(), Question.of(wanted.text)
    pictures = _pictures(engine, wanted.files, wanted.weights)
    question = replace(question, pictures=pictures, likely_only=wanted.likely_only)
    return _as_json(engine, ask(engine, question), 0, wanted.limit, started, wanted.fields)


def answer_page(
    engine: Engine,
    question: Question | None,
    started: float,
    *,
    offset: int | None = None,
    image: int | None = None,
) -> Response:
    """Return the page of hits that the request's parameters select.

    It begins at ``image``, else at ``offset``, else where the cursor says. Its route declares
    ``LIMIT``, ``CURSOR``, ``LIKELY_ONLY`` and ``FIELDS``.
    """
    limit, cursor, fields = LIMIT.read(), CURSOR.read(), FIELDS.read()
    likely_only = LIKELY_ONLY.read()
    if question is not None:
        question = replace(question, likely_only=likely_only)
    if cursor:
        place = Cursor.read(cursor)
        kept, start = follow(engine, place, question, likely_only=likely_only), place.offset
    else:
        assert question is not None
        kept, start = ask(engine, question), 0
    if image is not None:
        kept, start = place_in(engine, kept, image)
    elif offset is not None:
        start = offset
    return _as_json(engine, kept, start, limit, started, fields)


def _as_json(
    engine: Engine,
    kept: Kept,
    start: int,
    limit: int,
    started: float,
    fields: Sequence[str] | None,
) -> Response:
    text = page_text(engine, kept, start, limit, started, fields or HIT_FIELDS)
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


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the body of a search with pictures asks for."""

    text: str
    limit: int
    likely_only: bool
    fields: tuple[str, ...] | None  # None: all
    files: list[bytes]
    weights: list[float]


def _body() -> _Asked:
    """Read a JSON body."""
    body = json_body()
    pictures = body.get("pictures", [])
    if not isinstance(pictures, list) or len(pictures) > PICTURES:
        raise bad_request(f"pictures must be a list of at most {PICTURES}")
    files, weights = [], []
    for picture in pictures:
        if not isinstance(picture, dict) or set(picture) - {"data", "weight"}:
            raise bad_request('each picture must be {"data": base64, "weight": number}')
        files.append(decoded("data", picture.get("data")))
        weights.append(_weight(picture.get("weight", 1)))
    return _Asked(
        text_of("q", body.get("q", ""), LONGEST),
        _limit(body.get("limit", LIMIT.default)),
        LIKELY_ONLY.of(body.get("likely_only", False)),
        FIELDS.of(body["fields"]) if "fields" in body else None,
        files,
        weights,
    )


def _form() -> _Asked:
    """Read a form."""
    texts, uploaded = form_body()
    uploads = uploaded.get("picture", [])
    if len(uploads) > PICTURES:
        raise bad_request(f"{len(uploads)} pictures; send at most {PICTURES}")
    weights: object = [1.0] * len(uploads)
    if "weights" in texts:
        try:
            weights = json.loads(texts["weights"])
        except (ValueError, RecursionError) as exc:
            raise bad_request("weights must be a JSON list of numbers") from exc
    if not isinstance(weights, list) or len(weights) != len(uploads):
        raise bad_request(f"weights must be a JSON list of {len(uploads)} numbers, one per picture")
    limit = texts.get("limit", str(LIMIT.default))
    return _Asked(
        text_of("q", texts.get("q", ""), LONGEST),
        _limit(int(limit) if limit.isascii() and limit.isdigit() and len(limit) < 9 else limit),
        LIKELY_ONLY.of_text(texts.get("likely_only")),
        FIELDS.of_text(texts.get("fields")),
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
