import json
from dataclasses import replace

import numpy as np
import pytest

from coloured import encoded, write_tar
from fovea.search.clip.datasets.captions import finder
from fovea.search.clip.datasets.pairs import (
    HYPERNYMS_DRAWN,
    LABEL_TEMPLATES,
    Caption,
    PairSource,
    open_pairs,
)
from fovea.search.clip.errors import ModelError

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
    found = open_pairs(PairSource((images,), captions=captions, split="train"))
    assert [(pair.file, pair.captions) for pair in found.pairs] == [
        ("0.png", ("one", "two")),
        ("2.png", ("four",)),
    ]
    assert found.read(found.pairs[0]) == encoded("red", 0)


def test_a_table_gives_captions(tmp_path, images):
    table = tmp_path / "c.tsv"
    table.write_text("filepath\ttitle\n0.png\ta cat, asleep\n1.png\ta dog\n")
    found = open_pairs(PairSource((images,), captions=table))
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
    found = open_pairs(PairSource((shard,)))
    assert [(pair.file, pair.captions) for pair in found.pairs] == [
        ("000.jpg", ("a red thing",)),
        ("001.jpg", ("a blue thing",)),
    ]


def test_labels_become_prompts_with_any_of_the_names(tmp_path, images):
    labels = write_lines(tmp_path / "l.jsonl", {"file": "1.png", "label": 7, "split": "train"})
    classes = tmp_path / "classes.json"
    classes.write_text(json.dumps([{"label": 7, "names": ["puma", "cougar"]}]))
    found = open_pairs(PairSource((images,), labels=labels, classes=classes))
    [pair] = found.pairs
    drawn = {found.caption(pair, RNG).text for _ in range(300)}
    assert drawn == {t.format(name) for t in LABEL_TEMPLATES for name in ("puma", "cougar")}


def test_captions_are_drawn_from_all(tmp_path, images):
    captions = write_lines(tmp_path / "c.jsonl", {"file": "0.png", "captions": ["one", "two"]})
    found = open_pairs(PairSource((images,), captions=captions))
    assert {found.caption(found.pairs[0], RNG).text for _ in range(50)} == {"one", "two"}


FELINES = {"feline": ("puma", "lion"), "animal": ("COUGAR", "newt", "lion")}


@pytest.fixture
def animals(tmp_path, images):
    """A labelled source of three classes, two of which are felines."""
    lines = [{"file": f"{n}.png", "label": n} for n in range(3)]
    names = [["puma", "cougar"], ["lion"], ["newt"]]
    classes = [{"label": label, "names": entry} for label, entry in enumerate(names)]
    (tmp_path / "classes.json").write_text(json.dumps(classes))
    return PairSource(
        (images,),
        labels=write_lines(tmp_path / "l.jsonl", *lines),
        classes=tmp_path / "classes.json",
        hypernyms=FELINES,
    )


def test_hypernyms_name_their_classes_too(animals):
    found = open_pairs(animals)
    assert found.hypernyms == {"feline": (0, 1), "animal": (0, 1, 2)}
    drawn = [[found.caption(pair, RNG).name for _ in range(400)] for pair in found.pairs]
    assert [set(names) for names in drawn] == [
        {"puma", "cougar", "feline", "animal"},
        {"lion", "feline", "animal"},
        {"newt", "animal"},
    ]
    for names in drawn:
        general = sum(name in found.hypernyms for name in names) / len(names)
        assert abs(general - HYPERNYMS_DRAWN) < 0.1
    assert {found.class_prompt(1, RNG).name for _ in range(50)} == {"lion"}


def test_a_hypernym_is_no_negative_of_what_it_covers(animals):
    found = open_pairs(animals)

    def alike(label, name, other, other_name):
        one, two = (
            set(found.tags(found.pairs[place], Caption(f"one {word}", word)))
            for place, word in ((label, name), (other, other_name))
        )
        return bool(one & two)

    assert alike(0, "feline", 1, "lion") and alike(0, "feline", 1, "feline")
    assert alike(2, "animal", 1, "lion")
    assert not alike(0, "feline", 2, "newt") and not alike(0, "puma", 1, "lion")
    widest = found.tags(found.pairs[0], Caption("one animal", "animal"))
    assert found.most_tags == 6 == len(widest)


def test_hypernyms_of_excluded_classes_go(animals):
    found = open_pairs(replace(animals, exclude=("puma", "lion")))
    assert found.hypernyms == {"animal": (2,)}


def test_hypernyms_are_of_classes(animals, tmp_path, images):
    with pytest.raises(ModelError, match="'lynx', listed under 'feline', is not a class"):
        open_pairs(replace(animals, hypernyms={"feline": ("lion", "lynx")}))
    captions = write_lines(tmp_path / "c.jsonl", {"file": "0.png", "caption": "one"})
    with pytest.raises(ModelError, match="hypernyms need files"):
        open_pairs(PairSource((images,), captions=captions, hypernyms=FELINES))


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("c.jsonl", '{"file": 3, "captions": ["x"]}', "line 1"),
        ("c.jsonl", '{"file": "a.png", "captions": 5}', "line 1"),
        ("c.jsonl", "\n\nnot json", "c.jsonl, line 3, is not JSON"),
        ("c.tsv", "caption\\tname\nx\\ty\n", "line 2: needs 'file'"),
        ("c.jsonl", "[1]", "JSON object"),
        ("c.jsonl", '{"file": "gone.png", "captions": ["x"]}', "lists no image"),
        ("c.jsonl", "", "lists no image"),
    ],
)
def test_a_bad_caption_file_is_named(tmp_path, images, name, text, told):
    (tmp_path / name).write_text(text)
    with pytest.raises(ModelError, match=told):
        open_pairs(PairSource((images,), captions=tmp_path / name))


@pytest.mark.parametrize("name", ["none.tsv", "none.jsonl"])
def test_a_caption_file_that_is_not_there_is_named_once(tmp_path, images, name):
    with pytest.raises(ModelError) as told:
        open_pairs(PairSource((images,), captions=tmp_path / name))
    assert str(told.value) == f"cannot read {tmp_path / name}: No such file or directory"


def test_labels_need_their_classes(tmp_path, images):
    labels = write_lines(tmp_path / "l.jsonl", {"file": "1.png", "label": 7})
    with pytest.raises(ModelError, match="classes"):
        open_pairs(PairSource((images,), labels=labels))
    (tmp_path / "classes.json").write_text("[]")
    with pytest.raises(ModelError, match="label 7"):
        open_pairs(PairSource((images,), labels=labels, classes=tmp_path / "classes.json"))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"captions": "c.jsonl", "labels": "l.jsonl"}, "not both"),
        ({"classes": "c.json"}, "need a file of labels"),
        ({"split": "dev"}, "no split 'dev'"),
        ({"images": ()}, "no images"),
    ],
)
def test_what_does_not_go_together_is_told(tmp_path, images, changes, told):
    changes = {
        name: tmp_path / value if name in ("captions", "labels", "classes") else value
        for name, value in changes.items()
    }
    with pytest.raises(ModelError, match=told):
        open_pairs(PairSource(**{"images": (images,)} | changes))


def test_without_a_split_all_lines_count(tmp_path, images):
    rows = [{"file": f"{n}.png", "split": f"s{n}", "captions": ["x"]} for n in range(3)]
    captions = write_lines(tmp_path / "c.jsonl", *rows)
    assert len(open_pairs(PairSource((images,), captions=captions)).pairs) == 3


def test_an_image_on_several_lines_is_one_pair(tmp_path, images):
    table = tmp_path / "c.tsv"
    table.write_text("file\tcaption\n0.png\tone\n1.png\tother\n./0.png\ttwo\n")
    found = open_pairs(PairSource((images,), captions=table))
    assert [(pair.file, pair.captions) for pair in found.pairs] == [
        ("0.png", ("one", "two")),
        ("1.png", ("other",)),
    ]


def test_lines_without_an_image_are_counted(tmp_path, images, caplog):
    rows = [{"file": file, "caption": "x"} for file in ("0.png", "8.png", "9.png")]
    captions = write_lines(tmp_path / "c.jsonl", *rows)
    assert len(open_pairs(PairSource((images,), captions=captions)).pairs) == 1
    assert "left out 2 of 3 lines" in caplog.text


@pytest.mark.parametrize(
    ("field", "caption"),
    [
        ("a cat, asleep", "a cat, asleep"),
        ('"a cat"', "a cat"),
        ('"a ""big"" cat"', 'a "big" cat'),
        ('"big" and "small"', '"big" and "small"'),
        ('"a cat', '"a cat'),
        ('a 7" record', 'a 7" record'),
    ],
)
def test_quotes_in_a_table_stay_in_their_line(tmp_path, images, field, caption):
    table = tmp_path / "c.tsv"
    table.write_text(f"\ufefffile\tcaption\r\n0.png\t{field}\r\n1.png\tnext\r\n", newline="")
    found = open_pairs(PairSource((images,), captions=table))
    assert [pair.captions for pair in found.pairs] == [(caption,), ("next",)]


def test_several_folders_and_tars_are_one_source(tmp_path):
    one = write_tar(tmp_path / "one.tar.gz", {"a/x.png": b"1", "a/same.png": b"2"}, "w:gz")
    two = tmp_path / "two"
    (two / "b").mkdir(parents=True)
    (two / "b" / "y.png").write_bytes(b"3")
    (two / "b" / "same.png").write_bytes(b"4")
    rows = [{"file": name, "caption": name} for name in ("x.png", "b/y.png", "a/same.png")]
    found = open_pairs(PairSource((one, two), captions=write_lines(tmp_path / "c.jsonl", *rows)))
    assert [found.read(pair) for pair in found.pairs] == [b"1", b"3", b"2"]
    write_lines(tmp_path / "c.jsonl", {"file": "same.png", "caption": "which"})
    with pytest.raises(ModelError, match="same.png is in the given .* more than once"):
        open_pairs(PairSource((one, two), captions=tmp_path / "c.jsonl"))


def captions_of_shard(folder, files):
    found = open_pairs(PairSource((write_tar(folder / "0.tar", files),)))
    return {pair.file: pair.captions for pair in found.pairs}


def test_a_shards_keys_hold_their_folders_and_dots(tmp_path):
    files = {
        "a/1.jpg": b"", "a/1.txt": b"first", "b/2.jpg": b"", "c/2.txt": b"of another folder",
        "d.v1.jpg": b"", "d.v1.txt": b"dotted", "d.v2.jpg": b"", "d.v2.mask.png": b"",
        "._e.jpg": b"", "._e.txt": b"not for us", "f.JPG": b"", "f.TXT": b"loud",
    }  # fmt: skip
    assert captions_of_shard(tmp_path, files) == {
        "a/1.jpg": ("first",),
        "d.v1.jpg": ("dotted",),
        "f.JPG": ("loud",),
    }


@pytest.mark.parametrize(
    ("text", "captions"),
    [
        ('{"caption": " one "}', ("one",)),
        ('{"text": "one"}', ("one",)),
        ('{"captions": ["one", "", "two"], "width": 3}', ("one", "two")),
        ('["one", "two"]', ("one", "two")),
        ('"one"', ("one",)),
    ],
)
def test_a_shards_json_holds_captions_in_several_ways(tmp_path, text, captions):
    files = {"1.jpg": b"", "1.json": text.encode()}
    assert captions_of_shard(tmp_path, files) == {"1.jpg": captions}


def test_words_in_a_text_file_win_over_data_beside_them(tmp_path):
    files = {"1.jpg": b"", "1.txt": b"words", "1.json": b'{"url": "x"}'}
    assert captions_of_shard(tmp_path, files) == {"1.jpg": ("words",)}
    files = {"1.jpg": b"", "1.txt": b" ", "1.json": b'{"caption": "x"}'}
    assert captions_of_shard(tmp_path, files) == {"1.jpg": ("x",)}


@pytest.mark.parametrize("text", ["not json", "3", '{"caption": 3}', '{"captions": [{"a": 1}]}'])
def test_a_shards_broken_json_is_named(tmp_path, text):
    with pytest.raises(ModelError, match=r"1.json in .*0.tar"):
        captions_of_shard(tmp_path, {"1.jpg": b"", "1.json": text.encode()})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{}", "not a class"),
        ("[3]", "cannot read the classes"),
        ('[{"label": 1, "names": []}]', "class 1 has no names"),
        ('[{"label": 1, "names": 5}]', "class 1 has no names"),
    ],
)
def test_a_bad_file_of_classes_is_named(tmp_path, images, text, told):
    labels = write_lines(tmp_path / "l.jsonl", {"file": "1.png", "label": 1})
    (tmp_path / "classes.json").write_text(text)
    with pytest.raises(ModelError, match=told):
        open_pairs(PairSource((images,), labels=labels, classes=tmp_path / "classes.json"))


def test_tags_tell_images_captions_and_classes_apart(tmp_path, images):
    captions = write_lines(
        tmp_path / "c.jsonl",
        {"file": "0.png", "captions": ["one", "Two "]},
        {"file": "1.png", "captions": ["two"]},
        {"file": "2.png", "captions": ["three"]},
    )
    found = open_pairs(PairSource((images,), captions=captions))
    zero, one, two = (set(found.tags(pair, Caption(pair.captions[0]))) for pair in found.pairs)
    assert zero & one and not zero & two and not one & two
    assert found.most_tags == 4 == len(found.tags(found.pairs[0], Caption("one")))


def test_a_digest_tells_what_is_paired_and_not_where_it_lies(tmp_path, animals, images):
    def digest(*captions, images=images):
        rows = ({"file": f"{n}.png", "caption": text} for n, text in enumerate(captions))
        table = write_lines(tmp_path / "c.jsonl", *rows)
        return open_pairs(PairSource((images,), captions=table)).digest()

    one = digest("one", "two \ud800", "three")
    assert one == digest("one", "two \ud800", "three", images=images.rename(tmp_path / "moved.tar"))
    (tmp_path / "moved.tar").rename(images)
    others = {
        digest("two \ud800", "three", "one"),
        digest("one", "two"),
        digest("one two", "three"),
    }
    assert len({one, *others}) == 4
    labelled = open_pairs(animals)
    renamed = replace(labelled, class_names=labelled.class_names | {0: ("puma",)})
    assert labelled.digest() != renamed.digest()


@pytest.mark.parametrize(
    ("words", "text", "found"),
    [
        (["snow"], "Two dogs in the Snow .", True),
        (["snow"], "a snowy hill", False),
        (["snow*"], "a snowy hill", True),
        (["ski lift", "sled*"], "under a ski lift", True),
        (["ski lift"], "a ski near a lift", False),
        (["c.t"], "a cat", False),
    ],
)
def test_a_finder_looks_for_whole_words(words, text, found):
    assert bool(finder(words).search(text)) == found


def test_images_with_a_word_in_any_caption_are_excluded(tmp_path, images):
    captions = write_lines(
        tmp_path / "c.jsonl",
        {"file": "0.png", "captions": ["a dog", "it runs through snow"]},
        {"file": "1.png", "captions": ["a dog in sand"]},
    )
    found = open_pairs(PairSource((images,), captions=captions, exclude=("snow*",)))
    assert [pair.file for pair in found.pairs] == ["1.png"]
    with pytest.raises(ModelError, match=r"every image of .*c.jsonl matches an excluded word"):
        open_pairs(PairSource((images,), captions=captions, exclude=("dog",)))


def test_classes_with_a_word_in_any_name_are_excluded(tmp_path, images):
    labels = write_lines(
        tmp_path / "l.jsonl", *({"file": f"{n}.png", "label": n} for n in range(3))
    )
    names = [["lemon"], ["puma", "Felis concolor"], ["reel"]]
    (tmp_path / "k.json").write_text(
        json.dumps([{"label": label, "names": entry} for label, entry in enumerate(names)])
    )
    found = open_pairs(
        PairSource(
            (images,), labels=labels, classes=tmp_path / "k.json", exclude=("lemon", "felis *")
        )
    )
    assert [pair.label for pair in found.pairs] == [2]
    assert found.class_names == {2: ("reel",)}


def test_what_has_no_words_is_left_out_and_counted(tmp_path, images, caplog):
    rows = [{"file": f"{n}.png", "captions": ["", "x"] if n == 1 else [" "]} for n in range(3)]
    rows.append({"file": "1.png", "captions": []})
    lines = write_lines(tmp_path / "c.jsonl", *rows)
    (tmp_path / "c.tsv").write_text("file\tcaption\n1.png\tx\n0.png\t\n")
    files = {
        "1.jpg": b"",
        "1.txt": b"x",
        "2.jpg": b"",
        "2.txt": b" ",
        "2.json": b"{}",
        "3.jpg": b"",
    }
    shard = write_tar(tmp_path / "0.tar", files)
    for path, source, empty, without, count in (
        (lines, PairSource((images,), captions=lines), 4, 2, 3),
        (tmp_path / "c.tsv", PairSource((images,), captions=tmp_path / "c.tsv"), 1, 1, 2),
        (shard, PairSource((shard,)), 1, 2, 3),
    ):
        caplog.clear()
        found = open_pairs(source)
        assert [pair.captions for pair in found.pairs] == [("x",)]
        assert (found.empty_captions, found.without_words) == (empty, without)
        assert caplog.messages == [
            f"left out {empty} empty captions of {path}",
            f"left out {without} of {count} images of {path}: no words",
        ]


def test_what_is_complete_is_not_warned_of(tmp_path, images, caplog):
    captions = write_lines(tmp_path / "c.jsonl", {"file": "0.png", "captions": ["x"]})
    found = open_pairs(PairSource((images,), captions=captions))
    assert (found.empty_captions, found.without_words, caplog.text) == (0, 0, "")


def test_images_without_any_words_say_what_is_missing(tmp_path, images):
    folder = tmp_path / "img"
    folder.mkdir()
    with pytest.raises(ModelError, match="there are no images in .*img; check the path"):
        open_pairs(PairSource((folder,)))
    for name in ("a.jpg", "b.jpg"):
        (folder / name).write_bytes(b"")
    with pytest.raises(
        ModelError,
        match=r"the 2 images in .*img have no captions beside them .*; give --captions or",
    ):
        open_pairs(PairSource((folder,)))
    captions = write_lines(tmp_path / "c.jsonl", {"file": "0.png", "captoin": "misspelt"})
    with pytest.raises(ModelError, match="c.jsonl has no captions for its 1 images"):
        open_pairs(PairSource((images,), captions=captions))
