"""Recent listings, kept for a while so that cursors can continue them."""

import re
import secrets
import threading
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field

from fovea.search.query.run import Listing

__all__ = ["CURSOR_PATTERN", "Cursor", "Kept", "Listings", "new_id"]

CURSOR_PATTERN = r"[0-9a-f]{16}-[0-9]{1,9}"


@dataclass(frozen=True, slots=True)
class Kept:
    """A kept listing, into which cursors point."""

    id: str
    key: Hashable  # the question, the model and the state of the library
    listing: Listing
    model_id: int | None  # the model that ranked it; only the same one can rank deeper
    pages: dict[Hashable, str] = field(default_factory=dict, compare=False)  # hits in JSON


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in a listing."""

    listing_id: str
    offset: int

    @classmethod
    def read(cls, text: str) -> "Cursor":
        """Parse a cursor's ``str``; the text must match ``CURSOR_PATTERN``."""
        assert re.fullmatch(CURSOR_PATTERN, text)
        listing_id, offset = text.split("-")
        return cls(listing_id, int(offset))

    def __str__(self) -> str:
        return f"{self.listing_id}-{self.offset}"


class Listings:
    """The last ``most`` listings of ``most_ids`` images in all, by question and by id. Thread-safe.

    Browsing a library of a million pictures to its end takes 8 MB.
    """

    def __init__(self, most: int = 128, most_ids: int = 16_000_000) -> None:
        self._most, self._most_ids = most, most_ids
        self._by_id: OrderedDict[str, Kept] = OrderedDict()
        self._ids: dict[Hashable, str] = {}
        self._lock = threading.Lock()

    def by_key(self, key: Hashable) -> Kept | None:
        """Return the listing with this key; None if it is not kept."""
        with self._lock:
            return self._touched(self._ids.get(key, ""))

    def by_id(self, listing_id: str) -> Kept | None:
        """Return the listing with this id; None if it is not kept."""
        with self._lock:
            return self._touched(listing_id)

    def keep(self, listing: Kept) -> None:
        """Keep a listing, replacing the one with its id, and drop the least recently used."""
        with self._lock:
            self._by_id[listing.id] = listing
            self._by_id.move_to_end(listing.id)
            self._ids[listing.key] = listing.id
            while len(self._by_id) > self._most or self._holds_too_much():
                _, oldest = self._by_id.popitem(last=False)
                if self._ids.get(oldest.key) == oldest.id:
                    del self._ids[oldest.key]

    def _holds_too_much(self) -> bool:
        ids = sum(len(kept.listing.ranking.ids) for kept in self._by_id.values())
        return ids > self._most_ids and len(self._by_id) > 1

    def _touched(self, listing_id: str) -> Kept | None:
        found = self._by_id.get(listing_id)
        if found is not None:
            self._by_id.move_to_end(listing_id)
        return found


def new_id() -> str:
    """Return a random id, unique across restarts of the server."""
    return secrets.token_hex(8)
