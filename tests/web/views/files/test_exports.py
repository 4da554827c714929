import csv
import io
import json
import zipfile

import pytest

from fovea.web.views.exports import ARCHIVES, _harmless, _safe_name


def ids(client):
    return [hit["image_id"] for hit in client.get("/api/search?q=red").json["hits"]]


def export(client, kind, wanted):
    return client.post("/api/exports", json={"ids": wanted, "format": kind})


def test_a_zip_holds_the_originals(client, photos):
    response = export(client, "zip", ids(client))
    assert response.mimetype == "application/zip"
    assert response.headers["Content-Disposition"].startswith("attachment")
    with zipfile.ZipFile(io.BytesIO(response.data)) as archive:
        assert archive.testzip() is None
        found = {name: archive.read(name) for name in archive.namelist()}
    assert found == {path.name: path.read_bytes() for path in photos.iterdir()}


def test_files_of_one_name_and_odd_names_fit_in_a_zip(client, app, photos, add_file):
    library = app.extensions["fovea"].library
    [root] = library.roots()
    wanted = []
    for number, name in enumerate(["RED.png", "..", "a\\b:c?.png", "new\nline.png", "red.png"]):
        folder = photos / f"f{number}"
        folder.mkdir()
        path = folder / (name if name != ".." else "..png")
        path.write_bytes((photos / "red.png").read_bytes() + bytes([number]))
        wanted.append(add_file(library, root.id, path))
    response = export(client, "zip", [*ids(client)[:1], *wanted])
    with zipfile.ZipFile(io.BytesIO(response.data)) as archive:
        names = archive.namelist()
    assert len({name.casefold() for name in names}) == len(names) == 6
    assert not any(set(name) & set('/\\:?\n<>"|*') or name.startswith(".") for name in names)


def test_what_cannot_be_read_is_noted_in_the_zip(client, photos):
    hits = client.get("/api/search?q=red").json["hits"]
    (photos / hits[0]["name"]).unlink()
    response = export(client, "zip", [hits[0]["image_id"], hits[1]["image_id"]])
    with zipfile.ZipFile(io.BytesIO(response.data)) as archive:
        assert archive.namelist() == [hits[1]["name"], "missing.txt"]
        assert hits[0]["name"] in archive.read("missing.txt").decode()


def test_data_as_json_and_csv(client, photos):
    wanted = ids(client)
    rows = json.loads(export(client, "json", wanted).data)
    assert [row["image_id"] for row in rows] == wanted
    assert {row["path"] for row in rows} == {str(path) for path in photos.iterdir()}
    assert rows[0]["width"] == 32 and rows[0]["format"] == "PNG"
    text = export(client, "csv", wanted).data.decode("utf-8-sig")
    table = list(csv.DictReader(io.StringIO(text)))
    assert [int(row["image_id"]) for row in table] == wanted
    assert table[0]["path"] == rows[0]["path"]


def test_cells_are_never_formulas(client, app):
    library = app.extensions["fovea"].library
    wanted = ids(client)[0]
    with library.transaction() as conn:
        sql = "UPDATE images SET camera = ?, lens = ? WHERE id = ?"
        conn.execute(sql, ("=HYPERLINK(1)", "@SUM(1)", wanted))
    text = export(client, "csv", [wanted]).data.decode("utf-8-sig")
    [row] = csv.DictReader(io.StringIO(text))
    assert (row["camera"], row["lens"]) == ("'=HYPERLINK(1)", "'@SUM(1)")


def test_paths_are_a_line_each_and_a_form_does_as_well(client, photos):
    wanted = ids(client)[:2]
    response = client.post(
        "/api/exports", data={"ids": ",".join(map(str, wanted)), "format": "paths"}
    )
    assert response.status_code == 200 and response.data.decode().count("\n") == 2
    assert all(line.startswith(str(photos)) for line in response.data.decode().splitlines())


def test_images_that_are_gone_are_left_out(client):
    rows = json.loads(export(client, "json", [ids(client)[0], 9999, -5]).data)
    assert len(rows) == 1
    assert export(client, "json", [9999]).status_code == 404


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"ids": [], "format": "zip"}, 400),
        ({"ids": [1], "format": "exe"}, 400),
        ({"ids": ["1"], "format": "zip"}, 400),
        ({"ids": [True], "format": "zip"}, 400),
        ({"ids": [1.5], "format": "zip"}, 400),
        ({"ids": [2**70], "format": "csv"}, 400),
        ({"ids": "1", "format": "zip"}, 400),
        ({"ids": list(range(10_001)), "format": "csv"}, 413),
        ([], 400),
    ],
)
def test_malformed_selections_are_problems(client, body, status):
    response = client.post("/api/exports", json=body)
    assert (response.status_code, response.mimetype) == (status, "application/problem+json")


@pytest.mark.parametrize("text", ["", "1,,2", "1;2", "x", "-1", "1" * 30])
def test_malformed_forms_are_problems(client, text):
    response = client.post("/api/exports", data={"ids": text, "format": "csv"})
    assert response.status_code == 400


def test_archives_are_bounded_and_give_their_place_back(client):
    wanted = ids(client)
    open_ones = [export(client, "zip", wanted) for _ in range(ARCHIVES)]
    refused = export(client, "zip", wanted)
    assert (refused.status_code, refused.mimetype) == (503, "application/problem+json")
    assert export(client, "csv", wanted).status_code == 200
    for response in open_ones:
        response.close()
    again = export(client, "zip", wanted)
    assert again.status_code == 200 and again.data
    again.close()


def test_nobody_packs_for_a_reader_who_has_left(client):
    body = {"ids": ids(client), "format": "zip"}
    environment = {"waitress.client_disconnected": lambda: True}
    response = client.post("/api/exports", json=body, environ_overrides=environment)
    assert len(response.data) < 200
    response.close()


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/a/b.jpg", "b.jpg"),
        ("/a/con.jpg", "_con.jpg"),
        ("/a/COM1", "_COM1"),
        ("/a/lpt9.tar.gz", "_lpt9.tar.gz"),
        ("/a/comet.jpg", "comet.jpg"),
        ("/a/ . ", "picture"),
        ("/a/x\u202egpj.exe", "x_gpj.exe"),
        ("/a/caf\udce9.jpg", "caf\ufffd.jpg"),
        ("/a/" + "é" * 120 + ".jpg", "é" * 98 + ".jpg"),
        ("/a/x." + "y" * 250, "picture"),
    ],
)
def test_names_in_an_archive_are_safe_everywhere(path, name):
    assert _safe_name(path) == name


@pytest.mark.parametrize("cell", ["=1", "+1", "-1", "@a", "\t=1", "\r=1", "\n=1", "＝1"])
def test_what_begins_a_formula_is_text(cell):
    assert _harmless(cell) == f"'{cell}"
    assert _harmless(-33.9) == -33.9 and _harmless("/a=b") == "/a=b"
