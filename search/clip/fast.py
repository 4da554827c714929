"""The towers once more, for inference alone: the reference model's results in less time.

Against ``model.py``, which is written to be read and trained:

- the pixels' normalisation is folded into the first convolution, so that bytes go in;
- a ViT's first convolution is one matrix product over its patches;
- QuickGELU becomes SiLU, with its 1.702 folded into the layers around it;
- the queries' scale is folded into their projection;
- in the last block only the position that is read out gets its query and its perceptron;
- batch normalisation is folded into the convolutions before it.
"""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from .config import Activation, ClipConfig

State = Mapping[str, Tensor]

QUICK = 1.702  # QuickGELU(x) = x * sigmoid(1.702 x)
CENTRE = 128  # bytes are centred to -128..127, exact in every precision, so weights round less
NORM_EPS = 1e-5  # of every normalisation layer


class Block:
    """One residual attention block."""

    def __init__(
        self, state: State, name: str, heads: int, activation: Activation, pack: Callable
    ) -> None:
        self.heads = heads
        weight = state[f"{name}.attn.in_proj_weight"].float()
        bias = state[f"{name}.attn.in_proj_bias"].float()
        width = weight.shape[1]
        scale = torch.ones(3 * width, 1)
        scale[:width] = (width // heads) ** -0.5
        weight, bias = weight * scale, bias * scale[:, 0]
        self.in_weight, self.in_bias = pack(weight), pack(bias)
        self.out_weight = pack(state[f"{name}.attn.out_proj.weight"])
        self.out_bias = pack(state[f"{name}.attn.out_proj.bias"])
        quick = QUICK if activation == "quick_gelu" else 1.0
        self.activate = F.silu if activation == "quick_gelu" else F.gelu
        self.fc_weight = pack(state[f"{name}.mlp.c_fc.weight"].float() * quick)
        self.fc_bias = pack(state[f"{name}.mlp.c_fc.bias"].float() * quick)
        self.proj_weight = pack(state[f"{name}.mlp.c_proj.weight"].float() / quick)
        self.proj_bias = pack(state[f"{name}.mlp.c_proj.bias"])
        self.ln_1 = Norm(state, f"{name}.ln_1", pack)
        self.ln_2 = Norm(state, f"{name}.ln_2", pack)

    def __call__(self, x: Tensor, *, is_causal: bool = False, only: Tensor | None = None) -> Tensor:
        """Send ``x`` (n, l, w) through; ``only`` (n,) names the one position to go on with."""
        n, length, width = x.shape
        normed = self.ln_1(x)
        if only is None:
            qkv = F.linear(normed, self.in_weight, self.in_bias)
            q, k, v = qkv.view(n, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        else:
            rows = torch.arange(n, device=x.device)
            x, first = x[rows, only].unsqueeze(1), normed[rows, only]
            q = F.linear(first, self.in_weight[:width], self.in_bias[:width])
            q = q.view(n, self.heads, 1, -1)
            kv = F.linear(normed, self.in_weight[width:], self.in_bias[width:])
            k, v = kv.view(n, length, 2, self.heads, -1).permute(2, 0, 3, 1, 4)
        # The position read out is the end of its text: nothing after it may be seen.
        mask = None
        if only is not None and is_causal:
            mask = torch.arange(length, device=x.device) <= only[:, None]
            mask = mask[:, None, None]
        mixed = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=is_causal and mask is None, scale=1.0
        )
        mixed = mixed.transpose(1, 2).reshape(n, -1, width)
        x = x + F.linear(mixed, self.out_weight, self.out_bias)
        hidden = self.activate(F.linear(self.ln_2(x), self.fc_weight, self.fc_bias))
        return x + F.linear(hidden, self.proj_weight, self.proj_bias)


class Norm:
    """Layer normalisation over the last axis."""

    def __init__(self, state: State, name: str, pack: Callable) -> None:
        self.weight, self.bias = pack(state[f"{name}.weight"]), pack(state[f"{name}.bias"])

    def __call__(self, x: Tensor) -> Tensor:
        """Return ``x`` (…, w) with mean 0 and variance 1, scaled and shifted."""
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, NORM_EPS)


class VisionTower:
    """The Vision Transformer from bytes to embeddings."""

    def __init__(self, state: State, config: ClipConfig, pack: Callable) -> None:
        vision = config.vision
        assert isinstance(vision.layers, int) and vision.patch_size
        self.patch = vision.patch_size
        weight, bias = folded_pixels(state["visual.conv1.weight"], config)
        self.patch_weight = pack(weight.permute(0, 2, 3, 1).flatten(1))  # (w, patch² * 3)
        positions = state["visual.positional_embedding"].float()
        self.first = pack(positions[0] + state["visual.class_embedding"].float())
        self.positions = pack(positions[1:] + bias)
        self.ln_pre, self.ln_post = (
            Norm(state, f"visual.{n}", pack) for n in ("ln_pre", "ln_post")
        )
        self.blocks = [
            Block(state, f"visual.transformer.resblocks.{n}", vision.heads, config.activation, pack)
            for n in range(vision.layers)
        ]
        self.proj = pack(state["visual.proj"].t())

    def __call__(self, pixels: Tensor) -> Tensor:
        """Embed uint8 (n, s, s, 3) as (n, d), not yet of unit length."""
        n, side = pixels.shape[:2]
        grid, patch = side // self.patch, self.patch
        patches = pixels.view(n, grid, patch, grid, patch, 3).permute(0, 1, 3, 2, 4, 5)
        patches = patches.reshape(n, grid * grid, -1).to(self.patch_weight.dtype) - CENTRE
        x = F.linear(patches, self.patch_weight) + self.positions
        x = torch.cat([self.first.expand(n, 1, -1), x], dim=1)
        x = self.ln_pre(x)
        for block in self.blocks[:-1]:
            x = block(x)
        x = self.blocks[-1](x, only=torch.zeros(n, dtype=torch.long, device=x.device))
        return F.linear(self.ln_post(x[:, 0]), self.proj)


class TextTower:
    """The text Transformer from token ids to embeddings."""

    def __init__(self, state: State, config: ClipConfig, pack: Callable) -> None:
        text = config.text
        self.tokens = pack(state["token_embedding.weight"])
        self.positions = pack(state["positional_embedding"])
        self.blocks = [
            Block(state, f"transformer.resblocks.{n}", text.heads, config.activation, pack)
            for n in range(text.layers)
        ]
        self.ln_final = Norm(state, "ln_final", pack)
        self.proj = pack(state["text_projection"].t())

    def __call__(self, tokens: Tensor) -> Tensor:
        """Embed ids (n, l) as (n, d), not yet of unit length, read at each row's highest id.

        The tower is causal, so columns after every row's end of text only cost time.
        """
        ends = tokens.argmax(dim=-1)
        length = int(ends.max()) + 1
        x = F.embedding(tokens[:, :length], self.tokens) + self.positions[:length]
        for block in self.blocks[:-1]:
            x = block(x, is_causal=True)
        x = self.blocks[-1](x, is_causal=True, only=ends)
        return F.linear(self.ln_final(x[:, 0]), self.proj)


class ResNetTower:
    """The modified ResNet from bytes to embeddings, channels last."""

    def __init__(self, state: State, config: ClipConfig, pack: Callable) -> None:
        layers = config.vision.layers
        assert not isinstance(layers, int)
        self.heads = config.vision.heads
        self.pixels = config
        self.state = {
            name.removeprefix("visual."): pack(tensor)
            for name, tensor in _without_batch_norms(state, config).items()
        }
        self.layers = layers

    def __call__(self, pixels: Tensor) -> Tensor:
        """Embed uint8 (n, s, s, 3) as (n, d), not yet of unit length."""
        some = self.state["conv1.weight"]
        x = pixels.permute(0, 3, 1, 2).to(some.dtype)
        mean = torch.tensor(self.pixels.mean, device=x.device).mul(255).view(3, 1, 1)
        x = x - mean.to(x.dtype)
        x = self._conv(x, "conv1", stride=2)
        x = self._conv(self._conv(x, "conv2"), "conv3")
        x = F.avg_pool2d(x, 2)
        for stage, blocks in enumerate(self.layers, start=1):
            for block in range(blocks):
                x = self._bottleneck(x, f"layer{stage}.{block}.", 2 if stage > 1 > block else 1)
        return self._pool(x)

    def _conv(self, x: Tensor, name: str, stride: int = 1) -> Tensor:
        weight = self.state[f"{name}.weight"]
        padding = weight.shape[-1] // 2
        return F.conv2d(x, weight, self.state[f"{name}.bias"], stride, padding).relu_()

    def _bottleneck(self, x: Tensor, name: str, stride: int) -> Tensor:
        out = self._conv(self._conv(x, f"{name}conv1"), f"{name}conv2")
        if stride > 1:
            x, out = F.avg_pool2d(x, stride), F.avg_pool2d(out, stride)
        state = self.state
        if f"{name}downsample.0.weight" in state:
            x = F.conv2d(x, state[f"{name}downsample.0.weight"], state[f"{name}downsample.0.bias"])
        out = F.conv2d(out, state[f"{name}conv3.weight"], state[f"{name}conv3.bias"])
        return out.add_(x).relu_()

    def _pool(self, x: Tensor) -> Tensor:
        state, n, width = self.state, x.shape[0], x.shape[1]
        x = x.flatten(2).transpose(1, 2)
        x = torch.cat([x.mean(dim=1, keepdim=True), x], dim=1)
        x = x + state["attnpool.positional_embedding"]

        def project(y: Tensor, name: str) -> Tensor:
            y = F.linear(y, state[f"attnpool.{name}.weight"], state[f"attnpool.{name}.bias"])
            return y.view(n, -1, self.heads, width // self.heads).transpose(1, 2)

        mixed = F.scaled_dot_product_attention(
            project(x[:, :1], "q_proj"), project(x, "k_proj"), project(x, "v_proj")
        )
        mixed = mixed.transpose(1, 2).reshape(n, width)
        return F.linear(mixed, state["attnpool.c_proj.weight"], state["attnpool.c_proj.bias"])


def folded_pixels(weight: Tensor, config: ClipConfig) -> tuple[Tensor, Tensor]:
    """Fold the normalisation of pixels into a convolution over them.

    Return float32 weights (w, 3, p, p) for bytes less ``CENTRE``, and the bias (w,) that makes
    up for it where no padding is: sum of weight * ((byte / 255) - mean) / std.
    """
    mean, std = (
        torch.tensor(c, dtype=torch.float64).view(3, 1, 1) for c in (config.mean, config.std)
    )
    scaled = weight.double() / (255 * std)
    bias = (scaled * (CENTRE - 255 * mean)).sum(dim=(1, 2, 3))
    return scaled.float(), bias.float()


def _without_batch_norms(state: State, config: ClipConfig) -> dict[str, Tensor]:
    """Fold each batch norm of a ResNet into its convolution; keep the other tensors."""
    folded = {name: t.float() for name, t in state.items() if name.startswith("visual.attnpool.")}
    std = torch.tensor(config.std).mul(255).view(3, 1, 1)
    for name, tensor in state.items():
        if not name.startswith("visual.") or tensor.dim() != 4:
            continue
        stem = name.removesuffix(".weight")
        if stem.endswith("downsample.0"):
            norm = stem[:-1] + "1"
        else:
            norm = stem[: -len("conv1")] + "bn" + stem[-1]
        scale = state[f"{norm}.weight"].double()
        scale = scale / (state[f"{norm}.running_var"].double() + NORM_EPS).sqrt()
        weight = tensor.double() * scale.view(-1, 1, 1, 1)
        if stem == "visual.conv1":
            weight = weight / std
        bias = state[f"{norm}.bias"].double() - state[f"{norm}.running_mean"].double() * scale
        folded[f"{stem}.weight"] = weight.float().contiguous(memory_format=torch.channels_last)
        folded[f"{stem}.bias"] = bias.float()
    return folded
