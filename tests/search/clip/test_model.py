"""The reference model against computations written out by hand; ViT and text meet
``transformers`` in ``test_checkpoint.py``."""

import math

import pytest
import torch
import torch.nn.functional as F

from closeness import assert_close, assert_close_rows
from fovea.search.clip.config import ClipConfig, TextConfig, VisionConfig
from fovea.search.clip.model import CLIP, Bottleneck, QuickGELU, initialise
from small_clips import RESNET, VIT, random_clip

VIT_B_32 = ClipConfig(
    512, VisionConfig(224, 12, 768, 12, patch_size=32), TextConfig(77, 49408, 512, 8, 12)
)


def resnet_by_hand(x, state, config):
    """The modified ResNet as section 2.4 and the published code define it, in plain functions."""

    def norm(y, name):
        mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
        y = (y - mean[:, None, None]) / torch.sqrt(var + 1e-5)[:, None, None]
        return y * state[f"{name}.weight"][:, None, None] + state[f"{name}.bias"][:, None, None]

    def conv(y, name, number, **options):
        y = F.conv2d(y, state[f"{name}conv{number}.weight"], **options)
        return norm(y, f"{name}bn{number}")

    def halve(y):
        n, c, h, w = y.shape
        return y.reshape(n, c, h // 2, 2, w // 2, 2).mean(dim=(3, 5))

    for number, stride in ((1, 2), (2, 1), (3, 1)):
        x = conv(x, "visual.", number, stride=stride, padding=1).clamp(min=0)
    x = halve(x)
    for stage, blocks in enumerate(config.vision.layers, start=1):
        for block in range(blocks):
            name = f"visual.layer{stage}.{block}."
            strides = stage > 1 and block == 0
            out = conv(x, name, 1).clamp(min=0)
            out = conv(out, name, 2, padding=1).clamp(min=0)
            out = conv(halve(out) if strides else out, name, 3)
            if block == 0:
                x = halve(x) if strides else x
                x = F.conv2d(x, state[f"{name}downsample.0.weight"])
                x = norm(x, f"{name}downsample.1")
            x = (x + out).clamp(min=0)
    return attention_pool_by_hand(x, state, config.vision.heads)


def attention_pool_by_hand(x, state, heads):
    """One query, the mean of all positions, attends to itself and to them, head by head."""
    points = x.flatten(2).permute(0, 2, 1)
    points = torch.cat([points.mean(dim=1, keepdim=True), points], dim=1)
    points = points + state["visual.attnpool.positional_embedding"]

    def project(y, name):
        pool = f"visual.attnpool.{name}_proj"
        return y @ state[f"{pool}.weight"].T + state[f"{pool}.bias"]

    q, k, v = project(points[:, 0], "q"), project(points, "k"), project(points, "v")
    width = q.shape[1] // heads
    mixed = []
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        logits = torch.einsum("nw,nlw->nl", q[:, part], k[:, :, part]) / math.sqrt(width)
        powers = torch.exp(logits - logits.max(dim=1, keepdim=True).values)
        shares = powers / powers.sum(dim=1, keepdim=True)
        mixed.append(torch.einsum("nl,nlw->nw", shares, v[:, :, part]))
    return project(torch.cat(mixed, dim=1), "c")


@pytest.mark.parametrize("layers", [(1, 2, 1, 1), (2, 1, 3, 2)])
def test_modified_resnet_equals_a_computation_by_hand(layers):
    config = ClipConfig(24, VisionConfig(96, layers, 16, heads=8), RESNET.text)
    model = random_clip(config)
    pictures = torch.randn(3, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        want = resnet_by_hand(pictures, model.state_dict(), config)
        got = model.encode_image(pictures)
    assert got.shape == (3, 24)
    assert float(want.std()) > 0.05
    assert_close(got, want, terms=512)  # the width of the attention pool


def test_a_new_resnet_has_every_branch_and_pools_by_the_mean():
    vision = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "heads": 2}
    text = {"width": 16, "heads": 2, "layers": 1, "vocab_size": 50}
    config = ClipConfig.from_dict({"embed_dim": 8, "vision_cfg": vision, "text_cfg": text})
    model = CLIP(config)
    initialise(model)
    gains = [m.bn3.weight for m in model.modules() if isinstance(m, Bottleneck)]
    assert len(gains) == 4 and all((gain == 1).all() for gain in gains)
    pool, x = model.visual.attnpool, torch.rand(3, 256, 2, 2)
    tokens = x.flatten(2).transpose(1, 2)
    tokens = torch.cat([tokens.mean(1, keepdim=True), tokens], 1) + pool.positional_embedding
    assert_close(pool(x), pool.c_proj(pool.v_proj(tokens).mean(1)), terms=256)


def test_quick_gelu_is_the_sigmoid_approximation():
    x = torch.linspace(-5, 5, 11)
    want = torch.tensor([v / (1 + math.exp(-1.702 * v)) for v in x.tolist()])
    assert_close(QuickGELU()(x), want)


def test_print_shows_the_published_architecture():
    with torch.device("meta"):
        shown = str(CLIP(VIT_B_32).visual)
    assert "conv1): Conv2d(3, 768, kernel_size=(32, 32), stride=(32, 32), bias=False)" in shown
    assert shown.index("(conv1)") < shown.index("(ln_pre)") < shown.index("(transformer)")
    assert "(0-11): 12 x ResidualAttentionBlock(" in shown
    block = shown[shown.index("ResidualAttentionBlock(") : shown.index("(ln_post)")]
    pieces = [
        "(attn)",
        "Linear(in_features=768, out_features=768, bias=True)",
        "(ln_1): LayerNorm((768,)",
        "(mlp)",
        "(c_fc): Linear(in_features=768, out_features=3072, bias=True)",
        "(gelu): QuickGELU()",
        "(c_proj): Linear(in_features=3072, out_features=768, bias=True)",
        "(ln_2): LayerNorm((768,)",
    ]
    places = [block.index(piece) for piece in pieces]
    assert places == sorted(places)
    assert "(out_proj)" in block


def test_text_after_its_end_does_not_matter():
    model = random_clip(VIT)
    end = VIT.text.vocab_size - 1
    tokens = torch.tensor([[end - 1, 5, 9, end, 0, 0, 0, 0], [end - 1, 7, end, 0, 0, 0, 0, 0]])
    noisy = tokens.clone()
    noisy[0, 4:], noisy[1, 3:] = 321, 17
    with torch.no_grad():
        want, other, cut = (
            F.normalize(model.encode_text(each), dim=-1) for each in (tokens, noisy, tokens[:, :4])
        )
    assert_close_rows(other, want)
    assert_close_rows(cut, want)


def test_forward_gives_unit_rows_and_the_scale():
    model = random_clip(VIT)
    tokens = torch.tensor([[515, 3, 516], [515, 4, 516]])
    pixels = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        images, texts, scale = model(pixels, tokens)
        assert_close_rows(images, F.normalize(model.encode_image(pixels), dim=-1))
        assert_close_rows(texts, F.normalize(model.encode_text(tokens), dim=-1))
    assert scale.item() == pytest.approx(1 / 0.07)
