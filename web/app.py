"""Build the web app."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from flask import Flask
from werkzeug.routing import IntegerConverter

from fovea.search.library.rows import ModelRow
from fovea.search.models.lazy import LazyEncoder
from fovea.web.contract.problems import show_problems
from fovea.web.engine.cluster import ClusterEngine, engine_of
from fovea.web.serving.conditional import Conditional
from fovea.web.serving.proxies import Proxies
from fovea.web.serving.request_limits import InMemory, show_refusals
from fovea.web.serving.security import LOOPBACK, is_here, protect

from .contract import describe, openapi
from .jobs import events, model_changes, scans
from .views import (
    clip_retrieval,
    duplicates,
    exports,
    facets,
    images,
    marks,
    originals,
    pages,
    roots,
    search,
    searches,
    status,
    thumbnails,
    uploads,
)
from .views.analysing import switches
from .views.asking import suggest
from .views.mapping import maps
from .views.tagging import labels, tags

__all__ = ["create_app"]

PARTS = (  # in the order in which the API is described
    search,
    duplicates,
    facets,
    images,
    roots,
    status,
    switches,
    exports,
    clip_retrieval,
    openapi,
    originals,
    pages,
    scans,
    model_changes,
    events,
    thumbnails,
    marks,
    searches,
    suggest,
    tags,
    labels,
    maps,
    uploads,
)
BODY_BYTES = 1 << 20  # routes that take pictures raise this themselves


class RowId(IntegerConverter):
    """A row id in an address, small enough for SQLite."""

    regex = r"[0-9]{1,18}"


def create_app(
    library_folder: Path,
    *,
    model: str | None = None,
    token: str | None = None,
    hosts: Iterable[str] = LOOPBACK,
    proxies: Iterable[str] = (),
    prefix: str = "",
    is_at_home: bool = False,
    encoder_of: Callable[[ModelRow], LazyEncoder] | None = None,
    testing: bool = False,
    **settings: Any,
) -> Flask:
    """Build the web app for the library in this folder, which is created if it is missing.

    The address of a library on Milvus may stand in its place.

    ``hosts`` are the names allowed in a request's Host header; with a ``token``, requests must
    present it. ``proxies`` are addresses and networks whose X-Forwarded headers are believed;
    with some and no token, only they are answered. ``prefix`` is the path under which clients see
    the app, such as ``/photos``. ``is_at_home`` says that only this machine can connect: then its
    requests may open the file manager. Raise ``FoveaError`` for an address or prefix that is not
    valid.
    """
    outside = Proxies(proxies, prefix)
    app = Flask("fovea.web")
    app.config.update(
        {
            "MAX_CONTENT_LENGTH": BODY_BYTES,
            "MAX_FORM_MEMORY_SIZE": BODY_BYTES,
            "MAX_FORM_PARTS": 100,
            "TESTING": testing,
            "PROPAGATE_EXCEPTIONS": False,
        }
        | settings
    )
    app.url_map.converters["int"] = RowId
    app.request_class, app.response_class = InMemory, Conditional
    app.json.compact = True  # type: ignore[attr-defined]
    app.json.sort_keys = False  # type: ignore[attr-defined]
    for part in PARTS:
        app.register_blueprint(part.blueprint)
    outside.install(app)
    engine = engine_of(library_folder, model=model, encoder_of=encoder_of, ahead=not testing)
    app.extensions["fovea"] = engine
    app.extensions["fovea.may_show"] = lambda asked: is_at_home and is_here(asked)
    show_problems(app)
    show_refusals(app)
    only_by_proxy = token is None and bool(outside.networks)
    protect(app, names=hosts, token=token, only_by_proxy=only_by_proxy)
    if isinstance(engine, ClusterEngine):
        engine.install(app)
    describe.install(app)
    for part in PARTS:
        if install := getattr(part, "install", None):
            install(app)
    return app
