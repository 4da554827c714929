"""The columns that a server keeps of a large library, and the pages and menus made from them."""

import os
import random
import threading
from contextlib import suppress
from itertools import count

import pytest

from fovea.search.errors import LibraryError
from fovea.search.library.library import Library
from fovea.search.library.marks import MARKS, mark
from fovea.search.library.rows import FileWrite, ImageMetadata, NewImage, WriteBatch
from fovea.web.app import create_app
from fovea.web.engine import large
from fovea.web.engine.large import KeptColumns
from toys import TolerantEncoder, lazily
from vectors import clustered

QUERIES = (
    "", "sort:name", "in:2019", "-in:2019 after:2018", "name:img sort:name", "camera:canon",
    "is:portrait", "on:2019-07", "red", "red in:2019", "red after:2019 sort:date", "like:3 -in:b",
    "is:favourite", "is:hidden", "-is:hidden in:2019", "red is:hidden",
)  # fmt: skip
ROOTS = (b"/photos", b"/photos/b", b"/phone")
FOLDERS = ("/photos/2019", "/photos/b", "/photos/b/2019", "/photos/bb", "/phone/2019/07")


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(large, "FEWEST", 10)
    monkeypatch.setattr(large, "QUIET_S", 0.0)


@pytest.fixture
def app(library):
    """The app of a library of some pictures, with columns read when they are asked for."""
    encoder = TolerantEncoder()
    library.set_model(encoder.name, encoder.identity, encoder.dim, "test")
    for root in ROOTS:
        library.add_root(root)
    write(library, range(1, 41))
    shared = lazily(encoder)
    made = create_app(library.folder, encoder_of=lambda row: shared, testing=True)
    engine = made.extensions["fovea"]
    engine._columns = KeptColumns(engine, lambda read: read())
    yield made
    engine.close()


def write(library, numbers):
    """Write pictures; every fourth has a copy in another folder."""
    owners = {root.path: root.id for root in library.roots()}
    new, files = [], []
    for number, vector in zip(numbers, clustered(len(numbers), 3, numbers[0]), strict=True):
        key = number.to_bytes(32, "big")
        taken = None if number % 5 == 0 else f"20{18 + number % 3}-07-{number % 28 + 1:02}T10:00:00"
        camera = (None, "Canon EOS", "NIKON D90")[number % 3]
        sides = (40, 30) if number % 2 else (30, 40)
        metadata = ImageMetadata(*sides, "JPEG", 1, taken, camera)
        new.append(NewImage(key, number, metadata, vector))
        for copy in range(1 + (number % 4 == 0)):
            folder = FOLDERS[(number + copy) % len(FOLDERS)]
            path = os.fsencode(f"{folder}/{'IMG' if number % 3 else 'b'}_{number:05}.jpg")
            inside = [root for root in ROOTS if path.startswith(root + b"/")]
            owner = owners[max(inside, key=len)]
            files.append(FileWrite(path, owner, 1, (10**9 + number) * 10**9, key))
    library.write_batch(WriteBatch(new, files))


def answers(client):
    """Return what the page shows: menus, folders, the status, and three pages of each query."""
    found = {path: client.get(path).json for path in ("/api/facets", "/api/roots", "/api/status")}
    del found["/api/status"]["index"]  # as large as when it was last searched
    for query in QUERIES:
        page = client.get("/api/search", query_string={"q": query, "limit": 9}).json
        pages = [page]
        while pages[-1]["cursor"] and len(pages) < 3:
            following = {"cursor": pages[-1]["cursor"], "limit": 9}
            pages.append(client.get("/api/search", query_string=following).json)
        found[query] = [(page["total"], page["hits"]) for page in pages]
    return found


def test_the_page_shows_the_same_with_columns_and_without(app, library):
    client, engine = app.test_client(), app.extensions["fovea"]
    kept = engine._columns
    for change in (
        lambda: None,
        lambda: library.delete_files([b"/photos/b/IMG_00001.jpg", b"/photos/bb/IMG_00002.jpg"]),
        lambda: write(library, range(41, 60)),
        lambda: mark(library, [n.to_bytes(32, "big") for n in (4, 5, 8, 12)], "hidden", True),
        lambda: mark(library, [n.to_bytes(32, "big") for n in (5, 6)], "favourite", True),
        lambda: library.remove_root(library.roots()[1].id),
    ):
        change()
        engine.columns()
        assert engine.columns() is not None
        with_them = answers(client)
        engine.listings.__init__()
        engine._remembered.clear()
        engine._columns = KeptColumns(engine, None)
        assert engine.columns() is None
        assert answers(client) == with_them
        engine.listings.__init__()
        engine._remembered.clear()
        engine._columns = kept


@pytest.mark.parametrize("seed", range(2))
def test_what_is_said_of_pictures_leaves_their_columns_as_they_are(app, library, seed):
    """Marks, searches and tags by the page; not what others write, marks among it."""
    client, engine, rng = app.test_client(), app.extensions["fovea"], random.Random(seed)
    kept = engine._columns

    def some():
        return rng.sample(range(1, 41), rng.choice((1, 3, 20)))

    def marked():
        wanted = {rng.choice(MARKS): rng.random() < 0.6}
        choice = rng.choice(({"ids": some()}, {"query": "in:2019", "except": some()}))
        client.post("/api/marks", json=choice | wanted)

    def put():
        place = f"/api/images/{rng.randrange(1, 41)}/{rng.choice(MARKS)}"
        assert client.open(place, method=rng.choice(("PUT", "DELETE"))).status_code == 200

    def imported():
        entries = [{"sha256": number.to_bytes(32, "big").hex()} for number in some()]
        assert client.put("/api/marks", json={"fovea": 1, "hidden": entries}).status_code == 200

    def saved():
        search = {"name": str(rng.random()), "query": "red"}
        assert client.post("/api/searches", json=search).status_code == 201

    def taught():
        lesson = {"name": "Rex", "yes": some(), "no": some()[:3], "suggested": True}
        tag = client.post("/api/tags", json=lesson).json["tag"]
        place = f"/api/tags/{tag['id']}"
        assert client.get(f"{place}/suggestions").status_code == 200
        assert client.put(place, json={"name": "Rex"}).status_code == 200
        if rng.random() < 0.5:
            assert client.delete(place).status_code == 204

    def by_others():
        mark(library, [number.to_bytes(32, "big") for number in some()], rng.choice(MARKS), True)
        write(library, range(1000 + rng.randrange(10**6), 1001 + 10**6)[:1])

    def while_others_write():
        with engine.remarks():
            by_others()

    engine.columns()
    for _ in range(6):
        before, change = engine.columns(), rng.choice((marked, put, imported, saved, taught))
        change()
        assert kept.now() is before
        if rng.random() < 0.3:
            before, change = engine.columns(), rng.choice((by_others, while_others_write))
            change()
            assert kept.now() is None or kept.now() is not before
            engine.columns()
        with_them = answers(client)
        engine.listings.__init__()
        engine._remembered.clear()
        engine._columns = KeptColumns(engine, None)
        assert answers(client) == with_them
        engine.listings.__init__()
        engine._remembered.clear()
        engine._columns = kept
        assert len(engine.columns()) == library.rows("SELECT count(*) FROM shown")[0][0]


@pytest.mark.parametrize(
    "path", ["/api/tags", "/api/tags/1/suggestions", "/api/images/1", "/api/search?q=tag:rex"]
)
def test_tags_of_new_pictures_leave_their_columns_as_they_are(app, library, path):
    client, engine = app.test_client(), app.extensions["fovea"]
    client.post("/api/tags", json={"name": "Rex", "yes": [1, 2, 3], "no": [4]})
    write(library, range(41, 60))
    engine.columns()
    before, state = engine.columns(), library.rows("SELECT scored_to FROM tag_probes")
    assert client.get(path).status_code == 200 and engine.columns() is before is not None
    assert library.rows("SELECT scored_to FROM tag_probes") > state, "they were compared with it"


def test_a_tag_finds_the_same_with_columns_as_it_is_taught(app):
    client, engine = app.test_client(), app.extensions["fovea"]

    def found():
        page = client.get("/api/search", query_string={"q": "tag:rex in:2019", "limit": 100}).json
        return {hit["image_id"] for hit in page["hits"]}

    engine.columns()
    before, kept = engine.columns(), engine._columns
    for lesson in ({"yes": [5, 9]}, {"yes": [1, 2, 3]}, {"no": [9]}, {"neither": [1, 2, 3, 5]}):
        client.post("/api/tags", json={"name": "Rex", **lesson})
        with_them = found()
        assert engine.columns() is before is not None
        engine._columns = KeptColumns(engine, None)
        engine._remembered.clear()
        engine.listings.__init__()
        assert found() == with_them
        engine._columns = kept


def test_the_menu_of_folders_counts_each_picture_once(app, library):
    engine = app.extensions["fovea"]
    engine.columns()
    found = app.test_client().get("/api/facets").json["folders"]
    rows = library.rows("SELECT path, image_id FROM files WHERE state = 'indexed'")
    for entry in found:
        below = {image for path, image in rows if path.startswith(entry["path"].encode() + b"/")}
        assert entry["count"] == len(below), entry
    assert {entry["path"] for entry in found} >= {*FOLDERS, "/photos", "/phone"}


def test_columns_are_never_older_than_the_library(app, library):
    """While another connection writes, and only adds."""
    engine, stop = app.extensions["fovea"], threading.Event()

    def write_on():
        with Library.open(library.folder) as mine:
            for number in count(100):
                if stop.is_set():
                    break
                write(mine, range(number, number + 1))
                stop.wait(0.02)

    writer = threading.Thread(target=write_on)
    writer.start()
    kept, seen = KeptColumns(engine, None), 0  # which reads when this test says so
    try:
        while seen < 20:
            [(before,)] = library.rows("SELECT count(*) FROM shown")
            since = engine.pictures_since
            found = kept.read()
            if engine.pictures_since == since:  # as when it is kept
                kept._kept = (since, found)
            columns = kept.now()
            [(after,)] = library.rows("SELECT count(*) FROM shown")
            if columns is not None:
                seen += 1
                assert before <= len(columns) <= after
    finally:
        stop.set()
        writer.join()
    engine.columns()
    assert len(engine.columns()) == library.rows("SELECT count(*) FROM shown")[0][0]


def test_an_answer_from_older_columns_is_not_kept_for_the_newer_library(app, library, monkeypatch):
    """The library changes between the columns and the answer from them."""
    engine, client, paths = app.extensions["fovea"], app.test_client(), [b"/photos/b/IMG_00001.jpg"]
    engine.columns()
    searcher = engine.searcher

    def changed_after(question):
        found = searcher(question)
        assert found.columns is None or len(found.columns) == 40
        if paths:
            library.delete_files([paths.pop()])
        return found

    monkeypatch.setattr(engine, "searcher", changed_after)
    client.get("/api/search?q=sort:name")
    assert not paths
    monkeypatch.setattr(engine, "searcher", searcher)
    assert client.get("/api/search?q=sort:name").json["total"] == 39


def test_a_library_that_could_not_be_read_for_a_while_has_columns_later(app, library, monkeypatch):
    engine = app.extensions["fovea"]

    def unreadable(self):
        raise LibraryError("the disk is gone")

    def in_background(read):
        with suppress(LibraryError):
            read()

    engine._columns = KeptColumns(engine, in_background)
    with monkeypatch.context() as gone:
        gone.setattr(type(engine), "generation", property(unreadable))
        assert engine.columns() is None
    engine.columns()
    assert len(engine.columns()) == 40


def test_a_small_library_has_no_columns(app, monkeypatch):
    monkeypatch.setattr(large, "FEWEST", 41)
    engine = app.extensions["fovea"]
    assert engine.columns() is None and engine.columns() is None


def test_nothing_is_read_while_the_library_changes(app, library, monkeypatch):
    """Columns are read only once the library was left alone for a while."""
    engine, waits = app.extensions["fovea"], []

    def wait(seconds):
        waits.append(seconds)
        if len(waits) < 4:
            write(library, range(200 + len(waits), 201 + len(waits)))
        return False

    reads = []
    read = engine._columns.read
    monkeypatch.setattr(engine.closing, "wait", wait)
    monkeypatch.setattr(engine._columns, "read", lambda: reads.append(len(waits)) or read())
    engine.columns()
    assert reads == [4] and len(engine.columns()) == 43


def test_columns_read_in_vain_are_read_again_later(app, library, monkeypatch):
    monkeypatch.setattr(large, "QUIET_S", 1.0)
    engine, waits = app.extensions["fovea"], []
    read = engine._columns.read

    def changed_meanwhile():
        found = read()
        if len(waits) < 3:
            write(library, range(200 + len(waits), 201 + len(waits)))
        return found

    monkeypatch.setattr(engine.closing, "wait", lambda seconds: waits.append(seconds))
    monkeypatch.setattr(engine._columns, "read", changed_meanwhile)
    engine.columns()
    assert len(engine.columns()) == 41
    assert waits == [1.0, 2.0, 2.0]


def test_browsing_does_not_wait_for_the_index(app, monkeypatch):
    """Which takes seconds to load for a million pictures."""
    engine = app.extensions["fovea"]

    def loading():
        raise AssertionError("the index is asked for")

    monkeypatch.setattr(engine, "index", loading)
    monkeypatch.setattr(engine, "background", loading)
    client = app.test_client()
    first = client.get("/api/search?limit=9").json
    assert (first["total"], len(first["hits"])) == (40, 9) and first["model"] == "colour"
    assert len(client.get(f"/api/search?limit=50&cursor={first['cursor']}").json["hits"]) == 31
    assert client.get("/api/search?q=in:2019 sort:name").json["total"] > 0
    assert client.get("/").status_code == 200
    assert client.get("/api/search?q=red").status_code == 500


def test_a_server_that_stops_while_columns_are_read_stops_quietly(app, monkeypatch):
    engine = app.extensions["fovea"]
    read = engine._columns.read

    def stopped_meanwhile():
        engine.close()
        return read()

    monkeypatch.setattr(engine._columns, "read", stopped_meanwhile)
    engine.columns()
    assert engine._columns._kept is None and not engine._columns._reading.locked()


@pytest.mark.parametrize("moment", ["waiting", "after reading"])
def test_a_server_that_stops_at_any_moment_stops_quietly(app, monkeypatch, moment):
    engine = app.extensions["fovea"]
    closing, read = engine.closing.wait, engine._columns.read

    def waited(seconds):
        found = closing(seconds)
        engine.close()
        return found

    def stopped():
        found = read()
        engine.close()
        return found

    if moment == "waiting":
        monkeypatch.setattr(engine.closing, "wait", waited)
    else:
        monkeypatch.setattr(engine._columns, "read", stopped)
    engine.columns()
    assert engine._columns._kept is None and not engine._columns._reading.locked()
