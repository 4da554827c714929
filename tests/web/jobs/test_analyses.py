"""A server analyses pictures in the background, and keeps what it knows of them meanwhile."""

from pathlib import Path

import pytest
from PIL import Image

from fovea.indexer.analysing import kinds
from fovea.web.jobs import scans as module
from toys import COLOURS
from worker_programs import INDEXING, running_instead, until

STAND_IN = Path(__file__).parents[2] / "indexer" / "analysing"


@pytest.fixture
def engine(app, monkeypatch):
    """The engine of an app, in which one kind of analysis runs by itself: a stand-in."""
    monkeypatch.syspath_prepend(str(STAND_IN))
    monkeypatch.setattr(kinds, "KINDS", {"mean": "stand_in"})
    monkeypatch.setenv(kinds.VARIABLE, "mean")
    engine = app.extensions["fovea"]
    engine.library.conn.execute("CREATE TABLE means (image_id INTEGER PRIMARY KEY, colour TEXT)")
    return engine


def analysed(engine):
    [(count,)] = engine.library.rows("SELECT count(*) FROM means")
    return count


def test_what_waits_is_analysed_and_nothing_else_is_read_anew(app, engine):
    generation, since = engine.generation, engine.pictures_since
    client = app.test_client()
    assert client.get("/api/status").json["analysing"] is False
    app.extensions["fovea.scans"].analyse()
    assert client.get("/api/status").json["analysing"] is True
    assert until(lambda: analysed(engine) == len(COLOURS))
    assert until(lambda: not client.get("/api/status").json["analysing"])
    until(lambda: engine.generation != generation)
    assert engine.pictures_since == since


def test_new_pictures_are_analysed_after_their_scan(client, engine, photos, monkeypatch):
    monkeypatch.setattr(module, "command", running_instead(INDEXING))
    Image.new("RGB", (40, 30), "orange").save(photos / "orange.png")
    assert client.post("/api/scans", json={"root": None}).status_code == 202
    assert until(lambda: analysed(engine) == len(COLOURS) + 1)


def test_a_server_that_closes_waits_for_no_picture(app, engine, photos):
    scans = app.extensions["fovea.scans"]
    scans.analyse()
    scans.close()
    scans.analyse()
    assert scans._analyses._thread is None or not scans._analyses._thread.is_alive()
