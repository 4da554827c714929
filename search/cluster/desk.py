"""The rows that this machine has of a library on Milvus: a library in SQLite, in a local folder.

It has the pictures of the answers that were given here, as they are in Milvus, so that everything
that shows a picture reads rows as in any other library; and marks, saved searches and thumbnails,
which are nowhere else. Its pictures can be forgotten at any time.
"""

import json
import shutil
import threading
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fovea.search.embedded.store import files_written, rooted
from fovea.search.library import files as rows_of
from fovea.search.library.library import Library
from fovea.search.library.paths import DESK
from fovea.search.library.rows import ModelRow
from fovea.search.places.moving import put_places
from fovea.search.seam.writing import Kept

from .address import Address, address_of, local_folder
from .entity import kept_of

__all__ = ["Desk", "attached_to", "desk_folder"]

MOST_HELD = 200_000  # pictures; with more, all are forgotten
HELD = (
    "CREATE TABLE IF NOT EXISTS held (image_id INTEGER PRIMARY KEY "
    "REFERENCES images (id) ON DELETE CASCADE, stamp INTEGER NOT NULL)"
)
_writing = threading.Lock()  # of this process's threads, which each have a connection


def desk_folder(address: Address) -> Path:
    """Return the folder of the rows that this machine has of a library on Milvus; make it."""
    folder = local_folder(address) / "desk"
    with Library.open(folder, create=True) as library:
        if attached_to(library) is None:
            with library.transaction() as conn:
                conn.execute("INSERT OR REPLACE INTO library VALUES (?, ?)", (DESK, str(address)))
                conn.execute(HELD)
        _prune(library)
    for made in (folder.parent / "ledger").glob("background-*.npz"):  # for likelihoods
        if not (folder / made.name).exists():
            shutil.copy(made, folder / made.name)
    return folder


def attached_to(library: Library) -> Address | None:
    """Return the library on Milvus whose rows these are; None for a library of its own."""
    rows = library.rows("SELECT value FROM library WHERE key = ?", (DESK,))
    return address_of(rows[0][0]) if rows else None


def _prune(library: Library) -> None:
    [(count,)] = library.rows("SELECT count(*) FROM held")
    if count > MOST_HELD:
        with library.transaction() as conn:
            conn.execute("DELETE FROM files")
            conn.execute("DELETE FROM images")


class Desk:
    """One thread's connection to these rows."""

    def __init__(self, library: Library) -> None:
        self.library = library

    def stale(self, stamps: dict[int, int]) -> list[int]:
        """Return those of the images whose rows here are missing or not those of a stamp."""
        known = self._stamps(stamps)
        return [number for number, stamp in stamps.items() if known.get(number) != stamp]

    def _stamps(self, numbers: Iterable[int]) -> dict[int, int]:
        return dict(
            self.library.rows(
                "SELECT image_id, stamp FROM held "
                "WHERE image_id IN (SELECT value FROM json_each(?))",
                [json.dumps(list(numbers))],
            )
        )

    def use_model(self, model: ModelRow) -> ModelRow:
        """Make a model that of these rows; rows of another model's vectors are forgotten."""
        current = self.library.model()
        if current is not None and current.identity == model.identity:
            return current
        with _writing, self.library.transaction() as conn:
            conn.execute("DELETE FROM held")  # to be read anew, with their vectors
        return self.library.set_model(model.name, model.identity, model.dim, model.source)

    def put(self, entities: Sequence[dict[str, Any]], gone: Collection[int]) -> None:
        """Write pictures as they are in Milvus, and remove those that are not there any more."""
        if not entities and not gone:
            return
        pictures = [(int(row["number"]), int(row["stamp"]), kept_of(row)) for row in entities]
        with _writing:
            folders = (file.root for _, _, kept in pictures for file in kept.files)
            roots = rooted(self.library, folders)
            model = self.library.model()
            assert model is not None
            with self.library.transaction() as conn:
                ids = {number for number, _, _ in pictures} | set(gone)
                for number in ids:
                    conn.execute("DELETE FROM files WHERE image_id = ?", (number,))
                conn.executemany("DELETE FROM images WHERE id = ?", ((one,) for one in gone))
                lost: set[int | None] = set()
                for number, stamp, kept in pictures:
                    lost |= self._put_one(conn, number, kept, roots, model.id)
                    conn.execute("INSERT OR REPLACE INTO held VALUES (?, ?)", (number, stamp))
                rows_of.purge_images(conn, lost - ids)
                placed = {number: kept.place for number, _, kept in pictures}
                put_places(conn, {key: place for key, place in placed.items() if place})

    def _put_one(
        self, conn: Any, number: int, kept: Kept, roots: dict[bytes, int], model_id: int
    ) -> set[int]:
        columns = ("id", "hash", "bytes", *rows_of.METADATA)
        facts = [getattr(kept.metadata, name) for name in rows_of.METADATA]
        conn.execute(
            "DELETE FROM images WHERE hash = ? AND id <> ?",
            (kept.hash, number),  # numbered anew
        )
        conn.execute(
            f"INSERT INTO images ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))}) "
            "ON CONFLICT (id) DO UPDATE SET "
            + ", ".join(f"{name} = excluded.{name}" for name in columns[1:]),
            [number, kept.hash, kept.image.bytes, *facts],
        )
        if kept.image.vector is not None:
            conn.execute(
                "DELETE FROM embeddings WHERE image_id = ? AND model_id = ?", (number, model_id)
            )
            rows_of.write_embeddings(conn, [kept.image], {kept.hash: number}, model_id)
        return rows_of.write_files(conn, files_written(kept, roots), {kept.hash: number})

    def numbers(self, sql: str, values: Sequence[Any]) -> list[int]:
        """Return the ids that a statement selects."""
        return [int(row[0]) for row in self.library.rows(sql, values)]

    def marked(self, mark: str) -> list[bytes]:
        """Return the contents with a mark."""
        return [
            bytes(digest)
            for (digest,) in self.library.rows(
                "SELECT hash FROM marks WHERE mark = ? ORDER BY hash", (mark,)
            )
        ]

    def vectors(self, image_ids: np.ndarray) -> dict[int, np.ndarray]:
        """Return the embeddings of those of the images that are here."""
        model = self.library.model()
        if model is None:
            return {}
        rows = self.library.rows(
            "SELECT image_id, vector FROM embeddings WHERE model_id = ? "
            "AND image_id IN (SELECT value FROM json_each(?))",
            (model.id, json.dumps([int(one) for one in image_ids])),
        )
        return {number: np.frombuffer(blob, "<f2").astype(np.float32) for number, blob in rows}
