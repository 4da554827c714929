"""Files that a page finds changed are indexed again, without anybody asking."""

import os
import time
from pathlib import Path

import pytest
from PIL import Image

from fovea.search.library.facts.stamps import Stamps
from fovea.web.jobs import changed_files as module
from fovea.web.jobs import scans as jobs
from worker_programs import INDEXING, running_instead, until


@pytest.fixture
def soon(monkeypatch):
    """Wait less than a page's user would."""
    monkeypatch.setattr(module, "DELAY_S", 0.05)


def hit_of(client, name):
    hits = client.get("/api/search?q=").json["hits"]
    return next((hit for hit in hits if hit["name"] == name), None)


def swapped(path, colour):
    """Replace a picture by another one of the same size and modification time."""
    status = os.stat(path)
    Image.new("RGB", (32, 24), colour).save(path)
    path.write_bytes(path.read_bytes().ljust(status.st_size, b"\0")[: status.st_size])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_a_picture_is_right_afterwards_without_a_click(client, photos, soon, monkeypatch):
    monkeypatch.setattr(jobs, "command", running_instead(INDEXING))
    swapped(photos / "red.png", "orange")
    former = hit_of(client, "red.png")
    response = client.get(former["thumbnail"])
    assert response.status_code == 410
    assert response.json["detail"].endswith("since it was indexed; it is being indexed again")
    until(lambda: (scan := client.get("/api/scans").json["scan"]) and scan["state"] == "done")
    scan = client.get("/api/scans").json["scan"]
    assert (scan["roots"], scan["embedded"]) == ([str(photos / "red.png")], 1)
    current = until(
        lambda: (hit := hit_of(client, "red.png"))["image_id"] != former["image_id"] and hit
    )
    assert client.get(current["thumbnail"]).status_code == 200


def test_many_files_make_one_scan_and_one_file_few(client, photos, soon, scans):
    names = sorted(path.name for path in photos.iterdir())[:4]
    hits = [hit_of(client, name) for name in names]
    for name in names:
        swapped(photos / name, "orange")
    for _ in range(3):
        for hit in hits:
            assert client.get(hit["thumbnail"]).status_code == 410
    until(lambda: scans.calls)
    for hit in hits:
        assert client.get(hit["thumbnail"]).status_code == 410
    time.sleep(0.2)
    assert scans.calls == [("reread", [str(photos / name) for name in names])]


def test_an_original_tells_too_and_is_sent(client, photos, soon, scans, colour_library):
    hit = hit_of(client, "red.png")
    with colour_library.transaction() as conn:
        conn.execute("UPDATE files SET ctime_ns = ?", [os.stat(photos / "red.png").st_ctime_ns])
    swapped(photos / "red.png", "orange")
    with client.get(f"/api/images/{hit['image_id']}/original") as response:
        assert response.status_code == 200
        assert response.data == (photos / "red.png").read_bytes()
    until(lambda: scans.calls)
    assert scans.calls == [("reread", [str(photos / "red.png")])]


def test_an_unchanged_original_tells_nothing(client, photos, soon, scans, app):
    hit = hit_of(client, "red.png")
    with client.get(f"/api/images/{hit['image_id']}/original") as response:
        assert response.status_code == 200
    assert not app.extensions["fovea.changed_files"]._waiting and not scans.calls


def test_another_copy_is_shown_while_a_changed_one_tells(
    client, photos, soon, scans, colour_library, add_file
):
    former = hit_of(client, "red.png")
    copy = photos / "a copy of red.png"
    copy.write_bytes((photos / "red.png").read_bytes())
    [root] = colour_library.roots()
    add_file(colour_library, root.id, copy)
    swapped(copy, "orange")
    assert client.get(former["thumbnail"]).status_code == 200
    until(lambda: scans.calls)
    assert scans.calls == [("reread", [str(copy)])]


def test_a_library_that_is_read_only_says_to_rescan(client, photos, soon, scans, monkeypatch):
    monkeypatch.setattr(module.ChangedFiles, "_is_writable", lambda self: False)
    hit = hit_of(client, "red.png")
    swapped(photos / "red.png", "orange")
    response = client.get(hit["thumbnail"])
    assert response.status_code == 410
    assert response.json["detail"].endswith("since it was indexed; rescan its folder")
    time.sleep(0.2)
    assert not scans.calls


def test_a_flood_is_bounded(app, scans, monkeypatch):
    monkeypatch.setattr(module, "DELAY_S", 60.0)
    found = app.extensions["fovea.changed_files"]
    for number in range(3 * module.MOST):
        assert found.tell(f"/photos/{number}.jpg") is (number < module.MOST)
    assert found.tell("/photos/0.jpg")
    assert len(found._waiting) == module.MOST
    found._scan()
    assert len(scans.calls) == 1 and len(scans.calls[0][1]) == module.MOST


def test_the_end_of_the_server_forgets_what_waits(app, scans, soon):
    found = app.extensions["fovea.changed_files"]
    assert found.tell("/photos/a.jpg")
    app.extensions["fovea"].closing.set()
    found.close()
    time.sleep(0.2)
    assert not scans.calls and not found.tell("/photos/b.jpg")


@pytest.mark.parametrize(
    ("size", "later_m", "later_c", "changed"),
    [(0, 0, 0, False), (0, 1, 1, False), (1, 0, 0, True), (0, 2, 0, True), (0, 0, 2, True)],
)
def test_stamps_tell_of_a_change(colour_library, photos, size, later_m, later_c, changed):
    path = Path(photos / "red.png")
    status = os.stat(path)
    stored = Stamps(status.st_size, status.st_mtime_ns, 10**18)
    with colour_library.transaction() as conn:
        conn.execute("UPDATE files SET ctime_ns = ? WHERE path = ?", (10**18, os.fsencode(path)))
    now = Stamps(stored.size + size, stored.mtime_ns + later_m, stored.ctime_ns + later_c)
    assert module.has_changed(colour_library, str(path), now) is changed
    assert not module.has_changed(colour_library, str(path), now._replace(ctime_ns=None)) or (
        size or later_m > 1
    )
