"""Folders are watched while the server runs, whatever happens in between."""

import os

from fovea.web.jobs import scans as jobs
from worker_programs import INDEXING, running_instead, until


def test_a_folder_that_was_removed_is_not_scanned_back_into_the_library(
    app, client, photos, monkeypatch
):
    monkeypatch.setattr(jobs, "command", running_instead(INDEXING))
    [root] = client.get("/api/roots").json["roots"]
    assert client.delete(f"/api/roots/{root['id']}").status_code == 204
    app.extensions["fovea.scans"].start([photos])  # as a watch may that has not noticed yet
    scan = until(lambda: (s := client.get("/api/scans").json["scan"])["state"] != "running" and s)
    assert (scan["state"], scan["found"], scan["message"]) == ("done", 0, None)
    assert client.get("/api/roots").json["roots"] == []


def test_a_folder_that_the_server_was_started_with_is_added(app, client, photos, monkeypatch):
    monkeypatch.setattr(jobs, "command", running_instead(INDEXING))
    [root] = client.get("/api/roots").json["roots"]
    assert client.delete(f"/api/roots/{root['id']}").status_code == 204
    app.extensions["fovea.scans"].start([photos], adds=True)
    until(lambda: client.get("/api/scans").json["scan"]["state"] == "done")
    assert [one["path"] for one in client.get("/api/roots").json["roots"]] == [os.fspath(photos)]
