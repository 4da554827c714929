"""Queries on a command line: words with and without quotation marks, and with minuses."""

import pytest

from commands import run


def asked(*words):
    return run("search", *words, "--json").json


@pytest.mark.parametrize(
    ("words", "query"),
    [
        (["the", "dog"], "the dog"),
        (["the dog"], "the dog"),
        (["the", "dog", "-people"], "the dog -people"),
        (["-people", "the", "dog"], "-people the dog"),
        (["-people"], "-people"),
        (["-0.5:people", "dog"], "-0.5:people dog"),
        (["dog", "-kids"], "dog -kids"),
        (["dog", "-", "cat"], "dog - cat"),
        (["-name:blue"], "-name:blue"),
        (["--", "-people", "--", "dog"], "-people -- dog"),
        (["dog", "--", "-k", "-json"], "dog -k -json"),
        (["a", "name:r*", "sort:name"], "a name:r* sort:name"),
        (["  dog  "], "  dog  "),
    ],
)
def test_words_are_one_query(used, words, query):
    if "--" in words:
        found = run("search", "--json", *words).json
    else:
        found = asked(*words)
    assert found["query"] == query


def test_the_same_words_have_the_same_answer_however_they_are_quoted(used):
    joined, apart = asked("the dog -name:red"), asked("the", "dog", "-name:red")
    assert [hit["path"] for hit in joined["hits"]] == [hit["path"] for hit in apart["hits"]]
    assert joined["hits"] and all("red.png" not in hit["path"] for hit in joined["hits"])


def test_options_stand_before_between_and_after_words(used):
    for words in (["-k", 2, "the", "dog"], ["the", "-k2", "dog"], ["the", "dog", "-k", "2"]):
        assert len(asked(*words)["hits"]) == 2


def test_the_value_of_an_option_is_no_word_whatever_it_looks_like(used):
    done = run("search", "dog", "--image", "-people")
    assert done.code == 1 and "cannot read -people" in done.err
    done = run("search", "dog", "-k", "-3")
    assert done.code == 2 and "-3 is not in the range" in done.err


@pytest.mark.parametrize("word", ["-json", "-image", "-open", "-paths", "-help"])
def test_an_option_with_one_dash_too_few_is_not_subtracted(used, word):
    done = run("search", "dog", word)
    assert (done.code, done.out) == (2, "")
    assert f"did you mean -{word}?" in done.err and f"fovea search -- {word}" in done.err
    assert run("search", "--json", "--", "dog", word).json["query"] == f"dog {word}"


def test_browsing_takes_the_same_words(used):
    """It is only refused later, since there is no terminal here."""
    for words in (["the", "dog", "-people"], ["-k5", "-kids"], ["--", "-json"]):
        assert "needs a terminal" in run("browse", *words).err
    assert "did you mean --library?" in run("browse", "-library").err


def test_an_unknown_long_option_is_an_error(used):
    assert run("search", "dog", "--people").code == 2
