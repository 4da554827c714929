"""The folder that models are kept in, and the notes beside them."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fovea.search.clip.disk import FULL, room_advice
from fovea.search.clip.user_path import user_path
from fovea.search.errors import ModelError

__all__ = ["models_folder", "new_folder", "read_notes", "write_notes"]


def models_folder() -> Path:
    """Return ``FOVEA_MODELS``, else where this platform keeps a user's data."""
    if named := os.environ.get("FOVEA_MODELS"):
        return user_path(named)
    from platformdirs import user_data_path

    return user_data_path("fovea", appauthor=False) / "models"


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Fill a folder whole or not at all: yield a temporary one, which replaces it at the end.

    Raise ``ModelError`` if the disk fails.
    """
    unfinished = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        yield unfinished
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(unfinished, folder)
    except OSError as exc:
        advice = f"{exc.strerror or exc}; check the disk and its permissions"
        if exc.errno in FULL:
            advice = room_advice(folder.parent, exc)
        raise ModelError(f"cannot write {folder}: {advice}") from exc
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def read_notes(name: str) -> dict[str, Any]:
    """Read a JSON file of the folder; empty where it is missing or damaged, since it can be."""
    try:
        notes = json.loads((models_folder() / name).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return notes if isinstance(notes, dict) else {}


def write_notes(name: str, notes: dict[str, Any]) -> None:
    """Replace a JSON file of the folder whole, where the disk allows it."""
    path = models_folder() / name
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(notes, indent=1), encoding="utf-8")
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
