"""Tags by labels: who gets them, what people say against them, and how they are switched off."""

import json
from dataclasses import replace

import numpy as np
import pytest

from fovea.search.errors import LibraryError
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
from fovea.search.tags.stored import say, tag_named, tags

DIM, IDENTITY = 32, "a" * 64


def content(number):
    return number.to_bytes(32, "big")


@pytest.fixture
def pictures(library, tmp_path):
    """A library, its model, and a function that adds pictures near to axes of the space."""
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

    add([0, 0, 1, 2, 3, 4, 5, 6, 7, 8])
    return library, model, add


def background(right=0.7):
    """Labels that are near to nothing, but for dog (axis 0) and cat (axis 1)."""
    vectors = np.zeros((len(default_labels()), DIM), np.float32)
    vectors[:, DIM - 1] = 1
    for axis, name in enumerate(("dog", "cat")):
        vectors[default_labels().index(name)] = np.eye(DIM)[axis]
    signs = Measured(IDENTITY, (0.0,) * DIM, labels=LabelSigns(0.3, right, 0.5))
    return Background(IDENTITY, vectors, 100.0, signs)


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
    assert Measured.from_dict(json.loads(json.dumps(strict.signs.to_dict()))) == strict.signs
