import json

import numpy as np
import pytest
from PIL import Image

from coloured import encoded, write_tar
from fovea.search.clip.datasets.pairs import PairSource, open_pairs
from fovea.search.clip.errors import ModelError
from fovea.search.clip.evaluation import evaluate
from fovea.search.clip.evaluation.evaluate import (
    Accuracy,
    Retrieval,
    embed_pairs,
    recalls,
    shared_recalls,
)

COLOURS = ("red", "lime", "blue", "yellow", "cyan", "magenta")


def measured(encoder, images, progress=None, **words):
    """The figures of an encoder on the images in some folders or tars, and the words for them."""
    return embed_pairs(encoder, open_pairs(PairSource(tuple(images), **words)), progress).figures()


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def recall_by_hand(scores, right, k):
    """The share of rows (lists of scores) with one of ``right`` above all but k - 1 others."""
    found = 0
    for row, mine in zip(scores, right, strict=True):
        better = [s for j, s in enumerate(row) if j not in mine and s >= max(row[j] for j in mine)]
        found += len(better) < k
    return found / len(scores)


@pytest.mark.parametrize("block", [1, 100, 1 << 24])
def test_recalls_equal_those_of_a_loop(monkeypatch, block):
    monkeypatch.setattr(evaluate, "SCORES", block)
    rng = np.random.default_rng(0)
    images = unit(rng.normal(size=(17, 4)).astype("f4"))
    owner = np.repeat(np.arange(17), rng.integers(1, 5, size=17))
    texts = unit(images[owner] + 0.9 * rng.normal(size=(len(owner), 4)).astype("f4"))
    order = rng.permutation(len(owner))  # an image's texts need not stand together
    owner, texts = owner[order], texts[order]
    scores = (images @ texts.T).tolist()
    columns = (texts @ images.T).tolist()
    found = recalls(images, texts, owner)
    for k in (1, 5, 10):
        right = [np.flatnonzero(owner == number).tolist() for number in range(17)]
        assert found["image_to_text"][k] == recall_by_hand(scores, right, k)
        assert found["text_to_image"][k] == recall_by_hand(columns, [[o] for o in owner], k)
    assert 0 < found["text_to_image"][1] < found["text_to_image"][10] < 1


def test_a_text_of_several_images_counts_for_each_of_them():
    images = unit(np.float32([[1, 0.1, 0], [1, -0.1, 0], [0, 1, 0], [0, 0, 1]]))
    texts = np.float32([[1, 0, 0], [0, 0, 1]])
    right = np.array([[True, False], [True, False], [False, True], [False, True]])
    found = shared_recalls(images, texts, right)
    assert found["text_to_image"] == {1: 1, 5: 1, 10: 1}
    assert found["image_to_text"] == {1: 3 / 4, 5: 1, 10: 1}  # the third is as far from both


def test_ties_count_against_the_right_answer():
    same = np.tile(np.float32([1, 0]), (6, 1))
    found = recalls(same, same, np.arange(6))
    assert found == {way: {1: 0, 5: 0, 10: 1} for way in ("text_to_image", "image_to_text")}


def test_rows_that_are_no_numbers_find_nothing():
    broken = np.full((20, 4), np.nan, np.float32)
    found = recalls(broken, broken, np.arange(20))
    assert found == {way: {1: 0, 5: 0, 10: 0} for way in ("text_to_image", "image_to_text")}


def test_figures_are_laid_out_for_machines():
    found = Retrieval(3, 15, {1: 0.1, 5: 0.5, 10: 1.0}, {1: 0.2, 5: 0.6, 10: 0.9})
    assert json.dumps(found.to_dict()) == (
        '{"images": 3, "captions": 15, '
        '"text_to_image": {"recall@1": 0.1, "recall@5": 0.5, "recall@10": 1.0}, '
        '"image_to_text": {"recall@1": 0.2, "recall@5": 0.6, "recall@10": 0.9}}'
    )
    assert Accuracy(4, 2, 0.25, 0.5).to_dict() == {
        "images": 4, "classes": 2, "top1": 0.25, "top5": 0.5
    }  # fmt: skip


@pytest.fixture
def squares(tmp_path):
    folder = tmp_path / "squares"
    folder.mkdir()
    for name in COLOURS:
        Image.new("RGB", (20, 16), name).save(folder / f"{name}.png")
    return folder


def write_lines(path, rows):
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_retrieval_with_a_known_answer(encoder, tmp_path, squares):
    rows = [
        {"file": f"{name}.png", "split": "dev", "captions": [f"a square of {name}", f"all {name}"]}
        for name in COLOURS
    ]
    rows[0]["captions"] = ["or #00ff80", "or #0080ff"]  # red is the last to be like these
    rows.append({"file": "blue.png", "split": "train", "captions": ["something red"]})
    captions = write_lines(tmp_path / "c.jsonl", rows)
    seen = []
    report = lambda *counts: seen.append(counts)  # noqa: E731
    found = measured(encoder, [squares], report, captions=captions, split="dev")
    assert (found.images, found.captions) == (6, 12)
    assert found.text_to_image == {1: 10 / 12, 5: 10 / 12, 10: 1}
    assert found.image_to_text == {1: 5 / 6, 5: 1, 10: 1}
    assert seen[-1] == (6, 6)


def test_captions_on_lines_of_their_own_are_the_same_measurement(encoder, tmp_path, squares):
    together = write_lines(
        tmp_path / "one.jsonl",
        [{"file": f"{name}.png", "captions": [name, f"so {name}"]} for name in COLOURS],
    )
    lines = [f"{name}.png\t{text}" for name in COLOURS for text in (name, f"so {name}")]
    (tmp_path / "two.tsv").write_text("\n".join(["file\tcaption", *lines]))
    one = measured(encoder, [squares], captions=together)
    assert one == measured(encoder, [squares], captions=tmp_path / "two.tsv")
    assert (one.images, one.captions, one.text_to_image[1]) == (6, 12, 1)


@pytest.fixture
def classes(tmp_path):
    listed = [{"label": 10 * n, "names": [name]} for n, name in enumerate(COLOURS)]
    listed[0]["names"] = ["red", "crimson"]
    (tmp_path / "classes.json").write_text(json.dumps(listed))
    return tmp_path / "classes.json"


class PlainWords:
    """An encoder of texts that look for the colour's name anywhere in a prompt."""

    def __init__(self, encoder):
        self.encode_pixels, self.preprocess = encoder.encode_pixels, encoder.preprocess
        self.name = encoder.name
        self._encoder = encoder
        self.asked = []

    def encode_texts(self, texts):
        self.asked += texts
        words = ["".join(filter(str.isalpha, text.split()[-1])) for text in texts]
        return self._encoder.encode_texts(words)


def test_zero_shot_with_a_known_answer(encoder, tmp_path, squares, classes):
    numbers = {name: 10 * n for n, name in enumerate(COLOURS)}
    rows = [{"file": f"{name}.png", "label": numbers[name]} for name in COLOURS]
    rows[1]["label"] = numbers["yellow"]  # wrong, but yellow is second nearest to lime
    rows[2]["label"] = numbers["lime"]  # blue is as far from it as can be
    words = PlainWords(encoder)
    labels = write_lines(tmp_path / "l.jsonl", rows)
    found = measured(words, [squares], labels=labels, classes=classes)
    assert (found.images, found.classes, found.top1) == (6, 6, 4 / 6)
    assert found.top5 == 5 / 6
    assert {"a photo of a red.", "a photo of a crimson.", "red"} <= set(words.asked)


@pytest.mark.parametrize("method", ["encode_pixels", "encode_texts"])
def test_a_model_whose_embeddings_are_no_numbers_is_refused(
    encoder, tmp_path, squares, monkeypatch, method
):
    captions = write_lines(tmp_path / "c.jsonl", [{"file": "red.png", "caption": "red"}])
    monkeypatch.setattr(encoder, method, lambda rows: np.full((len(rows), 3), np.nan, np.float32))
    with pytest.raises(ModelError, match="colour gives embeddings that are not finite"):
        measured(encoder, [squares], captions=captions)


def test_broken_images_are_left_out_and_logged(encoder, tmp_path, caplog):
    files = {"red.png": encoded("red"), "bad.png": b"\x89PNG broken", "blue.png": encoded("blue")}
    archive = write_tar(tmp_path / "x.tar", files)
    rows = [{"file": name, "captions": [name.removesuffix(".png")]} for name in files]
    rows[1]["captions"] = ["lime"]
    found = measured(encoder, [archive], captions=write_lines(tmp_path / "c.jsonl", rows))
    assert (found.images, found.captions, found.text_to_image[1]) == (2, 2, 1)
    assert caplog.text.count("left out bad.png") == 1


def test_nothing_but_broken_images_is_an_error(encoder, tmp_path):
    archive = write_tar(tmp_path / "x.tar", {"bad.png": b"nothing"})
    captions = write_lines(tmp_path / "c.jsonl", [{"file": "bad.png", "captions": ["red"]}])
    with pytest.raises(ModelError, match="none of the 1 images"):
        measured(encoder, [archive], captions=captions)


def test_an_unknown_split_is_an_error(encoder, tmp_path, squares):
    captions = write_lines(tmp_path / "c.jsonl", [{"file": "red.png", "captions": ["red"]}])
    with pytest.raises(ModelError, match="with split 'test'"):
        measured(encoder, [squares], captions=captions, split="test")


def test_more_images_than_a_batch_keep_their_order(encoder, tmp_path):
    folder = tmp_path / "many"
    folder.mkdir()
    rng = np.random.default_rng(5)
    rows = []
    for number, colour in enumerate(rng.integers(0, 256, size=(70, 3)).tolist()):
        Image.new("RGB", (4, 4), tuple(colour)).save(folder / f"{number}.png")
        rows.append({"file": f"{number}.png", "caption": "#{:02x}{:02x}{:02x}".format(*colour)})
    found = measured(encoder, [folder], captions=write_lines(tmp_path / "c.jsonl", rows))
    assert found.images == 70 and found.text_to_image[1] == found.image_to_text[1] == 1
