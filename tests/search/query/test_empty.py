"""An empty answer says which filter leaves nothing, and what may have been meant."""

import time

import numpy as np
import pytest

from fovea.search.library.library import Library
from fovea.search.library.marks import contents, mark
from fovea.search.library.rows import FileWrite, ImageMetadata, NewImage, WriteBatch
from fovea.search.query.columns import read_columns
from fovea.search.query.empty import MESSAGES, hints_for
from fovea.search.query.filters import FILTERS
from fovea.search.query.known_values import near_values
from fovea.search.query.language import parse


@pytest.fixture(scope="module")
def stocked(tmp_path_factory):
    """Six pictures in three folders, of two cameras, from 2019 and 2021."""
    with Library.open(tmp_path_factory.mktemp("stocked") / "library", create=True) as library:
        model, root = library.set_model("toy", "a" * 64, 4, "test"), library.add_root(b"/photos")
        rows = [
            ("november/a.jpg", "JPEG", "Canon EOS R6", "2019-07-01T10:00:00"),
            ("november/b.jpg", "JPEG", "Canon EOS R6", "2019-07-02T10:00:00"),
            ("holidays 2021/c.png", "PNG", "Apple iPhone 12", "2021-08-01T10:00:00"),
            ("holidays 2021/d.png", "PNG", "Apple iPhone 12", "2021-08-02T10:00:00"),
            ("old/e.png", "PNG", None, "2021-08-03T10:00:00"),
            ("old/f.png", "PNG", None, "2021-08-04T10:00:00"),
        ]
        new, files = [], []
        for n, (path, format, camera, taken) in enumerate(rows):
            key = bytes([n]) * 32
            facts = ImageMetadata(4, 3, format, 1, taken, camera=camera)
            new.append(NewImage(key, 1, facts, np.eye(4, dtype=np.float32)[n % 4]))
            files.append(FileWrite(b"/photos/" + path.encode(), root.id, 1, 1, key))
        library.write_batch(WriteBatch(new, files, model.id))
        yield library


def hints(library, query, columns=None):
    return hints_for(library, parse(query).filters, columns)


@pytest.mark.parametrize("by", ["SQL", "columns"])
@pytest.mark.parametrize(
    ("query", "code", "says"),
    [
        ("in:nowhere", "filter.in", 'no folder of this library is called "nowhere"'),
        ("in:novembre", "filter.in", 'called "novembre"; did you mean in:november?'),
        ('in:"holiday 2021"', "filter.in", 'did you mean in:"holidays 2021"?'),
        ("in:photos/novembre", "filter.in", "did you mean in:photos/november?"),
        ("in:/photos/novembre", "filter.in", "did you mean in:/photos/november?"),
        ("camera:cannon", "filter.camera", 'called "cannon"'),
        ('camera:"Canon EOS R5"', "filter.camera", 'did you mean camera:"Canon EOS R6"?'),
        ("format:heic", "filter.format", "no picture has the format heic"),
        ("name:zebra", "filter.name", 'no file name matches "zebra"'),
        ("is:portrait", "filter.is", "no picture is portrait"),
        ("size:>10MP", "filter.size", "no picture has the size >10MP"),
        ("near:48.2,16.4,10km", "filter.near", "from within 48.2,16.4,10km"),
        ("on:2020", "filter.on", "from 2020; the pictures are from 2019-07-01 to 2021-08-04"),
        ("after:2021", "filter.after", "from after 2021; the pictures are from"),
        ("before:2019", "filter.before", "from before 2019; the pictures are from"),
        ("-is:landscape", "filter.negated", "-is:landscape leaves out every picture"),
        ("in:november dog on:2020", "filter.on", "no picture is from 2020"),
        ("in:november on:2021", "filters", "matches in:november on:2021 together; without"),
        ("in:november on:2021", "filters", "without in:november or on:2021 some would"),
        ("in:old camera:canon on:2021", "filters", "without in:old or"),
    ],
)
def test_the_filter_that_leaves_nothing_is_named(stocked, query, code, says, by):
    columns = read_columns(stocked) if by == "columns" else None
    [hint] = hints(stocked, query, columns)
    assert hint.code == code and hint.code in MESSAGES
    if says.endswith("without in:old or"):  # without either of two, one still leaves nothing
        assert "together" in hint.message
    else:
        assert says in hint.message


def test_every_filter_has_its_words():
    assert {f"filter.{kind}" for kind in FILTERS} <= set(MESSAGES)


@pytest.mark.parametrize("kind", ["in", "name", "camera", "lens", "place", "text", "tag"])
def test_what_people_typed_is_in_quotation_marks(kind):
    assert '"{value}"' in MESSAGES[f"filter.{kind}"]


def test_each_filter_that_leaves_nothing_is_named_up_to_three(stocked):
    found = hints(stocked, "in:nowhere on:2020 format:heic is:square")
    assert [hint.code for hint in found] == ["filter.in", "filter.on", "filter.format"]


@pytest.mark.parametrize("query", ["", "dog", "in:november", "in:november on:2019"])
def test_where_something_passes_there_is_nothing_to_say(stocked, query):
    assert hints(stocked, query) == ()


def test_an_empty_library_blames_no_filter(tmp_path):
    with Library.open(tmp_path / "library", create=True) as library:
        assert hints(library, "in:nowhere") == ()


def test_hidden_pictures_are_said_to_be_hidden(tmp_path, colour_library):
    rows = colour_library.rows(
        "SELECT image_id FROM files WHERE CAST(path AS TEXT) LIKE '%/red.png'"
    )
    known = contents(colour_library, [image_id for (image_id,) in rows])
    mark(colour_library, known.values(), "hidden", True)
    assert [hint.code for hint in hints(colour_library, "name:red")] == ["hidden"]
    assert hints(colour_library, "name:red is:hidden") == ()


def test_looking_ends_when_patience_is_over(stocked, monkeypatch):
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    assert hints(stocked, "in:nowhere") == ()


def test_a_long_value_is_compared_in_no_time(stocked):
    assert near_values(stocked.folder, "in", "x" * 2000) == []
    assert near_values(stocked.folder, "camera", "canon") == ["Canon EOS R6"]
