import os

import pytest

from fovea.search.library.rows import FileWrite, WriteBatch
from fovea.search.query.language import Filter, Query


def test_the_server_says_that_it_answers(client):
    response = client.get("/health")
    assert (response.status_code, response.json) == (200, {"status": "ok"})


def test_the_library_is_described(client):
    status = client.get("/api/status").json
    assert status["model"] == "colour"
    assert (status["images"], status["embeddings"], status["roots"]) == (8, 8, 1)
    assert status["files"] == {"indexed": 8}
    assert status["index"] == {"kind": "exhaustive", "embeddings": 8, "recall": 1.0}
    assert {"jpg", "heic", "png"} <= set(status["formats"])


@pytest.fixture
def failing(app, photos):
    """Seven files that could not be indexed, one of them with a name of any bytes."""
    library = app.extensions["fovea"].library
    [root] = library.roots()
    names = [b"a.jpg", b"b\xff.jpg", b"<script>.jpg", b"d.jpg", b"e\n.jpg", b"f.jpg", b"g.jpg"]
    library.write_batch(
        WriteBatch(
            files=[
                FileWrite(os.fsencode(photos) + b"/" + name, root.id, 1, 1, None, state, "broken")
                for name, state in zip(names, ["failed", "skipped"] * 4, strict=False)
            ]
        )
    )
    return [os.fsencode(photos) + b"/" + name for name in names]


def test_failures_are_listed_with_their_reasons_page_by_page(client, failing):
    seen, cursor = [], ""
    while cursor is not None:
        page = client.get("/api/failures", query_string={"limit": 3, "cursor": cursor}).json
        assert len(page["failures"]) <= 3
        seen += page["failures"]
        cursor = page["cursor"]
    assert [os.fsencode(failure["path"]) for failure in seen] == failing
    assert {failure["reason"] for failure in seen} == {"broken"}
    assert {failure["state"] for failure in seen} == {"failed", "skipped"}
    assert "path_bytes" in seen[1] and "path_bytes" not in seen[2]


@pytest.mark.parametrize("state", ["failed", "skipped"])
def test_failures_are_listed_by_their_state(client, failing, state):
    page = client.get(f"/api/failures?state={state}").json
    assert {failure["state"] for failure in page["failures"]} == {state}
    assert len(page["failures"]) == client.get("/api/status").json["files"][state]


@pytest.mark.parametrize(
    "query",
    [
        "state=",
        "state=indexed",
        "limit=0",
        "limit=1001",
        "limit=x",
        "limit=",
        "limit=1e2",
        "cursor=x",
        "cursor=-1",
    ]
    + ["cursor=" + "9" * 19, "limit=%00", "limit=٣"],
)
def test_a_page_that_cannot_be_is_refused(client, query):
    response = client.get(f"/api/failures?{query}")
    assert response.status_code == 400
    assert response.content_type == "application/problem+json"


def test_what_there_is_to_filter_by_is_listed(client, photos, app):
    found = client.get("/api/facets").json
    assert found["folders"] == [{"path": str(photos), "name": "photos", "count": 8}]
    assert found["formats"] == [{"name": "PNG", "count": 8}]
    assert found["cameras"] == []
    assert found["first"] <= found["last"]


@pytest.mark.parametrize(
    ("taken", "range_"),
    [
        (["2019", "2020-02"], ("2019-01-01", "2020-02-29")),
        (["2019-03", "2020"], ("2019-03-01", "2020-12-31")),
        (["2019-03-04", "2020-02-03T04:05:06"], ("2019-03-04", "2020-02-03")),
    ],
)
def test_the_range_of_days_covers_dates_without_a_day(client, app, taken, range_):
    library = app.extensions["fovea"].library
    with library.transaction() as conn:
        conn.execute("UPDATE images SET taken_at = ?", (taken[0],))
        conn.execute("UPDATE images SET taken_at = ? WHERE id = 1", (taken[1],))
    found = client.get("/api/facets").json
    assert (found["first"], found["last"]) == range_


def test_folders_count_the_pictures_below_them_once(client, app, photos, add_file):
    library = app.extensions["fovea"].library
    [root] = library.roots()
    deep = photos / "a" / "b"
    deep.mkdir(parents=True)
    for name in ("red.png", "blue.png"):
        (deep / f"copy of {name}").write_bytes((photos / name).read_bytes())
        add_file(library, root.id, deep / f"copy of {name}")
    found = {
        folder["name"]: folder["count"] for folder in client.get("/api/facets").json["folders"]
    }
    assert found == {
        "photos": 8,
        os.path.join("photos", "a"): 2,
        os.path.join("photos", "a", "b"): 2,
    }


def test_folders_that_no_query_can_name_are_left_out(client, app):
    library = app.extensions["fovea"].library
    [root] = library.roots()
    red = library.rows("SELECT hash FROM images ORDER BY id LIMIT 1")[0][0]
    named = [b"caf\xe9", b"two\nlines", b"/".join([b"deep"] * 500), "caf\u00e9".encode()]
    paths = [root.path + b"/" + name + b"/red.png" for name in named]
    library.write_batch(WriteBatch(files=[FileWrite(path, root.id, 1, 1, red) for path in paths]))
    found = {folder["name"] for folder in client.get("/api/facets").json["folders"]}
    assert {"photos", "photos/caf\u00e9", "photos/deep"} <= found
    assert all(name.isprintable() for name in found)
    for folder in client.get("/api/facets").json["folders"]:
        query = {"q": str(Query(filters=(Filter("in", folder["path"]),)))}
        assert client.get("/api/search", query_string=query).json["total"] == folder["count"]


def test_what_is_to_filter_by_follows_the_library(client, app, photos):
    assert client.get("/api/facets").json["formats"] == [{"name": "PNG", "count": 8}]
    with app.test_request_context():
        app.extensions["fovea"].library.mark_missing([os.fsencode(photos / "red.png")])
    assert client.get("/api/facets").json["formats"] == [{"name": "PNG", "count": 7}]


@pytest.mark.parametrize("path", ["/api", "/api/", "/api/no-such", "/api/images/x", "/%00"])
def test_what_is_not_there_is_a_problem(client, path):
    response = client.get(path)
    assert response.status_code == 404
    assert response.content_type == "application/problem+json"
    assert set(response.json) == {"type", "title", "status", "detail", "instance"}


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize(
    ("path", "detail"),
    [
        ("images/99999999999999999999", "there is no image 99999999999999999999"),
        ("images/x/thumbnail", "there is no image x"),
        ("roots/x", "there is no folder x"),
    ],
)
def test_what_is_no_number_is_named(client, method, path, detail):
    response = client.open(f"/api/{path}", method=method)
    assert (response.status_code, response.json["detail"]) == (404, detail)


@pytest.mark.parametrize("path", ["/api/images/1/no-such", "/api/roots/1/x"])
def test_what_nothing_has_is_not_said_of_an_image(client, path):
    assert "there is no" not in client.get(path).json["detail"]


@pytest.mark.parametrize("method", ["PUT", "PATCH", "POST", "DELETE"])
def test_another_method_is_a_problem_that_names_the_right_ones(client, method):
    response = client.open("/api/status", method=method)
    assert response.status_code == 405
    assert "GET" in response.headers["Allow"]
    assert response.json["status"] == 405


def test_a_mistake_of_ours_tells_nothing_of_this_machine(client, app, monkeypatch, caplog):
    def broken():
        raise RuntimeError("the secret is in /home/someone")

    monkeypatch.setattr(app.extensions["fovea"], "index", broken)
    response = client.get("/api/status")
    assert response.status_code == 500
    assert "secret" not in response.get_data(as_text=True)
    assert "the secret is in /home/someone" in caplog.text
