"""Groups of copies in the API, and the export of all but the best."""

import os
import re
import subprocess
import threading
import time

import pytest

from fovea.search.duplicates.groups import Duplicate, DuplicateGroup, Duplicates
from fovea.web.engine import kept_duplicates


def file(image_id, name, *lacks):
    path = os.fsdecode(b"/photos/" + name)
    return Duplicate(image_id, path, False, 30, 20, "PNG", 100, None, 1.5, lacks)


GROUPS = (
    DuplicateGroup(
        "copies",
        file(1, b"best.png"),
        (
            file(1, b"same.png", "nothing"),
            file(2, b"small.png", "pixels"),
            file(2, b"caf\xe9.png", "pixels"),
        ),
    ),
    DuplicateGroup("copies", file(3, b"three.png"), (file(4, b"four.png"),)),
    DuplicateGroup("burst", file(5, b"five.png"), (file(3, b"three.png", "sharpness"),)),
)


@pytest.fixture
def some(monkeypatch):
    """The groups that a search finds."""
    found = Duplicates(GROUPS, 6, 1)
    monkeypatch.setattr(kept_duplicates, "find_duplicates", lambda *_, **__: found)


def test_equal_files_are_a_group(app, colour_library, photos):
    [(path,)] = colour_library.rows("SELECT path FROM files WHERE image_id = 1")
    with colour_library.transaction() as conn:
        conn.execute(
            "INSERT INTO files (path, root_id, size, mtime_ns, image_id, state) "
            "SELECT path || '2', root_id, size, mtime_ns, image_id, state FROM files "
            "WHERE image_id = 1"
        )
    answer = app.test_client().get("/api/duplicates").json
    [group] = answer["groups"]
    assert (answer["ready"], answer["total"], group["kind"]) == (True, 1, "copies")
    assert group["best"]["image_id"] == group["others"][0]["image_id"] == 1
    assert group["others"][0]["lacks"] == ["nothing"]
    names = {one["path"].encode() for one in (group["best"], *group["others"])}
    assert names == {path, path + b"2"}
    size = group["others"][0]["bytes"]
    assert answer["counts"]["copies"] == {"groups": 1, "files": 1, "bytes": size, "same": 1}
    assert app.test_client().get("/api/duplicates/others").json == {"count": 0, "ids": []}


def test_kinds_are_pages_of_their_own(client, some):
    answer = client.get("/api/duplicates?limit=1").json
    assert (answer["total"], answer["pictures"], answer["waiting"]) == (2, 6, 1)
    assert answer["counts"] == {
        "copies": {"groups": 2, "files": 4, "bytes": 400, "same": 2},
        "bursts": {"groups": 1, "files": 1, "bytes": 100, "same": 0},
    }
    [group] = answer["groups"]
    assert (group["count"], [one["image_id"] for one in group["others"]]) == (3, [1, 2, 2])
    assert "path_bytes" in group["others"][2] and group["others"][1]["name"] == "small.png"
    state = answer["state"]
    later = client.get(f"/api/duplicates?offset=1&state={state}").json
    assert [one["best"]["image_id"] for one in later["groups"]] == [3]
    bursts = client.get("/api/duplicates?kind=bursts").json
    assert [one["kind"] for one in bursts["groups"]] == ["burst"]
    assert client.get(f"/api/duplicates?state={state % 10**8 + 1}").status_code == 410


def test_pages_do_not_count_all_groups_anew(client, monkeypatch):
    class Counted(tuple):
        times = 0

        def __iter__(self):
            Counted.times += 1
            return super().__iter__()

    others = Counted((file(1, b"same.png", "nothing"), file(2, b"small.png", "pixels")))
    some = DuplicateGroup("copies", file(1, b"best.png"), others)
    found = Duplicates(Counted((*GROUPS, some)), 6, 1)
    monkeypatch.setattr(kept_duplicates, "find_duplicates", lambda *_, **__: found)
    counts = client.get("/api/duplicates?limit=1").json["counts"]
    assert counts["copies"] == {"groups": 3, "files": 6, "bytes": 600, "same": 3}
    Counted.times = 0
    for address in ("limit=1", "offset=1&limit=1", "kind=bursts"):
        assert client.get(f"/api/duplicates?{address}").json["counts"] == counts
    assert Counted.times == 0


def test_all_but_the_best_are_listed_once(client, some):
    assert client.get("/api/duplicates/others").json == {"count": 2, "ids": [2, 4]}
    assert client.get("/api/duplicates/others?kind=bursts").json == {"count": 1, "ids": [3]}


@pytest.mark.parametrize(
    "wanted, names",
    [
        ({}, [b"same.png", b"small.png", b"caf\xe9.png", b"four.png"]),
        ({"ids": [2]}, [b"small.png", b"caf\xe9.png"]),
        ({"ids": [4, 99]}, [b"four.png"]),
        ({"same": True}, [b"same.png", b"caf\xe9.png"]),
        ({"ids": [4], "same": True}, [b"same.png", b"caf\xe9.png", b"four.png"]),
        ({"kind": "bursts"}, [b"three.png"]),
    ],
)
def test_paths_and_scripts_are_of_what_is_asked_for(client, some, wanted, names):
    address = "/api/duplicates/exports"
    paths = client.post(address, json={"format": "paths", **wanted})
    assert paths.data == b"".join(b"/photos/" + name + b"\n" for name in names)
    form = {name: str(value).lower() for name, value in wanted.items()}
    if "ids" in wanted:
        form["ids"] = ",".join(map(str, wanted["ids"]))
    script = client.post(address, data={"format": "script", **form})
    assert script.mimetype == "application/x-sh"
    assert script.headers["Content-Disposition"].endswith('.sh"')
    lines = [line for line in script.data.split(b"\n") if line.startswith(b"spare ")]
    assert len(lines) == len(names)
    assert all(name in line for name, line in zip(names, lines, strict=True))
    said = subprocess.run(["sh", "-n"], input=script.data, capture_output=True)
    assert (said.returncode, said.stderr) == (0, b"")


@pytest.mark.parametrize(
    "body, status, detail",
    [
        ({"ids": [1]}, 400, "format must be"),
        ({"format": "zip"}, 400, "format must be"),
        ({"format": "paths", "kind": "both"}, 400, "kind must be"),
        ({"format": "paths", "kind": [{}]}, 400, "kind must be"),
        ({"format": "paths", "ids": ["1"]}, 400, "ids must be"),
        ({"format": "paths", "ids": [True]}, 400, "ids must be"),
        ({"format": "paths", "same": 1}, 400, "same must be"),
        ({"format": "paths", "ids": [0] * 10_001}, 413, "at most 10,000"),
        ({"format": "paths", "ids": [1]}, 404, "none of these"),  # the best alone
        ({"format": "paths", "folder": "/"}, 400, "folder"),
    ],
)
def test_other_wishes_are_refused(client, some, body, status, detail):
    answer = client.post("/api/duplicates/exports", json=body)
    assert answer.status_code == status and detail in answer.json["detail"]


@pytest.mark.parametrize("ids", ["x", "1,", "1;2", "9" * 19])
def test_a_form_with_other_ids_is_refused(client, some, ids):
    answer = client.post("/api/duplicates/exports", data={"format": "paths", "ids": ids})
    assert answer.status_code == 400 and "ids must be" in answer.json["detail"]


def test_an_unknown_parameter_is_refused(client):
    answer = client.get("/api/duplicates?kinds=bursts")
    assert answer.status_code == 400
    assert "did you mean kind?" in answer.json["detail"]


def test_a_long_search_runs_in_the_background_and_says_how_far_it_is(app, monkeypatch):
    go_on, calls = threading.Event(), []

    def find(library, *, bursts, progress):
        calls.append(bursts)
        progress(1, 4)
        assert go_on.wait(60)
        return Duplicates(GROUPS, 6, 0)

    monkeypatch.setattr(kept_duplicates, "find_duplicates", find)
    monkeypatch.setattr(kept_duplicates, "PATIENCE_S", 0.05)
    engine = app.extensions["fovea"]
    engine.duplicates = kept_duplicates.KeptDuplicates(
        engine, lambda work: threading.Thread(target=work).start()
    )
    client = app.test_client()
    first, second = (client.get("/api/duplicates").json for _ in range(2))
    assert (first["ready"], first["groups"]) == (second["ready"], second["groups"]) == (False, [])
    assert second["progress"] == 0.25 and calls == [True]
    go_on.set()
    deadline = time.monotonic() + 60
    while not (answer := client.get("/api/duplicates").json)["ready"]:
        assert time.monotonic() < deadline
    assert answer["total"] == 2 and calls == [True]


@pytest.mark.parametrize(
    ("language", "title", "all_groups"),
    [
        ("en", "Among copies and bursts", "Select all but the best of all groups"),
        ("zh-Hans", "在副本与连拍中", "选择所有组中除最佳外的图片"),
    ],
)
def test_the_help_has_the_keys(client, language, title, all_groups):
    page = client.get(f"/duplicates?lang={language}").text
    [part] = re.findall(r'<h3 id="help-copies">(.*?)</dl>', page, re.S)
    assert part.startswith(title)
    assert f"<kbd>Ctrl</kbd> <kbd>A</kbd></dt><dd>{all_groups}</dd>" in part
    assert re.findall("<kbd>(.)</kbd>", part) == [*"←↑↓→", "x", "a", "A"]
