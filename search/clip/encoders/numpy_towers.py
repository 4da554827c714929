"""The text towers in NumPy, equal to those of ``towers.py`` in float32 up to rounding.

A tower embeds a few texts at a time: the queries that have arrived. Their positions, one text's
after the other's, are the l columns of one matrix (w, l), without padding: a product with more
columns keeps the processor busier, and only attention has to tell the texts apart. For l, w, h and
d see ``model.py``.
"""

from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from math import sqrt
from typing import Protocol

import numpy as np

from fovea.search.clip.config import BERT_NORM_EPS, BertConfig, ClipConfig, TextConfig

__all__ = ["BERT_TABLE", "TABLE", "NumpyTower", "State", "TokenTable", "text_tower"]

TABLE = "token_embedding.weight"
BERT_TABLE = "bert.embeddings.word_embeddings.weight"
NORM_EPS = 1e-5  # of every layer norm of the published models

State = dict[str, np.ndarray]  # float32 tensors by their published names

GELU_BLOCK = 1 << 14  # values whose temporaries stay in a core's cache

# coefficients of the polynomial in t, highest power first, and t's own (``_erf``)
_ERF = (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592)
_ERF_T = 0.3275911


class TokenTable:
    """The embeddings of all tokens, in their stored precision: a text needs few of the rows."""

    def __init__(self, values: np.ndarray, scale: np.ndarray | None = None) -> None:
        """``values`` is (v, w) in any precision; int8 comes with its scales, float32 (v,)."""
        self._values, self._scale = values, scale

    def __getitem__(self, ids: np.ndarray) -> np.ndarray:
        """Return the rows of ``ids`` (l,) as float32 (l, w)."""
        rows = self._values[ids].astype(np.float32)
        return rows if self._scale is None else rows * self._scale[ids, None]


class NumpyTower(Protocol):
    """A text tower."""

    def embed(self, texts: Sequence[np.ndarray]) -> np.ndarray:
        """Embed texts, each the ids (l,) with both specials, as (n, d), not of unit length.

        How many texts there are changes an embedding by rounding only.
        """
        ...


def text_tower(config: ClipConfig, state: State, table: TokenTable) -> NumpyTower:
    """Return the text tower of this configuration."""
    if isinstance(config.text, BertConfig):
        return Bert(config.text, state, table)
    activation = _quick_gelu if config.activation == "quick_gelu" else _gelu
    return CausalTransformer(config.text, state, table, activation)


class _Layers:
    """What both towers compute with the tensors of a name."""

    def __init__(self, state: State, heads: int, eps: float) -> None:
        self._state, self._heads, self._eps = state, heads, eps

    def _linear(self, x: np.ndarray, name: str, mark: str = ".") -> np.ndarray:
        """Map ``x`` (w, l) to (m, l)."""
        out: np.ndarray = self._state[f"{name}{mark}weight"] @ x
        out += self._state[f"{name}{mark}bias"][:, None]
        return out

    def _norm(self, x: np.ndarray, name: str) -> np.ndarray:
        """Normalise each column of ``x`` (w, l)."""
        centred = x - x.mean(axis=0)
        variance = np.square(centred).mean(axis=0)
        centred /= np.sqrt(variance + np.float32(self._eps))
        centred *= self._state[f"{name}.weight"][:, None]
        centred += self._state[f"{name}.bias"][:, None]
        return centred

    def _attend(
        self,
        q: np.ndarray,
        k: np.ndarray,
        v: np.ndarray,
        lengths: Sequence[int],
        *,
        is_causal: bool = False,
    ) -> np.ndarray:
        """Mix each text's positions of ``v`` (w, l) by the softmax of ``q`` times ``k``."""
        width = len(q)
        q, k, v = (x.reshape(self._heads, width // self._heads, -1) for x in (q, k, v))
        out = np.empty_like(v)  # (h, w / h, l)
        for start, stop in pairwise(accumulate(lengths, initial=0)):
            here = slice(start, stop)
            scores = q[..., here].transpose(0, 2, 1) @ k[..., here]  # (h, l, l)
            scores /= np.float32(sqrt(width // self._heads))
            if is_causal:
                scores += np.triu(np.full(scores.shape[1:], -np.inf, np.float32), 1)
            powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
            powers /= powers.sum(axis=-1, keepdims=True)
            out[..., here] = v[..., here] @ powers.transpose(0, 2, 1)
        return out.reshape(width, -1)


class CausalTransformer(_Layers):
    """The text Transformer of the published models, read where a text ends."""

    def __init__(
        self,
        config: TextConfig,
        state: State,
        table: TokenTable,
        activation: Callable[[np.ndarray], np.ndarray],
    ) -> None:
        super().__init__(state, config.heads, NORM_EPS)
        self._layers, self._table, self._activation = config.layers, table, activation

    def embed(self, texts: Sequence[np.ndarray]) -> np.ndarray:
        """Embed texts, each the ids (l,), as (n, d)."""
        lengths, positions = [len(ids) for ids in texts], self._state["positional_embedding"]
        x = self._table[np.concatenate(texts)]
        x += np.concatenate([positions[:length] for length in lengths])
        x = np.ascontiguousarray(x.T)  # (w, l)
        for layer in range(self._layers):
            name = f"transformer.resblocks.{layer}"
            packed = self._linear(self._norm(x, f"{name}.ln_1"), f"{name}.attn.in_proj", "_")
            q, k, v = np.split(packed, 3)
            x += self._linear(
                self._attend(q, k, v, lengths, is_causal=True), f"{name}.attn.out_proj"
            )
            hidden = self._linear(self._norm(x, f"{name}.ln_2"), f"{name}.mlp.c_fc")
            x += self._linear(self._activation(hidden), f"{name}.mlp.c_proj")
        ends = np.cumsum(lengths) - 1
        out: np.ndarray = self._norm(x[:, ends], "ln_final").T @ self._state["text_projection"]
        return out


class Bert(_Layers):
    """The BERT, read as the mean over a text's positions."""

    def __init__(self, config: BertConfig, state: State, table: TokenTable) -> None:
        super().__init__(state, config.heads, BERT_NORM_EPS)
        self._layers, self._table = config.layers, table

    def embed(self, texts: Sequence[np.ndarray]) -> np.ndarray:
        """Embed texts, each the ids (l,), as (n, d)."""
        lengths, tables = [len(ids) for ids in texts], "bert.embeddings"
        positions = self._state[f"{tables}.position_embeddings.weight"]
        x = self._table[np.concatenate(texts)]
        x += self._state[f"{tables}.token_type_embeddings.weight"][0]
        x += np.concatenate([positions[:length] for length in lengths])
        x = self._norm(np.ascontiguousarray(x.T), f"{tables}.LayerNorm")  # (w, l)
        for number in range(self._layers):
            name = f"bert.encoder.layer.{number}"
            q, k, v = (
                self._linear(x, f"{name}.attention.self.{part}")
                for part in ("query", "key", "value")
            )
            x = self._added(self._attend(q, k, v, lengths), x, f"{name}.attention.output")
            hidden = _gelu(self._linear(x, f"{name}.intermediate.dense"))
            x = self._added(hidden, x, f"{name}.output")
        starts = np.cumsum([0, *lengths[:-1]])
        means = np.add.reduceat(x, starts, axis=1) / np.array(lengths, np.float32)
        out: np.ndarray = means.T @ self._state["text_projection"]
        return out

    def _added(self, x: np.ndarray, residual: np.ndarray, name: str) -> np.ndarray:
        out = self._linear(x, f"{name}.dense")
        out += residual
        return self._norm(out, f"{name}.LayerNorm")


def _quick_gelu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-1.702 * x))


def _gelu(x: np.ndarray) -> np.ndarray:
    """Return the exact GELU; a contiguous ``x`` is overwritten, a block at a time."""
    flat = x.reshape(-1)
    for start in range(0, len(flat), GELU_BLOCK):
        block = flat[start : start + GELU_BLOCK]
        block *= 0.5 + 0.5 * _erf(block * np.float32(sqrt(0.5)))
    return flat.reshape(x.shape)


def _erf(x: np.ndarray) -> np.ndarray:
    """Return the error function of float32 values, off by 3e-7 at most.

    Abramowitz and Stegun 1964, "Handbook of Mathematical Functions", formula 7.1.26, whose own
    error is at most 1.5e-7.
    """
    size = np.abs(x)
    t = 1 / (1 + np.float32(_ERF_T) * size)
    polynomial = np.full_like(t, _ERF[0])
    for coefficient in _ERF[1:]:
        polynomial *= t
        polynomial += np.float32(coefficient)
    polynomial *= t
    polynomial *= np.exp(-size * size)
    return np.copysign(1 - polynomial, x)
