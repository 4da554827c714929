"""Changing the model while the server runs: what the API says, and the process that does it."""

import json
import shutil
import sqlite3
from contextlib import closing

import pytest

import fovea
import fovea.data as data
from coloured import COLOURS, encoded
from fovea.search.errors import LibraryError
from fovea.search.library.library import Library
from fovea.search.maintenance.changeover import activate, changing, next_model, set_next_model
from fovea.search.models import installed
from fovea.web.app import create_app
from fovea.web.jobs import model_changes as module
from fovea.web.jobs import process
from fovea.web.jobs.model_worker import _code
from shipped_models import (
    FORMER_NAME,
    RESOLVED,
    WEIGHTS,
    parts,
    serving_recommended,
    ship_before,
    ship_now,
    write_editions,
)
from small_clips import write_model
from worker_programs import running_instead, until

# A process that says what it is told to, then waits to be told to end.
TALKING = """
import json, sys
asked = json.loads(sys.stdin.readline())
def say(**said): print(json.dumps(said), flush=True)
print("not JSON", flush=True)
say(downloading={"bytes": 5, "total_bytes": 20})
sys.stdin.readline()
say(embedding={"images": 8, "embedded": 2, "rate": 3.0, "waiting": None})
told = sys.stdin.readline()
say(report={"switched": told == "", "stopped": told != ""})
"""
FALLING = "import os; os._exit(3)"
LEAVING = """
import json
print(json.dumps({"report": {"switched": False, "stopped": False, "superseded": False,
                             "unreachable": 1200, "changed": 0, "failed": 2}}))
"""


def change_of(client):
    return client.get("/api/model").json["change"]


def ended(client):
    states = ("starting", "downloading", "embedding")
    return until(lambda: (c := change_of(client))["state"] not in states and c)


# What the API says


def test_a_model_of_ones_own_is_offered_no_other(client):
    found = client.get("/api/model").json
    assert found == {"model": "colour", "bundled": None, "better": None, "change": None}
    assert client.delete("/api/model/change").status_code == 202


@pytest.mark.parametrize(
    "name", ["nothing", "owner/name", "~nobody", "/etc", "./x", "https://models.example/a.zip", " "]
)
def test_only_models_that_are_known_by_name_are_fetched(client, monkeypatch, name):
    monkeypatch.setattr(module, "command", None)  # nothing is started
    response = client.post("/api/model", json={"name": name})
    assert (response.status_code, response.mimetype) == (422, "application/problem+json")
    assert (response.json["code"], response.json["params"]) == ("model.unknown", {"name": name})
    assert "choose fovea-small, RN50" in response.json["detail"]


@pytest.mark.parametrize(
    ("name", "proper"),
    [("vit-b/32", "ViT-B/32"), ("vit-b/32@256px", "ViT-B-32-256"), ("FOVEA-SMALL", "fovea-small"),
     ("Colour", "colour")],
)  # fmt: skip
def test_a_model_is_named_as_on_the_command_line(client, monkeypatch, name, proper):
    monkeypatch.setattr(module, "command", running_instead(FALLING))
    response = client.post("/api/model", json={"name": name})
    assert (response.status_code, response.json["change"]["model"]) == (202, proper)
    change = ended(client)
    assert (change["state"], change["code"]) == ("failed", "unexpected")
    assert "ended unexpectedly (exit code 3); try again" in change["message"]


@pytest.mark.parametrize("body", [{}, {"name": 3}, {"name": "x" * 201}, {"name": "a", "b": 1}, []])
def test_a_malformed_request_starts_nothing(client, body):
    assert client.post("/api/model", json=body).status_code == 400
    assert change_of(client) is None


@pytest.mark.parametrize(
    ("headers", "status"),
    [({"Origin": "http://evil.example"}, 403), ({"Sec-Fetch-Site": "cross-site"}, 403),
     ({"Host": "evil.example"}, 421)],
)  # fmt: skip
def test_pages_of_other_sites_change_nothing(client, headers, status):
    for send in (client.post, client.delete):
        place = "/api/model" if send == client.post else "/api/model/change"
        assert send(place, json={"name": "ViT-B/32"}, headers=headers).status_code == status
    assert change_of(client) is None


def test_the_token_is_needed(colour_library):
    app = create_app(colour_library.folder, token="secret", testing=True)
    client = app.test_client()
    assert client.get("/api/model").status_code == 401
    assert client.post("/api/model", json={"name": "ViT-B/32"}).status_code == 401
    assert client.delete("/api/model/change").status_code == 401
    headers = {"Authorization": "Bearer secret"}
    assert client.get("/api/model", headers=headers).json["change"] is None
    app.extensions["fovea"].close()


def test_progress_is_shown_and_a_change_can_be_cancelled(client, app, monkeypatch):
    monkeypatch.setattr(module, "command", running_instead(TALKING))
    change = client.post("/api/model", json={"name": "ViT-B/32"}).json["change"]
    assert (change["id"], change["state"], change["model"]) == (1, "starting", "ViT-B/32")
    change = until(lambda: (c := change_of(client))["bytes"] and c)
    assert (change["bytes"], change["total_bytes"], change["images"]) == (5, 20, 0)
    assert change["state"] == "downloading"
    again = client.post("/api/model", json={"name": "vit-b-32"})
    assert (again.status_code, again.json["change"]["id"]) == (202, 1)
    other = client.post("/api/model", json={"name": "RN50"})
    assert other.status_code == 409 and "is changing to ViT-B/32" in other.json["detail"]
    assert (other.json["code"], other.json["params"]) == ("model.changing", {"model": "ViT-B/32"})
    app.extensions["fovea.changes"].cancel()  # which moves this process on
    change = until(lambda: (c := change_of(client))["state"] == "embedding" and c)
    assert (change["images"], change["embedded"], change["seconds_left"]) == (8, 2, 2.0)
    assert client.delete("/api/model/change").status_code == 202
    assert ended(client)["state"] == "stopped"
    assert client.post("/api/model", json={"name": "RN50"}).json["change"]["id"] == 2


def test_pictures_that_are_left_out_are_counted(client, monkeypatch):
    monkeypatch.setattr(module, "command", running_instead(LEAVING))
    client.post("/api/model", json={"name": "ViT-B/32"})
    change = ended(client)
    assert (change["state"], change["code"]) == ("failed", "pictures")
    assert "(1,200 unreachable, 2 damaged)" in change["message"]


@pytest.mark.parametrize(
    ("changed", "failed", "said"),
    [(0, 0, None), (0, 1, "1 picture has changed, or cannot"), (1000, 2, "1,002 pictures have")],
)
def test_pictures_that_a_new_model_has_left_out_are_scanned(
    app, client, monkeypatch, changed, failed, said
):
    scanned = []
    monkeypatch.setattr(app.extensions["fovea.scans"], "start", lambda: scanned.append(True))
    report = {"switched": True, "stopped": False, "changed": changed, "failed": failed}
    program = f"print({json.dumps({'report': report})!r})"
    monkeypatch.setattr(module, "command", running_instead(program))
    client.post("/api/model", json={"name": "ViT-B/32"})
    change = ended(client)
    assert (change["state"], change["left_out"]) == ("done", changed + failed)
    assert change["message"] is None if said is None else change["message"].startswith(said)
    if said is not None:
        until(lambda: scanned)
    assert len(scanned) == (said is not None)


def test_a_change_that_another_one_has_replaced_says_so(client, monkeypatch):
    report = {"switched": False, "stopped": False, "superseded": True}
    program = f"print({json.dumps({'report': report})!r})"
    monkeypatch.setattr(module, "command", running_instead(program))
    client.post("/api/model", json={"name": "ViT-B/32"})
    change = ended(client)
    assert (change["state"], change["code"]) == ("stopped", "superseded")
    assert "another change of model has been started" in change["message"]


def test_a_model_of_the_library_is_asked_for_by_its_identity(client, colour_library, monkeypatch):
    asked = []

    def refuse(command, wanted):
        asked.append((wanted["name"], wanted["identity"]))
        raise OSError(5, "no")

    monkeypatch.setattr(module, "start", refuse)
    colour_library.add_model("vitb32", "b" * 64, 3, "/home/me/vitb32")  # not OpenAI's
    for name in ("VITB32", "b" * 6, "ViT-B-32"):
        assert client.post("/api/model", json={"name": name}).status_code == 202
    assert asked == [("vitb32", "b" * 64), ("vitb32", "b" * 64), ("ViT-B/32", None)]
    colour_library.add_model("vitb32", "c" * 64, 3, "/home/me/new/vitb32")
    response = client.post("/api/model", json={"name": "vitb32"})
    assert response.status_code == 400 and "2 models of" in response.json["detail"]
    assert len(asked) == 3


def test_a_change_ends_with_the_server(app, client, monkeypatch):
    monkeypatch.setattr(module, "command", running_instead("import time; time.sleep(600)"))
    monkeypatch.setattr(process, "PATIENCE_S", 0.1)
    client.post("/api/model", json={"name": "ViT-B/32"})
    app.extensions["fovea.changes"].close()
    assert until(lambda: change_of(client)["state"] == "failed")


# The process


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A library with the bundled model, for which a small one stands."""
    folder = tmp_path_factory.mktemp("made")
    write_model(folder / "bundled")
    (folder / "photos").mkdir()
    for number, colour in enumerate(COLOURS):
        (folder / "photos" / f"{colour}.png").write_bytes(encoded(colour, number))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FOVEA_MODELS", str(folder / "models"))
        patch.setattr(installed, "bundled_model", lambda: folder / "bundled")
        with fovea.Library.open(folder / "library", create=True) as library:
            library.index(folder / "photos", workers=1)
    return folder


@pytest.fixture
def server(made, tmp_path, monkeypatch):
    """A client of the app for a copy of the library, and the hub that it downloads from."""
    monkeypatch.setattr(installed, "bundled_model", lambda: made / "bundled")
    shutil.copytree(made / "library", tmp_path / "library")
    with serving_recommended(tmp_path, monkeypatch) as hub:
        app = create_app(tmp_path / "library", testing=True)
        client = app.test_client()
        client.hub = hub
        yield client
        app.extensions["fovea"].close()


def folder_of(client):
    return client.application.extensions["fovea"].folder


def begin(client):
    return client.post("/api/model", json={"name": "ViT-B-32-256"})


def model_of_answers(client):
    answer = client.get("/api/search?q=the+dog").json
    return answer["model"], len(answer["hits"])


def test_a_better_model_is_fetched_embedded_and_activated(server):
    state = server.get("/api/model").json
    assert state["better"] == {"name": "ViT-B-32-256", "bytes": 605_000_000}
    hub = server.hub
    size = len(hub.files[WEIGHTS])
    hub.stall_after, hub.stalls = size // 2, 1
    begin(server)
    change = until(lambda: (c := change_of(server))["bytes"] and c)
    assert (change["state"], change["total_bytes"]) == ("downloading", size)
    assert 0 < change["bytes"] <= size // 2
    assert model_of_answers(server) == ("fovea-small", len(COLOURS)), "the present one answers"
    hub.released.set()  # the connection breaks, and the rest is asked for
    change = ended(server)
    assert (change["state"], change["message"]) == ("done", None)
    assert (change["embedded"], change["images"]) == (len(COLOURS), len(COLOURS))
    assert parts(hub) == [f"bytes={size // 2}-"]
    assert model_of_answers(server) == ("ViT-B-32-256", len(COLOURS))
    state = server.get("/api/model").json
    assert (state["model"], state["better"]) == ("ViT-B-32-256", None)


def test_an_offer_is_not_kept_for_a_model_that_came_meanwhile(server, monkeypatch):
    engine = server.application.extensions["fovea"]
    remembered = engine.remembered

    def late(name, make):
        with Library.open(engine.folder) as other:
            model = other.add_model("own", "a" * 64, 48, "/home/me/own")
            activate(other, model.id, range(100))
        monkeypatch.setattr(engine, "remembered", remembered)
        return remembered(name, make)

    monkeypatch.setattr(engine, "remembered", late)
    server.get("/api/model")
    state = server.get("/api/model").json
    assert (state["model"], state["better"]) == ("own", None)


def test_nothing_is_offered_while_another_process_changes_the_model(server):
    with Library.open(folder_of(server)) as other, changing(other):
        assert server.get("/api/model").json["better"] is None
    assert server.get("/api/model").json["better"]["name"] == "ViT-B-32-256"


@pytest.mark.parametrize(("name", "kept"), [("ViT-B-32-256", None), ("own", "own")])
def test_a_cancelled_download_ends_the_change_that_it_resumed(server, name, kept):
    with Library.open(folder_of(server)) as other:
        set_next_model(other, other.add_model(name, "a" * 64, 48, "hub").id)
    server.hub.stall_after, server.hub.stalls = 1000, 1
    begin(server)
    until(lambda: change_of(server)["bytes"])
    server.delete("/api/model/change")
    assert ended(server)["state"] == "stopped"
    with Library.open(folder_of(server)) as other:
        following = next_model(other)
    assert (following and following.name) == kept


def test_pages_hear_of_a_better_model_and_of_its_change(server, monkeypatch):
    monkeypatch.setattr(module, "command", running_instead(TALKING))
    stream = iter(server.get("/api/events").response)
    assert next(stream) == b"retry: 5000\n\n"

    def heard():
        for part in stream:
            for block in part.decode().split("\n\n"):
                if block.startswith("event: model\n"):
                    return json.loads(block.partition("data: ")[2])

    state = heard()
    assert (state["model"], state["better"]["name"]) == ("fovea-small", "ViT-B-32-256")
    assert state["change"] is None
    begin(server)
    while heard()["change"]["state"] != "downloading":
        pass
    server.delete("/api/model/change")
    server.delete("/api/model/change")
    assert ended(server)
    while heard()["change"]["state"] != "stopped":
        pass
    server.application.extensions["fovea"].closing.set()  # which ends the stream
    assert list(stream) == []


def test_a_cancelled_download_ends_at_once_and_resumes(server):
    hub = server.hub
    size = len(hub.files[WEIGHTS])
    hub.stall_after, hub.stalls = size // 2, 1
    begin(server)
    until(lambda: change_of(server)["bytes"])
    server.delete("/api/model/change")
    assert ended(server)["state"] == "stopped"  # though the hub says nothing
    assert server.get("/api/model").json["better"]["name"] == "ViT-B-32-256"
    begin(server)
    assert ended(server)["state"] == "done"
    assert len(parts(hub)) == 1 and parts(hub) != ["bytes=0-"]


def test_a_damaged_download_is_told_and_can_be_tried_again(server):
    hub = server.hub
    hub.meant[RESOLVED], sound = hub.files[WEIGHTS], hub.files[WEIGHTS]
    hub.files[WEIGHTS] = sound[:-1] + bytes([sound[-1] ^ 1])
    begin(server)
    change = ended(server)
    assert (change["state"], change["code"]) == ("failed", "damaged")
    assert "has the SHA-256" in change["message"] and "\n" not in change["message"]
    assert model_of_answers(server) == ("fovea-small", len(COLOURS))
    hub.files[WEIGHTS] = sound
    begin(server)
    assert ended(server)["state"] == "done"


def test_a_hub_that_does_not_answer_is_told(server, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    begin(server)
    change = ended(server)
    assert (change["state"], change["code"]) == ("failed", "offline")
    assert "does not answer; try again when online" in change["message"]


def test_downloads_that_are_switched_off_stay_off(server, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    begin(server)
    change = ended(server)
    assert (change["code"], server.hub.asked) == ("offline", [])
    assert "to allow downloads, unset HF_HUB_OFFLINE" in change["message"]


def test_a_disk_without_room_is_told(server, tmp_path):
    program = """
import sys; sys.path[:] = sys.argv[1:]
import shutil
from types import SimpleNamespace
shutil.disk_usage = lambda place: SimpleNamespace(free=1000)
from fovea.web.jobs.model_worker import main; main()
"""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "command", running_instead(program))
        begin(server)
        change = ended(server)
    assert (change["state"], change["code"]) == ("failed", "space")
    assert "make room" in change["message"] and "HF_HOME" in change["message"]


def test_a_library_without_room_is_told_as_a_full_disk_is():
    with closing(sqlite3.connect(":memory:")) as conn:
        conn.execute("PRAGMA max_page_count = 2")
        with pytest.raises(sqlite3.Error) as error:
            conn.execute("CREATE TABLE t AS SELECT zeroblob(100000)")
    problem = LibraryError("the library cannot grow")
    problem.__cause__ = error.value
    assert _code(problem) == "space"


def test_a_bug_in_the_process_is_one_line_too(client, monkeypatch):
    program = """
import sys; sys.path[:] = sys.argv[1:]
import fovea.search.models.resolve as resolve
def fail(*asked, **options): raise RuntimeError("odd\\nlines")
resolve.resolve_listed = fail
from fovea.web.jobs.model_worker import main; main()
"""
    monkeypatch.setattr(module, "command", running_instead(program))
    client.post("/api/model", json={"name": "RN50"})
    change = ended(client)
    assert (change["state"], change["code"]) == ("failed", "unexpected")
    assert change["message"] == (
        "the change of model failed (RuntimeError); the server's log says more"
    )


# From a former bundled model

SHIPPED = """
import sys; sys.path[:] = sys.argv[1:]
from pathlib import Path
import fovea.data as data
data.FORMER = {FORMER}
data.shipped = lambda name: Path({PLACE!r}) / name
from fovea.web.jobs.model_worker import main; main()
"""


def test_a_former_bundled_model_is_left_without_a_download(tmp_path, monkeypatch):
    monkeypatch.setenv("FOVEA_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("FOVEA_OFFLINE", "1")
    shipped, photos = tmp_path / "shipped", tmp_path / "photos"
    write_editions(shipped)
    photos.mkdir()
    for number, colour in enumerate(COLOURS):
        (photos / f"{colour}.png").write_bytes(encoded(colour, number))
    ship_before(monkeypatch, shipped)
    with fovea.Library.open(tmp_path / "library", create=True) as library:
        library.index(photos, workers=1)
    ship_now(monkeypatch, shipped)
    (photos / "red.png").write_bytes(encoded("red", 77))  # edited since it was indexed
    program = SHIPPED.format(FORMER=data.FORMER, PLACE=str(shipped))
    monkeypatch.setattr(module, "command", running_instead(program))
    app = create_app(tmp_path / "library", testing=True)
    client, scanned = app.test_client(), []
    monkeypatch.setattr(app.extensions["fovea.scans"], "start", lambda: scanned.append(True))
    state = client.get("/api/model").json
    assert (state["model"], state["bundled"]) == (FORMER_NAME, "fovea-small")
    assert state["better"] == {"name": "fovea-small", "bytes": 0}
    change = client.post("/api/model", json={"name": "fovea-small"}).json["change"]
    assert change["state"] == "starting"
    change = ended(client)
    assert (change["state"], change["left_out"], change["embedded"]) == ("done", 1, 5)
    until(lambda: scanned)
    state = client.get("/api/model").json
    assert (state["model"], state["bundled"]) == ("fovea-small", None)
    assert model_of_answers(client) == ("fovea-small", 5), "until it is scanned"
    client.post("/api/model", json={"name": FORMER_NAME})
    assert ended(client)["state"] == "done"
    assert client.get("/api/model").json["model"] == FORMER_NAME
    app.extensions["fovea"].close()


def test_an_empty_library_takes_the_model_for_its_pictures(server, tmp_path):
    app = create_app(tmp_path / "empty", testing=True)
    client = app.test_client()
    begin(client)
    assert ended(client)["state"] == "done"
    assert client.get("/api/model").json["model"] == "ViT-B-32-256"
    app.extensions["fovea"].close()
