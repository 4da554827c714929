"""Suggestions over HTTP."""

import pytest

from fovea.web.app import create_app
from fovea.web.engine import known as kept
from fovea.web.engine.known import KeptKnown


def suggested(client, text, **more):
    response = client.get("/api/suggest", query_string={"q": text, **more})
    assert response.status_code == 200, response.json
    return response.json["suggestions"]


def test_a_suggestion_has_all_that_the_page_shows(client):
    assert suggested(client, "red pho") == [
        {
            "kind": "folder",
            "label": "photos",
            "detail": "",
            "count": 8,
            "words": "red",
            "filter": "in:photos",
            "matched": [[0, 3]],
        }
    ]


def test_the_query_that_is_chosen_finds_as_many_pictures(client):
    count = 0
    for text in (
        "pho",
        "this year",
        "png",
        "lime",
        "is:",
        "on:20",
        "in:",
        "format:",
        "size:",
        "-p",
    ):
        for one in suggested(client, text):
            query = f"{one['words']} {one['filter']}"
            found = client.get("/api/search", query_string={"q": query}).json
            if one["kind"] != "filter":
                assert one["count"] == found["total"], one
                count += 1
    assert count > 8


def test_the_caret_may_be_anywhere(client):
    [one] = suggested(client, "pho red", at=3)
    assert (one["words"], one["filter"]) == ("red", "in:photos")
    assert suggested(client, "😀 pho red", at=5)[0]["words"] == "😀 red"
    assert suggested(client, "pho", at=2000) == suggested(client, "pho")


@pytest.mark.parametrize(
    "query", ["at=-1", "at=2001", "at=x", "q=" + "a" * 2001, "q=a%00b", "q=%ff"]
)
def test_what_does_not_fit_is_refused(client, query):
    assert client.get(f"/api/suggest?{query}").status_code == 400


def test_an_empty_library_has_no_suggestions(tmp_path):
    app = create_app(tmp_path / "empty", testing=True)
    assert suggested(app.test_client(), "2019") == []
    app.extensions["fovea"].close()


def test_a_changed_library_is_read_again(client, app):
    assert suggested(client, "is:fav") == []
    [hit] = client.get("/api/search?q=name:red").json["hits"]
    assert client.put(f"/api/images/{hit['image_id']}/favourite").status_code == 200
    engine = app.extensions["fovea"]
    assert [one["count"] for one in suggested(client, "is:fav")] == [1]
    assert engine.known() is engine.known(), "read once for each state"


class Waiting:
    """Runs what is to be done in the background when it is told to."""

    def __init__(self):
        self.work = []

    def __call__(self, work):
        self.work.append(work)

    def do(self):
        for work in self.work:
            work()
        self.work.clear()


def test_a_keystroke_does_not_wait_for_a_large_library(app, client, monkeypatch):
    """What was known before is used until it has been read again."""
    monkeypatch.setattr(kept, "AT_ONCE", 3)
    monkeypatch.setattr(kept, "PAUSE_S", 0.0)
    monkeypatch.setattr(kept, "SHARE", 0)
    engine, waiting = app.extensions["fovea"], Waiting()
    engine._known = KeptKnown(engine, waiting)
    assert [one["kind"] for one in suggested(client, "cam")] == ["filter"]
    assert suggested(client, "pho") == []
    assert len(waiting.work) == 1, "one reading at a time"
    waiting.do()
    assert suggested(client, "pho")[0]["count"] == 8
    client.post("/api/searches", json={"name": "Reds", "query": "red"})
    assert suggested(client, "reds") == [], "of the state before"
    waiting.do()
    assert suggested(client, "reds")[0]["words"] == "red"


def test_words_that_the_model_does_not_read_get_a_hint(client, monkeypatch):
    """Not names, not filters, not English, and not on later pages."""
    from fovea.web.engine import answers

    monkeypatch.setattr(answers, "languages_of", lambda place: frozenset({"en"}))
    found = client.get("/api/search", query_string={"q": "海滩", "limit": 3}).json
    [hint] = found["hints"]
    assert (hint["code"], hint["params"]["language"]) == ("language", "zh")
    assert "fovea models use" in hint["message"]
    assert len(found["hits"]) == 3, "and it is answered all the same"
    later = client.get("/api/search", query_string={"cursor": found["cursor"]}).json
    assert later["hints"] == []
    for text in ("red", "name:海滩", "", "is:square", "red -in:собака"):
        hints = client.get("/api/search", query_string={"q": text}).json["hints"]
        assert "language" not in [one["code"] for one in hints]
