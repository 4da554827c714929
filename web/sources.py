"""The files of an image, opened only where they lie inside a registered folder at that moment."""

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from search.hits import places
from search.library import Library

from .problems import Problem

__all__ = ["Source", "open_source", "source_of"]

# O_NONBLOCK: what has become a FIFO must not hold a thread until somebody writes.
_FLAGS = os.O_RDONLY
for _name in ("O_NONBLOCK", "O_NOCTTY", "O_CLOEXEC", "O_BINARY"):
    _FLAGS |= getattr(os, _name, 0)


@dataclass(frozen=True, slots=True)
class Source:
    """An open file of an image."""

    file: BinaryIO
    path: str
    size: int
    mtime: float  # seconds since 1970


@contextlib.contextmanager
def open_source(library: Library, image_id: int) -> Iterator[Source]:
    """The source of an image for as long as it is needed. Raise as ``source_of`` does."""
    source = source_of(library, image_id)
    with source.file:
        yield source


def source_of(library: Library, image_id: int) -> Source:
    """Open the first file of an image that can be read; the caller closes it.

    Raise ``Problem``: 404 for an unknown image, 410 where none of its files can be read now.
    """
    found = places(library, [image_id]).get(image_id)
    if found is None:
        raise Problem(404, "Not Found", f"there is no image {image_id}")
    roots = [os.path.realpath(root.path) for root in library.roots()]
    for path in found.paths:
        source = _opened(path, roots)
        if source is not None:
            return source
    raise Problem(410, "Gone", "the file cannot be reached now, or lies outside its folder")


def _opened(path: str, roots: list[bytes]) -> Source | None:
    """Open first, then ask where what was opened lies: a path may change between two looks."""
    try:
        descriptor = os.open(path, _FLAGS)
    except OSError:
        return None
    try:
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode) and _lies_inside(path, status, roots):
            file = os.fdopen(descriptor, "rb")
            return Source(file, path, status.st_size, status.st_mtime)
    except OSError:
        pass
    os.close(descriptor)
    return None


def _lies_inside(path: str, opened: os.stat_result, roots: list[bytes]) -> bool:
    real = os.path.realpath(os.fsencode(path))
    now = os.stat(real, follow_symlinks=False)
    if (now.st_dev, now.st_ino) != (opened.st_dev, opened.st_ino):
        return False
    return any(os.path.commonpath([real, root]) == root for root in roots)
