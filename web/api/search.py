"""Answers to words."""

import time
from typing import Any

from flask import Blueprint, request

from search.neighbours import search_by_vector

from ..engine import engine
from ..fields import path_fields
from ..problems import Problem

blueprint = Blueprint("search", __name__)


@blueprint.get("/api/search")
def search() -> dict[str, Any]:
    """The images nearest to ``?q=``."""
    started = time.perf_counter()
    text = request.args.get("q", "").strip()
    limit = request.args.get("limit", 50, int)
    if not 1 <= limit <= 200:
        raise Problem(400, "Bad Request", "limit is 1 to 200")
    held = engine()
    index, hits = held.index(), []
    if index is not None and text:
        [vector] = held.encoder().encode_texts([text])
        hits = search_by_vector(held.library, index, vector, k=limit)
    return {
        "query": text,
        "model": index.model.name if index is not None else None,
        "took_ms": round((time.perf_counter() - started) * 1000, 1),
        "total": len(index) if index is not None else 0,
        "likely": None,
        "kind": "words" if text else "browse",
        "cursor": None,
        "hits": [
            {
                "rank": hit.rank,
                "score": hit.score,
                "likelihood": None,
                "image_id": hit.image_id,
                **path_fields(hit.path),
                "paths": list(hit.paths),
                "offline": hit.offline,
                "by_name": False,
                "name": hit.path.rsplit("/", 1)[-1],
                "thumbnail": f"/api/images/{hit.image_id}/thumbnail",
            }
            for hit in hits
        ],
    }
