import base64
import io
import json
import os
import threading
import time

import numpy as np
import pytest
from PIL import Image

from toys import COLOURS

RANKED = ["red", "maroon", "yellow", "magenta", "white", "lime", "cyan", "blue"]


def names(response):
    assert response.status_code == 200, response.json
    return [hit["name"].removesuffix(".png") for hit in response.json["hits"]]


def is_problem(response, status=400):
    assert response.status_code == status, response.get_data(as_text=True)
    assert response.content_type == "application/problem+json"
    assert response.json["status"] == status
    return True


def picture(colour, kind="PNG"):
    file = io.BytesIO()
    Image.new("RGB", (40, 30), colour).save(file, kind)
    return file.getvalue()


def cosines(encoder, query):
    """Each colour's cosine with a query vector, by the definition."""
    rows = encoder.encode_texts(COLOURS)
    return dict(zip(COLOURS, (rows @ query).tolist(), strict=True))


# Words


@pytest.mark.parametrize("colour", ["yellow", "lime", "blue"])
def test_words_find_the_nearest_first(client, encoder, colour):
    response = client.get("/api/search", query_string={"q": f"something {colour}"})
    [query] = encoder.encode_texts([colour])
    expected = cosines(encoder, query)
    assert names(response)[0] == colour
    scores = {hit["name"].removesuffix(".png"): hit["score"] for hit in response.json["hits"]}
    assert scores == pytest.approx(expected, abs=2e-3)
    assert (response.json["kind"], response.json["model"]) == ("words", "colour")
    assert (response.json["total"], response.json["cursor"]) == (8, None)


def test_a_hit_has_all_that_the_page_shows(client, photos):
    hit = client.get("/api/search?q=red&limit=1").json["hits"][0]
    path = str(photos / "red.png")
    assert hit.pop("thumbnail").startswith(f"/api/images/{hit['image_id']}/thumbnail?v=")
    assert hit.pop("score") == pytest.approx(1, abs=1e-3)
    day = hit.pop("day")
    assert len(day) == len("2024-07-01")
    assert hit.pop("same_day") == f"/api/search?q=on:{day}"
    assert hit.pop("original") == f"/api/images/{hit['image_id']}/original"
    assert hit.pop("likelihood") is None, "no background is saved yet"
    assert hit.pop("image_id") >= 1
    assert hit == {
        "rank": 1,
        "path": path,
        "paths": [path],
        "offline": False,
        "by_name": True,
        "by_text": False,
        "favourite": False,
        "hidden": False,
        "name": "red.png",
        "width": 32,
        "height": 24,
        "format": "PNG",
        "taken_at": None,
        "time": None,
        "duration": None,
    }


def test_without_words_the_library_is_shown(client):
    response = client.get("/api/search")
    assert sorted(names(response)) == sorted(COLOURS)
    assert (response.json["kind"], response.json["likely"]) == ("browse", None)
    assert {hit["score"] for hit in response.json["hits"]} == {None}


def test_an_empty_library_has_an_empty_answer(tmp_path):
    from fovea.web.app import create_app

    app = create_app(tmp_path / "empty", testing=True)
    for query in ("", "red", "is:square"):
        response = app.test_client().get("/api/search", query_string={"q": query})
        assert (response.status_code, response.json["hits"]) == (200, [])
        assert response.json["total"] == 0 and response.json["cursor"] is None
    app.extensions["fovea"].close()


@pytest.mark.parametrize(
    "query, position", [("is:round", 3), ('red "open', 4), ("in:", 3), ("blue on:2019-02-30", 8)]
)
def test_a_query_that_cannot_be_read_says_where_and_what_is_expected(client, query, position):
    response = client.get("/api/search", query_string={"q": query})
    assert is_problem(response)
    assert response.json["position"] == position
    assert response.json["expected"]


@pytest.mark.parametrize("query", ["like:999", "like:9223372036854775807", "red -red"])
def test_a_query_without_an_answer_says_why(client, query):
    assert is_problem(client.get("/api/search", query_string={"q": query}))


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=201", "limit=-1", "limit=x", "limit=1.5", "limit=", "q=" + "a" * 2001]
    + ["q=a%00b", "cursor=x", "cursor=" + "a" * 16 + "-", "cursor=" + "A" * 16 + "-1"]
    + ["cursor=" + "0" * 16 + "-" + "9" * 10],
)
def test_what_does_not_fit_is_refused(client, query):
    assert is_problem(client.get(f"/api/search?{query}"))


@pytest.mark.parametrize(
    "query",
    ["<script>alert(1)</script> red", "' OR 1=1 -- red", "%s%n red", "\u202e red", "\ufeff red"]
    + ["😀 red", "a" * 1990 + " red", "((((((red", "name:*", "in:../..", "name:[ red", "in:% red"],
)
def test_a_hostile_query_is_a_query(client, query):
    response = client.get("/api/search", query_string={"q": query})
    assert response.status_code in (200, 400)
    if response.status_code == 200:
        assert response.json["query"] == query


@pytest.mark.parametrize("query", ["%FF%FE", "caf%E9", "red&limit=5&cursor=%ED%A0%80"])
def test_bytes_that_are_no_utf8_are_not_searched_for(client, query):
    response = client.get(f"/api/search?q={query}")
    assert is_problem(response) and "UTF-8" in response.json["detail"]


# Pages


def test_pages_are_the_whole_answer_cut_up(client):
    whole = client.get("/api/search?q=red").json["hits"]
    seen, cursor = [], None
    while True:
        query = {"q": "red", "limit": 3} | ({"cursor": cursor} if cursor else {})
        page = client.get("/api/search", query_string=query).json
        assert page["total"] == 8
        seen += page["hits"]
        cursor = page["cursor"]
        if cursor is None:
            break
    assert seen == whole
    assert [hit["rank"] for hit in seen] == list(range(1, 9))


def test_a_cursor_alone_leads_on(client):
    first = client.get("/api/search?q=red&limit=3").json
    second = client.get("/api/search", query_string={"cursor": first["cursor"]}).json
    assert [hit["rank"] for hit in second["hits"]] == [4, 5, 6, 7, 8]
    assert second["query"] == "red"


def test_a_cursor_goes_on_in_the_answer_as_it_was(client, app, photos, add_file):
    first = client.get("/api/search?q=red&limit=3").json
    Image.new("RGB", (8, 8), (255, 1, 1)).save(photos / "redder.png")
    library = app.extensions["fovea"].library
    add_file(library, library.roots()[0].id, photos / "redder.png")
    second = client.get("/api/search", query_string={"q": "red", "cursor": first["cursor"]}).json
    assert [hit["rank"] for hit in second["hits"]] == [4, 5, 6, 7, 8]
    assert not {hit["image_id"] for hit in first["hits"]} & {
        hit["image_id"] for hit in second["hits"]
    }
    assert client.get("/api/search?q=red").json["total"] == 9


def test_an_image_that_has_gone_is_left_out_of_later_pages(client, app, photos):
    first = client.get("/api/search?q=red&limit=3").json
    rest = client.get("/api/search", query_string={"cursor": first["cursor"]}).json["hits"]
    library = app.extensions["fovea"].library
    library.delete_files([rest[0]["path"].encode()])
    again = client.get("/api/search", query_string={"cursor": first["cursor"]}).json["hits"]
    assert again == rest[1:]


def test_a_cursor_of_another_query_is_refused(client):
    cursor = client.get("/api/search?q=red&limit=3").json["cursor"]
    assert is_problem(client.get("/api/search", query_string={"q": "blue", "cursor": cursor}))


def test_a_forgotten_cursor_goes_on_where_its_query_is_known(client, app):
    first = client.get("/api/search?q=red&limit=3").json
    for number in range(200):
        client.get("/api/search", query_string={"q": f"{number} red"})
    lost = {"cursor": first["cursor"]}
    assert is_problem(client.get("/api/search", query_string=lost), 410)
    second = client.get("/api/search", query_string={"q": "red", **lost}).json
    assert [hit["rank"] for hit in second["hits"]] == [4, 5, 6, 7, 8]


def test_a_place_beyond_the_end_is_an_empty_page(client):
    cursor = client.get("/api/search?q=red&limit=3").json["cursor"]
    beyond = cursor.split("-")[0] + "-5000"
    page = client.get("/api/search", query_string={"cursor": beyond}).json
    assert (page["hits"], page["cursor"]) == ([], None)


def test_a_long_answer_has_every_image_once(client, app, encoder, monkeypatch):
    monkeypatch.setattr("fovea.search.query.run.DEPTHS", (3, 5, 10_000))
    whole = sorted(COLOURS)
    for query in ("", "red"):
        seen, cursor = [], None
        while True:
            place = {"limit": 2} | ({"cursor": cursor} if cursor else {"q": query})
            page = client.get("/api/search", query_string=place)
            assert page.json["total"] == 8
            seen += names(page)
            cursor = page.json["cursor"]
            if cursor is None:
                break
        assert sorted(seen) == whole


# New pictures


def test_a_new_picture_is_found_at_once_and_a_missing_one_no_longer(client, app, photos, add_file):
    assert client.get("/api/search?q=teal").json["total"] == 8
    Image.new("RGB", (8, 8), "teal").save(photos / "teal.png")
    library = app.extensions["fovea"].library
    add_file(library, library.roots()[0].id, photos / "teal.png")
    assert names(client.get("/api/search?q=teal"))[0] == "teal"
    library.mark_missing([str(photos / "teal.png").encode()])
    assert "teal" not in names(client.get("/api/search?q=teal"))


def test_many_threads_ask_at_once(app, encoder):
    app.extensions["fovea"].index()
    wrong = []

    def ask(colour):
        client = app.test_client()
        for _ in range(10):
            found = names(client.get("/api/search", query_string={"q": colour, "limit": 1}))
            if found != [colour]:
                wrong.append((colour, found))

    threads = [threading.Thread(target=ask, args=(colour,)) for colour in COLOURS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# Pictures


def posted(client, *colours, **form):
    files = [(io.BytesIO(picture(colour)), f"{colour}.png") for colour in colours]
    return client.post("/api/search", data={"picture": files, **form})


def test_a_picture_of_no_weight_is_said_to_have_none(client):
    response = posted(client, "red", weights="[0]")
    assert is_problem(response) and "weight 0" in response.json["detail"]


@pytest.mark.parametrize("colour", ["yellow", "lime", "blue"])
def test_a_picture_finds_its_like(client, colour):
    response = posted(client, colour)
    assert names(response)[0] == colour
    assert response.json["kind"] == "pictures"


def test_pictures_and_words_add_up_by_their_weights(client, encoder):
    response = posted(client, "red", "blue", q="2:lime", weights="[1, -0.5]")
    rows = encoder.encode_texts(["red", "blue", "lime"])
    query = rows[0] - 0.5 * rows[1] + 2 * rows[2]
    expected = cosines(encoder, query / np.linalg.norm(query))
    scores = {hit["name"].removesuffix(".png"): hit["score"] for hit in response.json["hits"]}
    assert scores == pytest.approx(expected, abs=4e-3)
    assert response.json["kind"] == "mixed"


def test_json_asks_the_same_as_a_form(client):
    data = base64.b64encode(picture("blue")).decode()
    body = {"q": "-red", "limit": 4, "pictures": [{"data": data, "weight": 0.5}]}
    by_json = client.post("/api/search", json=body).json
    by_form = posted(client, "blue", q="-red", limit="4", weights="[0.5]").json
    assert by_json["hits"] == by_form["hits"]
    assert len(by_json["hits"]) == 4


def test_the_cursor_of_a_picture_leads_on_by_get(client):
    first = posted(client, "red", limit="3").json
    rest = client.get("/api/search", query_string={"cursor": first["cursor"]})
    assert [hit["rank"] for hit in rest.json["hits"]] == [4, 5, 6, 7, 8]
    assert sorted(names(rest) + [hit["name"][:-4] for hit in first["hits"]]) == sorted(COLOURS)


def test_without_a_picture_the_query_is_answered_as_ever(client):
    assert (
        client.post("/api/search", json={"q": "red"}).json["hits"]
        == (client.get("/api/search?q=red").json["hits"])
    )


@pytest.mark.parametrize(
    "form",
    [
        {"weights": "x"},
        {"weights": "[1, 2]"},
        {"weights": "[]"},
        {"weights": "1"},
        {"weights": '["1"]'},
        {"weights": "[NaN]"},
        {"weights": "[1e400]"},
        {"weights": "[true]"},
        {"weights": "[11]"},
        {"weights": "[" * 50_000},
        {"weights": "[0]"},
        {"limit": "0"},
        {"limit": "x"},
        {"limit": "9" * 30},
        {"q": "is:round"},
        {"q": "a" * 2001},
    ],
)
def test_a_form_that_does_not_fit_is_refused(client, form):
    assert is_problem(posted(client, "red", **form))


@pytest.mark.parametrize(
    "body",
    [[], "x", {"q": 3}, {"limit": "5"}, {"limit": True}, {"limit": 0}, {"more": 1}]
    + [{"pictures": {}}, {"pictures": ["x"]}, {"pictures": [{}]}, {"pictures": [{"data": 3}]}]
    + [{"pictures": [{"data": "%%%"}]}, {"pictures": [{"data": "é"}]}, {"q": "\ud800"}]
    + [{"pictures": [{"data": "", "weight": "1"}]}, {"pictures": [{"data": "", "x": 1}]}]
    + [{"pictures": [{"data": ""}] * 9}],
)
def test_json_that_does_not_fit_is_refused(client, body):
    assert is_problem(client.post("/api/search", json=body))


@pytest.mark.parametrize(
    "data", [b"", b"no picture", b"\x89PNG\r\n\x1a\n", b"<svg/>", b"%!PS-Adobe"]
)
def test_what_is_no_picture_is_refused(client, data):
    response = client.post("/api/search", data={"picture": (io.BytesIO(data), "a.png")})
    assert 400 <= response.status_code < 500
    assert response.content_type == "application/problem+json"


def test_too_many_pictures_or_parts_are_refused(client):
    assert is_problem(posted(client, *["red"] * 9))
    many = {f"field{number}": "x" for number in range(200)}
    assert is_problem(
        client.post("/api/search", data={**many, "q": "red"}, content_type="multipart/form-data"),
        413,
    )


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/xml", "application/x-www-form-urlencoded"]
)
def test_another_kind_of_body_is_refused(client, kind):
    assert is_problem(client.post("/api/search", data="q=red", content_type=kind), 415)


@pytest.mark.parametrize(
    "data",
    [b"", b"--x", b"--x\r\n\r\n", b'--x\r\nContent-Disposition: form-data; name="q"\r\n\r\nred'],
)
def test_a_broken_form_is_no_failure(client, data):
    response = client.post("/api/search", data=data, content_type="multipart/form-data; boundary=x")
    assert response.status_code < 500


def test_a_form_without_a_boundary_is_refused(client):
    response = client.post("/api/search", data=b"x", content_type="multipart/form-data")
    assert response.status_code < 500


def test_pictures_never_reach_the_disk(client, monkeypatch):
    def refused(*arguments, **options):
        raise AssertionError("a temporary file")

    monkeypatch.setattr("tempfile._TemporaryFileWrapper", refused)
    monkeypatch.setattr("tempfile.TemporaryFile", refused)
    monkeypatch.setattr("tempfile.SpooledTemporaryFile.rollover", refused)
    noise = np.random.default_rng(0).integers(0, 255, (900, 900, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "PNG")
    assert len(file.getvalue()) > 1 << 20
    head = b'--x\r\nContent-Disposition: form-data; name="picture"; filename="a.png"\r\n\r\n'
    response = client.post(
        "/api/search",
        data=head + file.getvalue() + b"\r\n--x--\r\n",
        content_type="multipart/form-data; boundary=x",
    )
    assert response.status_code == 200, response.json


def test_the_answer_is_json_that_any_parser_reads(client):
    text = client.get("/api/search?q=red").get_data(as_text=True)
    assert text.isascii()
    assert json.loads(text)["query"] == "red"


def test_an_image_says_when_its_oldest_file_was_changed(client, app, photos, add_file):
    library = app.extensions["fovea"].library
    [root] = library.roots()
    copy = photos / "copy.png"
    copy.write_bytes((photos / "red.png").read_bytes())
    os.utime(copy, (10**9, 10**9))
    image = client.get(f"/api/images/{add_file(library, root.id, copy)}").json
    assert image["taken_at"] is None
    assert image["date"] == image["changed_at"] and image["date_source"] == "file time"
    assert image["changed_at"] == time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(10**9))
