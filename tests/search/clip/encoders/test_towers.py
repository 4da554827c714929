"""Every image tower with every text tower: the inference towers against the reference model."""

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from fovea.search.clip.checkpoints.checkpoint import load_clip
from fovea.search.clip.checkpoints.export import save_model
from fovea.search.clip.encoders import kernels
from fovea.search.clip.encoders.load import load_encoder
from fovea.search.clip.encoders.numpy_text import NumpyTextEncoder
from fovea.search.clip.errors import ModelError
from fovea.search.clip.tokenizer import open_tokenizer
from fovea.search.models.info import check_vocabulary, describe_model
from tower_parts import BERT, ENTRIES, JOINED, write_joined

TEXTS = [
    "the dog",
    "",
    "a",
    "dogs do the dog thing, oddly",
    "the " * 100,
    "犬 🐕",
    "[PAD] a [SEP] b",
]
NEAR = 1e-5


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    place = tmp_path_factory.mktemp("joined")
    for name, config in JOINED.items():
        write_joined(place / name, config)
    return place


@pytest.fixture(params=[True, False], ids=["packed", "plain"])
def packing(request, monkeypatch):
    """Both ways of computing: oneDNN's packed products where they work, and torch's own."""
    if not request.param:
        monkeypatch.setattr(kernels.Target, "packs", False)


def pictures(side, n=5):
    """Fields of few colours, so that even random convolutions tell the pictures apart."""
    fields = np.random.default_rng(3).integers(0, 256, (n, 2, 2, 3))
    return fields.repeat(-(-side // 2), 1).repeat(-(-side // 2), 2)[:, :side, :side].astype("uint8")


@torch.no_grad()
def reference(folder):
    """Unit rows of the pictures and texts by the reference model, text by text."""
    model = load_clip(folder)
    config = model.config
    pixels = torch.from_numpy(pictures(config.vision.image_size)).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (config.mean, config.std))
    images = normalize(model.encode_image((pixels - mean) / std), dim=-1)
    tokenizer = open_tokenizer(folder, config.text.tokenizer)
    tokens = tokenizer.tokenize(TEXTS, config.text.context_length)
    rows = [row[:end] for row, end in zip(tokens, tokenizer.lengths(tokens), strict=True)]
    alone = torch.cat([model.encode_text(torch.from_numpy(row)[None]) for row in rows])
    return images.numpy(), normalize(alone, dim=-1).numpy()


@pytest.mark.usefixtures("packing")
@pytest.mark.parametrize("name", JOINED)
def test_float32_equals_the_reference_model(folders, name):
    encoder = load_encoder(folders / name, device="cpu", dtype="float32")
    images, texts = reference(folders / name)
    assert np.linalg.norm(images[0] - images[1:], axis=1).min() > 0.01
    found = encoder.encode_pixels(pictures(encoder.preprocess.size))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, images, rtol=0, atol=NEAR)
    np.testing.assert_allclose(encoder.encode_texts(TEXTS), texts, rtol=0, atol=NEAR)


@pytest.mark.usefixtures("packing")
@pytest.mark.parametrize("name", JOINED)
def test_bfloat16_points_the_same_way(folders, name):
    encoder = load_encoder(folders / name, device="cpu", dtype="bfloat16")
    images, texts = reference(folders / name)
    found = encoder.encode_pixels(pictures(encoder.preprocess.size))
    assert (found * images).sum(axis=1).min() > 0.999
    assert (encoder.encode_texts(TEXTS) * texts).sum(axis=1).min() > 0.999


@pytest.mark.parametrize("name", JOINED)
def test_the_module_that_is_converted_equals_the_reference_model(folders, name):
    encoder = load_encoder(folders / name, device="cpu", dtype="bfloat16")
    pixels = torch.from_numpy(pictures(encoder.preprocess.size))
    with torch.inference_mode():
        found = normalize(encoder._module()()(pixels), dim=-1).numpy()
    np.testing.assert_allclose(found, reference(folders / name)[0], rtol=0, atol=NEAR)


@pytest.mark.parametrize("name", JOINED)
def test_texts_without_torch_equal_the_reference_model(folders, name):
    found = NumpyTextEncoder.open(folders / name).encode_texts(TEXTS)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, reference(folders / name)[1], rtol=0, atol=NEAR)


@pytest.mark.parametrize("int8", [False, True], ids=["half", "int8"])
@pytest.mark.parametrize("name", JOINED)
def test_a_saved_model_is_read_alike_everywhere(folders, name, int8, tmp_path):
    model = load_clip(folders / name)
    tokenizer = open_tokenizer(folders / name, model.config.text.tokenizer)
    saved = save_model(model, tokenizer, tmp_path, int8_text=int8)
    assert load_clip(saved).config == model.config
    images, texts = reference(saved)
    encoder = load_encoder(saved, device="cpu", dtype="float32")
    found = encoder.encode_pixels(pictures(encoder.preprocess.size))
    np.testing.assert_allclose(found, images, rtol=0, atol=NEAR)
    np.testing.assert_allclose(encoder.encode_texts(TEXTS), texts, rtol=0, atol=NEAR)
    without = NumpyTextEncoder.open(saved).encode_texts(TEXTS)
    np.testing.assert_allclose(without, texts, rtol=0, atol=NEAR)
    before = reference(folders / name)[1]
    assert (texts * before).sum(axis=1).min() > (0.999 if int8 else 0.99999)


@pytest.mark.parametrize("name", ["vit-bert", "lite-hidden-causal"])
def test_a_model_names_its_towers(folders, name):
    printed = str(load_clip(folders / name))
    assert ("(bert): Bert(" in printed) == name.endswith("bert")
    assert ("EfficientNetLite(" in printed) == name.startswith("lite")
    assert "ProjectionHead(" in printed or name.startswith("vit")


@pytest.mark.parametrize("name", ["vit-causal", "vit-bert", "lite-bert"])
def test_a_text_is_embedded_alone_as_among_others(folders, name):
    encoder = load_encoder(folders / name, device="cpu", dtype="float32")
    alone = np.concatenate([encoder.encode_texts([text]) for text in TEXTS])
    np.testing.assert_allclose(alone, encoder.encode_texts(TEXTS), rtol=0, atol=NEAR)


def test_more_pictures_than_a_batch_keep_their_order(folders):
    encoder = load_encoder(folders / "lite-classes-bert", device="cpu", dtype="float32")
    pixels = pictures(64, 3)
    many = np.arange(encoder.batch_size + 4) % 3
    few = encoder.encode_pixels(pixels)
    np.testing.assert_allclose(encoder.encode_pixels(pixels[many]), few[many], atol=NEAR)
    np.testing.assert_allclose(encoder.encode_pixels(pixels), few, atol=NEAR)


def test_the_kind_of_vocabulary_is_told_before_the_first_search(folders, tmp_path):
    write_joined(tmp_path, JOINED["lite-bert"])
    model = describe_model(tmp_path, "mine", "mine")
    assert model.tokenizer == "wordpiece" and check_vocabulary(model) is model
    (tmp_path / "vocab.txt.gz").rename(tmp_path / "bpe.txt.gz")
    with pytest.raises(ModelError, match="no vocabulary; put vocab.txt or vocab.txt.gz beside"):
        check_vocabulary(model)
    assert describe_model(folders / "lite-causal", "mine", "mine").tokenizer == "bpe"


def test_a_vocabulary_whose_padding_is_not_the_first_entry_is_refused(tmp_path):
    write_joined(tmp_path, JOINED["vit-bert"])
    (tmp_path / "vocab.txt.gz").unlink()
    turned = [*ENTRIES[1:], ENTRIES[0]]
    (tmp_path / "vocab.txt").write_text("\n".join(turned), "utf-8")
    with pytest.raises(ModelError, match=rf"\[PAD\] as entry {BERT.vocab_size - 1}, not 0"):
        load_encoder(tmp_path, device="cpu").encode_texts(["a"])
    with pytest.raises(ModelError, match="not 0"):
        NumpyTextEncoder.open(tmp_path)
