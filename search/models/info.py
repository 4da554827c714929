"""A model on the disk: what is known of it before it is loaded. Nothing here imports torch."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fovea.search.clip.checkpoints.checkpoint import find_weights, read_config, weights_sha256
from fovea.search.clip.checkpoints.families import FamilyModel, check_usable, family_of
from fovea.search.clip.preprocess import Preprocess
from fovea.search.errors import ModelError

from .store import read_notes, write_notes

if TYPE_CHECKING:
    from PIL.Image import Image

    from fovea.search.clip.encoders.base import TorchEncoder
    from fovea.search.clip.encoders.numpy_text import NumpyTextEncoder

__all__ = ["VOCABULARIES", "LazyEncoder", "ModelInfo", "check_vocabulary", "describe_model"]

VOCABULARIES = ("bpe_simple_vocab_16e6.txt.gz", "bpe.txt.gz", "merges.txt")  # of a CLIP
IDENTITIES = "identities.json"
JUST_WRITTEN_S = 2.0  # a file this young may change again and keep its time


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model on the disk: what indexing and searching need to know before it is loaded."""

    name: str
    folder: Path  # or its weights file
    identity: str  # the weights' SHA-256, hex
    dim: int
    preprocess: Preprocess
    source: str  # "bundled", "published", "hub", "address", or the absolute path of the user's own
    family: str = "clip"  # or the model_type by which transformers knows it

    def load(self, *, device: str = "auto", dtype: str = "auto") -> "TorchEncoder":
        """Load the encoder, as ``clip.encoders.load.load_encoder`` does. This imports torch."""
        from fovea.search.clip.encoders.load import load_encoder

        encoder = load_encoder(self.folder, name=self.name, device=device, dtype=dtype)
        encoder.identity = self.identity  # known already: no need to hash all weights again
        return encoder


class LazyEncoder:
    """An encoder that imports torch only when it must: for pictures, or on a device asked for.

    Texts alone go through the text tower in NumPy, which answers before torch is imported.
    """

    def __init__(self, model: ModelInfo, *, device: str = "auto", dtype: str = "auto") -> None:
        self.name, self.identity, self.dim = model.name, model.identity, model.dim
        self.preprocess = model.preprocess
        self._model, self._device, self._dtype = model, device, dtype

    def load(self) -> "TorchEncoder":
        """Return the encoder itself. Imports torch."""
        return self._encoder

    def encode_images(self, images: Sequence["Image"]) -> np.ndarray:
        """Embed decoded pictures as float32 unit rows (n, d)."""
        return self._encoder.encode_images(images)

    def encode_pixels(self, pixels: np.ndarray) -> np.ndarray:
        """Embed uint8 (n, s, s, 3) as float32 unit rows (n, d)."""
        return self._encoder.encode_pixels(pixels)

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Embed texts as float32 unit rows (n, d)."""
        words = None if "_encoder" in self.__dict__ else self._words
        return (words or self._encoder).encode_texts(texts)

    @cached_property
    def _encoder(self) -> "TorchEncoder":
        return self._model.load(device=self._device, dtype=self._dtype)

    @cached_property
    def _words(self) -> "NumpyTextEncoder | None":
        if self._device not in ("auto", "cpu") or self._dtype not in ("auto", "float32"):
            return None
        from fovea.search.clip.encoders.numpy_text import NumpyTextEncoder

        return NumpyTextEncoder.open(self._model.folder)


def describe_model(place: Path, name: str, source: str) -> ModelInfo:
    """Describe a model's folder or weights file. Raise ``ModelError`` if it is not a CLIP."""
    try:
        family = family_of(place)
        if family is None:
            config = read_config(place)
            family = FamilyModel("clip", config.embed_dim, Preprocess.from_config(config))
        identity = _identity(find_weights(place))
    except OSError as exc:
        raise ModelError(f"cannot read {place}: {exc.strerror or exc}") from exc
    return ModelInfo(name, place, identity, family.dim, family.preprocess, source, family.kind)


def check_vocabulary(model: ModelInfo) -> ModelInfo:
    """Return the model; raise ``ModelError`` if it cannot read words, before the first search."""
    folder = model.folder if model.folder.is_dir() else model.folder.parent
    if model.family != "clip":
        check_usable(model.family, folder)
    elif not any((folder / name).is_file() for name in (*VOCABULARIES, "tokenizer.json")):
        raise ModelError(
            f"{folder} has no vocabulary; put {' or '.join(VOCABULARIES)} beside its weights"
        )
    return model


def _identity(weights: Path) -> str:
    """Return the weights' SHA-256, which takes up to a second, remembered until they change."""
    if weights.name.endswith(".index.json"):
        return weights_sha256(weights)  # several files: not worth remembering
    status = weights.stat()
    mark, key = [status.st_size, status.st_mtime_ns], str(weights.resolve())
    known = read_notes(IDENTITIES)
    entry = known.get(key)
    if isinstance(entry, list) and entry[:2] == mark and len(entry) == 3:
        return str(entry[2])
    identity = weights_sha256(weights)
    if time.time_ns() - status.st_mtime_ns > JUST_WRITTEN_S * 1e9:
        write_notes(IDENTITIES, {**known, key: [*mark, identity]})
    return identity
