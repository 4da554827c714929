"""The way in: walk folders, notice what changed, decode, embed and write the library."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .audit import FileState, VerifyReport, verify
    from .finetuning import Tuned, finetune_library
    from .limits import Limits
    from .material import Wanted
    from .pipeline import Progress
    from .scan import ModelChanged, ScanReport, index_folders
    from .switching import SwitchProgress, SwitchReport, switch_model

__all__ = [
    "FileState",
    "Limits",
    "ModelChanged",
    "Progress",
    "ScanReport",
    "SwitchProgress",
    "SwitchReport",
    "Tuned",
    "VerifyReport",
    "Wanted",
    "finetune_library",
    "index_folders",
    "switch_model",
    "verify",
]

_HOMES = {
    "FileState": "audit",
    "Limits": "limits",
    "ModelChanged": "scan",
    "Progress": "pipeline",
    "ScanReport": "scan",
    "SwitchProgress": "switching",
    "SwitchReport": "switching",
    "Tuned": "finetuning",
    "VerifyReport": "audit",
    "Wanted": "material",
    "finetune_library": "finetuning",
    "index_folders": "scan",
    "switch_model": "switching",
    "verify": "audit",
}


def __getattr__(name: str) -> Any:
    # Lazily: workers import this package for every start and need none of it.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
