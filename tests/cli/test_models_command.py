"""The commands that change, compare, fetch and remove models."""

import hashlib
import io
import json
import os
import shutil
import sqlite3
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from coloured import COLOURS, encoded
from fovea.cli import cli
from fovea.indexer.switching import background as detached
from fovea.search.errors import FoveaError
from fovea.search.index.vector_index import VectorIndex
from fovea.search.index.view import snapshot_path
from fovea.search.library.library import Library
from fovea.search.library.locks import holder_of
from fovea.search.maintenance.changeover import (
    LOCK,
    changeover,
    changing,
    next_model,
    set_next_model,
)
from fovea.search.models import installed
from fovea.search.models import resolve as models
from loopback import serving
from small_clips import write_model


def run(*words):
    done = CliRunner().invoke(cli, [str(word) for word in words])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    as_json = None
    if "--json" in words and done.stdout.startswith("{"):
        as_json = json.loads(done.stdout)
    return SimpleNamespace(code=done.exit_code, out=done.stdout, err=done.stderr, json=as_json)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two models, and a library of pictures of one colour each by the first of them."""
    folder = tmp_path_factory.mktemp("made")
    write_model(folder / "first")
    write_model(folder / "second", seed=1)
    (folder / "photos").mkdir()
    for number, colour in enumerate(COLOURS):
        (folder / "photos" / f"{colour}.png").write_bytes(encoded(colour, number))
    with pytest.MonkeyPatch.context() as patch:
        settle(patch, folder)
        words = ("--model", folder / "first", "--workers", 1, "--dtype", "float32")
        assert run("index", folder / "photos", *words).code == 0
    return folder


def settle(patch, folder):
    patch.setenv("FOVEA_LIBRARY", str(folder / "library"))
    patch.setenv("FOVEA_MODELS", str(folder / "models"))
    patch.setenv("FOVEA_OFFLINE", "1")
    patch.setattr(installed, "bundled_model", lambda: None)


@pytest.fixture
def own(made, tmp_path, monkeypatch):
    """A copy of it all, to be changed."""
    settle(monkeypatch, tmp_path)
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    with Library.open(tmp_path / "library") as library, library.transaction() as conn:
        conn.execute("UPDATE models SET source = ?", (str(tmp_path / "first"),))
        moved = "CAST(replace(CAST(path AS TEXT), ?, ?) AS BLOB)"
        for table in ("roots", "files"):
            conn.execute(f"UPDATE {table} SET path = {moved}", (str(made), str(tmp_path)))
    return tmp_path


def library_of(folder):
    return Library.open(folder / "library")


def models_of(folder):
    with library_of(folder) as library:
        return [model.name for model in library.models()], library.model().name


def test_a_library_switches_and_back_by_name(own):
    before = run("search", "the dog", "--json").json
    done = run("models", "use", own / "second", "--workers", 1)
    assert done.code == 0, done.err
    assert done.out.startswith("the library now uses second: 6 pictures, 6 embedded in ")
    assert run("search", "the dog", "--json").json["model"] == "second"
    back = run("models", "use", "first", "--json").json
    assert (back["switched"], back["embedded"]) == (True, 0)
    assert run("search", "the dog", "--json").json["hits"] == before["hits"]
    assert run("models", "use", "second", "--json").json["embedded"] == 0


def test_indexing_changes_the_model_first_where_that_is_asked_for(own):
    (own / "more").mkdir()
    (own / "more" / "new.png").write_bytes(encoded("red", 99))
    for place, path in enumerate(sorted((own / "photos").iterdir())):
        path.rename(path.with_name(f"renamed-{place}.png"))
    done = run("index", own / "more", "--model", own / "second", "--switch-model", "--workers", 1)
    assert done.code == 0, done.err
    assert "the library now uses second: " in done.err and "7 embedded by second" in done.out
    assert models_of(own)[1] == "second"
    found = run("search", "the dog", "--json").json["hits"]
    assert sorted(Path(hit["path"]).name for hit in found) == [
        "new.png", *(f"renamed-{place}.png" for place in range(6)),
    ]  # fmt: skip


def test_indexing_keeps_the_model_while_pictures_are_unreachable(own):
    (own / "more").mkdir()
    (own / "more" / "new.png").write_bytes(encoded("red", 99))
    (own / "photos").rename(own / "away")
    words = ("index", own / "more", "--model", own / "second", "--switch-model", "--workers", 1)
    assert "1 would be embedded by second" in run(*words, "--dry-run").out
    done = run(*words)
    assert (done.code, done.out) == (1, "") and "6 unreachable" in done.err
    told = run(*words, "--json")
    assert (told.code, told.json["switched"], told.json["unreachable"]) == (1, False, 6)
    assert models_of(own)[1] == "first"
    (own / "away").rename(own / "photos")
    assert "7 would be embedded by second" in run(*words, "--dry-run").out
    assert models_of(own)[1] == "first"
    done = run(*words)
    assert done.code == 0 and "1 embedded by second" in done.out, done.err
    assert models_of(own)[1] == "second"


def test_a_folder_that_cannot_be_indexed_changes_no_model(own):
    done = run("index", own / "none", "--model", own / "second", "--switch-model")
    assert done.code == 1 and "there is no folder" in done.err
    with library_of(own) as library:
        assert next_model(library) is None and library.model().name == "first"


def test_indexing_by_the_model_in_use_ends_what_was_under_way(own):
    with library_of(own) as library:
        info = models.resolve_model(str(own / "second"))
        set_next_model(
            library, library.add_model(info.name, info.identity, info.dim, info.source).id
        )
        assert run("index", "--model", own / "first", "--switch-model").code == 0
        assert next_model(library) is None


def test_indexing_goes_on_by_the_model_in_use(own):
    run("models", "use", own / "second", "--workers", 1)
    (own / "photos" / "new.png").write_bytes(encoded("red", 99))
    done = run("index", own / "photos", "--workers", 1)
    assert done.code == 0 and "1 embedded by second" in done.out, done.err


def test_the_model_in_use_stays_and_ends_what_was_under_way(own):
    with library_of(own) as library:
        info = models.resolve_model(str(own / "second"))
        row = library.add_model(info.name, info.identity, info.dim, info.source)
        with library.transaction() as conn:
            conn.execute("INSERT INTO library VALUES ('next_model_id', ?)", (row.id,))
        done = run("models", "use", "first", "--json")
        assert done.err.endswith("library already uses first\n")
        assert done.json == {"model": "first", "switched": False}
        assert next_model(library) is None


def test_answers_stand_side_by_side_and_nothing_is_switched(own):
    done = run("models", "use", own / "second", "--compare", "the dog", "-k", 3, "--workers", 1)
    assert done.code == 0, done.err
    header, *lines = done.out.splitlines()
    assert header.split("  |  ") == [
        header.split("  |  ")[0], "second, 6 pictures",
    ]  # fmt: skip
    assert header.startswith("first, 6 pictures") and len(lines) == 3
    for column, name in enumerate(("first", "second")):
        if name == "second":
            run("models", "use", "second")
        alone = [line.split("\t") for line in run("search", "the dog", "-k", 3).out.splitlines()]
        shown = [line.split("  |  ")[column].split() for line in lines]
        assert [(score, place) for score, *_, place in shown] == [(s, p) for s, p in alone]
        assert "the library still uses first" in done.err


def test_a_comparison_for_machines_has_both_answers(own):
    done = run("models", "use", own / "second", "--compare", "the dog", "--json", "--workers", 1)
    sides = done.json["answers"]
    assert [(side["model"], side["embedded"]) for side in sides] == [("first", 6), ("second", 6)]
    assert [len(side["hits"]) for side in sides] == [6, 6]
    told = run("search", "the dog", "--json").json["hits"]
    assert [hit["image_id"] for hit in sides[0]["hits"]] == [hit["image_id"] for hit in told]
    assert models_of(own)[1] == "first"


def test_a_comparison_takes_what_is_there_while_another_process_embeds(own):
    with library_of(own) as other, changing(other):
        done = run("models", "use", own / "second", "--compare", "the dog")
        assert done.code == 0, done.err
        assert "comparing what is embedded so far" in done.err
        assert "second, 0 pictures" in done.out


def test_a_comparison_with_itself_is_told(own):
    done = run("models", "use", "first", "--compare", "x")
    assert (done.code, done.err.count("\n")) == (
        1,
        1,
    ) and "already uses first; name another model" in done.err


@pytest.mark.parametrize("option", ["--background", "--incomplete"])
def test_a_comparison_refuses_options_of_a_change(own, option):
    done = run("models", "use", own / "second", "--compare", "x", option)
    assert done.code == 2 and "--compare changes nothing" in done.err


def test_a_query_that_cannot_be_read_is_told(own):
    done = run("models", "use", own / "second", "--compare", "size:huge", "--workers", 1)
    assert done.code == 1 and done.err.count("\n") == 1


def test_what_holds_a_switch_up_is_told_with_the_next_step(own):
    (own / "photos").rename(own / "away")
    done = run("models", "use", own / "second", "--workers", 1)
    assert (done.code, done.out) == (1, "")
    assert "the library still uses first" in done.err and "6 unreachable" in done.err
    assert "--incomplete" in done.err and done.err.count("\n") == 1
    assert "switching\tto second, 0 of 6 pictures" in run("status").out
    assert "interrupted" in run("status").out
    assert run("status", "--json").json["changeover"] == {
        "model": "second", "images": 6, "embedded": 0, "pid": None,
    }  # fmt: skip
    done = run("models", "use", own / "second", "--incomplete", "--workers", 1)
    assert done.code == 0 and "not searchable until fovea index finds them" in done.err
    assert run("status", "--json").json["changeover"] is None


def test_a_model_embeds_in_the_background_and_then_answers(own):
    done = run("models", "use", own / "second", "--background", "--workers", 1)
    assert done.code == 0, done.err
    assert "embedding with second in the background" in done.err
    deadline = time.monotonic() + 120
    while models_of(own)[1] != "second":
        assert time.monotonic() < deadline, (own / "library" / "changeover.log").read_text()
        time.sleep(0.1)
    while holder_of(own / "library", LOCK):
        time.sleep(0.05)
    with library_of(own) as library:
        assert changeover(library) is None
        assert VectorIndex.open(library, library.model().id).check() == []
    deadline = time.monotonic() + 30
    while '"switched": true' not in (own / "library" / "changeover.log").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_background_that_falls_at_once_says_why(own):
    with library_of(own) as library:
        info = models.resolve_model(str(own / "second"))
        row = library.add_model(info.name, info.identity, info.dim, info.source)
        set_next_model(library, row.id)
    shutil.rmtree(own / "second")
    with pytest.raises(FoveaError, match="there is no model"):
        detached.start(own / "library")
    assert "there is no model" in (own / "library" / "changeover.log").read_text()


def test_a_background_that_is_under_way_is_not_started_twice(own, monkeypatch):
    with library_of(own) as other, changing(other):
        info = models.resolve_model(str(own / "second"))
        set_next_model(other, other.add_model(info.name, info.identity, info.dim, info.source).id)
        monkeypatch.setattr(detached, "start", None)
        done = run("models", "use", own / "second", "--background", "--json")
    assert done.code == 0
    assert f"embedding with second in the background (process {os.getpid()})" in done.err
    assert (done.json["model"], done.json["pid"]) == ("second", str(os.getpid()))


@pytest.mark.parametrize("words", [["nothing"], ["/no/such"], ["./a"]])
def test_a_model_that_is_none_is_one_line(own, words):
    done = run("models", "use", *words)
    assert (done.code, done.err.count("\n")) == (1, 1) and "there is no model" in done.err


def test_a_former_model_that_is_gone_is_told(own):
    run("models", "use", own / "second", "--workers", 1)
    shutil.rmtree(own / "first")
    done = run("models", "use", "first")
    assert done.code == 1 and "first is not available" in done.err


def test_a_library_whose_model_is_gone_can_be_given_another(own):
    shutil.rmtree(own / "first")
    assert "fovea models use MODEL" in run("search", "x").err
    assert run("models", "use", own / "second", "--workers", 1).code == 0
    assert run("search", "the dog", "--json").json["model"] == "second"


# Removing


def test_a_removed_model_leaves_nothing_behind(own):
    run("models", "use", own / "second", "--workers", 1)
    with library_of(own) as library:
        [first, second] = library.models()
        snapshot = snapshot_path(library, first.id)
        VectorIndex.open(library, first.id).save()
    (own / "library" / f"background-{first.identity[:16]}.npz").write_bytes(b"x")
    assert snapshot.exists()
    done = run("models", "remove", "first")
    assert done.out.startswith("deleted 6 embeddings by first: ")
    assert not snapshot.exists() and not list((own / "library").glob(f"*{first.identity[:16]}*"))
    with library_of(own) as library:
        assert [model.name for model in library.models()] == ["second"]
        assert library.rows("SELECT DISTINCT model_id FROM embeddings") == [(second.id,)]
        assert library.rows("SELECT count(*) FROM tombstones") == [(0,)]
        assert library.rows("PRAGMA freelist_count") == [(0,)]
        assert library.rows("PRAGMA integrity_check") == [("ok",)]
    assert run("verify").code in (0, 1) and (own / "first").is_dir()
    assert run("models", "use", own / "first", "--workers", 1, "--json").json["embedded"] == 6


def test_the_model_in_use_is_never_removed(own):
    for words in (["first"], ["first", "--files"], [own / "first"]):
        done = run("models", "remove", *words)
        assert (done.code, done.out) == (1, "")
        assert "uses first; switch to another model first" in done.err
    assert run("search", "the dog").code == 0


def test_a_model_that_embedded_nothing_is_told(own):
    done = run("models", "remove", "ViT-B/32")
    assert done.code == 1 and "has no embeddings by ViT-B/32; fovea status lists" in done.err


def test_nothing_is_removed_while_another_process_embeds_for_it(own):
    run("models", "use", own / "second", "--workers", 1)
    with library_of(own) as other, changing(other):
        assert "is embedding for a change of model" in run("models", "remove", "first").err


def test_two_models_of_one_name_are_told_apart_by_their_checksums(own):
    run("models", "use", own / "second", "--workers", 1)
    write_model(own / "elsewhere" / "first", seed=7)
    run("models", "use", own / "elsewhere" / "first", "--workers", 1)
    run("models", "use", own / "second")
    done = run("models", "remove", "first")
    assert done.code == 1 and "2 models" in done.err
    with library_of(own) as library:
        old = library.models()[0]
    assert old.identity[:12] in done.err
    assert run("models", "remove", old.identity[:12]).code == 0
    assert models_of(own) == (["second", "first"], "second")


def test_files_that_fovea_put_there_go_when_asked_for(own):
    place = own / "models" / "ViT-B-32"
    write_model(place, seed=3)
    assert run("models", "use", "ViT-B/32", "--workers", 1).code == 0
    done = run("models", "remove", "vit-b-32", "--files")
    assert done.code == 1 and "uses ViT-B/32" in done.err and place.is_dir()
    run("models", "use", "first")
    done = run("models", "remove", "ViT-B/32", "--files")
    assert done.code == 0, done.err
    assert "deleted 6 embeddings" in done.out and "of files" in done.out
    assert not place.exists()


def test_files_go_without_a_library(own, monkeypatch):
    write_model(own / "models" / "ViT-B-32", seed=3)
    done = run("models", "remove", "ViT-B/32", "--files", "--library", own / "none")
    assert done.code == 0 and not (own / "models" / "ViT-B-32").exists()
    assert not (own / "none").exists()


def test_files_of_ones_own_are_never_deleted(own):
    run("models", "use", own / "second", "--workers", 1)
    done = run("models", "remove", "first", "--files")
    assert done.code == 1 and "was not downloaded by fovea; delete it yourself" in done.err
    assert (own / "first" / "model.safetensors").is_file()
    assert models_of(own)[0] == ["first", "second"], "and then nothing is removed at all"


# Fetching


def test_a_model_comes_from_an_address_with_its_checksum(own, monkeypatch):
    monkeypatch.delenv("FOVEA_OFFLINE")
    monkeypatch.setenv("no_proxy", "*")
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for path in (own / "second").iterdir():
            archive.write(path, path.name)
    sha256 = hashlib.sha256(file.getvalue()).hexdigest()
    with serving() as served:
        served.files["/mine.zip"] = file.getvalue()
        address = f"{served.url}/mine.zip"
        assert "fovea models pull URL --sha256 HEX" in run("models", "pull", address).err
        wrong = run("models", "pull", address, "--sha256", "0" * 64)
        assert wrong.code == 1 and "has the SHA-256" in wrong.err.splitlines()[-1]
        done = run("models", "pull", address, "--sha256", sha256)
    assert done.out.split("\t")[0] == "mine"
    assert "mine\taddress\t" in run("models", "list").out
    assert run("models", "use", "mine", "--workers", 1, "--json").json["switched"]
    run("models", "use", "first")
    done = run("models", "remove", "mine", "--files")
    assert done.code == 0 and not list((own / "models" / "fetched").iterdir())


def test_a_reader_of_the_library_sees_one_model_or_the_other(own):
    """What answers changes in one transaction: no moment is without a model."""
    reader = sqlite3.connect(own / "library" / "library.db")
    before = reader.execute("SELECT value FROM library WHERE key = 'model_id'").fetchone()
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM embeddings").fetchone()
    assert run("models", "use", own / "second", "--workers", 1).code == 0
    assert reader.execute("SELECT value FROM library WHERE key = 'model_id'").fetchone() == before
    reader.execute("ROLLBACK")
    after = reader.execute("SELECT value FROM library WHERE key = 'model_id'").fetchone()
    reader.close()
    assert after != before
