"""Tags by labels: who gets them, what people say against them, and how they are switched off."""

import json
from dataclasses import replace

import numpy as np
import pytest

from fovea.indexer.scanning.verify import verify
from fovea.search.errors import LibraryError
from fovea.search.library import schema
from fovea.search.library.facts import tags as tables
from fovea.search.library.library import Library
from fovea.search.library.rows import FileWrite, ImageMetadata, NewImage, WriteBatch
from fovea.search.maintenance.labelling import (
    Label,
    label_pictures,
    labels_in,
    labels_wanted,
    unlabel_pictures,
)
from fovea.search.query.filters import allowed_images
from fovea.search.query.language import parse
from fovea.search.query.likelihood import Background, default_labels
from fovea.search.query.measured import LabelSigns, Measured
from fovea.search.tags.scoring import refresh
from fovea.search.tags.stored import say, tag_named, tags, tags_of

DIM, IDENTITY = 32, "a" * 64


def content(number):
    return number.to_bytes(32, "big")


def filled(library, tmp_path):
    """Give a library a model; return a function that adds pictures near to axes of the space."""
    root, model = library.add_root(tmp_path), library.set_model("toy", IDENTITY, DIM, "test")
    known = []

    def add(axes):
        images, files = [], []
        for axis in axes:
            known.append(axis)
            row = np.full(DIM, 0.02)
            row[axis] = 1
            row = (row / np.linalg.norm(row)).astype(np.float16)
            images.append(NewImage(content(len(known)), 1, ImageMetadata(1, 1, "PNG"), row))
            path = f"{tmp_path}/{len(known)}.png".encode()
            files.append(FileWrite(path, root.id, 1, 1, content(len(known))))
        library.write_batch(WriteBatch(images, files, model.id))

    return add


@pytest.fixture
def pictures(library, tmp_path):
    """A library, its model, and a function that adds pictures near to axes of the space."""
    add = filled(library, tmp_path)
    add([0, 0, 1, 2, 3, 4, 5, 6, 7, 8])
    return library, library.model(), add


def background(right=0.7, names=("dog", "cat")):
    """Labels that are near to nothing, but for dog (axis 0) and cat (axis 1)."""
    vectors = np.zeros((len(default_labels()), DIM), np.float32)
    vectors[:, DIM - 1] = 1
    for axis, name in enumerate(names):
        vectors[default_labels().index(name)] = np.eye(DIM)[axis]
    signs = Measured(IDENTITY, (0.0,) * DIM, labels=LabelSigns(0.3, right, 0.5))
    return Background(IDENTITY, vectors, 100.0, signs)


def told(library, name, **said):
    """Say something of pictures by number, as somebody who then looks at the tag."""
    say(library, name, **{what: map(content, numbers) for what, numbers in said.items()})
    refresh(library)
    return found(library, f"tag:{name}")


def found(library, query):
    return {int(number) for number in allowed_images(library, parse(query).filters)}


def test_pictures_get_their_likeliest_label(pictures):
    library, model, add = pictures
    assert label_pictures(library, model, background(), [], None) == 3
    assert (found(library, "tag:dog"), found(library, "tag:cat")) == ({1, 2}, {3})
    dog = tag_named(library, "dog")
    assert (dog.by_label, dog.is_taught, dog.right) == (True, False, 0.7)
    assert [tag.name for tag in tags(library)] == ["cat", "dog"]
    add([0, 9])
    wanted = labels_wanted(library)
    assert label_pictures(library, model, background(), [], None, wanted.last) == 1
    assert found(library, "tag:dog") == {1, 2, 11}
    assert labels_wanted(library).last == wanted.last + 2


def test_what_people_say_counts_more_and_stays(pictures):
    library, model, _ = pictures
    label_pictures(library, model, background(), [], None)
    say(library, "dog", yes=[content(4)], no=[content(1)])
    refresh(library)
    assert found(library, "tag:dog") == {2, 4}
    label_pictures(library, model, background(), [], None)
    assert found(library, "tag:dog") == {2, 4}
    unlabel_pictures(library)
    assert found(library, "tag:dog") == {4} and labels_wanted(library) is None
    assert [tag.name for tag in tags(library)] == ["dog"]


def test_a_taught_tag_is_not_found_by_its_label(pictures):
    library, model, _ = pictures
    say(library, "dog", yes=map(content, (5, 6, 7)), no=[content(1)])
    refresh(library)
    label_pictures(library, model, background(), [], None)
    assert tag_named(library, "dog").is_taught and 1 not in found(library, "tag:dog")


def test_a_yes_outlasts_a_label_that_finds_nothing_any_more(pictures):
    library, model, _ = pictures
    told(library, "other", yes=[9])
    label_pictures(library, model, background(), [], None)
    assert told(library, "dog", yes=[4], no=[1]) == {2, 4}
    label_pictures(library, model, background(names=("bird", "cat")), [], None)
    assert found(library, "tag:dog") == {4} and found(library, "tag:other") == {9}
    assert [one.said for one in tags_of(library, [4])[4] if one.name == "dog"] == [True]


def test_what_is_taken_back_leaves_what_the_label_found(pictures):
    library, model, _ = pictures
    label_pictures(library, model, background(), [], None)
    before = tags_of(library, [1, 2])
    assert told(library, "dog", yes=[2, 4], no=[1]) == {2, 4}
    assert told(library, "dog", neither=[4]) == {2}
    assert told(library, "dog", neither=[1, 2]) == {1, 2}
    assert tags_of(library, [1, 2]) == before
    assert tag_named(library, "dog").right == 0.7


def test_a_label_counts_again_where_too_few_examples_are_left(pictures):
    library, model, add = pictures
    label_pictures(library, model, background(), [], None)
    assert 1 not in told(library, "dog", yes=[5, 6, 7], no=[1])
    add([0, 9, 5])
    refresh(library)
    label_pictures(library, model, background(), [], None, labels_wanted(library).last)
    assert tag_named(library, "dog").is_taught
    assert told(library, "dog", neither=[5, 6, 7]) == {2, 11}
    dog = tag_named(library, "dog")
    assert (dog.is_taught, dog.right, dog.yes, dog.no) == (False, 0.7, 0, 1)
    add([0])
    label_pictures(library, model, background(), [], None, labels_wanted(library).last)
    assert found(library, "tag:dog") == {2, 11, 14}
    assert told(library, "cat", yes=[8]) == {3, 8}


def test_a_tag_without_a_label_finds_nothing_where_too_few_examples_are_left(pictures):
    library, _, _ = pictures
    assert len(told(library, "rex", yes=[1, 2, 5])) >= 3
    assert told(library, "rex", neither=[1, 5]) == {2}
    assert not tag_named(library, "rex").is_taught


def test_tags_from_before_labels_were_kept_apart(tmp_path, monkeypatch):
    """As that fovea left them: label (1), taken back (2), taught by label (3), no label (4)."""
    before = schema.MIGRATIONS.index(tables.LABELLED)
    with monkeypatch.context() as patch:
        patch.setattr(schema, "MIGRATIONS", schema.MIGRATIONS[:before])
        patch.setattr(schema, "VERSION", before)
        with Library.open(tmp_path / "library", create=True) as library:
            add = filled(library, tmp_path)
            add([0, 0, 1, 2, 3, 4, 5, 6, 7, 8])
            row = np.ones(DIM + 1, "<f4").tobytes()
            with library.transaction() as conn:
                for number, name in enumerate(("dog", "cat", "bird", "rex"), 1):
                    prompts = '["x"]' if number < 4 else None
                    values = (number, name, name, prompts, "2026-01-01T00:00:00+00:00")
                    conn.execute("INSERT INTO tags VALUES (?, ?, ?, ?, ?)", values)
                    blob = row if number > 2 else None
                    values = (number, IDENTITY, "x", 10, blob, 0.3, 0.7)
                    conn.execute("INSERT INTO tag_probes VALUES (?, ?, ?, ?, ?, ?, ?)", values)
                tagged = [(1, 1, 0.9), (1, 2, 0.8), (1, 4, 1.0), (3, 8, 0.9), (3, 9, 0.5)]
                conn.executemany("INSERT INTO tagged VALUES (?, ?, ?)", tagged)
                conn.execute(
                    "INSERT INTO tag_examples (tag_id, hash, is_so, marked_at) VALUES (1, ?, 1, ?)",
                    (content(4), "2026-01-01T00:00:00+00:00"),
                )
                kept = json.dumps({"own": [], "identity": IDENTITY, "last": 10})
                conn.execute("INSERT INTO library VALUES ('labels', ?)", (kept,))
    with Library.open(tmp_path / "library") as library:
        refresh(library)
        assert found(library, "tag:dog") == {1, 2, 4} and tag_named(library, "dog").right == 0.7
        assert found(library, "tag:bird") == set(), "nobody says so, nor has it a label any more"
        assert labels_wanted(library).last == 0, "the next scan labels anew"
        assert told(library, "dog", neither=[4]) == {1, 2}
        label_pictures(library, library.model(), background(), [], None)
        assert (found(library, "tag:dog"), found(library, "tag:cat")) == ({1, 2}, {3})
        assert [tag.name for tag in tags(library)] == ["cat", "dog", "rex"]
        assert verify(library).problems == []


@pytest.mark.parametrize("of", [background(0.5), None, Background(IDENTITY, np.eye(3), 1.0)])
def test_models_whose_labels_are_often_wrong_give_none(pictures, of):
    library, model, _ = pictures
    with pytest.raises(LibraryError, match="gives no labels"):
        label_pictures(library, model, of, [], None)
    assert tags(library) == []


def test_labels_of_ones_own(pictures, tmp_path):
    library, model, _ = pictures

    class Encoder:
        def encode_texts(self, texts):
            assert texts == ["a photo of a unicorn", "a drawing of a unicorn"]
            return np.eye(DIM, dtype=np.float32)[[2, 2]]

    file = tmp_path / "labels.txt"
    file.write_text("unicorn: a photo of a unicorn | a drawing of a unicorn\n\n")
    own = labels_in(file)
    assert own == [Label("unicorn", ("a photo of a unicorn", "a drawing of a unicorn"))]
    label_pictures(library, model, background(), own, Encoder())
    assert found(library, "tag:unicorn") == {4}
    assert labels_wanted(library).own == tuple(own)


def test_comments_are_no_labels(tmp_path):
    file = tmp_path / "#labels.txt"
    file.write_text("# mine\n\n  # indented\ncat # no comment\n\\#sunset: a red sky\n\\x\n")
    assert [label.name for label in labels_in(file)] == ["cat # no comment", "#sunset", "\\x"]


@pytest.mark.parametrize(
    ("data", "says"),
    [(b"", "0 labels"), (b"\xff\xfe", "not UTF-8"), (b"x" * 61, "line 1: .* at most 60"),
     (b"\n".join(b"%d" % n for n in range(1001)), "1,001 labels"), (None, "cannot read"),
     (b"# mine\r\ncat\r\n\r\n: no name\r\n", "labels.txt, line 4: a tag needs a name"),
     (b"cat\rx\x07y", "labels.txt, line 2: a tag needs a name"),
     (b"# nothing but comments\n", "0 labels")],
)  # fmt: skip
def test_files_that_are_no_labels(tmp_path, data, says):
    file = tmp_path / "labels.txt"
    if data is not None:
        file.write_bytes(data)
    with pytest.raises(LibraryError, match=says):
        labels_in(file)


def test_a_user_can_ask_for_labels_that_are_right_more_often(pictures):
    library, model, add = pictures
    strict = background()
    signs = LabelSigns(0.0, 0.7, 0.5, ((0.999999, 0.9), (0.3, 0.8)))
    strict = replace(strict, signs=replace(strict.signs, labels=signs))
    assert label_pictures(library, model, strict, [], None, right=0.75) == 3
    assert labels_wanted(library).right == 0.75 and tag_named(library, "dog").right == 0.8
    label_pictures(library, model, strict, [], None, right=0.9)
    assert tag_named(library, "dog").right == 0.9
    kept = library.rows("SELECT DISTINCT threshold FROM tag_probes")
    assert kept == [(0.999999,)]
    with pytest.raises(LibraryError, match="right 90% of the time at most; 95% is wanted"):
        label_pictures(library, model, strict, [], None, right=0.95)
    with pytest.raises(LibraryError, match="right 77% of the time at most; 78% is wanted"):
        label_pictures(library, model, background(0.779), [], None, right=0.78)
    assert Measured.from_dict(json.loads(json.dumps(strict.signs.to_dict()))) == strict.signs
