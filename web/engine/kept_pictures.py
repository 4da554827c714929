"""Pictures that were sent to search by, kept for a while so that an address can name them.

Only what later searches need is kept, in memory: the embedding and a small picture, by the SHA-256
of the bytes that were sent. Nobody can guess one who does not have the picture itself.
"""

import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

__all__ = ["KEPT_S", "PATTERN", "SHA256", "KeptPicture", "KeptPictures", "Named", "named_in"]

KEPT_S = 7 * 24 * 3600.0  # since it was last used
MOST = 512
MOST_BYTES = 32 << 20
SHA256 = r"[0-9a-f]{64}"
NAMED = rf"-?(?:[0-9]{{1,2}}(?:\.[0-9]{{1,6}})?:)?{SHA256}"
MOST_NAMED = 8
PATTERN = rf"{NAMED}(?:,{NAMED}){{0,{MOST_NAMED - 1}}}"  # pictures in an address


@dataclass(frozen=True, slots=True)
class KeptPicture:
    """What is kept of a picture."""

    sha256: str
    model: str  # the identity of the model that has embedded it
    vector: np.ndarray  # float32 (d,), unit length
    small: bytes  # WebP; empty if it could not be made

    @property
    def size(self) -> int:
        """Its size in bytes, about."""
        return self.vector.nbytes + len(self.small)


@dataclass(frozen=True, slots=True)
class Named:
    """A picture as an address names it."""

    sha256: str
    weight: float


def named_in(text: str) -> list[Named]:
    """Read the pictures in an address, such as ``HASH,-2:HASH``; it must match ``PATTERN``."""
    found = []
    for part in text.split(",") if text else []:
        match = re.fullmatch(r"(-?)(?:([0-9.]+):)?(.+)", part)
        assert match
        weight = float(match[2] or 1)
        found.append(Named(match[3], -weight if match[1] else weight))
    return found


class KeptPictures:
    """The pictures used last, at most ``MOST`` and ``MOST_BYTES``. Thread-safe."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._kept: OrderedDict[str, tuple[float, KeptPicture]] = OrderedDict()  # oldest first
        self._lock = threading.Lock()

    def keep(self, picture: KeptPicture) -> None:
        """Keep a picture, and forget those that have not been used for longest."""
        with self._lock:
            self._kept[picture.sha256] = self._now(), picture
            self._kept.move_to_end(picture.sha256)
            self._forget()

    def get(self, sha256: str) -> KeptPicture | None:
        """Return a picture, which is kept longer then; None if it is not kept."""
        with self._lock:
            self._forget()
            found = self._kept.get(sha256)
            if found is None:
                return None
            self._kept[sha256] = self._now(), found[1]
            self._kept.move_to_end(sha256)
            return found[1]

    def _forget(self) -> None:
        early = self._now() - KEPT_S
        size = sum(picture.size for _, picture in self._kept.values())
        while self._kept:
            used, picture = next(iter(self._kept.values()))
            if used > early and len(self._kept) <= MOST and size <= MOST_BYTES:
                return
            del self._kept[picture.sha256]
            size -= picture.size
