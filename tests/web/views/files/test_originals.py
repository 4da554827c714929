import os
import re

import pytest

from fovea.search.clip.formats import FORMATS
from fovea.search.errors import FoveaError
from fovea.web.app import create_app
from fovea.web.views import originals
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


# Showing a file in its folder


@pytest.fixture
def shown(monkeypatch):
    """The paths that the file manager was asked to show."""
    paths = []
    monkeypatch.setattr(originals, "can_show", lambda: True)
    monkeypatch.setattr(originals, "show_in_folder", paths.append)
    return paths


@pytest.fixture
def at_home(colour_library):
    """A function that makes a client of an app that is, or is not, for this machine alone."""
    made = []

    def build(**settings):
        made.append(create_app(colour_library.folder, testing=True, **settings))
        return made[-1].test_client()

    yield build
    for app in made:
        app.extensions["fovea"].close()


def test_a_file_is_shown_in_its_folder(at_home, shown, photos):
    client = at_home(is_at_home=True)
    hit = client.get("/api/search?q=name:red").json["hits"][0]
    assert client.get("/api/status").json["show_in_folder"] is True
    assert client.get(f"/api/images/{hit['image_id']}/show").status_code == 405
    response = client.post(f"/api/images/{hit['image_id']}/show")
    assert (response.status_code, response.data) == (204, b"")
    assert shown == [str(photos / "red.png")]


@pytest.mark.parametrize(
    ("settings", "headers", "peer"),
    [
        ({"is_at_home": False}, {}, "127.0.0.1"),
        ({"is_at_home": True}, {}, "192.0.2.7"),
        ({"is_at_home": True}, {}, "::ffff:192.0.2.7"),
        ({"is_at_home": True}, {"X-Forwarded-For": "127.0.0.1"}, "127.0.0.1"),
        ({"is_at_home": True}, {"Forwarded": "for=127.0.0.1"}, "127.0.0.1"),
        ({"is_at_home": True}, {"X-Forwarded-Host": "localhost"}, "127.0.0.1"),
        ({"is_at_home": True}, {"Via": "1.1 proxy"}, "127.0.0.1"),
        ({"is_at_home": True}, {"X-Real-IP": "127.0.0.1"}, "127.0.0.1"),
        ({"is_at_home": True, "proxies": ["127.0.0.0/8"]}, {}, "127.0.0.1"),
        (
            {"is_at_home": True, "proxies": ["127.0.0.0/8"]},
            {"X-Forwarded-For": "127.0.0.1"},
            "127.0.0.1",
        ),
    ],
)
def test_nobody_elsewhere_opens_windows_here(at_home, shown, settings, headers, peer):
    client = at_home(**settings)
    environ = {"REMOTE_ADDR": peer}
    options = {"headers": headers, "environ_overrides": environ}
    hit = client.get("/api/search?q=", **options).json["hits"][0]
    assert client.get("/api/status", **options).json["show_in_folder"] is False
    assert b'data-action="show"' not in client.get("/", **options).data
    response = client.post(f"/api/images/{hit['image_id']}/show", **options)
    assert (response.status_code, response.json["code"]) == (403, "show.elsewhere")
    assert shown == []


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Origin": "http://localhost:1"},
        {"Host": "evil.example"},
    ],
)
def test_no_page_of_another_site_opens_windows_here(at_home, shown, headers):
    client = at_home(is_at_home=True)
    hit = client.get("/api/search?q=").json["hits"][0]
    response = client.post(f"/api/images/{hit['image_id']}/show", headers=headers)
    assert response.status_code in (403, 421) and shown == []


def test_what_is_not_in_the_library_or_not_there_is_not_shown(at_home, shown, photos, tmp_path):
    client = at_home(is_at_home=True)
    hit = client.get("/api/search?q=name:red").json["hits"][0]
    assert client.post("/api/images/999/show").status_code == 404
    (photos / "red.png").rename(tmp_path / "gone.png")
    assert client.post(f"/api/images/{hit['image_id']}/show").status_code == 410
    (photos / "red.png").symlink_to(tmp_path / "gone.png")
    assert client.post(f"/api/images/{hit['image_id']}/show").status_code == 410
    assert shown == []


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (FoveaError("no file manager"), 501, "show.failed"),
        (BlockingIOError("another file is being shown"), 503, "show.busy"),
    ],
)
def test_a_file_manager_that_fails_is_a_problem(
    at_home, shown, monkeypatch, error, status, code
):  # fmt: skip
    def fail(path):
        raise error

    monkeypatch.setattr(originals, "show_in_folder", fail)
    client = at_home(is_at_home=True)
    hit = client.get("/api/search?q=").json["hits"][0]
    response = client.post(f"/api/images/{hit['image_id']}/show")
    assert (response.status_code, response.json["code"]) == (status, code)
    assert str(error) in response.json["detail"]
