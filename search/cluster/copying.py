"""Copy a library from one kind to the other, or between two of one kind, and check what arrived."""

import contextlib
import hashlib
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from fovea.search.embedded.store import EmbeddedStore
from fovea.search.errors import LibraryError
from fovea.search.library.library import Library
from fovea.search.seam.writing import Kept, Writing

from .address import address_of

__all__ = ["Copied", "copy_library", "opened_store"]

ARRIVED_S = 30.0  # for which what was written may not be read yet
PART = 5_000  # pictures asked for at once
SAMPLED = 10_000  # pictures whose vectors are compared, too
SAME = 0.95  # the cosine of two embeddings of one content, in whatever precision they were made
MANY = 100  # files of a picture, of which Milvus may leave out some


@dataclass(frozen=True, slots=True)
class Copied:
    """What was copied, and checked."""

    pictures: int
    unread: int  # files that show no picture, with their reasons
    digest: str  # SHA-256 of all contents' hashes, in order: the same in both libraries


@contextlib.contextmanager
def opened_store(place: Path, *, create: bool = False) -> Iterator[Writing]:
    """Open a library in a folder, or on Milvus, to be read or filled."""
    address = address_of(place)
    if address is None:
        with Library.open(place, create=create) as library:
            yield EmbeddedStore(library)
        return
    from .collections import Cluster
    from .store import Store

    cluster = Cluster(address)
    try:
        store: Any = Store(cluster)
        if not create and store.model is None:
            cluster.needed()  # raises
        yield store
    finally:
        cluster.close()


def copy_library(
    source: Writing, target: Writing, progress: Callable[[int, int], None] | None = None
) -> Copied:
    """Copy all searchable pictures that have an embedding, with files, places and reasons.

    A copy that was broken off is simply repeated; what the target has besides stays, such as files
    of the same pictures in other folders. Raise ``LibraryError`` where the target uses another
    model, or has not all in the end, with the same metadata and files, and the same vectors of
    ``SAMPLED`` pictures.
    """
    model = source.model
    if model is None:
        raise LibraryError("nothing is indexed in the library to copy; index a folder first")
    target.use_model(model.name, model.identity, model.dim, model.source)
    total, done = source.count(), 0
    roots = source.roots()
    with _Notes(roots, total) as notes:
        for batch in source.pictures():
            target.upsert(batch, roots=roots)
            notes.take(batch)
            done += len(batch)
            if progress is not None:
                progress(done, total)
        if notes.count() < (there := min(total, source.count())):
            missing = f"{there - notes.count():,} of {there:,} pictures"
            raise LibraryError(f"{missing} were not read; run it again")
        unread = 0
        for files in source.unread():
            target.account(files)
            unread += len(files)
        _wait_for(target, notes)
        if different := notes.count() - sum(map(notes.same, target.pictures())):
            raise LibraryError(
                f"{different:,} of {notes.count():,} pictures differ from what was copied; run it "
                "again"
            )
        return Copied(notes.count(), unread, notes.digest())


def _wait_for(target: Writing, notes: "_Notes") -> None:
    """Wait until all pictures are there, as far as reads show what was written."""
    deadline = time.monotonic() + ARRIVED_S
    while missing := sum(len(part - target.known(part)) for part in notes.parts()):
        if time.monotonic() > deadline:
            raise LibraryError(
                f"{missing:,} of {notes.count():,} pictures have not arrived; run it again"
            )
        time.sleep(0.5)


class _Notes:
    """What was copied of each picture, on the disk: memory does not hold a hundred million."""

    def __init__(self, roots: Collection[bytes], total: int) -> None:
        self._roots = roots
        self._below = SAMPLED / max(1, total)  # of hashes as fractions, whose vectors are kept
        self._conn = sqlite3.connect("")  # SQLite's own file, which ends with it
        self._conn.execute(
            "CREATE TABLE copied (hash BLOB PRIMARY KEY, told BLOB, vector BLOB) WITHOUT ROWID"
        )

    def __enter__(self) -> "_Notes":
        return self

    def __exit__(self, *error: object) -> None:
        self._conn.close()

    def take(self, pictures: Iterable[Kept]) -> None:
        """Note pictures that were copied."""
        self._conn.executemany(
            "INSERT OR REPLACE INTO copied VALUES (?, ?, ?)",
            ((one.hash, self._told(one), self._vector(one)) for one in pictures),
        )

    def count(self) -> int:
        """Count the pictures."""
        return int(self._conn.execute("SELECT count(*) FROM copied").fetchone()[0])

    def parts(self) -> Iterator[set[bytes]]:
        """Yield their contents, in parts."""
        found = self._conn.execute("SELECT hash FROM copied ORDER BY hash")
        while rows := found.fetchmany(PART):
            yield {digest for (digest,) in rows}

    def digest(self) -> str:
        """Return the SHA-256 of all contents' hashes, in order."""
        found = hashlib.sha256()
        for part in self.parts():
            found.update(b"".join(sorted(part)))
        return found.hexdigest()

    def same(self, pictures: Iterable[Kept]) -> int:
        """Count those of the pictures that are as they were copied."""
        count = 0
        for one in pictures:
            noted = self._conn.execute(
                "SELECT told, vector FROM copied WHERE hash = ?", (one.hash,)
            ).fetchone()
            if noted is not None and noted[0] in (self._told(one), b""):
                count += noted[1] is None or _cosine(noted[1], one.image.vector) > SAME
        return count

    def _told(self, picture: Kept) -> bytes:
        """Return a SHA-256 of what is known of a picture; nothing where files may be left out."""
        files = sorted(
            (file for file in picture.files if file.root in self._roots),
            key=lambda file: file.path,
        )
        if len(files) > MANY:
            return b""
        values = (getattr(picture.metadata, field.name) for field in fields(picture.metadata))
        told = [float(one) if isinstance(one, int | float) else one for one in values]
        return hashlib.sha256(repr((told, files)).encode()).digest()

    def _vector(self, picture: Kept) -> bytes | None:
        if int.from_bytes(picture.hash[:4]) / 2**32 >= self._below or picture.image.vector is None:
            return None
        return np.asarray(picture.image.vector, np.float16).tobytes()


def _cosine(noted: bytes, vector: np.ndarray | None) -> float:
    if vector is None:
        return 0.0
    before = np.frombuffer(noted, np.float16).astype(np.float32)
    if before.shape != vector.shape:
        return 0.0
    return float(before @ vector / (np.linalg.norm(before) * np.linalg.norm(vector)))
