"""What a route does not declare is refused, by one mechanism, and cannot be read."""

import ast
import json
import re

import pytest
from flask import Blueprint

from fovea.web.contract import unknown
from fovea.web.contract.describe import Flag, Number, Text, describe, form_body, json_body
from places import CHECKOUT


def refused(response):
    assert response.status_code == 400, response.get_data(as_text=True)
    assert response.json["code"] == "unknown"
    return response.json["detail"]


def operations(client):
    """Every operation of the API: method, an address, and what it declares."""
    for path, methods in client.get("/api/openapi.json").json["paths"].items():
        for method, operation in methods.items():
            yield method, re.sub(r"\{\w+\}", "1", path), operation


def is_lenient(path):
    return path in ("/knn-service", "/metadata", "/indices-list")


def test_every_route_refuses_a_parameter_that_it_does_not_know(client, scans, changes):
    count = 0
    for method, path, operation in operations(client):
        if is_lenient(path):
            continue
        count += 1
        detail = refused(client.open(path, method=method, query_string={"no_such": 1}))
        assert "'no_such'" in detail and f"{method.upper()} {path} takes " in detail
        for parameter in operation["parameters"]:
            assert parameter["in"] == "path" or parameter["name"] in detail
    assert count >= 30, count
    for path in ("/api/events", "/api/docs", "/api/openapi.json"):  # which are not described
        assert "takes none" in refused(client.get(f"{path}?x=1"))


def test_every_body_refuses_a_member_that_it_does_not_know(client, scans, changes):
    count = 0
    for method, path, operation in operations(client):
        bodies = operation.get("requestBody", {}).get("content", {"application/json": {}})
        for kind, content in bodies.items():
            if is_lenient(path) or method == "get":
                continue
            count += 1
            sent = json.dumps({"no_such": 1}) if kind == "application/json" else {"no_such": "1"}
            answer = client.open(path, method=method, data=sent, content_type=kind)
            assert "'no_such'" in refused(answer)
            if content:
                assert content["schema"]["additionalProperties"] is False, (path, kind)
    assert count >= 15, count


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ({"lmit": 3}, "unknown parameter 'lmit' (did you mean limit?); GET /api/search takes q, "),
        ({"query": "red"}, "'query' (did you mean q?)"),
        ({"Q": "red"}, "'Q' (did you mean q?)"),
        ({"likely": "1", "xyzzy": 1}, "'likely' (did you mean likely_only?), 'xyzzy';"),
        ({"z" * 5000: 1}, f"'{'z' * 39}~';"),
        ({"caf\xe9\n": 1}, "'caf\\xe9\\n'"),
        ({"": 1}, "unknown parameter '';"),
        ({f"w{n}": 1 for n in range(500)}, "'w9', and 490 more;"),
    ],
)
def test_each_unknown_name_is_told_with_the_nearest_known_one(client, query, says):
    detail = refused(client.get("/api/search", query_string=query))
    assert says in detail
    assert len(detail) < 600


def test_programs_get_the_same_in_members(client):
    answer = client.get("/api/search?lmit=3&xyzzy=1").json
    known = "q, pictures, limit, cursor, offset, image, likely_only, fields"
    assert answer["params"]["takes"].startswith(known)
    assert (answer["params"]["unknown"], answer["params"]["near"]) == ("'lmit', 'xyzzy'", "limit")


def test_what_belongs_in_the_body_is_said_to(client):
    assert "'q' (send it in the body)" in refused(client.post("/api/search?q=red", json={}))


@pytest.mark.parametrize("query", ["q=red&q=lime", "q=red&limit=2&limit=3"])
def test_a_parameter_that_comes_twice_is_refused(client, query):
    answer = client.get(f"/api/search?{query}")
    assert (answer.status_code, "2 times" in answer.json["detail"]) == (400, True)


def test_a_form_takes_texts_and_files_as_declared(client):
    def sent(**form):
        return client.post("/api/search", data=form, content_type="multipart/form-data")

    assert "'picures' (did you mean picture?)" in refused(sent(picures="x"))
    assert "picture must be a file" in sent(picture="x").json["detail"]
    assert "q must be text" in sent(q=(open(__file__, "rb"), "q")).json["detail"]
    assert "q is there 2 times" in sent(q=["red", "lime"]).json["detail"]


@pytest.mark.parametrize("body", ["[" * 100_000, "{", "[]", "3", "{}", ""])
def test_a_body_without_members_does_not_matter_where_none_is_taken(client, body):
    answer = client.get("/api/status", data=body, content_type="application/json")
    assert answer.status_code in (200, 400)
    assert answer.status_code == 200 or "not valid JSON" in answer.json["detail"]


def test_pages_take_what_links_to_them_carry(client):
    assert client.get("/?q=red&utm_source=mail").status_code == 200
    assert client.get("/api/status?token=whatever").status_code == 200
    assert client.open("/api/search?x=1", method="OPTIONS").status_code == 200
    assert client.get("/no-such-page?x=1").status_code == 404


# Views


KNOWN = Text("known", "Declared.", 9)


@pytest.fixture
def views(app):
    """An app with a route that reads whatever function it is given."""
    part = Blueprint("odd", __name__)
    reading = []

    @part.get("/api/odd")
    @describe("Read", {200: {}}, tag="Search", parameters=(KNOWN,))
    def odd():
        return {"read": reading[0]()}

    app.register_blueprint(part)

    def read(function):
        reading[:] = [function]
        return app.test_client().get("/api/odd?known=1")

    return read


def test_a_view_reads_what_it_declares(views):
    assert views(KNOWN.read).json == {"read": "1"}


@pytest.mark.parametrize(
    "read",
    [
        Text("other", "Not declared.", 9).read,
        Number("known", "Of another kind.", 1, 0, 9).read,
        Flag("flag", "Not declared.").read,
        json_body,
        form_body,
    ],
)
def test_a_view_that_reads_what_it_does_not_declare_fails(views, read):
    assert views(read).status_code == 500


RAW = {"args", "form", "files", "values", "json", "get_json", "data", "get_data", "stream"}
READERS = {
    "contract/describe.py": RAW,
    "serving/security.py": {"args"},  # the token
    "views/pages.py": {"args"},  # of the page, which takes any
}


def test_only_the_contract_reads_requests():
    for path in sorted((CHECKOUT / "web").rglob("*.py")):
        allowed = READERS.get(path.relative_to(CHECKOUT / "web").as_posix(), set())
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                read = node.value.id in ("request", "asked") and node.attr in RAW - allowed
                assert not read, f"{path}:{node.lineno} reads request.{node.attr} by itself"


@pytest.mark.parametrize(
    ("name", "near"),
    [("limt", "limit"), ("LIMIT", "limit"), ("lim", "limit"), ("query", "q"), ("zzz", None)],
)
def test_the_nearest_name_is_the_one_that_was_meant(name, near):
    assert unknown.nearest(name, ["q", "limit", "cursor"]) == near
