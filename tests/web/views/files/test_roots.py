import os
from pathlib import Path

import pytest

from fovea.search.errors import LibraryReadOnly
from fovea.search.library.library import Library
from fovea.web.app import create_app
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


@pytest.mark.parametrize("shape", ['"{}"', " {}\n", "file://{}", "'file://localhost{}' "])
def test_a_path_is_read_as_people_paste_it(client, scans, tmp_path, shape):
    folder = tmp_path / "my photos #1"
    folder.mkdir()
    text = shape.format(str(folder).replace("#", "%23") if "file" in shape else folder)
    response = client.post("/api/roots", json={"path": text})
    assert (response.status_code, response.json.get("path")) == (201, str(folder)), response.json


def test_the_address_of_another_computer_is_refused_by_name(client, scans):
    problem = client.post("/api/roots", json={"path": " file://nas/photos"}).json
    assert problem["code"] == "root.other_computer"
    assert "nas/photos" in problem["detail"]


def test_a_folder_in_another_one_or_around_it_says_so(client, scans, photos, tmp_path):
    (photos / "inner" / "most").mkdir(parents=True)
    (tmp_path / "link").symlink_to(photos / "inner")
    inner = client.post("/api/roots", json={"path": str(tmp_path / "link")}).json
    assert (inner["path"], inner["inside"], inner["around"]) == (
        str(photos / "inner"), str(photos), []
    )  # fmt: skip
    most = client.post("/api/roots", json={"path": str(photos / "inner" / "most")}).json
    assert most["inside"] == str(photos / "inner")
    around = client.post("/api/roots", json={"path": str(tmp_path)}).json
    assert (around["inside"], len(around["around"])) == (None, 3)
    listed = {root["path"]: root for root in client.get("/api/roots").json["roots"]}
    assert listed[str(photos)]["around"] == [inner["path"], most["path"]]
    assert listed[str(photos)]["inside"] == str(tmp_path)


def test_a_picture_in_two_folders_is_counted_once(client, app, scans, photos):
    (photos / "inner").mkdir()
    client.post("/api/roots", json={"path": str(photos / "inner")})
    assert client.get("/api/status").json["images"] == 8
    assert len(client.get("/api/search?q=").json["hits"]) == 8


def folders(client, path):
    return client.get("/api/disk/folders", query_string={"path": path})


def test_folders_are_offered_for_what_is_typed(client, tmp_path, photos):
    (tmp_path / "phone").mkdir()
    (tmp_path / "link").symlink_to(photos)
    found = folders(client, f"{tmp_path}/ph").json
    assert [(folder["path"], folder["in_library"]) for folder in found["folders"]] == [
        (str(tmp_path / "phone"), False),
        (str(photos), True),
    ]
    assert found["folders"][0]["typed"] == f"{tmp_path}/phone/"
    [link] = folders(client, f' "file://{tmp_path}/li" ').json["folders"]
    assert (link["leads_to"], link["in_library"]) == (str(photos), True)


def test_the_library_and_the_kernel_are_not_offered(client, app, tmp_path):
    names = [folder["path"] for folder in folders(client, f"{tmp_path}/").json["folders"]]
    assert str(app.extensions["fovea"].folder) not in names and names
    top = [folder["path"] for folder in folders(client, "/").json["folders"]]
    assert top and not {"/proc", "/sys", "/dev"} & set(top)


def test_a_name_that_is_not_utf8_is_offered_as_an_address(client, scans, tmp_path):
    os.mkdir(os.fsencode(tmp_path) + b"/caf\xe9")
    [folder] = folders(client, f"{tmp_path}/caf").json["folders"]
    assert folder["typed"] == f"file://{tmp_path}/caf%E9/"
    added = client.post("/api/roots", json={"path": folder["typed"]}).json
    assert os.fsencode(added["path"]) == os.fsencode(tmp_path) + b"/caf\xe9"


@pytest.mark.parametrize(
    ("path", "reason"),
    [("pictures", "relative"), ("/no/such/", "missing"), ("file://nas/", "missing")],
)
def test_where_none_can_be_listed_there_is_a_reason(client, path, reason):
    assert folders(client, path).json == {"folders": [], "has_more": False, "reason": reason}


def test_without_a_text_there_is_where_to_begin(client, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    found = folders(client, "").json["folders"]
    assert str(tmp_path) in [folder["path"] for folder in found]


def test_folders_are_offered_only_where_they_may_be_added(client, app, monkeypatch):
    def refuse(self):
        raise LibraryReadOnly("the library is read-only")

    monkeypatch.setattr(Library, "check_writable", refuse)
    response = folders(client, "/")
    assert (response.status_code, response.json["code"]) == (403, "read_only")


def test_folders_are_offered_only_to_those_with_the_token(colour_library):
    app = create_app(colour_library.folder, token="secret", testing=True)
    try:
        assert folders(app.test_client(), "/").status_code == 401
    finally:
        app.extensions["fovea"].close()
