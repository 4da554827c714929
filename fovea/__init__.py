"""Find photographs by what is in them: search by words and pictures, on one machine, offline.

``fovea.Library`` indexes folders and answers queries; ``fovea.load_model`` loads a CLIP without a
library. Names are imported on first use, so ``import fovea`` is instant. docs/python-api.md
documents them all.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import Library
    from .indexer.scanning.pipeline import Progress
    from .indexer.scanning.scan import ModelChanged, ScanReport
    from .indexer.scanning.verify import VerifyReport
    from .indexer.switching.switch import SwitchProgress, SwitchReport
    from .indexer.workers.pool import WorkersError
    from .search.clip.zeroshot import class_embeddings, class_probabilities
    from .search.errors import (
        FoveaError,
        LibraryBusy,
        LibraryError,
        ModelError,
        ModelUnreachable,
        QueryError,
        Unanswerable,
    )
    from .search.models.installed import available_models
    from .search.models.resolve import load_model
    from .search.query.hits import Answer, Hit

__all__ = [
    "Answer",
    "FoveaError",
    "Hit",
    "Library",
    "LibraryBusy",
    "LibraryError",
    "ModelChanged",
    "ModelError",
    "ModelUnreachable",
    "Progress",
    "QueryError",
    "ScanReport",
    "SwitchProgress",
    "SwitchReport",
    "Unanswerable",
    "VerifyReport",
    "WorkersError",
    "__version__",
    "available_models",
    "class_embeddings",
    "class_probabilities",
    "load_model",
]

_HOMES = {
    "Answer": "search.query.hits",
    "FoveaError": "search.errors",
    "Hit": "search.query.hits",
    "Library": "api",
    "LibraryBusy": "search.errors",
    "LibraryError": "search.errors",
    "ModelChanged": "indexer.scanning.scan",
    "ModelError": "search.errors",
    "ModelUnreachable": "search.errors",
    "Progress": "indexer.scanning.pipeline",
    "QueryError": "search.errors",
    "ScanReport": "indexer.scanning.scan",
    "SwitchProgress": "indexer.switching.switch",
    "SwitchReport": "indexer.switching.switch",
    "Unanswerable": "search.errors",
    "VerifyReport": "indexer.scanning.verify",
    "WorkersError": "indexer.workers.pool",
    "available_models": "search.models.installed",
    "class_embeddings": "search.clip.zeroshot",
    "class_probabilities": "search.clip.zeroshot",
    "load_model": "search.models.resolve",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("fovea")
        except PackageNotFoundError:
            return "0+unknown"
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
