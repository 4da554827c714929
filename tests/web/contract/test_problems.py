"""Stable names of problems, by which pages translate them."""

from fovea.search.errors import LibraryBusy, LibraryError
from fovea.web.contract.problems import members


def test_a_busy_library_has_a_code():
    assert members(LibraryBusy("wait")) == {"status": 409, "detail": "wait", "code": "busy"}
    assert members(LibraryError("mend it")) == {"status": 400, "detail": "mend it"}


def test_a_bug_has_a_code_and_tells_nothing_else(app, client, monkeypatch):
    def fail():
        raise RuntimeError("/home/me/secret")

    monkeypatch.setattr(app.extensions["fovea"], "model", fail)
    response = client.get("/api/status")
    assert (response.status_code, response.json["code"]) == (500, "unexpected")
    assert "secret" not in response.text
