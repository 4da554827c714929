"""The state of the server and of the library."""

import os
import threading
from typing import Any

from flask import Blueprint, current_app

from fovea.indexer.decoding.formats import (
    EXTENSIONS,
    RAW_EXTENSIONS,
    VIDEO_EXTENSIONS,
    raw_available,
    video_available,
)
from fovea.search.library.files import UNUSUAL
from fovea.search.library.paths import path_fields
from fovea.search.models.installed import better_bundled
from fovea.search.seam.asking import Index
from fovea.web.contract.describe import Choice, Number, Text, describe
from fovea.web.contract.openapi import program_version
from fovea.web.engine.engine import current_engine
from fovea.web.jobs.scans import scans

from .originals import shows_folders

blueprint = Blueprint("status", __name__)

AFTER = Text("cursor", "The cursor of the previous page.", 20, r"[0-9]{1,18}")
LIMIT = Number("limit", "Maximum number of files.", default=200, minimum=1, maximum=1000)
STATE = Choice(
    "state", "Failed files, ignored (skipped) ones, or all.", ("all", "failed", "skipped"), "all"
)


@blueprint.get("/health")
@describe("Check that the server runs", {200: "Health"}, tag="Library")
def health() -> dict[str, str]:
    """Answer without touching the library."""
    return {"status": "ok"}


@blueprint.get("/api/status")
@describe("Describe the library", {200: "Status"}, tag="Library", problems=(503,))
def status() -> dict[str, Any]:
    """Return its size, its model and index, and the formats that can be indexed.

    Then what is known of its pictures, as `fovea status --json` has it; in a large library that is
    being changed, these counts are some seconds old.
    """
    engine = current_engine()
    counts, model, index = engine.counts(), engine.model(), engine.index()
    return {
        "version": program_version(),
        "read_only": not engine.is_writable,
        "show_in_folder": shows_folders(),
        "watching": _is_watching(),
        "model": model.name if model else None,
        "better_bundled": better_bundled(model),
        "images": counts.images,
        "embeddings": counts.embeddings,
        "files": counts.files,
        "index": None if index is None else _index_fields(index),
        "roots": len(engine.library.roots()),
        "formats": _formats(),
        "analysing": scans().is_analysing,
        **engine.accounts.now().fields(),
    }


def _is_watching() -> bool:
    watching: threading.Event | None = current_app.extensions.get("fovea.watching")
    return watching is not None and watching.is_set()


def _index_fields(index: Index) -> dict[str, Any]:
    return {"kind": index.kind, "embeddings": len(index), "recall": round(index.recall, 4)}


def _formats() -> list[str]:
    """List the extensions that are indexed, without their dots."""
    there = EXTENSIONS if raw_available() else EXTENSIONS - RAW_EXTENSIONS
    there = there if video_available() else there - VIDEO_EXTENSIONS
    return sorted(name[1:].decode() for name in there)


@blueprint.get("/api/failures")
@describe(
    "List files that are not indexed",
    {200: "Failures"},
    tag="Library",
    parameters=(STATE, AFTER, LIMIT),
    problems=(503,),
)
def failures() -> dict[str, Any]:
    """Return files that failed or are ignored, each with the reason."""
    state, after, limit = STATE.read(), int(AFTER.read() or 0), LIMIT.read()
    states = ("failed", "skipped") if state == "all" else (state, state)
    rows = current_engine().library.rows(
        f"SELECT id, path, reason, state FROM files WHERE {UNUSUAL} "
        "AND state IN (?, ?) AND id > ? ORDER BY id LIMIT ?",
        (*states, after, limit + 1),
    )
    shown = rows[:limit]
    return {
        "failures": [
            {**path_fields(os.fsdecode(path)), "reason": reason, "state": state}
            for _, path, reason, state in shown
        ],
        "cursor": str(shown[-1][0]) if len(rows) > limit else None,
    }
