"""Thumbnails for a terminal, from the cache that the page uses too."""

import io
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from hashlib import sha256
from typing import TYPE_CHECKING

from fovea.indexer.decoding.formats import is_video
from fovea.indexer.decoding.limits import Gone, Refused
from fovea.indexer.decoding.reading import open_file, read_file
from fovea.indexer.workers.decode_pool import Crowded, Frame, Renderer
from fovea.search.clip.errors import FoveaError
from fovea.search.library.facts.stamps import stamps_of
from fovea.search.library.library import Library
from fovea.search.library.paths import printable_name
from fovea.search.maintenance.forget import THUMBNAILS, thumbnail_path
from fovea.search.seam.proof import may_be_shown
from fovea.web.jobs.changed_files import has_changed
from fovea.web.views.thumbnails import (
    SIZES,
    Content,
    ThumbnailCache,
    is_raw,
    marked,
    own_folder,
)

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Thumbnails", "digests"]

KIND = str(SIZES[0])


def digests(library: Library, image_ids: Iterable[int]) -> dict[int, bytes]:
    """Return the SHA-256 of images' contents; those that are gone are left out."""
    import json

    rows = library.rows(
        "SELECT id, hash FROM images WHERE id IN (SELECT value FROM json_each(?))",
        [json.dumps(list(image_ids))],
    )
    return {image_id: bytes(digest) for image_id, digest in rows}


class Thumbnails:
    """The thumbnails of a library's images; safe to use in threads. ``close`` ends its processes.

    They are made from originals where the cache lacks them, by processes that a hostile file may
    break.
    """

    def __init__(self, library: Library) -> None:
        self._renderer, self._folder = Renderer(), library.folder
        kept = library.folder / THUMBNAILS
        if library.is_writable:
            self._cache = ThumbnailCache(kept, self._renderer)
        else:
            self._cache = ThumbnailCache(own_folder(library.id), self._renderer, kept=kept)

    def close(self) -> None:
        """End the decoding processes."""
        self._renderer.close()

    def get(self, digest: bytes, paths: Sequence[str], time: float | None = None) -> "Image":
        """Return a thumbnail in RGB, 256 pixels of the short side; ``paths`` are its originals.

        ``time`` is the second of a moment of a video. Raise ``FoveaError`` with the reason if there
        is none.
        """
        at = None if time is None else round(1000 * time)
        try:
            return _opened(self._made(digest, paths, at))
        except OSError:  # what was kept is damaged: make it anew
            with suppress(OSError):
                thumbnail_path(self._cache.folder, digest, marked(KIND, at)).unlink()
        try:
            return _opened(self._made(digest, paths, at))
        except OSError as exc:
            raise FoveaError(f"the thumbnail is damaged: {exc}") from exc

    def _made(self, digest: bytes, paths: Sequence[str], at: int | None) -> bytes:
        try:
            return self._cache.get(digest, KIND, lambda: self._content(digest, paths, at), at)
        except (Refused, Crowded) as exc:
            raise FoveaError(str(exc)) from exc

    def _content(self, digest: bytes, paths: Sequence[str], at: int | None) -> Content:
        """Read the first original that still has the content, and tell whether it is RAW."""
        reason = "it is offline, or gone"
        for path in paths:
            try:
                if is_video(os.fsencode(path)):
                    return self._frame(digest, path, at), False
                data = read_file(os.fsencode(path), self._renderer.limits).data
            except Gone:
                continue
            except Refused as exc:
                reason = str(exc)
                continue
            if sha256(data).digest() == digest:
                return data, is_raw(path)
            reason = "the file has changed since; run fovea index"
        raise FoveaError(f"{printable_name(paths[0])}: {reason}")

    def _frame(self, digest: bytes, path: str, at: int | None) -> Frame:
        """Open a video for a frame; without a time, for that which stands for it.

        It is not read whole: its times must be those that were indexed. Raise as ``read_file``.
        """
        most = self._renderer.limits.video_bytes
        with Library.open(self._folder) as library, open_file(os.fsencode(path), most) as opened:
            if has_changed(library, path, stamps_of(os.fstat(opened.descriptor))):
                raise Refused("the file has changed since; run fovea index")
            if not may_be_shown(library, opened.descriptor, path, digest):
                raise Refused("the file has another content; run fovea index")
            if at is None:
                rows = library.rows("SELECT poster_ms FROM images WHERE hash = ?", (digest,))
                at = rows[0][0] if rows else None
            return Frame(os.fdopen(os.dup(opened.descriptor), "rb"), at or 0)


def _opened(data: bytes) -> "Image":
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.convert("RGB")
    except (UnidentifiedImageError, ValueError, SyntaxError, EOFError) as exc:
        raise OSError(str(exc)) from exc
