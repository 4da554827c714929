"""Thumbnails for a terminal, from the cache that the page uses too."""

import io
from collections.abc import Iterable, Sequence
from contextlib import suppress
from hashlib import sha256
from typing import TYPE_CHECKING

from fovea.indexer.decoding.limits import Gone, Refused
from fovea.indexer.decoding.reading import read_file
from fovea.indexer.workers.decode_pool import Crowded, Renderer
from fovea.search.clip.errors import FoveaError
from fovea.search.library.paths import printable_name
from fovea.search.maintenance.forget import THUMBNAILS, thumbnail_path
from fovea.web.views.thumbnails import SIZES, ThumbnailCache, is_raw, own_folder

if TYPE_CHECKING:
    from PIL.Image import Image

    from fovea.search.library.library import Library

__all__ = ["Thumbnails", "digests"]

KIND = str(SIZES[0])


def digests(library: "Library", image_ids: Iterable[int]) -> dict[int, bytes]:
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

    def __init__(self, library: "Library") -> None:
        self._renderer = Renderer()
        kept = library.folder / THUMBNAILS
        if library.is_writable:
            self._cache = ThumbnailCache(kept, self._renderer)
        else:
            self._cache = ThumbnailCache(own_folder(library.id), self._renderer, kept=kept)

    def close(self) -> None:
        """End the decoding processes."""
        self._renderer.close()

    def get(self, digest: bytes, paths: Sequence[str]) -> "Image":
        """Return a thumbnail in RGB, 256 pixels of the short side; ``paths`` are its originals.

        Raise ``FoveaError`` with the reason if there is none.
        """
        try:
            return _opened(self._made(digest, paths))
        except OSError:  # what was kept is damaged: make it anew
            with suppress(OSError):
                thumbnail_path(self._cache.folder, digest, KIND).unlink()
        try:
            return _opened(self._made(digest, paths))
        except OSError as exc:
            raise FoveaError(f"the thumbnail is damaged: {exc}") from exc

    def _made(self, digest: bytes, paths: Sequence[str]) -> bytes:
        try:
            return self._cache.get(digest, KIND, lambda: self._content(digest, paths))
        except (Refused, Crowded) as exc:
            raise FoveaError(str(exc)) from exc

    def _content(self, digest: bytes, paths: Sequence[str]) -> tuple[bytes, bool]:
        """Read the first original that still has the content, and tell whether it is RAW."""
        import os

        reason = "it is offline, or gone"
        for path in paths:
            try:
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


def _opened(data: bytes) -> "Image":
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.convert("RGB")
    except (UnidentifiedImageError, ValueError, SyntaxError, EOFError) as exc:
        raise OSError(str(exc)) from exc
