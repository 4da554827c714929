"""What a search returns of its hits, likely matches alone, and hints."""

import pytest

from fovea.search.library.library import Library
from fovea.search.query.likelihood import Background, default_labels
from fovea.search.query.measured import Measured, Signs, Worth
from fovea.web.contract.schemas import SCHEMAS
from fovea.web.engine.hit_fields import FIELDS
from vectors import clustered


def hits(client, query="red", **more):
    answer = client.get("/api/search", query_string={"q": query} | more)
    assert answer.status_code == 200, answer.json
    return answer.json["hits"]


def test_the_fields_are_those_of_the_description():
    assert list(SCHEMAS["Hit"]["properties"]) == list(FIELDS)


def test_by_default_all_fields_are_there(client):
    for hit in hits(client):
        assert set(hit) == set(FIELDS) - {"path_bytes"}


def test_only_the_fields_that_are_asked_for_are_there_and_they_are_the_same(client):
    for query in ("red", "", "red sort:date", "name:e"):
        whole = hits(client, query)
        for names in ([name] for name in FIELDS), (["score", "name"], list(FIELDS)):
            for asked in names:
                expected = [
                    {name: hit[name] for name in FIELDS if name in hit and name in asked}
                    for hit in whole
                ]
                assert hits(client, query, fields=",".join(asked)) == expected, asked
    similar = client.get(f"/api/images/{whole[0]['image_id']}/similar?fields=name,rank").json
    assert [set(hit) for hit in similar["hits"]] == [{"name", "rank"}] * 7


def test_the_fields_of_a_search_by_pictures(client):
    body = {"q": "red", "fields": ["name", "rank"]}
    expected = [{"rank": hit["rank"], "name": hit["name"]} for hit in hits(client)]
    assert client.post("/api/search", json=body).json["hits"] == expected
    form = {"q": "red", "fields": "name,rank"}
    answer = client.post("/api/search", data=form, content_type="multipart/form-data")
    assert answer.json["hits"] == expected


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ("", "fields has no ''; "),
        ("nme", "fields has no 'nme'; did you mean name?"),
        ("name,", "fields has no ''"),
        ("name,name", "twice"),
        ("date", "fields has no 'date'"),
    ],
)
def test_fields_that_are_not_there_are_refused(client, fields, says):
    answer = client.get("/api/search", query_string={"fields": fields})
    assert answer.status_code == 400 and says in answer.json["detail"]


@pytest.mark.parametrize("fields", [None, "name", [], [1], ["name", ["name"]], {"name": 1}, True])
def test_fields_of_another_kind_are_refused(client, fields):
    assert client.post("/api/search", json={"fields": fields}).status_code == 400


def test_what_is_not_asked_for_is_not_read(client, monkeypatch):
    seen, rows = [], Library.rows

    def noted(self, sql, parameters=()):
        seen.append(sql)
        return rows(self, sql, parameters)

    client.get("/api/search?q=red")
    monkeypatch.setattr(Library, "rows", noted)
    client.get("/api/search?q=red&fields=score,image_id,original")
    assert not [sql for sql in seen if "camera" in sql or "path" in sql or "hash" in sql]
    assert not [sql for sql in seen if "width" in sql or "favourites" in sql]


def test_hidden_and_deleted_pictures_are_left_out_whatever_is_asked_for(client, app, photos):
    first, second, *others = hits(client)
    cursor = client.get("/api/search?q=red&limit=1").json["cursor"]
    client.put(f"/api/images/{second['image_id']}/hidden")
    Library.open(app.extensions["fovea"].folder).mark_missing([others[0]["path"].encode()])
    for names in ("score,image_id", "image_id,name", "image_id,favourite", "image_id,day"):
        found = hits(client, fields=names)
        assert [hit["image_id"] for hit in found] == [
            hit["image_id"] for hit in (first, *others[1:])
        ]
        rest = client.get(f"/api/search?cursor={cursor}&fields={names}").json["hits"]
        assert [hit["image_id"] for hit in rest] == [hit["image_id"] for hit in others[1:]]


def test_the_links_of_a_hit_lead_where_they_say(client):
    hit = hits(client)[0]
    with client.get(hit["original"]) as original, open(hit["path"], "rb") as file:
        assert original.data == file.read()
    same_day = client.get(hit["same_day"])
    assert hit["image_id"] in [one["image_id"] for one in same_day.json["hits"]]
    assert {one["day"] for one in same_day.json["hits"]} == {hit["day"]}


# Likely matches alone


@pytest.fixture
def lined(client, colour_library):
    """The client, where the toy model draws a line."""
    model = colour_library.model()
    words = Signs((1.0, 0.5, 0.5), -1.0, 0.2, Worth(0.9, 0.5, 400))
    signs = Measured(model.identity, (0.0,) * model.dim, words, words)
    vectors = clustered(len(default_labels()), model.dim, 77)
    Background(model.identity, vectors, 30.0, signs).save(colour_library.folder)
    return client


def test_likely_matches_alone_page_by_page(lined):
    whole = lined.get("/api/search?q=red").json
    assert 0 < whole["likely"] < whole["total"], "or this shows nothing"
    expected = [hit["image_id"] for hit in whole["hits"][: whole["likely"]]]
    seen, cursor = [], None
    while True:
        query = {"q": "red", "limit": 1, "likely_only": "true"}
        query |= {"cursor": cursor} if cursor else {}
        found = lined.get("/api/search", query_string=query).json
        assert (found["total"], found["likely"]) == (whole["likely"], whole["likely"])
        seen += [hit["image_id"] for hit in found["hits"]]
        cursor = found["cursor"]
        if cursor is None:
            break
    assert seen == expected
    body = {"q": "red", "likely_only": True}
    assert len(lined.post("/api/search", json=body).json["hits"]) == len(expected)
    everything = lined.get("/api/search?q=red&likely_only=false").json
    assert everything["total"] == whole["total"]


def test_a_cursor_belongs_to_likely_matches_or_to_all(lined):
    alone = lined.get("/api/search?q=red&limit=1&likely_only=true").json["cursor"]
    every = lined.get("/api/search?q=red&limit=1").json["cursor"]
    if alone:
        assert lined.get(f"/api/search?cursor={alone}").status_code == 200
        assert lined.get(f"/api/search?q=red&cursor={alone}").status_code == 400
    for query in (f"cursor={every}", f"q=red&cursor={every}"):
        assert lined.get(f"/api/search?{query}&likely_only=true").status_code == 400


def test_a_model_without_a_line_says_so(client):
    answer = client.get("/api/search?q=red&likely_only=true")
    assert (answer.status_code, answer.json["code"]) == (400, "query.no_line")
    assert answer.json["params"] == {"model": "colour"}
    found = client.get("/api/search?q=is:landscape&likely_only=true").json
    assert found["total"] == 8 and found["likely"] is None


@pytest.mark.parametrize("value", ["1", "yes", "", "True"])
def test_likely_only_is_true_or_false(client, value):
    answer = client.get("/api/search", query_string={"likely_only": value})
    assert answer.status_code == 400 and "true or false" in answer.json["detail"]


# Hints


def test_an_empty_answer_says_which_filter_leaves_nothing(client):
    found = client.get("/api/search?q=red+in:nowhere").json
    [hint] = found["hints"]
    assert (found["total"], hint["code"]) == (0, "filter.in")
    assert hint["message"] == 'no folder of this library is called "nowhere"'
    assert hint["params"] == {"filter": "in:nowhere", "value": "nowhere"}
    assert client.get("/api/search?q=red").json["hints"] == []
