"""A served library changes its model: every request is answered by the one or by the other."""

import threading

import pytest

from fovea.indexer.switching.switch import switch_model
from fovea.search.models.lazy import LazyEncoder
from fovea.web.app import create_app
from toys import NEW, TolerantEncoder, WideEncoder, described


@pytest.fixture
def app(colour_library):
    """The web app over the eight photos, with the encoder of whichever model answers."""

    def encoder_of(row):
        encoder = WideEncoder() if row.identity == NEW else TolerantEncoder()
        return LazyEncoder(
            row.name, row.identity, row.dim, encoder.preprocess,
            open_words=lambda: encoder, load=lambda: encoder,
        )  # fmt: skip

    made = create_app(colour_library.folder, encoder_of=encoder_of, testing=True)
    yield made
    made.extensions["fovea"].close()


def switch(library):
    report = switch_model(library, model=described(NEW), load_encoder=WideEncoder, workers=1)
    assert report.switched


def test_searches_go_on_and_flip_at_once(app, client, colour_library):
    before = client.get("/api/search?q=red").json
    switch(colour_library)
    after = client.get("/api/search?q=red").json
    assert (before["model"], after["model"]) == ("colour", "model-d1")
    assert before["hits"][0]["name"] == after["hits"][0]["name"] == "red.png"
    assert after["total"] == 8
    assert client.get("/api/status").json["model"] == "model-d1"


def test_one_request_knows_one_model(app, client, colour_library):
    engine = app.extensions["fovea"]
    client.get("/api/search?q=red")
    with app.test_request_context():
        before = engine.model()
        switch(colour_library)
        seen = []
        other = threading.Thread(
            target=lambda: seen.append(client.get("/api/search?q=red").json["model"])
        )
        other.start()
        other.join()
        assert seen == ["model-d1"]
        assert engine.model() == before
        assert engine.index().model == before and engine.encoder().identity == before.identity
    assert client.get("/api/search?q=red").json["model"] == "model-d1"


def test_a_former_model_is_let_go_in_time(app, client, colour_library, monkeypatch):
    monkeypatch.setattr("fovea.web.engine.engine.FORMER_S", 0.0)
    engine = app.extensions["fovea"]
    client.get("/api/search?q=red")
    switch(colour_library)
    client.get("/api/search?q=red")
    client.get("/api/search?q=blue")
    assert engine._former_index is None and engine._former_encoder is None


def test_a_page_of_a_former_answer_comes_from_the_new_one(app, client, colour_library):
    cursor = client.get("/api/search?q=red&limit=3").json["cursor"]
    switch(colour_library)
    page = client.get(f"/api/search?q=red&limit=3&cursor={cursor}").json
    assert page["model"] == "model-d1" and len(page["hits"]) == 3
    assert client.get(f"/api/search?cursor={cursor}").status_code == 410
