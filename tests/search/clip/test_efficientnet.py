"""EfficientNet-Lite against plain loops, with TensorFlow's padding written out."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from fovea.search.clip.checkpoints.shapes import expected_shapes
from fovea.search.clip.config import ClipConfig, EfficientNetConfig, block_shapes, checked
from fovea.search.clip.efficientnet import EfficientNetLite, QueryPool
from fovea.search.clip.errors import ModelError
from fovea.search.clip.model import CLIP, initialise
from small_clips import TEXT
from tower_parts import random_joined

# Width and depth of Lite0 to Lite4, and of each stage its blocks and channels, as the published
# models have them.
PUBLISHED = {
    (1.0, 1.0): ((1, 2, 2, 3, 3, 4, 1), (16, 24, 40, 80, 112, 192, 320)),
    (1.0, 1.1): ((1, 3, 3, 4, 4, 5, 1), (16, 24, 40, 80, 112, 192, 320)),
    (1.1, 1.2): ((1, 3, 3, 4, 4, 5, 1), (16, 24, 48, 88, 120, 208, 352)),
    (1.2, 1.4): ((1, 3, 3, 5, 5, 6, 1), (24, 32, 48, 96, 136, 232, 384)),
    (1.4, 1.8): ((1, 4, 4, 6, 6, 8, 1), (24, 32, 56, 112, 160, 272, 448)),
}
KERNELS, STRIDES = (3, 3, 5, 3, 5, 5, 3), (1, 2, 2, 2, 1, 2, 1)
SIX = 6.0


@pytest.mark.parametrize("factors", PUBLISHED)
def test_the_blocks_are_those_of_the_published_models(factors):
    blocks, channels = PUBLISHED[factors]
    found = block_shapes(EfficientNetConfig(224, *factors))
    inputs, want = 32, []
    for stage, (count, outputs) in enumerate(zip(blocks, channels, strict=True)):
        for block in range(count):
            inner = inputs * (6 if stage else 1)
            stride = 1 if block else STRIDES[stage]
            want.append((inputs, inner, outputs, KERNELS[stage], stride))
            inputs = outputs
    assert [(b.inputs, b.inner, b.outputs, b.kernel, b.stride) for b in found] == want


def test_lite0_has_the_published_number_of_parameters():
    """4,652,008 with its classifier of 1,000 classes, the running statistics left out."""
    tower = EfficientNetLite(EfficientNetConfig(224, classes=1000, class_width=1), 1)
    others = {"class_embedding", "projection.proj"}
    count = sum(p.numel() for name, p in tower.named_parameters() if name not in others)
    assert count == 4_652_008


@pytest.mark.parametrize("config", [EfficientNetConfig(64, 1.1, 1.2, 5, 8, 16, 3, 4)])
def test_the_state_dict_has_the_expected_shapes(config):
    clip = ClipConfig(24, config, TEXT)
    state = {name: tuple(tensor.shape) for name, tensor in CLIP(clip).state_dict().items()}
    assert state == expected_shapes(clip)


def convolve(x, weight, stride=1):
    """Convolve x (c, h, w) by weight (m, c / groups, k, k) in float64, padded as SAME."""
    k, (channels, height, width) = weight.shape[-1], x.shape
    out_h, out_w = math.ceil(height / stride), math.ceil(width / stride)
    pad_h = max((out_h - 1) * stride + k - height, 0)
    pad_w = max((out_w - 1) * stride + k - width, 0)
    padded = np.zeros((channels, height + pad_h, width + pad_w))
    top, left = pad_h // 2, pad_w // 2
    padded[:, top : top + height, left : left + width] = x
    out = np.empty((len(weight), out_h, out_w))
    is_depthwise = weight.shape[1] == 1 < channels
    for row in range(out_h):
        for column in range(out_w):
            y, z = row * stride, column * stride
            seen = padded[:, y : y + k, z : z + k]
            if is_depthwise:
                out[:, row, column] = (weight[:, 0] * seen).sum(axis=(1, 2))
            else:
                out[:, row, column] = np.tensordot(weight, seen, 3)
    return out


def embed(state, x, factors):
    """Embed pixels (3, s, s) by the weights of a tower without its prefix."""

    def normed(x, name):
        mean, var, gain, shift = (
            state[f"{name}.{part}"][:, None, None]
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / np.sqrt(var + 0.001) * gain + shift

    def relu6(x):
        return np.minimum(np.maximum(x, 0), SIX)

    x = relu6(normed(convolve(x, state["conv_stem.weight"], 2), "bn0"))
    number = 0
    for stage, blocks in enumerate(PUBLISHED[factors][0]):
        for block in range(blocks):
            name, out = f"blocks.{number}", x
            if stage:
                out = relu6(normed(convolve(x, state[f"{name}.expand_conv.weight"]), f"{name}.bn0"))
            stride = 1 if block else STRIDES[stage]
            out = convolve(out, state[f"{name}.depthwise_conv.weight"], stride)
            out = convolve(relu6(normed(out, f"{name}.bn1")), state[f"{name}.project_conv.weight"])
            out = normed(out, f"{name}.bn2")
            x = x + out if block else out
            number += 1
    x = relu6(normed(convolve(x, state["conv_head.weight"]), "bn1")).mean(axis=(1, 2))
    if "fc.weight" in state:
        logits = state["fc.weight"] @ x + state["fc.bias"]
        powers = np.exp(logits - logits.max())
        x = np.concatenate([x, powers / powers.sum() @ state["class_embedding"]])
    out = x @ state["projection.proj"]
    if "projection.c_fc.weight" in state:
        hidden = state["projection.c_fc.weight"] @ x + state["projection.c_fc.bias"]
        hidden *= [(1 + math.erf(value / math.sqrt(2))) / 2 for value in hidden]
        out += state["projection.c_proj.weight"] @ hidden + state["projection.c_proj.bias"]
    return out


@torch.no_grad()
@pytest.mark.parametrize(
    ("side", "factors", "head"),
    [
        (32, (1.0, 1.0), (0, 0, 0)),
        (33, (1.1, 1.2), (6, 8, 0)),
        (50, (1.0, 1.0), (6, 8, 12)),
        (7, (1.0, 1.0), (0, 0, 0)),
    ],
)
def test_it_equals_plain_loops(side, factors, head):
    config = ClipConfig(16, EfficientNetConfig(side, *factors, *head), TEXT)
    model = random_joined(config)
    state = {
        name.removeprefix("visual."): tensor.double().numpy()
        for name, tensor in model.state_dict().items()
        if name.startswith("visual.")
    }
    pixels = np.random.default_rng(2).normal(size=(2, 3, side, side))
    found = model.encode_image(torch.from_numpy(pixels).float()).numpy()
    want = np.stack([embed(state, one, factors) for one in pixels])
    scale = np.linalg.norm(want, axis=1).max()
    np.testing.assert_allclose(found / scale, want / scale, rtol=0, atol=1e-5)
    assert abs(want[0] - want[1]).max() / scale > 2e-4  # the pictures are told apart


@torch.no_grad()
def test_a_fresh_tower_keeps_the_size_of_its_signal():
    torch.manual_seed(0)
    model = CLIP(ClipConfig(16, EfficientNetConfig(64), TEXT))
    initialise(model)
    x = model.visual.stem(torch.randn(8, 3, 64, 64))
    for block in model.visual.blocks:
        x = block(x)
    assert 0.1 < model.visual.pool(x).std() < 10


def test_queries_read_the_map_as_torchs_attention_does():
    pool = QueryPool(channels=10, queries=3, heads=4, embed_dim=8).eval()
    theirs = nn.MultiheadAttention(8, 4, batch_first=True).eval()
    x = torch.randn(2, 10, 3, 5)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([torch.eye(8), pool.key.weight, pool.value.weight]))
        theirs.in_proj_bias.copy_(torch.cat([torch.zeros(8), pool.key.bias, pool.value.bias]))
        theirs.out_proj.weight.copy_(torch.eye(8))
        places = pool.norm(pool.inputs(x.permute(0, 2, 3, 1).reshape(2, 15, 10)))
        mixed, _ = theirs(pool.queries.expand(2, -1, -1), places, places)
        want = pool.c_proj(mixed.reshape(2, 24))
        assert torch.allclose(pool(x), want, atol=1e-6)


def test_queries_need_heads_that_divide_the_embedding():
    config = ClipConfig(24, EfficientNetConfig(64, queries=2, heads=5), TEXT)
    with pytest.raises(ModelError, match="24, is not divisible by its 5 heads"):
        checked(config)
