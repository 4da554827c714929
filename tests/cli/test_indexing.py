import errno
import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from coloured import encoded
from commands import run

INDEX_FIELDS = (
    "found",
    "embedded",
    "unchanged",
    "moved",
    "deleted",
    "failed",
    "skipped",
    "seconds",
)


def test_index_counts_what_it_did(used):
    report = json.loads((used / "first.json").read_text())
    assert tuple(report) == INDEX_FIELDS
    odd = 0 if sys.platform == "darwin" else 1
    counts = {name: report[name] for name in INDEX_FIELDS[:-1]}
    assert counts == {
        "found": 7 + odd,
        "embedded": 6,
        "unchanged": 0,
        "moved": odd,
        "deleted": 0,
        "failed": 1,
        "skipped": 0,
    }
    assert report["seconds"] > 0


def test_index_without_a_folder_takes_every_root_again(own):
    again = run("index", "--json").json
    assert again["unchanged"] == again["found"] > 6
    assert again["embedded"] == 0


def test_index_in_words(own):
    done = run("index")
    assert done.code == 0
    assert " found, 0 embedded by model, " in done.out
    assert done.err == ""


@pytest.mark.parametrize("damage", ["truncated", "missing"])
def test_index_writes_a_snapshot_anew_that_cannot_be_used(own, tmp_path, damage):
    [snapshot] = (tmp_path / "library").glob("index-*.snapshot")
    if damage == "truncated":
        os.truncate(snapshot, 100)
        assert "fovea index saves it again" in run("search", "a dog").err
    else:
        snapshot.unlink()
    assert run("index", "--json").json["embedded"] == 0
    assert "cannot use" not in run("search", "a dog").err
    before = snapshot.stat().st_ino
    assert run("index").err == ""
    assert snapshot.stat().st_ino == before, "a sound one stays as it is"


@pytest.mark.parametrize("dry_run", [[], ["--dry-run"]])
def test_index_refuses_what_the_machine_has_not_before_it_looks(own, dry_run):
    done = run("index", "--device", "nonsense", *dry_run)
    assert (done.code, done.out) == (1, "")
    assert "there is no device 'nonsense'" in done.err
    assert run("index", "--device", "cpu", "--dtype", "float16", *dry_run).code == 1


def test_index_of_nothing_asks_for_a_folder(tmp_path, used):
    done = run("index", "--library", tmp_path / "new")
    assert (done.code, done.out) == (1, "")
    assert "fovea index FOLDER" in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize("words", [["nowhere"], ["photos", "--model", "no-such-model"], []])
def test_a_first_run_that_fails_makes_no_library(tmp_path, used, monkeypatch, words):
    monkeypatch.chdir(used)
    done = run("index", *words, "--library", tmp_path / "deep" / "new")
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert not (tmp_path / "deep").exists()


@pytest.mark.parametrize(
    "words",
    [["index", "photos"], ["index", "photos", "--dry-run"], ["classify", "x", "--label", "a"]],
)
def test_a_library_in_a_folder_that_may_not_be_entered_is_one_line(used, monkeypatch, words):
    def refuse(path, **options):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.chdir(used)
    monkeypatch.setattr(Path, "stat", refuse)  # the superuser may enter any
    done = run(*words)
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert "as a library: Permission denied; choose another" in done.err


def test_a_dry_run_without_a_library_makes_none(tmp_path, used):
    done = run("index", used / "photos", "--library", tmp_path / "new", "--dry-run", "--json")
    assert done.json["embedded"] >= 6
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("offline", ["1", ""])
def test_a_dry_run_names_the_model_that_a_run_would_use(tmp_path, used, monkeypatch, offline):
    monkeypatch.setenv("FOVEA_OFFLINE", offline)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    done = run("index", used / "photos", "--library", tmp_path / "new", "--dry-run")
    assert ("would be embedded by fovea-small" in done.out, done.err) == (True, "")


def test_a_folder_that_is_not_there_is_one_line(own):
    done = run("index", own / "nowhere")
    assert done.code == 1
    assert done.err.count("\n") == 1 and done.err.startswith("Error: ")


def test_another_model_is_only_used_when_that_is_meant(own):
    refused = run("index", "--model", own / "other")
    assert refused.code == 1
    assert f"fovea models use {own / 'other'}" in refused.err
    assert run("search", "the dog", "--json").json["model"] == "model"


def test_a_library_switches_its_model_and_back_without_embedding_twice(own):
    before = run("search", "the dog", "--json").json
    there = run("index", "--model", own / "other", "--switch-model", "--workers", 1, "--json")
    assert there.json["embedded"] == 0 and "now uses other: 6 pictures, 6 embedded" in there.err
    switched = run("search", "the dog", "--json").json
    assert switched["model"] == "other"
    scores = [[hit["score"] for hit in answer["hits"]] for answer in (before, switched)]
    assert scores[0] != pytest.approx(scores[1])
    back = run("index", "--model", own / "model", "--switch-model", "--json").json
    assert back["embedded"] == 0
    after = run("search", "the dog", "--json").json
    assert after["hits"] == before["hits"]


@pytest.mark.parametrize(
    "words",
    [
        ["--workers", "0"],
        ["--batch-size", "0"],
        ["--dtype", "int4"],
        ["--no-such-option"],
        ["--switch-model"],
    ],
)
def test_misuse_of_index_exits_with_2(used, words):
    assert run("index", *words).code == 2


@pytest.mark.parametrize(("is_there", "reason"), [(True, "--device cpu"), (False, "pip install")])
def test_int8_says_what_it_needs(used, monkeypatch, is_there, reason):
    monkeypatch.setattr("fovea.search.clip.engines.openvino_runtime.is_installed", lambda: is_there)
    found = run("index", "--dtype", "int8", "--device", "cuda")
    assert found.code == 1 and "int8" in found.err and reason in found.err


def test_files_are_read_anew_whatever_their_stamps_say(own):
    [name] = [path for path in (own / "photos").iterdir() if path.name == "red.png"]
    one = run("index", "--reread", name, "--json").json
    assert (one["embedded"], one["moved"]) == (0, 0)
    every = run("index", "--reread", own / "photos", "--json").json
    assert every["found"] == one["found"] and every["embedded"] == 0
    assert every["failed"] == 1  # it is tried once more
    assert run("index", "--json").json["unchanged"] == every["found"]


def test_what_is_to_be_read_anew_must_be_there(own):
    done = run("index", "--reread", own / "photos" / "nothing.png")
    assert done.code == 1 and done.err.startswith("Error: there is no file or folder")
    done = run("index", "--reread", own / "model" / "config.json")
    assert done.code == 1 and "is not a folder; name the folder that it is in" in done.err


def test_an_ignore_file_that_is_not_text_fails_the_command(own, tmp_path):
    folder = tmp_path / "more"
    (folder / "private").mkdir(parents=True)
    shutil.copy(own / "photos" / "red.png", folder / "private")
    (folder / ".foveaignore").write_bytes("priv\xe9/\n".encode("latin-1"))
    done = run("index", folder)
    assert done.code == 1
    assert f"{folder / '.foveaignore'}: line 1 is not UTF-8 text" in done.err
    assert str(folder) not in run("search", f"in:{folder}").out
    (folder / ".foveaignore").write_bytes("\ufeffpriv*/\r\n".encode("utf-16-le"))
    done = run("index", folder)
    assert (done.code, done.err) == (0, "")
    assert run("search", f"in:{folder}").out == ""
    (folder / ".foveaignore").write_bytes(b"!")
    assert run("index", folder, "--dry-run").code == 1


def test_index_says_which_folders_lie_in_which(own, tmp_path):
    outer = tmp_path / "outer"
    photos, inner = outer / "photos", outer / "photos" / "in"
    inner.mkdir(parents=True)
    (photos / "violet.png").write_bytes(encoded("red", 203))
    assert run("index", photos).code == 0
    (tmp_path / "link").symlink_to(inner)
    done = run("index", tmp_path / "link")
    assert done.code == 0
    photos = os.path.realpath(photos)
    said = f"{photos}/in lies in {photos}, in the library too: its pictures are indexed once"
    assert said in done.err
    before = run("status", "--json").json["images"]
    done = run("index", outer)  # around both
    assert f"{os.path.realpath(outer)} contains {photos}, {photos}/in, in the library" in done.err
    assert run("status", "--json").json["images"] == before
    assert "in the library too" not in run("index", outer).err  # it is known now


@pytest.mark.parametrize("shape", ["file://{}", '"{}"', " {} ", "'file://localhost{}'"])
def test_index_takes_a_path_as_it_is_pasted(own, tmp_path, shape):
    (tmp_path / "new folder").mkdir()
    path = str(tmp_path / "new folder")
    text = shape.format(path.replace(" ", "%20") if "file" in shape else path)
    assert run("index", text).code == 0
    assert os.path.realpath(path) in run("status").out


def test_index_refuses_the_address_of_another_computer(own):
    done = run("index", "file://nas/photos")
    assert done.code == 2
    assert "nas is another computer; name the folder where this one has its files" in done.err
