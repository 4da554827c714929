import base64
import json
import os
import shutil
import sys
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from coloured import encoded
from commands import ODD, pictures, run
from fovea.indexer.workers.query_image import QueryImageDecoder
from fovea.search.clip.encoders.load import load_encoder
from fovea.search.errors import LibraryError
from fovea.search.query.filters import FILTERS


def expected_order(home, text):
    """The pictures from the nearest to the farthest, by the reference encoder alone."""
    encoder = load_encoder(home / "model", dtype="float32", device="cpu")
    files = pictures(home)
    rows = encoder.encode_images([Image.open(file) for file in files])
    scores = rows @ encoder.encode_texts([text])[0]
    return sorted(zip(scores.tolist(), files, strict=True), reverse=True)


def test_search_prints_one_document_of_the_agreed_form(used):
    found = run("search", "the dog", "-k", 4, "--json").json
    assert list(found) == ["query", "model", "took_ms", "total", "likely", "order", "hits"]
    assert (found["query"], found["model"]) == ("the dog", "model")
    assert isinstance(found["took_ms"], float)
    assert [hit["rank"] for hit in found["hits"]] == [1, 2, 3, 4]
    for hit in found["hits"]:
        known = {"rank", "score", "date", "image_id", "path", "paths", "likelihood"}
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
def test_words_that_the_model_does_not_read_get_one_line(used, monkeypatch):
    monkeypatch.setattr("fovea.api.languages_of", lambda place: frozenset({"en"}))
    done = run("search", "海滩", "-k", 1)
    [hint] = [line for line in done.err.splitlines() if "Chinese" in line]
    assert hint.startswith("fovea: model reads English") and "fovea models use" in hint
    assert "Chinese" not in done.out and done.code == 0
    found = run("search", "海滩", "--json").json
    assert found["hints"][0]["params"]["language"] == "zh"
    assert "Chinese" not in run("search", "the dog on a beach", "-k", 1).err


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


def test_filters_alone_have_no_score_and_hits_have_dates(used):
    done = run("search", "-k", 2, "--", "-name:blue")
    assert done.code == 0 and [line.split("\t")[0] for line in done.out.splitlines()] == ["-", "-"]
    for hit in run("search", "-name:blue", "--json").json["hits"]:
        assert hit["score"] is None and datetime.fromisoformat(hit["date"])


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


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "nothing to search for"),
        (["x", "-k", "0"], "0 is not in the range"),
        (["--people"], "No such option"),
        (["x", "--at", "5"], "--at is a moment of the video in --image FILE"),
    ],
)
def test_misuse_of_search_exits_with_2(used, words, says):
    done = run("search", *words)
    assert (done.code, done.out) == (2, "") and says in done.err


def test_the_help_of_search_names_every_filter(used):
    text = run("search", "--help").out
    assert [name for name in FILTERS if f" {name}:" not in " ".join(text.split())] == []


@pytest.mark.parametrize("query", ["", "  "])
def test_an_empty_query_lists_the_newest(used, query):
    document = run("search", query, "--json").json
    newest = run("search", "size:>0B", "--json").json
    assert document["query"] == query and document["hits"]
    assert [hit["path"] for hit in document["hits"]] == [hit["path"] for hit in newest["hits"]]


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
    assert list(found) == ["query", "model", "took_ms", "total", "likely", "order", "hits"]
    assert found["query"] == str(file)
    paths = [path for hit in found["hits"] for path in hit["paths"]]
    assert str(file) not in paths
    assert len(found["hits"]) == 5
    assert all(0 <= hit["likelihood"] <= 1 for hit in found["hits"])


def test_a_moment_of_a_picture_is_told_by_the_words_that_were_typed(used):
    done = run("similar", used / "photos" / "red.png", "--at", 5)
    assert done.code == 1 and done.err.endswith("red.png is not a video; leave out --at\n")


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


def test_a_single_file_is_counted_in_the_singular(used):
    done = run("classify", used / "photos" / "broken.jpg", "--label", "cat")
    assert (done.code, "1 of 1 file could not be classified" in done.err) == (1, True)


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
