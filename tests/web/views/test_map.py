"""The map over HTTP: its state, its points, what a query finds on it, and its clusters."""

import struct
import time

import numpy as np
import pytest

from fovea.search.library.library import Library
from fovea.search.mapping import layout
from fovea.search.mapping.build import build_map
from fovea.web.app import create_app
from fovea.web.jobs import map_building as jobs
from fovea.web.views.mapping import maps
from fovea.web.views.mapping.names import in_chinese

pytest.importorskip("sklearn", reason="a map needs fovea[map]")


@pytest.fixture
def laid_out(app, colour_library):
    """The map of the app's eight pictures."""
    return build_map(colour_library)


def points(client, address):
    """The parts of the packed points, as docs/map.md has them."""
    data = client.get(address).data
    assert data[:4] == b"FVMP"
    [count] = struct.unpack("<I", data[4:8])
    assert len(data) == 8 + 14 * count
    ids, marks = np.frombuffer(data, "<u4", count, 8), data[8 + 4 * count : 8 + 8 * count]
    rest = np.frombuffer(data, "<u2", 3 * count, 8 + 8 * count).reshape(3, count)
    return ids, [marks[4 * at : 4 * at + 4].hex() for at in range(count)], *rest


def test_before_it_is_laid_out_there_is_none(client, map_building):
    found = client.get("/api/map").json
    assert (found["state"], found["clusters"], found["points"]) == ("none", [], None)
    assert found["installed"] and found["advice"] is None and found["build"] is None
    for path in ("points", "hits?q=red", "pictures?cluster=0"):
        response = client.get(f"/api/map/{path}")
        assert response.status_code == 404, path
        assert "POST /api/map" in response.json["detail"]
    assert map_building.calls == 0, "looking lays nothing out"
    assert client.post("/api/map").status_code == 202
    assert map_building.calls == 1


def test_points_are_all_pictures_of_the_map(client, laid_out, ids):
    found = client.get("/api/map").json
    assert (found["state"], found["pictures"], found["listed"]) == ("ready", 8, 8)
    known, marks, across, down, clusters = points(client, found["points"])
    assert known.tolist() == sorted(ids.values())
    assert np.array_equal(np.stack([across, down], axis=1), laid_out.positions)
    assert not clusters.any()
    hit = client.get("/api/search?q=&limit=1").json["hits"][0]
    assert marks[known.tolist().index(hit["image_id"])] in hit["thumbnail"]
    tag = client.get(found["points"]).headers["ETag"]
    again = client.get(found["points"], headers={"If-None-Match": tag})
    assert again.status_code == 304


def test_a_new_picture_is_on_it_and_moves_no_other(
    client, laid_out, colour_library, add_file, photos, ids
):
    from PIL import Image

    before = client.get("/api/map").json
    Image.new("RGB", (32, 24), "#fe0202").save(photos / "almost red.png")
    [root] = colour_library.roots()
    new = add_file(colour_library, root.id, photos / "almost red.png")
    after = client.get("/api/map").json
    assert after["pictures"] == 9 and after["points"] != before["points"]
    known, _, across, down, _ = points(client, after["points"])
    place = dict(zip(known.tolist(), zip(across, down, strict=True), strict=True))
    for key, at in zip(laid_out.image_ids.tolist(), laid_out.positions.tolist(), strict=True):
        assert place[key] == tuple(at)
    away = [np.hypot(*(np.array(place[new], int) - np.array(place[n], int))) for n in ids.values()]
    assert list(ids)[int(np.argmin(away))] in ("red", "maroon")  # of one hue


def test_hidden_pictures_are_not_on_it(client, laid_out, ids):
    client.put(f"/api/images/{ids['red']}/hidden")
    found = client.get("/api/map").json
    assert found["pictures"] == 7
    assert ids["red"] not in points(client, found["points"])[0]


def marked(client, query):
    return np.frombuffer(client.get(f"/api/map/hits?{query}").data, "<u4").tolist()


def test_a_query_marks_what_it_finds(client, laid_out, ids, monkeypatch):
    assert marked(client, "q=name:red.png") == [ids["red"]]
    assert marked(client, "q=") == sorted(ids.values())
    assert marked(client, "q=name:nothing") == []
    monkeypatch.setattr(maps, "NEAREST", 2)  # the toy model draws no line
    assert ids["red"] in marked(client, "q=red") and len(marked(client, "q=red")) == 2
    assert client.get("/api/map/hits?q=size:>tall").status_code == 400


def test_what_is_sent_is_bounded(client, laid_out, monkeypatch):
    monkeypatch.setattr(maps, "MOST", 5)
    found = client.get("/api/map").json
    assert (found["pictures"], found["listed"]) == (8, 5)
    sent = points(client, found["points"])[0].tolist()
    assert len(sent) == len(set(sent)) == 5
    assert len(marked(client, "q=")) == 5


def test_clusters_list_their_pictures(client, laid_out, ids):
    [cluster] = client.get("/api/map").json["clusters"]
    assert cluster["count"] == 8 and cluster["parent"] is None
    assert cluster["thumbnail"].startswith("/api/images/")
    assert 0 < cluster["x"] < 1 and 0 < cluster["y"] < 1
    first = client.get("/api/map/pictures?cluster=0&limit=5").json
    rest = client.get("/api/map/pictures?cluster=0&offset=5").json
    found = [hit["image_id"] for hit in first["hits"] + rest["hits"]]
    assert first["total"] == 8 and sorted(found) == sorted(ids.values())
    assert found == laid_out.of_cluster(0).tolist()
    assert client.get("/api/map/pictures?cluster=7").status_code == 404


def test_the_server_lays_it_out_in_a_process_of_its_own(app, client, colour_library):
    started = client.post("/api/map")
    assert started.status_code == 202 and started.json["build"]["state"] == "running"
    deadline = time.monotonic() + 120
    while client.get("/api/map").json["build"]["state"] == "running":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    found = client.get("/api/map").json
    assert found["build"]["state"] == "done", found["build"]
    assert (found["state"], found["pictures"]) == ("ready", 8)


def test_a_build_that_fails_says_why(app, client, colour_library, monkeypatch):
    monkeypatch.setattr(jobs, "command", lambda name: ["false"])
    client.post("/api/map")
    deadline = time.monotonic() + 60
    while client.get("/api/map").json["build"]["state"] == "running":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    build = client.get("/api/map").json["build"]
    assert build["state"] == "failed" and "(exit code 1); try again" in build["message"]


def test_without_scikit_learn_it_says_what_to_install(client, monkeypatch):
    monkeypatch.setattr(layout.importlib.util, "find_spec", lambda name: None)
    found = client.get("/api/map").json
    assert not found["installed"] and 'pip install "fovea[map]"' in found["advice"]
    response = client.post("/api/map")
    assert (response.status_code, response.json["code"]) == (409, "map.not_installed")


def test_an_empty_library_has_an_empty_map_page(tmp_path):
    with Library.open(tmp_path / "empty", create=True):
        pass
    app = create_app(tmp_path / "empty", testing=True)
    client = app.test_client()
    assert client.get("/api/map").json["model"] is None
    for language, title in (("en", "Map"), ("zh-Hans", "地图")):
        page = client.get(f"/map?lang={language}").get_data(as_text=True)
        assert f"<title>{title} – fovea</title>" in page
        assert 'data-view="map"' in page and "css/map/map.css" in page
    assert "css/map/map.css" not in client.get("/").get_data(as_text=True)
    app.extensions["fovea"].close()


def test_shipped_labels_have_chinese_names():
    from fovea.search.query.likelihood import default_labels

    same = [label for label in default_labels() if in_chinese(label) == label]
    assert same == []
    assert in_chinese("a label of one's own") == "a label of one's own"
