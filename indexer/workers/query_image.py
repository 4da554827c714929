"""Read the pictures that a query names: under the limits of indexing, and never stored."""

import errno
import os
from pathlib import Path

import numpy as np

from fovea.indexer.decoding.formats import is_video
from fovea.indexer.decoding.limits import Gone, Limits, Refused
from fovea.indexer.decoding.reading import open_file
from fovea.search.clip.preprocess import Preprocess
from fovea.search.clip.user_path import check_path
from fovea.search.errors import LibraryError
from fovea.search.library.paths import printable_name

from .pool import Pool, Task

__all__ = ["QueryImageDecoder", "content_hash"]


def content_hash(file: Path | str, limits: Limits | None = None) -> bytes:
    """Return the SHA-256 of a file's bytes, by which the library knows its content.

    Links are followed. Raise ``LibraryError`` with the reason for what is not a regular file, is
    too large, or cannot be read.
    """
    limits = limits or Limits()
    path = _resolved(file)
    try:
        with open_file(path, limits.video_bytes if is_video(path) else limits.file_bytes) as opened:
            return opened.hash()
    except (Refused, Gone) as exc:
        raise _unreadable(file, str(exc)) from exc


class QueryImageDecoder:
    """One worker process that decodes files by name, one after another.

    Use it as a context manager. The process is started at once, so that the caller may load a
    model meanwhile.
    """

    def __init__(self, preprocess: Preprocess, limits: Limits | None = None) -> None:
        self._pool = Pool(preprocess, limits or Limits(), workers=1, batch_size=1)
        self._pool.warm()

    def __enter__(self) -> "QueryImageDecoder":
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.close()

    def pixels(self, file: Path | str, at_ms: int | None = None) -> np.ndarray:
        """Return what a model sees of a picture, uint8 (size, size, 3); links are followed.

        Of a video, it is the frame at a time, or without one its poster. Raise ``LibraryError``
        with the reason for what cannot be decoded within the limits.
        """
        path = _resolved(file)
        if at_ms is not None and not is_video(path):
            raise _unreadable(file, "only a video has a time")
        size = os.path.getsize(path) if os.path.exists(path) else 0
        task = Task(path, 0, size, at=at_ms)
        [outcome] = filter(None, self._pool.outcomes(iter([task])))
        if outcome.slot is None:
            raise _unreadable(file, outcome.reason or os.strerror(errno.ENOENT))
        pixels: np.ndarray = self._pool.pixels[outcome.slot].copy()
        self._pool.release(outcome.slot)
        return pixels


def _resolved(file: Path | str) -> bytes:
    return os.path.realpath(os.fsencode(check_path(file)))


def _unreadable(file: Path | str, reason: str) -> LibraryError:
    return LibraryError(f"cannot read {printable_name(file)}: {reason}")
