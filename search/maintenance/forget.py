"""Forget a root for good: in the database, the indexes, the thumbnails and the maps."""

import contextlib
import logging
from collections.abc import Iterable
from pathlib import Path

from fovea.search.errors import LibraryError
from fovea.search.index.save import save_snapshot
from fovea.search.index.view import IndexOptions, load_view, snapshot_path
from fovea.search.library.library import Library
from fovea.search.library.locks import exclusive
from fovea.search.library.rows import ModelRow
from fovea.search.mapping.build import forget_in_maps

__all__ = ["THUMBNAILS", "forget_root", "forget_thumbnails", "thumbnail_path"]

log = logging.getLogger(__name__)

THUMBNAILS = "thumbnails"  # a folder beside the database
FREE = 0.1  # of the database: the share of free pages from which it is compacted


def forget_root(library: Library, root_id: int, wait_s: float | None = 0.0) -> int:
    """Remove a root and every trace of its images; return the number of files forgotten.

    Raise ``LibraryBusy``, before anything is removed, if another process is still indexing or
    saving an index after ``wait_s`` seconds.
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
        forget_in_maps(library)
        library.compact(FREE)
    return gone


def _forget_rows(library: Library, model: ModelRow) -> None:
    """Save a snapshot without its deleted rows, building no index; if that fails, delete it."""
    options, path = IndexOptions(), snapshot_path(library, model.id)
    view = load_view(library, model, options)
    if view.header is not None and len(view.stored) == len(view.stored.rows):
        return
    try:
        if not len(view):
            path.unlink(missing_ok=True)
            return
        save_snapshot(view, library, model, options, build=False)
    except LibraryError as exc:
        path.unlink(missing_ok=True)
        log.warning("the index is not saved: %s", exc)


# Thumbnails


def thumbnail_path(folder: Path, digest: bytes, kind: str) -> Path:
    """Return the path of an image's thumbnail; ``folder`` is that of all thumbnails."""
    name = digest.hex()
    return folder / name[:2] / f"{name}-{kind}.webp"


def forget_thumbnails(folder: Path, digests: Iterable[bytes]) -> None:
    """Delete the thumbnails and previews of some contents; ``folder`` is the library's."""
    for digest in digests:
        name = digest.hex()
        for path in (folder / THUMBNAILS / name[:2]).glob(f"{name}-*"):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


def _forget_thumbnails(library: Library) -> None:
    """Delete the thumbnails of images that are no longer in the library."""
    folder = library.folder / THUMBNAILS
    known = {digest for (digest,) in library.rows("SELECT hash FROM images")}
    for path in folder.glob("??/*-*") if folder.is_dir() else ():
        with contextlib.suppress(OSError, ValueError):
            if bytes.fromhex(path.name.partition("-")[0]) not in known:
                path.unlink(missing_ok=True)
