"""Write embeddings into a library, as rows that ``fovea index`` finds unchanged."""

import os
from collections.abc import Callable, Collection, Iterable, Sequence

import numpy as np

from fovea.indexer.decoding.limits import one_line
from fovea.indexer.scanning.changes import root_of
from fovea.indexer.scanning.named import check_folder, root_path
from fovea.indexer.scanning.refusals import UNSTORED, is_refusal
from fovea.search.errors import FoveaError
from fovea.search.library import checks
from fovea.search.library.library import Library
from fovea.search.library.paths import place_of, printable_name
from fovea.search.library.rows import FileWrite, ImageMetadata, NewImage, WriteBatch
from fovea.search.models.info import ModelInfo

from .destination import Known, StampOf
from .done import Done
from .items import NOT_THERE, RETRIED, Item, Result

__all__ = ["IntoLibrary", "common_folder"]

BATCH = 500  # files written in one transaction
PAGE = 10_000  # rows read at a time
ONLY_FILES = "a library shows pictures from files that it can read"
NO_ROOT = "in no folder of the library"


class IntoLibrary:
    """A library, to be filled with one model's embeddings. Its lock is the caller's."""

    def __init__(self, library: Library, model: ModelInfo) -> None:
        self.library, self.model = library, model
        self.problems: list[tuple[bytes, str]] = []
        self.written = 0  # batches
        self._model_id: int | None = None
        self._roots: dict[bytes, int] = {}
        self._waiting: list[Result] = []

    def prepare(self, folders: Sequence[bytes] = ()) -> None:
        """Add the folders that are not roots yet, none if one cannot be.

        Raise ``FoveaError`` for one that cannot be, and if the library uses another model.
        """
        library, model = self.library, self.model
        current = library.model()
        if current is not None and current.identity != model.identity:
            raise FoveaError(
                f"{place_of(library)} uses {current.name}, not {model.name}; use --model "
                f"{current.name}, or choose another library"
            )
        library.refuse_damaged(checks.everyday)
        library.refuse_damaged(checks.order)
        known = {root.path for root in library.roots()}
        new = [path for path in dict.fromkeys(folders) if root_of(path, known) is None]
        for path in new:
            check_folder(path, root_path(library.folder))
        self._roots = {root.path: root.id for root in library.roots()}
        for path in new:
            self.add(path)
        details = model.name, model.identity, model.dim, model.source
        self._model_id = library.add_model(*details).id

    def add(self, folder: bytes) -> None:
        """Make a folder, which can be one, one of the library's."""
        root = self.library.add_root(folder)
        self._roots[root.path] = root.id

    @property
    def roots(self) -> Collection[bytes]:
        """Return the library's folders."""
        return self._roots.keys()

    def known(self, stamp_of: StampOf | None = None) -> Known:
        """Say which files the library has, with an embedding or a lasting reason for none."""
        done, last = Done(), 0
        while rows := self.library.rows(
            "SELECT files.id, path, size, mtime_ns, state, reason, model_id IS NOT NULL "
            "FROM files LEFT JOIN embeddings ON embeddings.image_id = files.image_id "
            "AND model_id = ? WHERE files.id > ? ORDER BY files.id LIMIT ?",
            (self._model_id, last, PAGE),
        ):
            for _, path, size, mtime_ns, state, reason, has_vector in rows:
                lasting = state == "failed" and not str(reason or "").startswith(RETRIED)
                if lasting or (state == "indexed" and has_vector):
                    done.add(Item(bytes(path), "file", size, mtime_ns).id)
            last = rows[-1][0]
        return Known(done)

    def take(self, result: Result) -> None:
        """Keep a result; write a batch when there are enough."""
        if result.reason == NOT_THERE:  # a row would be of nothing
            self.problems.append((result.item.name, NOT_THERE))
        elif result.state in ("embedded", "failed"):
            self._waiting.append(result)
        if len(self._waiting) >= BATCH:
            self.finish()

    def finish(self) -> None:
        """Write what is left, in one transaction; if that is refused, one file at a time."""
        results, self._waiting = self._waiting, []
        if not results:
            return
        if self.library.model() is None and any(row.state == "embedded" for row in results):
            model = self.model
            self.library.set_model(model.name, model.identity, model.dim, model.source)
        kept = self._kept([row.item.name for row in results if row.state == "failed"])
        for row in results:
            if row.state == "failed" and row.item.name in kept:
                self.problems.append((row.item.name, f"{row.reason}; kept as it was"))
        results = [row for row in results if row.state == "embedded" or row.item.name not in kept]
        try:
            self._store(results)
        except Exception as exc:  # sqlite3 raises many kinds for a value that it cannot take
            if not is_refusal(exc):
                raise
            for row in results:
                try:
                    self._store([row])
                except Exception as own:  # as above
                    if not is_refusal(own):
                        raise
                    self.problems.append((row.item.name, f"{UNSTORED}{one_line(str(own))}"))
        self.written += 1

    def _kept(self, paths: Sequence[bytes]) -> set[bytes]:
        """Return those of some files of which the library has a picture."""
        found: set[bytes] = set()
        for path in paths:
            rows = self.library.rows(
                "SELECT 1 FROM files WHERE path = ? AND image_id IS NOT NULL", (path,)
            )
            if rows:
                found.add(path)
        return found

    def _store(self, results: Sequence[Result]) -> None:
        images, files = [], []
        for row in results:
            path = row.item.name
            root = root_of(path, self._roots)
            if root is None or row.item.where != "file":
                why = NO_ROOT if row.item.where == "file" else ONLY_FILES
                self.problems.append((path, why))
                continue
            root_id = self._roots[root]
            if row.state == "failed":
                stamps = row.item.size, row.item.mtime_ns
                files.append(
                    FileWrite(path, root_id, *stamps, None, "failed", row.reason, row.item.ctime_ns)
                )
                continue
            vector = np.asarray(row.vector, np.float32)
            images.append(NewImage(row.hash, row.length, ImageMetadata(**row.facts), vector))
            files.append(
                FileWrite(path, root_id, row.size, row.mtime_ns, row.hash, ctime_ns=row.ctime_ns)
            )
        self.library.write_batch(WriteBatch(images, files, self._model_id))


def common_folder(names: Iterable[bytes], check: Callable[[bytes], None]) -> bytes | None:
    """Return the innermost folder that all files are in; None without any.

    ``check`` raises for a name that a library cannot hold. Raise ``FoveaError`` where the files
    share nothing but the root of the file system.
    """
    common: bytes | None = None
    for name in names:
        check(name)
        folder = os.path.dirname(name)
        common = folder if common is None else os.path.commonpath([common, folder])
        if common == b"/":
            raise FoveaError(
                f"the listed files share no folder, as {printable_name(os.fsdecode(name))} shows; "
                "split the list by folder, or embed into files"
            )
    return common
