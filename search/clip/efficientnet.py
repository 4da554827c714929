"""EfficientNet-Lite, an image tower that is small and fast on CPUs.

Tan and Le 2019 (arXiv:1905.11946), in the Lite variant: no squeeze-and-excite, ReLU6 for Swish,
and a stem and last stage that are not scaled. Convolutions pad as TensorFlow does (SAME). Modules
have the names of the published PyTorch weights, less their leading underscores.

For n, s and d see ``model.py``; c and s' are the channels and side of a feature map.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import (
    EFFICIENTNET_POOLED,
    EFFICIENTNET_STEM,
    BlockShape,
    EfficientNetConfig,
    block_shapes,
)

__all__ = ["NORM_EPS", "EfficientNetLite", "ProjectionHead", "QueryPool", "same_padding"]

NORM_EPS = 1e-3  # of every batch norm


class SameConv2d(nn.Conv2d):
    """A convolution padded as TensorFlow pads (SAME): the output's side is ceil(side / stride).

    Where the padding is odd, the right and the bottom get one more.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, c, s', s') to (n, outputs, ceil(s'/stride), ceil(s'/stride))."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        height, width = (same_padding(side, kernel, stride) for side in x.shape[-2:])
        return super().forward(F.pad(x, (*width, *height)))


def same_padding(side: int, kernel: int, stride: int) -> tuple[int, int]:
    """Return how many rows of zeros TensorFlow's SAME adds before and after ``side`` pixels."""
    total = max(0, (math.ceil(side / stride) - 1) * stride + kernel - side)
    return total // 2, total - total // 2


class InvertedBottleneck(nn.Module):
    """Expand, convolve each channel alone, project (Sandler et al. 2018, arXiv:1801.04381)."""

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        self.adds = shape.stride == 1 and shape.inputs == shape.outputs
        self.expands = shape.expands
        inner = shape.inner
        if shape.expands:
            self.expand_conv = nn.Conv2d(shape.inputs, inner, 1, bias=False)
            self.bn0 = nn.BatchNorm2d(inner, eps=NORM_EPS)
        self.depthwise_conv = SameConv2d(
            inner, inner, shape.kernel, stride=shape.stride, groups=inner, bias=False
        )
        self.bn1 = nn.BatchNorm2d(inner, eps=NORM_EPS)
        self.project_conv = nn.Conv2d(inner, shape.outputs, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(shape.outputs, eps=NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, inputs, s', s') to (n, outputs, ceil(s'/stride), ceil(s'/stride))."""
        out = F.relu6(self.bn0(self.expand_conv(x))) if self.expands else x
        out = F.relu6(self.bn1(self.depthwise_conv(out)))
        out = self.bn2(self.project_conv(out))
        return out + x if self.adds else out


class ProjectionHead(nn.Module):
    """From a pooled feature to an embedding: a linear map, plus a hidden layer if ``hidden``."""

    def __init__(self, inputs: int, hidden: int, embed_dim: int) -> None:
        super().__init__()
        self.proj = nn.Parameter(torch.randn(inputs, embed_dim) * inputs**-0.5)
        self.hidden = hidden
        if hidden:
            self.c_fc = nn.Linear(inputs, hidden)
            self.c_proj = nn.Linear(hidden, embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, inputs) to (n, d)."""
        out = x @ self.proj.to(x.dtype)
        if self.hidden:
            out = out + self.c_proj(F.gelu(self.c_fc(x)))
        return out


class QueryPool(nn.Module):
    """Learned queries that each read a feature map by attention.

    As the pooling head of Zhai et al. 2021 (arXiv:2106.04560, section 2.5), with several queries
    and without an MLP.
    """

    def __init__(self, channels: int, queries: int, heads: int, embed_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.inputs = nn.Linear(channels, embed_dim)
        self.norm = nn.LayerNorm(embed_dim)
        self.queries = nn.Parameter(torch.randn(queries, embed_dim))
        self.key = nn.Linear(embed_dim, embed_dim)
        self.value = nn.Linear(embed_dim, embed_dim)
        self.c_proj = nn.Linear(queries * embed_dim, embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Pool a feature map (n, c, s', s') to (n, d)."""
        x = self.norm(self.inputs(x.flatten(2).transpose(1, 2)))  # (n, s'², d)
        k, v = (self._heads(part(x)) for part in (self.key, self.value))
        q = self._heads(self.queries.to(x.dtype)[None])  # (1, h, queries, d/h)
        logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)  # (n, h, queries, s'²)
        mixed = logits.softmax(dim=-1).to(v.dtype) @ v  # (n, h, queries, d/h)
        out: Tensor = self.c_proj(mixed.transpose(1, 2).flatten(1))
        return out

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)  # (n, h, l, d/h)


class EfficientNetLite(nn.Module):
    """The image tower; ``blocks`` are the inverted bottlenecks between ``stem`` and ``head``.

    With classes in its configuration the classifier ``fc`` stays: the head is then given, beside
    the pooled feature, the mean embedding of the class names, weighted by the classifier's
    probabilities (Norouzi et al. 2013, arXiv:1312.5650, equation 5).
    """

    def __init__(self, config: EfficientNetConfig, embed_dim: int) -> None:
        super().__init__()
        shapes = block_shapes(config)
        self.conv_stem = SameConv2d(3, EFFICIENTNET_STEM, 3, stride=2, bias=False)
        self.bn0 = nn.BatchNorm2d(EFFICIENTNET_STEM, eps=NORM_EPS)
        self.blocks = nn.ModuleList(InvertedBottleneck(shape) for shape in shapes)
        self.conv_head = nn.Conv2d(shapes[-1].outputs, EFFICIENTNET_POOLED, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(EFFICIENTNET_POOLED, eps=NORM_EPS)
        self.classes = config.classes
        inputs = EFFICIENTNET_POOLED
        if config.classes:
            self.fc = nn.Linear(EFFICIENTNET_POOLED, config.classes)
            names = torch.randn(config.classes, config.class_width)
            self.class_embedding = nn.Parameter(names)  # of the names of each class
            inputs += config.class_width
        self.projection = ProjectionHead(inputs, config.hidden, embed_dim)
        self.querypool: QueryPool | None = None
        if config.queries:
            channels = shapes[-1].outputs
            self.querypool = QueryPool(channels, config.queries, config.heads, embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Embed normalised pixels (n, 3, s, s) as (n, d), not yet of unit length."""
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)

    def class_tensors(self) -> list[Tensor]:
        """The classifier and the embeddings of its classes' names, if there are any."""
        return [*self.fc.parameters(), self.class_embedding] if self.classes else []

    def stem(self, x: Tensor) -> Tensor:
        """Turn pixels (n, 3, s, s) into the blocks' input (n, 32, s/2, s/2)."""
        return F.relu6(self.bn0(self.conv_stem(x)))

    def pool(self, x: Tensor) -> Tensor:
        """Pool the last block's output (n, c, s', s') to features (n, 1280)."""
        return F.relu6(self.bn1(self.conv_head(x))).mean(dim=(2, 3))

    def head(self, x: Tensor) -> Tensor:
        """Project the last block's output (n, c, s', s') to (n, d)."""
        out = self.project(self.pool(x))
        return out + self.querypool(x) if self.querypool else out

    def project(self, features: Tensor) -> Tensor:
        """Project pooled features (n, 1280) to (n, d)."""
        if self.classes:
            likely = self.fc(features).softmax(dim=-1).to(features.dtype)  # (n, classes)
            named = likely @ self.class_embedding.to(features.dtype)  # (n, class width)
            features = torch.cat([features, named], dim=-1)
        out: Tensor = self.projection(features)
        return out
