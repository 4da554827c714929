import os
from pathlib import Path

import pytest

from fovea.web.views.roots import REFUSALS


def test_the_folders_are_listed_with_their_pictures(client, photos):
    [root] = client.get("/api/roots").json["roots"]
    assert root["path"] == str(photos)
    assert (root["state"], root["images"], root["scanned_at"]) == ("online", 8, None)


def test_a_folder_is_added_and_scanned(client, scans, tmp_path):
    folder = tmp_path / "more"
    folder.mkdir()
    response = client.post("/api/roots", json={"path": str(folder)})
    assert response.status_code == 201
    assert response.json["path"] == str(folder)
    assert response.json["images"] == 0
    assert scans.calls == [("start", [str(folder)])]
    again = client.post("/api/roots", json={"path": f"{folder}/"})
    assert (again.status_code, again.json["id"]) == (201, response.json["id"])
    assert len(client.get("/api/roots").json["roots"]) == 2


def test_a_link_adds_the_folder_that_it_leads_to(client, scans, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    response = client.post("/api/roots", json={"path": str(tmp_path / "link")})
    assert response.json["path"] == str(tmp_path / "real")


def test_a_name_that_is_not_utf8_is_listed_with_its_bytes(client, app, scans, tmp_path):
    folder = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(folder)
    library = app.extensions["fovea"].library
    library.add_root(folder)
    root = client.get("/api/roots").json["roots"][-1]
    assert os.fsencode(root["path"]) == folder
    assert root["path_bytes"]


@pytest.mark.parametrize(
    ("path", "name"),
    [("/etc", "system"), ("photos", "relative"), ("/no/such/folder", "missing")],
)
def test_a_refusal_has_a_name_that_clients_can_translate(client, scans, path, name):
    problem = client.post("/api/roots", json={"path": path}).json
    assert (problem["code"], problem["params"]) == (f"root.{name}", {"path": path})
    assert problem["detail"] == REFUSALS[name].format(path=path)


@pytest.mark.parametrize(
    "path",
    ["/", "//", "/.", "/etc", "/etc/", "/usr/../etc", "/proc", "/proc/self", "/sys/kernel", "/dev"]
    + ["relative", ".", "~/../..", "/no/such/folder"],
)
def test_whole_systems_and_what_is_no_folder_are_refused(client, scans, path):
    response = client.post("/api/roots", json={"path": path})
    assert response.status_code == 422, response.json
    assert response.content_type == "application/problem+json"
    assert scans.calls == []
    assert len(client.get("/api/roots").json["roots"]) == 1


def test_files_links_to_the_system_and_the_library_itself_are_refused(
    client, app, scans, photos, tmp_path
):
    (tmp_path / "all").symlink_to("/")
    library = app.extensions["fovea"].folder
    for path in (photos / "red.png", tmp_path / "all", library):
        assert client.post("/api/roots", json={"path": str(path)}).status_code == 422
    assert scans.calls == []


@pytest.mark.parametrize(
    "body",
    [{}, {"path": None}, {"path": 3}, {"path": ["/tmp"]}, {"path": "/tmp\0"}, {"path": "/\ud800"}]
    + [{"path": "/tmp", "more": 1}, {"path": "/" + "a" * 5000}, [], "x"],
)
def test_another_body_is_refused(client, scans, body):
    response = client.post("/api/roots", json=body)
    assert response.status_code == 400, response.json
    assert scans.calls == []


@pytest.mark.parametrize(
    "data, kind, status",
    [
        (b"{", "application/json", 400),
        (b"", "application/json", 400),
        (b"null", "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b'{"path": "/tmp"}', "text/plain", 415),
        (b'{"path": "/tmp"}', None, 415),
        (b" " * (2 << 20), "application/json", 413),
    ],
)
def test_what_is_not_json_or_too_large_is_refused(client, scans, data, kind, status):
    response = client.post("/api/roots", data=data, content_type=kind)
    assert response.status_code == status
    assert response.content_type == "application/problem+json"
    assert scans.calls == []


def test_a_folder_is_forgotten_and_its_files_stay(client, scans, photos):
    [root] = client.get("/api/roots").json["roots"]
    response = client.delete(f"/api/roots/{root['id']}")
    assert (response.status_code, response.data) == (204, b"")
    assert scans.calls[0] == ("stop",)
    assert client.get("/api/roots").json["roots"] == []
    assert client.get("/api/status").json["images"] == 0
    assert len(list(Path(photos).iterdir())) == 8


@pytest.mark.parametrize("root", ["99", "0", "9" * 18, "9" * 40, "-1", "x", "1/2"])
def test_a_folder_that_is_not_there_is_not_forgotten(client, scans, root):
    assert client.delete(f"/api/roots/{root}").status_code == 404
    assert len(client.get("/api/roots").json["roots"]) == 1
