"""Moments of videos: the table that holds them, how they are written there, and their times."""

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

__all__ = ["TABLES", "clock", "read_length", "read_time", "stored_times", "times_stored"]

LONGEST_MS = 1000 * 3600 * 1000  # a thousand hours
_CLOCK = re.compile(r"(?:(?:([0-9]{1,4}):)?([0-9]{1,4}):)?([0-9]{1,7}(?:\.[0-9]{1,3})?)")
_WORDS = re.compile(
    r"(?:([0-9]{1,4})h)?(?:([0-9]{1,6})m(?:in)?)?(?:([0-9]{1,7}(?:\.[0-9]{1,3})?)s)?", re.IGNORECASE
)

# A video is a row of ``images``. Its embedding is that of one frame, its poster; the others that
# its model has embedded follow that embedding's row, and go with it.
TABLES = (
    "ALTER TABLE images ADD COLUMN duration_ms INTEGER",  # of a video; NULL for pictures
    "ALTER TABLE images ADD COLUMN poster_ms INTEGER",
    "CREATE INDEX images_videos ON images (duration_ms) WHERE duration_ms IS NOT NULL",
    """
    CREATE TABLE moments (
        embedding_id INTEGER PRIMARY KEY REFERENCES embeddings (id) ON DELETE CASCADE,
        times BLOB NOT NULL,  -- int64, little-endian: milliseconds, ascending
        vectors BLOB NOT NULL  -- float16, little-endian: the unit vector of each, one after another
    )
    """,
)


def stored_times(times: "np.ndarray") -> bytes:
    """Write milliseconds, int64 (n,), as the table has them."""
    import numpy as np  # who only reads or writes a time as text does not wait for it

    return np.asarray(times).astype("<i8").tobytes()


def times_stored(data: bytes) -> "np.ndarray":
    """Read the milliseconds of a row, int64 (n,)."""
    import numpy as np

    return np.frombuffer(data, "<i8").astype(np.int64)


def read_time(text: str) -> int | None:
    """Read a time or a length in milliseconds: ``83``, ``1:23``, ``1:02:03``, ``1m23s``, ``2h``.

    None for what is none, or is longer than ``LONGEST_MS``.
    """
    found = _CLOCK.fullmatch(text) or (_WORDS.fullmatch(text) if text else None)
    if found is None:
        return None
    hours, minutes, seconds = (float(part or 0) for part in found.groups())
    if found[2] and found.re is _CLOCK and seconds >= 60:
        return None
    milliseconds = round(1000 * (3600 * hours + 60 * minutes + seconds))
    return milliseconds if milliseconds <= LONGEST_MS else None


def clock(milliseconds: int, *, exact: bool = False) -> str:
    """Write a time as a player does: ``1:23``, ``1:02:03``; exactly, as ``1:23.48``."""
    seconds, rest = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    whole = f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
    return f"{whole}.{rest:03}".rstrip("0") if exact and rest else whole


def read_length(text: str) -> str | None:
    """Read a length as ``read_time`` does, and return it as queries write it: ``1m30s``."""
    milliseconds = read_time(text)
    if milliseconds is None:
        return None
    seconds, rest = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    said = "".join(f"{number}{unit}" for number, unit in ((hours, "h"), (minutes, "m")) if number)
    last = f"{seconds}.{rest:03}".rstrip("0") if rest else str(seconds)
    return said + (f"{last}s" if seconds or rest or not said else "")
