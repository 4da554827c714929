"""The way of a library from a former bundled model to the present one."""

import shutil
from pathlib import Path

import pytest

import fovea
import fovea.data as data
from coloured import COLOURS, encoded
from commands import run
from fovea.data import BUNDLED, FORMER
from fovea.search.library.library import Library
from fovea.search.maintenance.changeover import changing
from fovea.search.models.lazy import LazyEncoder
from fovea.search.models.resolve import resolve_model
from fovea.web.app import create_app
from places import DRAWINGS
from shipped_models import FORMER_NAME, identity, ship_before, ship_now, write_editions
from small_clips import RESNET, write_model

LINE = (
    f"fovea: this library uses {FORMER_NAME}, which was bundled earlier; "
    "to change to the better bundled model: fovea models use fovea-small"
)


def settle(patch, folder):
    patch.setenv("FOVEA_LIBRARY", str(folder / "library"))
    patch.setenv("FOVEA_MODELS", str(folder / "models"))
    patch.setenv("FOVEA_OFFLINE", "1")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Pictures of one colour each, and a library of them made before the model was replaced."""
    folder = tmp_path_factory.mktemp("made")
    write_editions(folder / "shipped")
    (folder / "photos").mkdir()
    for number, colour in enumerate(COLOURS):
        (folder / "photos" / f"{colour}.png").write_bytes(encoded(colour, number))
    with pytest.MonkeyPatch.context() as patch:
        settle(patch, folder)
        ship_before(patch, folder / "shipped")
        done = run("index", folder / "photos", "--workers", 1, "--dtype", "float32")
        assert done.code == 0, done.err
        assert "bundled earlier" not in done.err
        (folder / "before.json").write_text(run("search", "the dog", "--json").out)
    return folder


@pytest.fixture
def own(made, tmp_path, monkeypatch):
    """That library since the model was replaced, in a copy; its photos are those of ``made``."""
    settle(monkeypatch, tmp_path)
    shutil.copytree(made / "library", tmp_path / "library")
    ship_now(monkeypatch, made / "shipped")
    return tmp_path


def lines(done):
    """What a command that went well told, line by line."""
    assert done.code == 0, done.err
    return done.err.splitlines()


def test_the_library_is_one_of_its_time(own, made):
    with Library.open(own / "library") as library:
        rows = library.rows("SELECT name, identity, source FROM models")
    assert rows == [("fovea-small", identity(made / "shipped" / FORMER_NAME), "bundled")]


def test_words_are_still_searched_with_the_former_model(own, made):
    done = run("search", "the dog", "--json")
    assert lines(done) == [LINE]
    before = (made / "before.json").read_text()
    assert f'"model": "{FORMER_NAME}"' in done.out and '"model": "fovea-small"' in before
    assert done.out.partition('"total"')[2] == before.partition('"total"')[2]


@pytest.mark.parametrize("words", [["search", "--image"], ["similar"]])
def test_pictures_are_still_searched_with_the_former_model(own, tmp_path, words):
    (tmp_path / "new.png").write_bytes(encoded("red", 50))
    done = run(*words, tmp_path / "new.png", "-k", 1)
    assert lines(done).count(LINE) == 1
    assert done.out.strip().endswith("red.png")


def test_new_pictures_are_indexed_with_the_former_model(own, made):
    (own / "more").mkdir()
    (own / "more" / "new.png").write_bytes(encoded("red", 99))
    done = run("index", own / "more", "--workers", 1)
    assert lines(done) == [LINE]
    assert f"1 embedded by {FORMER_NAME}" in done.out
    found = run("search", "the dog", "--json").json["hits"]
    assert len(found) == 7
    with Library.open(own / "library") as library:
        assert {model.identity for model in library.models()} == {
            identity(made / "shipped" / FORMER_NAME)
        }


def test_a_dry_run_tells_nothing(own):
    done = run("index", "--dry-run")
    assert lines(done) == [] and f"0 would be embedded by {FORMER_NAME}" in done.out


def test_status_tells_it(own):
    done = run("status", "--json")
    assert lines(done) == [LINE]
    assert (done.json["model"], done.json["better_bundled"]) == (FORMER_NAME, "fovea-small")
    done = run("status")
    assert lines(done) == [LINE] and f"model\t{FORMER_NAME}\n" in done.out


def test_the_command_names_a_library_that_is_not_the_default_one(own, monkeypatch):
    monkeypatch.setenv("FOVEA_LIBRARY", str(own / "another"))
    place = own / "a library"
    (own / "library").rename(place)
    assert lines(run("status", "--library", place)) == [f"{LINE} --library '{place}'"]


def test_an_error_stays_one_line(own):
    done = run("search", "size:huge")
    assert done.code == 1 and done.err.count("\n") == 1 and LINE not in done.err


def test_nothing_is_told_while_the_model_is_being_changed(own):
    with Library.open(own / "library") as other, changing(other):
        assert lines(run("status")) == lines(run("index", "--workers", 1)) == []
    assert lines(run("status")) == lines(run("index", "--workers", 1)) == [LINE]


def test_with_downloads_it_is_one_line_still(own, monkeypatch):
    monkeypatch.delenv("FOVEA_OFFLINE")
    for words in (["index", "--workers", 1], ["status"], ["search", "the dog", "--json"]):
        assert lines(run(*words)) == [LINE]


def test_a_better_model_on_the_disk_is_named_instead(own, tmp_path):
    write_model(tmp_path / "models" / "ViT-B-32")
    said = (
        f"fovea: this library uses {FORMER_NAME}, which was bundled earlier; the bundled model is "
        "better now, and ViT-B/32, on this disk, better still: fovea models use ViT-B/32"
    )
    for words in (["index", "--workers", 1], ["status"], ["search", "the dog", "--json"]):
        assert lines(run(*words)) == [said]
    assert run("status", "--json").json["better_bundled"] == "fovea-small"


def test_the_server_tells_it(own, monkeypatch):
    def serve(app, host, port, on_ready):
        on_ready(8000)

    monkeypatch.setattr("fovea.web.serving.server.serve", serve)
    assert lines(run("serve", "--no-browser")) == [LINE, "fovea: stopped"]
    assert lines(run("serve", "--no-browser", "--model", "RN50")) == ["fovea: stopped"]


def test_indexing_with_the_present_model_changes_nothing_by_itself(own):
    done = run("index", "--model", "fovea-small")
    assert done.code == 1 and done.err.count("\n") == 1
    assert f"uses {FORMER_NAME}, not fovea-small; to change its model: fovea models use" in done.err


def test_the_former_model_is_described_and_not_listed(own):
    assert run("models", "info", "--json").json["name"] == FORMER_NAME
    assert run("models", "info", FORMER_NAME, "--json").json["source"] == "bundled"
    assert run("models", "info", "fovea-small", "--json").json["name"] == "fovea-small"
    assert FORMER_NAME not in run("models", "list").out


def test_a_comparison_shows_both_and_changes_nothing(own):
    done = run("models", "use", "fovea-small", "--compare", "the dog", "--workers", 1)
    assert done.code == 0, done.err
    header = done.out.splitlines()[0].split("  |  ")
    assert [column.strip() for column in header] == [
        f"{FORMER_NAME}, 6 pictures", "fovea-small, 6 pictures",
    ]  # fmt: skip
    assert f"the library still uses {FORMER_NAME}" in done.err
    assert run("status", "--json").json["model"] == FORMER_NAME


def test_a_library_changes_to_the_present_model_and_back(own, made):
    done = run("models", "use", "fovea-small", "--workers", 1)
    assert done.code == 0, done.err
    assert done.out.startswith("the library now uses fovea-small: 6 pictures, 6 embedded in ")
    assert run("models", "use", "fovea-small").err.endswith("already uses fovea-small\n")
    done = run("status", "--json")
    assert lines(done) == []
    assert (done.json["model"], done.json["better_bundled"]) == ("fovea-small", None)
    assert done.json["former"] == [
        {
            "model": FORMER_NAME,
            "sha256": identity(made / "shipped" / FORMER_NAME),
            "embedded": 6,
        }
    ]
    assert f"kept\t6 embeddings by {FORMER_NAME}" in run("status").out
    assert lines(run("search", "the dog")) == []
    assert run("verify").code == 0
    back = run("models", "use", FORMER_NAME, "--json").json
    assert (back["switched"], back["embedded"]) == (True, 0)
    before = (made / "before.json").read_text()
    assert (
        run("search", "the dog", "--json").out.partition('"hits"')[2]
        == (before.partition('"hits"')[2])
    )


def test_the_former_embeddings_can_be_removed(own):
    assert run("models", "use", "fovea-small", "--workers", 1).code == 0
    done = run("models", "remove", FORMER_NAME)
    assert done.code == 0 and f"deleted 6 embeddings by {FORMER_NAME}" in done.out
    assert run("verify").code == 0
    assert run("status", "--json").json["former"] == []


@pytest.mark.parametrize("name", [FORMER_NAME, "fovea-small"])
def test_what_is_in_use_or_not_there_cannot_be_removed(own, name):
    done = run("models", "remove", name)
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert run("status", "--json").json["embeddings"] == 6


def test_an_interrupted_change_names_both(own, made):
    photos = made / "photos"
    away = photos.rename(made / "away")
    try:
        done = run("models", "use", "fovea-small", "--workers", 1)
    finally:
        away.rename(photos)
    assert done.code == 1 and f"the library still uses {FORMER_NAME}" in done.err
    status = run("status")
    assert "switching\tto fovea-small, 0 of 6 pictures; interrupted" in status.out
    assert lines(status) == [LINE]


def test_verify_names_the_former_model(own):
    with Library.open(own / "library") as library, library.transaction() as conn:
        conn.execute("DELETE FROM embeddings WHERE id = 1")
    assert f"{FORMER_NAME} has not embedded it yet" in run("verify").out


def test_python_goes_the_same_way(own):
    with fovea.Library.open(device="cpu", dtype="float32") as library:
        assert (library.model, library.better_bundled) == (FORMER_NAME, "fovea-small")
        assert library.search("the dog").model == FORMER_NAME
        assert library.index(workers=1).unchanged == 6
        report = library.use_model(library.better_bundled, workers=1)
        assert (report.switched, report.embedded) == (True, 6)
        assert (library.model, library.better_bundled) == ("fovea-small", None)
        assert library.search("the dog").model == "fovea-small"
        assert library.verify().ok


def test_the_web_app_goes_the_same_way(own):
    app = create_app(own / "library", testing=True)
    client = app.test_client()
    try:
        for model, better in ((FORMER_NAME, "fovea-small"), ("fovea-small", None)):
            status = client.get("/api/status").json
            assert (status["model"], status["better_bundled"]) == (model, better)
            answer = client.get("/api/search", query_string={"q": "the dog"}).json
            assert (answer["model"], answer["total"]) == (model, 6)
            assert client.get(answer["hits"][0]["thumbnail"]).status_code == 200
            asked = {"ids": [hit["image_id"] for hit in answer["hits"]], "format": "paths"}
            assert len(client.post("/api/exports", json=asked).text.splitlines()) == 6
            if better:
                assert run("models", "use", better, "--workers", 1).code == 0
    finally:
        app.extensions["fovea"].close()


# The real ones


def test_a_library_made_with_fovea_small_1_goes_all_the_way(tmp_path, monkeypatch):
    settle(monkeypatch, tmp_path)
    [(name, sha256)] = FORMER.items()
    write_model(tmp_path / "fovea-small", RESNET)  # in the place of whichever is bundled now
    shipped = data.shipped
    ours = {BUNDLED: tmp_path / BUNDLED}
    monkeypatch.setattr(data, "shipped", lambda name: ours.get(name) or shipped(name))
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(1, 7):
        shutil.copyfile(DRAWINGS / f"p{number:03}.jpg", photos / f"p{number:03}.jpg")
    done = run("index", photos, "--model", name, "--workers", 1)
    assert done.code == 0, done.err
    with Library.open(tmp_path / "library") as library, library.transaction() as conn:
        # as fovea wrote it when this was the bundled model
        conn.execute("UPDATE models SET name = 'fovea-small'")
        [row] = conn.execute("SELECT name, identity, dim, source FROM models").fetchall()
    assert row == ("fovea-small", sha256, 256, "bundled")

    found = run("search", "a drawing", "--json").json
    assert len(found["hits"]) == 6
    former = LazyEncoder.of(resolve_model(name), device="cpu")
    scores = (
        former.encode_texts(["a drawing"])
        @ former.encode_images([_upright(hit["path"]) for hit in found["hits"]]).T
    )
    assert [hit["score"] for hit in found["hits"]] == pytest.approx(scores[0].tolist(), abs=0.02)
    nearest = run("similar", photos / "p001.jpg", "--json").json["hits"]
    assert len(nearest) == 5
    shutil.copyfile(DRAWINGS / "p007.jpg", photos / "p007.jpg")
    assert "1 embedded by " in run("index", "--workers", 1).out
    assert run("status", "--json").json["embeddings"] == 7
    status = run("status", "--json")
    assert (status.json["model"], status.json["better_bundled"]) == (name, BUNDLED)
    assert lines(status) == [LINE]
    done = run("models", "use", "fovea-small", "--workers", 1)
    assert done.out.startswith("the library now uses fovea-small: 7 pictures, 7 embedded in ")
    found = run("search", "a drawing", "--json")
    assert lines(found) == []
    assert (found.json["model"], len(found.json["hits"])) == ("fovea-small", 7)
    assert run("verify").code == 0
    assert run("models", "use", name, "--json").json["embedded"] == 0


def _upright(path):
    from PIL import Image

    with Image.open(Path(path)) as image:
        return image.convert("RGB")
