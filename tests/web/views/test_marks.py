"""The API of favourites, hidden pictures and saved searches."""

import json

import pytest

from coloured import found
from fovea.search.library.library import Library
from fovea.search.library.marks import mark


@pytest.mark.parametrize("kind", ["favourite", "hidden"])
def test_a_mark_is_put_and_taken_away_as_often_as_one_likes(client, ids, kind):
    place = f"/api/images/{ids['red']}/{kind}"
    other = "hidden" if kind == "favourite" else "favourite"
    for method, on in (("PUT", True), ("PUT", True), ("DELETE", False), ("DELETE", False)):
        answer = client.open(place, method=method)
        assert (answer.status_code, answer.json) == (
            200, {"image_id": ids["red"], kind: on, other: False},
        )  # fmt: skip
        assert client.get(f"/api/images/{ids['red']}").json[kind] is on
        assert found(client, f"is:{kind}") == ({"red"} if on else set())
    for method in ("PUT", "DELETE"):
        answer = client.open(f"/api/images/999/{kind}", method=method)
        assert (answer.status_code, answer.json["detail"]) == (
            404, "there is no image 999 in this library",
        )  # fmt: skip


def test_many_are_marked_at_once_and_only_changes_are_told(client, ids):
    some = [ids["red"], ids["blue"]]
    body = {"ids": [*some, 999, ids["red"]], "favourite": True, "hidden": False}
    first = client.post("/api/marks", json=body).json
    assert first["changed"] == some and first["before"] != first["generation"]
    again = client.post("/api/marks", json=body).json
    assert again["changed"] == [] and again["before"] == again["generation"]
    assert found(client, "is:favourite") == {"red", "blue"}
    undone = client.post("/api/marks", json={"ids": some, "favourite": False}).json
    assert undone["changed"] == some
    assert found(client, "is:favourite") == set()


@pytest.mark.parametrize(
    "body",
    [
        {}, {"ids": [1]}, {"ids": [], "hidden": True}, {"ids": [1], "hidden": 1},
        {"ids": [True], "hidden": True}, {"ids": "1", "hidden": True},
        {"ids": [2**63], "hidden": True}, {"ids": [1], "hidden": True, "more": 1},
    ],
)  # fmt: skip
def test_what_is_no_mark_is_refused(client, body):
    answer = client.post("/api/marks", json=body)
    assert answer.status_code == 400 and answer.json["detail"]
    assert client.post("/api/marks", data=json.dumps(body)).status_code == 415


def test_too_many_at_once_are_refused(client):
    answer = client.post("/api/marks", json={"ids": [1] * 10_001, "hidden": True})
    assert answer.status_code == 413


def test_hidden_pictures_are_in_no_answer_of_any_route(client, ids):
    """Words, browsing, similar ones, facets, the page itself, and clip-retrieval's protocol."""
    before = client.get("/api/facets").json
    client.put(f"/api/images/{ids['red']}/hidden")
    for query in ("", "red", "in:photos", "red sort:date", "name:red", "-is:favourite"):
        assert "red" not in found(client, query)
    similar = client.get(f"/api/images/{ids['blue']}/similar?limit=100").json["hits"]
    assert ids["red"] not in [hit["image_id"] for hit in similar]
    shown = client.get(f"/api/images/{ids['blue']}").json["similar"]
    assert ids["red"] not in [hit["image_id"] for hit in shown]
    asked = {"text": "red", "num_images": 100, "deduplicate": False}
    neighbours = client.post("/knn-service", json=asked).json
    assert ids["red"] not in [hit["id"] for hit in neighbours] and len(neighbours) == 7
    after = client.get("/api/facets").json
    assert [folder["count"] for folder in before["folders"]] == [8]
    assert [folder["count"] for folder in after["folders"]] == [7]
    assert [entry["count"] for entry in after["formats"]] == [7]
    assert f"#image-{ids['red']}" not in client.get("/").get_data(as_text=True)
    assert found(client, "is:hidden") == {"red"}
    document = client.get(f"/api/images/{ids['red']}").json  # its number is known
    assert document["hidden"] is True
    assert client.get(f"/api/images/{ids['red']}/thumbnail").status_code == 200


def test_what_another_process_marks_is_noticed(client, app, ids):
    engine = app.extensions["fovea"]
    assert "red" in found(client, "sort:name")
    before = engine.generation
    with Library.open(engine.folder) as other:
        content = other.rows("SELECT hash FROM images WHERE id = ?", [ids["red"]])[0][0]
        mark(other, [content], "hidden", True)
    assert engine.generation != before
    assert "red" not in found(client, "sort:name")


def test_everything_is_exported_and_imported(client, ids):
    client.post("/api/marks", json={"ids": [ids["red"], ids["blue"]], "favourite": True})
    client.put(f"/api/images/{ids['lime']}/hidden")
    client.post("/api/searches", json={"name": "Reds", "query": f"like:{ids['red']}"})
    answer = client.get("/api/marks")
    assert "attachment" in answer.headers["Content-Disposition"]
    document = answer.json
    assert len(document["favourites"]) == 2 and len(document["hidden"]) == 1
    [search] = document["searches"]
    named = {entry["path"].rpartition("/")[2]: entry["sha256"] for entry in document["favourites"]}
    assert search["pictures"] == {str(ids["red"]): named["red.png"]}
    client.post("/api/marks", json={"ids": list(ids.values()), "favourite": False, "hidden": False})
    client.delete("/api/searches/1")
    added = client.put("/api/marks", json=document)
    assert added.json == {"favourites": 2, "hidden": 1, "searches": 1, "tags": 0, "absent": 0}
    assert found(client, "is:favourite") == {"red", "blue"}
    assert set(client.put("/api/marks", json=document).json.values()) == {0}
    refused = client.put("/api/marks", json={"fovea": 3})
    assert refused.status_code == 400 and "upgrade fovea" in refused.json["detail"]


# Saved searches


def names(client):
    return [search["name"] for search in client.get("/api/searches").json["searches"]]


def test_searches_are_saved_changed_moved_and_deleted(client):
    made = client.post("/api/searches", json={"name": "Reds", "query": "red -blue"})
    assert made.status_code == 201
    key = made.json["id"]
    assert made.json == {
        "id": key, "name": "Reds", "query": "red -blue", "saved_at": made.json["saved_at"],
    }  # fmt: skip
    client.post("/api/searches", json={"name": "First", "query": "", "place": 0})
    assert names(client) == ["First", "Reds"]
    place, body = f"/api/searches/{key}", {"name": "Red things", "query": "red", "place": 0}
    for _ in range(2):
        changed = client.put(place, json=body)
        assert (changed.status_code, changed.json["query"]) == (200, "red")
        assert names(client) == ["Red things", "First"]
    assert client.delete(place).status_code == 204
    assert client.delete(place).json["detail"] == f"there is no saved search '{key}'"
    assert client.put(place, json=body).status_code == 404
    assert names(client) == ["First"]


def test_a_search_that_cannot_be_saved_says_why(client):
    client.post("/api/searches", json={"name": "Reds", "query": "red"})
    taken = client.post("/api/searches", json={"name": "REDS", "query": "lime"})
    assert (taken.status_code, taken.json["code"]) == (409, "search.taken")
    assert taken.json["params"] == {"name": "Reds"}
    wrong = client.post("/api/searches", json={"name": "Wrong", "query": "red size:"})
    assert (wrong.status_code, wrong.json["code"]) == (400, "query.value")
    assert wrong.json["position"] == 9
    for name in ("", " ", "a\nb\x07"):
        empty = client.post("/api/searches", json={"name": name, "query": "red"})
        assert (empty.status_code, empty.json["code"]) == (400, "search.name")
    for body in (
        {"name": "a" * 101, "query": ""}, {"name": "a", "query": "b" * 2001}, {"name": "a"},
        {"name": 1, "query": ""}, {"name": "a", "query": "", "place": -1},
        {"name": "a", "query": "", "place": None}, {"name": "a", "query": "", "x": 1},
    ):  # fmt: skip
        assert client.post("/api/searches", json=body).status_code == 400, body
    assert names(client) == ["Reds"]


@pytest.mark.parametrize(
    ("method", "place"),
    [
        ("PUT", "/api/images/1/favourite"), ("DELETE", "/api/images/1/hidden"),
        ("POST", "/api/marks"), ("PUT", "/api/marks"), ("POST", "/api/searches"),
        ("PUT", "/api/searches/1"), ("DELETE", "/api/searches/1"),
    ],
)  # fmt: skip
def test_pages_of_other_sites_change_nothing(client, method, place):
    for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        assert client.open(place, method=method, json={}, headers=headers).status_code == 403


# Large documents


def document_of(size):
    """A document of about ``size`` bytes, of marks that wait for their pictures."""
    entry = '{"sha256":"%064x"}'
    count = size // len(entry % 0) - 1
    return '{"fovea":1,"favourites":[' + ",".join(entry % n for n in range(count)) + "]}"


def test_a_document_of_some_mebibytes_is_imported(client):
    text = document_of(2 << 20)
    answer = client.put("/api/marks", data=text, content_type="application/json")
    assert answer.status_code == 200, answer.json
    assert answer.json["absent"] == answer.json["favourites"] == text.count("sha256")


def test_one_document_is_imported_at_a_time(client, app):
    with app.extensions["fovea.imports"]:
        answer = client.put("/api/marks", json={"fovea": 1})
        assert (answer.status_code, "Retry-After" in answer.headers) == (503, True)
    assert client.put("/api/marks", json={"fovea": 1}).status_code == 200
    assert client.put("/api/marks", json={"fovea": 9}).status_code == 400
    assert client.put("/api/marks", json={"fovea": 1}).status_code == 200


def test_a_document_beyond_the_limit_is_refused(client):
    text = " " * (16 << 20) + "{}"
    answer = client.put("/api/marks", data=text, content_type="application/json")
    assert answer.status_code == 413
