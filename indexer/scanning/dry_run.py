"""Count what a run would do, without doing it."""

import os

from fovea.indexer.decoding.formats import is_video
from fovea.indexer.decoding.limits import Gone, Limits, Refused
from fovea.indexer.decoding.reading import open_file
from fovea.indexer.workers.pool import Task
from fovea.search.library.library import Library
from fovea.search.library.rows import FileWrite

from .pipeline import Tally


class DryRun:
    """Counts what would become of the changes that a walk finds.

    Nothing is decoded, so a broken file counts as embedded. A file is read only if another one,
    known or new, has the same size: the content may be the same.
    """

    def __init__(self, library: Library, model_id: int | None, limits: Limits) -> None:
        self.library, self.limits = library, limits
        self.tally = Tally()
        self.gained: set[int] = set()  # images that a file new to them would show
        self.would_show: dict[bytes, int | None] = {}  # path -> its known image, if it changes
        self._sizes = {size for (size,) in library.rows("SELECT DISTINCT bytes FROM images")}
        rows = library.rows("SELECT image_id FROM embeddings WHERE model_id = ?", (model_id,))
        self._embedded = {image_id for (image_id,) in rows}
        self._first: dict[int, bytes | None] = {}  # size -> the new file that has it, until read
        self._new: set[bytes] = set()  # hashes of new files

    def count(self, change: Task | FileWrite) -> None:
        """Count one change."""
        if isinstance(change, FileWrite):
            failed = change.state == "failed"
        else:
            if change.image_id is not None:
                self.would_show[change.path] = None  # unless it turns out to be known
            failed = not 0 < change.size <= self._most(change.path)
            failed = failed or not os.access(change.path, os.R_OK)
            if not failed:
                self._read(change)
                return
        if failed:
            self.tally.failed += 1
        else:
            self.tally.skipped += 1

    def _read(self, task: Task) -> None:
        alike = task.size in self._first
        digest = self._hash(task.path) if alike or task.size in self._sizes else None
        image_id = self.library.image_by_hash([digest]).get(digest) if digest else None
        if image_id is not None:
            self._know(task, image_id)
            return
        if alike and (first := self._first[task.size]) is not None:
            self._new.add(self._hash(first) or b"")
            self._first[task.size] = None
        self._first.setdefault(task.size, task.path if digest is None else None)
        if digest is not None and digest in self._new:
            self.tally.moved += 1
            return
        if digest is not None:
            self._new.add(digest)
        self.tally.embedded += 1

    def _know(self, task: Task, image_id: int) -> None:
        """Count a file whose content has an image already."""
        self.would_show[task.path] = image_id
        if image_id != task.image_id:
            self.gained.add(image_id)
        if image_id not in self._embedded:
            self._embedded.add(image_id)
            self.tally.embedded += 1
        elif image_id == task.image_id:
            self.tally.same += 1
        else:
            self.tally.moved += 1

    def _most(self, path: bytes) -> int:
        return self.limits.video_bytes if is_video(path) else self.limits.file_bytes

    def _hash(self, path: bytes) -> bytes | None:
        try:
            with open_file(path, self._most(path)) as opened:
                return opened.hash()
        except (Refused, Gone):
            return None
        except Exception:  # whatever it is, a run would make it the failure of this file
            return None
