"""The page: HTML in the reader's language, with the first hits included."""

import hashlib
import json
import posixpath
import re
import time
from functools import cache
from pathlib import Path
from typing import Any

from flask import (
    Blueprint,
    Flask,
    Response,
    current_app,
    render_template,
    request,
    send_from_directory,
)

from fovea.search.errors import FoveaError
from fovea.search.library.paths import printable
from fovea.web.contract.cookies import keep_cookie
from fovea.web.contract.problems import Problem, members
from fovea.web.engine.answers import ask, page
from fovea.web.engine.engine import current_engine

from .originals import shows_folders
from .search import QUERY, asked

__all__ = ["blueprint", "install", "language_of", "messages"]

blueprint = Blueprint("pages", __name__)

HERE = Path(__file__).parents[1]
LANGUAGES = {"en": "English", "zh-Hans": "简体中文"}
CHINESE = ("zh-Hans", "zh-CN", "zh-SG", "zh")  # how browsers name simplified Chinese
LANGUAGE_COOKIE = "fovea_language"
FIRST = 61  # hits in the page itself: the grid's first block, and the hit after it
YEAR_S = 365 * 24 * 3600
SHEETS = (  # of the search page, in the order in which they apply
    "base",
    "page",
    "results/grid",
    "results/detail",
    "showing/player",
    "results/selection",
    "library/indexing",
    "library/adding",
    "library/held",
    "help",
    "query/drop",
    "library/notice",
    "toast",
    "results/marks",
    "query/saved",
    "query/folders",
    "query/suggestions",
    "results/timeline",
    "showing/slideshow",
    "showing/print",
    "tagging/review",
)
IMPORT = re.compile(r'^import (?:.* from )?"(.+)";$', re.MULTILINE)


def install(app: Flask) -> None:
    """Give templates ``asset``, the URL of an asset, ``scripts``, and ``printable`` for names."""
    app.add_template_global(asset_url, "asset")
    app.add_template_global(_scripts, "scripts")
    app.add_template_filter(printable)


@blueprint.get("/")
def index() -> Response:
    """Return the search page; ``?lang=`` switches its language and stores the choice."""
    return _page("grid")


@blueprint.get("/map")
def map_page() -> Response:
    """Return the same page with the map in the place of the grid."""
    return _page("map")


@blueprint.get("/duplicates")
def duplicates_page() -> Response:
    """Return the same page with groups of copies, or with ``?kind=bursts`` of bursts."""
    return _page("duplicates")


def _page(view: str) -> Response:
    language = language_of(request.args.get("lang"))
    texts = messages(language)
    body = render_template(
        "index.html",
        language=language,
        languages=LANGUAGES.items(),
        messages=texts,
        view=view,
        query=request.args.get("q", "")[: QUERY.longest],
        longest=QUERY.longest,
        first=_first_hits(),
        read_only=not current_engine().is_writable,
        can_show=shows_folders(),
        _=texts.__getitem__,
    )
    response = current_app.response_class(body)
    response.headers["Vary"] = "Accept-Language, Cookie"
    response.headers["Content-Language"] = language
    if request.args.get("lang") in LANGUAGES:
        keep_cookie(response, request, LANGUAGE_COOKIE, language, YEAR_S)
    return response


@blueprint.get("/assets/<version>/<path:name>")
def asset(version: str, name: str) -> Response:
    """Return a static file; under the current version's URL, browsers may cache it for good."""
    return _lasting(version, send_from_directory(HERE / "static", name))


@blueprint.get("/assets/<version>/search-page.css")
def sheet(version: str) -> Response:
    """Return all style sheets of the search page in one answer: each takes the browser a while."""
    response = current_app.response_class(_joined_sheets(), mimetype="text/css")
    response.add_etag()
    response.make_conditional(request)
    return _lasting(version, response)


def _lasting(version: str, response: Response) -> Response:
    if version == _version():
        response.headers["Cache-Control"] = f"public, max-age={YEAR_S}, immutable"
    return response


def asset_url(name: str) -> str:
    """Return the URL of an asset; relative imports of scripts then load the same version."""
    return f"{request.script_root}/assets/{_version()}/{name}"


def language_of(chosen: str | None) -> str:
    """Return the language chosen now or earlier, else the one that the browser prefers."""
    for name in (chosen, request.cookies.get(LANGUAGE_COOKIE)):
        if name in LANGUAGES:
            return str(name)
    best = request.accept_languages.best_match(["en", *CHINESE], default="en")
    return "zh-Hans" if best in CHINESE else "en"


@cache
def messages(language: str) -> dict[str, str]:
    """Return the page's texts by key."""
    path = HERE / "translations" / f"{language.replace('-', '_')}.json"
    texts: dict[str, str] = json.loads(path.read_text("utf-8"))
    return texts


@cache
def _joined_sheets() -> bytes:
    folder = HERE / "static" / "css"
    return b"\n".join((folder / f"{name}.css").read_bytes() for name in SHEETS)


@cache
def _scripts() -> tuple[str, ...]:
    """Return what ``main.js`` imports, and what that does, so that the page loads all at once."""
    found: dict[str, None] = {}
    wanted = ["js/main.js"]
    while wanted:
        name = wanted.pop()
        text = (HERE / "static" / name).read_text("utf-8")
        others = [
            posixpath.normpath(posixpath.join(posixpath.dirname(name), other))
            for other in IMPORT.findall(text)
        ]
        wanted += [other for other in others if other not in found]
        found |= dict.fromkeys(others)
    return tuple(sorted(found))


@cache
def _version() -> str:
    """Return a digest of all assets, which changes with any of them."""
    digest = hashlib.sha256()
    for path in sorted((HERE / "static").rglob("*")):
        if path.is_file():
            digest.update(path.relative_to(HERE).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def _first_hits() -> dict[str, Any]:
    """Return the first page of hits, or the problem with the query."""
    started = time.perf_counter()
    try:
        engine = current_engine()
        return page(engine, ask(engine, asked()), 0, FIRST, started)
    except (FoveaError, Problem) as exc:
        return {"problem": members(exc)}
