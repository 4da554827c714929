"""The convolutional image towers for inference: a modified ResNet and an EfficientNet-Lite.

Equal to those of ``model.py`` and ``efficientnet.py``; ``towers.py`` says what differs. For n, w,
h, d and s see ``model.py``.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from fovea.search.clip.config import (
    BlockShape,
    ClipConfig,
    EfficientNetConfig,
    VisionConfig,
    block_shapes,
)
from fovea.search.clip.efficientnet import NORM_EPS as LITE_EPS
from fovea.search.clip.efficientnet import same_padding

from .kernels import Convolution, Linear, State, Target, attend
from .transformer_towers import Norm

NORM_EPS = 1e-5  # of every batch norm of the published models


class FoldedBottleneck:
    """One bottleneck of the modified ResNet, its batch norms folded in."""

    def __init__(self, target: Target, state: State, name: str, stride: int) -> None:
        self.stride = stride
        self.conv1, self.conv2, self.conv3 = (
            _convolution(target, state, f"{name}.conv{n}", f"{name}.bn{n}") for n in (1, 2, 3)
        )
        self.downsample: Convolution | None = None
        if f"{name}.downsample.0.weight" in state:
            self.downsample = _convolution(
                target, state, f"{name}.downsample.0", f"{name}.downsample.1"
            )

    def __call__(self, x: Tensor) -> Tensor:
        """Return the block's output, its sides divided by the stride."""
        out = self.conv2(self.conv1(x, "relu"), "relu")
        if self.stride > 1:
            x, out = F.avg_pool2d(x, self.stride), F.avg_pool2d(out, self.stride)
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.conv3(out).add_(shortcut).relu_()


class ResNetTower:
    """The modified ResNet, from bytes to embeddings, channels last throughout."""

    def __init__(self, state: State, config: ClipConfig, target: Target) -> None:
        vision = config.vision
        assert isinstance(vision, VisionConfig) and not isinstance(vision.layers, int)
        self.dtype, self.heads, layers = target.dtype, vision.heads, vision.layers
        self.mean = torch.tensor(config.mean, device=target.device).view(3, 1, 1) * 255
        scaled = _for_bytes(state, "visual.conv1.weight", config)
        self.stem = [
            _convolution(target, scaled, f"visual.conv{n}", f"visual.bn{n}", 2 if n == 1 else 1)
            for n in (1, 2, 3)
        ]
        self.blocks = [
            FoldedBottleneck(
                target, state, f"visual.layer{stage}.{block}", 2 if stage > 1 > block else 1
            )
            for stage, blocks in enumerate(layers, start=1)
            for block in range(blocks)
        ]
        pool = "visual.attnpool"
        self.positions = target.put(state[f"{pool}.positional_embedding"])
        self.q_proj, self.k_proj, self.v_proj, self.c_proj = (
            Linear(target, state[f"{pool}.{name}.weight"], state[f"{pool}.{name}.bias"])
            for name in ("q_proj", "k_proj", "v_proj", "c_proj")
        )

    def __call__(self, pixels: Tensor) -> Tensor:
        """Embed uint8 (n, s, s, 3) as (n, d), not yet of unit length."""
        # Subtract the mean first: the first convolution pads with zeros.
        x = (pixels.permute(0, 3, 1, 2) - self.mean).to(self.dtype)
        for convolution in self.stem:
            x = convolution(x, "relu")
        x = F.avg_pool2d(x, 2)
        for block in self.blocks:
            x = block(x)
        return self._pool(x)

    def _pool(self, x: Tensor) -> Tensor:
        """Pool (n, w, side, side) to (n, d) by attention from the mean."""
        x = x.flatten(2).transpose(1, 2)  # (n, side², w)
        x = torch.cat([x.mean(dim=1, keepdim=True), x], dim=1) + self.positions
        scale = (x.shape[2] // self.heads) ** -0.5
        q = self._heads(self.q_proj(x[:, :1].contiguous()) * scale)
        k, v = self._heads(self.k_proj(x)), self._heads(self.v_proj(x))
        return self.c_proj(attend(q, k, v)[:, 0])

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)  # (n, h, l, w/h)


class FoldedInvertedBottleneck:
    """One block of an EfficientNet-Lite for maps of one side, its batch norms folded in."""

    def __init__(
        self, target: Target, state: State, name: str, shape: BlockShape, side: int
    ) -> None:
        self.expand: Convolution | None = None
        if shape.expands:
            weight, bias = _folded(state, f"{name}.expand_conv", f"{name}.bn0", LITE_EPS)
            self.expand = Convolution(target, weight, bias)
        weight, bias = _folded(state, f"{name}.depthwise_conv", f"{name}.bn1", LITE_EPS)
        weight = _same_kernel(weight, side, shape.stride)
        self.depthwise = Convolution(target, weight, bias, shape.stride, groups=shape.inner)
        weight, bias = _folded(state, f"{name}.project_conv", f"{name}.bn2", LITE_EPS)
        self.project = Convolution(target, weight, bias)
        self.adds = shape.stride == 1 and shape.inputs == shape.outputs

    def __call__(self, x: Tensor) -> Tensor:
        """Return the block's output, its sides divided by the stride; ``x`` may be overwritten."""
        out = x if self.expand is None else self.expand(x, "relu6")
        out = self.depthwise(out, "relu6")
        return self.project.added_to(out, x) if self.adds else self.project(out)


_PAIR = ("weight", "bias")
_QUERY_POOL = (
    "queries",
    *(f"{part}.{kind}" for part in ("inputs", "key", "value", "c_proj") for kind in _PAIR),
)


class EfficientNetTower:
    """The EfficientNet-Lite, from bytes to embeddings, channels last throughout.

    What follows the pooling is computed in float32: it is small, and the classifier's softmax
    would magnify roundings. So is what precedes the second block where the rest is bfloat16, whose
    roundings do most harm there: for the published Lite0 the worst cosine of a photograph is 0.9985
    without and 0.9999 with it, in the same time.
    """

    def __init__(self, state: State, config: ClipConfig, target: Target) -> None:
        vision = config.vision
        assert isinstance(vision, EfficientNetConfig)
        exact = Target(target.device, torch.float32)
        early = exact if target.dtype == torch.bfloat16 else target
        self.early, self.dtype, side = early.dtype, target.dtype, vision.image_size
        self.mean = torch.tensor(config.mean, device=target.device).view(3, 1, 1) * 255
        scaled = _for_bytes(state, "visual.conv_stem.weight", config)
        weight, bias = _folded(scaled, "visual.conv_stem", "visual.bn0", LITE_EPS)
        self.stem = Convolution(early, _same_kernel(weight, side, 2), bias, 2)
        side, self.blocks = -(-side // 2), []
        for number, shape in enumerate(block_shapes(vision)):
            name, place = f"visual.blocks.{number}", target if number else early
            self.blocks.append(FoldedInvertedBottleneck(place, state, name, shape, side))
            side = -(-side // shape.stride)
        self.last = Convolution(target, *_folded(state, "visual.conv_head", "visual.bn1", LITE_EPS))
        self.fc: Linear | None = None
        if vision.classes:
            self.fc = Linear(exact, state["visual.fc.weight"], state["visual.fc.bias"])
            self.names = Linear(exact, state["visual.class_embedding"].t())
        self.querypool = FoldedQueryPool(state, config, exact) if vision.queries else None
        name = "visual.projection"
        self.proj, self.c_fc = Linear(exact, state[f"{name}.proj"].t()), None
        if vision.hidden:
            self.c_fc, self.c_proj = (
                Linear(exact, state[f"{name}.{part}.weight"], state[f"{name}.{part}.bias"])
                for part in ("c_fc", "c_proj")
            )

    def __call__(self, pixels: Tensor) -> Tensor:
        """Embed uint8 (n, s, s, 3) as float32 (n, d), not yet of unit length."""
        # Subtract the mean first: the first convolution pads with zeros.
        x = (pixels.permute(0, 3, 1, 2) - self.mean).to(self.early)
        x = self.blocks[0](self.stem(x, "relu6")).to(self.dtype)
        for block in self.blocks[1:]:
            x = block(x)
        out = self._head(self.last(x, "relu6").mean(dim=(2, 3), dtype=torch.float32))
        return out if self.querypool is None else out + self.querypool(x.float())

    def _head(self, x: Tensor) -> Tensor:
        """Project pooled features (n, 1280) to (n, d)."""
        if self.fc is not None:
            named = self.names(self.fc(x).softmax(dim=-1))  # (n, class width)
            x = torch.cat([x, named], dim=-1)
        out = self.proj(x)
        return out if self.c_fc is None else self.c_proj.added_to(self.c_fc(x, "gelu"), out)


class FoldedQueryPool:
    """The queries that read the feature map; the queries' product with the keys is folded."""

    def __init__(self, state: State, config: ClipConfig, exact: Target) -> None:
        assert isinstance(config.vision, EfficientNetConfig)
        name, self.heads = "visual.querypool", config.vision.heads
        part = {key: state[f"{name}.{key}"].float() for key in _QUERY_POOL}
        self.inputs = Linear(exact, part["inputs.weight"], part["inputs.bias"])
        self.norm = Norm(exact, state, f"{name}.norm")
        queries, d = part["queries"].shape
        width = d // self.heads
        q = part["queries"].view(queries, self.heads, width).transpose(0, 1) * width**-0.5
        keys = part["key.weight"].view(self.heads, width, d)
        # a key's bias adds the same to the logits of all positions, which their softmax ignores
        self.look = Linear(exact, (q @ keys).flatten(0, 1))  # (h * queries, d)
        self.value = Linear(exact, part["value.weight"], part["value.bias"])
        self.c_proj = Linear(exact, part["c_proj.weight"], part["c_proj.bias"])

    def __call__(self, x: Tensor) -> Tensor:
        """Pool a feature map (n, c, s', s') to (n, d)."""
        x = self.norm(self.inputs(x.flatten(2).transpose(1, 2).contiguous()))  # (n, s'², d)
        n, length, d = x.shape
        likely = self.look(x).transpose(1, 2).softmax(dim=-1)  # (n, h * queries, s'²)
        values = self.value(x).view(n, length, self.heads, -1).transpose(1, 2)  # (n, h, s'², d/h)
        mixed = likely.reshape(n, self.heads, -1, length) @ values  # (n, h, queries, d/h)
        return self.c_proj(mixed.transpose(1, 2).reshape(n, -1))


def _same_kernel(weight: Tensor, side: int, stride: int) -> Tensor:
    """Return the weight (m, k, side, side) for TensorFlow's SAME padding of maps of this side.

    Where that adds one more row at the bottom than at the top, a row of zeros above the kernel and
    as many rows of padding on both sides come to the same. Padding the map instead would copy it,
    which takes longer than the convolution.
    """
    before, after = same_padding(side, weight.shape[-1], stride)
    odd = after - before
    return F.pad(weight, (odd, 0, odd, 0))


def _for_bytes(state: State, name: str, config: ClipConfig) -> State:
    """Return the state with the first convolution scaled for bytes less their mean."""
    std = torch.tensor(config.std).view(3, 1, 1) * 255
    return {**state, name: state[name].float() / std}


def _folded(state: State, name: str, norm: str, eps: float = NORM_EPS) -> tuple[Tensor, Tensor]:
    """Fold a batch norm's running statistics into the convolution before it.

    Return its weight (m, k, side, side) and bias (m,) in float32.
    """
    scale = state[f"{norm}.weight"].double()
    scale = scale / (state[f"{norm}.running_var"].double() + eps).sqrt()
    weight = state[f"{name}.weight"].double() * scale.view(-1, 1, 1, 1)
    bias = state[f"{norm}.bias"].double() - state[f"{norm}.running_mean"].double() * scale
    return weight.float(), bias.float()


def _convolution(
    target: Target, state: State, name: str, norm: str, stride: int = 1
) -> Convolution:
    return Convolution(target, *_folded(state, name, norm), stride)
