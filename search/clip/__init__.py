"""CLIP: towers, tokenizer, preprocessing, checkpoints, encoder and zero-shot classification.

Public names load on first use, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .checkpoint import convert, load_clip
    from .config import ClipConfig, TextConfig, VisionConfig
    from .encoder import Encoder, ImageTextEncoder, load_encoder
    from .errors import FoveaError, ModelError
    from .model import CLIP
    from .preprocess import Preprocess, to_rgb
    from .tokenizer import Tokenizer
    from .zeroshot import class_embeddings, class_probabilities

_HOMES = {
    "CLIP": "model",
    "ClipConfig": "config",
    "Encoder": "encoder",
    "FoveaError": "errors",
    "ImageTextEncoder": "encoder",
    "ModelError": "errors",
    "Preprocess": "preprocess",
    "TextConfig": "config",
    "Tokenizer": "tokenizer",
    "VisionConfig": "config",
    "class_embeddings": "zeroshot",
    "class_probabilities": "zeroshot",
    "convert": "checkpoint",
    "load_clip": "checkpoint",
    "load_encoder": "encoder",
    "to_rgb": "preprocess",
}

__all__ = [
    "CLIP",
    "ClipConfig",
    "Encoder",
    "FoveaError",
    "ImageTextEncoder",
    "ModelError",
    "Preprocess",
    "TextConfig",
    "Tokenizer",
    "VisionConfig",
    "class_embeddings",
    "class_probabilities",
    "convert",
    "load_clip",
    "load_encoder",
    "to_rgb",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
