"""The rows that this machine has of a library on Milvus: a library in SQLite, in a local folder.

It has the pictures of the answers that were given here, as they are in Milvus, so that everything
that shows a picture reads rows as in any other library; and marks, saved searches and thumbnails,
which are nowhere else. Its pictures can be forgotten at any time.
"""

import json
import shutil
import threading
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

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

MOST_HELD = 200_000  # pictures; with more, those that were needed longest ago are forgotten
SPARE = 1_000  # pictures that are forgotten beyond these, so that it is not done each time
HELD = (
    "CREATE TABLE IF NOT EXISTS held (image_id INTEGER PRIMARY KEY "
    "REFERENCES images (id) ON DELETE CASCADE, stamp INTEGER NOT NULL)"
)
PLACE = "ALTER TABLE held ADD COLUMN place INTEGER NOT NULL DEFAULT 0"  # ascends with their use
PLACED = "CREATE INDEX IF NOT EXISTS held_place ON held (place)"
SAID = (
    "CREATE TABLE IF NOT EXISTS said (changes INTEGER NOT NULL)",  # one row
    "INSERT INTO said SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM said)",
    *(
        f"CREATE TRIGGER IF NOT EXISTS {table}_{verb.lower()}_said AFTER {verb} ON {table} "
        "BEGIN UPDATE said SET changes = changes + 1; END"
        for table in ("marks", "searches")
        for verb in ("INSERT", "UPDATE", "DELETE")
    ),
)
_writing = threading.Lock()  # of this process's threads, which each have a connection


def desk_folder(address: Address) -> Path:
    """Return the folder of the rows that this machine has of a library on Milvus; make it."""
    folder = local_folder(address) / "desk"
    with Library.open(folder, create=True) as library:
        if attached_to(library) is None:
            with library.transaction() as conn:
                conn.execute("INSERT OR REPLACE INTO library VALUES (?, ?)", (DESK, str(address)))
        _complete(library)
    for made in (folder.parent / "ledger").glob("background-*.npz"):  # for likelihoods
        if not (folder / made.name).exists():
            shutil.copy(made, folder / made.name)
    return folder


def attached_to(library: Library) -> Address | None:
    """Return the library on Milvus whose rows these are; None for a library of its own."""
    rows = library.rows("SELECT value FROM library WHERE key = ?", (DESK,))
    return address_of(rows[0][0]) if rows else None


def _complete(library: Library) -> None:
    """Make the tables of this module, and complete those that an earlier one made."""
    if library.rows("SELECT 1 FROM sqlite_master WHERE name = 'searches_delete_said'"):
        return
    with library.transaction() as conn:
        conn.execute(HELD)
        if "place" not in {name for _, name, *_ in conn.execute("PRAGMA table_info(held)")}:
            conn.execute(PLACE)
        for sql in (PLACED, *SAID):
            conn.execute(sql)


class Desk:
    """One thread's connection to these rows."""

    def __init__(self, library: Library) -> None:
        self.library = library

    def stale(self, stamps: dict[int, int]) -> list[int]:
        """Return those of the images whose rows here are missing or not those of a stamp.

        The others are kept for longer.
        """
        known = self.library.rows(
            "SELECT image_id, stamp, place FROM held "
            "WHERE image_id IN (SELECT value FROM json_each(?))",
            [json.dumps(list(stamps))],
        )
        found = {number: stamp for number, stamp, _ in known}
        early = _newest(self.library.conn) - MOST_HELD // 2
        if old := [number for number, _, place in known if place < early]:
            with _writing, self.library.transaction() as conn:
                values = _newest(conn) + 1, json.dumps(old)
                conn.execute(
                    "UPDATE held SET place = ? WHERE image_id IN (SELECT value FROM json_each(?))",
                    values,
                )
        return [number for number, stamp in stamps.items() if found.get(number) != stamp]

    def has(self, number: int) -> bool:
        """Whether the rows of an image are here, as they were at some time."""
        return bool(self.library.rows("SELECT 1 FROM held WHERE image_id = ?", (number,)))

    def use_model(self, model: ModelRow) -> ModelRow:
        """Make a model that of these rows, which have no vectors."""
        current = self.library.model()
        if current is not None and current.identity == model.identity:
            return current
        return self.library.set_model(model.name, model.identity, model.dim, model.source)

    def put(self, entities: Sequence[dict[str, Any]], gone: Collection[int]) -> None:
        """Write pictures as they are in Milvus, and remove those that are not there any more."""
        if not entities and not gone:
            return
        pictures = [(int(row["number"]), int(row["stamp"]), kept_of(row)) for row in entities]
        with _writing:
            folders = (file.root for _, _, kept in pictures for file in kept.files)
            roots = rooted(self.library, folders)
            with self.library.transaction() as conn:
                ids = {number for number, _, _ in pictures} | set(gone)
                for number in ids:
                    conn.execute("DELETE FROM files WHERE image_id = ?", (number,))
                conn.executemany("DELETE FROM images WHERE id = ?", ((one,) for one in gone))
                lost: set[int | None] = set()
                newest = _newest(conn)
                for place, (number, stamp, kept) in enumerate(pictures, newest + 1):
                    lost |= self._put_one(conn, number, kept, roots)
                    sql = "INSERT OR REPLACE INTO held (image_id, stamp, place) VALUES (?, ?, ?)"
                    conn.execute(sql, (number, stamp, place))
                rows_of.purge_images(conn, lost - ids)
                placed = {number: kept.place for number, _, kept in pictures}
                put_places(conn, {key: place for key, place in placed.items() if place})
                _prune(conn)

    def _put_one(self, conn: Any, number: int, kept: Kept, roots: dict[bytes, int]) -> set[int]:
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


def _newest(conn: Any) -> int:
    """Return the place of the picture that was needed last."""
    [place] = conn.execute("SELECT coalesce(max(place), 0) FROM held").fetchone()
    return int(place)


def _prune(conn: Any) -> None:
    """Forget the pictures that were needed longest ago, if there are too many."""
    [count] = conn.execute("SELECT count(*) FROM held").fetchone()
    if count <= MOST_HELD:
        return
    sql = "SELECT image_id FROM held ORDER BY place LIMIT ?"
    oldest = [row[0] for row in conn.execute(sql, (count - MOST_HELD + SPARE,))]
    for table, column in (("files", "image_id"), ("images", "id")):
        conn.execute(
            f"DELETE FROM {table} WHERE {column} IN (SELECT value FROM json_each(?))",
            [json.dumps(oldest)],
        )
