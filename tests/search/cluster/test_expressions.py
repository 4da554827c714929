"""Expressions without a server: what stands in them, and what is refused."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fovea.search.cluster.expressions import NOTHING, Known, meeting
from fovea.search.cluster.tokens import number_of, of_file, parts_of_folder, parts_of_name
from fovea.search.errors import Unanswerable
from fovea.search.library.facts.folded import fold
from fovea.search.query.filters import FILTERS, Filter
from libraries import VALUES

HOSTILE = Known(
    {
        "camera": ('x"] or number >= 0 or camera in ["', "Canon \\", "'); drop", "\n"),
        "lens": ('"',),
        "format": ("JPEG", "PNG"),
    },
    lambda mark: [b"\x01" * 32],
)
# Field names, numbers, words of the language, and hexadecimal hashes.
HARMLESS = re.compile(r'(?:[a-z_ ]+|-?[0-9]+(?:\.[0-9]+)?|[()\[\],<>=!]|"[0-9a-f]{64}")+')
TEXT = st.text(max_size=40) | st.sampled_from(
    ['"] or number >= 0 or "', "\\", '\\"', "'", "]", "{x}", "a\0b", "%", "\ud800", "*", 'a*"*']
)


@given(kind=st.sampled_from(sorted(set(VALUES) - {"is"})), value=TEXT, negated=st.booleans())
def test_no_text_becomes_part_of_an_expression(kind, value, negated):
    read = FILTERS[kind].read(value)
    if read is not None:
        found = meeting([Filter(kind, read, negated)], HOSTILE)
        for expression in (found.surely, found.maybe):
            assert HARMLESS.fullmatch(expression), expression


@pytest.mark.parametrize("kind", ["text", "tag", "duplicate"])
def test_what_milvus_does_not_know_is_named(kind):
    with pytest.raises(Unanswerable, match=f"{kind}:") as caught:
        meeting([Filter(kind, "x")], HOSTILE)
    assert caught.value.code == "query.not_on_milvus"


def test_too_many_marks_are_refused():
    many = Known(HOSTILE.values, lambda mark: [bytes(32)] * 10_001)
    with pytest.raises(Unanswerable, match="is:favourite"):
        meeting([Filter("is", "favourite")], many)
    none = Known(HOSTILE.values, lambda mark: [])
    assert meeting([Filter("is", "favourite")], none).surely == NOTHING


@given(
    name=st.text(min_size=1, max_size=12).filter(lambda text: "/" not in text and "\0" not in text),
    data=st.data(),
)
def test_the_tokens_of_a_part_are_among_those_of_the_name(name, data):
    first = data.draw(st.integers(0, len(name) - 1))
    last = data.draw(st.integers(first + 1, len(name)))
    path = b"/photos/folder/" + name.encode("utf-8", "surrogatepass")
    has = of_file(path, b"/root")
    folded = fold(path.decode("utf-8", "surrogateescape").rpartition("/")[2])
    part = folded[first:last]
    if fold(part) == part and part and not set(part) & set("*?"):
        assert set(parts_of_name(part)[0]) <= has
        assert set(parts_of_name(f"*{part}*")[0]) <= has
        if first == 0:
            assert set(parts_of_name(f"{part}*")[0]) <= has


def test_a_folder_is_found_by_its_last_parts_and_by_its_path():
    has = of_file(b"/photos/a/B/c/d.jpg", b"/photos")
    for value in ("a", "b", "a/b/c", "/photos/a", "/", "photos/A"):
        assert set(parts_of_folder(value)[0]) <= has, value
    for value in ("a/c", "/photos/b", "d.jpg", "/photos/a/b"):
        assert not set(parts_of_folder(value)[0]) <= has, value


def test_numbers_are_exact_in_json_and_follow_from_the_content():
    numbers = {number_of(bytes([n]) * 32, place) for n in range(1, 50) for place in range(4)}
    assert all(0 < number < 2**53 for number in numbers)
    assert number_of(bytes(32)) == 1
