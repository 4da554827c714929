import json
import os
import threading

from fovea.web.jobs import events as module
from fovea.web.jobs import scans as scans_module
from fovea.web.jobs.events import LISTENERS
from worker_programs import TALKING, running_instead, until


def first_lines(response, count):
    """So many events of a stream, as (name, document)."""
    found = []
    for part in response.response:
        text = part.decode() if isinstance(part, bytes) else part
        for block in text.strip().split("\n\n"):
            if block.startswith("event: "):
                name, data = block.split("\n")
                found.append((name[7:], json.loads(data[6:])))
        if len(found) >= count:
            return found
    return found


def test_events_tell_of_scans_and_of_new_pictures(client, app, photos, monkeypatch):
    monkeypatch.setattr(module, "LOOK_S", 0.02)
    response = client.get("/api/events")
    assert (response.status_code, response.mimetype) == (200, "text/event-stream")
    assert response.headers["Cache-Control"] == "no-store"
    monkeypatch.setattr(scans_module, "command", running_instead(TALKING))
    running = app.extensions["fovea.scans"]
    running.start()
    [(first, _), (name, scan)] = first_lines(response, 2)
    assert first == "server"
    assert (name, scan["id"], scan["state"]) == ("scan", 1, "running")
    running.stop()

    def change():
        until(lambda: running.document()["state"] != "running")
        with app.app_context():
            app.extensions["fovea"].library.mark_missing([os.fsencode(photos / "red.png")])

    other = threading.Thread(target=change)
    other.start()
    found = []
    while not any(name == "library" for name, _ in found):
        found += first_lines(response, 1)
    other.join()
    library = next(document for name, document in found if name == "library")
    assert set(library) == {"images", "generation"}
    assert [scan["state"] for name, scan in found if name == "scan"][-1] == "stopped"
    response.close()


def test_a_stream_begins_with_the_run_of_the_server(client, app):
    before, again = ([first_lines(client.get("/api/events"), 1)[0]] for _ in range(2))
    assert before == again
    [(name, server)] = before
    assert (name, set(server)) == ("server", {"run", "generation"})
    assert server["run"] == app.extensions["fovea.run"]
    assert server["generation"] == app.extensions["fovea"].generation


def test_listeners_are_bounded_and_give_their_place_back(client):
    open_ones = [client.get("/api/events") for _ in range(LISTENERS)]
    assert {response.status_code for response in open_ones} == {200}
    refused = client.get("/api/events")
    assert (refused.status_code, refused.mimetype) == (503, "application/problem+json")
    assert refused.headers["Retry-After"]
    open_ones.pop().close()
    again = client.get("/api/events")
    assert again.status_code == 200
    for response in [again, *open_ones]:
        response.close()


def test_a_listener_that_has_left_is_not_served_on(client, monkeypatch):
    monkeypatch.setattr(module, "LOOK_S", 0.01)
    environment = {"waitress.client_disconnected": lambda: True}
    response = client.get("/api/events", environ_overrides=environment)
    assert list(response.response) == [b"retry: 5000\n\n"]
    response.close()


def test_a_quiet_stream_beats(client, monkeypatch):
    monkeypatch.setattr(module, "LOOK_S", 0.01)
    monkeypatch.setattr(module, "HEARTBEAT_S", 0.02)
    response = client.get("/api/events")
    stream = iter(response.response)
    assert next(stream) == b"retry: 5000\n\n"
    found = {next(stream) for _ in range(4)}
    assert b": no change\n\n" in found
    response.close()


def test_a_stream_ends_with_the_server(app, client):
    response = client.get("/api/events")
    app.extensions["fovea"].closing.set()
    assert list(response.response) == [b"retry: 5000\n\n"]
    response.close()
