"""A new family of models is one row of ``FAMILIES``: nothing else needs to know of it."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from closeness import assert_close_rows
from fovea.search.clip.checkpoints.families import FAMILIES, Family
from fovea.search.clip.encoders.load import load_encoder
from fovea.search.models.resolve import resolve_model

transformers = pytest.importorskip("transformers", reason="the extra 'transformers' is missing")

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "red", "blue", "dog"]
SIDE, WIDTH = 8, 5


class ToyConfig(transformers.PretrainedConfig):
    model_type = "toy"

    def __init__(self, **options):
        super().__init__(**options)
        self.text_config = transformers.PretrainedConfig(max_position_embeddings=6)


class ToyModel(transformers.PreTrainedModel):
    """An image is its mean colour, a text the mean of its words, both projected."""

    config_class = ToyConfig

    def __init__(self, config):
        super().__init__(config)
        self.colour_head = nn.Linear(3, WIDTH, bias=False)
        self.words = nn.Embedding(len(WORDS), WIDTH)
        self.logit_scale = nn.Parameter(torch.tensor(2.0))
        self.post_init()

    def get_image_features(self, pixel_values):
        return self.colour_head(pixel_values.mean(dim=(2, 3)))

    def get_text_features(self, input_ids, attention_mask):
        mask = attention_mask[..., None]
        return (self.words(input_ids) * mask).sum(dim=1) / mask.sum(dim=1)


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """The folder of a model of a family that was registered just now, and the model."""
    monkeypatch.setitem(
        FAMILIES, "toy", Family(model="ToyModel", width_tensor="colour_head.weight")
    )
    monkeypatch.setattr("transformers.ToyModel", ToyModel, raising=False)
    folder = tmp_path / "toy"
    torch.manual_seed(0)
    model = ToyModel(ToyConfig())
    nn.init.normal_(model.colour_head.weight)
    nn.init.normal_(model.words.weight)
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    transformers.BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    said = {"image_processor_type": "SiglipImageProcessor", "size": {"height": SIDE, "width": SIDE}}
    (folder / "preprocessor_config.json").write_text(json.dumps(said))
    return folder, model.state_dict()


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_a_registered_family_embeds_images_and_texts(toy):
    folder, state = toy
    encoder = load_encoder(folder, device="cpu", dtype="float32")
    assert (encoder.dim, encoder.preprocess.size) == (WIDTH, SIDE)
    colours = np.array([[255, 0, 0], [10, 200, 90]])
    images = [Image.new("RGB", (20, 9), tuple(colour)) for colour in colours.tolist()]
    means = (colours / 255 - 0.5) / 0.5  # SigLIP's mean and deviation
    assert_close_rows(
        encoder.encode_images(images), unit(means @ state["colour_head.weight"].numpy().T)
    )
    words = state["words.weight"].numpy()
    ids = [[2, 4, 6, 3], [2, 5, 3], [2, 6, 6, 6, 6, 3]]  # the last is cut at six positions
    want = np.stack([words[row].mean(axis=0) for row in ids])
    texts = ["red dog", "blue", "dog dog dog dog dog dog"]
    assert_close_rows(encoder.encode_texts(texts), unit(want))
    assert encoder.logit_scale == pytest.approx(np.exp(2.0))


def test_a_registered_family_is_described_by_its_own_name(toy):
    model = resolve_model(str(toy[0]))
    assert (model.family, model.dim) == ("toy", WIDTH)
