"""The page's server and Python over a library on a real Milvus server."""

import hashlib
import io
import os
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

import fovea
from commands import run
from fovea.search.cluster.address import FOLDER, Address
from fovea.search.cluster.client import PAUSE_S
from fovea.search.cluster.ledger import ledger_folder, pass_on
from fovea.search.cluster.store import Store
from fovea.search.errors import LibraryAway, LibraryError
from fovea.search.library.library import Library
from fovea.search.library.rows import ImageMetadata, NewImage
from fovea.search.seam.writing import FileAt, Kept
from fovea.web.app import create_app
from fovea.web.engine.cluster import ClusterEngine
from libraries import NAMED, eventually
from milvus_server import MilvusServer
from toys import ColourEncoder, lazily

BASE = "http://localhost"


@pytest.fixture
def indexed_there(address, cluster, photos, add_file):
    """The eight photos, on Milvus."""
    with Library.open(ledger_folder(address)) as library:
        root = library.add_root(photos)
        for path in sorted(photos.iterdir()):
            add_file(library, root.id, path)
        pass_on(library)
    used = cluster.used(now=True)
    eventually(lambda: cluster.client.count(used.collection) == 8)
    return Path(str(address))


@pytest.fixture
def client(indexed_there):
    app = create_app(indexed_there, encoder_of=lambda model: lazily(ColourEncoder()), testing=True)
    yield app.test_client()
    app.extensions["fovea"].close()


def test_the_page_s_server_searches_filters_and_shows_pictures(client, photos):
    names = sorted(path.name for path in photos.iterdir())
    found = client.get("/api/search?q=red", base_url=BASE).json
    assert found["hits"][0]["name"] == "red.png" and found["total"] == len(names)
    listed = client.get("/api/search?q=sort:name+format:png&limit=3", base_url=BASE).json
    assert [hit["name"] for hit in listed["hits"]] == names[:3]
    more = client.get(f"/api/search?cursor={listed['cursor']}&limit=50", base_url=BASE).json
    assert [hit["name"] for hit in more["hits"]] == names[3:]
    number = found["hits"][0]["image_id"]
    shown = client.get(f"/api/images/{number}", base_url=BASE).json
    assert shown["name"] == "red.png" and shown["width"] == 32 and len(shown["similar"]) == 7
    with client.get(f"/api/images/{number}/original", base_url=BASE) as original:
        assert original.data == (photos / "red.png").read_bytes()
    thumbnail = client.get(f"/api/images/{number}/thumbnail", base_url=BASE)
    assert thumbnail.status_code == 200 and thumbnail.mimetype == "image/webp"
    assert client.get("/api/images/12345", base_url=BASE).status_code == 404
    assert client.get("/api/status", base_url=BASE).json["images"] == len(names)
    facets = client.get("/api/facets", base_url=BASE).json
    assert facets["formats"] == [{"name": "PNG", "count": len(names)}]
    assert client.get("/api/timeline", base_url=BASE).json["total"] == len(names)


def test_another_server_knows_a_picture_by_its_number(client, indexed_there, tmp_path, monkeypatch):
    number = client.get("/api/search?q=blue", base_url=BASE).json["hits"][0]["image_id"]
    monkeypatch.setenv("FOVEA_CLUSTER_FOLDER", str(tmp_path / "another machine"))
    app = create_app(indexed_there, encoder_of=lambda model: lazily(ColourEncoder()), testing=True)
    shown = app.test_client().get(f"/api/images/{number}", base_url=BASE).json
    assert shown["name"] == "blue.png"
    app.extensions["fovea"].close()


def test_marks_are_kept_here_and_filters_know_them(client):
    hits = client.get("/api/search?q=red", base_url=BASE).json["hits"]
    first, second = (hit["image_id"] for hit in hits[:2])
    headers = {"Origin": BASE}
    client.put(f"/api/images/{first}/favourite", base_url=BASE, headers=headers)
    client.put(f"/api/images/{second}/hidden", base_url=BASE, headers=headers)
    found = client.get("/api/search?q=is:favourite", base_url=BASE).json
    assert [hit["image_id"] for hit in found["hits"]] == [first]
    assert client.get("/api/search?q=", base_url=BASE).json["total"] == 7
    hidden = client.get("/api/search?q=is:hidden", base_url=BASE).json
    assert [hit["image_id"] for hit in hidden["hits"]] == [second]


SECRETS = {"letter.png": None, "film.mp4": None, "notes.txt": "its own", "key": None}


@pytest.fixture
def planted(indexed_there, cluster, tmp_path, encoder):
    """Pictures that somebody wrote to Milvus, whose files are others; numbers by their names."""
    folder, store, rows = tmp_path / "home", Store(cluster), []
    folder.mkdir()
    for place, (name, known) in enumerate(SECRETS.items()):
        (folder / name).write_text(f"secret {name}")
        content = hashlib.sha256((folder / name).read_bytes()).digest()
        status = (folder / name).stat()
        times = status.st_size, status.st_mtime_ns, status.st_ctime_ns
        vector = encoder.encode_texts(["red"])[0]
        is_film = name.endswith("mp4")
        facts = ImageMetadata(1, 1, "MP4" if is_film else "PNG", poster_ms=0 if is_film else None)
        digest = content if known else bytes([place + 1]) * 32
        file = FileAt(bytes(folder / name), b"/", *times)
        rows.append(Kept(NewImage(digest, status.st_size, facts, vector), (file,)))
    store.upsert(rows)
    eventually(lambda: cluster.client.count(store.collection) == 8 + len(SECRETS))
    return folder


def test_who_writes_to_milvus_gets_no_files_of_this_machine(client, planted):
    hits = client.get("/api/search?q=sort:name&limit=50", base_url=BASE).json["hits"]
    found = {hit["name"]: hit["image_id"] for hit in hits if hit["name"] in SECRETS}
    assert set(found) == set(SECRETS)
    client.application.extensions["fovea.may_show"] = lambda asked: True
    for name, number in found.items():
        for kind in ("original", "thumbnail", "preview", "picture"):
            answer = client.get(f"/api/images/{number}/{kind}", base_url=BASE)
            assert answer.status_code == 410 and b"secret" not in answer.data, (name, kind)
            assert "run fovea index" in answer.json["detail"]
        shown = client.post(
            f"/api/images/{number}/show", base_url=BASE, headers={"Origin": BASE}, json={}
        )
        assert shown.status_code == 410
    body = {"ids": [hit["image_id"] for hit in hits], "format": "zip"}
    sent = client.post("/api/exports", base_url=BASE, json=body, headers={"Origin": BASE})
    with zipfile.ZipFile(io.BytesIO(sent.data)) as archive:
        names = set(archive.namelist())
        assert len(names) == 9 and "missing.txt" in names and not names & set(SECRETS)
    assert b"secret " not in sent.data


def test_nor_do_commands_copy_or_open_them(planted, indexed_there, monkeypatch, tmp_path):
    monkeypatch.setattr(fovea.Library, "_found_encoder", lambda self: lazily(ColourEncoder()))
    opened = []
    monkeypatch.setattr(
        "fovea.cli.terminal.viewer.open_files", lambda files: opened.extend(files) or []
    )
    words = ("search", "sort:name", "-k", "50", "--library", indexed_there)
    done = run(*words, "--copy-to", tmp_path / "copies", "--open")
    assert done.code == 1 and done.err.count("it is not the picture that was indexed") == 8
    copies = sorted(path.name for path in (tmp_path / "copies").iterdir())
    assert len(copies) == 8 and copies == sorted(Path(path).name for path in opened)
    assert not set(copies) & set(SECRETS)


def test_a_file_that_changes_after_it_was_shown_is_shown_no_more(client, photos):
    number = client.get("/api/search?q=red", base_url=BASE).json["hits"][0]["image_id"]
    path = f"/api/images/{number}/original"
    settled = (photos / "red.png").stat().st_mtime_ns - 10**10
    os.utime(photos / "red.png", ns=(settled, settled))
    for _ in range(2):
        with client.get(path, base_url=BASE) as answer:
            assert answer.data == (photos / "red.png").read_bytes()
    (photos / "red.png").write_bytes((photos / "blue.png").read_bytes())
    assert client.get(path, base_url=BASE).status_code == 410


def test_a_file_with_another_time_is_shown_and_nothing_is_indexed(client, photos):
    number = client.get("/api/search?q=red", base_url=BASE).json["hits"][0]["image_id"]
    os.utime(photos / "red.png", (10**9, 10**9))
    assert sent(client, f"/api/images/{number}/original")[0] == 200
    changed = client.application.extensions["fovea.changed_files"]
    assert not changed.tell(str(photos / "red.png"))  # that thread would raise


def test_clip_retrieval_s_protocol_leaves_out_near_duplicates(client):
    def captions(**asked):
        answer = client.post("/knn-service", base_url=BASE, json={"text": "red"} | asked)
        assert answer.status_code == 200, answer.json
        return [hit["caption"] for hit in answer.json]

    every = captions(deduplicate=False)
    twins = {"red.png", "maroon.png"}  # of one direction
    assert len(every) == 8 and set(every[:2]) == twins
    assert captions() == [every[0], *every[2:]]


def test_answers_do_not_change_the_library_and_marks_and_new_files_do(client, cluster, monkeypatch):
    monkeypatch.setattr("fovea.web.engine.cluster.POLL_S", -1.0)
    engine = client.application.extensions["fovea"]
    before, rows = engine.generation, engine.rows_version
    number = client.get("/api/search?q=red", base_url=BASE).json["hits"][0]["image_id"]
    assert engine.generation == before and engine.rows_version != rows
    client.put(f"/api/images/{number}/favourite", base_url=BASE, headers={"Origin": BASE})
    marked = engine.generation
    assert marked != before
    store = Store(cluster)
    [pictures] = store.pictures()
    store.upsert([replace(pictures[0], place=NAMED[1])])
    cluster.client.flush(store.collection)
    eventually(lambda: engine.generation != marked)
    assert store.count() == 8


def test_a_picture_whose_rows_are_here_is_shown_without_milvus(client, monkeypatch):
    number = client.get("/api/search?q=red", base_url=BASE).json["hits"][0]["image_id"]
    paths = [f"/api/images/{number}/{part}" for part in ("thumbnail", "original")]
    before = [sent(client, path) for path in paths]
    assert [status for status, _ in before] == [200, 200]

    def away(self):
        raise LibraryAway("it is away", "away")

    with monkeypatch.context() as patched:
        patched.setattr("fovea.search.cluster.client.Client._connected", away)
        assert [sent(client, path) for path in paths] == before
        assert client.get(f"/api/images/{number}", base_url=BASE).status_code == 503
        assert client.get("/api/images/12345/thumbnail", base_url=BASE).status_code == 503


def sent(client, path):
    with client.get(path, base_url=BASE) as answer:
        return answer.status_code, answer.data


def test_one_request_counts_for_menus_and_others_do_not_wait(tmp_path, monkeypatch):
    monkeypatch.setenv(FOLDER, str(tmp_path))
    counted, may_end = [], threading.Event()

    def menus(source, most):
        counted.append(most)
        assert may_end.wait(30)
        return {"formats": len(counted)}

    monkeypatch.setattr("fovea.search.cluster.searcher.menus", menus)
    monkeypatch.setattr(ClusterEngine, "_source", lambda self: None)
    engine = ClusterEngine(Address("127.0.0.1", 1, "nowhere"), ahead=False)
    with ThreadPoolExecutor(4) as pool:
        first = [pool.submit(engine.facets) for _ in range(4)]
        eventually(lambda: counted)
        may_end.set()
        assert [one.result()["formats"] for one in first] == [1] * 4
        monkeypatch.setattr("fovea.web.engine.cluster.FACETS_S", -1.0)
        may_end.clear()
        anew = pool.submit(engine.facets)
        eventually(lambda: len(counted) == 2)
        assert engine.facets() == {"formats": 1}
        may_end.set()
        assert anew.result() == {"formats": 2}
    engine.close()


def test_what_it_cannot_do_is_said(client):
    asked = client.get("/api/search?q=text:hello", base_url=BASE)
    assert asked.status_code == 400 and "text:" in asked.json["detail"]
    scan = client.post("/api/scans", json={}, base_url=BASE, headers={"Origin": BASE})
    assert scan.status_code == 403 and "fovea index FOLDER --library" in scan.json["detail"]


def test_python_searches_it_and_says_what_it_does_not(indexed_there, monkeypatch):
    monkeypatch.setattr(fovea.Library, "_found_encoder", lambda self: lazily(ColourEncoder()))
    with fovea.Library.open(str(indexed_there)) as library:
        assert library.counts().images == 8
        assert library.search("lime", k=1).hits[0].path.endswith("lime.png")
        with pytest.raises(LibraryError, match="fovea index"):
            library.index("/tmp")


@pytest.fixture(scope="module")
def own_server(milvus, tmp_path_factory):
    """Another server, which a test may stop."""
    if not isinstance(milvus, MilvusServer):
        pytest.skip("the server that FOVEA_TEST_MILVUS names is not to be stopped")
    return milvus


def test_a_milvus_that_is_away_is_one_line_and_comes_back(own_server, client, monkeypatch):
    assert client.get("/api/search?q=red", base_url=BASE).status_code == 200
    own_server.stop()
    for path in ("/api/search?q=blue", "/api/search?q=", "/api/status"):
        answer = client.get(path, base_url=BASE)
        assert answer.status_code == 503, path
        assert "does not answer" in answer.json["detail"] and "\n" not in answer.json["detail"]
    assert client.get("/", base_url=BASE).status_code == 200
    own_server.start()

    def is_back():
        return client.get("/api/search?q=blue", base_url=BASE).status_code == 200

    eventually(is_back, seconds=60 + PAUSE_S)
