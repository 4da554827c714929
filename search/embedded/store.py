"""Write a library in SQLite, and read all of it: ``seam.writing`` over its rows."""

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from fovea.search.errors import LibraryError
from fovea.search.library.library import Library
from fovea.search.library.paths import place_of
from fovea.search.library.rows import FileWrite, ImageMetadata, ModelRow, NewImage, WriteBatch
from fovea.search.places.moving import places_at, put_places
from fovea.search.seam.writing import FileAt, Kept, Unread

__all__ = ["EmbeddedStore", "files_written", "pictures_of", "rooted"]

READ = 500  # pictures read at a time
METADATA = tuple(field.name for field in fields(ImageMetadata))
AMONG = "IN (SELECT value FROM json_each(?))"


class EmbeddedStore:
    """A library in SQLite, for the model that it uses."""

    def __init__(self, library: Library) -> None:
        self.library = library

    @property
    def model(self) -> ModelRow | None:
        """The model of its embeddings; None before anything is indexed."""
        return self.library.model()

    def use_model(self, name: str, identity: str, dim: int, source: str) -> ModelRow:
        """Make a model the one that the library uses; only an empty library takes another."""
        current = self.library.model()
        if current is not None and current.identity != identity and self.count():
            raise LibraryError(
                f"{place_of(self.library)} uses {current.name}, not {name}; choose another folder"
            )
        return self.library.set_model(name, identity, dim, source)

    def roots(self) -> set[bytes]:
        """Return the library's folders."""
        return {root.path for root in self.library.roots()}

    def upsert(self, pictures: Sequence[Kept], *, roots: Collection[bytes] | None = None) -> None:
        """Write a batch; pictures that are there are replaced, and their files with them.

        With ``roots``, only their files below these folders are replaced.
        """
        by_hash = {picture.hash: picture for picture in pictures}
        folders = (file.root for picture in pictures for file in picture.files)
        numbers = rooted(self.library, folders)
        writes = [
            write for picture in by_hash.values() for write in files_written(picture, numbers)
        ]
        images = [picture.image for picture in by_hash.values()]
        before = self._paths(by_hash, roots)
        self.library.write_batch(WriteBatch(images, writes, refreshed=images))
        self.library.delete_files(before - {write.path for write in writes})
        ids = self.library.image_by_hash(by_hash)
        placed = {ids[digest]: one.place for digest, one in by_hash.items() if digest in ids}
        with self.library.transaction() as conn:
            put_places(conn, {key: place for key, place in placed.items() if place})

    def _paths(self, hashes: Iterable[bytes], roots: Collection[bytes] | None = None) -> set[bytes]:
        ids = list(self.library.image_by_hash(hashes).values())
        rows = self.library.rows(
            "SELECT files.path, roots.path FROM files JOIN roots ON roots.id = root_id "
            f"WHERE image_id {AMONG}",
            [json.dumps(ids)],
        )
        return {bytes(path) for path, root in rows if roots is None or root in roots}

    def delete(self, hashes: Iterable[bytes]) -> None:
        """Remove pictures; those that are not there do not matter."""
        self.library.delete_files(self._paths(hashes))

    def account(self, files: Sequence[Unread]) -> None:
        """Note files that show no picture; those noted before are replaced."""
        roots = rooted(self.library, (file.root for file in files))
        writes = [
            FileWrite(
                file.path,
                roots[file.root],
                file.size,
                file.mtime_ns,
                None,
                file.state,
                file.reason,
            )
            for file in files
        ]
        self.library.write_batch(WriteBatch(files=writes))

    def known(self, hashes: Iterable[bytes]) -> set[bytes]:
        """Return which of the pictures are there with an embedding."""
        model = self.library.model()
        if model is None:
            return set()
        ids = self.library.image_by_hash(hashes)
        there = self.library.has_embedding(ids.values(), model.id)
        return {digest for digest, image_id in ids.items() if image_id in there}

    def pictures(self) -> Iterator[list[Kept]]:
        """Yield all searchable pictures that have an embedding, in batches."""
        model, last = self.library.model(), 0
        while model is not None:
            rows = self.library.rows(
                "SELECT image_id FROM embeddings JOIN shown USING (image_id) "
                "WHERE model_id = ? AND image_id > ? ORDER BY image_id LIMIT ?",
                (model.id, last, READ),
            )
            if not rows:
                return
            ids = [int(image_id) for (image_id,) in rows]
            yield list(pictures_of(self.library, ids, model.id).values())
            last = ids[-1]

    def count(self) -> int:
        """Count the searchable pictures that have an embedding."""
        model = self.library.model()
        if model is None:
            return 0
        [(count,)] = self.library.rows(
            "SELECT count(*) FROM embeddings JOIN shown USING (image_id) WHERE model_id = ?",
            (model.id,),
        )
        return int(count)

    def unread(self) -> Iterator[list[Unread]]:
        """Yield the files that show no picture, in batches."""
        last = 0
        while rows := self.library.rows(
            "SELECT files.id, files.path, roots.path, files.state, reason, size, mtime_ns "
            "FROM files JOIN roots ON roots.id = root_id "
            "WHERE files.state <> 'indexed' AND files.id > ? ORDER BY files.id LIMIT ?",
            (last, READ),
        ):
            yield [Unread(*row[1:]) for row in rows]
            last = rows[-1][0]


def rooted(library: Library, folders: Iterable[bytes]) -> dict[bytes, int]:
    """Return the ids of the library's folders, once those given are among them."""
    known = {root.path: root.id for root in library.roots()}
    for path in sorted(set(folders) - known.keys()):
        known[path] = library.add_root(path).id
    return known


def files_written(picture: Kept, roots: dict[bytes, int]) -> list[FileWrite]:
    """Return a picture's files as SQLite takes them; ``roots`` are the ids of their folders."""
    return [
        FileWrite(
            file.path,
            roots[file.root],
            file.size,
            file.mtime_ns,
            picture.hash,
            ctime_ns=file.ctime_ns,
        )
        for file in picture.files
    ]


def pictures_of(library: Library, image_ids: Sequence[int], model_id: int) -> dict[int, Kept]:
    """Return those of the images that are searchable and have an embedding, by id."""
    ids = json.dumps([int(one) for one in image_ids])
    files: dict[int, list[FileAt]] = defaultdict(list)
    for image_id, *row in library.rows(
        "SELECT image_id, files.path, roots.path, size, mtime_ns, ctime_ns FROM files "
        f"JOIN roots ON roots.id = root_id WHERE files.state = 'indexed' AND image_id {AMONG} "
        "ORDER BY files.path",
        [ids],
    ):
        files[image_id].append(FileAt(*row))
    places: dict[int, dict[str, Any]] = places_at(library, image_ids)
    found = {}
    for image_id, digest, size, vector, *facts in library.rows(
        f"SELECT images.id, hash, bytes, vector, {', '.join(METADATA)} FROM images "
        f"JOIN embeddings ON image_id = images.id WHERE model_id = ? AND images.id {AMONG} "
        "ORDER BY images.id",
        [model_id, ids],
    ):
        if image_id in files:
            metadata = ImageMetadata(*facts)
            stored = np.frombuffer(vector, "<f2").astype(np.float32)
            image = NewImage(bytes(digest), size, metadata, stored / np.linalg.norm(stored))
            found[image_id] = Kept(image, tuple(files[image_id]), places.get(image_id))
    return found
