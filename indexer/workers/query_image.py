"""Decode pictures that somebody searches by: like indexed ones, but never stored."""

import os
from pathlib import Path
from types import TracebackType

import numpy as np

from fovea.indexer.decoding.limits import Limits
from fovea.search.clip.preprocess import Preprocess
from fovea.search.errors import LibraryError
from fovea.search.library.pictures import shown

from .pool import Pool, Task

__all__ = ["Asked"]


class Asked:
    """One worker process that decodes files by name, one after another.

    Use it as a context manager. The process is on its way at once, so that the caller may load a
    model meanwhile.
    """

    def __init__(self, preprocess: Preprocess, limits: Limits | None = None) -> None:
        self._pool = Pool(preprocess, limits or Limits(), workers=1, batch_size=1)
        self._pool.warm()

    def __enter__(self) -> "Asked":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.close()

    def pixels(self, file: Path) -> np.ndarray:
        """What a model sees of a picture, uint8 (size, size, 3); links are followed.

        Raise ``LibraryError`` with the reason for what cannot be decoded within the limits.
        """
        task = Task(os.path.realpath(os.fsencode(file)), 0)
        [outcome] = filter(None, self._pool.outcomes(iter([task])))
        if outcome.slot is None:
            reason = outcome.reason or "no such file"  # it was there a moment ago, or never
            raise LibraryError(f"cannot read {shown(file)}: {reason}")
        pixels: np.ndarray = self._pool.pixels[outcome.slot].copy()
        self._pool.release(outcome.slot)
        return pixels
