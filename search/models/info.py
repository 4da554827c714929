"""A model on the disk: what is known of it before it is loaded. Nothing here imports torch."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fovea.search.clip.checkpoints.checkpoint import find_weights, read_config, weights_sha256
from fovea.search.clip.checkpoints.families import FamilyModel, check_usable, family_of
from fovea.search.clip.config import (
    PACKED_VOCABULARY,
    VOCABULARY_FILES,
    WORDPIECE_FILES,
    TokenizerKind,
)
from fovea.search.clip.engines.record import Kept
from fovea.search.clip.preprocess import Preprocess
from fovea.search.errors import ModelError

from .store import models_folder, read_notes, write_notes

if TYPE_CHECKING:
    from fovea.search.clip.encoders.base import TorchEncoder

__all__ = ["ModelInfo", "check_vocabulary", "describe_model"]

IDENTITIES = "identities.json"
ENGINES = "engines"  # a folder beside it
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
    tokenizer: TokenizerKind = "bpe"  # of a CLIP

    @property
    def kept(self) -> Kept:
        """Where what was measured of this model on this machine is kept."""
        return Kept(models_folder() / ENGINES, self.identity)

    def load(self, *, device: str = "auto", dtype: str = "auto") -> "TorchEncoder":
        """Load the encoder, as ``clip.encoders.load.load_encoder`` does. This imports torch."""
        from fovea.search.clip.encoders.load import load_encoder

        encoder = load_encoder(
            self.folder, name=self.name, device=device, dtype=dtype, kept=self.kept
        )
        encoder.identity = self.identity  # known already: no need to hash all weights again
        return encoder


def describe_model(place: Path, name: str, source: str) -> ModelInfo:
    """Describe a model's folder or weights file. Raise ``ModelError`` if it is not a CLIP."""
    try:
        family = family_of(place)
        tokenizer: TokenizerKind = "bpe"
        if family is None:
            config = read_config(place)
            tokenizer = config.text.tokenizer
            family = FamilyModel("clip", config.embed_dim, Preprocess.from_config(config))
        identity = _identity(find_weights(place))
    except OSError as exc:
        raise ModelError(f"cannot read {place}: {exc.strerror or exc}") from exc
    return ModelInfo(
        name, place, identity, family.dim, family.preprocess, source, family.kind, tokenizer
    )


def check_vocabulary(model: ModelInfo) -> ModelInfo:
    """Return the model; raise ``ModelError`` if it cannot read words, before the first search."""
    folder = model.folder if model.folder.is_dir() else model.folder.parent
    if model.family != "clip":
        check_usable(model.family, folder)
        return model
    names = VOCABULARY_FILES if model.tokenizer == "bpe" else WORDPIECE_FILES
    if not any((folder / name).is_file() for name in (*names, PACKED_VOCABULARY)):
        raise ModelError(f"{folder} has no vocabulary; put {' or '.join(names)} beside its weights")
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
