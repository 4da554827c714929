"""Forget a root for good: in the database, in the indexes, and in what was made of its images."""

import contextlib
import logging
from pathlib import Path

from fovea.search.errors import LibraryError
from fovea.search.index.rebuild import write
from fovea.search.index.view import IndexOptions, load, snapshot_path
from fovea.search.library.library import Library
from fovea.search.library.locks import exclusive
from fovea.search.library.rows import ModelRow

__all__ = ["THUMBNAILS", "forget_root", "thumbnail_path"]

log = logging.getLogger(__name__)

THUMBNAILS = "thumbnails"  # a folder beside the database
FREE = 0.1  # of the database: so much free room is given back to the disk


def forget_root(library: Library, root_id: int, wait_s: float | None = 0.0) -> int:
    """Remove a root and what is left of its images on the disk; return how many files went.

    Raise ``LibraryBusy``, before anything is removed, if another process indexes, or saves an
    index, for more than ``wait_s`` seconds.
    """
    with contextlib.ExitStack() as locks:
        locks.enter_context(library.writing(wait_s))
        stored = [model for model in library.models() if snapshot_path(library, model.id).exists()]
        for model in stored:
            name, doing = f"index-{model.id}", "is saving the index of"
            locks.enter_context(exclusive(library.folder, name, wait_s, doing=doing))
        gone = library.remove_root(root_id)
        for model in stored:
            _forget_rows(library, model)
        _forget_thumbnails(library)
        library.compact(FREE)
    return gone


def _forget_rows(library: Library, model: ModelRow) -> None:
    """Write a snapshot anew that holds deleted rows, untrained; it can do without, too."""
    options, path = IndexOptions(), snapshot_path(library, model.id)
    state = load(library, model, options)
    if state.header is not None and len(state.stored) == len(state.stored.rows):
        return
    try:
        if not len(state):
            path.unlink(missing_ok=True)
            return
        write(state, library, model, options, train=False)
    except LibraryError as exc:
        path.unlink(missing_ok=True)
        log.warning("the index is not saved: %s", exc)


# Thumbnails


def thumbnail_path(folder: Path, digest: bytes, kind: str) -> Path:
    """Where a small picture of a content lies; ``folder`` is that of the thumbnails."""
    name = digest.hex()
    return folder / name[:2] / f"{name}-{kind}.webp"


def _forget_thumbnails(library: Library) -> None:
    """Delete what was made of contents that no file shows."""
    folder = library.folder / THUMBNAILS
    known = {digest for (digest,) in library.rows("SELECT hash FROM images")}
    for path in folder.glob("??/*-*") if folder.is_dir() else ():
        with contextlib.suppress(OSError, ValueError):
            if bytes.fromhex(path.name.partition("-")[0]) not in known:
                path.unlink(missing_ok=True)
