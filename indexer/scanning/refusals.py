"""What a model or the database refuses: find the one file that it is about, and take the others."""

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import numpy as np

from fovea.indexer.decoding.limits import one_line
from fovea.search.clip.errors import FoveaError
from fovea.search.clip.protocols import IndexingEncoder
from fovea.search.errors import LibraryDamaged

__all__ = ["UNEMBEDDED", "UNSTORED", "checked_rows", "encoded", "is_refusal", "write_each"]

LENGTH_ERROR = 1e-2  # by which the length of an embedding may differ from 1
UNSTORED = "not stored: "  # how the reason begins where the database refused a file's rows
UNEMBEDDED = "not embedded: "  # and where the model did not take its picture
UNSOUND = f"{UNEMBEDDED}the model gave no unit vector for it"

T = TypeVar("T")


def encoded(
    encoder: IndexingEncoder, pixels: np.ndarray, dim: int, *, is_first: bool
) -> tuple[np.ndarray, list[str | None]]:
    """Embed pictures, uint8 (n, size, size, 3): rows (n, dim), and why a row is no embedding.

    A batch that fails is embedded one picture at a time. Raise what the model raises if it takes no
    picture of several, and ``FoveaError`` if it gives no unit vector for any of the first batch.
    """
    try:
        vectors = _embedded(encoder, pixels, dim)
        reasons: list[str | None] = [None] * len(pixels)
    except Exception as exc:  # whatever it is, it may be about one picture
        if len(pixels) == 0:
            raise
        vectors, reasons = _each_embedded(encoder, pixels, dim, exc)
    sound = checked_rows(vectors, is_first=is_first and not any(reasons))
    return vectors, [
        reason or (None if fine else UNSOUND) for reason, fine in zip(reasons, sound, strict=True)
    ]


def _embedded(encoder: IndexingEncoder, pixels: np.ndarray, dim: int) -> np.ndarray:
    vectors = encoder.encode_pixels(pixels)
    if vectors.shape != (len(pixels), dim):
        raise ValueError(f"vectors of shape {vectors.shape}, not {(len(pixels), dim)}")
    return vectors


def _each_embedded(
    encoder: IndexingEncoder, pixels: np.ndarray, dim: int, failure: Exception
) -> tuple[np.ndarray, list[str | None]]:
    """Embed pictures one at a time; raise ``failure`` if that succeeds with none of several."""
    vectors = np.zeros((len(pixels), dim), np.float32)
    reasons: list[str | None] = []
    for place in range(len(pixels)):
        try:
            vectors[place] = _embedded(encoder, pixels[place : place + 1], dim)[0]
            reasons.append(None)
        except Exception as exc:  # as above
            reasons.append(UNEMBEDDED + (one_line(str(exc)) or type(exc).__name__))
    if all(reasons) and len(reasons) > 1:
        raise failure
    return vectors, reasons


def checked_rows(vectors: np.ndarray, *, is_first: bool) -> np.ndarray:
    """Say which rows are unit vectors: bool (n,).

    Raise ``FoveaError`` if none of the first batch is: the model does not work here.
    """
    with np.errstate(all="ignore"):
        sound: np.ndarray = np.abs(np.linalg.norm(vectors, axis=1) - 1) < LENGTH_ERROR
    if len(sound) > 1 and not sound.any() and is_first:
        raise FoveaError(
            f"the model gave no embedding for any of the first {len(sound)} pictures; "
            "try float32 as dtype, or another model"
        )
    return sound


def is_refusal(exc: Exception) -> bool:
    """Say whether writing failed because of the rows, not because nothing can be written now.

    A full disk, a locked or a damaged database is no matter of the rows.
    """
    cause = exc.__cause__ if isinstance(exc, FoveaError) else exc
    if isinstance(exc, LibraryDamaged):
        return False  # though its cause may be what a sound database raises for a row
    if isinstance(exc, FoveaError) or isinstance(exc, sqlite3.Error):
        kinds = (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.InterfaceError)
        return isinstance(cause, (*kinds, sqlite3.ProgrammingError))
    return True


def write_each(write: Callable[[Sequence[T]], None], rows: Iterable[T]) -> list[tuple[T, str]]:
    """Write rows at once or, if the database refuses that, one at a time.

    Return the rows that it refuses, and why. Raise what it raises if it takes none of several.
    """
    rows = list(rows)
    if not rows:
        return []
    try:
        write(rows)
        return []
    except Exception as exc:  # sqlite3 raises many kinds for a value that it cannot take
        if not is_refusal(exc):
            raise
        failure = exc
    refused = []
    for row in rows:
        try:
            write([row])
        except Exception as exc:  # as above
            if not is_refusal(exc):
                raise
            refused.append((row, UNSTORED + (one_line(str(exc)) or type(exc).__name__)))
    if len(refused) == len(rows) > 1:
        raise failure
    return refused
