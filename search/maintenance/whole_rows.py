"""Which rows of a damaged library are whole."""

import math
import os
from collections.abc import Callable
from typing import Any

__all__ = ["KEPT", "is_whole"]


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_path(value: object) -> bool:
    return isinstance(value, bytes) and os.path.isabs(os.fsdecode(value)) and b"\0" not in value


def _is_whole_number(value: object) -> bool:
    return isinstance(value, int)


def _is_optional(kind: type | tuple[type, ...]) -> Callable[[object], bool]:
    def fits(value: object) -> bool:
        finite = not isinstance(value, float) or math.isfinite(value)
        return value is None or (isinstance(value, kind) and finite)

    return fits


_number, _whole, _text = _is_optional((int, float)), _is_optional(int), _is_optional(str)

# Table -> column -> what its value must be; other columns are taken as they are.
KEPT: dict[str, dict[str, Callable[[object], bool]]] = {
    "roots": {"path": _is_path, "added_at": _is_text, "scanned_at": _text},
    "models": {
        "name": _is_text,
        "identity": lambda value: isinstance(value, str) and len(value) == 64,
        "dim": lambda value: isinstance(value, int) and 0 < value <= 65536,
        "source": _is_text,
    },
    "images": {
        "hash": lambda value: isinstance(value, bytes) and len(value) == 32,
        "bytes": _is_whole_number,
        **dict.fromkeys(("width", "height", "orientation", "iso"), _whole),
        **dict.fromkeys(("duration_ms", "poster_ms"), _whole),
        **dict.fromkeys(("format", "taken_at", "camera", "lens", "damaged", "dated_by"), _text),
        **dict.fromkeys(("exposure", "f_number", "focal_length", "altitude"), _number),
        **dict.fromkeys(("latitude", "longitude"), _number),
    },
    "files": {
        "path": _is_path,
        "root_id": _is_whole_number,
        "size": _is_whole_number,
        "mtime_ns": _is_whole_number,
        "image_id": _whole,
        "state": lambda value: value in ("indexed", "skipped", "failed", "missing"),
        "reason": _text,
        "ctime_ns": _whole,
    },
    "embeddings": {
        "image_id": _is_whole_number,
        "model_id": _is_whole_number,
        "vector": lambda value: isinstance(value, bytes),
    },
    "marks": {
        "hash": lambda value: isinstance(value, bytes) and len(value) == 32,
        "mark": lambda value: value in ("favourite", "hidden"),
        "marked_at": _is_text,
    },
    "searches": {
        **dict.fromkeys(("name", "folded", "query", "likes", "saved_at"), _is_text),
        "place": _is_whole_number,
    },
    "tags": {
        **dict.fromkeys(("name", "folded", "made_at"), _is_text),
        "prompts": _text,
    },
    "tag_examples": {
        "tag_id": _is_whole_number,
        "hash": lambda value: isinstance(value, bytes) and len(value) == 32,
        "is_so": lambda value: value in (0, 1),
        "is_answer": lambda value: value in (0, 1),
        "marked_at": _is_text,
    },
}


def is_whole(table: str, row: dict[str, Any]) -> bool:
    """Whether each column of a row is what it must be."""
    return all(fits(row[name]) for name, fits in KEPT[table].items() if name in row)
