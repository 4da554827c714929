"""The library in a local folder that ``fovea index`` brings up to date, and passes on to Milvus.

It knows the files of this machine as any library does, so that nothing is read or embedded twice.
Triggers note each picture of which anything changes, in the transaction that changes it; what is
noted is passed on, again after a broken run, and then struck off.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fovea.search.embedded.store import EmbeddedStore, pictures_of
from fovea.search.errors import LibraryError
from fovea.search.library.library import Library
from fovea.search.library.paths import LEDGER
from fovea.search.library.rows import ModelRow
from fovea.search.seam.writing import Unread

from .address import Address, address_of, local_folder
from .client import SESSION
from .collections import Cluster, Used
from .entity import stamp_of
from .store import Store

__all__ = ["Passed", "compared", "ledger_folder", "ledger_of", "pass_on", "size_of"]

PASSED = "milvus model"  # another: the SHA-256 of the model that all is passed on by
COLLECTION = "milvus collection"  # another: Milvus's number of the collection that it is in
BATCH = 5_000  # changes passed on at a time
HERE = (  # pictures of this machine, with the paths of their files
    "SELECT images.id, hash, group_concat(hex(path)) FROM images "
    "JOIN files ON files.image_id = images.id AND files.state = 'indexed' "
    "WHERE images.id > ? AND images.id IN (SELECT image_id FROM shown) AND images.id IN "
    "(SELECT image_id FROM embeddings WHERE model_id = "
    "(SELECT value FROM library WHERE key = 'model_id')) "
    "GROUP BY images.id ORDER BY images.id LIMIT ?"
)
CHANGED = "INSERT INTO outbox (hash) SELECT hash FROM images WHERE id"
SETTLED = (  # former folders whose files are gone from the collections of these models
    "CREATE TABLE IF NOT EXISTS settled_roots "
    "(path BLOB, model TEXT, PRIMARY KEY (path, model)) WITHOUT ROWID"
)
TABLES = (
    "CREATE TABLE IF NOT EXISTS former_roots (path BLOB PRIMARY KEY)",
    "CREATE TABLE IF NOT EXISTS outbox (id INTEGER PRIMARY KEY AUTOINCREMENT, hash BLOB NOT NULL)",
    *(
        f"CREATE TRIGGER IF NOT EXISTS outbox_{name} AFTER {event} BEGIN {does}; END"
        for name, event, does in (
            ("file", "INSERT ON files", f"{CHANGED} = new.image_id"),
            (
                "file_moved",
                "UPDATE ON files WHEN old.image_id IS NOT new.image_id OR old.state <> new.state "
                "OR old.mtime_ns <> new.mtime_ns OR old.root_id <> new.root_id",
                f"{CHANGED} IN (old.image_id, new.image_id)",
            ),
            ("file_gone", "DELETE ON files", f"{CHANGED} = old.image_id"),
            ("image", "UPDATE ON images", f"{CHANGED} = new.id"),
            (
                "image_gone",
                "DELETE ON images",
                "INSERT INTO outbox (hash) VALUES (old.hash)",
            ),
            ("embedding", "INSERT ON embeddings", f"{CHANGED} = new.image_id"),
            ("place", "INSERT ON placed", f"{CHANGED} = new.image_id"),
            (
                "root_gone",
                "DELETE ON roots",
                "INSERT OR IGNORE INTO former_roots VALUES (old.path)",
            ),
            ("place_gone", "DELETE ON placed", f"{CHANGED} = old.image_id"),
        )
    ),
)


@dataclass(frozen=True, slots=True)
class Passed:
    """What was passed on to Milvus."""

    written: int = 0
    deleted: int = 0
    switched: str | None = None  # the model that the library uses from now on


def ledger_folder(address: Address) -> Path:
    """Return the folder of this machine's ledger of a library on Milvus; make it.

    Its model is that of the library, if it has one. Raise ``LibraryError`` where the two differ,
    ``LibraryAway`` if Milvus does not answer.
    """
    folder = local_folder(address) / "ledger"
    with _cluster(address) as cluster, Library.open(folder, create=True) as library:
        used = cluster.used(now=True)
        if ledger_of(library) is None:
            with library.transaction() as conn:
                conn.execute("INSERT OR REPLACE INTO library VALUES (?, ?)", (LEDGER, str(address)))
                for statement in TABLES:
                    conn.execute(statement)
        model = library.model()
        if used is not None and model is None:
            row = used.model
            library.set_model(row.name, row.identity, row.dim, row.source)
            _say(library, PASSED, row.identity)
    return folder


def ledger_of(library: Library) -> Address | None:
    """Return the library on Milvus whose ledger this is; None for any other library."""
    rows = library.rows("SELECT value FROM library WHERE key = ?", (LEDGER,))
    return address_of(rows[0][0]) if rows else None


@contextmanager
def _cluster(address: Address) -> Iterator[Cluster]:
    cluster = Cluster(address)
    try:
        yield cluster
    finally:
        cluster.close()


def pass_on(library: Library, progress: Callable[[int, int], None] | None = None) -> Passed:
    """Bring Milvus up to date with this ledger: what has changed, or all after a change of model.

    ``progress`` is called with the pictures passed on and all there are. A run that is broken off
    is simply repeated. After a change of model, the library uses the new one once all of its
    pictures have their new embeddings; until then it answers with the former one. Raise
    ``LibraryError`` where another machine has changed the model.
    """
    address, model = ledger_of(library), library.model()
    assert address is not None
    if model is None:
        return Passed()
    with _cluster(address) as cluster:
        used = cluster.used(now=True)
        if used is not None:
            _check_wanted(library, model, used, address)
        store = Store(cluster, model)
        is_new = used is not None and used.model.identity != model.identity
        owned = _owned(library, model)
        number = str(cluster.number_of(store.collection or ""))
        known, collection = _said(library, PASSED), _said(library, COLLECTION)
        is_lost = collection not in (None, number) or (used is None and known is not None)
        if is_new or is_lost or known not in (None, model.identity):
            _note_missing(library, store, model, owned.everywhere)
        if used is None:
            store.use_model(model.name, model.identity, model.dim, model.source)
        if not is_new:
            _say(library, PASSED, model.identity)
            _say(library, COLLECTION, number)
        passed = _pass_changes(library, store, model, owned.everywhere, progress)
        _pass_unread(library, store, owned.roots | owned.former)
        if used is not None and is_new:
            _check_whole(store, used.collection, model)
            store.activate()
            passed = Passed(passed.written, passed.deleted, model.name)
        _say(library, PASSED, model.identity)
        _say(library, COLLECTION, number)
        _settle(library, model, owned)
        return passed


def _said(library: Library, key: str) -> str | None:
    rows = library.rows("SELECT value FROM library WHERE key = ?", (key,))
    return str(rows[0][0]) if rows else None


def _say(library: Library, key: str, value: str) -> None:
    if _said(library, key) != value:
        with library.transaction() as conn:
            conn.execute("INSERT OR REPLACE INTO library VALUES (?, ?)", (key, value))


def _check_wanted(library: Library, model: ModelRow, used: Used, address: Address) -> None:
    """Raise ``LibraryError`` if it is the library that has changed its model, not this ledger."""
    if used.model.identity != model.identity == _said(library, PASSED):
        raise LibraryError(
            f"{address} uses {used.model.name} now, and this machine {model.name}; run fovea "
            f"models use {used.model.name} --library {address}"
        )


def _note_missing(
    library: Library, store: Store, model: ModelRow, roots: Collection[bytes]
) -> None:
    """Note the pictures that a model's collection does not have as they are here.

    After a change back, these are few: the collection has stayed as it was.
    """
    last = 0
    while rows := library.rows(
        "SELECT image_id FROM embeddings JOIN shown USING (image_id) "
        "WHERE model_id = ? AND image_id > ? ORDER BY image_id LIMIT ?",
        (model.id, last, BATCH),
    ):
        ids, last = [int(image_id) for (image_id,) in rows], rows[-1][0]
        pictures = pictures_of(library, ids, model.id).values()
        there = store.stamps([one.hash for one in pictures])
        _note(library, [one.hash for one in pictures if there.get(one.hash) != stamp_of(one)])
    for part in store.below(roots):
        found = pictures_of(library, list(library.image_by_hash(part).values()), model.id)
        _note(library, list(part - {one.hash for one in found.values()}))  # gone since


def _note(library: Library, hashes: list[bytes]) -> None:
    with library.transaction() as conn:
        conn.executemany("INSERT INTO outbox (hash) VALUES (?)", ((one,) for one in hashes))


def _check_whole(store: Store, former: str, model: ModelRow) -> None:
    """Raise ``LibraryError`` if the new collection lacks pictures of the former one."""
    missing = sum(len(part - store.known(part)) for part in store.hashes_in(former))
    if missing:
        raise LibraryError(
            f"{missing:,} pictures of {store.cluster.address} have no embedding by {model.name} "
            "yet, so it keeps its model: run fovea models use on the machines that indexed them"
        )


@dataclass(frozen=True, slots=True)
class _Owned:
    """The folders whose files on Milvus are this machine's."""

    roots: frozenset[bytes]
    former: frozenset[bytes]  # removed here, and maybe not there yet
    left: frozenset[bytes]  # former ones that the model's collection has not lost yet

    @property
    def everywhere(self) -> frozenset[bytes]:
        """All of them, as far as pictures go."""
        return self.roots | self.former | self.left


def _owned(library: Library, model: ModelRow) -> _Owned:
    with library.transaction() as conn:
        conn.execute(SETTLED)
    former = library.rows("SELECT path FROM former_roots")
    left = library.rows(
        "SELECT path FROM settled_roots EXCEPT SELECT path FROM settled_roots WHERE model = ?",
        (model.identity,),
    )
    return _Owned(
        frozenset(root.path for root in library.roots()),
        frozenset(bytes(path) for (path,) in former),
        frozenset(bytes(path) for (path,) in left),
    )


def _settle(library: Library, model: ModelRow, owned: _Owned) -> None:
    """Let other machines have folders that are former ones here, once all is passed on."""
    with library.transaction() as conn:
        if conn.execute("SELECT 1 FROM outbox LIMIT 1").fetchone():
            return
        for path in owned.former:
            conn.execute("DELETE FROM former_roots WHERE path = ?", (path,))
            conn.execute("DELETE FROM settled_roots WHERE path = ?", (path,))
        settled = [(path, model.identity) for path in owned.former | owned.left]
        conn.executemany("INSERT OR IGNORE INTO settled_roots VALUES (?, ?)", settled)


def _pass_changes(
    library: Library,
    store: Store,
    model: ModelRow,
    roots: Collection[bytes],
    progress: Callable[[int, int], None] | None,
) -> Passed:
    [(total,)] = library.rows("SELECT count(*) FROM outbox")
    written = deleted = done = 0
    while rows := library.rows("SELECT id, hash FROM outbox ORDER BY id LIMIT ?", (BATCH,)):
        hashes = {bytes(digest) for _, digest in rows}
        with library.reading():
            ids = library.image_by_hash(hashes)
            found = pictures_of(library, list(ids.values()), model.id)
        kept = {picture.hash: picture for picture in found.values()}
        store.upsert(list(kept.values()), roots=roots)
        gone = hashes - kept.keys()
        deleted += store.withdraw(gone, roots=roots)
        written, done = written + len(kept), done + len(rows)
        with library.transaction() as conn:
            conn.execute("DELETE FROM outbox WHERE id <= ?", (rows[-1][0],))
        if progress is not None:
            progress(min(done, total), total)
    if written or deleted:
        store.client.flush(store.collection or "")
    return Passed(written, deleted)


def _pass_unread(library: Library, store: Store, roots: Collection[bytes]) -> None:
    """Account for the files of this machine that show no picture."""
    here = {file.path: file for batch in EmbeddedStore(library).unread() for file in batch}
    there: dict[bytes, Unread] = {}
    for batch in store.unread():
        there |= {file.path: file for file in batch if file.root in roots}
    store.account([file for path, file in here.items() if there.get(path) != file])
    store.settle(there.keys() - here.keys())


def compared(library: Library) -> list[str]:
    """Compare this ledger with Milvus; return a line for each difference.

    Pictures that are not there as they are here are noted, so that ``pass_on`` writes them again.
    """
    address = ledger_of(library)
    assert address is not None
    [(waiting,)] = library.rows("SELECT count(*) FROM outbox")
    last, lines = 0, []
    missing: list[bytes] = []
    incomplete: list[bytes] = []
    with _cluster(address) as cluster:
        store = Store(cluster)
        while rows := library.rows(HERE, (last, BATCH)):
            last = rows[-1][0]
            here = {bytes(digest): _own_paths(paths) for _, digest, paths in rows}
            there = {} if store.model is None else store.paths(list(here))
            missing += here.keys() - there.keys()
            incomplete += [
                one for one, paths in there.items() if paths is not None and here[one] - paths
            ]
    if missing:
        lines.append(f"{len(missing):,} pictures are not in {address}; run fovea index")
    if incomplete:
        lines.append(
            f"{len(incomplete):,} pictures lack files of this machine in {address}; run fovea index"
        )
    if waiting:
        lines.append(f"{waiting:,} changes wait to be passed on to {address}; run fovea index")
    if library.is_writable:
        _note(library, [*missing, *incomplete])
    return lines


def _own_paths(paths: str) -> set[bytes]:
    return {bytes.fromhex(path) for path in paths.split(",")}


def size_of(library: Library) -> tuple[str | None, int]:
    """Return the model of the library whose ledger this is, and how many pictures it has."""
    address = ledger_of(library)
    assert address is not None
    with _cluster(address) as cluster:
        used = cluster.used(now=True)
        if used is None:
            return None, 0
        return used.model.name, cluster.client.count(used.collection, consistency=SESSION)
