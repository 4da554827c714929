import io
import threading

import pytest
from PIL import Image

from fovea.indexer.decoding.limits import Refused
from fovea.indexer.workers.decode_pool import Crowded
from fovea.web.views.thumbnails import ThumbnailCache


def opened(response):
    return Image.open(io.BytesIO(response.data))


def test_a_thumbnail_is_webp_that_may_be_kept_for_ever(client):
    [hit, *_] = client.get("/api/search?q=red").json["hits"]
    response = client.get(f"{hit['thumbnail']}&size=512")
    assert (response.status_code, response.mimetype) == (200, "image/webp")
    assert opened(response).size == (32, 24)  # no larger than it is
    assert "immutable" in response.headers["Cache-Control"]
    etag = response.headers["ETag"]
    assert not etag.startswith("W/")
    again = client.get(f"{hit['thumbnail']}&size=512", headers={"If-None-Match": etag})
    assert (again.status_code, again.data) == (304, b"")
    other = client.get(f"{hit['thumbnail']}&size=256")
    assert other.headers["ETag"] != etag


def test_an_address_without_its_mark_is_asked_again(client):
    response = client.get("/api/images/1/thumbnail")
    assert response.status_code == 200
    assert "immutable" not in response.headers["Cache-Control"]
    wrong = client.get("/api/images/1/thumbnail?v=00000000")
    assert "immutable" not in wrong.headers["Cache-Control"]


def test_a_preview_is_there_too(client):
    response = client.get("/api/images/1/preview")
    assert (response.status_code, response.mimetype) == (200, "image/webp")


@pytest.mark.parametrize(
    ("address", "status"),
    [
        ("/api/images/999/thumbnail", 404),
        ("/api/images/99999999999999999999/thumbnail", 404),
        ("/api/images/1/thumbnail?size=100", 400),
        ("/api/images/1/thumbnail?size=%00", 400),
        ("/api/images/x/thumbnail", 404),
        ("/api/images/-1/thumbnail", 404),
    ],
)
def test_what_is_not_there_is_a_problem(client, address, status):
    response = client.get(address)
    assert (response.status_code, response.mimetype) == (status, "application/problem+json")


def test_a_file_that_has_changed_shows_nothing_else(client, photos):
    [hit, *_] = client.get("/api/search?q=red").json["hits"]
    (photos / hit["name"]).write_bytes((photos / "blue.png").read_bytes())
    response = client.get(hit["thumbnail"])
    assert response.status_code == 410 and "changed" in response.json["detail"]


def test_what_was_made_once_is_shown_though_the_file_is_gone(client, photos):
    [hit, *_] = client.get("/api/search?q=red").json["hits"]
    first = client.get(hit["thumbnail"])
    (photos / hit["name"]).unlink()
    assert client.get(hit["thumbnail"]).data == first.data


def test_a_broken_picture_is_a_problem_with_its_reason(client, app, photos, add_file):
    library = app.extensions["fovea"].library
    [root] = library.roots()
    add_file(library, root.id, photos / "red.png")
    with library.transaction() as conn:
        import hashlib

        (photos / "red.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
        digest = hashlib.sha256((photos / "red.png").read_bytes()).digest()
        path = str(photos / "red.png").encode()
        conn.execute(
            "UPDATE images SET hash = ? WHERE id = (SELECT image_id FROM files WHERE path = ?)",
            (digest, path),
        )
        [image_id] = conn.execute("SELECT image_id FROM files WHERE path = ?", (path,)).fetchone()
    response = client.get(f"/api/images/{image_id}/thumbnail")
    assert response.status_code == 422 and "cannot decode the file" in response.json["detail"]


# The cache


class Counting:
    """A renderer that counts, and waits for a sign."""

    def __init__(self):
        self.made, self.go = 0, threading.Event()
        self.go.set()

    def thumbnails(self, data, sizes, *, raw):
        self.go.wait(10)
        self.made += 1
        return {size: webp(size) for size in sizes}

    def preview(self, data, size, *, raw):
        self.made += 1
        return webp(size)


def webp(size):
    """So many bytes that begin like a picture."""
    return b"RIFF" + (size - 8).to_bytes(4, "little") + bytes(size - 8)


def read():
    return b"x", False


def test_a_picture_asked_for_by_many_is_made_once(tmp_path):
    renderer = Counting()
    cache, found = ThumbnailCache(tmp_path / "cache", renderer), []
    renderer.go.clear()
    threads = [
        threading.Thread(target=lambda size=size: found.append(cache.get(b"h" * 32, size, read)))
        for size in ("256", "512") * 4
    ]
    for thread in threads:
        thread.start()
    renderer.go.set()
    for thread in threads:
        thread.join()
    assert renderer.made == 1 and sorted(map(len, found)) == [256] * 4 + [512] * 4
    assert ThumbnailCache(tmp_path / "cache", renderer).get(b"h" * 32, "256", read)
    assert renderer.made == 1  # it is kept


def test_the_cache_is_bounded_and_loses_the_oldest_first(tmp_path):
    import os

    cache = ThumbnailCache(tmp_path, Counting(), largest=3000)
    for number in range(8):
        cache.get(bytes([number]) * 32, "256", read)
    files = sorted(tmp_path.glob("??/*"), key=lambda path: path.name)
    for age, path in enumerate(files):
        os.utime(path, (1000 + age, 1000 + age))
    cache.prune()
    left = sorted(tmp_path.glob("??/*"), key=lambda path: path.name)
    assert sum(path.stat().st_size for path in left) <= 2700 and left == files[-len(left) :]


def test_a_full_disk_costs_no_more_than_the_keeping(tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    cache = ThumbnailCache(tmp_path / "cache", Counting())
    assert len(cache.get(b"h" * 32, "256", read)) == 256


def test_a_picture_that_was_cut_off_is_made_again(tmp_path):
    renderer = Counting()
    cache = ThumbnailCache(tmp_path, renderer)
    whole = cache.get(b"h" * 32, "256", read)
    for cut in (b"", whole[:100]):
        [path] = tmp_path.glob("??/*-256.webp")
        path.write_bytes(cut)
        assert cache.get(b"h" * 32, "256", read) == whole
    assert renderer.made == 3


def test_what_cannot_be_made_is_tried_once(tmp_path):
    cache, tries = ThumbnailCache(tmp_path, Counting()), []

    def broken():
        tries.append(1)
        raise Refused("broken: no picture")

    for kind in ("256", "512", "256"):
        with pytest.raises(Refused, match="no picture"):
            cache.get(b"h" * 32, kind, broken)
    assert len(tries) == 1
    with pytest.raises(Refused):
        cache.get(b"h" * 32, "preview", broken)
    assert len(tries) == 2


def test_what_could_not_be_read_is_tried_again_and_all_who_wait_hear_of_it(tmp_path):
    cache, go, heard = ThumbnailCache(tmp_path, Counting()), threading.Event(), []

    def away():
        go.wait(10)
        raise OSError("the disk is away")

    def ask():
        with pytest.raises(OSError, match="away"):
            cache.get(b"h" * 32, "256", away)
        heard.append(1)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    go.set()
    for thread in threads:
        thread.join()
    assert len(heard) == 4
    assert cache.get(b"h" * 32, "256", read) == webp(256)


def test_a_picture_that_waits_too_long_for_its_turn_is_a_503(client, app, monkeypatch):
    def busy(*asked, **options):
        raise Crowded("too many pictures wait")

    monkeypatch.setattr(app.extensions["fovea.renderer"], "thumbnails", busy)
    response = client.get("/api/images/1/thumbnail")
    assert (response.status_code, response.mimetype) == (503, "application/problem+json")
    assert response.headers["Retry-After"] == "5"


@pytest.mark.parametrize("kind", ["TIFF", "JPEG2000", "PPM"])
def test_what_no_browser_shows_has_a_preview(client, app, photos, add_file, kind):
    library = app.extensions["fovea"].library
    path = photos / f"large.{kind.lower()}"
    Image.new("RGB", (3000, 1500), "orange").save(path, kind)
    image_id = add_file(library, library.roots()[0].id, path)
    response = client.get(f"/api/images/{image_id}/preview")
    assert (response.status_code, response.mimetype) == (200, "image/webp")
    assert opened(response).size == (2048, 1024)
    original = client.get(f"/api/images/{image_id}/original", buffered=True)
    assert original.headers["Content-Disposition"].startswith("attachment")
    assert original.mimetype == "application/octet-stream"


@pytest.mark.parametrize("kind", ["TIFF", "JPEG2000", "HEIF"])
def test_what_no_browser_shows_has_a_whole_picture(client, app, photos, add_file, kind):
    if kind == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    library = app.extensions["fovea"].library
    path = photos / f"a 'b' \u00e9\u65e5\n.{kind.lower()}"
    exif = Image.Exif()
    exif.get_ifd(0x8825)[1] = "N"
    Image.new("RGB", (3000, 1500), "orange").save(path, kind, exif=exif)
    image_id = add_file(library, library.roots()[0].id, path)
    about = client.get(f"/api/images/{image_id}").json
    response = client.get(about["thumbnail"].replace("/thumbnail", "/picture"))
    assert (response.status_code, response.mimetype) == (200, "image/jpeg")
    shown = opened(response)
    assert shown.size == (3000, 1500) and not shown.getexif()
    assert shown.getpixel((9, 9)) == pytest.approx((255, 165, 0), abs=6)
    assert "immutable" in response.headers["Cache-Control"]
    disposition = response.headers["Content-Disposition"]
    assert disposition == "inline; filename*=UTF-8''a%20%27b%27%20%C3%A9%E6%97%A5_.jpg"
    again = client.get(
        f"/api/images/{image_id}/picture", headers={"If-None-Match": response.headers["ETag"]}
    )
    assert (again.status_code, again.data) == (304, b"")
    part = client.get(f"/api/images/{image_id}/picture", headers={"Range": "bytes=0-1"})
    assert (part.status_code, part.data) == (206, b"\xff\xd8")


def test_what_cannot_be_converted_is_a_problem(client, app, photos, monkeypatch):
    assert client.get("/api/images/999/picture").status_code == 404
    renderer = app.extensions["fovea.renderer"]

    def fail(error):
        def whole(*args, **options):
            raise error

        monkeypatch.setattr(renderer, "whole", whole)
        return client.get("/api/images/1/picture").status_code

    assert fail(Refused("broken")) == 422
    assert fail(Crowded("too many pictures wait")) == 503
    for path in photos.iterdir():
        path.write_bytes(b"changed")
    assert client.get("/api/images/1/picture").status_code == 410
