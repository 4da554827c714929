"""Kept answers and counts: what would be made anew, and never older than the library."""

import json
import threading

import pytest
from PIL import Image

from fovea.search.clip.errors import ModelError
from fovea.search.library.library import Library
from fovea.web.app import create_app
from toys import TolerantEncoder, lazily


@pytest.fixture
def engine(app):
    return app.extensions["fovea"]


def text_of(response):
    """The document, without what differs from one answer to the next."""
    assert response.status_code == 200, response.json
    found = json.loads(response.get_data(as_text=True))
    assert found.pop("took_ms") >= 0
    return found


def written(app, document):
    with app.test_request_context():
        return app.json.response(document).data


def names(client, query="blue", **more):
    found = client.get("/api/search", query_string={"q": query} | more).json
    return [hit["name"] for hit in found["hits"]]


def counted(library, monkeypatch):
    """The statements that any connection executes from now on."""
    seen, rows = [], Library.rows

    def noted(self, sql, parameters=()):
        seen.append(sql)
        return rows(self, sql, parameters)

    monkeypatch.setattr(Library, "rows", noted)
    return seen


@pytest.mark.parametrize("query", ["red", "", "red sort:date", "is:square", "a red -blue"])
def test_a_repeated_answer_is_the_same_document(client, app, query):
    first, again = (client.get("/api/search", query_string={"q": query}) for _ in range(2))
    assert text_of(first) == text_of(again)
    assert first.content_type == again.content_type == "application/json"
    assert again.data == written(app, again.json), "as Flask writes it"


def test_a_name_that_is_not_text_is_written_as_flask_writes_it(colour_library, app, client, photos):
    path = str(photos / "blue.png").encode()
    [(image,)] = colour_library.rows("SELECT image_id FROM files WHERE path = ?", [path])
    with colour_library.transaction() as conn:
        conn.execute("UPDATE files SET path = ? WHERE path = ?", (path[:-8] + b'\xff"\n.png', path))
    for _ in range(2):
        answer = client.get("/api/search?q=blue&limit=1")
        [hit] = answer.json["hits"]
        assert hit["image_id"] == image and hit["name"] == '\udcff"\n.png'
        assert answer.data == written(app, answer.json)


def test_a_repeated_answer_asks_the_database_for_nothing(client, colour_library, monkeypatch):
    before = text_of(client.get("/api/search?q=blue"))
    seen = counted(colour_library, monkeypatch)
    assert text_of(client.get("/api/search?q=blue")) == before
    assert seen == []


def test_a_new_question_does_not_count_the_library_again(client, colour_library, monkeypatch):
    client.get("/api/search?q=blue")
    seen = counted(colour_library, monkeypatch)
    assert client.get("/api/search?q=lime").json["total"] == 8
    assert seen and not any("count(*)" in sql for sql in seen)


def test_searching_and_the_list_of_folders_keep_their_own(client):
    for query in ("red", "blue"):
        assert client.get("/api/search", query_string={"q": query}).status_code == 200
        [root] = client.get("/api/roots").json["roots"]
        assert root["images"] == 8


def test_what_is_added_is_in_the_next_answer(client, colour_library, photos, add_file):
    assert client.get("/api/search?q=blue").json["total"] == 8
    path = photos / "azure.png"
    Image.new("RGB", (31, 24), "blue").save(path)
    with Library.open(colour_library.folder) as other:
        add_file(other, other.roots()[0].id, path)
    found = client.get("/api/search?q=blue").json
    assert found["total"] == 9
    assert {hit["name"] for hit in found["hits"][:2]} == {"blue.png", "azure.png"}


@pytest.mark.parametrize("way", ["delete_files", "mark_missing", "hide"])
def test_what_is_gone_is_in_no_later_answer(client, colour_library, photos, way):
    assert names(client)[0] == "blue.png"
    path = str(photos / "blue.png").encode()
    if way == "delete_files":
        colour_library.delete_files([path])
    elif way == "mark_missing":
        colour_library.mark_missing([path])
    else:
        colour_library.mark_skipped([(path, "hidden")])
    for query in ("blue", "something blue"):  # a repeated one, and a new one with kept counts
        found = client.get("/api/search", query_string={"q": query}).json
        assert "blue.png" not in [hit["name"] for hit in found["hits"]]
        assert (found["total"], len(found["hits"])) == (7, 7)


def test_a_renamed_file_is_renamed_in_a_repeated_answer(client, colour_library, photos):
    assert names(client)[0] == "blue.png"
    path = str(photos / "blue.png").encode()
    with colour_library.transaction() as conn:
        new = str(photos / "blau.png").encode()
        conn.execute("UPDATE files SET path = ? WHERE path = ?", (new, path))
    assert names(client)[0] == "blau.png"


def test_a_folder_that_goes_offline_is_marked_in_a_repeated_answer(
    client, photos, tmp_path, monkeypatch
):
    monkeypatch.setattr("fovea.search.library.reachable.KEPT_S", 0.0)
    assert not client.get("/api/search?q=blue").json["hits"][0]["offline"]
    photos.rename(tmp_path / "elsewhere")
    assert client.get("/api/search?q=blue").json["hits"][0]["offline"]
    (tmp_path / "elsewhere").rename(photos)
    assert not client.get("/api/search?q=blue").json["hits"][0]["offline"]


def test_hits_are_not_kept_where_a_folder_goes_offline_while_they_are_read(
    client, engine, photos, tmp_path, monkeypatch
):
    monkeypatch.setattr("fovea.search.library.reachable.KEPT_S", 0.0)
    offline = engine.offline

    def gone_afterwards():
        found = offline()
        if photos.exists():
            photos.rename(tmp_path / "elsewhere")
        return found

    with monkeypatch.context() as going:
        going.setattr(engine, "offline", gone_afterwards)
        assert client.get("/api/search?q=blue").json["hits"][0]["offline"]
    (tmp_path / "elsewhere").rename(photos)
    assert not client.get("/api/search?q=blue").json["hits"][0]["offline"]


def test_a_file_that_has_lost_its_image_is_left_out_of_the_menus(client, colour_library):
    with colour_library.transaction() as conn:
        conn.execute("UPDATE files SET image_id = NULL WHERE id = 1")
    [folder] = client.get("/api/facets").json["folders"]
    assert folder["count"] == 7


def test_kept_hits_have_the_addresses_of_whoever_asks(colour_library):
    encoder = lazily(TolerantEncoder())
    app = create_app(
        colour_library.folder, encoder_of=lambda row: encoder, proxies=["10.0.0.5"],
        token="secret", testing=True,
    )  # fmt: skip
    client = app.test_client()
    for prefix in ("/a", "/b", "/a"):
        found = client.get(
            "/api/search?q=blue&limit=1",
            headers={"X-Forwarded-Prefix": prefix, "Authorization": "Bearer secret"},
            environ_base={"REMOTE_ADDR": "10.0.0.5"},
        )
        assert found.json["hits"][0]["thumbnail"].startswith(f"{prefix}/api/images/")
    refused = client.get("/api/search?q=blue&limit=1", environ_base={"REMOTE_ADDR": "10.0.0.5"})
    assert refused.status_code == 401, "what is kept is for those with the token"
    app.extensions["fovea"].close()


def test_questions_that_arrive_together_are_embedded_together(colour_library):
    class Waiting(TolerantEncoder):
        passes: list[list[str]] = []
        may = threading.Event()

        def encode_texts(self, texts):
            self.passes.append(list(texts))
            assert self.may.wait(60)
            return super().encode_texts(texts)

    encoder = lazily(Waiting())
    encoder._together._free = 1  # as on two cores
    app = create_app(colour_library.folder, encoder_of=lambda row: encoder, testing=True)
    engine, found = app.extensions["fovea"], {}
    engine.turns = threading.BoundedSemaphore(1)

    def ask(colour):
        found[colour] = names(app.test_client(), f"a {colour}")[0]

    colours = ["cyan", "lime", "blue", "yellow"]
    threads = [threading.Thread(target=ask, args=(colour,)) for colour in colours]
    threads[0].start()
    while not Waiting.passes:
        threading.Event().wait(0.01)
    for thread in threads[1:]:
        thread.start()
    while len(encoder._together._waiting) < 3:
        threading.Event().wait(0.01)
    Waiting.may.set()
    for thread in threads:
        thread.join(60)
    assert [len(texts) for texts in Waiting.passes] == [1, 3]
    assert found == {colour: f"{colour}.png" for colour in colours}
    engine.close()


def test_a_model_that_cannot_be_loaded_spoils_no_answer_without_words(colour_library):
    def missing(row):
        raise ModelError("there is no such model here")

    app = create_app(colour_library.folder, encoder_of=missing, testing=True)
    client = app.test_client()
    assert client.get("/api/search?q=blue").status_code == 503
    assert len(names(client, "")) == 8
    image = client.get("/api/search?q=").json["hits"][0]["image_id"]
    assert client.get(f"/api/search?q=like:{image}").status_code == 200
    app.extensions["fovea"].close()


def test_answers_are_right_while_the_library_changes(client, app, colour_library, photos, add_file):
    """Each answer holds what was committed before its request, and nothing that was deleted."""
    wrong, stop = [], threading.Event()
    state = {"added": 8}  # images committed by now

    def ask(number):
        mine = app.test_client()
        while not stop.is_set():
            at_least = state["added"]
            found = mine.get("/api/search", query_string={"q": f"red {number}", "limit": 200}).json
            at_most = state["added"] + 1  # committed, but not yet counted
            if not at_least <= found["total"] <= at_most or len(found["hits"]) < at_least:
                wrong.append((at_least, found["total"], len(found["hits"])))

    threads = [threading.Thread(target=ask, args=(number % 2,)) for number in range(4)]
    for thread in threads:
        thread.start()
    root = colour_library.roots()[0].id
    for number in range(12):
        path = photos / f"more {number}.png"
        Image.new("RGB", (32 + number, 24), (200, number, 0)).save(path)
        add_file(colour_library, root, path)
        state["added"] += 1
    stop.set()
    for thread in threads:
        thread.join(60)
    assert not wrong
    assert client.get("/api/search?q=blue").json["total"] == 20
