"""Requests about all that a query finds: marks, exports and their size, with exceptions."""

import csv
import io
import json
import zipfile
from dataclasses import replace

import pytest

from coloured import found
from fovea.search.library.library import Library
from fovea.search.library.marks import contents, mark
from fovea.web.engine import answers, choices
from fovea.web.views import exports
from fovea.web.views.exports import ARCHIVES, _unique


def test_all_that_a_query_finds_is_marked_but_for_exceptions(client, ids):
    body = {"query": "name:*e*", "except": [ids["red"], 999], "favourite": True}
    wanted = {name for name in ids if "e" in name and name != "red"}
    assert wanted and len(wanted) < 7
    done = client.post("/api/marks", json=body).json
    assert {name for name, key in ids.items() if key in done["changed"]} == wanted
    assert found(client, "is:favourite") == wanted
    assert client.post("/api/marks", json=body).json["changed"] == []
    gone = client.post("/api/marks", json={"query": "is:favourite", "favourite": False}).json
    assert gone["changed"] and found(client, "is:favourite") == set()


def test_hidden_pictures_are_chosen_by_asking_for_them_only(client, ids):
    client.put(f"/api/images/{ids['red']}/hidden")
    everything = client.post("/api/selections", json={"query": ""}).json
    assert ids["red"] not in everything["ids"] and everything["count"] == 7
    done = client.post("/api/marks", json={"query": "", "favourite": True}).json
    assert ids["red"] not in done["changed"] and len(done["changed"]) == 7
    shown = client.post("/api/marks", json={"query": "is:hidden", "hidden": False}).json
    assert shown["changed"] == [ids["red"]] and len(found(client, "")) == 8


def test_hiding_all_of_a_query_is_undone_by_what_it_changed(client, ids):
    done = client.post("/api/marks", json={"query": "red", "hidden": True}).json
    assert found(client, "") == set() and set(done["changed"]) == set(ids.values())
    client.post("/api/marks", json={"ids": done["changed"], "hidden": False})
    assert found(client, "") == set(ids)


def test_a_query_is_exported_in_its_order(client, photos):
    hits = client.get("/api/search?q=red").json["hits"]
    wanted = [hit["image_id"] for hit in hits]
    body = {"query": "red", "except": [wanted[1]]}
    rows = json.loads(client.post("/api/exports", json={**body, "format": "json"}).data)
    assert [row["image_id"] for row in rows] == [wanted[0], *wanted[2:]]
    text = client.post("/api/exports", json={**body, "format": "csv"}).data.decode("utf-8-sig")
    assert len(list(csv.DictReader(io.StringIO(text)))) == len(wanted) - 1
    lines = client.post("/api/exports", json={**body, "format": "paths"}).data.decode()
    assert lines.splitlines() == [row["path"] for row in rows]
    archive = client.post("/api/exports", json={**body, "format": "zip"})
    with zipfile.ZipFile(io.BytesIO(archive.data)) as file:
        left_out = hits[1]["name"]
        assert set(file.namelist()) == {path.name for path in photos.iterdir()} - {left_out}


def test_a_form_does_as_well(client, ids):
    form = {"query": "", "except": f"{ids['red']},{ids['blue']}", "format": "json"}
    rows = json.loads(client.post("/api/exports", data=form).data)
    assert {row["image_id"] for row in rows} == set(ids.values()) - {ids["red"], ids["blue"]}
    rows = json.loads(client.post("/api/exports", data={**form, "except": ""}).data)
    assert len(rows) == 8


def test_the_size_is_told_before(client, photos, ids):
    told = client.post("/api/selections", json={"query": "red"}).json
    assert told["count"] == 8 and set(told["ids"]) == set(ids.values())
    assert told["bytes"] == sum(path.stat().st_size for path in photos.iterdir())
    told = client.post("/api/selections", json={"ids": [ids["red"], 999, ids["red"]]}).json
    assert told == {
        "count": 1, "bytes": (photos / "red.png").stat().st_size, "ids": [ids["red"]],
    }  # fmt: skip
    assert client.post("/api/selections", json={"query": "name:nothing*"}).status_code == 404


def test_a_search_by_pictures_is_chosen_by_its_cursor(client, photos, ids):
    picture = io.BytesIO((photos / "red.png").read_bytes()), "red.png"
    answer = client.post("/api/search", data={"q": "", "limit": 2, "picture": picture}).json
    body = {"cursor": answer["cursor"]}
    told = client.post("/api/selections", json=body).json
    assert told["ids"][:2] == [hit["image_id"] for hit in answer["hits"]] and told["count"] == 8
    assert client.post("/api/marks", json={**body, "favourite": True}).status_code == 200
    with Library.open(client.application.extensions["fovea"].folder) as other:
        mark(other, contents(other, [ids["red"]]).values(), "hidden", True)
    later = client.post("/api/selections", json=body).json  # a kept answer, but not what is hidden
    assert later["ids"] == [one for one in told["ids"] if one != ids["red"]]
    gone = client.post("/api/selections", json={"cursor": f"{'0' * 16}-2"})
    assert gone.status_code == 410 and "search again" in gone.json["detail"]


def test_without_words_all_are_likely_as_in_a_search(client):
    found = client.get("/api/search?likely_only=true").json
    told = client.post("/api/selections", json={"query": "", "likely_only": True}).json
    assert told["count"] == found["total"] == 8


@pytest.mark.parametrize("likely", [None, 0, 3])
def test_only_likely_ones_are_chosen_where_there_is_a_line(client, monkeypatch, likely):
    hits = client.get("/api/search?q=red").json["hits"]

    def drawn(engine, question):
        kept = answers.ask(engine, question)
        return replace(kept, listing=replace(kept.listing, likely=likely))

    monkeypatch.setattr(choices, "ask", drawn)
    told = client.post("/api/selections", json={"query": "red", "likely_only": True})
    if likely is None:
        assert told.status_code == 400 and "no line" in told.json["detail"]
    elif not likely:
        assert told.status_code == 404
    else:
        assert told.json["ids"] == [hit["image_id"] for hit in hits[:likely]]


@pytest.mark.parametrize(
    "choice",
    [
        {}, {"ids": [1], "query": ""}, {"query": 1}, {"query": "a" * 2001}, {"query": "size:"},
        {"query": "", "except": 1}, {"query": "", "except": ["1"]}, {"query": "", "except": [True]},
        {"query": "", "except": [2**63]}, {"query": "", "likely_only": 1}, {"cursor": ""},
        {"cursor": "x"}, {"ids": [1], "likely_only": True}, {"query": "", "more": 1},
        {"query": "", "cursor": f"{'0' * 16}-2"}, {"query": "a\0"},
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    ("path", "more"),
    [
        ("/api/marks", {"hidden": True}),
        ("/api/exports", {"format": "csv"}),
        ("/api/selections", {}),
    ],
)
def test_what_is_no_choice_is_refused(client, path, more, choice):
    answer = client.post(path, json=choice | more)
    assert (answer.status_code, answer.mimetype) == (400, "application/problem+json")
    assert answer.json["detail"] and "\n" not in answer.json["detail"]
    assert found(client, "is:hidden") == set()


@pytest.mark.parametrize(
    "form",
    [
        {"format": "csv"}, {"ids": "", "format": "csv"},
        {"query": "", "except": "1,", "format": "csv"},
        {"query": "", "likely_only": "1", "format": "csv"}, {"query": "", "format": "exe"},
    ],
)  # fmt: skip
def test_malformed_forms_are_refused(client, form):
    assert client.post("/api/exports", data=form).status_code == 400


def test_choices_are_bounded(client, monkeypatch):
    many = {"query": "", "except": list(range(choices.LISTED + 1)), "hidden": True}
    assert client.post("/api/marks", json=many).status_code == 413
    monkeypatch.setattr(choices, "MOST", 7)
    for path, more in (("/api/marks", {"hidden": True}), ("/api/exports", {"format": "csv"})):
        refused = client.post(path, json={"query": ""} | more)
        assert refused.status_code == 413
        assert refused.json["detail"].startswith("8 images; at most 7 at once")
    assert found(client, "is:hidden") == set()


@pytest.mark.parametrize("kind", ["csv", "json", "paths"])
def test_long_exports_are_streamed_in_batches_and_take_turns(client, monkeypatch, kind):
    body = {"query": "red", "format": kind}
    short = client.post("/api/exports", json=body).data
    monkeypatch.setattr(exports, "BATCH", 3)
    monkeypatch.setattr(exports, "LISTED", 5)
    open_ones = [client.post("/api/exports", json=body) for _ in range(ARCHIVES)]
    assert client.post("/api/exports", json=body).status_code == 503
    assert [one.data for one in open_ones] == [short] * ARCHIVES
    for one in open_ones:
        one.close()
    environment = {"waitress.client_disconnected": lambda: True}
    left = client.post("/api/exports", json=body, environ_overrides=environment)
    assert left.status_code == 200 and left.data == b""
    left.close()


def test_names_of_an_archive_are_numbered_once_each():
    taken = {}
    names = [_unique(name, taken) for name in ["a.jpg", "A.jpg", "a (2).jpg", "a.jpg", "a.jpg"]]
    assert names == ["a.jpg", "A (2).jpg", "a (2) (2).jpg", "a (3).jpg", "a (4).jpg"]


@pytest.mark.parametrize("path", ["/api/selections", "/api/exports", "/api/marks"])
def test_pages_of_other_sites_learn_and_change_nothing(client, path):
    for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        assert client.post(path, json={"query": ""}, headers=headers).status_code == 403
