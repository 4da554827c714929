"""A library that cannot be written is served: every route answers, and what must write says so."""

import io
import json
import os
import re
import shutil

import pytest
from PIL import Image

from fovea.search.index.view import snapshot_path
from fovea.search.library.library import DATABASE, Library
from fovea.web.app import create_app
from fovea.web.views.pages import asset_url, messages
from places import read_only
from toys import TolerantEncoder, lazily

ARGUMENTS = {"image_id": "1", "root_id": "1"}
WRITES = {
    ("POST", "/api/roots"),
    ("DELETE", "/api/roots/<int:root_id>"),
    ("POST", "/api/scans"),
    ("POST", "/api/model"),
    ("POST", "/api/map"),
    *(
        (method, f"/api/images/<int:image_id>/{mark}")
        for method in ("PUT", "DELETE")
        for mark in ("favourite", "hidden")
    ),
    ("POST", "/api/marks"),
    ("PUT", "/api/marks"),
    ("POST", "/api/searches"),
    ("PUT", "/api/searches/<int:search_id>"),
    ("DELETE", "/api/searches/<int:search_id>"),
    ("POST", "/api/tags"),
    ("PUT", "/api/tags/<int:tag_id>"),
    ("DELETE", "/api/tags/<int:tag_id>"),
    ("PUT", "/api/analyses"),
    ("PUT", "/api/labels"),
    ("DELETE", "/api/labels"),
}


@pytest.fixture(params=["closed", "copy of a live one"])
def place(request, colour_library, tmp_path, monkeypatch):
    """The folder of a library of eight photographs, read-only."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    place = colour_library.folder
    if request.param == "closed":
        colour_library.close()
    else:
        place = tmp_path / "copy"
        place.mkdir()
        for name in (DATABASE, f"{DATABASE}-wal"):
            shutil.copyfile(colour_library.folder / name, place / name)
        assert (place / f"{DATABASE}-wal").stat().st_size
    with read_only(place):
        yield place


@pytest.fixture
def served(place):
    encoder = TolerantEncoder()
    shared = lazily(encoder)
    made = create_app(place, encoder_of=lambda row: shared, testing=True)
    yield made
    made.extensions["fovea"].close()


@pytest.fixture
def client(served):
    return served.test_client()


def picture():
    file = io.BytesIO()
    Image.new("RGB", (32, 24), "red").save(file, "PNG")
    return file.getvalue()


def bodies(path, photos, method):
    """What to send to each route that takes something."""
    if (method, path) == ("PUT", "/api/marks"):
        return {"json": {"fovea": 1, "favourites": [{"sha256": "0" * 64}]}}
    return {
        "/api/roots": {"json": {"path": str(photos)}},
        "/api/scans": {"json": {}},
        "/api/model": {"json": {"name": "fovea-small"}},
        "/api/exports": {"json": {"ids": [1, 2], "format": "zip"}},
        "/api/selections": {"json": {"query": ""}},
        "/api/search": {"data": {"q": "red", "image": (io.BytesIO(picture()), "red.png")}},
        "/knn-service": {"json": {"text": "red"}},
        "/metadata": {"json": {"ids": [1]}},
        "/api/marks": {"json": {"ids": [1], "favourite": True}},
        "/api/searches": {"json": {"name": "Red", "query": "red"}},
        "/api/analyses": {"json": {"text": False, "places": True}},
        "/api/labels": {"json": {"labels": "shipped"}},
        "/api/tags": {"json": {"name": "rex", "yes": [1]}},
        "/api/tags/<int:tag_id>": {"json": {"name": "Rex"}},
        "/api/searches/<int:search_id>": {"json": {"name": "Red", "query": "red"}},
    }.get(path, {})


def test_every_route_answers_and_nothing_is_written(served, client, photos):
    answered = {}
    with served.test_request_context():
        asset = asset_url("icon.svg")
    for rule in served.url_map.iter_rules():
        for method in sorted(rule.methods - {"OPTIONS"}):
            place = asset if rule.endpoint == "pages.asset" else rule.rule
            place = re.sub(r"<(?:\w+:)?(\w+)>", lambda name: ARGUMENTS.get(name[1], "1"), place)
            body = {} if method in ("GET", "HEAD", "DELETE") else bodies(rule.rule, photos, method)
            is_stream = rule.rule == "/api/events"
            response = client.open(place, method=method, buffered=not is_stream, **body)
            answered[method, rule.rule] = response.status_code
            if is_stream and method == "GET":
                assert next(response.response).startswith(b"retry")
            if (method, rule.rule) in WRITES:
                problem = response.get_json()
                assert (response.status_code, problem["code"]) == (403, "read_only"), place
                assert "is read-only; check its permissions" in problem["detail"]
                assert "\n" not in problem["detail"]
            response.close()
    assert set(answered) >= WRITES
    assert {place: status for place, status in answered.items() if status >= 500} == {}
    good = {rule for (_, rule), status in answered.items() if status < 400}
    assert good >= {
        "/", "/api/docs", "/api/events", "/api/exports", "/api/facets", "/api/failures",
        "/api/images/<int:image_id>/thumbnail", "/api/roots", "/api/search", "/api/status",
    }, answered  # fmt: skip


def test_the_state_says_that_it_is_read_only(client, place):
    assert client.get("/api/status").get_json()["read_only"] is True
    state = client.get("/api/model").get_json()
    assert state["better"] is None, "no change is offered that cannot be made"


@pytest.mark.parametrize("language", ["en", "zh-Hans"])
def test_the_page_says_so_and_offers_no_change(client, language):
    page = client.get(f"/?lang={language}").get_data(as_text=True)
    assert "<body data-read-only>" in page
    assert messages(language)["library.read_only"] in page
    assert 'data-part="add" novalidate hidden' in page


def test_the_page_of_a_writable_library_offers_everything(colour_library):
    app = create_app(colour_library.folder, testing=True)
    client = app.test_client()
    page = client.get("/").get_data(as_text=True)
    assert "<body>" in page and "novalidate hidden" not in page
    assert messages("en")["library.read_only"] not in page.partition('id="messages"')[0]
    assert client.get("/api/status").get_json()["read_only"] is False
    app.extensions["fovea"].close()


def test_thumbnails_are_kept_in_the_users_cache(served, client, place, tmp_path):
    first = client.get("/api/images/1/thumbnail")
    assert first.status_code == 200
    kept = list((tmp_path / "cache" / "fovea" / "thumbnails").rglob("*.webp"))
    assert len(kept) == 2 and first.data in [path.read_bytes() for path in kept]
    kept[0].parent.joinpath(kept[0].name).write_bytes(b"damaged")
    assert client.get("/api/images/1/thumbnail").data == first.data


def test_thumbnails_are_made_where_no_cache_can_be_kept(served, client, tmp_path, caplog):
    (tmp_path / "cache").write_text("not a folder")
    for image in (1, 2, 1):
        assert client.get(f"/api/images/{image}/thumbnail").status_code == 200
    [told] = [text for text in caplog.messages if "thumbnails" in text]
    assert told.startswith("thumbnails are made but not kept: ")


def test_what_the_owner_adds_is_found(photos, colour_library, add_file, monkeypatch):
    """The library is another user's: here it can only be read, and meanwhile it changes."""
    folder, [root], real = colour_library.folder, colour_library.roots(), os.access
    colour_library.close()
    monkeypatch.setattr("fovea.search.library.access.os.access", lambda path, mode: False)
    monkeypatch.setattr("fovea.web.engine.engine.LOOK_S", 0.0)
    app = create_app(folder, encoder_of=lambda row: None, testing=True)
    client, engine = app.test_client(), app.extensions["fovea"]
    assert client.get("/api/status").get_json()["images"] == 8
    before = engine.generation
    with monkeypatch.context() as owner:
        owner.setattr("fovea.search.library.access.os.access", real)
        Image.new("RGB", (9, 9), "#123456").save(photos / "new.png")
        with Library.open(folder) as library:
            add_file(library, root.id, photos / "new.png")
    assert engine.generation != before
    assert client.get("/api/search?q=").get_json()["total"] == 9
    assert len(client.get("/api/search?q=like:1").get_json()["hits"]) == 9
    status = client.get("/api/status").get_json()
    assert (status["images"], status["index"]["embeddings"]) == (9, 9)
    app.extensions["fovea"].close()


def test_what_the_owner_changes_is_kept_for_no_later_answer(
    photos, colour_library, add_file, monkeypatch
):
    """Each thread has a connection of its own, which would notice only after a while."""
    folder, [root], real = colour_library.folder, colour_library.roots(), os.access
    colour_library.close()
    monkeypatch.setattr("fovea.search.library.access.os.access", lambda path, mode: False)
    monkeypatch.setattr("fovea.web.engine.engine.LOOK_S", 3600.0)
    app = create_app(folder, encoder_of=lambda row: None, testing=True)
    client = app.test_client()

    def counted():
        [folder] = client.get("/api/roots").json["roots"]
        listed = client.get("/api/facets").json["folders"]
        return (
            client.get("/api/search?q=").json["total"],
            client.get("/api/search?q=like:1").json["total"],
            client.get("/api/status").json["images"],
            folder["images"],
            *(entry["count"] for entry in listed),
        )

    assert counted() == (8, 8, 8, 8, 8)
    for number in range(9, 15):
        with monkeypatch.context() as owner:
            owner.setattr("fovea.search.library.access.os.access", real)
            Image.new("RGB", (9, number), "#123456").save(photos / f"new {number}.png")
            with Library.open(folder) as library:
                add_file(library, root.id, photos / f"new {number}.png")
        assert counted() == (number,) * 5
    app.extensions["fovea"].close()


def test_a_snapshot_in_the_library_is_used(colour_library, tmp_path):
    from fovea.search.index.vector_index import IndexOptions, VectorIndex

    model = colour_library.model()
    VectorIndex.open(colour_library, model.id, options=IndexOptions(at_once=1))
    assert snapshot_path(colour_library, model.id).exists()
    place = colour_library.folder
    colour_library.close()
    with read_only(place):
        app = create_app(place, encoder_of=lambda row: None, testing=True)
        fields = app.test_client().get("/api/status").get_json()["index"]
        app.extensions["fovea"].close()
    assert json.dumps(fields) == '{"kind": "exhaustive", "embeddings": 8, "recall": 1.0}'
