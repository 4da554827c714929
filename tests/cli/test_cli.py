import base64
import errno
import json
import os
import re
import shutil
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from coloured import COLOURS, captioned_source, encoded
from commands import run
from fovea.indexer.workers.query_image import QueryImageDecoder
from fovea.search.clip.encoders.load import load_encoder
from fovea.search.clip.training.recipe import TrainOptions
from fovea.search.errors import LibraryError
from fovea.search.library.library import Library
from fovea.search.library.paths import printable, printable_name
from fovea.search.models import installed
from places import CHECKOUT
from small_clips import write_model

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
ODD = b"caf\xe9\n\x1b[31m.png"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a model, pictures of one colour each, and a library of them."""
    folder = tmp_path_factory.mktemp("home")
    write_model(folder / "model")
    write_model(folder / "other", seed=1)
    photos = folder / "photos"
    photos.mkdir()
    for number, colour in enumerate(COLOURS):
        (photos / f"{colour}.png").write_bytes(encoded(colour, number))
    if sys.platform != "darwin":
        shutil.copyfile(photos / "red.png", os.path.join(os.fsencode(photos), ODD))
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    with pytest.MonkeyPatch.context() as patch:
        settle(patch, folder)
        first = run(
            "index", photos, "--model", folder / "model", "--workers", 1, "--dtype", "float32",
            "--json",
        )  # fmt: skip
    assert first.code == 0, first.err
    (folder / "first.json").write_text(first.out)
    return folder


def settle(patch, folder):
    """Let commands find the library and the models of a folder, and no network."""
    patch.setenv("FOVEA_LIBRARY", str(folder / "library"))
    patch.setenv("FOVEA_MODELS", str(folder / "models"))
    patch.setenv("FOVEA_OFFLINE", "1")
    patch.setattr(installed, "bundled_model", lambda: folder / "model")


@pytest.fixture
def used(home, monkeypatch):
    """The library of ``home``, to be read."""
    settle(monkeypatch, home)
    return home


@pytest.fixture
def own(home, tmp_path, monkeypatch):
    """A copy of ``home``, to be changed; its library still covers the photos of ``home``."""
    settle(monkeypatch, home)
    monkeypatch.setenv("FOVEA_LIBRARY", str(tmp_path / "library"))
    shutil.copytree(home / "library", tmp_path / "library")
    return home


def pictures(folder):
    """The pictures that differ from each other."""
    return [folder / "photos" / f"{colour}.png" for colour in COLOURS]


# Indexing


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
    assert "is not used" not in run("search", "a dog").err
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


def test_a_dry_run_names_the_model_that_a_run_would_try(tmp_path, used, monkeypatch):
    words = ["index", used / "photos", "--library", tmp_path / "new", "--dry-run"]
    assert "would be embedded by fovea-small" in run(*words).out
    monkeypatch.delenv("FOVEA_OFFLINE")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    done = run(*words)
    assert ("would be embedded by ViT-B/32" in done.out, done.err) == (True, "")


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
    assert there.json["embedded"] == 0 and "other is used now: 6 pictures, 6 embedded" in there.err
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
        ["--dtype", "int8"],
        ["--no-such-option"],
    ],
)
def test_misuse_of_index_exits_with_2(used, words):
    assert run("index", *words).code == 2


# Searching


def expected_order(home, text):
    """The pictures from the nearest to the farthest, by the reference encoder alone."""
    encoder = load_encoder(home / "model", dtype="float32", device="cpu")
    files = pictures(home)
    rows = encoder.encode_images([Image.open(file) for file in files])
    scores = rows @ encoder.encode_texts([text])[0]
    return sorted(zip(scores.tolist(), files, strict=True), reverse=True)


def test_search_prints_one_document_of_the_agreed_form(used):
    found = run("search", "the dog", "-k", 4, "--json").json
    assert list(found) == ["query", "model", "took_ms", "total", "likely", "hits"]
    assert (found["query"], found["model"]) == ("the dog", "model")
    assert found["took_ms"] > 0
    assert [hit["rank"] for hit in found["hits"]] == [1, 2, 3, 4]
    for hit in found["hits"]:
        known = {"rank", "score", "image_id", "path", "paths", "likelihood"}
        assert set(hit) - {"path_bytes"} == known and 0 <= hit["likelihood"] <= 1
        assert hit["path"] == hit["paths"][0]


def test_scores_are_cosines_and_the_best_comes_first(used):
    found = run("search", "the dog", "--dtype", "float32", "--json").json
    expected = expected_order(used, "the dog")
    scores = [hit["score"] for hit in found["hits"]]
    assert scores == pytest.approx([score for score, _ in expected], abs=2e-3)
    for hit, (_, file) in zip(found["hits"], expected, strict=True):
        assert str(file) in hit["paths"]


def test_search_in_words_is_a_line_a_hit(used):
    done = run("search", "the dog", "-k", 3)
    lines = done.out.splitlines()
    assert (done.code, len(lines)) == (0, 3)
    for line in lines:
        score, path = line.split("\t")
        assert -1 <= float(score) <= 1
        assert path.startswith(str(used / "photos"))


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS has UTF-8 names only")
def test_a_path_that_is_not_utf8_comes_escaped_and_exactly(used):
    hits = run("search", "the dog", "--json").json["hits"]
    [hit] = [hit for hit in hits if len(hit["paths"]) == 2]
    odd = os.path.join(os.fsencode(used / "photos"), ODD)
    assert os.fsencode(hit["path"]) == odd
    assert base64.b64decode(hit["path_bytes"]) == odd
    assert hit["paths"] == [os.fsdecode(odd), str(used / "photos" / "red.png")]
    shown = run("search", "the dog").out
    assert "caf\\udce9\\n\\x1b[31m.png" in shown
    assert shown.count("\n") == len(hits)


def test_search_reads_the_query_language(used):
    every = [path.stem for path in pictures(used)]
    named = run("search", "name:*e* -name:red sort:name", "--json").json
    stems = [Path(hit["paths"][-1]).stem for hit in named["hits"]]
    assert stems == sorted(stem for stem in every if "e" in stem and stem != "red")
    assert {hit["score"] for hit in named["hits"]} == {None}
    found = run("search", "the dog -name:blue", "--json").json["hits"]
    assert len(found) == len(every) - 1 and all("blue" not in hit["path"] for hit in found)
    [hit] = [hit for hit in run("search", "lime", "--json").json["hits"] if "by_name" in hit]
    assert Path(hit["path"]).stem == "lime" and hit["by_name"] is True
    like = run("search", f"like:{hit['image_id']}", "-k", 1, "--json").json["hits"]
    assert [found["path"] for found in like] == [hit["path"]]


def test_filters_alone_print_days(used):
    done = run("search", "-k", 2, "--", "-name:blue")
    days = [line.split("\t")[0] for line in done.out.splitlines()]
    assert done.code == 0 and len(days) == 2 and all(date.fromisoformat(day) for day in days)


@pytest.mark.parametrize(
    ("query", "says"),
    [("dog is:round", "character 8"), ("like:987654", "like:987654"), ("dog -dog", "cancel")],
)
def test_a_query_that_means_nothing_is_one_line(used, query, says):
    done = run("search", query)
    assert (done.code, done.out) == (1, "") and says in done.err and done.err.count("\n") == 1


def test_a_picture_finds_itself(used):
    found = run("search", "--image", used / "photos" / "lime.png", "--json").json
    assert found["hits"][0]["path"] == str(used / "photos" / "lime.png")
    assert found["hits"][0]["score"] == pytest.approx(1, abs=1e-2)


def test_words_and_a_picture_together_are_neither_alone(used):
    picture = ("--image", used / "photos" / "lime.png", "--json")
    both = run("search", "the dog", *picture).json
    scores = [
        {hit["image_id"]: hit["score"] for hit in answer["hits"]}
        for answer in (both, run("search", "the dog", "--json").json, run("search", *picture).json)
    ]
    assert both["query"] == "the dog"
    sums = {image: scores[1][image] + scores[2][image] for image in scores[0]}
    ranked = sorted(sums, key=sums.get, reverse=True)
    assert list(scores[0]) == ranked, "the sum of unit vectors ranks as the sum of cosines"


@pytest.mark.parametrize("words", [[], [""], ["  "], ["x", "-k", "0"], ["x", "y"]])
def test_misuse_of_search_exits_with_2(used, words):
    done = run("search", *words)
    assert (done.code, done.out) == (2, "")


@pytest.mark.parametrize("file", ["nowhere.png", "photos/broken.jpg"])
def test_a_picture_that_cannot_be_read_is_one_line(used, file):
    done = run("search", "--image", used / file)
    assert (done.code, done.out) == (1, "")
    assert done.err.count("\n") == 1 and file.split("/")[-1] in done.err


def test_searching_without_a_library_says_what_to_do(used, tmp_path):
    done = run("search", "x", "--library", tmp_path / "none")
    assert done.code == 1
    assert "fovea index FOLDER" in done.err
    assert not (tmp_path / "none").exists()


def test_similar_is_the_same_document_without_the_file_itself(used):
    file = used / "photos" / "red.png"
    found = run("similar", file, "--json").json
    assert list(found) == ["query", "model", "took_ms", "total", "likely", "hits"]
    assert found["query"] == str(file)
    paths = [path for hit in found["hits"] for path in hit["paths"]]
    assert str(file) not in paths
    assert len(found["hits"]) == 5
    assert all(0 <= hit["likelihood"] <= 1 for hit in found["hits"])


def test_similar_takes_a_file_that_is_not_in_the_library(used, tmp_path):
    (tmp_path / "new.png").write_bytes(encoded("blue", 99))
    found = run("similar", tmp_path / "new.png", "-k", 1, "--json").json
    assert found["hits"][0]["path"] == str(used / "photos" / "blue.png")


def test_a_file_that_may_not_be_read_is_one_of_those_that_fail(used, monkeypatch):
    """Not a command that was not understood; the superuser may read any, hence the patches."""
    denied = used / "photos" / "red.png"
    monkeypatch.setattr(os, "access", lambda *arguments, **options: False)
    pixels = refusing(denied, QueryImageDecoder.pixels)
    monkeypatch.setattr(QueryImageDecoder, "pixels", pixels)
    done = run("classify", denied, used / "photos" / "blue.png", "--label", "x")
    assert done.code == 1 and done.out.endswith("blue.png\n")
    assert done.err.splitlines()[0] == f"fovea: cannot read {denied}: Permission denied"


def refusing(denied, pixels):
    def read(self, file):
        if file == denied:
            raise LibraryError(f"cannot read {file}: Permission denied")
        return pixels(self, file)

    return read


def test_similar_says_where_the_library_has_the_picture_already(used, tmp_path):
    file, copy = used / "photos" / "blue.png", tmp_path / "copy.png"
    shutil.copyfile(file, copy)
    (tmp_path / "link.png").symlink_to(file)
    done = run("similar", copy, "--json")
    assert done.err == f"fovea: the library has this picture as {file}\n"
    assert str(file) not in [hit["path"] for hit in done.json["hits"]]
    for own in (file, tmp_path / "link.png"):
        assert run("similar", own, "--json").err == "", "it is asked for by that very name"


@pytest.mark.parametrize(
    "words", [["similar"], ["search", "--image"], ["classify", "--label", "x"]]
)
def test_a_picture_is_read_within_the_limits_of_indexing(used, tmp_path, words):
    os.mkfifo(tmp_path / "pipe.jpg")
    with (tmp_path / "sparse.jpg").open("wb") as file:
        file.truncate(8 << 30)  # nothing of it is on the disk
    text = PngInfo()
    text.add_text("k", "x" * 80_000_000, zip=True)  # more than Pillow inflates
    Image.new("RGB", (8, 8), "red").save(tmp_path / "text.png", pnginfo=text)
    assert run(*words, tmp_path / "text.png").code == 0
    for name in ("pipe.jpg", "sparse.jpg"):
        done = run(*words, tmp_path / name)
        assert (done.code, done.out) == (1, "")
        assert done.err.startswith(("Error: cannot read ", "fovea: cannot read "))
        assert name in done.err.splitlines()[0]


def test_an_offline_folder_stays_in_answers_and_is_marked(own, tmp_path):
    place = tmp_path / "stick"
    shutil.copytree(own / "photos", place, ignore=shutil.ignore_patterns("broken.jpg"))
    library = ("--library", tmp_path / "lib")
    run("index", place, "--model", own / "model", "--workers", 1, *library)
    place.rename(tmp_path / "unplugged")
    for indexed in (False, True):
        if indexed:
            done = run("index", "--json", *library)
            assert done.json["deleted"] == 0
            assert "offline" in done.err
        assert run("search", "the dog", "-k", 1, *library).out.rstrip().endswith("\t(offline)")
        [hit] = run("search", "the dog", "-k", 1, "--json", *library).json["hits"]
        assert hit["offline"] is True
        states = {file["state"] for file in run("verify", "--json", *library).json["files"]}
        assert states == {"offline"}
        assert run("status", "--json", *library).json["roots"][0]["state"] == "offline"
        assert run("roots", "list", *library).out == f"offline\t{place}\n"


# Classifying


def test_classify_gives_the_probabilities_of_the_paper(used):
    file = used / "photos" / "red.png"
    done = run("classify", file, "--label", "cat", "--label", "dog", "--dtype", "float32", "--json")
    found = done.json
    encoder = load_encoder(used / "model", dtype="float32", device="cpu")
    image = encoder.encode_images([Image.open(file)])[0]
    words = encoder.encode_texts(["a photo of a cat.", "a photo of a dog."])
    logits = encoder.logit_scale * (words @ image)
    powers = np.exp(logits - logits.max())
    assert found["path"] == str(file)
    assert [found["labels"][label] for label in ("cat", "dog")] == pytest.approx(
        (powers / powers.sum()).tolist(), abs=1e-4
    )


def test_classify_takes_files_and_templates_and_passes_over_what_is_broken(used):
    files = [used / "photos" / name for name in ("red.png", "broken.jpg", "blue.png")]
    options = ["--label", "cat", "--label", "dog", "--template", "{}", "--template", "one {}"]
    done = run("classify", *files, *options, "--json")
    assert done.code == 1
    assert "broken.jpg" in done.err
    lines = [json.loads(line) for line in done.out.splitlines()]
    assert [line["path"] for line in lines] == [str(files[0]), str(files[2])]
    assert all(sum(line["labels"].values()) == pytest.approx(1) for line in lines)


def test_classify_in_words_has_the_likeliest_first(used):
    file = used / "photos" / "red.png"
    rows = run("classify", file, "--label", "x", "--label", "y", "--label", "z").out.splitlines()
    chances = [float(row.split("\t")[0]) for row in rows]
    assert len(chances) == 3 and chances == sorted(chances, reverse=True)


@pytest.mark.parametrize("words", [["--label", "x"], ["a.png"], ["a.png", "--label"]])
def test_misuse_of_classify_exits_with_2(used, words):
    assert run("classify", *words).code == 2


def test_a_template_without_a_place_exits_with_2(used):
    assert run("classify", "a.png", "--label", "x", "--template", "a photo").code == 2


# The library


def test_status_tells_what_there_is(used):
    found = run("status", "--json").json
    assert found["model"] == "model"
    assert (found["images"], found["embeddings"]) == (6, 6)
    assert found["files"]["failed"] == 1
    assert [root["path"] for root in found["roots"]] == [str(used / "photos")]
    text = run("status").out
    assert f"library\t{used / 'library'}" in text and "6, of which 6 embedded" in text


def test_verify_accounts_for_every_file(used):
    done = run("verify", "--json")
    found = done.json
    assert found["ok"] is True
    states = {os.fsencode(file["path"]): file["state"] for file in found["files"]}
    folder = os.fsencode(used / "photos")
    assert states == {
        os.path.join(folder, name): "failed" if name == b"broken.jpg" else "indexed"
        for name in os.listdir(folder)
    }
    [broken] = [file for file in found["files"] if file["state"] == "failed"]
    assert broken["reason"]
    assert len(run("verify").out.splitlines()) == len(states)


def test_verify_exits_with_1_where_the_library_contradicts_itself(own, tmp_path):
    with Library.open(tmp_path / "library") as library, library.transaction() as conn:
        conn.execute("DELETE FROM embeddings WHERE id = 1")
    done = run("verify", "--json")
    assert done.code == 1
    assert json.loads(done.out)["ok"] is False


def test_roots_are_listed_and_removed(own):
    assert run("roots").out == run("roots", "list").out == f"online\t{own / 'photos'}\n"
    [root] = run("roots", "list", "--json").json
    assert root == {"path": str(own / "photos"), "state": "online"}
    gone = run("roots", "remove", own / "photos")
    assert gone.code == 0
    assert run("roots").out == ""
    assert run("status", "--json").json["images"] == 0
    assert all(path.is_file() for path in pictures(own)), "the files stay"
    again = run("roots", "remove", own / "photos")
    assert again.code == 1 and "is not a folder of this library" in again.err


def test_a_second_writer_is_told_who_is_first(own, tmp_path):
    with Library.open(tmp_path / "library") as library, library.writing():
        done = run("index")
    assert done.code == 1
    assert f"another fovea (pid {os.getpid()}) is indexing" in done.err


# Models


def test_models_are_listed(used):
    rows = [row.split("\t") for row in run("models").out.splitlines()]
    names = [row[0] for row in rows]
    assert names[:2] == ["fovea-small", "RN50"] and "ViT-B/32" in names
    entries = run("models", "list", "--json").json
    assert [entry["name"] for entry in entries] == names
    assert entries[0]["folder"] == str(used / "model")


def test_a_model_is_described(used):
    fields = run("models", "info", "fovea-small", "--json").json
    assert (fields["name"], fields["source"], fields["dim"]) == ("fovea-small", "bundled", 48)
    assert len(fields["sha256"]) == 64
    assert f"sha256\t{fields['sha256']}" in run("models", "info").out


def test_a_model_that_cannot_be_pulled_is_one_line(used):
    done = run("models", "pull", "ViT-B/32")
    assert (done.code, done.out) == (1, "")
    assert done.err.count("\n") == 1
    assert "not on this disk" in done.err


def test_the_bundled_model_is_announced_when_it_stands_in(used, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "fovea", "models", "info"],
        cwd=CHECKOUT,
        env=os.environ | {"FOVEA_LIBRARY": str(tmp_path), "FOVEA_MODELS": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        pytest.skip("this checkout has no bundled model")
    assert done.stderr.count("\n") == 1
    assert "small bundled model" in done.stderr


# Training


def test_defaults_in_the_help_are_the_options_own():
    defaults = TrainOptions(out=Path("x"), sources=())
    text = " ".join(run("train", "--help").out.partition("Options:")[2].split())
    for name in ("tune", "batch_size", "accumulate", "samples", "lr", "weight_decay", "warmup",
                 "seed", "workers", "log_every", "save_every", "device", "dtype"):  # fmt: skip
        words = text.split(f"--{name.replace('_', '-')} ")[1].split("[default: ")[1].split("]")[0]
        assert words == str(getattr(defaults, name)), name


def test_a_model_is_trained_evaluated_and_used(used, tmp_path):
    source = captioned_source(tmp_path)
    (tmp_path / "recipe.toml").write_text(
        "embed_dim = 16\nmerges = 40\n"
        "[vision]\nimage_size = 32\npatch_size = 16\nlayers = 1\nwidth = 32\nheads = 2\n"
        "[text]\nwidth = 32\nheads = 2\nlayers = 1\ncontext_length = 16\n"
    )
    data = ["--captions", source.captions, "--images", source.images[0]]
    options = ["--batch-size", 8, "--samples", 32, "--log-every", 2, "--workers", 1]
    done = run(
        "train", "--out", tmp_path / "run", "--recipe", tmp_path / "recipe.toml", *data, *options,
        "--split", "train", "--device", "cpu", "--dtype", "float32",
    )  # fmt: skip
    assert done.code == 0, done.err
    lines = [json.loads(line) for line in done.out.splitlines()]
    assert [line["step"] for line in lines] == [2, 4]
    assert str(tmp_path / "run" / "model") in done.err
    model = ["--model", tmp_path / "run" / "model"]
    found = run("evaluate", *data, "--split", "dev", *model, "--json").json
    assert list(found) == ["images", "captions", "text_to_image", "image_to_text"]
    assert (found["images"], found["captions"]) == (6, 12)
    assert list(found["text_to_image"]) == ["recall@1", "recall@5", "recall@10"]
    assert all(0 <= figure <= 1 for figure in found["image_to_text"].values())
    table = run("evaluate", *data, *model).out
    assert "text to image recall@10\t1.0000" not in table  # of 24 images
    assert table.startswith("images\t24\n")
    with source.captions.open("a") as file:
        file.write('\n{"file": "gone.png", "caption": "x"}\n{"file": "red0.png", "caption": " "}')
    short = run("evaluate", *data, *model, "--json")
    assert (short.json["images"], short.json["captions"]) == (24, 48)
    assert "left out 1 of 26 lines of" in short.err and "left out 1 empty captions of" in short.err


def test_zero_shot_accuracy_is_evaluated(used, tmp_path):
    source = captioned_source(tmp_path)
    names = list(COLOURS)
    rows = [{"file": f"{name}0.png", "label": names.index(name)} for name in names]
    (tmp_path / "labels.jsonl").write_text("\n".join(map(json.dumps, rows)))
    classes = [{"label": number, "names": [name]} for number, name in enumerate(names)]
    (tmp_path / "classes.json").write_text(json.dumps(classes))
    found = run(
        "evaluate", "--labels", tmp_path / "labels.jsonl", "--classes", tmp_path / "classes.json",
        "--images", tmp_path, source.images[0], "--model", used / "model", "--json",
    ).json  # fmt: skip
    assert 0 <= found["top1"] <= found["top5"] <= 1
    assert found["images"] == 6


@pytest.mark.parametrize(
    "words",
    [
        ["evaluate", "--images", "x"],
        ["evaluate", "--captions", "a", "--labels", "b", "--images", "x"],
        ["evaluate", "--labels", "b", "--images", "x"],
        ["evaluate", "--captions", "a"],
        ["train", "--out", "x"],
        ["train", "--images", "x"],
        ["train", "--out", "x", "--images", "y", "--warmup", "2"],
        ["no-such-command"],
    ],
)
def test_misuse_exits_with_2(used, words):
    assert run(*words).code == 2


def test_data_that_is_not_there_is_one_line(used, tmp_path):
    done = run("train", "--out", tmp_path / "run", "--images", tmp_path / "none.tar")
    assert done.code == 1
    assert done.err.count("\n") == 1


def test_a_recipe_without_data_is_one_line(used, tmp_path):
    (tmp_path / "recipe.toml").write_text("seed = 1\n")
    done = run("train", "--out", tmp_path / "run", "--recipe", tmp_path / "recipe.toml")
    assert done.code == 1 and "recipe.toml has no data; add [[sources]], or" in done.err


def test_a_report_that_cannot_be_written_is_told_before_anything_is_measured(used, tmp_path):
    words = ["--captions", tmp_path / "none.jsonl", "--images", tmp_path]
    done = run("evaluate", *words, "--report", tmp_path / "nowhere" / "x.html")
    assert done.code == 1
    assert f"there is no folder {tmp_path / 'nowhere'}; create it first" in done.err


# Trying it out


def test_the_demo_answers_without_touching_the_users_library(used, tmp_path, monkeypatch):
    pytest.importorskip("skimage")
    monkeypatch.setenv("FOVEA_LIBRARY", str(tmp_path / "mine"))
    done = run("demo")
    assert done.code == 0, done.err
    assert "photographs embedded by fovea-small" in done.out
    assert done.out.count(".png") + done.out.count(".jpg") == 12
    assert "likely matches" in done.err, "as the command says it"
    assert not (tmp_path / "mine").exists()


def test_the_demo_without_its_pictures_says_what_to_install(used, monkeypatch):
    monkeypatch.setattr("fovea.data.demo_photographs", list)
    done = run("demo")
    assert done.code == 1
    assert "pip install 'fovea[demo]'" in done.err


# The program itself


def test_help_needs_neither_torch_nor_numpy():
    code = (
        "import sys, fovea.cli\n"
        "try:\n    fovea.cli.cli(['--help'])\n"
        "except SystemExit:\n    pass\n"
        "heavy = {'torch', 'numpy', 'PIL', 'faiss', 'sqlite_utils', 'tqdm'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, check=True, capture_output=True)


def test_words_are_answered_without_torch(used):
    code = (
        "import sys, fovea.cli\n"
        "try:\n    fovea.cli.cli(['search', 'the dog', '-k', '1'])\n"
        "except SystemExit as exc:\n    assert not exc.code, exc.code\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=CHECKOUT,
        env=os.environ | {"FOVEA_LIBRARY": str(used / "library")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_a_file_in_the_library_has_its_like_without_torch(used):
    file = str(used / "photos" / "red.png")
    code = (
        "import sys, fovea.cli\n"
        f"try:\n    fovea.cli.cli(['similar', {file!r}])\n"
        "except SystemExit as exc:\n    assert not exc.code, exc.code\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, check=True, capture_output=True)


def test_a_reader_that_leaves_early_is_no_error(used):
    command = f"{sys.executable} -m fovea verify | head -1"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"], cwd=CHECKOUT, capture_output=True, text=True
    )
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device is always full here")
@pytest.mark.parametrize("words", [["verify", "--json"], ["--help"]])
def test_results_that_find_no_room_are_one_line(used, words):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "fovea", *words],
            cwd=CHECKOUT, stdout=full, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("fovea: cannot write the results: No space left")
    assert done.stderr.count("\n") == 1


def test_any_terminal_can_be_printed_to(used):
    done = subprocess.run(
        [sys.executable, "-m", "fovea", "search", "the dog"],
        cwd=CHECKOUT,
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()


def test_ctrl_c_ends_a_run_that_can_be_repeated(own, tmp_path):
    photos = tmp_path / "many"
    photos.mkdir()
    for number in range(400):
        (photos / f"{number}.png").write_bytes(encoded("red", number))
    library = tmp_path / "interrupted"
    process = subprocess.Popen(
        [sys.executable, "-m", "fovea", "index", photos, "--library", library, "--batch-size", "4",
         "--workers", "1", "--model", own / "model"],
        cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None:
            if (library / "library.db").exists() and run_count(library):
                break
            time.sleep(0.05)
        process.send_signal(2)
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
    if process.returncode == 0:
        pytest.skip("the run was over before it could be interrupted")
    assert process.returncode == 1
    assert "stopped; run the command again" in err
    assert "Traceback" not in err
    assert run("verify", "--library", library, "--json").json["ok"]


def run_count(library):
    with Library.open(library) as opened:
        return opened.counts().images


def test_the_version_is_told():
    assert run("--version").out.startswith("fovea")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_can_complete(shell):
    done = subprocess.run(
        [sys.executable, "-m", "fovea"],
        cwd=CHECKOUT,
        env=os.environ | {"_FOVEA_COMPLETE": f"{shell}_source"},
        capture_output=True,
        text=True,
    )
    assert "_fovea_completion" in done.stdout or "complete" in done.stdout


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é 東京 🐕", "plain é 東京 🐕"),
        ("a\nb\tc", "a\\nb\\tc"),
        ("\x1b[2J", "\\x1b[2J"),
        ("caf\udce9", "caf\\udce9"),
        ("\u202egnp", "\\u202egnp"),
    ],
)
def test_names_are_printed_as_one_harmless_line(text, shown):
    assert printable(text) == printable_name(text) == shown


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("C:\\Photos\\beach.jpg", "C:\\Photos\\beach.jpg"),
        ("a\\nb", "a\\\\nb"),
        ("a\\", "a\\"),
        ("a\\\nb", "a\\\\\\nb"),
        ("caf\\xe9", "caf\\\\xe9"),
        ("a\\\\b", "a\\\\\\b"),
    ],
)
def test_a_backslash_in_a_name_looks_like_no_escape(name, shown):
    assert printable_name(name) == shown


@given(st.text(alphabet="\\nrtxuUa01f\n\t\x1b\xe9\udce9", max_size=12))
def test_a_printed_name_can_be_read_back(name):
    """Undo the escapes as they are read: each means what it says, any other backslash itself."""
    escapes = r"\\(x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8}|[nrt\\])"
    undone = re.sub(
        escapes,
        lambda found: found[0].encode().decode("unicode_escape"),
        printable_name(name),
    )
    assert undone == name
