"""Copy a library from one kind to the other, or between two of one kind, and check what arrived."""

import contextlib
import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fovea.search.embedded.store import EmbeddedStore
from fovea.search.errors import LibraryError
from fovea.search.library.library import Library
from fovea.search.seam.writing import Writing

from .address import address_of

__all__ = ["Copied", "copy_library", "opened_store"]

ARRIVED_S = 30.0  # for which what was written may not be read yet


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
    model, or has not all in the end.
    """
    model = source.model
    if model is None:
        raise LibraryError("nothing is indexed in the library to copy; index a folder first")
    target.use_model(model.name, model.identity, model.dim, model.source)
    total, done, hashes = source.count(), 0, []
    roots = source.roots()
    for batch in source.pictures():
        target.upsert(batch, roots=roots)
        hashes += [picture.hash for picture in batch]
        done += len(batch)
        if progress is not None:
            progress(done, total)
    unread = 0
    for files in source.unread():
        target.account(files)
        unread += len(files)
    wanted, deadline = set(hashes), time.monotonic() + ARRIVED_S
    while missing := wanted - (arrived := target.known(wanted)):
        if time.monotonic() > deadline:
            raise LibraryError(
                f"{len(missing):,} of {len(wanted):,} pictures have not arrived; run it again"
            )
        time.sleep(0.5)
    digest = hashlib.sha256(b"".join(sorted(arrived))).hexdigest()
    return Copied(len(arrived), unread, digest)
