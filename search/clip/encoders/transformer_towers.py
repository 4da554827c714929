"""The published Transformers for inference: a Vision Transformer and a causal text Transformer.

Equal to those of ``model.py``; ``towers.py`` says what differs. For n, l, w, h and d see
``model.py``.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from fovea.search.clip.config import Activation, ClipConfig, TextConfig, VisionConfig

from .kernels import Linear, State, Target, Then, attend

QUICK = 1.702  # QuickGELU(x) = x * sigmoid(1.702 x)
CENTRE = 128  # centres bytes to -128..127, exact in every precision, so that sums round less
NORM_EPS = 1e-5  # of every layer norm of the published models


class Norm:
    """Layer normalisation over the last axis."""

    def __init__(self, target: Target, state: State, name: str, eps: float = NORM_EPS) -> None:
        self.weight = target.put(state[f"{name}.weight"])
        self.bias, self.eps = target.put(state[f"{name}.bias"]), eps

    def __call__(self, x: Tensor) -> Tensor:
        """Return ``x`` (…, w) with mean 0 and variance 1, then scaled and shifted."""
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


class MLP:
    """A block's MLP, with QuickGELU's constant folded into both layers."""

    def __init__(self, target: Target, state: State, name: str, activation: Activation) -> None:
        is_quick = activation == "quick_gelu"
        self.then: Then = "silu" if is_quick else "gelu"
        scale = QUICK if is_quick else 1.0
        self.c_fc = Linear(
            target,
            state[f"{name}.c_fc.weight"].float() * scale,
            state[f"{name}.c_fc.bias"].float() * scale,
        )
        self.c_proj = Linear(
            target, state[f"{name}.c_proj.weight"].float() / scale, state[f"{name}.c_proj.bias"]
        )

    def added_to(self, x: Tensor, residual: Tensor) -> Tensor:
        """Return the MLP of ``x`` plus ``residual``, both (…, w)."""
        return self.c_proj.added_to(self.c_fc(x, self.then), residual)


class Block:
    """One residual attention block; the last one ``reads_one`` position only."""

    def __init__(
        self,
        target: Target,
        state: State,
        name: str,
        heads: int,
        activation: Activation,
        *,
        reads_one: bool,
    ) -> None:
        self.heads, self.reads_one = heads, reads_one
        weight = state[f"{name}.attn.in_proj_weight"].float()
        bias = state[f"{name}.attn.in_proj_bias"].float()
        width = weight.shape[1]
        scale = torch.ones(3 * width, 1)
        scale[:width] = (width // heads) ** -0.5
        weight, bias = weight * scale, bias * scale[:, 0]
        if reads_one:
            self.q_proj = Linear(target, weight[:width], bias[:width])
            self.kv_proj = Linear(target, weight[width:], bias[width:])
        else:
            self.in_proj = Linear(target, weight, bias)
        out = f"{name}.attn.out_proj"
        self.out_proj = Linear(target, state[f"{out}.weight"], state[f"{out}.bias"])
        self.mlp = MLP(target, state, f"{name}.mlp", activation)
        self.ln_1 = Norm(target, state, f"{name}.ln_1")
        self.ln_2 = Norm(target, state, f"{name}.ln_2")

    def __call__(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map ``x`` (n, l, w) to its shape; ``mask`` (l, l) is True where a query may look."""
        n, length, _ = x.shape
        qkv = self.in_proj(self.ln_1(x)).view(n, length, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (n, h, l, w/h)
        return self._finish(x, attend(q, k, v, mask))

    def read(self, x: Tensor, at: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the block's output (n, w) at one position ``at`` (n,) of each row of ``x``.

        ``mask`` (n, 1, 1, l) is True where that position may look.
        """
        n, length, width = x.shape
        normed = self.ln_1(x)
        rows = torch.arange(n, device=x.device)
        q = self.q_proj(normed[rows, at]).view(n, self.heads, 1, -1)
        kv = self.kv_proj(normed).view(n, length, 2, self.heads, -1)
        k, v = kv.permute(2, 0, 3, 1, 4)
        return self._finish(x[rows, at], attend(q, k, v, mask).view(n, width))

    def _finish(self, x: Tensor, mixed: Tensor) -> Tensor:
        x = self.out_proj.added_to(mixed, x)
        return self.mlp.added_to(self.ln_2(x), x)


def _blocks(
    target: Target, state: State, name: str, layers: int, heads: int, activation: Activation
) -> list[Block]:
    return [
        Block(
            target,
            state,
            f"{name}.resblocks.{layer}",
            heads,
            activation,
            reads_one=layer == layers - 1,
        )
        for layer in range(layers)
    ]


class VisionTower:
    """The Vision Transformer, from bytes to embeddings."""

    def __init__(self, state: State, config: ClipConfig, target: Target) -> None:
        vision = config.vision
        assert isinstance(vision, VisionConfig) and isinstance(vision.layers, int)
        assert vision.patch_size
        self.patch, self.dtype = vision.patch_size, target.dtype
        weight, bias = _fold_pixels(state["visual.conv1.weight"], config)
        self.conv1 = Linear(target, weight.permute(0, 2, 3, 1).flatten(1))  # (w, patch² * 3)
        positions = state["visual.positional_embedding"].float()
        self.first = target.put(positions[0] + state["visual.class_embedding"].float())
        self.positions = target.put(positions[1:] + bias)
        self.ln_pre = Norm(target, state, "visual.ln_pre")
        self.blocks = _blocks(
            target, state, "visual.transformer", vision.layers, vision.heads, config.activation
        )
        self.ln_post = Norm(target, state, "visual.ln_post")
        self.proj = Linear(target, state["visual.proj"].t())

    def __call__(self, pixels: Tensor) -> Tensor:
        """Embed uint8 (n, s, s, 3) as (n, d), not yet of unit length."""
        n = len(pixels)
        patches = self.conv1(self._patches(pixels))  # (n, patches, w)
        x = patches.new_empty(n, patches.shape[1] + 1, patches.shape[2])
        x[:, 0] = self.first
        torch.add(patches, self.positions, out=x[:, 1:])
        x = self.ln_pre(x)
        for block in self.blocks[:-1]:
            x = block(x)
        x = self.blocks[-1].read(x, torch.zeros(n, dtype=torch.long, device=x.device))
        return self.proj(self.ln_post(x))

    def _patches(self, pixels: Tensor) -> Tensor:
        """Cut uint8 (n, s, s, 3) into (n, patches, patch² * 3), centred."""
        n, side = pixels.shape[:2]
        grid, patch = side // self.patch, self.patch
        pixels = pixels[:, : grid * patch, : grid * patch]
        patches = pixels.reshape(n, grid, patch, grid, patch * 3).transpose(2, 3)
        # In two's complement, subtracting 128 from a byte flips its highest bit.
        flipped = patches.reshape(n, grid * grid, -1).bitwise_xor(CENTRE)
        return flipped.view(torch.int8).to(self.dtype)


class TextTower:
    """The text Transformer, from token ids to embeddings."""

    def __init__(self, state: State, config: ClipConfig, target: Target) -> None:
        text = config.text
        assert isinstance(text, TextConfig)
        self.target = target
        # The table keeps its stored precision and may be mapped: a query needs few of its rows.
        self.tokens = state["token_embedding.weight"].to(target.device)
        self.positions = target.put(state["positional_embedding"])
        self.blocks = _blocks(
            target, state, "transformer", text.layers, text.heads, config.activation
        )
        self.ln_final = Norm(target, state, "ln_final")
        self.proj = Linear(target, state["text_projection"].t())

    def __call__(self, tokens: Tensor) -> Tensor:
        """Embed ids (n, l) as (n, d), not yet of unit length, read at each row's highest id.

        The tower is causal, so positions after the last end of text are left out.
        """
        ends = tokens.argmax(dim=-1)
        length = int(ends.max()) + 1
        x = self.target.put(F.embedding(tokens[:, :length], self.tokens))
        x = x + self.positions[:length]
        places = torch.arange(length, device=x.device)
        mask = places <= places[:, None]  # (l, l)
        for block in self.blocks[:-1]:
            x = block(x, mask)
        x = self.blocks[-1].read(x, ends, (places <= ends[:, None])[:, None, None])
        return self.proj(self.ln_final(x))


def _fold_pixels(weight: Tensor, config: ClipConfig) -> tuple[Tensor, Tensor]:
    """Fold the normalisation of pixels into the first layer of a ViT.

    Return float32 weights (w, 3, p, p) for bytes minus ``CENTRE``, and the bias (w,): the sum of
    weight * (byte / 255 - mean) / std is that of weight / (255 std) times (byte - CENTRE), plus
    weight / (255 std) times (CENTRE - 255 mean).
    """
    mean = torch.tensor(config.mean, dtype=torch.float64).view(3, 1, 1)
    std = torch.tensor(config.std, dtype=torch.float64).view(3, 1, 1)
    scaled = weight.double() / (255 * std)
    bias = (scaled * (CENTRE - 255 * mean)).sum(dim=(1, 2, 3))
    return scaled.float(), bias.float()
