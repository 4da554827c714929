"""Signatures, by which copies are found: of pictures that were indexed without one."""

import sqlite3
from base64 import b64decode, b64encode
from collections.abc import Callable
from typing import Any

from PIL import Image

from fovea.search.duplicates.signature import VERSION, signature_of
from fovea.search.library.facts.signatures import KIND

__all__ = ["ANALYSIS"]


class Copies:
    """The kind of analysis: see ``kinds.Analysis``. Indexing makes signatures by itself."""

    kind = KIND
    said = "copies of pictures"
    side = 512
    memory = 0
    seconds = 0.0
    version = VERSION

    def missing(self) -> str | None:
        """Nothing: it takes Pillow alone."""
        return None

    def opened(self) -> Callable[[Image.Image], Any]:
        """Return what makes a signature: [hash, sharpness, the grey version in base64]."""
        return _signed

    def store(self, conn: sqlite3.Connection, image_id: int, result: Any) -> None:
        """Insert a signature."""
        hash, sharpness, grey = result
        conn.execute(
            "INSERT OR REPLACE INTO signatures (image_id, hash, sharpness, grey) "
            "VALUES (?, ?, ?, ?)",
            (image_id, int(hash), float(sharpness), b64decode(grey)),
        )


def _signed(image: Image.Image) -> list[Any]:
    made = signature_of(image)
    return [made.hash, made.sharpness, b64encode(made.grey).decode()]


ANALYSIS = Copies()
