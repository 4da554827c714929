"""Find images by what is in them: the library, the index, and queries that become hits."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .errors import FoveaError, LibraryBusy, LibraryError, ModelError
    from .library import Library, default_library_folder

__all__ = [
    "FoveaError",
    "Library",
    "LibraryBusy",
    "LibraryError",
    "ModelError",
    "default_library_folder",
]

_MODULES = {
    "FoveaError": "errors",
    "Library": "library",
    "LibraryBusy": "errors",
    "LibraryError": "errors",
    "ModelError": "errors",
    "default_library_folder": "library",
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
