"""Texts without torch, so that a query in a terminal need not wait for it.

NumPy computes a dozen tokens in milliseconds, while importing torch takes a second or more. The
result equals that of ``towers.text_tower`` in float32 up to rounding.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from fovea.search.clip.checkpoints.checkpoint import Checkpoint, find_weights
from fovea.search.clip.checkpoints.dialects import TensorPlan, tensor_plans
from fovea.search.clip.checkpoints.families import family_of
from fovea.search.clip.checkpoints.int8 import SCALE, check_pair, dequantise
from fovea.search.clip.checkpoints.shapes import tower_of
from fovea.search.clip.checkpoints.stored_tensors import open_tensors
from fovea.search.clip.config import ClipConfig
from fovea.search.clip.protocols import TextTokenizer
from fovea.search.clip.tokenizer import open_tokenizer

from .numpy_towers import BERT_TABLE, TABLE, NumpyTower, TokenTable, text_tower

__all__ = ["NumpyTextEncoder"]

READABLE = ("F16", "F32", "F64")  # safetensors' names of the types that NumPy has
INT8 = "I8"
POSITIONS = 256  # in one pass, or a few more; with more, the activations leave the caches

Read = Callable[[str], np.ndarray]


class NumpyTextEncoder:
    """Embeds texts by NumPy alone."""

    def __init__(self, config: ClipConfig, tower: NumpyTower, tokenizer: TextTokenizer) -> None:
        self.config, self._tower, self._tokenizer = config, tower, tokenizer

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
        tower = _read_tower(weights, config)
        if tower is None:
            return None
        text = config.text
        tokenizer = open_tokenizer(weights.parent, text.tokenizer, text.vocab_size)
        return cls(config, tower, tokenizer)

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Embed texts as float32 unit rows (n, d); longer ones are cut at the context length."""
        tokens = self._tokenizer.tokenize(texts, self.config.text.context_length)
        lengths = self._tokenizer.lengths(tokens)
        ids = [row[:end] for row, end in zip(tokens, lengths, strict=True)]
        passes = np.cumsum(lengths) // POSITIONS
        starts = [0, *(np.flatnonzero(np.diff(passes)) + 1), len(ids)]
        rows = [self._tower.embed(ids[a:b]) for a, b in pairwise(starts) if a < b]
        if not rows:
            return np.empty((0, self.config.embed_dim), np.float32)
        out = np.concatenate(rows)
        return out / np.linalg.norm(out, axis=1, keepdims=True)


def _read_tower(path: Path, config: ClipConfig) -> NumpyTower | None:
    """Read the text tower's tensors; return None if one has a type that NumPy lacks."""
    with open_tensors(path) as file:
        found = file.found
        plan = tensor_plans({name: stored.shape for name, stored in found.items()})
        text = {name: part for name, part in plan.items() if tower_of(name) == "text"}
        for part in text.values():
            readable = (*READABLE, INT8) if part.scales else READABLE
            if any(found[name].dtype not in readable for name in part.stored):
                return None
        table = _table(path, text.pop(BERT_TABLE if BERT_TABLE in text else TABLE), file.array)
        state = {name: _array(path, part, file.array) for name, part in text.items()}
    return text_tower(config, state, table)


def _table(path: Path, part: TensorPlan, read: Read) -> TokenTable:
    [source] = part.sources
    return TokenTable(*_pair(path, source, read)) if part.scales else TokenTable(read(source))


def _array(path: Path, part: TensorPlan, read: Read) -> np.ndarray:
    """Read a tensor as float32."""
    parts = [
        dequantise(*_pair(path, source, read)) if source + SCALE in part.scales else read(source)
        for source in part.sources
    ]
    array = np.concatenate(parts) if len(parts) > 1 else parts[0]
    return (array.T if part.is_transposed else array).astype(np.float32, copy=False)


def _pair(path: Path, name: str, read: Read) -> tuple[np.ndarray, np.ndarray]:
    """Read a matrix stored as int8 and its scales."""
    values, scale = read(name), read(name + SCALE)
    check_pair(path, name, (str(values.dtype), str(scale.dtype)), scale)
    return values, scale
