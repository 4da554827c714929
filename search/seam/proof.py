"""Whether a file has the content that a library says it has, where others write that library.

The rows of a library in a folder are this machine's own. Those of a library on Milvus come from a
server that more people may write to than may read this machine's files: whoever named a file there
would get it. So its content must be the picture's, whose SHA-256 nobody can name who lacks it.
"""

import os
import threading
import time
from collections import OrderedDict
from hashlib import sha256

from fovea.search.clip.formats import FORMATS
from fovea.search.library.library import Library
from fovea.search.library.paths import DESK

__all__ = ["is_shared", "may_be_shown"]

MOST = 100_000  # files whose content is remembered
STEP = 1 << 20  # bytes read at a time
SETTLED_NS = 2_000_000_000  # after a change, from which on another one changes the times, too
SUFFIXES = tuple(suffix for entry in FORMATS for suffix in entry.suffixes)


class _Content:
    """The SHA-256 of a file, once it is known; who wants it waits for the one who reads it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.digest: bytes | None = None


_known: OrderedDict[tuple[object, ...], _Content] = OrderedDict()
_turn = threading.Lock()


def is_shared(library: Library) -> bool:
    """Whether a library's rows are those of a library on Milvus."""
    return bool(library.rows("SELECT 1 FROM library WHERE key = ?", (DESK,)))


def may_be_shown(library: Library, descriptor: int, path: str, digest: bytes) -> bool:
    """Whether an open file may be shown as the picture whose content has this SHA-256.

    In a library in a folder, every file may. Of one on Milvus, a picture or video by its name, read
    whole unless it was before; the file is at its beginning afterwards. Raise ``OSError`` where it
    cannot be read.
    """
    if not is_shared(library):
        return True
    return path.lower().endswith(SUFFIXES) and _digest(descriptor, path) == digest


def _digest(descriptor: int, path: str) -> bytes:
    """Return the SHA-256 of an open file, remembered for as long as its times stay the same."""
    key = path, *_state(descriptor)
    with _turn:
        content = _known.setdefault(key, _Content())
        _known.move_to_end(key)
        while len(_known) > MOST:
            _known.popitem(last=False)
    with content.lock:
        if content.digest is not None:
            return content.digest
        found = _read(descriptor)
        *_, modified, changed = state = _state(descriptor)
        if (path, *state) == key and time.time_ns() - max(modified, changed) > SETTLED_NS:
            content.digest = found
        return found


def _state(descriptor: int) -> tuple[int, ...]:
    status = os.fstat(descriptor)
    times = status.st_mtime_ns, status.st_ctime_ns
    return status.st_dev, status.st_ino, status.st_size, *times


def _read(descriptor: int) -> bytes:
    digest = sha256()
    os.lseek(descriptor, 0, os.SEEK_SET)
    while part := os.read(descriptor, STEP):
        digest.update(part)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return digest.digest()
