"""Find photographs by what is in them: search by words and pictures, on one machine, offline.

``fovea.Library`` indexes folders and answers queries; ``fovea.load_model`` loads a CLIP without a
library. Names are imported on first use, so ``import fovea`` is instant. docs/python-api.md
documents them all.
"""

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import Library
    from .indexer.analysing.accounts import AnalysisState
    from .indexer.analysing.analyse import AnalysisReport
    from .indexer.scanning.pipeline import Progress
    from .indexer.scanning.scan import ModelChanged, Problem, ScanReport
    from .indexer.scanning.verify import FileAccount, VerifyReport
    from .indexer.sidecars.exchange import SidecarReport
    from .indexer.switching.switch import SwitchProgress, SwitchReport
    from .indexer.workers.pool import WorkersError
    from .search.clip.zeroshot import class_embeddings, class_probabilities
    from .search.duplicates.groups import Duplicate, DuplicateGroup, Duplicates
    from .search.errors import (
        FoveaError,
        LibraryAway,
        LibraryBusy,
        LibraryDamaged,
        LibraryError,
        LibraryReadOnly,
        ModelDamaged,
        ModelError,
        ModelUnreachable,
        QueryError,
        Unanswerable,
    )
    from .search.library.rows import Counts
    from .search.maintenance.backup import BackupReport, RestoreReport
    from .search.maintenance.keepsakes import ImportReport
    from .search.maintenance.salvage import SalvageReport
    from .search.mapping.build import MapProgress
    from .search.mapping.clusters import Cluster
    from .search.mapping.stored import PictureMap
    from .search.models.better import Offer
    from .search.models.installed import available_models
    from .search.models.resolve import load_model
    from .search.overview.timeline import Month, Timeline
    from .search.query.empty import Hint
    from .search.query.hits import Answer, Hit
    from .search.query.known_places import KnownPlace
    from .search.query.saved import SavedSearch, SearchRefused
    from .search.suggesting.suggest import Suggestion
    from .search.tags.scoring import Suggestions
    from .search.tags.stored import Tag, TagRefused

__all__ = [
    "AnalysisReport",
    "AnalysisState",
    "Answer",
    "BackupReport",
    "Cluster",
    "Counts",
    "Duplicate",
    "DuplicateGroup",
    "Duplicates",
    "FileAccount",
    "FoveaError",
    "Hint",
    "Hit",
    "ImportReport",
    "KnownPlace",
    "Library",
    "LibraryAway",
    "LibraryBusy",
    "LibraryDamaged",
    "LibraryError",
    "LibraryReadOnly",
    "MapProgress",
    "ModelChanged",
    "ModelDamaged",
    "ModelError",
    "ModelUnreachable",
    "Month",
    "Offer",
    "PictureMap",
    "Problem",
    "Progress",
    "QueryError",
    "RestoreReport",
    "SalvageReport",
    "SavedSearch",
    "ScanReport",
    "SearchRefused",
    "SidecarReport",
    "Suggestion",
    "Suggestions",
    "SwitchProgress",
    "SwitchReport",
    "Tag",
    "TagRefused",
    "Timeline",
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
    "api": ("Library",),
    "indexer.analysing.accounts": ("AnalysisState",),
    "indexer.analysing.analyse": ("AnalysisReport",),
    "indexer.scanning.pipeline": ("Progress",),
    "indexer.scanning.scan": ("ModelChanged", "Problem", "ScanReport"),
    "indexer.scanning.verify": ("FileAccount", "VerifyReport"),
    "indexer.sidecars.exchange": ("SidecarReport",),
    "indexer.switching.switch": ("SwitchProgress", "SwitchReport"),
    "indexer.workers.pool": ("WorkersError",),
    "search.clip.zeroshot": ("class_embeddings", "class_probabilities"),
    "search.duplicates.groups": ("Duplicate", "DuplicateGroup", "Duplicates"),
    "search.errors": (
        "FoveaError",
        "LibraryAway",
        "LibraryBusy",
        "LibraryDamaged",
        "LibraryError",
        "LibraryReadOnly",
        "ModelDamaged",
        "ModelError",
        "ModelUnreachable",
        "QueryError",
        "Unanswerable",
    ),
    "search.library.rows": ("Counts",),
    "search.maintenance.backup": ("BackupReport", "RestoreReport"),
    "search.maintenance.keepsakes": ("ImportReport",),
    "search.maintenance.salvage": ("SalvageReport",),
    "search.mapping.build": ("MapProgress",),
    "search.mapping.clusters": ("Cluster",),
    "search.mapping.stored": ("PictureMap",),
    "search.models.better": ("Offer",),
    "search.models.installed": ("available_models",),
    "search.models.resolve": ("load_model",),
    "search.query.empty": ("Hint",),
    "search.query.hits": ("Answer", "Hit"),
    "search.query.known_places": ("KnownPlace",),
    "search.query.saved": ("SavedSearch", "SearchRefused"),
    "search.overview.timeline": ("Month", "Timeline"),
    "search.suggesting.suggest": ("Suggestion",),
    "search.tags.scoring": ("Suggestions",),
    "search.tags.stored": ("Tag", "TagRefused"),
}


# Whoever wants to see warnings adds a handler; without one, nothing is printed.
logging.getLogger(__name__).addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("fovea")
        except PackageNotFoundError:
            return "0+unknown"
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = next(home for home, names in _HOMES.items() if name in names)
    value = globals()[name] = getattr(import_module(f".{home}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
