"""Videos over HTTP: stills of their moments, times of hits, and the file in parts."""

import io
import os

import pytest
from PIL import Image

from films.drawn import film, needs_av
from fovea.search.library.library import Library
from fovea.web.app import create_app
from scanner import Scanner
from toys import TolerantEncoder, lazily

pytestmark = needs_av
SCENES = (("red", 3), ("lime", 3), ("blue", 3))


@pytest.fixture
def films(tmp_path):
    folder = tmp_path / "films"
    folder.mkdir()
    film(folder / "a.mp4", SCENES, muxing={"movflags": "faststart"})
    Image.new("RGB", (16, 16), "cyan").save(folder / "b.png")
    return folder


@pytest.fixture
def client(tmp_path, films):
    with Library.open(tmp_path / "library", create=True) as library:
        scan = Scanner(library)
        scan.encoder = TolerantEncoder()
        assert scan(films).embedded == 2
    shared = lazily(TolerantEncoder())
    app = create_app(tmp_path / "library", encoder_of=lambda row: shared, testing=True)
    yield app.test_client()
    app.extensions["fovea"].close()


def video(client, query="lime"):
    hits = client.get("/api/search", query_string={"q": query}).get_json()["hits"]
    return next(hit for hit in hits if hit["name"] == "a.mp4")


def middle(response):
    assert response.status_code == 200 and response.mimetype == "image/webp"
    image = Image.open(io.BytesIO(response.data)).convert("RGB")
    return tuple(int(value > 80) for value in image.getpixel((image.width // 2, image.height // 2)))


@pytest.mark.parametrize(
    ("words", "place", "colour"),
    [("red", 0, (1, 0, 0)), ("lime", 1, (0, 1, 0)), ("blue", 2, (0, 0, 1))],
)
def test_a_hit_is_shown_by_its_moment(client, words, place, colour):
    hit = video(client, words)
    about = client.get(f"/api/images/{hit['image_id']}").get_json()
    times = [moment["time"] for moment in about["moments"]]
    assert hit["time"] == times[place] == pytest.approx(3 * place, abs=0.9)
    assert hit["duration"] == about["duration"] == pytest.approx(9, abs=0.2)
    assert hit["thumbnail"] == about["moments"][place]["thumbnail"]
    assert middle(client.get(f"{hit['thumbnail']}&size=256")) == colour
    preview = f"/api/images/{hit['image_id']}/preview?at={round(1000 * hit['time'])}"
    assert middle(client.get(preview)) == colour


def test_stills_are_kept_and_may_be_cached_for_good(client, films):
    hit = video(client)
    first = client.get(f"{hit['thumbnail']}&size=512")
    assert "immutable" in first.headers["Cache-Control"]
    os.rename(films / "a.mp4", films / "gone.mp4")
    assert client.get(f"{hit['thumbnail']}&size=512").data == first.data
    etag = {"If-None-Match": first.headers["ETag"]}
    assert client.get(f"{hit['thumbnail']}&size=512", headers=etag).status_code == 304
    other = client.get(f"/api/images/{hit['image_id']}/thumbnail?size=512", headers=etag)
    assert other.status_code != 304  # the poster is another picture


def test_only_moments_have_stills(client):
    hit = video(client)
    address = f"/api/images/{hit['image_id']}/thumbnail"
    assert client.get(f"{address}?at=1234").status_code == 404
    assert client.get(f"{address}?at=-1").status_code == 400
    assert client.get(f"{address}?at=x").status_code == 400
    picture = client.get("/api/search?q=-is:video").get_json()["hits"][0]
    assert client.get(f"/api/images/{picture['image_id']}/thumbnail?at=0").status_code == 404
    assert picture["time"] is None and picture["duration"] is None
    assert client.get(f"/api/images/{picture['image_id']}").get_json()["moments"] == []


def test_browsing_shows_the_poster(client):
    hit = video(client, "is:video")
    assert hit["time"] is None and "at=" not in hit["thumbnail"]
    assert sum(middle(client.get(f"{hit['thumbnail']}&size=256"))) == 1


def test_a_video_that_has_changed_has_no_still(client, films):
    hit = video(client)
    film(films / "a.mp4", [("blue", 2)])
    assert client.get(f"{hit['thumbnail']}&size=256").status_code == 410


def test_the_file_is_sent_in_parts_and_as_what_it_is(client, films):
    hit = video(client)
    whole = (films / "a.mp4").read_bytes()
    with client.get(hit["original"], headers={"Range": "bytes=100-199"}) as part:
        assert (part.status_code, part.data) == (206, whole[100:200])
        assert part.headers["Content-Range"] == f"bytes 100-199/{len(whole)}"
    with client.get(hit["original"]) as answer:
        assert answer.mimetype == "video/mp4" and answer.data == whole
        assert "attachment" not in answer.headers.get("Content-Disposition", "")
    policy = client.get("/").headers["Content-Security-Policy"]
    assert "media-src 'self'" in policy


def test_a_moment_is_a_term(client):
    hit = video(client)
    query = f"like:{hit['image_id']}@0:07 is:video"
    found = client.get("/api/search", query_string={"q": query}).get_json()
    assert found["hits"][0]["time"] == pytest.approx(6, abs=0.9)
    assert found["likes"] == [{"image_id": hit["image_id"], "name": "a.mp4"}]
    wrong = client.get("/api/search", query_string={"q": "like:1@noon"})
    assert wrong.status_code == 400 and wrong.get_json()["code"] == "query.moment"


def test_clip_retrieval_has_the_time(client):
    body = {"text": "lime", "num_images": 5, "deduplicate": False}
    found = client.post("/knn-service", json=body).get_json()
    times = [hit.get("time") for hit in found]
    assert len(found) == 2 and sorted(times, key=str) == [pytest.approx(3, abs=0.9), None]


def test_a_saved_search_keeps_its_moment(client, tmp_path):
    hit = video(client)
    query = f"like:{hit['image_id']}@0:07"
    with Library.open(tmp_path / "library") as library:
        from fovea.search.query.saved import save_search, saved_searches

        save_search(library, "blue one", query)
        [search] = saved_searches(library)
    assert search.query == query
