import json

import numpy as np
import pytest

from coloured import encoded, write_tar
from search.clip.errors import ModelError
from search.clip.pairs import LABEL_TEMPLATES, Source, open_pairs

RNG = np.random.default_rng(0)


@pytest.fixture
def images(tmp_path):
    return write_tar(tmp_path / "images.tar", {f"{n}.png": encoded("red", n) for n in range(3)})


def write_lines(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_json_lines_give_captions_of_one_split(tmp_path, images):
    captions = write_lines(
        tmp_path / "c.jsonl",
        {"file": "0.png", "split": "train", "captions": ["one", "two", " "]},
        {"file": "1.png", "split": "dev", "captions": ["three"]},
        {"file": "2.png", "split": "train", "caption": "four"},
        {"file": "gone.png", "split": "train", "captions": ["five"]},
    )
    found = open_pairs(Source((images,), captions=captions, split="train"))
    assert [(pair.file, pair.captions) for pair in found.pairs] == [
        ("0.png", ("one", "two")),
        ("2.png", ("four",)),
    ]
    assert found.read(found.pairs[0]) == encoded("red", 0)


def test_a_table_gives_captions(tmp_path, images):
    table = tmp_path / "c.tsv"
    table.write_text("filepath\ttitle\n0.png\ta cat, asleep\n1.png\ta dog\n")
    found = open_pairs(Source((images,), captions=table))
    assert [pair.captions for pair in found.pairs] == [("a cat, asleep",), ("a dog",)]


def test_shards_join_images_with_the_words_beside_them(tmp_path):
    files = {
        "000.jpg": encoded("red", kind="JPEG"),
        "000.txt": b"a red thing\n",
        "001.jpg": encoded("blue", kind="JPEG"),
        "001.json": json.dumps({"caption": "a blue thing"}).encode(),
        "002.jpg": encoded("lime", kind="JPEG"),
        "003.jpg": encoded("lime", kind="JPEG"),
        "003.txt": b"  ",
    }
    shard = write_tar(tmp_path / "00000.tar", files)
    found = open_pairs(Source((shard,)))
    assert [(pair.file, pair.captions) for pair in found.pairs] == [
        ("000.jpg", ("a red thing",)),
        ("001.jpg", ("a blue thing",)),
    ]


def test_labels_become_prompts_with_any_of_the_names(tmp_path, images):
    labels = write_lines(tmp_path / "l.jsonl", {"file": "1.png", "label": 7, "split": "train"})
    classes = tmp_path / "classes.json"
    classes.write_text(json.dumps([{"label": 7, "names": ["puma", "cougar"]}]))
    found = open_pairs(Source((images,), labels=labels, classes=classes))
    [pair] = found.pairs
    drawn = {found.caption(pair, RNG) for _ in range(300)}
    assert drawn == {t.format(name) for t in LABEL_TEMPLATES for name in ("puma", "cougar")}


def test_captions_are_drawn_from_all(tmp_path, images):
    captions = write_lines(tmp_path / "c.jsonl", {"file": "0.png", "captions": ["one", "two"]})
    found = open_pairs(Source((images,), captions=captions))
    assert {found.caption(found.pairs[0], RNG) for _ in range(50)} == {"one", "two"}


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("c.jsonl", '{"file": 3, "captions": ["x"]}', "line 1"),
        ("c.jsonl", "not json", "c.jsonl"),
        ("c.jsonl", "[1]", "JSON object"),
        ("c.jsonl", '{"file": "gone.png", "captions": ["x"]}', "names no image"),
        ("c.jsonl", "", "names no image"),
    ],
)
def test_a_bad_caption_file_is_named(tmp_path, images, name, text, told):
    (tmp_path / name).write_text(text)
    with pytest.raises(ModelError, match=told):
        open_pairs(Source((images,), captions=tmp_path / name))


def test_labels_need_their_classes(tmp_path, images):
    labels = write_lines(tmp_path / "l.jsonl", {"file": "1.png", "label": 7})
    with pytest.raises(ModelError, match="classes"):
        open_pairs(Source((images,), labels=labels))
    (tmp_path / "classes.json").write_text("[]")
    with pytest.raises(ModelError, match="label 7"):
        open_pairs(Source((images,), labels=labels, classes=tmp_path / "classes.json"))
