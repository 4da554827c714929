"""The text tower in NumPy, so that a query in a terminal need not wait for torch.

NumPy computes a dozen tokens in milliseconds, while importing torch takes a second or more. The
result equals that of ``towers.TextTower`` in float32 up to rounding.
"""

from collections.abc import Callable, Sequence
from math import erf, sqrt
from pathlib import Path

import numpy as np

from fovea.search.clip.checkpoints.checkpoint import Checkpoint, find_weights
from fovea.search.clip.checkpoints.dialects import TensorPlan, tensor_plans
from fovea.search.clip.checkpoints.families import family_of
from fovea.search.clip.checkpoints.shapes import tower_of
from fovea.search.clip.config import ClipConfig
from fovea.search.clip.tokenizer import Tokenizer

__all__ = ["NumpyTextEncoder"]

TABLE = "token_embedding.weight"
NORM_EPS = 1e-5
READABLE = ("F16", "F32", "F64")  # safetensors' names of the types that NumPy has

State = dict[str, np.ndarray]


class NumpyTextEncoder:
    """Embeds texts by NumPy alone."""

    def __init__(self, config: ClipConfig, state: State, tokenizer: Tokenizer) -> None:
        self.config, self._state, self._tokenizer = config, state, tokenizer
        self._activation = _quick_gelu if config.activation == "quick_gelu" else _gelu

    @classmethod
    def open(cls, path: Path) -> "NumpyTextEncoder | None":
        """Read the text tower in a model's folder; return None if only torch can.

        Raise ``ModelError`` if it is damaged, incomplete or not a CLIP.
        """
        if family_of(path):
            return None
        weights = find_weights(path)
        if weights.suffix != ".safetensors":
            return None
        config = Checkpoint.open(path).config
        state = _read_text_tower(weights)
        if state is None:
            return None
        return cls(config, state, Tokenizer.from_folder(weights.parent, config.text.vocab_size))

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Embed texts as float32 unit rows (n, d); longer ones are cut at the context length."""
        length = self.config.text.context_length
        tokens = self._tokenizer.tokenize(texts, length)
        rows = [self._embed(row[: row.argmax() + 1]) for row in tokens]
        return np.stack(rows) if rows else np.empty((0, self.config.embed_dim), np.float32)

    def _embed(self, ids: np.ndarray) -> np.ndarray:
        """Embed the ids (l,) of one text, up to its end token, as a unit vector (d,)."""
        state = self._state
        x = state[TABLE][ids].astype(np.float32) + state["positional_embedding"][: len(ids)]
        for layer in range(self.config.text.layers):
            name = f"transformer.resblocks.{layer}"
            x = x + self._attend(self._norm(x, f"{name}.ln_1"), f"{name}.attn")
            hidden = self._linear(self._norm(x, f"{name}.ln_2"), f"{name}.mlp.c_fc")
            x = x + self._linear(self._activation(hidden), f"{name}.mlp.c_proj")
        out = self._norm(x[-1], "ln_final") @ state["text_projection"]  # (d,)
        return out / np.linalg.norm(out)

    def _attend(self, x: np.ndarray, name: str) -> np.ndarray:
        """Causal self-attention over (l, w)."""
        length, width = x.shape
        heads = self.config.text.heads
        packed = self._linear(x, f"{name}.in_proj", "_")
        q, k, v = packed.reshape(length, 3, heads, -1).transpose(1, 2, 0, 3)  # each (h, l, w / h)
        scores = q @ k.transpose(0, 2, 1) / sqrt(width // heads)  # (h, l, l)
        scores += np.triu(np.full((length, length), -np.inf, np.float32), 1)
        powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
        mixed = powers / powers.sum(axis=-1, keepdims=True) @ v  # (h, l, w / h)
        return self._linear(mixed.transpose(1, 0, 2).reshape(length, width), f"{name}.out_proj")

    def _linear(self, x: np.ndarray, name: str, mark: str = ".") -> np.ndarray:
        weight, bias = self._state[f"{name}{mark}weight"], self._state[f"{name}{mark}bias"]
        return (weight @ x.T).T + bias  # faster than x @ weight.T for few tokens

    def _norm(self, x: np.ndarray, name: str) -> np.ndarray:
        centred = x - x.mean(axis=-1, keepdims=True)
        variance = np.square(centred).mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt(variance + NORM_EPS)
        return scaled * self._state[f"{name}.weight"] + self._state[f"{name}.bias"]


def _read_text_tower(path: Path) -> State | None:
    """Read the tensors by their published names; the table of tokens keeps its precision."""
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        slices = {name: file.get_slice(name) for name in file.keys()}
        plan = tensor_plans({name: tuple(part.get_shape()) for name, part in slices.items()})
        text = {name: part for name, part in plan.items() if tower_of(name) == "text"}
        sources = [source for part in text.values() for source in part.sources]
        if any(slices[source].get_dtype() not in READABLE for source in sources):
            return None
        return {name: _array(name, part, file.get_tensor) for name, part in text.items()}


def _array(name: str, part: TensorPlan, read: Callable[[str], np.ndarray]) -> np.ndarray:
    array = np.concatenate([read(source) for source in part.sources])
    array = array.T if part.is_transposed else array
    return array if name == TABLE else array.astype(np.float32)


def _quick_gelu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-1.702 * x))


def _gelu(x: np.ndarray) -> np.ndarray:
    return x * (0.5 * (1 + np.vectorize(erf, otypes=[np.float32])(x / sqrt(2))))
