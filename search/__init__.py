"""Find images by what is in them: the library, the index, and queries that become hits."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fovea.search.clip.encoder import Encoder, load_encoder

    from .errors import FoveaError, LibraryBusy, LibraryError, ModelError
    from .hits import Answer, Hit
    from .index import VectorIndex
    from .library import Library, default_library_folder
    from .models import ModelInfo, resolve_model
    from .neighbours import search, similar
    from .pictures import open_image

__all__ = [
    "Answer",
    "Encoder",
    "FoveaError",
    "Hit",
    "Library",
    "LibraryBusy",
    "LibraryError",
    "ModelError",
    "ModelInfo",
    "VectorIndex",
    "default_library_folder",
    "load_encoder",
    "open_image",
    "resolve_model",
    "search",
    "similar",
]

_MODULES = {
    "Answer": "hits",
    "Encoder": "clip.encoder",
    "FoveaError": "errors",
    "Hit": "hits",
    "Library": "library",
    "LibraryBusy": "errors",
    "LibraryError": "errors",
    "ModelError": "errors",
    "ModelInfo": "models",
    "VectorIndex": "index",
    "default_library_folder": "library",
    "load_encoder": "clip.encoder",
    "open_image": "pictures",
    "resolve_model": "models",
    "search": "neighbours",
    "similar": "neighbours",
}


def __getattr__(name: str) -> Any:
    """Import a public name's module on first use, so that importing the package costs nothing."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_MODULES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
