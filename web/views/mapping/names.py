"""What the labels that ship with fovea are called in simplified Chinese."""

import json
from functools import cache
from pathlib import Path

__all__ = ["in_chinese"]

FILE = Path(__file__).parents[2] / "translations" / "labels" / "zh_Hans.json"


def in_chinese(label: str) -> str:
    """Return a label in simplified Chinese; as it is where that is not known."""
    return _known().get(label, label)


@cache
def _known() -> dict[str, str]:
    found: dict[str, str] = json.loads(FILE.read_text("utf-8"))
    return found
