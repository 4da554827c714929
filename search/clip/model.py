"""CLIP: an image tower and a text tower that meet in one space.

Towers are parts, one of each to a model: a Vision Transformer, a modified ResNet or an
EfficientNet-Lite (``efficientnet.py``) for images, a causal Transformer or a BERT (``bert.py``)
for texts.

The architecture is that of Radford et al. 2021 (arXiv:2103.00020), section 2.4. Modules have the
names of the published checkpoints, so that their state dicts load without renaming.

Axes, in comments and docstrings:
    n  images or texts in a batch
    l  length: positions of a sequence, patches or tokens with the specials
    w  width of a tower
    h  attention heads, each w/h wide
    d  width of an embedding
    s  side of an image in pixels, c and s' channels and side of a ResNet's feature map
"""

import math
from collections import OrderedDict
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import attend
from .bert import Bert, padding_mask, text_lengths
from .config import Activation, BertConfig, ClipConfig, EfficientNetConfig, VisionConfig
from .efficientnet import EfficientNetLite


class QuickGELU(nn.Module):
    """The sigmoid approximation of GELU (Hendrycks and Gimpel 2016, arXiv:1606.08415)."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply the activation to each element."""
        return x * torch.sigmoid(1.702 * x)


class SelfAttention(nn.Module):
    """Multi-head self-attention with the parameter names of ``nn.MultiheadAttention``."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Mix the positions of ``x`` (n, l, w); ``mask`` (l, l) is added to the logits."""
        n, length, w = x.shape
        qkv = F.linear(x, self.in_proj_weight, self.in_proj_bias)  # (n, l, 3w)
        qkv = qkv.view(n, length, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (n, h, l, w/h)
        mixed = attend(q, k, v, mask)  # (n, h, l, w/h)
        out: Tensor = self.out_proj(mixed.transpose(1, 2).reshape(n, length, w))
        return out


class ResidualAttentionBlock(nn.Module):
    """One pre-norm Transformer block."""

    def __init__(self, width: int, heads: int, activation: Activation) -> None:
        super().__init__()
        self.attn = SelfAttention(width, heads)
        self.ln_1 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            OrderedDict(
                c_fc=nn.Linear(width, 4 * width),
                gelu=QuickGELU() if activation == "quick_gelu" else nn.GELU(),
                c_proj=nn.Linear(4 * width, width),
            )
        )
        self.ln_2 = nn.LayerNorm(width)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return ``x`` (n, l, w) after attention and MLP, each added to its input."""
        x = x + self.attn(self.ln_1(x), mask)
        out: Tensor = x + self.mlp(self.ln_2(x))
        return out


class Transformer(nn.Module):
    """A stack of blocks of one width."""

    def __init__(self, width: int, layers: int, heads: int, activation: Activation) -> None:
        super().__init__()
        self.width = width
        self.resblocks = nn.ModuleList(
            ResidualAttentionBlock(width, heads, activation) for _ in range(layers)
        )

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Pass ``x`` (n, l, w) through every block."""
        for block in self.resblocks:
            x = block(x, mask)
        return x


class VisionTransformer(nn.Module):
    """The image tower of the ViT models (Dosovitskiy et al. 2020, arXiv:2010.11929)."""

    def __init__(self, config: VisionConfig, embed_dim: int, activation: Activation) -> None:
        super().__init__()
        assert isinstance(config.layers, int) and config.patch_size
        width, patch = config.width, config.patch_size
        self.conv1 = nn.Conv2d(3, width, kernel_size=patch, stride=patch, bias=False)
        scale = width**-0.5
        positions = (config.image_size // patch) ** 2 + 1
        self.class_embedding = nn.Parameter(scale * torch.randn(width))
        self.positional_embedding = nn.Parameter(scale * torch.randn(positions, width))
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = Transformer(width, config.layers, config.heads, activation)
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(scale * torch.randn(width, embed_dim))

    def forward(self, x: Tensor) -> Tensor:
        """Embed normalised pixels (n, 3, s, s) as (n, d), not yet of unit length."""
        return self.head(self.transformer(self.stem(x)))

    def stem(self, x: Tensor) -> Tensor:
        """Turn pixels (n, 3, s, s) into the blocks' input (n, l, w), l = patches + 1."""
        x = self.conv1(x).flatten(2).transpose(1, 2)  # (n, patches, w)
        first = self.class_embedding.to(x.dtype).expand(x.shape[0], 1, -1)  # (n, 1, w)
        x = torch.cat([first, x], dim=1)  # (n, l, w)
        out: Tensor = self.ln_pre(x + self.positional_embedding.to(x.dtype))
        return out

    def head(self, x: Tensor) -> Tensor:
        """Project the class token of the last block's output (n, l, w) to (n, d)."""
        out: Tensor = self.ln_post(x[:, 0]) @ self.proj  # (n, w) to (n, d)
        return out

    @property
    def blocks(self) -> list[nn.Module]:
        """The blocks between ``stem`` and ``head``, first to last."""
        return list(self.transformer.resblocks)


class Bottleneck(nn.Module):
    """A ResNet bottleneck that pools before it strides (Radford et al. 2021, section 2.4)."""

    expansion = 4

    def __init__(self, inplanes: int, planes: int, stride: int = 1) -> None:
        super().__init__()
        outplanes = planes * self.expansion
        self.conv1 = nn.Conv2d(inplanes, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.relu2 = nn.ReLU(inplace=True)
        self.avgpool = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
        self.conv3 = nn.Conv2d(planes, outplanes, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outplanes)
        self.relu3 = nn.ReLU(inplace=True)
        self.downsample: nn.Module | None = None
        if stride > 1 or inplanes != outplanes:
            steps: list[tuple[str, nn.Module]] = [
                ("-1", nn.AvgPool2d(stride) if stride > 1 else nn.Identity()),
                ("0", nn.Conv2d(inplanes, outplanes, 1, bias=False)),
                ("1", nn.BatchNorm2d(outplanes)),
            ]
            self.downsample = nn.Sequential(OrderedDict(steps))

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, c, s', s') to (n, 4 planes, s'/stride, s'/stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self.relu1(self.bn1(self.conv1(x)))
        out = self.relu2(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(self.avgpool(out)))
        result: Tensor = self.relu3(out + shortcut)
        return result


class AttentionPool2d(nn.Module):
    """Pool a feature map by one attention step whose query is its mean."""

    def __init__(self, side: int, width: int, heads: int, output_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.positional_embedding = nn.Parameter(torch.randn(side**2 + 1, width) * width**-0.5)
        self.k_proj = nn.Linear(width, width)
        self.q_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.c_proj = nn.Linear(width, output_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Pool ``x`` (n, w, side, side) to (n, output_dim); l is side² + 1."""
        n, w = x.shape[:2]
        x = x.flatten(2).transpose(1, 2)  # (n, side², w)
        x = torch.cat([x.mean(dim=1, keepdim=True), x], dim=1)  # (n, l, w)
        x = x + self.positional_embedding.to(x.dtype)
        split = (n, -1, self.heads, w // self.heads)
        q = self.q_proj(x[:, :1]).view(split).transpose(1, 2)  # (n, h, 1, w/h)
        k = self.k_proj(x).view(split).transpose(1, 2)  # (n, h, l, w/h)
        v = self.v_proj(x).view(split).transpose(1, 2)  # (n, h, l, w/h)
        logits = (q * (w // self.heads) ** -0.5) @ k.transpose(-1, -2)  # (n, h, 1, l)
        mixed = logits.softmax(dim=-1).to(v.dtype) @ v  # (n, h, 1, w/h)
        out: Tensor = self.c_proj(mixed.transpose(1, 2).reshape(n, w))
        return out


class ModifiedResNet(nn.Module):
    """The image tower of the RN models: ResNet-D's three-convolution stem, antialiased strides
    and attention pooling (Radford et al. 2021, section 2.4)."""

    def __init__(self, config: VisionConfig, embed_dim: int) -> None:
        super().__init__()
        assert not isinstance(config.layers, int)
        width = config.width
        self.conv1 = nn.Conv2d(3, width // 2, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width // 2)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width // 2, width // 2, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width // 2)
        self.relu2 = nn.ReLU(inplace=True)
        self.conv3 = nn.Conv2d(width // 2, width, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.relu3 = nn.ReLU(inplace=True)
        self.avgpool = nn.AvgPool2d(2)
        one, two, three, four = config.layers
        self.layer1 = _stage(width, width, one, stride=1)
        self.layer2 = _stage(width * 4, width * 2, two, stride=2)
        self.layer3 = _stage(width * 8, width * 4, three, stride=2)
        self.layer4 = _stage(width * 16, width * 8, four, stride=2)
        side = config.image_size // 32
        self.attnpool = AttentionPool2d(side, width * 32, config.heads, embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Embed normalised pixels (n, 3, s, s) as (n, d), not yet of unit length."""
        return self.head(self.layer4(self.layer3(self.layer2(self.layer1(self.stem(x))))))

    def stem(self, x: Tensor) -> Tensor:
        """Turn pixels (n, 3, s, s) into the blocks' input (n, w, s/4, s/4)."""
        x = self.relu1(self.bn1(self.conv1(x)))  # (n, w/2, s/2, s/2)
        x = self.relu2(self.bn2(self.conv2(x)))
        out: Tensor = self.avgpool(self.relu3(self.bn3(self.conv3(x))))  # (n, w, s/4, s/4)
        return out

    def head(self, x: Tensor) -> Tensor:
        """Pool the last block's output (n, 32w, s/32, s/32) to (n, d)."""
        out: Tensor = self.attnpool(x)
        return out

    @property
    def blocks(self) -> list[nn.Module]:
        """The bottlenecks between ``stem`` and ``head``, first to last."""
        return [*self.layer1, *self.layer2, *self.layer3, *self.layer4]


def _stage(inplanes: int, planes: int, blocks: int, *, stride: int) -> nn.Sequential:
    outplanes = planes * Bottleneck.expansion
    rest = [Bottleneck(outplanes, planes) for _ in range(blocks - 1)]
    return nn.Sequential(Bottleneck(inplanes, planes, stride), *rest)


class CLIP(nn.Module):
    """Both towers; ``logit_scale`` holds the logarithm of the inverse temperature.

    A causal text Transformer is spread over ``token_embedding``, ``positional_embedding``,
    ``transformer`` and ``ln_final``, as in the published checkpoints; a BERT is ``bert``.
    """

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.config = config
        text = config.text
        self.visual: VisionTransformer | ModifiedResNet | EfficientNetLite
        if isinstance(config.vision, EfficientNetConfig):
            self.visual = EfficientNetLite(config.vision, config.embed_dim)
        elif config.vision.is_resnet:
            self.visual = ModifiedResNet(config.vision, config.embed_dim)
        else:
            self.visual = VisionTransformer(config.vision, config.embed_dim, config.activation)
        self.bert: Bert | None = None
        if isinstance(text, BertConfig):
            self.bert = Bert(text)
        else:
            self.transformer = Transformer(text.width, text.layers, text.heads, config.activation)
            self.token_embedding = nn.Embedding(text.vocab_size, text.width)
            self.positional_embedding = nn.Parameter(torch.empty(text.context_length, text.width))
            self.ln_final = nn.LayerNorm(text.width)
        self.text_projection = nn.Parameter(torch.empty(text.width, config.embed_dim))
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    @property
    def text_blocks(self) -> list[nn.Module]:
        """The blocks between ``text_stem`` and ``text_head``, first to last."""
        return self.bert.blocks if self.bert else list(self.transformer.resblocks)

    def encode_image(self, image: Tensor) -> Tensor:
        """Embed normalised pixels (n, 3, s, s) as (n, d), not yet of unit length."""
        out: Tensor = self.visual(image)
        return out

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Embed token ids (n, l), l at most the context length, as (n, d), not of unit length."""
        return self._project_text(self.pool_text(tokens))

    def pool_text(self, tokens: Tensor) -> Tensor:
        """Return the text tower's output (n, w), below its projection, for token ids (n, l)."""
        lengths = self.text_lengths(tokens)
        x = self.text_stem(tokens)  # (n, l, w)
        mask = self.text_mask(x, lengths)
        for block in self.text_blocks:
            x = block(x, mask)
        return self.text_pool(x, lengths)

    def text_lengths(self, tokens: Tensor) -> Tensor:
        """Return the length (n,) of each row of token ids (n, l), both specials included.

        A causal Transformer's text ends at the highest id; a BERT's is padded with 0.
        """
        return text_lengths(tokens) if self.bert else tokens.argmax(dim=-1) + 1

    def text_stem(self, tokens: Tensor) -> Tensor:
        """Turn token ids (n, l) into the text blocks' input (n, l, w)."""
        if self.bert:
            return self.bert.stem(tokens)
        x: Tensor = self.token_embedding(tokens)
        return x + self.positional_embedding[: tokens.shape[1]].to(x.dtype)

    def text_mask(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Return what is added to the logits of attention over ``x`` (n, l, w)."""
        return padding_mask(lengths, x) if self.bert else causal_mask(x.shape[1], x)

    def text_head(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Project the last block's output (n, l, w) to (n, d)."""
        return self._project_text(self.text_pool(x, lengths))

    def _project_text(self, x: Tensor) -> Tensor:
        """Project (n, w) to (n, d)."""
        out: Tensor = x @ self.text_projection.to(x.dtype)
        return out

    def text_pool(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Read the last block's output (n, l, w) as (n, w).

        That of a causal Transformer where each text ends, of a BERT as the mean over each text.
        """
        if self.bert:
            return self.bert.pool(x, lengths)
        out: Tensor = self.ln_final(x[torch.arange(len(x), device=x.device), lengths - 1])
        return out

    def forward(self, image: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return unit image rows (n, d), unit text rows (m, d) and the scale of their cosines."""
        images = F.normalize(self.encode_image(image).float(), dim=-1)
        return images, self.unit_texts(tokens), self.logit_scale.exp()

    def unit_texts(self, tokens: Tensor, groups: int = 4) -> Tensor:
        """Embed token ids (n, l) as unit rows (n, d), float32.

        Texts are encoded in groups of similar length: padding costs as much as words.
        """
        lengths = self.text_lengths(tokens)
        order = lengths.argsort()
        parts = [tokens[rows, : int(lengths[rows].max())] for rows in order.chunk(groups)]
        rows = torch.cat([self.encode_text(part) for part in parts])[order.argsort()]
        return F.normalize(rows.float(), dim=-1)


def causal_mask(length: int, like: Tensor) -> Tensor:
    """Return (length, length) with -inf above the diagonal: no position sees a later one."""
    mask = torch.full((length, length), -math.inf, device=like.device, dtype=like.dtype)
    return mask.triu_(1)


@torch.no_grad()
def initialise(model: CLIP) -> None:
    """Draw the weights of a model that is to be trained from scratch, in place.

    As in GPT-2 (Radford et al. 2019, section 2.3), residual projections are scaled down by the
    depth. Convolutions follow He et al. 2015 (arXiv:1502.01852). The gains of the bottlenecks'
    last batch norms stay at one: where they start at zero (Goyal et al. 2017, arXiv:1706.02677,
    section 5.1), AdamW's small steps leave them near 0.1 for thousands of updates, and the
    bottlenecks all but switched off. The attention pool starts as a mean: with the queries at zero
    every position weighs the same. A BERT starts as in Devlin et al. 2018 (arXiv:1810.04805).
    """
    nn.init.normal_(model.text_projection, std=model.text_projection.shape[0] ** -0.5)
    if model.bert:
        for module in model.bert.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
    else:
        nn.init.normal_(model.token_embedding.weight, std=0.02)
        nn.init.normal_(model.positional_embedding, std=0.01)
        _initialise_blocks(model.transformer)
    visual = model.visual
    if isinstance(visual, VisionTransformer):
        _initialise_blocks(visual.transformer)
        return
    if isinstance(visual, ModifiedResNet):
        _initialise_pool(visual.attnpool)
    for module in visual.modules():
        if isinstance(module, nn.Conv2d):
            # of a depthwise convolution each output has one input channel
            mode: Literal["fan_in", "fan_out"] = "fan_out" if module.groups == 1 else "fan_in"
            nn.init.kaiming_normal_(module.weight, mode=mode, nonlinearity="relu")


def _initialise_pool(pool: AttentionPool2d) -> None:
    std = pool.c_proj.in_features**-0.5
    for linear in (pool.q_proj, pool.k_proj, pool.v_proj, pool.c_proj):
        nn.init.normal_(linear.weight, std=std)
        nn.init.zeros_(linear.bias)
    nn.init.zeros_(pool.q_proj.weight)


def _initialise_blocks(transformer: Transformer) -> None:
    width, layers = transformer.width, len(transformer.resblocks)
    residual = width**-0.5 * (2 * layers) ** -0.5
    for block in transformer.resblocks:
        assert isinstance(block, ResidualAttentionBlock)
        nn.init.normal_(block.attn.in_proj_weight, std=width**-0.5)
        nn.init.normal_(block.attn.out_proj.weight, std=residual)
        for name, std in (("c_fc", (2 * width) ** -0.5), ("c_proj", residual)):
            nn.init.normal_(block.mlp.get_parameter(f"{name}.weight"), std=std)
