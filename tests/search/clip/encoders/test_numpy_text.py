import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from closeness import assert_close_rows
from fovea.search.clip.encoders.load import load_encoder
from fovea.search.clip.encoders.numpy_text import POSITIONS, NumpyTextEncoder
from fovea.search.clip.errors import ModelError
from small_clips import RESNET, VIT, random_clip, write_model, write_open_clip
from tower_parts import BERT, write_joined

TEXTS = ["a dog", "the cat", "", "x", "the " * 40, "Ünïcode 東京 🐕"]


def reference(folder, texts):
    return load_encoder(folder, dtype="float32", device="cpu").encode_texts(texts)


@pytest.mark.parametrize("config", [VIT, RESNET, replace(VIT, activation="gelu")])
def test_words_without_torch_equal_words_with_it(tmp_path, config):
    write_model(tmp_path, config)
    rows = NumpyTextEncoder.open(tmp_path).encode_texts(TEXTS)
    assert rows.dtype == np.float32
    assert_close_rows(rows, reference(tmp_path, TEXTS))


def test_half_precision_weights_are_widened(tmp_path):
    write_model(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    save_file({n: t.half() for n, t in state.items()}, tmp_path / "model.safetensors")
    rows = NumpyTextEncoder.open(tmp_path).encode_texts(TEXTS)
    assert_close_rows(rows, reference(tmp_path, TEXTS))


def test_open_clips_files_are_read_alike(tmp_path):
    model = random_clip(VIT)
    write_model(tmp_path / "ours")
    write_open_clip(tmp_path / "theirs", model.state_dict(), VIT)
    (tmp_path / "theirs" / "bpe.txt.gz").write_bytes((tmp_path / "ours/bpe.txt.gz").read_bytes())
    ours, theirs = (
        NumpyTextEncoder.open(tmp_path / name).encode_texts(TEXTS) for name in ("ours", "theirs")
    )
    assert_close_rows(theirs, ours)


def test_no_text_makes_no_row(tmp_path):
    write_model(tmp_path)
    assert NumpyTextEncoder.open(tmp_path).encode_texts([]).shape == (0, VIT.embed_dim)


def test_what_only_torch_reads_is_left_to_torch(tmp_path):
    model = write_model(tmp_path / "wide")
    save_file(model.to(torch.bfloat16).state_dict(), tmp_path / "wide" / "model.safetensors")
    assert NumpyTextEncoder.open(tmp_path / "wide") is None
    (tmp_path / "pickled").mkdir()
    torch.save(random_clip(VIT).state_dict(), tmp_path / "pickled" / "model.pt")
    assert NumpyTextEncoder.open(tmp_path / "pickled") is None


def test_a_model_whose_weights_and_configuration_disagree_is_refused(tmp_path):
    write_model(tmp_path)
    data = json.loads((tmp_path / "config.json").read_text())
    data["model_cfg"]["text_cfg"]["layers"] = 7
    (tmp_path / "config.json").write_text(json.dumps(data))
    with pytest.raises(ModelError, match="lacks"):
        NumpyTextEncoder.open(tmp_path)


@pytest.mark.parametrize("name", ["quick_gelu", "gelu", "bert"])
def test_texts_are_embedded_together_as_each_alone(tmp_path, name):
    if name == "bert":
        write_joined(tmp_path, replace(VIT, text=BERT))
    else:
        write_model(tmp_path, replace(VIT, activation=name))
    encoder = NumpyTextEncoder.open(tmp_path)
    texts = [f"{'the ' * (number % 7)}cat {number}" for number in range(150)] + TEXTS
    alone = np.concatenate([encoder.encode_texts([text]) for text in texts])
    together = encoder.encode_texts(texts)
    assert together.shape == alone.shape and together.dtype == np.float32
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-6)
    np.testing.assert_allclose(encoder.encode_texts(texts[::-1]), together[::-1], rtol=0, atol=1e-6)


def test_a_pass_has_few_positions(tmp_path, monkeypatch):
    write_model(tmp_path)
    encoder, passes = NumpyTextEncoder.open(tmp_path), []
    embed = encoder._tower.embed

    def noted(texts):
        passes.append(sum(map(len, texts)))
        return embed(texts)

    monkeypatch.setattr(encoder._tower, "embed", noted)
    encoder.encode_texts(["the cat"] * 200)
    longest = encoder.config.text.context_length
    assert len(passes) > 1 and max(passes) < POSITIONS + longest
