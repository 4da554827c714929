"""Open the files of images, only inside the library's folders and never through links.

Of a library on Milvus, only files that have their picture's content; see ``search.seam.proof``.
"""

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import BinaryIO

from fovea.search.library.facts.stamps import Stamps, moment, stamps_of
from fovea.search.library.library import Library
from fovea.search.library.marks import contents
from fovea.search.query.hits import places
from fovea.search.seam.proof import is_shared, may_be_shown
from fovea.web.contract.problems import Problem

__all__ = ["Source", "open_source", "source_of", "sources_of"]

# O_NONBLOCK: opening a file that has become a FIFO must not block a thread. O_NOFOLLOW: the walk
# follows no links, so a path through one is not what was indexed. O_PATH: a folder may be entered
# without being listed.


def _flags(*names: str) -> int:
    flags = os.O_RDONLY
    for name in names:
        flags |= getattr(os, name, 0)
    return flags


_FILE = _flags("O_NOFOLLOW", "O_NONBLOCK", "O_NOCTTY", "O_CLOEXEC")
_FOLDER = _flags("O_NOFOLLOW", "O_DIRECTORY", "O_PATH", "O_CLOEXEC")


@dataclass(frozen=True, slots=True)
class Source:
    """An open file of an image."""

    file: BinaryIO
    path: str
    stamps: Stamps

    @property
    def size(self) -> int:
        """Its size in bytes when it was opened."""
        return self.stamps.size

    @property
    def mtime(self) -> float:
        """When it was modified last, in seconds since 1970."""
        return self.stamps.mtime_ns / 1e9

    @property
    def modified(self) -> datetime | None:
        """When it was modified last, for HTTP: None for what cannot be, as in the future.

        RFC 9110, section 8.8.2.1: no later than the answer itself.
        """
        found = moment(self.stamps.mtime_ns)
        return found if found is not None and found <= datetime.now(UTC) else None


@contextlib.contextmanager
def open_source(library: Library, image_id: int) -> Iterator[Source]:
    """Open the source of an image and close it afterwards. Raise as ``source_of`` does."""
    source = source_of(library, image_id)
    with source.file:
        yield source


def source_of(library: Library, image_id: int) -> Source:
    """Open the first file of an image that can be read; the caller closes it.

    Raise ``Problem``: 404 for an unknown image, 410 where none of its files can be read now.
    """
    return next(sources_of(library, image_id))


def sources_of(library: Library, image_id: int) -> Iterator[Source]:
    """Yield the files of an image that can be read; the caller closes each.

    Raise as ``source_of`` does.
    """
    found = places(library, [image_id]).get(image_id)
    if found is None:
        raise Problem(404, "Not Found", f"there is no image {image_id}")
    roots = tuple(os.path.join(root.path, b"") for root in library.roots())
    digest = contents(library, [image_id]).get(image_id, b"")
    is_there = False
    for path in found.paths:
        source = _opened(path, roots)
        if source is not None and _is_shown(library, source, digest):
            is_there = True
            yield source
    if is_there:
        return
    detail = "the file is missing, offline or outside the library's folders; rescan its folder"
    if is_shared(library):  # the same for all files, so that nobody learns which there are
        detail = "the file is missing, offline or has changed; run fovea index for its folder"
    raise Problem(410, "Gone", detail)


def _is_shown(library: Library, source: Source, digest: bytes) -> bool:
    """Whether an open file may be shown as a picture; it is closed otherwise."""
    is_shown = False
    try:
        is_shown = may_be_shown(library, source.file.fileno(), source.path, digest)
    except OSError:  # for example of a disk that fails: as if it was not there
        pass
    finally:
        if not is_shown:
            source.file.close()
    return is_shown


def _opened(path: str, roots: tuple[bytes, ...]) -> Source | None:
    """Open a file below one of the roots; None if there is no regular file."""
    whole = os.fsencode(path)
    if not whole.startswith(roots):
        return None
    try:
        descriptor = _descriptor(whole)
    except (OSError, ValueError):  # ValueError: there is a null in the path
        return None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        return None
    return Source(os.fdopen(descriptor, "rb"), path, stamps_of(status))


def _descriptor(path: bytes) -> int:
    """Open an absolute path without following links anywhere along it.

    Each folder is opened relative to its parent's descriptor, so swapping one for a link meanwhile
    gains nothing. Raise ``OSError`` for a link or a missing part.
    """
    *folders, name = path.split(b"/")[1:]
    here = os.open(b"/", _FOLDER)
    try:
        for folder in folders:
            inner = os.open(folder, _FOLDER, dir_fd=here)
            os.close(here)
            here = inner
        return os.open(name, _FILE, dir_fd=here)
    finally:
        os.close(here)
