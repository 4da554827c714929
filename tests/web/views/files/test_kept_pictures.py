"""Pictures that are sent once and named by later searches."""

import hashlib
import io

import pytest
from PIL import Image

from fovea.web.views import uploads


def picture(colour, size=(300, 200)):
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    return file.getvalue()


def send(client, data):
    form = {"picture": (io.BytesIO(data), "private name.png")}
    return client.post("/api/pictures", data=form, content_type="multipart/form-data")


def first(client, pictures, q=""):
    response = client.get("/api/search", query_string={"pictures": pictures, "q": q})
    assert response.status_code == 200, response.json
    return response.json["hits"][0]["name"]


def test_a_picture_is_kept_by_its_sha256_and_searched_by(client):
    data = picture("lime")
    response = send(client, data)
    digest = hashlib.sha256(data).hexdigest()
    assert (response.status_code, response.json["sha256"]) == (201, digest)
    assert first(client, digest) == "lime.png"
    found = client.get("/api/search", query_string={"pictures": digest}).json
    assert found["kind"] == "pictures"


def test_weights_signs_and_words_go_with_it(client):
    lime, blue = (send(client, picture(colour)).json["sha256"] for colour in ("lime", "blue"))
    assert first(client, f"{lime},-{blue}") == "lime.png"
    assert first(client, f"-{lime},{blue}") == "blue.png"
    assert first(client, f"0.1:{lime},3:{blue}") == "blue.png"
    assert first(client, f"0.1:{blue}", q="lime") == "lime.png"


def test_what_the_page_shows_first_is_the_same(client):
    digest = send(client, picture("blue")).json["sha256"]
    text = client.get(f"/?pictures={digest}").text
    begin = text.index('id="first">')
    assert text.index("blue.png", begin) < text.index("lime.png", begin)


def test_its_pages_go_on(client):
    digest = send(client, picture("lime")).json["sha256"]
    page = client.get("/api/search", query_string={"pictures": digest, "limit": 3}).json
    rest = client.get("/api/search", query_string={"cursor": page["cursor"]}).json
    assert len({hit["image_id"] for hit in page["hits"] + rest["hits"]}) == 8
    same = client.get("/api/search", query_string={"cursor": page["cursor"], "pictures": digest})
    assert same.json["hits"] == rest["hits"]


def test_the_small_picture_is_small(client):
    sent = send(client, picture("red", (3000, 2000))).json
    response = client.get(sent["picture"])
    assert (response.status_code, response.mimetype) == (200, "image/webp")
    with Image.open(io.BytesIO(response.data)) as small:
        assert small.height == uploads.SMALL
    again = client.get(sent["picture"], headers={"If-None-Match": response.headers["ETag"]})
    assert again.status_code == 304


def test_a_picture_that_is_sent_again_is_not_decoded_again(client, app, monkeypatch):
    send(client, picture("lime"))
    monkeypatch.setattr(app.extensions["fovea.renderer"], "pixels", None)
    assert send(client, picture("lime")).status_code == 201


@pytest.mark.parametrize("number", [1, 2])
def test_one_that_is_not_kept_says_which(client, number):
    digest = send(client, picture("lime")).json["sha256"]
    pictures = [digest, digest]
    pictures[number - 1] = "0" * 64
    response = client.get("/api/search", query_string={"pictures": ",".join(pictures)})
    assert response.status_code == 410
    assert (response.json["code"], response.json["params"]) == ("picture_gone", {"number": number})
    assert client.get(f"/?pictures={','.join(pictures)}").status_code == 200  # the page tells


def test_of_another_model_it_is_gone(client, app, monkeypatch):
    digest = send(client, picture("lime")).json["sha256"]
    kept = app.extensions["fovea.pictures"]
    other = uploads.KeptPicture(digest, "other", kept.get(digest).vector, b"")
    kept.keep(other)
    assert client.get("/api/search", query_string={"pictures": digest}).status_code == 410
    assert send(client, picture("lime")).status_code == 201  # and embedded anew
    assert first(client, digest) == "lime.png"


@pytest.mark.parametrize("pictures", ["x", "0" * 63, f"11:{'0' * 64}", ",".join(["0" * 64] * 9)])
def test_another_value_is_refused(client, pictures):
    assert client.get("/api/search", query_string={"pictures": pictures}).status_code == 400


def test_what_is_no_picture_is_refused_and_not_kept(client):
    response = send(client, b"<svg/>")
    assert (response.status_code, response.json["code"]) == (422, "picture")
    digest = hashlib.sha256(b"<svg/>").hexdigest()
    assert client.get("/api/search", query_string={"pictures": digest}).status_code == 410
    assert client.get("/api/pictures", query_string={"sha256": digest}).status_code == 404


@pytest.mark.parametrize("count", [0, 2])
def test_one_is_sent_at_a_time(client, count):
    data = {"picture": [(io.BytesIO(picture("lime")), "a.png") for _ in range(count)], "x": "y"}
    response = client.post("/api/pictures", data=data, content_type="multipart/form-data")
    assert response.status_code == 400
    assert client.post("/api/pictures", json={}).status_code == 415


def test_nothing_of_it_is_written(client, tmp_path):
    before = {path for path in tmp_path.rglob("*")}
    first(client, send(client, picture("lime")).json["sha256"])
    new = {path for path in tmp_path.rglob("*")} - before
    new = {path.name for path in new if not path.name.startswith("library.db")}
    assert new <= {"checked.json"}  # of the library itself
