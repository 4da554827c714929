"""The map: its state and its clusters, its points, and the pictures of one cluster."""

import hashlib
import struct
import threading
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
from flask import Blueprint, Flask, Response, current_app, request

from fovea.search.library.rows import ModelRow
from fovea.search.mapping.build import current_map
from fovea.search.mapping.clusters import Cluster
from fovea.search.mapping.layout import WITHOUT, is_installed
from fovea.search.mapping.stored import PictureMap, file_mark
from fovea.search.query.hits import hits
from fovea.search.query.rank import Ranking
from fovea.web.contract.describe import Number, Text, describe
from fovea.web.contract.fields import thumbnail_urls
from fovea.web.contract.problems import Problem
from fovea.web.engine.answers import ask, deepened
from fovea.web.engine.engine import Engine, current_engine
from fovea.web.engine.hit_fields import hit_fields
from fovea.web.jobs import map_building

from ..search import LIMIT, QUERY, asked
from ..uploads import PICTURES as KEPT
from .names import in_chinese

__all__ = ["blueprint", "install"]

blueprint = Blueprint("maps", __name__)

MOST = 200_000  # points that are sent, and hits that are marked
NEAREST = 200  # hits that are marked where none is likely, or the model draws no line
MAGIC = b"FVMP"
BYTES = {"type": "string", "contentMediaType": "application/octet-stream"}
POINTS = {"application/octet-stream": BYTES}

CLUSTER = Number("cluster", "The cluster's `id`.", default=0, minimum=0, maximum=65_535)
OFFSET = Number("offset", "Pictures before the first.", default=0, minimum=0, maximum=999_999_999)


@dataclass(frozen=True, eq=False)
class _Sent:
    """A map as it is sent."""

    map: PictureMap
    points: bytes
    listed: int  # pictures in ``points``
    tag: str  # changes with ``points``


def install(app: Flask) -> None:
    """Let the app lay maps out, and keep the one it sends."""
    map_building.install(app)
    app.extensions["fovea.map_sent"] = _Kept()


@blueprint.get("/api/map")
@describe("Describe the map", {200: "Map"}, tag="Map", problems=(503,))
def show_map() -> dict[str, Any]:
    """Return whether the library's map is laid out, and the clusters on it.

    Coordinates are shares of the map's side, from its left and top. `names` are the labels that set
    a cluster apart from the library, none where nothing does. `points` is where the pictures lie:
    see `/api/map/points`. `outgrown` says that most pictures have come since the map was laid out.
    Without `installed`, `advice` says what to install.
    """
    engine = current_engine()
    sent, build = _sent(engine), map_building.building().document()
    found = None if sent is None else sent.map
    model = engine.model()
    return {
        "state": "none" if sent is None else "ready",
        "installed": is_installed(),
        "advice": None if is_installed() else WITHOUT,
        "build": build,
        "model": None if model is None else model.name,
        "pictures": 0 if found is None else len(found),
        "listed": 0 if sent is None else sent.listed,
        "laid_out": 0 if found is None else found.laid_out,
        "outgrown": False if found is None else found.is_outgrown,
        "points": None if sent is None else f"{request.script_root}/api/map/points?v={sent.tag}",
        "clusters": [] if found is None else _clusters(engine, found.clusters),
    }


@blueprint.post("/api/map")
@describe("Lay the map out", {202: "Map"}, tag="Map", problems=(409, 503))
def lay_out() -> tuple[dict[str, Any], int]:
    """Lay the map out anew, in the background; the present one stays until then.

    409 with the code `map.not_installed` says that scikit-learn is missing.
    """
    map_building.building().start()
    return show_map(), 202


VERSION = Text("v", "As in `points` of `/api/map`: another address for another map.", 8)


@blueprint.get("/api/map/points")
@describe(
    "Get where the pictures lie",
    {200: POINTS, 304: {}},
    tag="Map",
    parameters=(VERSION,),
    problems=(404, 503),
)
def points() -> Response:
    """Return all pictures of the map; of more than 200,000 so many, from the first id to the last.

    Little-endian, one after another: `FVMP`; the number n of pictures, uint32; n image ids, uint32;
    the beginning of each content's SHA-256, 4 bytes; their places from the left, uint16, and from
    the top, uint16, 0 to 65,535; their finest clusters, uint16. 404 before the map is laid out.
    """
    VERSION.read()
    sent = _ready(current_engine())
    response = current_app.response_class(sent.points, mimetype="application/octet-stream")
    response.set_etag(sent.tag)
    response.make_conditional(request)
    return response


@blueprint.get("/api/map/hits")
@describe(
    "Get which pictures of the map a query finds",
    {200: POINTS},
    tag="Map",
    parameters=(QUERY, KEPT),
    problems=(404, 410, 503),
)
def marked() -> Response:
    """Return their image ids, uint32, little-endian, ascending.

    Of words and pictures those are the likely matches; where none is or the model draws no line,
    the nearest 200. Filters leave what they leave, at most 200,000.
    """
    question = asked()
    engine = current_engine()
    on_map = _ready(engine).map.image_ids
    kept = ask(engine, question)
    listing = kept.listing
    likely = listing.likely or NEAREST
    count = min(listing.total if listing.question.browses else likely, MOST)
    ids = deepened(engine, kept, count).listing.ranking.ids[:count]
    found = np.intersect1d(np.asarray(ids, np.int64), on_map).astype("<u4")
    response = current_app.response_class(found.tobytes(), mimetype="application/octet-stream")
    return response


@blueprint.get("/api/map/pictures")
@describe(
    "List the pictures of a cluster",
    {200: "MapPictures"},
    tag="Map",
    parameters=(CLUSTER, OFFSET, LIMIT),
    problems=(404, 503),
)
def pictures() -> dict[str, Any]:
    """Return the pictures of a cluster, nearest to its middle first, and their number."""
    number, start, limit = CLUSTER.read(), OFFSET.read(), LIMIT.read()
    engine = current_engine()
    try:
        ids = _ready(engine).map.of_cluster(number)
    except KeyError as exc:
        raise Problem(404, "Not Found", f"there is no cluster {number} on the map") from exc
    ranking = Ranking(ids, None, len(ids), "browse")
    found = hits(engine.library, ranking, start, start + limit)
    return {"total": len(ids), "hits": hit_fields(engine.library, found)}


class _Kept:
    """The map as it was sent last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._mark: Hashable = None
        self._sent: _Sent | None = None

    def now(self, engine: Engine) -> _Sent | None:
        """Return the map, read again once the library or the map has changed; None without one."""
        model = engine.model()
        if model is None:
            return None
        with self._lock:
            mark = (engine.generation, _file_mark(engine, model))
            if mark != self._mark:
                found = current_map(engine.library)
                self._sent = None if found is None else _written(engine, found)
                # New pictures may have been saved: that is the same map.
                self._mark = (mark[0], _file_mark(engine, model))
            return self._sent


def _file_mark(engine: Engine, model: ModelRow) -> Hashable:
    return model.identity, file_mark(engine.folder, model.identity)


def _written(engine: Engine, found: PictureMap) -> _Sent:
    """Write what ``points`` describes."""
    count = len(found)
    part = np.arange(count) if count <= MOST else np.arange(MOST) * count // MOST
    ids = found.image_ids[part]
    rows = engine.library.rows(
        "SELECT id, substr(hash, 1, 4) FROM images WHERE id BETWEEN ? AND ? ORDER BY id",
        (int(ids[0]), int(ids[-1])) if len(ids) else (0, 0),
    )
    known = np.fromiter((number for number, _ in rows), np.int64, len(rows))
    marks = np.frombuffer(b"".join(mark for _, mark in rows), "<u4")
    is_there = np.isin(ids, known)
    ids, places = ids[is_there], found.positions[part][is_there]
    content = b"".join(
        (
            MAGIC,
            struct.pack("<I", len(ids)),
            ids.astype("<u4").tobytes(),
            marks[np.searchsorted(known, ids)].tobytes(),
            places[:, 0].astype("<u2").tobytes(),
            places[:, 1].astype("<u2").tobytes(),
            found.cluster_ids[part][is_there].astype("<u2").tobytes(),
        )
    )
    return _Sent(found, content, len(ids), hashlib.sha256(content).hexdigest()[:8])


def _sent(engine: Engine) -> _Sent | None:
    kept: _Kept = current_app.extensions["fovea.map_sent"]
    return kept.now(engine)


def _ready(engine: Engine) -> _Sent:
    """Return the map. Raise ``Problem`` 404 before it is laid out."""
    sent = _sent(engine)
    if sent is None:
        raise Problem(404, "Not Found", "the map is not laid out yet; POST /api/map lays it out")
    return sent


def _clusters(engine: Engine, clusters: tuple[Cluster, ...]) -> list[dict[str, Any]]:
    shown = [one for one in clusters if one.count]
    urls = thumbnail_urls(engine.library, [one.image_id for one in shown if one.image_id])
    return [
        {
            "id": one.id,
            "level": one.level,
            "parent": one.parent,
            "names": list(one.names),
            "names_zh": [in_chinese(name) for name in one.names],
            "count": one.count,
            "x": one.x,
            "y": one.y,
            "radius": one.radius,
            "thumbnail": urls.get(one.image_id or 0),
        }
        for one in shown
    ]
