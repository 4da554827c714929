"""BERT as a text tower (Devlin et al. 2018, arXiv:1810.04805), mean-pooled.

Modules have the names of the published weights. The mean over a text's tokens, the specials
included, is what sentence embeddings are read from (Reimers and Gurevych 2019, arXiv:1908.10084,
section 3).

For n, l, w and h see ``model.py``.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import attend
from .config import BERT_NORM_EPS, BertConfig

__all__ = ["Bert", "padding_mask", "text_lengths"]


class Embeddings(nn.Module):
    """Token, position and segment embeddings; a text is a single segment."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.width)
        self.position_embeddings = nn.Embedding(config.context_length, config.width)
        self.token_type_embeddings = nn.Embedding(config.segments, config.width)
        self.LayerNorm = nn.LayerNorm(config.width, eps=BERT_NORM_EPS)

    def forward(self, tokens: Tensor) -> Tensor:
        """Embed token ids (n, l) as (n, l, w)."""
        x = self.word_embeddings(tokens) + self.token_type_embeddings.weight[0]
        out: Tensor = self.LayerNorm(x + self.position_embeddings.weight[: tokens.shape[1]])
        return out


class SelfAttention(nn.Module):
    """Queries, keys and values of all heads."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Mix the positions of ``x`` (n, l, w); ``mask`` (n, 1, 1, l) is added to the logits."""
        n, length, w = x.shape
        q, k, v = (
            part(x).view(n, length, self.heads, -1).transpose(1, 2)  # (n, h, l, w/h)
            for part in (self.query, self.key, self.value)
        )
        mixed = attend(q, k, v, mask)  # (n, h, l, w/h)
        return mixed.transpose(1, 2).reshape(n, length, w)


class Residual(nn.Module):
    """A linear layer whose output is added to the residual, then normalised."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(inputs, width)
        self.LayerNorm = nn.LayerNorm(width, eps=BERT_NORM_EPS)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        """Map (n, l, inputs) to (n, l, w)."""
        out: Tensor = self.LayerNorm(self.dense(x) + residual)
        return out


class Attention(nn.Module):
    """Self-attention with its output layer, called ``self`` and ``output`` in the weights."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.self = SelfAttention(width, heads)
        self.output = Residual(width, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Mix the positions of ``x`` (n, l, w)."""
        out: Tensor = self.output(self.self(x, mask), x)
        return out


class Intermediate(nn.Module):
    """The expanding layer of the MLP."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, 4 * width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, l, w) to (n, l, 4w)."""
        return F.gelu(self.dense(x))


class Layer(nn.Module):
    """One post-norm Transformer layer."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = Attention(width, heads)
        self.intermediate = Intermediate(width)
        self.output = Residual(4 * width, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Map ``x`` (n, l, w) to its shape; ``mask`` (n, 1, 1, l) is added to the logits."""
        x = self.attention(x, mask)
        out: Tensor = self.output(self.intermediate(x), x)
        return out


class Encoder(nn.Module):
    """The stack of layers."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(Layer(config.width, config.heads) for _ in range(config.layers))


class Bert(nn.Module):
    """The text tower without its projection."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.embeddings = Embeddings(config)
        self.encoder = Encoder(config)

    @property
    def blocks(self) -> list[nn.Module]:
        """The layers between ``stem`` and ``pool``, first to last."""
        return list(self.encoder.layer)

    def stem(self, tokens: Tensor) -> Tensor:
        """Turn token ids (n, l) into the layers' input (n, l, w)."""
        out: Tensor = self.embeddings(tokens)
        return out

    def pool(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Return the mean (n, w) of the first ``lengths`` (n,) positions of (n, l, w)."""
        real = torch.arange(x.shape[1], device=x.device) < lengths[:, None]  # (n, l)
        return (x * real[..., None]).sum(dim=1) / lengths[:, None]


def text_lengths(tokens: Tensor) -> Tensor:
    """Return the length (n,) of each row of token ids (n, l): up to the last that is not 0.

    Padding has id 0; where it comes before the end of a text, the text contained it.
    """
    places = torch.arange(1, tokens.shape[1] + 1, device=tokens.device)
    return (places * (tokens != 0)).amax(dim=1)


def padding_mask(lengths: Tensor, like: Tensor) -> Tensor:
    """Return (n, 1, 1, l) with -inf where ``like`` (n, l, w) is padding, beyond ``lengths``."""
    places = torch.arange(like.shape[1], device=like.device)
    mask = torch.zeros(len(lengths), like.shape[1], device=like.device, dtype=like.dtype)
    return mask.masked_fill_(places >= lengths[:, None], -torch.inf)[:, None, None]
