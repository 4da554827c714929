"""SQL of the rows of files and images; functions that write belong inside a transaction."""

import json
import os
import sqlite3
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import fields
from itertools import islice
from operator import attrgetter

import numpy as np

from .facts import analyses, signatures
from .facts.dates import named_date
from .facts.moments import stored_times
from .rows import FileWrite, ImageMetadata, Moments, NewImage, ReportedState

__all__ = [
    "HELD_REASON",
    "REPORTED",
    "UNUSUAL",
    "below",
    "count_states",
    "image_by_hash",
    "purge_images",
    "refresh_images",
    "write_embeddings",
    "write_files",
    "write_images",
    "write_moments",
    "write_signatures",
]

METADATA = tuple(field.name for field in fields(ImageMetadata))
_METADATA_OF = attrgetter(*METADATA)  # ``astuple`` copies each value and takes ten times as long
SEPARATOR = os.fsencode(os.sep)
HELD_REASON = "not found at the last scan; kept until deletions are confirmed"
REPORTED = """
    CASE WHEN state <> 'indexed' THEN state
    WHEN root_id IN (SELECT value FROM json_each(?)) THEN 'offline'
    WHEN reason = ? THEN 'missing' ELSE state END
"""  # a file's ``ReportedState``; the values are the offline roots and HELD_REASON
_FILE = ("root_id", "size", "mtime_ns", "ctime_ns", "image_id", "state", "reason", "named_at")
_WRITE_FILE = (
    f"INSERT INTO files (path, {', '.join(_FILE)}) VALUES (?{', ?' * len(_FILE)}) "
    "ON CONFLICT (path) DO UPDATE SET " + ", ".join(f"{name} = excluded.{name}" for name in _FILE)
)
UNUSUAL = "(state <> 'indexed' OR reason IS NOT NULL)"  # of few files, which an SQL index has
CHUNK = 500  # values in one statement; SQLite allows 999 everywhere


def below(folder: bytes) -> tuple[bytes, bytes]:
    """Return the half-open range of the paths under a folder, as SQLite orders blobs."""
    prefix = folder.rstrip(SEPARATOR) + SEPARATOR
    return prefix, prefix[:-1] + bytes([prefix[-1] + 1])


def count_states(conn: sqlite3.Connection, offline: Sequence[int]) -> dict[ReportedState, int]:
    """Count the files of each state as reported; ``offline`` are the ids of the roots that are.

    Rows are read of unusual files alone; the others are counted along an SQL index.
    """
    counts: Counter[ReportedState] = Counter()
    usual = dict(
        conn.execute("SELECT root_id, count(*) FROM files INDEXED BY files_root_id GROUP BY 1")
    )
    for root_id, state, count in conn.execute(
        f"SELECT root_id, {REPORTED}, count(*) FROM files INDEXED BY files_unusual "
        f"WHERE {UNUSUAL} GROUP BY 1, 2",
        (json.dumps(offline), HELD_REASON),
    ):
        counts[state] += count
        usual[root_id] -= count
    for root_id, count in usual.items():
        counts["offline" if root_id in offline else "indexed"] += count
    return {state: counts[state] for state in sorted(counts) if counts[state]}


def image_by_hash(conn: sqlite3.Connection, hashes: Iterable[bytes]) -> dict[bytes, int]:
    """Return the ids of those hashes that are stored."""
    found: dict[bytes, int] = {}
    remaining = iter(set(hashes))
    while chunk := list(islice(remaining, CHUNK)):
        marks = ",".join("?" * len(chunk))
        found.update(conn.execute(f"SELECT hash, id FROM images WHERE hash IN ({marks})", chunk))
    return found


def write_images(conn: sqlite3.Connection, images: Iterable[NewImage]) -> None:
    """Store the images whose content is not stored yet."""
    columns = ("hash", "bytes", *METADATA)
    conn.executemany(
        f"INSERT INTO images ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))}) "
        "ON CONFLICT (hash) DO NOTHING",
        ((image.hash, image.bytes, *_METADATA_OF(image.metadata)) for image in images),
    )


def refresh_images(conn: sqlite3.Connection, images: Iterable[NewImage]) -> None:
    """Replace the metadata of images that are stored already."""
    conn.executemany(
        f"UPDATE images SET {', '.join(f'{name} = ?' for name in METADATA)} WHERE hash = ?",
        ((*_METADATA_OF(image.metadata), image.hash) for image in images),
    )


def write_embeddings(
    conn: sqlite3.Connection, images: Iterable[NewImage], ids: dict[bytes, int], model_id: int
) -> None:
    """Store the embeddings of a model as float16; stored ones stay as they are.

    With each of a video goes the row of its moments.
    """
    images = list(images)
    conn.executemany(
        "INSERT INTO embeddings (image_id, model_id, vector) VALUES (?, ?, ?) "
        "ON CONFLICT (image_id, model_id) DO NOTHING",
        (
            (ids[image.hash], model_id, np.asarray(image.vector).astype("<f2").tobytes())
            for image in images
        ),
    )
    write_moments(
        conn,
        ((ids[image.hash], image.moments) for image in images if image.moments is not None),
        model_id,
    )


def write_moments(
    conn: sqlite3.Connection, moments: Iterable[tuple[int, Moments]], model_id: int
) -> None:
    """Store what a model has embedded of videos, by their ids; stored ones stay as they are."""
    conn.executemany(
        "INSERT INTO moments (embedding_id, times, vectors) "
        "SELECT id, ?, ? FROM embeddings WHERE image_id = ? AND model_id = ? "
        "ON CONFLICT (embedding_id) DO NOTHING",
        (
            (
                stored_times(found.times),
                np.asarray(found.vectors).astype("<f2").tobytes(),
                image_id,
                model_id,
            )
            for image_id, found in moments
        ),
    )


def write_signatures(conn: sqlite3.Connection, images: Iterable[NewImage]) -> None:
    """Store the signatures that images come with, unless they are switched off."""
    signed = [(one.hash, one.signature) for one in images if one.signature is not None]
    if (
        not signed
        or conn.execute(
            "SELECT 1 FROM library WHERE key = ? AND value = ?",
            (analyses.switch_key(signatures.KIND), analyses.OFF),
        ).fetchone()
    ):
        return
    conn.executemany(
        "INSERT OR REPLACE INTO analyses (image_id, kind, version) "
        f"SELECT id, '{signatures.KIND}', ?2 FROM images WHERE hash = ?1",
        ((digest, signature.version) for digest, signature in signed),
    )
    conn.executemany(
        "INSERT OR REPLACE INTO signatures (image_id, hash, sharpness, grey) "
        "SELECT id, ?2, ?3, ?4 FROM images WHERE hash = ?1",
        ((digest, *signature[1:]) for digest, signature in signed),
    )


def write_files(
    conn: sqlite3.Connection, files: Iterable[FileWrite], ids: dict[bytes, int]
) -> set[int]:
    """Insert or replace the rows of files; return the images that have lost a file."""
    lost: set[int] = set()
    for file in files:
        image_id = None if file.hash is None else ids.get(file.hash)
        if image_id is None and file.state == "indexed":
            raise ValueError(f"{os.fsdecode(file.path)!r} is indexed, but its content is unknown")
        before = conn.execute("SELECT image_id FROM files WHERE path = ?", (file.path,)).fetchone()
        if before and before[0] not in (None, image_id):
            lost.add(before[0])
        conn.execute(
            _WRITE_FILE,
            (
                file.path,
                file.root_id,
                file.size,
                file.mtime_ns,
                file.ctime_ns,
                image_id,
                file.state,
                file.reason,
                named_date(file.path),
            ),
        )
    return lost


def purge_images(conn: sqlite3.Connection, candidates: Iterable[int | None]) -> None:
    """Delete those images that have no file left, and their embeddings; None is no image."""
    conn.executemany(
        "DELETE FROM images WHERE id = ? "
        "AND NOT EXISTS (SELECT 1 FROM files WHERE files.image_id = images.id)",
        ((image_id,) for image_id in candidates),
    )
