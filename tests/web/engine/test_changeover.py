"""A served library changes its model: every request is answered by the one or by the other."""

import threading
from dataclasses import replace

import pytest

from fovea.indexer.scanning.scan import index_folders
from fovea.indexer.switching.switch import switch_model
from fovea.search.library.library import Library
from fovea.search.models.info import describe_model
from fovea.search.models.lazy import LazyEncoder
from fovea.search.query.likelihood import Background, default_labels
from fovea.search.query.measured import Measured, Signs, Worth
from fovea.web.app import create_app
from fovea.web.engine.engine import Engine
from small_clips import write_model
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


def test_what_was_measured_since_counts_for_the_next_answer(app, client, colour_library):
    model = colour_library.model()
    vectors = TolerantEncoder().encode_texts(default_labels())
    Background(model.identity, vectors, 30.0).save(colour_library.folder)
    assert client.get("/api/search?q=red").json["likely"] is None
    background = app.extensions["fovea"].background()
    assert app.extensions["fovea"].background() is background, "read once"
    words = Signs((1.0, 0.5, 0.5), -1.0, 0.1, Worth(0.9, 0.5, 400))
    signs = Measured(model.identity, (0.0,) * model.dim, words)
    replace(background, signs=signs).save(colour_library.folder)  # as ``fovea index`` does
    assert client.get("/api/search?q=red").json["likely"] is not None


def test_a_model_that_was_never_measured_embeds_no_labels(tmp_path, photos, monkeypatch):
    monkeypatch.setattr("fovea.web.engine.engine.TORCH_AFTER_S", 0.0)
    monkeypatch.setattr(Background, "of", None)
    write_model(tmp_path / "model", with_line=False)
    model = describe_model(tmp_path / "model", "model", str(tmp_path / "model"))
    with Library.open(tmp_path / "library", create=True) as library:
        index_folders(library, [photos], model=model, load_encoder=model.load, workers=1)
    engine = Engine(tmp_path / "library", ahead=True)
    engine._make_background(model.identity)
    assert engine.background() is None
    engine.close()


def test_everything_that_runs_is_closed_at_the_same_time(tmp_path):
    engine, both = Engine(tmp_path / "library", ahead=False), threading.Barrier(2)
    for _ in range(2):
        engine.on_close(lambda: both.wait(60))  # each waits for the other
    engine.close()
    assert not both.broken


def test_a_page_of_a_former_answer_comes_from_the_new_one(app, client, colour_library):
    cursor = client.get("/api/search?q=red&limit=3").json["cursor"]
    switch(colour_library)
    page = client.get(f"/api/search?q=red&limit=3&cursor={cursor}").json
    assert page["model"] == "model-d1" and len(page["hits"]) == 3
    assert client.get(f"/api/search?cursor={cursor}").status_code == 410
