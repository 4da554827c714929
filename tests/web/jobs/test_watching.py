"""Folders are watched while the server runs, whatever happens in between."""

import os
import sqlite3
import threading

import pytest
from watchdog.observers import Observer

from fovea.search.errors import LibraryBusy
from fovea.search.library.library import Library
from fovea.web.contract.problems import Problem
from fovea.web.jobs import scans as jobs
from fovea.web.jobs import watching as module
from fovea.web.jobs.watching import start_watching
from worker_programs import INDEXING, running_instead, until


@pytest.fixture
def watch(app, monkeypatch):
    """Start watching; it is tried again at once after an error, and ends with the test."""
    monkeypatch.setattr(module, "AGAIN_S", 0.05)
    yield lambda: start_watching(app)
    app.extensions["fovea"].closing.set()
    until(lambda: not any(thread.name == "watch" for thread in threading.enumerate()))


def is_watching(client):
    return client.get("/api/status").json["watching"]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (LibraryBusy("another process is at it"), "another process is at it"),
        (OSError(24, "Too many open files"), "OSError: [Errno 24] Too many open files"),
        (sqlite3.OperationalError("disk I/O\nerror"), "OperationalError: disk I/O error"),
        (Problem(503, "Service Unavailable", "busy"), "Problem: busy"),
    ],
)
@pytest.mark.parametrize("place", [(Observer, "start"), (Library, "roots")])
def test_an_error_ends_it_only_for_a_while(
    app, client, scans, watch, monkeypatch, caplog, photos, place, error, told
):
    owner, name = place
    true, is_broken = getattr(owner, name), threading.Event()
    is_broken.set()

    def broken(self):
        if is_broken.is_set() and threading.current_thread().name == "watch":
            raise error
        return true(self)

    monkeypatch.setattr(owner, name, broken)
    watch()
    until(lambda: f"cannot watch the folders now: {told}" in caplog.messages)
    monkeypatch.setattr(module, "AGAIN_S", 0)
    is_broken.clear()
    until(lambda: ("start", [str(photos)]) in scans.calls)
    assert is_watching(client)


def test_what_cannot_be_watched_is_not_shown_as_watched(client, watch, monkeypatch, caplog):
    monkeypatch.setattr(module, "AGAIN_S", 3600)
    monkeypatch.setattr(Observer, "start", lambda self: 1 / 0)
    watch()
    until(lambda: "cannot watch the folders now: ZeroDivisionError" in caplog.text)
    until(lambda: not is_watching(client))


def test_a_server_that_ends_says_nothing(app, scans, watch, monkeypatch, caplog):
    def closed(self):
        app.extensions["fovea"].closing.set()
        raise sqlite3.ProgrammingError("Cannot operate on a closed database.")

    monkeypatch.setattr(Observer, "start", closed)
    watch()
    until(lambda: not any(thread.name == "watch" for thread in threading.enumerate()))
    assert not app.extensions["fovea.watching"].is_set() and not caplog.messages


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
