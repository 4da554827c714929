"""The text towers in NumPy, equal to those of ``towers.py`` in float32 up to rounding.

A tower embeds one text at a time: a query is one. For l, w, h and d see ``model.py``.
"""

from collections.abc import Callable
from math import sqrt
from typing import Protocol

import numpy as np

from fovea.search.clip.config import BERT_NORM_EPS, BertConfig, ClipConfig, TextConfig

__all__ = ["BERT_TABLE", "TABLE", "NumpyTower", "State", "TokenTable", "text_tower"]

TABLE = "token_embedding.weight"
BERT_TABLE = "bert.embeddings.word_embeddings.weight"
NORM_EPS = 1e-5  # of every layer norm of the published models

State = dict[str, np.ndarray]  # float32 tensors by their published names

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

    def embed(self, ids: np.ndarray) -> np.ndarray:
        """Embed the ids (l,) of one text, both specials included, as (d,), not of unit length."""
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
        weight, bias = self._state[f"{name}{mark}weight"], self._state[f"{name}{mark}bias"]
        return (weight @ x.T).T + bias  # faster than x @ weight.T for few tokens

    def _norm(self, x: np.ndarray, name: str) -> np.ndarray:
        centred = x - x.mean(axis=-1, keepdims=True)
        variance = np.square(centred).mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt(variance + np.float32(self._eps))
        return scaled * self._state[f"{name}.weight"] + self._state[f"{name}.bias"]

    def _attend(
        self, q: np.ndarray, k: np.ndarray, v: np.ndarray, *, is_causal: bool = False
    ) -> np.ndarray:
        """Mix the positions of ``v`` (l, w) by the softmax of ``q`` times ``k``."""
        length, width = q.shape
        q, k, v = (x.reshape(length, self._heads, -1).swapaxes(0, 1) for x in (q, k, v))
        scores = q @ k.transpose(0, 2, 1) / sqrt(width // self._heads)  # (h, l, l)
        if is_causal:
            scores += np.triu(np.full((length, length), -np.inf, np.float32), 1)
        powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
        mixed = powers / powers.sum(axis=-1, keepdims=True) @ v  # (h, l, w / h)
        return mixed.swapaxes(0, 1).reshape(length, width)


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

    def embed(self, ids: np.ndarray) -> np.ndarray:
        """Embed the ids (l,) of one text as (d,)."""
        x = self._table[ids] + self._state["positional_embedding"][: len(ids)]
        for layer in range(self._layers):
            name = f"transformer.resblocks.{layer}"
            packed = self._linear(self._norm(x, f"{name}.ln_1"), f"{name}.attn.in_proj", "_")
            q, k, v = np.split(packed, 3, axis=1)
            mixed = self._attend(q, k, v, is_causal=True)
            x = x + self._linear(mixed, f"{name}.attn.out_proj")
            hidden = self._linear(self._norm(x, f"{name}.ln_2"), f"{name}.mlp.c_fc")
            x = x + self._linear(self._activation(hidden), f"{name}.mlp.c_proj")
        out: np.ndarray = self._norm(x[-1], "ln_final") @ self._state["text_projection"]
        return out


class Bert(_Layers):
    """The BERT, read as the mean over a text's positions."""

    def __init__(self, config: BertConfig, state: State, table: TokenTable) -> None:
        super().__init__(state, config.heads, BERT_NORM_EPS)
        self._layers, self._table = config.layers, table

    def embed(self, ids: np.ndarray) -> np.ndarray:
        """Embed the ids (l,) of one text as (d,)."""
        tables = "bert.embeddings"
        x = self._table[ids] + self._state[f"{tables}.token_type_embeddings.weight"][0]
        x = x + self._state[f"{tables}.position_embeddings.weight"][: len(ids)]
        x = self._norm(x, f"{tables}.LayerNorm")
        for number in range(self._layers):
            name = f"bert.encoder.layer.{number}"
            q, k, v = (
                self._linear(x, f"{name}.attention.self.{part}")
                for part in ("query", "key", "value")
            )
            x = self._added(self._attend(q, k, v), x, f"{name}.attention.output")
            hidden = _gelu(self._linear(x, f"{name}.intermediate.dense"))
            x = self._added(hidden, x, f"{name}.output")
        out: np.ndarray = x.mean(axis=0) @ self._state["text_projection"]
        return out

    def _added(self, x: np.ndarray, residual: np.ndarray, name: str) -> np.ndarray:
        return self._norm(self._linear(x, f"{name}.dense") + residual, f"{name}.LayerNorm")


def _quick_gelu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-1.702 * x))


def _gelu(x: np.ndarray) -> np.ndarray:
    return x * (0.5 + 0.5 * _erf(x * np.float32(sqrt(0.5))))


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
