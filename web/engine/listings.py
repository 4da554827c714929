"""Answers that are read page by page: kept for a while, so that a cursor leads on where it was."""

import re
import secrets
import threading
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

from fovea.search.query.run import Listing

__all__ = ["CURSOR_PATTERN", "Cursor", "Kept", "Listings", "new_id"]

CURSOR_PATTERN = r"[0-9a-f]{16}-[0-9]{1,9}"


@dataclass(frozen=True, slots=True)
class Kept:
    """A listing that cursors lead on in."""

    id: str
    key: Hashable  # the question, the model and the state of the library
    listing: Listing
    model_id: int | None  # whose ranking it is; no other one can lead further
    pages: dict[Hashable, list[dict[str, Any]]] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in a listing."""

    listing_id: str
    offset: int

    @classmethod
    def read(cls, text: str) -> "Cursor":
        """Read what ``str`` has written; the text fits ``CURSOR_PATTERN``."""
        assert re.fullmatch(CURSOR_PATTERN, text)
        listing_id, offset = text.split("-")
        return cls(listing_id, int(offset))

    def __str__(self) -> str:
        return f"{self.listing_id}-{self.offset}"


class Listings:
    """The listings that were asked for lately, by question and by id; safe to use in threads."""

    def __init__(self, most: int = 128) -> None:
        self._most = most
        self._by_id: OrderedDict[str, Kept] = OrderedDict()
        self._ids: dict[Hashable, str] = {}
        self._lock = threading.Lock()

    def by_key(self, key: Hashable) -> Kept | None:
        """The listing that answers this question as the library is now."""
        with self._lock:
            return self._touched(self._ids.get(key, ""))

    def by_id(self, listing_id: str) -> Kept | None:
        """The listing that a cursor means, unless it was forgotten."""
        with self._lock:
            return self._touched(listing_id)

    def keep(self, listing: Kept) -> None:
        """Remember a listing, in place of the one with its id, and forget the oldest."""
        with self._lock:
            self._by_id[listing.id] = listing
            self._by_id.move_to_end(listing.id)
            self._ids[listing.key] = listing.id
            while len(self._by_id) > self._most:
                _, oldest = self._by_id.popitem(last=False)
                if self._ids.get(oldest.key) == oldest.id:
                    del self._ids[oldest.key]

    def _touched(self, listing_id: str) -> Kept | None:
        found = self._by_id.get(listing_id)
        if found is not None:
            self._by_id.move_to_end(listing_id)
        return found


def new_id() -> str:
    """An id that no other listing has, of this run or an earlier one."""
    return secrets.token_hex(8)
