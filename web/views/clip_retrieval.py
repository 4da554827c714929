"""The protocol of clip-retrieval's back end, so that its clients can search a fovea library.

There is one index, whatever ``indice_name`` says. Options for models that fovea does not have are
accepted and ignored: ``aesthetic_score``, ``use_mclip`` and the detectors of unsafe pictures. So is
whatever else its clients send.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from flask import Blueprint, request

from fovea.search.library.library import Library
from fovea.search.query.hits import Hit, places
from fovea.search.query.language import Query, Term
from fovea.search.query.rank import Picture
from fovea.search.query.run import Question
from fovea.search.seam.asking import Index
from fovea.web.contract.describe import bad_request, describe, json_body, text_of
from fovea.web.contract.fields import image_url, name_of
from fovea.web.engine.answers import ask, deepened
from fovea.web.engine.engine import Engine, current_engine

from .search import decoded
from .uploads import PICTURES_BYTES, embed_pictures

blueprint = Blueprint("knn", __name__)

INDEX = "fovea"
MOST = 3000  # hits in one answer
LONGEST = 2000  # characters of a text
ALIKE = 0.98  # from this cosine on, deduplication takes two pictures for the same one
FIELDS = (
    "text", "image", "image_url", "embedding_input", "modality", "num_images", "num_result_ids",
    "indice_name", "deduplicate", "use_safety_model", "use_violence_detector", "use_mclip",
    "aesthetic_score", "aesthetic_weight", "verbose",
)  # fmt: skip

ANYTHING: dict[str, Any] = {"description": "Accepted and ignored."}
COUNT: dict[str, Any] = {"type": ["integer", "null"], "minimum": 1, "maximum": MOST, "default": 100}
ASKED = {
    "type": "object",
    "properties": {
        "text": {"type": ["string", "null"], "maxLength": LONGEST},
        "image": {"type": ["string", "null"], "contentEncoding": "base64"},
        "image_url": {"type": ["string", "null"], "description": "Refused: fovea fetches no URLs."},
        "embedding_input": {"type": ["array", "null"], "items": {"type": "number"}},
        "modality": {"enum": ["image", None]},
        "num_images": {**COUNT, "description": "How many hits come with path, URL and caption."},
        "num_result_ids": {**COUNT, "description": "How many hits to return in all."},
        "deduplicate": {"type": ["boolean", "null"], "default": True},
        **{name: ANYTHING for name in FIELDS[7:] if name != "deduplicate"},
    },
}
WANTED = {
    "type": "object",
    "properties": {
        "ids": {"type": "array", "maxItems": MOST, "items": {"type": "integer"}},
        "indice_name": ANYTHING,
    },
    "required": ["ids"],
}


@blueprint.get("/indices-list")
@describe("List the indices", {200: "Indices"}, tag="clip-retrieval", lenient=True)
def indices() -> list[str]:
    """Return the name of the one index."""
    return [INDEX]


@blueprint.post("/knn-service")
@describe(
    "Search by a text, a picture or an embedding",
    {200: "Neighbours"},
    tag="clip-retrieval",
    body={"application/json": ASKED},
    lenient=True,
    problems=(415, 422, 503),
)
def knn() -> list[dict[str, Any]]:
    """Search by the first of `text`, `image` (base64) and `embedding_input` that is given.

    The body needs no Content-Type. `text` is embedded as it is, not parsed as a query.
    """
    request.max_content_length = PICTURES_BYTES
    body = json_body(any_type=True)
    engine = current_engine()
    shown = _count(body, "num_images")
    most = max(_count(body, "num_result_ids"), shown)
    if not isinstance(body.get("deduplicate"), bool | None):
        raise bad_request("deduplicate must be true or false")
    if body.get("modality") not in (None, "image"):
        raise bad_request('modality must be "image"; this server has no index of texts')
    index = engine.index()
    question = _question(engine, body, index)
    if index is None or question is None:
        return []
    kept = deepened(engine, ask(engine, question), most)
    found = engine.searcher(question).hits(kept.listing, 0, most)
    if body.get("deduplicate") is not False:
        found = _distinct(index, found)
    metadata = _metadata(engine.library, [hit.image_id for hit in found[:shown]])
    return [
        {
            **metadata.get(hit.image_id, {}),
            "id": hit.image_id,
            "similarity": hit.score,
            **({} if hit.time is None else {"time": hit.time}),
        }
        for hit in found
    ]


@blueprint.post("/metadata")
@describe(
    "Return the paths and URLs of images",
    {200: "Metadata"},
    tag="clip-retrieval",
    body={"application/json": WANTED},
    lenient=True,
    problems=(415, 503),
)
def metadata() -> list[dict[str, Any]]:
    """Return path, URL and caption of each image, leaving out ids that the library lacks."""
    ids = json_body(any_type=True).get("ids")
    if not isinstance(ids, list) or len(ids) > MOST:
        raise bad_request(f"ids must be a list of at most {MOST:,} image ids")
    if not all(type(image_id) is int and abs(image_id) < 2**63 for image_id in ids):
        raise bad_request("ids must be whole numbers")
    known = _metadata(current_engine().library, ids)
    return [{"id": image_id, "metadata": known[image_id]} for image_id in ids if image_id in known]


def _question(engine: Engine, body: dict[str, Any], index: Index | None) -> Question | None:
    """Read the question from a body; None if it needs an index and nothing is indexed yet."""
    if body.get("text"):
        text = text_of("text", body["text"], LONGEST)
        return Question(text, Query((Term("text", text),)))
    if body.get("image"):
        picture = decoded("image", body["image"])
        return _near(embed_pictures(engine, [picture])[0]) if index is not None else None
    if body.get("image_url"):
        raise bad_request("image_url is refused, since fovea fetches no URLs; send image in base64")
    if body.get("embedding_input") is not None:
        vector = _unit(body["embedding_input"], index)
        return None if vector is None else _near(vector)
    raise bad_request("send text, image or embedding_input")


def _near(vector: np.ndarray) -> Question:
    return Question("", Query(), (Picture(vector),))


def _unit(values: object, index: Index | None) -> np.ndarray | None:
    """Scale a vector from a request to length 1, float32 (d,); None before anything is indexed."""
    if not isinstance(values, list) or not all(_is_number(value) for value in values):
        raise bad_request("embedding_input must be a list of numbers below 1e30")
    if index is None:
        return None
    if len(values) != index.model.dim:
        raise bad_request(
            f"embedding_input has {len(values)} numbers; {index.model.name} needs {index.model.dim}"
        )
    vector = np.array(values, dtype=np.float64)
    length = float(np.linalg.norm(vector))
    if not 0 < length < math.inf:
        raise bad_request("embedding_input is a zero vector; send an embedding")
    return (vector / length).astype(np.float32)


def _is_number(value: object) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return abs(value) < 1e30 and value == value


def _count(body: dict[str, Any], name: str) -> int:
    value = body.get(name)
    if value is None:
        return 100
    if type(value) is not int or not 1 <= value <= MOST:
        raise bad_request(f"{name} must be a whole number from 1 to {MOST:,}")
    return value


def _distinct(index: Index, found: Sequence[Hit]) -> list[Hit]:
    """Drop hits whose embedding is within ``ALIKE`` of a better hit's."""
    places, vectors = index.vectors(np.array([hit.image_id for hit in found], dtype=np.int64))
    rows = np.zeros((len(found), index.model.dim), np.float32)
    rows[places] = vectors
    kept: list[int] = []
    for number, row in enumerate(rows):
        if not (rows[kept] @ row >= ALIKE).any():
            kept.append(number)
    return [found[number] for number in kept]


def _metadata(library: Library, ids: list[int]) -> dict[int, dict[str, str]]:
    """Return each image's path, the URL of its original, and its file name as a caption."""
    host = request.host_url.rstrip("/").removesuffix(request.script_root)
    return {
        image_id: {
            "image_path": place.paths[0],
            "url": host + image_url(image_id, "original"),
            "caption": name_of(place.paths[0]),
        }
        for image_id, place in places(library, ids).items()
    }
