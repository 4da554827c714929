"""Matrices stored as int8: how they are written, read and refused."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from closeness import assert_close_rows
from fovea.search.clip.checkpoints.checkpoint import (
    Checkpoint,
    convert,
    load_clip,
    stored_shapes,
    weights_sha256,
)
from fovea.search.clip.checkpoints.export import save_model
from fovea.search.clip.checkpoints.int8 import dequantise, quantise
from fovea.search.clip.encoders.load import load_encoder
from fovea.search.clip.encoders.numpy_text import NumpyTextEncoder
from fovea.search.clip.errors import ModelError
from fovea.search.clip.tokenizer import Tokenizer
from fovea.search.clip.wordpiece import WordPiece
from small_clips import MERGES, VIT, hub_model, random_clip
from tower_parts import ENTRIES, JOINED

NAME = "bert.encoder.layer.0.output.dense.weight"
TABLE = "bert.embeddings.word_embeddings.weight"


@pytest.fixture
def folder(tmp_path):
    model = random_clip(JOINED["lite-bert"])
    return save_model(model, WordPiece(ENTRIES), tmp_path / "model", int8_text=True)


def change(folder, change):
    """Write a model's weights anew after ``change`` of its tensors."""
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors")


def test_a_row_is_off_by_half_a_step_at_most():
    matrix = np.random.default_rng(0).normal(size=(7, 90)).astype(np.float32)
    matrix[3] *= 1000
    matrix[5] = 0
    values, scale = quantise(matrix)
    assert values.dtype == np.int8 and scale.dtype == np.float32 and scale.shape == (7,)
    assert abs(values[[0, 1, 2, 3, 4, 6]].astype(int)).max(axis=1).tolist() == [127] * 6
    error = abs(dequantise(values, scale) - matrix)
    assert (error <= 0.5001 * scale[:, None]).all()
    assert not dequantise(values, scale)[5].any()


def test_only_the_text_towers_matrices_are_stored_as_int8(folder):
    state = load_file(folder / "model.safetensors")
    small = {name for name, tensor in state.items() if tensor.dtype == torch.int8}
    assert small == {
        TABLE,
        *(
            f"bert.encoder.layer.{layer}.{part}.weight"
            for layer in range(2)
            for part in (
                *(f"attention.self.{name}" for name in ("query", "key", "value")),
                *("attention.output.dense", "intermediate.dense", "output.dense"),
            )
        ),
    }
    scales = {name for name in state if name.endswith("weight_scale")}
    assert {name.removesuffix("_scale") for name in scales} == small
    assert {state[name].dtype for name in scales} == {torch.float32}
    assert {state[name].dtype for name in state.keys() - small - scales} == {torch.float16}


def test_the_published_text_tower_is_stored_as_int8_too(tmp_path):
    save_model(random_clip(VIT), Tokenizer(MERGES), tmp_path, int8_text=True)
    state = load_file(tmp_path / "model.safetensors")
    small = {name for name, tensor in state.items() if tensor.dtype == torch.int8}
    block = [f"attn.{name}weight" for name in ("in_proj_", "out_proj.")]
    block += [f"mlp.{name}.weight" for name in ("c_fc", "c_proj")]
    names = {f"transformer.resblocks.{layer}.{name}" for layer in range(2) for name in block}
    assert small == {"token_embedding.weight", *names}


def test_what_is_read_is_the_rows_times_their_scales(folder):
    stored = load_file(folder / "model.safetensors")
    want = stored[TABLE].double() * stored[TABLE + "_scale"].double()[:, None]
    read = Checkpoint.open(folder).state(["text"])
    assert read[TABLE].dtype == torch.float32
    assert (read[TABLE] - want).abs().max() < 1e-6 * want.abs().max()
    assert not any(name.endswith("weight_scale") for name in read)
    assert torch.equal(load_clip(folder).state_dict()[TABLE], read[TABLE])


def test_the_file_stays_the_identity(folder):
    shapes = stored_shapes(folder / "model.safetensors")
    assert shapes[TABLE + "_scale"] == (len(ENTRIES),)
    sha256 = weights_sha256(folder / "model.safetensors")
    assert load_encoder(folder, device="cpu").identity == sha256
    model = random_clip(JOINED["lite-bert"])
    again = save_model(model, WordPiece(ENTRIES), folder.with_name("again"), int8_text=True)
    assert weights_sha256(again / "model.safetensors") == sha256


def test_a_converted_model_is_widened(folder, tmp_path):
    out = convert(folder, tmp_path / "wide")
    assert load_file(out)[TABLE].dtype == torch.float32
    assert torch.equal(load_file(out)[TABLE], Checkpoint.open(folder).state()[TABLE])


def test_pairs_are_read_in_the_names_of_transformers(tmp_path):
    """There queries, keys and values are tensors of their own, each with its scales."""
    model, state = hub_model(), {}
    for name, tensor in model.state_dict().items():
        if "text_model.encoder" in name and tensor.dim() == 2:
            values, scale = quantise(tensor.numpy())
            state |= {name: torch.from_numpy(values), f"{name}_scale": torch.from_numpy(scale)}
        elif not name.endswith("position_ids"):
            state[name] = tensor
    save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(model.config.to_dict()))
    Tokenizer(MERGES).save(tmp_path)
    texts = ["the dog", "do"]
    found = NumpyTextEncoder.open(tmp_path).encode_texts(texts)
    with_torch = load_encoder(tmp_path, device="cpu", dtype="float32").encode_texts(texts)
    assert_close_rows(found, with_torch)
    tokens = torch.from_numpy(Tokenizer(MERGES).tokenize(texts, 16))
    with torch.no_grad():
        want = model.get_text_features(input_ids=tokens)
    want = getattr(want, "pooler_output", want)
    want = torch.nn.functional.normalize(want, dim=-1).numpy()
    assert (found * want).sum(axis=1).min() > 0.999


def scaled(name, scale):
    return lambda state: state.update({f"{name}_scale": scale(state[f"{name}_scale"])})


DAMAGED = {
    "no scales": (lambda state: state.pop(f"{NAME}_scale"), f"{NAME} is .*int8"),
    "no matrix": (lambda state: state.pop(NAME), f"lacks {NAME}"),
    "scales of others": (scaled(NAME, lambda s: s[:-1]), rf"{NAME}_scale is \(47,\), not \(48,\)"),
    "a matrix of scales": (scaled(NAME, lambda s: s[:, None].clone()), r"_scale is \(48, 1\)"),
    "a float matrix": (
        lambda state: state.update({NAME: state[NAME].half()}),
        f"{NAME} is float16 with scales of float32, not int8 with float32; fetch it again",
    ),
    "short scales": (scaled(NAME, torch.Tensor.half), "int8 with scales of float16"),
    "whole scales": (scaled(NAME, torch.Tensor.int), "int8 with scales of int32"),
    "negative scales": (scaled(NAME, lambda s: -s), f"{NAME} is int8 with scales that are below 0"),
    "infinite scales": (scaled(NAME, lambda s: s / 0), "scales that are below 0 or not finite"),
    "a table's": (scaled(TABLE, lambda s: s * torch.nan), f"{TABLE} is int8 with scales that"),
}


@pytest.mark.parametrize("case", DAMAGED)
@pytest.mark.parametrize("reader", ["torch", "numpy"])
def test_a_damaged_pair_is_refused_in_one_line(folder, case, reader):
    damage, message = DAMAGED[case]
    change(folder, damage)
    with pytest.raises(ModelError, match=message) as caught:
        if reader == "torch":
            Checkpoint.open(folder).state()
        elif NumpyTextEncoder.open(folder) is None:  # left to torch, which refuses it
            Checkpoint.open(folder).state()
    assert "\n" not in str(caught.value) and "model.safetensors" in str(caught.value)
