import io
import json

import pytest
from PIL import Image

from coloured import encoded, write_tar
from fovea.search.clip.datasets.pairs import PairSource, open_pairs
from fovea.search.clip.evaluation.evaluate import embed_pairs
from fovea.search.clip.evaluation.examples import pick_examples

COLOURS = ("red", "lime", "blue", "yellow")


@pytest.fixture
def found(tmp_path):
    """Four squares with two captions each; the one of red is called blue."""
    archive = write_tar(tmp_path / "x.tar", {f"{name}.png": encoded(name) for name in COLOURS})
    names = {name: name for name in COLOURS} | {"red": "blue"}
    lines = [
        {"file": f"{name}.png", "captions": [f"a {said}", f"so {said}"]}
        for name, said in names.items()
    ]
    (tmp_path / "c.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return open_pairs(PairSource((archive,), captions=tmp_path / "c.jsonl"))


def test_queries_are_answered_with_the_nearest_pictures(encoder, found):
    measured = embed_pairs(encoder, found)
    examples = pick_examples(found, [measured, measured], count=50, hits=3)
    assert len(examples) == 4  # no image twice
    for example in examples:
        word = example.query.split()[-1]
        one, two = example.answers
        assert one == two and len(one.hits) == 3
        assert one.hits[0].file == f"{word}.png"
        if example.right.file == "red.png":
            assert word == "blue" and one.rank > 1 and not one.hits[0].is_right
        else:
            assert one.rank == 1 and [hit.is_right for hit in one.hits] == [True, False, False]
        assert example.right.is_right
        with Image.open(io.BytesIO(example.right.picture)) as image:
            assert image.format == "WEBP" and max(image.size) <= 128


def test_what_is_drawn_depends_on_the_seed_alone(encoder, found):
    measured = embed_pairs(encoder, found)

    def drawn(seed):
        picked = pick_examples(found, [measured], count=3, seed=seed)
        return [example.query for example in picked]

    assert drawn(0) == drawn(0) and any(drawn(0) != drawn(seed) for seed in range(1, 5))


class PlainWords:
    """An encoder of texts that look for the colour's name anywhere in a prompt."""

    def __init__(self, encoder):
        self.encode_pixels, self.preprocess = encoder.encode_pixels, encoder.preprocess
        self._encoder = encoder

    def encode_texts(self, texts):
        words = ["".join(filter(str.isalpha, text.split()[-1])) for text in texts]
        return self._encoder.encode_texts(words)


def test_a_class_has_several_right_pictures(encoder, tmp_path):
    files = {f"{name}{n}.png": encoded(name, n) for name in COLOURS[:3] for n in range(2)}
    lines = [{"file": name, "label": COLOURS.index(name[:-5])} for name in files]
    classes = [{"label": n, "names": [name]} for n, name in enumerate(COLOURS)]
    (tmp_path / "l.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "k.json").write_text(json.dumps(classes))
    archive = write_tar(tmp_path / "x.tar", files)
    found = open_pairs(
        PairSource((archive,), labels=tmp_path / "l.jsonl", classes=tmp_path / "k.json")
    )
    measured = embed_pairs(PlainWords(encoder), found)
    examples = pick_examples(found, [measured], hits=3)
    assert sorted(example.query for example in examples) == ["blue", "lime", "red"]
    for example in examples:
        assert [hit.is_right for hit in example.answers[0].hits] == [True, True, False]
