"""What passes between the parts: files to embed, orders of them, and what became of each."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any, Literal

import numpy as np

from fovea.indexer.decoding.formats import EXTENSIONS, VIDEO_EXTENSIONS
from fovea.indexer.decoding.limits import UNEXPECTED
from fovea.indexer.scanning.refusals import UNEMBEDDED, UNSTORED

__all__ = [
    "ID_BYTES",
    "NOT_THERE",
    "PICTURES",
    "RETRIED",
    "UNREACHED",
    "Files",
    "Item",
    "Order",
    "Result",
    "Shard",
    "escaped",
]

ID_BYTES = 16
PICTURES = EXTENSIONS - VIDEO_EXTENSIONS  # videos are left to ``fovea index``
UNREACHED = "unreadable: "  # how the reason begins where a disk, a network or a right is missing
NOT_THERE = f"{UNREACHED}not there"
RETRIED = (UNREACHED, UNEMBEDDED, UNSTORED, UNEXPECTED)  # as ``fovea index`` does

Where = Literal["file", "url", "shard"]


def escaped(text: str) -> str:
    """Return text as parquet takes it: bytes that are not UTF-8 as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


@dataclass(frozen=True, slots=True)
class Item:
    """A file to embed. ``name`` is its path, its URL, or its shard's name, a slash and its own.

    A name from a shard is never used as a path. ``data`` is the content where that was streamed;
    ``refusal`` says why it is not to be decoded.
    """

    name: bytes
    where: Where = "file"
    size: int = -1  # bytes; -1 where that is not known before it is read
    mtime_ns: int = 0
    ctime_ns: int | None = None
    shard: str = ""  # that it is from
    data: bytes | None = field(default=None, repr=False)
    refusal: str | None = None

    @property
    def id(self) -> bytes:
        """Return 16 bytes by which a later run knows it again: of its name, size and time."""
        stamps = f"\0{self.size}\0{self.mtime_ns}".encode()
        return blake2b(self.name + stamps, digest_size=ID_BYTES).digest()

    def bare(self) -> "Item":
        """Return it without its content."""
        return self if self.data is None else replace(self, data=None)


@dataclass(frozen=True, slots=True)
class Files:
    """Some files to embed, whose contents are still to be read."""

    items: Sequence[Item]


@dataclass(frozen=True, slots=True)
class Shard:
    """A tar to read from beginning to end, but for the members that are ``known``, by id."""

    url: str
    known: frozenset[bytes] = frozenset()


Order = Files | Shard


@dataclass(frozen=True, slots=True)
class Result:
    """What became of an item.

    ``embedded``: all fields are there; ``failed``: see ``reason``; ``gone``: disappeared before
    its turn. ``shard``: the item is a shard that was read; ``members`` is how many results it has
    had, ``reason`` why it could not be read to its end; only its size and time may be known.
    """

    item: Item
    state: Literal["embedded", "failed", "gone", "shard"]
    reason: str | None = None
    hash: bytes = b""  # SHA-256 of the content
    length: int = 0  # of the content, in bytes
    facts: dict[str, Any] = field(default_factory=dict)  # of ``ImageMetadata``
    vector: np.ndarray | None = None  # float32 (d,), unit length
    size: int = -1  # of the file and the times of its last changes, from before it was read
    mtime_ns: int = 0
    ctime_ns: int | None = None
    members: int = 0

    @property
    def id(self) -> bytes:
        """Return the item's id."""
        return self.item.id

    @property
    def is_settled(self) -> bool:
        """Whether a later run need not try again."""
        if self.state in ("failed", "shard"):
            return not (self.reason or "").startswith(RETRIED)
        return self.state == "embedded"
