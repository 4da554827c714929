"""What is looked for in pictures is counted in the state of the library, and switched."""

import pytest

from commands import run
from fovea.indexer.analysing import accounts
from fovea.indexer.analysing.text import ANALYSIS
from fovea.indexer.decoding.formats import VIDEO_REASON
from fovea.search.analyses.stored import Done, store
from fovea.search.library.rows import FileWrite, WriteBatch
from fovea.web.engine import kept_accounts

COUNTS = ("places", "tags", "videos", "analyses", "mapped")


@pytest.fixture
def read(app):
    """The library of the eight photos: text was looked for in three, and one failed."""
    library = app.extensions["fovea"].library
    done = [Done(1, []), Done(2, []), Done(3, reason="broken")]
    store(library, "text", ANALYSIS.version, done, lambda conn, image_id, result: None)
    with library.transaction() as conn:
        conn.execute("UPDATE images SET latitude = 38.7, longitude = -9.1 WHERE id < 3")
    return library


def test_the_state_has_the_counts_of_fovea_status(client, read):
    status = client.get("/api/status").json
    assert status["places"]["located"] == 2 and status["places"]["looked_up"] == 0
    assert status["tags"] == {"tags": 0, "taught": 0, "pictures": 0, "said": 0, "waiting": 0}
    assert status["analyses"]["copies"]["pending"] == 8
    text = status["analyses"]["text"]
    assert (text["done"], text["failed"], text["pending"], text["off"]) == (2, 1, 5, False)
    assert status["mapped"] is None
    told = run("status", "--json", "--library", read.folder).json
    assert {name: status[name] for name in COUNTS} == {name: told[name] for name in COUNTS}


def test_the_state_says_what_to_install(client, read, photos, monkeypatch):
    [root] = read.roots()
    film = FileWrite(bytes(photos / "a.mp4"), root.id, 1, 1, None, "skipped", VIDEO_REASON)
    read.write_batch(WriteBatch(files=[film]))
    monkeypatch.setattr(accounts, "video_available", lambda: False)
    monkeypatch.setattr(accounts, "data_version", lambda: None)
    monkeypatch.setattr(type(ANALYSIS), "missing", lambda self: "pip install 'fovea[ocr]'")
    status = client.get("/api/status").json
    assert status["videos"] == {
        "videos": 0, "moments": 0, "waiting": 1, "missing": "pip install 'fovea[video]'",
    }  # fmt: skip
    assert status["places"]["missing"] == "pip install 'fovea[places]'"
    assert status["analyses"]["text"]["missing"] == "pip install 'fovea[ocr]'"


def test_what_is_switched_off_is_forgotten_and_looked_for_again(client, read, scans):
    answer = client.put("/api/analyses", json={"text": False, "places": False})
    assert (answer.status_code, answer.json["places"]) == (200, None)
    off = answer.json["analyses"]["text"]
    assert (off["done"], off["pending"], off["off"]) == (0, 0, True)
    assert answer.json["analyses"]["copies"]["off"] is False
    assert scans.analysed == 0
    status = client.get("/api/status").json
    assert status["places"] is None and status["analyses"] == answer.json["analyses"]
    answer = client.put("/api/analyses", json={"text": True})
    on = answer.json["analyses"]["text"]
    assert (on["done"], on["pending"], on["off"], scans.analysed) == (0, 8, False, 1)
    assert answer.json["places"] is None


def test_places_are_looked_up_as_they_are_switched_on(client, read, scans, monkeypatch):
    looked = []
    monkeypatch.setattr(
        "fovea.web.views.analysing.switches.place_pictures",
        lambda library, stop: looked.append(accounts.place_counts(library).is_off),
    )
    client.put("/api/analyses", json={"places": False})
    assert looked == []
    answer = client.put("/api/analyses", json={"places": True})
    assert answer.json["places"]["located"] == 2
    assert (looked, scans.analysed) == ([False], 0)


@pytest.mark.parametrize(
    "body", [{}, {"text": 1}, {"text": None}, {"text": "off"}, {"smell": True}, {"on": True}]
)
def test_other_switches_are_refused(client, read, scans, body):
    before = client.get("/api/status").json
    answer = client.put("/api/analyses", json=body)
    assert answer.status_code == 400 and answer.json["detail"]
    assert client.get("/api/status").json == before


def test_a_large_library_is_not_counted_at_each_look(client, app, monkeypatch):
    counted, real = [], accounts.Accounts.of

    def of(library):
        counted.append(1)
        return real(library)

    monkeypatch.setattr(kept_accounts.Accounts, "of", of)
    library = app.extensions["fovea"].library
    for _ in range(3):
        client.get("/api/status")
    assert len(counted) == 1
    monkeypatch.setattr(kept_accounts, "QUICK_S", -1.0)  # whatever counting takes is long
    monkeypatch.setattr(kept_accounts, "SHARE", 10**9)
    with library.transaction() as conn:
        conn.execute("UPDATE images SET latitude = 1, longitude = 1")
    client.get("/api/status")
    with library.transaction() as conn:
        conn.execute("UPDATE images SET latitude = NULL")
    assert client.get("/api/status").json["places"]["located"] == 8
    assert len(counted) == 2
    client.put("/api/analyses", json={"copies": False})
    assert client.get("/api/status").json["analyses"]["copies"]["off"] is True
