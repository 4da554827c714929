import csv
import io
import json
import zipfile

import pytest


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
