"""Write a library on Milvus, and read all of it: ``seam.writing`` over its collections."""

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any
from urllib.parse import quote_from_bytes, unquote_to_bytes

from fovea.search.errors import LibraryError
from fovea.search.library.rows import ModelRow
from fovea.search.seam.writing import FileAt, Kept, Unread

from .client import SESSION, STRONG
from .collections import MODEL_ID, Cluster, Kinds
from .entity import CODED, FACTS, Dating, entity_of, files_of, kept_of
from .expressions import EVERYTHING, among
from .reading import pages
from .tokens import NUMBERS, number_of

__all__ = ["Store"]

BATCH = 500  # entities in one request: about 3 MB
READ = 5_000  # rows asked for at a time, without vectors
WHOLE = 1_000  # with them
LEVELS = 2  # of folders below a root that menus offer


class Store:
    """A library on Milvus as those see it who fill it or copy it.

    It writes the collection of one model: the one in use, or another that is being filled.
    """

    def __init__(self, cluster: Cluster, model: ModelRow | None = None) -> None:
        self.cluster, self.client = cluster, cluster.client
        used = cluster.used(now=True)
        if model is not None:
            self.collection: str | None = cluster.make(model)
            self._model: ModelRow | None = model
        else:
            self.collection = None if used is None else used.collection
            self._model = None if used is None else used.model
        self._noted: set[tuple[int, str]] = set()

    @property
    def model(self) -> ModelRow | None:
        """The model of its embeddings; None before anything is indexed."""
        return self._model

    def use_model(self, name: str, identity: str, dim: int, source: str) -> ModelRow:
        """Make a model the one that the library uses; only an empty library takes another."""
        used = self.cluster.used(now=True)
        if used is not None and used.model.identity != identity:
            if self.client.count(used.collection, consistency=SESSION):
                raise LibraryError(
                    f"{self.cluster.address} uses {used.model.name}, not {name}; to change its "
                    f"model: fovea models use {name} --library {self.cluster.address}"
                )
        model = ModelRow(MODEL_ID, name, identity, dim, source)
        self.collection, self._model = self.cluster.make(model), model
        if used is None or used.collection != self.collection:
            self.cluster.activate(self.collection)
        return model

    def activate(self) -> None:
        """Let the library use this collection and its model from now on."""
        self.cluster.activate(self._needed())

    def _needed(self) -> str:
        if self.collection is None:
            raise LibraryError(f"{self.cluster.address} has no model yet; index a folder first")
        return self.collection

    # Pictures

    def upsert(self, pictures: Sequence[Kept], *, roots: Collection[bytes] | None = None) -> None:
        """Write a batch; pictures that are there are replaced, and their files with them.

        With ``roots``, only the files below these are replaced: others have those below theirs.
        Nobody else writes meanwhile.
        """
        by_hash = {picture.hash: picture for picture in pictures}
        ordered = [by_hash[digest] for digest in sorted(by_hash)]
        with Dating() as dating:
            for first in range(0, len(ordered), READ):
                with self.cluster.lease.held():
                    self._write(ordered[first : first + READ], dating, roots)

    def _write(
        self, pictures: Sequence[Kept], dating: Dating, roots: Collection[bytes] | None
    ) -> None:
        """Write pictures; while entities are under way, the next are made.

        Numbers are asked for once, since such a question waits for all that was written.
        """
        collection = self._needed()
        numbers, others = self._numbered([picture.hash for picture in pictures], roots)
        with ThreadPoolExecutor(1) as sender:
            under_way: Future[None] | None = None
            for first in range(0, len(pictures), BATCH):
                part = pictures[first : first + BATCH]
                self._note_values(part)
                rows = [
                    entity_of(_with(picture, others), numbers[picture.hash], dating)
                    for picture in part
                ]
                if under_way is not None:
                    under_way.result()
                self.cluster.lease.renew()
                under_way = sender.submit(self.client.upsert, collection, rows)
            if under_way is not None:
                under_way.result()

    def _numbered(
        self, hashes: Sequence[bytes], roots: Collection[bytes] | None
    ) -> tuple[dict[bytes, int], dict[bytes, list[FileAt]]]:
        """Return the number of each content, and the files of those below other roots.

        A content keeps the number that it has. Where another content has its first number, which
        happens in one library of eight with fifty million, it gets its second.
        """
        wanted = {number_of(digest): digest for digest in hashes}
        there = self.client.query(
            self._needed(),
            f"{among(hashes)} or number in {sorted(wanted)}",
            ["hash", "number", "files"] if roots is not None else ["hash", "number"],
            consistency=STRONG,
        )
        known = {bytes.fromhex(row["hash"]): int(row["number"]) for row in there}
        taken = {number: digest for digest, number in known.items()}
        numbers: dict[bytes, int] = {}
        for digest in hashes:
            choices = [number_of(digest, place) for place in range(NUMBERS)]
            free = (one for one in choices if taken.get(one, digest) == digest)
            number = known.get(digest) or next(free, choices[0])
            numbers[digest] = number
            taken[number] = digest
        others = {
            bytes.fromhex(row["hash"]): [f for f in files_of(row) if f.root not in roots]
            for row in there
            if roots is not None
        }
        return numbers, others

    def _note_values(self, pictures: Sequence[Kept]) -> None:
        """Note the cameras, lenses, formats, roots and upper folders that were not there before."""
        found: dict[int, dict[str, dict[str, Any]]] = {
            Kinds.VALUE: {},
            Kinds.ROOT: {},
            Kinds.FOLDER: {},
        }
        for picture in pictures:
            for kind in CODED:
                text = getattr(picture.metadata, kind)
                if text is not None:
                    found[Kinds.VALUE][f"{kind}:{text}"] = {"kind": kind, "text": text}
            for file in picture.files:
                root = quote_from_bytes(file.root)
                found[Kinds.ROOT][root] = {"path": root}
                for folder in _upper(file):
                    path = quote_from_bytes(folder)
                    found[Kinds.FOLDER][path] = {"path": path}
        for number, bodies in found.items():
            new = {key: body for key, body in bodies.items() if (number, key) not in self._noted}
            if new:
                self.cluster.note(number, new.items())
                self._noted |= {(number, key) for key in new}

    def delete(self, hashes: Iterable[bytes]) -> None:
        """Remove pictures; those that are not there do not matter."""
        gone = sorted(set(hashes))
        for first in range(0, len(gone), BATCH):
            with self.cluster.lease.held():
                self.client.delete(self._needed(), among(gone[first : first + BATCH]))

    def withdraw(self, hashes: Iterable[bytes], *, roots: Collection[bytes]) -> int:
        """Remove the files below these folders, and pictures that have no others.

        Return how many pictures lost files.
        """
        wanted, lost = sorted(set(hashes)), 0
        with Dating() as dating:
            for first in range(0, len(wanted), BATCH):
                part = wanted[first : first + BATCH]
                with self.cluster.lease.held():
                    lost += self._withdraw(part, dating, roots)
        return lost

    def _withdraw(self, hashes: Sequence[bytes], dating: Dating, roots: Collection[bytes]) -> int:
        collection = self._needed()
        fields = ["hash", "files"]
        gone, shared = [], []
        for row in self.client.query(collection, among(hashes), fields, consistency=STRONG):
            own = [file.root in roots for file in files_of(row)]
            if all(own):
                gone.append(bytes.fromhex(row["hash"]))
            elif any(own):
                shared.append(bytes.fromhex(row["hash"]))
        if shared:
            fields = [*FACTS, "vector"]
            rows = self.client.query(collection, among(shared), fields, consistency=STRONG)
            self._write([_without(kept_of(row), roots) for row in rows], dating, None)
        if gone:
            self.cluster.lease.renew()
            self.client.delete(collection, among(gone))
        return len(gone) + len(shared)

    def known(self, hashes: Iterable[bytes]) -> set[bytes]:
        """Return which of the pictures are there."""
        wanted, found = sorted(set(hashes)), set()
        for first in range(0, len(wanted), READ):
            part = among(wanted[first : first + READ])
            rows = self.client.query(self._needed(), part, ["hash"], consistency=SESSION)
            found |= {bytes.fromhex(row["hash"]) for row in rows}
        return found

    def paths(self, hashes: Sequence[bytes]) -> dict[bytes, set[bytes] | None]:
        """Return the paths of the files of pictures, at most ``READ``, by content.

        None stands for those of a picture with so many that some were left out.
        """
        fields = ["hash", "files", "is_cut"]
        rows = self.client.query(self._needed(), among(hashes), fields, consistency=SESSION)
        return {
            bytes.fromhex(row["hash"]): (
                None if row["is_cut"] else {file.path for file in files_of(row)}
            )
            for row in rows
        }

    def roots(self) -> set[bytes]:
        """Return the folders whose files there are, or were."""
        return {unquote_to_bytes(body["path"]) for body in self.cluster.bodies(Kinds.ROOT)}

    def pictures(self) -> Iterator[list[Kept]]:
        """Yield all pictures, in batches."""
        fields = [*FACTS, "vector"]
        for rows in pages(
            self.client, self._needed(), EVERYTHING, fields, size=WHOLE, consistency=SESSION
        ):
            yield [kept_of(row) for row in rows]

    def hashes_in(self, collection: str) -> Iterator[set[bytes]]:
        """Yield the contents of all pictures of another model's collection, in parts."""
        for rows in pages(
            self.client, collection, EVERYTHING, ["hash"], size=READ, consistency=SESSION
        ):
            yield {bytes.fromhex(row["hash"]) for row in rows}

    def hashes(self) -> Iterator[bytes]:
        """Yield the contents of all pictures."""
        for rows in pages(self.client, self._needed(), EVERYTHING, ["hash"], consistency=SESSION):
            yield from (bytes.fromhex(row["hash"]) for row in rows)

    def below(self, roots: Collection[bytes]) -> Iterator[set[bytes]]:
        """Yield the contents of the pictures that have files below these folders, in parts."""
        fields = ["hash", "files"]
        for rows in pages(
            self.client, self._needed(), EVERYTHING, fields, size=READ, consistency=SESSION
        ):
            yield {
                bytes.fromhex(row["hash"])
                for row in rows
                if any(file.root in roots for file in files_of(row))
            }

    def stamps(self, hashes: Sequence[bytes]) -> dict[bytes, int]:
        """Return the stamps of those of the pictures, at most ``READ``, that are there."""
        fields = ["hash", "stamp"]
        rows = self.client.query(self._needed(), among(hashes), fields, consistency=SESSION)
        return {bytes.fromhex(row["hash"]): int(row["stamp"]) for row in rows}

    def count(self) -> int:
        """Count the pictures."""
        return self.client.count(self._needed(), consistency=SESSION)

    # Files without a picture

    def account(self, files: Sequence[Unread]) -> None:
        """Note files that show no picture."""
        self.cluster.note(
            Kinds.UNREAD,
            (
                (
                    os.fsdecode(file.path),
                    {
                        "path": quote_from_bytes(file.path),
                        "root": len(file.root),
                        "state": file.state,
                        "reason": file.reason,
                        "size": file.size,
                        "mtime_ns": file.mtime_ns,
                    },
                )
                for file in files
            ),
        )

    def settle(self, paths: Iterable[bytes]) -> None:
        """Take back what ``account`` noted of files."""
        self.cluster.forget(Kinds.UNREAD, map(os.fsdecode, paths))

    def unread(self) -> Iterator[list[Unread]]:
        """Yield the files that show no picture, in batches."""
        found = []
        for body in self.cluster.bodies(Kinds.UNREAD):
            path = unquote_to_bytes(body["path"])
            root, state, reason = path[: body["root"]], body["state"], body["reason"]
            found.append(Unread(path, root, state, reason, body["size"], body["mtime_ns"]))
            if len(found) >= WHOLE:
                yield found
                found = []
        if found:
            yield found


def _with(picture: Kept, others: dict[bytes, list[FileAt]]) -> Kept:
    """Return a picture with the files that it has beside its own."""
    if not others.get(picture.hash):
        return picture
    files = {file.path: file for file in (*others[picture.hash], *picture.files)}
    return Kept(picture.image, tuple(files.values()), picture.place)


def _without(picture: Kept, roots: Collection[bytes]) -> Kept:
    """Return a picture without its files below these folders."""
    files = tuple(file for file in picture.files if file.root not in roots)
    return Kept(picture.image, files, picture.place)


def _upper(file: FileAt) -> list[bytes]:
    """Return the folders of a file's root and the next levels below it."""
    within = os.path.dirname(file.path)[len(file.root) :].strip(b"/").split(b"/")
    levels = [b"/".join(within[:count]) for count in range(LEVELS + 1)]
    found = (os.path.join(file.root, level) if level else file.root for level in levels)
    return list(dict.fromkeys(found))
