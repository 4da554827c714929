"""Text in pictures: words find it, ``text:`` filters by it, and it drowns nothing."""

import numpy as np
import pytest
from PIL import Image

from fovea.search.analyses.stored import Done, store, switch
from fovea.search.analyses.texts import (
    Line,
    matching,
    store_lines,
    text_of,
    texted_images,
    texts_begun,
)
from fovea.search.errors import QueryError
from fovea.search.index.vector_index import VectorIndex
from fovea.search.library import checks
from fovea.search.library.marks import contents, mark
from fovea.search.query.choosing import chosen
from fovea.search.query.columns import read_columns
from fovea.search.query.empty import hints_for
from fovea.search.query.filters import allowed_images
from fovea.search.query.language import parse
from fovea.search.query.rank import TEXTED, rank
from toys import COLOURS, TolerantEncoder

BOX = (0.1, 0.1, 0.9, 0.1, 0.9, 0.2, 0.1, 0.2)
TEXTS = {
    "red": ["Boarding pass", "Gate B12  Seat 14A"],
    "blue": ["BOARDINGPASS", "LISBON"],
    "lime": ["上海虹桥站 登机牌", "Gate 3"],
    "white": ["the pass is closed, no boarding"],
    "maroon": ["Île-de-France, Straße"],
    "cyan": ["ตั๋วรถไฟ"],
}


def lines(*texts):
    return [Line(text, 0.9, BOX) for text in texts]


def keep(library, image_id, *texts):
    done = [Done(image_id, lines(*texts))]
    store(library, "text", "1", done, store_lines)


@pytest.fixture
def encoder():
    """One that takes any words."""
    return TolerantEncoder()


@pytest.fixture
def ids(colour_library):
    rows = colour_library.rows("SELECT image_id, path FROM files")
    known = {path.rpartition(b"/")[2][:-4].decode(): image_id for image_id, path in rows}
    for name, texts in TEXTS.items():
        keep(colour_library, known[name], *texts)
    return known


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ('text:"boarding pass"', {"red", "blue"}),
        ("text:gate", {"red", "lime"}),
        ('-text:gate text:"pass"', {"white"}),
        ("text:登机牌", {"lime"}),
        ("text:机", {"lime"}),
        ("text:虹桥站登机", {"lime"}),
        ("text:桥上", set()),
        ("text:ile", {"maroon"}),
        ("text:STRASSE", {"maroon"}),
        ("text:b12", {"red"}),
        ("text:oar", set()),  # no word
        ("text:รถไฟ", {"cyan"}),
        ('text:"14a boarding"', set()),
    ],
)
def test_the_filter_finds_words_one_after_another(colour_library, ids, query, expected):
    filters = parse(query).filters
    names = {image_id: name for name, image_id in ids.items()}
    found = {names[image_id] for image_id in allowed_images(colour_library, filters).tolist()}
    if query.startswith("-"):
        found, expected = found & {"white", "red"}, {"white"}
    assert found == expected
    by_columns = chosen(colour_library, read_columns(colour_library), filters)
    assert set(by_columns.ids.tolist()) == set(allowed_images(colour_library, filters).tolist())


@pytest.mark.parametrize("value", ['"…"', '"-"', "!"])
def test_a_filter_without_a_word_says_what_to_write(value):
    with pytest.raises(QueryError, match='has no word to look for.*text:"boarding pass"'):
        parse(f"text:{value}")


def ranked(library, encoder, query, **options):
    index = VectorIndex.open(library, library.model().id)
    return rank(library, index, encoder, parse(query), **options)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("pass boarding", {"red", "white"}),
        ("boarding pass", {"red", "blue", "white"}),
        ("登机牌", {"lime"}),
        ("gate 登机", {"lime"}),
        ("lisbon", {"blue"}),
        ("a", set()),
        ("3", set()),
        ("站", {"lime"}),
        ("の", set()),
        ("ＢＯＡＲＤＩＮＧ　ｐａｓｓ", {"red", "blue", "white"}),
        ("I\u0302le de France", {"maroon"}),
        ("strasse", {"maroon"}),
        ("登機牌", set()),  # traditional characters are others
    ],
)
def test_plain_words_find_text_and_say_so(colour_library, ids, encoder, words, expected):
    names = {image_id: name for name, image_id in ids.items()}
    ranking = ranked(colour_library, encoder, words)
    assert {names[image_id] for image_id in ranking.by_text} == expected
    assert len(ranking.ids) == len(COLOURS)  # the others follow
    assert len(set(ranking.ids.tolist())) == len(COLOURS)


def test_text_and_near_pictures_take_turns(colour_library, ids, encoder):
    """The nearest picture stays first: text does not drown it."""
    for name in COLOURS:
        if name != "red":
            keep(colour_library, ids[name], "red wine")
    ranking = ranked(colour_library, encoder, "red")
    assert ranking.ids[0] == ids["red"] and ids["red"] not in ranking.by_text
    assert len(ranking.by_text) == min(TEXTED, len(COLOURS) - 1)
    assert ids["red"] in ranking.by_name


def test_thousands_of_pictures_with_the_word_drown_nothing(
    colour_library, ids, encoder, add_file, tmp_path, monkeypatch
):
    """Nor do they keep one of another folder from being found, however new they are."""
    monkeypatch.setattr("fovea.search.analyses.texts.RANKED", 50)
    keep(colour_library, ids["lime"], "red herring and very much else, which makes it less of it")
    root = colour_library.roots()[0]
    for number in range(300):
        path = tmp_path / "photos" / "many" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (0, 0, 5 + number % 200)).save(path)
        with path.open("ab") as file:
            file.write(str(number).encode())
        keep(colour_library, add_file(colour_library, root.id, path), "red")
    ranking = ranked(colour_library, encoder, "red")
    assert len(ranking.by_text) == TEXTED and ids["lime"] not in ranking.by_text
    assert ranked(colour_library, encoder, "red -in:many").by_text == {ids["lime"]}
    switch(colour_library, "text", False)
    without = ranked(colour_library, encoder, "red")
    assert ranking.ids[0] == without.ids[0] and not without.by_text
    assert set(without.ids[:8].tolist()) <= set(ranking.ids[: 8 + TEXTED].tolist())


def test_who_finds_no_words_hears_that_pictures_wait_or_reading_is_off(colour_library, ids):
    def said():
        [hint] = hints_for(colour_library, parse("text:nowhere").filters)
        return hint.message, hint.params

    message, params = said()
    waiting = len(ids) - len(TEXTS)
    assert f"; {waiting} of the pictures are still to be read: fovea analyse text" in message
    assert params["unread"] == str(waiting)
    for name in set(ids) - set(TEXTS):
        keep(colour_library, ids[name])
    assert said()[0] == 'no picture is known to show the words "nowhere"'
    switch(colour_library, "text", False)
    message, params = said()
    assert message.endswith(
        "; reading text is switched off: fovea analyse --on text switches it on"
    )
    assert params["off"] == "text"


def test_filters_and_hidden_pictures_hold_for_text(colour_library, ids, encoder):
    assert ranked(colour_library, encoder, "gate name:red").by_text == {ids["red"]}
    mark(colour_library, contents(colour_library, [ids["red"]]).values(), "hidden", True)
    assert ranked(colour_library, encoder, "gate").by_text == {ids["lime"]}
    assert not ranked(colour_library, encoder, "-gate +red").by_text


def test_text_is_kept_whole_and_goes_with_its_analysis(colour_library, ids):
    assert [line.text for line in text_of(colour_library, ids["red"])] == TEXTS["red"]
    assert text_of(colour_library, ids["red"])[0].corners == BOX
    with colour_library.reading() as conn:
        assert not [*checks.links(conn), *checks.rows(conn), *checks.tables(conn)]
    keep(colour_library, ids["red"], "something else")
    assert not allowed_images(colour_library, parse("text:b12").filters).size
    switch(colour_library, "text", False)
    for table in ("texts", "text_words", "text_runs"):
        assert colour_library.rows(f"SELECT count(*) FROM {table}") == [(0,)]


def test_text_that_cannot_be_searched_is_damage(colour_library, ids):
    colour_library.conn.execute("DELETE FROM text_words WHERE rowid = ?", (ids["red"],))
    with colour_library.reading() as conn:
        assert any("cannot be searched" in line for line in checks.links(conn))


def test_a_picture_without_text_is_done(colour_library, ids):
    keep(colour_library, ids["magenta"])
    assert text_of(colour_library, ids["magenta"]) == ()


def test_hostile_text_in_pictures_is_only_text(colour_library, ids, encoder):
    hostile = [
        '" OR words:gate', "NEAR(a b, 3) AND NOT x", "a* ^b {c} : d", "'); DROP TABLE texts; --",
        "\x00null\x00", "\ud800 half", "\u202egnp.exe", "x" * 1500, "\U0001f600 smile", "%_\\",
    ]  # fmt: skip
    keep(colour_library, ids["red"], *hostile)
    assert len(text_of(colour_library, ids["red"])) == len(hostile)
    for words in ("drop table texts", "null", "half", "near a b 3", "x" * 1500, "smile"):
        assert ranked(colour_library, encoder, words).by_text == {ids["red"]}, words[:20]
    for words in hostile:
        found = matching(words)
        if found is not None:
            colour_library.rows(*found)
        texts_begun(colour_library, words, 3)
        texted_images(colour_library, words, 3)
    with colour_library.reading() as conn:
        assert not [*checks.links(conn), *checks.rows(conn), *checks.tables(conn)]


def test_what_begins_is_whole_words_in_order(colour_library, ids):
    assert texts_begun(colour_library, "boar", 3) == ["boarding", "boardingpass"]
    assert texts_begun(colour_library, "boarding p", 3) == ["boarding pass"]
    assert texts_begun(colour_library, "oard", 3) == []
    assert texts_begun(colour_library, "登", 3) == ["登"]
    assert texts_begun(colour_library, "登机牌", 3) == ["登机牌"]
    assert texts_begun(colour_library, "…", 3) == []


def test_text_of_hidden_pictures_is_not_suggested(colour_library, ids):
    mark(colour_library, contents(colour_library, [ids["red"]]).values(), "hidden", True)
    assert texts_begun(colour_library, "boar", 3) == ["boarding", "boardingpass"]  # white, blue
    assert texts_begun(colour_library, "boarding p", 3) == []


def test_hostile_words_are_only_words(colour_library, ids, encoder):
    for words in ('"', "NEAR(", "a* OR b", "words:gate", "^gate", "gate AND NOT pass", "'", "\\"):
        try:
            query = parse(words)
        except QueryError:
            continue
        index = VectorIndex.open(colour_library, colour_library.model().id)
        assert isinstance(rank(colour_library, index, encoder, query).ids, np.ndarray)
