"""One image: its details, and images like it."""

import os
import time
from dataclasses import asdict
from typing import Any

from flask import Blueprint, Response

from fovea.search.analyses.texts import text_of
from fovea.search.index.moments import moment_times
from fovea.search.library.facts.dates import oldest
from fovea.search.library.marks import marks_of
from fovea.search.library.paths import path_fields
from fovea.search.places.stored import Whereabouts, whereabouts
from fovea.search.query.hits import places
from fovea.search.query.likelihood import likeliest
from fovea.search.query.run import Question
from fovea.search.tags.stored import Tagged, tags_of
from fovea.web.contract.describe import describe
from fovea.web.contract.fields import at_moment, image_url, name_of, thumbnail_urls
from fovea.web.contract.problems import Problem
from fovea.web.engine.answers import ask, page
from fovea.web.engine.engine import Engine, current_engine

from .mapping.names import in_chinese
from .search import CURSOR, FIELDS, LIKELY_ONLY, LIMIT, answer_page

blueprint = Blueprint("images", __name__)

CHANGED = oldest("image_id = ? AND state = 'indexed'")
NEIGHBOURS = 12  # shown beside an image
LABELS = 5
COLUMNS = (
    "bytes", "width", "height", "format", "taken_at", "date", "date_source", "camera", "lens",
    "exposure", "f_number", "iso", "focal_length", "latitude", "longitude", "altitude",
    "damaged", "duration",
)  # fmt: skip
READ = ", ".join(COLUMNS).replace("duration", "duration_ms / 1000.0")
FACTS = f"SELECT id, {READ} FROM images JOIN shown ON image_id = id"


@blueprint.get("/api/images/<int:image_id>")
@describe("Describe an image", {200: "Image"}, tag="Images", problems=(503,))
def image(image_id: int) -> dict[str, Any]:
    """Return its files, metadata, tags, likeliest labels and nearest neighbours."""
    started = time.perf_counter()
    engine = current_engine()
    known = _known(engine, image_id)
    place = places(engine.library, [image_id])[image_id]
    thumbnail = thumbnail_urls(engine.library, [image_id])[image_id]
    similar = page(engine, ask(engine, Question.like(image_id)), 0, NEIGHBOURS, started)
    return {
        "image_id": image_id,
        **path_fields(place.paths[0]),
        "name": name_of(place.paths[0]),
        "paths": list(place.paths),
        "folder": os.path.dirname(place.paths[0]),
        "offline": place.offline,
        **known,
        "place": _place(whereabouts(engine.library, [image_id]).get(image_id)),
        "text": [asdict(line) for line in text_of(engine.library, image_id)],
        **marks_of(engine.library, [image_id])[image_id],
        "changed_at": engine.library.rows(CHANGED, (image_id,))[0][0],
        "tags": [
            {
                "name": tag.name,
                "name_zh": in_chinese(tag.name),
                "probability": tag.probability,
                "said": tag.said,
                "proven": tag.is_proven,
            }
            for tag in _tags(engine, image_id)
        ],
        "labels": _labels(engine, image_id),
        "moments": _moments(engine, image_id, thumbnail),
        "thumbnail": thumbnail,
        "original": image_url(image_id, "original"),
        "similar": similar["hits"],
    }


@blueprint.get("/api/images/<int:image_id>/similar")
@describe(
    "Find images like this one",
    {200: "Search"},
    tag="Images",
    parameters=(LIMIT, CURSOR, LIKELY_ONLY, FIELDS),
    problems=(503,),
)
def similar(image_id: int) -> Response:
    """Return the nearest images, best first, without the image itself."""
    started = time.perf_counter()
    engine = current_engine()
    _known(engine, image_id)
    return answer_page(engine, Question.like(image_id), started)


def _known(engine: Engine, image_id: int) -> dict[str, Any]:
    """Return the stored metadata of an image. Raise ``Problem`` if no file shows that image."""
    rows = engine.library.rows(
        f"{FACTS} WHERE id = ?",
        (image_id,),
    )
    if not rows:
        raise Problem(404, "Not Found", f"there is no image {image_id} in this library")
    return dict(zip(COLUMNS, rows[0][1:], strict=True))


def _moments(engine: Engine, image_id: int, thumbnail: str) -> list[dict[str, Any]]:
    """Return the moments of a video; none of a picture."""
    model = engine.model()
    times = [] if model is None else moment_times(engine.library, image_id, model.id)
    return [{"time": time / 1000, "thumbnail": at_moment(thumbnail, time)} for time in times]


def _place(where: Whereabouts | None) -> dict[str, Any] | None:
    """Return the town, city, region and country of an image, and what they are in words."""
    if where is None:
        return None
    parts = {
        "town": where.town, "city": where.city, "region": where.region, "country": where.country,
    }  # fmt: skip
    return {
        **{name: None if one is None else one.name for name, one in parts.items()},
        "country_code": where.country.key,
        "label": where.label,
        "label_zh": where.chinese,
    }


def _tags(engine: Engine, image_id: int) -> list[Tagged]:
    engine.refresh_tags()
    return tags_of(engine.library, [image_id]).get(image_id, [])


def _labels(engine: Engine, image_id: int) -> list[dict[str, Any]]:
    """Return what the image may show; nothing without a background or an embedding.

    Nothing either where the model's labels were not measured to be right.
    """
    model, background = engine.model(), engine.background()
    signs = None if background is None else background.signs
    if model is None or background is None or signs is None:
        return []
    if signs.labels is None or not signs.labels.are_shown:
        return []
    searcher = engine.searcher(Question.like(image_id))
    vector = searcher.source.vector(image_id)
    if vector is None:
        return []
    centre = searcher.around(background).centre
    found = likeliest(background, centre, vector, LABELS)
    return [
        {"label": label, "label_zh": in_chinese(label), "probability": probability}
        for label, probability in found
    ]
