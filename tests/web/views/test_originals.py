import os
import re

import pytest

from fovea.search.clip.formats import FORMATS
from places import CHECKOUT


def first_hit(client):
    return client.get("/api/search?q=red").json["hits"][0]


def original(client, hit, **headers):
    return client.get(f"/api/images/{hit['image_id']}/original", headers=headers, buffered=True)


def test_an_original_is_the_file_itself(client, photos):
    hit = first_hit(client)
    response = original(client, hit)
    assert (response.status_code, response.mimetype) == (200, "image/png")
    assert response.data == (photos / hit["name"]).read_bytes()
    assert response.headers["Content-Disposition"].startswith("inline")
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in response.headers["Content-Security-Policy"]
    again = original(client, hit, **{"If-None-Match": response.headers["ETag"]})
    assert again.status_code == 304


def test_parts_of_a_file_are_given(client, photos):
    hit = first_hit(client)
    data = (photos / hit["name"]).read_bytes()
    response = original(client, hit, Range="bytes=10-19")
    assert (response.status_code, response.data) == (206, data[10:20])
    assert response.headers["Content-Range"] == f"bytes 10-19/{len(data)}"
    beyond = original(client, hit, Range=f"bytes={len(data) + 5}-")
    assert beyond.status_code == 416


def test_a_download_is_an_attachment(client):
    hit = first_hit(client)
    response = client.get(f"/api/images/{hit['image_id']}/original?download=1", buffered=True)
    assert response.headers["Content-Disposition"].startswith("attachment")


@pytest.mark.parametrize("content", [b"<html><script>alert(1)</script>", b"<svg onload=x>", b""])
def test_what_has_become_no_picture_is_only_offered_for_download(client, photos, content):
    hit = first_hit(client)
    (photos / hit["name"]).write_bytes(content)
    response = original(client, hit)
    assert response.mimetype == "application/octet-stream"
    assert response.headers["Content-Disposition"].startswith("attachment")


def test_a_link_out_of_the_folder_is_not_followed(client, photos, tmp_path):
    hit = first_hit(client)
    secret = tmp_path / "secret.png"
    secret.write_bytes((photos / hit["name"]).read_bytes())
    (photos / hit["name"]).unlink()
    (photos / hit["name"]).symlink_to(secret)
    assert original(client, hit).status_code == 410
    assert client.get(f"/api/images/{hit['image_id']}/thumbnail").status_code == 410


def test_a_folder_that_has_become_a_link_elsewhere_shows_nothing(
    client, app, tmp_path, photos, add_file
):
    library = app.extensions["fovea"].library
    [root] = library.roots()
    inner = photos / "inner"
    inner.mkdir()
    (inner / "one.png").write_bytes((photos / "red.png").read_bytes() + b"tail")
    image_id = add_file(library, root.id, inner / "one.png")
    assert client.get(f"/api/images/{image_id}/original", buffered=True).status_code == 200
    outside = tmp_path / "outside"
    inner.rename(outside)
    inner.symlink_to(outside)
    assert client.get(f"/api/images/{image_id}/original", buffered=True).status_code == 410


def test_a_pipe_in_a_files_place_holds_nobody(client, photos):
    hit = first_hit(client)
    (photos / hit["name"]).unlink()
    os.mkfifo(photos / hit["name"])
    assert original(client, hit).status_code == 410


def test_a_file_of_a_removed_folder_is_unknown(client, app):
    hit = first_hit(client)
    library = app.extensions["fovea"].library
    library.remove_root(library.roots()[0].id)
    assert original(client, hit).status_code == 404


@pytest.mark.parametrize(
    "name",
    [b'a"b\r\nSet-Cookie: x', "naïve 图.jpg".encode(), b"\xff.jpg", b"%41.jpg", b"a;b\\c.jpg"],
)
def test_a_name_stays_inside_its_header(client, app, photos, add_file, name):
    library = app.extensions["fovea"].library
    path = os.path.join(os.fsencode(photos), name)
    content = (photos / "red.png").read_bytes() + b"tail"
    with open(path, "wb") as file:
        file.write(content)
    image_id = add_file(library, library.roots()[0].id, path)
    response = client.get(f"/api/images/{image_id}/original", buffered=True)
    assert (response.status_code, response.data) == (200, content)
    assert "Set-Cookie" not in response.headers
    header = response.headers["Content-Disposition"]
    assert header.startswith("inline; filename=") and header.isascii() and header.isprintable()


def test_the_page_shows_originals_of_no_other_formats():
    code = (CHECKOUT / "web" / "static" / "js" / "query" / "picture.js").read_text("utf-8")
    names = re.findall(r'"(\w+)"', re.search(r"SHOWN_BY_BROWSERS = [^;]*", code)[0])
    there = {
        name for f in FORMATS if f.media_type for name in (f.name, *f.extensions.upper().split())
    }
    assert names and set(names) <= there
