"""Pictures sent as queries: decoded like indexed ones, and never stored in a file."""

from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import numpy as np
from flask import Blueprint, Flask, Response, current_app, request

from fovea.indexer.decoding.limits import Refused
from fovea.indexer.workers.decode_pool import Crowded
from fovea.search.query.rank import Picture
from fovea.web.contract.describe import Text, bad_request, describe, form_body
from fovea.web.contract.fields import picture_url
from fovea.web.contract.problems import Problem
from fovea.web.engine.engine import Engine, current_engine
from fovea.web.engine.kept_pictures import (
    KEPT_S,
    PATTERN,
    SHA256,
    KeptPicture,
    KeptPictures,
    named_in,
)

from .thumbnails import WEBP, crowded, renderer

__all__ = [
    "PICTURES",
    "PICTURES_BYTES",
    "WEIGHTS",
    "blueprint",
    "embed_pictures",
    "install",
    "named_pictures",
]

blueprint = Blueprint("uploads", __name__)

PICTURES_BYTES = 64 << 20  # most in the body of a request with pictures
WEIGHTS = (-10.0, 10.0)
SMALL = 96  # pixels of the short side
SMALL_BYTES = 64 << 10  # a larger one is not kept

PICTURES = Text(
    "pictures",
    "Pictures kept by `POST /api/pictures`: their SHA-256 between commas, with weights as in "
    "`HASH,-2:HASH`.",
    1000,
    PATTERN,
)
ONE = Text("sha256", "The SHA-256 of the picture.", 64, SHA256)
FORM = {
    "type": "object",
    "properties": {"picture": {"type": "string", "contentMediaType": "application/octet-stream"}},
    "required": ["picture"],
    "additionalProperties": False,
}


def install(app: Flask) -> None:
    """Keep pictures for as long as the app runs."""
    app.extensions["fovea.pictures"] = KeptPictures()


@blueprint.post("/api/pictures")
@describe(
    "Keep a picture to search by",
    {201: "Picture"},
    tag="Search",
    body={"multipart/form-data": FORM},
    problems=(415, 422, 503),
)
def keep_picture() -> tuple[dict[str, Any], int]:
    """Embed a picture, so that searches can name it by its SHA-256.

    Its embedding and a small version of it stay in memory, as long as the server runs, for a week
    since they were used last; at most 512 pictures are kept. Once the library uses another model,
    it has to be sent again.
    """
    request.max_content_length = PICTURES_BYTES
    if request.mimetype != "multipart/form-data":
        raise Problem(415, "Unsupported Media Type", "send the picture as multipart/form-data")
    uploads = form_body()[1].get("picture", [])
    if len(uploads) != 1:
        raise bad_request(f"{len(uploads)} pictures; send one, as picture")
    engine, data = current_engine(), uploads[0].read()
    digest, model = sha256(data).hexdigest(), engine.encoder().identity
    known = _kept().get(digest)
    if known is None or known.model != model:
        [vector] = embed_pictures(engine, [data])
        _kept().keep(KeptPicture(digest, model, vector, _small(data)))
    return {"sha256": digest, "picture": picture_url(digest), "kept_s": KEPT_S}, 201


@blueprint.get("/api/pictures")
@describe(
    "Get a small version of a kept picture",
    {200: WEBP, 304: {}},
    tag="Search",
    parameters=(ONE,),
    problems=(404,),
)
def show_picture() -> Response:
    """Send a WebP of a picture that was sent to search by."""
    sha256 = ONE.read()
    found = _kept().get(sha256)
    if found is None or not found.small:
        raise Problem(404, "Not Found", "there is no such picture, or it is not kept any more")
    response = current_app.response_class(found.small, mimetype="image/webp")
    response.headers["Cache-Control"] = f"private, max-age={int(KEPT_S)}, immutable"
    response.set_etag(sha256[:32])
    response.make_conditional(request)
    return response


def named_pictures() -> tuple[Picture, ...]:
    """Return the kept pictures that the request's ``pictures`` names, with their weights.

    Raise ``Problem`` 410 if one is not kept, or was embedded by another model.
    """
    names = named_in(PICTURES.read())
    model = current_engine().model() if names else None
    found = []
    for number, named in enumerate(names, 1):
        if not WEIGHTS[0] <= named.weight <= WEIGHTS[1]:
            raise bad_request(f"each weight must be a number from {WEIGHTS[0]:g} to {WEIGHTS[1]:g}")
        kept = _kept().get(named.sha256)
        if kept is None or model is None or kept.model != model.identity:
            raise Problem(
                410,
                "Gone",
                f"picture {number} is not kept any more; send it again to /api/pictures",
                code="picture_gone",
                params={"number": number},
            )
        found.append(Picture(kept.vector, named.weight))
    return tuple(found)


def embed_pictures(engine: Engine, files: Sequence[bytes]) -> list[np.ndarray]:
    """Embed the bytes of pictures; return unit vectors, float32 (d,).

    Raise ``Problem`` 422 for a picture that cannot be decoded, and 503 if too many are waiting.
    """
    if not files:
        return []
    encoder = engine.encoder()
    pixels = []
    for number, data in enumerate(files, 1):
        try:
            pixels.append(renderer().pixels(data, encoder.preprocess))
        except Refused as exc:
            raise Problem(
                422,
                "Unprocessable Content",
                f"picture {number}: {exc}",
                code="picture",
                params={"number": number},
            ) from exc
        except Crowded as exc:
            raise crowded(exc) from exc
    return list(encoder.encode_pixels(np.stack(pixels)))


def _small(data: bytes) -> bytes:
    """Make a small picture; empty if that fails, since searches need none."""
    try:
        [made] = renderer().thumbnails(data, [SMALL], raw=False).values()
    except (Refused, Crowded):
        return b""
    return made if len(made) <= SMALL_BYTES else b""


def _kept() -> KeptPictures:
    found: KeptPictures = current_app.extensions["fovea.pictures"]
    return found
