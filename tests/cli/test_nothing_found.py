"""Searches that find nothing say why, and ``--likely`` leaves out what is not likely."""

import pytest

from commands import run
from fovea.search.query.likelihood import Background


@pytest.mark.parametrize(
    ("query", "says"),
    [
        (["in:nowhere"], 'no folder of this library is called "nowhere"; fovea roots lists'),
        (["in:photo"], 'called "photo"; did you mean in:photos?'),
        (["a", "dog", "camera:leica"], 'no picture is from a camera called "leica"'),
        (["on:1999"], "no picture is from 1999; the pictures are from "),
        (["-0", "name:x\x1bx"], 'no file name matches "x\\x1bx"'),
        (["--paths", "is:hidden"], "no picture is hidden\n"),
    ],
)
def test_a_filter_that_leaves_nothing_is_named(used, query, says):
    done = run("search", *query)
    assert (done.code, done.out) == (0, "")
    assert done.err.startswith("fovea: no pictures found: ") and says in done.err
    assert done.err.count("\n") == 1 and "index more" not in done.err


def test_programs_get_the_same_as_hints(used):
    found = run("search", "in:photo", "--json").json
    [hint] = found["hints"]
    assert (found["hits"], hint["code"], hint["params"]["near"]) == ([], "filter.in", "in:photos")
    assert "hints" not in run("search", "dog", "--json").json


@pytest.mark.parametrize("words", [["search", "the dog"], ["similar", "FILE"]])
def test_likely_matches_alone(used, words):
    words = [str(used / "photos" / "red.png") if word == "FILE" else word for word in words]
    whole = run(*words, "-k", 100, "--json").json
    found = run(*words, "-k", 100, "--likely", "--json").json
    assert found["likely"] == found["total"] == whole["likely"]
    assert [hit["path"] for hit in found["hits"]] == [
        hit["path"] for hit in whole["hits"][: whole["likely"]]
    ]
    assert all(hit["likelihood"] >= 0.5 or hit.get("by_name") for hit in found["hits"])
    done = run(*words, "--likely")
    if not whole["likely"]:
        assert done.err.startswith("fovea: no picture is a likely match; without --likely, ")


def test_a_model_that_draws_no_line_says_so(used, monkeypatch):
    monkeypatch.setattr(Background, "load", classmethod(lambda cls, folder, identity: None))
    done = run("search", "--likely", "the dog")
    assert done.code == 1 and done.out == ""
    assert "model does not say which pictures are likely matches" in done.err
    assert run("search", "--likely", "is:square", "-k", 1).code == 0
