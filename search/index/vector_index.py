"""The index of one model's embeddings: a snapshot, and an exact search of whatever is newer.

The database is the truth. If a snapshot fails a check, its embeddings are read from the database;
embeddings written since are searched exhaustively, deleted ones masked. So results are never stale,
and a snapshot can be deleted at any time.
"""

import logging
import threading
from collections.abc import Iterable

import numpy as np

from fovea.search.errors import LibraryBusy, LibraryError
from fovea.search.library.library import Library
from fovea.search.library.locks import exclusive
from fovea.search.library.rows import ModelRow

from .exhaustive import Exhaustive
from .moments import BestMoments, KeptMoments
from .save import save_snapshot, worth_saving
from .segments import Neighbours, nearest
from .snapshot import UnusableSnapshot
from .view import IndexOptions, differences, load_view, refreshed, refreshed_within, view_of

__all__ = ["IndexOptions", "Neighbours", "VectorIndex"]

log = logging.getLogger(__name__)


class VectorIndex:
    """Finds the nearest embeddings of one model. Several threads may search at once."""

    def __init__(self, library: Library, model: ModelRow, options: IndexOptions) -> None:
        self.model = model
        self.options = options
        self._library = library
        self._refreshing = threading.Lock()  # held for milliseconds
        self._saving = threading.Lock()  # held for minutes while an index is built
        self._view = load_view(library, model, options)
        self._moments = KeptMoments.none(model.dim)
        self._refresh_moments(library)

    @classmethod
    def open(
        cls, library: Library, model_id: int, *, options: IndexOptions | None = None
    ) -> "VectorIndex":
        """Load the snapshot, or read the database on any doubt; this builds no index.

        Raise ``LibraryError`` for a model that the library does not know.
        """
        model = next((model for model in library.models() if model.id == model_id), None)
        if model is None:
            raise LibraryError(f"{library.folder} has no model {model_id}; index a folder first")
        index = cls(library, model, options or IndexOptions())
        index._save_many()
        return index

    def __len__(self) -> int:
        """How many embeddings are searched."""
        return len(self._view)

    @property
    def kind(self) -> str:
        """``exhaustive``, or a key of ``kinds.KINDS``."""
        return self._view.stored.index.name

    @property
    def recall(self) -> float:
        """recall@10 against exhaustive search, measured when the index was built."""
        return self._view.stored.index.recall

    def search(
        self,
        queries: np.ndarray,
        k: int,
        *,
        allowed: Iterable[int] | np.ndarray | None = None,
        exclude: Iterable[int] | np.ndarray | None = None,
    ) -> Neighbours:
        """Return the ``k`` images nearest to each query; a video is as near as its best moment.

        ``queries`` is float32 (q, d), unit rows. ``allowed`` limits the result to some images,
        ``exclude`` keeps some out; neither makes it shorter than it should be. Raise
        ``ValueError`` for queries of another shape or with values that are not finite.
        """
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        if queries.ndim != 2 or queries.shape[1] != self.model.dim:
            raise ValueError(f"queries of shape {queries.shape}, not (q, {self.model.dim})")
        if not np.isfinite(queries).all():
            raise ValueError("a query has values that are not numbers")
        if k < 1:
            raise ValueError(f"k is {k}; ask for at least one neighbour")
        view, moments = self._view, self._moments
        allowed, exclude = _ids(allowed), _ids(exclude)
        found = nearest((view.stored, view.tail), queries, k, allowed, exclude)
        return moments.merged(found, queries, k, allowed, exclude) if len(moments) else found

    def best_moments(self, image_ids: np.ndarray, query: np.ndarray) -> BestMoments:
        """Return which moment is nearest to a query, float32 (d,), of each video among images."""
        return self._moments.nearest(image_ids, query)

    def holds(self, image_ids: np.ndarray) -> np.ndarray:
        """Return which of the images, int64 (n,), can be found in this index, bool (n,)."""
        view, holds = self._view, np.zeros(len(image_ids), bool)
        for segment in (view.stored, view.tail):
            holds[segment.places(image_ids)] = True
        return holds

    def vectors(self, image_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return places in ``image_ids``, int64 (m,), and vectors, float32 (m, d), of those it has.

        The vectors are the float16 ones of the database, of unit length to rounding.
        """
        view = self._view
        parts = [segment.vectors(image_ids) for segment in (view.stored, view.tail)]
        places, vectors = zip(*parts, strict=True)
        return np.concatenate(places), np.concatenate(vectors)

    def refresh(self, library: Library | None = None) -> None:
        """Take in what was written and deleted since, by any process.

        A thread other than the opening one passes its own ``library``.
        """
        with self._refreshing:
            self._view = refreshed(self._view, library or self._library, self.model)
            self._refresh_moments(library or self._library)

    def _refresh_moments(self, library: Library) -> None:
        with library.reading() as conn:
            self._moments = self._moments.refreshed(conn, self.model)

    def save(self, library: Library | None = None) -> bool:
        """Write a new snapshot if it is worth it; return whether one was written.

        Worth it: enough was written or deleted since, or there are enough embeddings to build an
        index, which takes minutes for a million. If another process is saving, or if the library
        cannot be written here, do nothing: the index stays in memory.
        """
        return self._save(library or self._library, build=True)

    def check(self) -> list[str]:
        """Compare every embedding with the database; return a line for each difference."""
        with self._library.reading() as conn:
            view = refreshed_within(self._view, conn, self.model)
            return differences(view, conn, self.model)

    def _save_many(self) -> None:
        """On opening: save many newer rows, so that the next opening need not read them again."""
        view = self._view
        deleted = len(view.stored.rows) - len(view.stored)
        if deleted and view.stored.index.name != Exhaustive.name:
            return  # they would have to be taken out of the index, which is not quick
        if len(view.tail.rows) >= self.options.at_once:
            try:
                self._save(self._library, build=False)
            except LibraryError as exc:
                log.warning("the index is not saved: %s", exc)

    def _save(self, library: Library, *, build: bool) -> bool:
        if not library.is_writable or not self._saving.acquire(blocking=False):
            return False
        try:
            with exclusive(library.folder, f"index-{self.model.id}"):
                return self._save_alone(library, build)
        except LibraryBusy:
            return False
        finally:
            self._saving.release()

    def _save_alone(self, library: Library, build: bool) -> bool:
        """Write what is there now, then continue from the new snapshot."""
        self.refresh(library)
        view = self._view
        if not worth_saving(view, self.options, build):
            return False
        snapshot = save_snapshot(view, library, self.model, self.options, build)
        try:
            view = view_of(library, snapshot, self.model, self.options)
        except UnusableSnapshot as exc:
            raise LibraryError(f"the snapshot was written, but {exc}; check the disk") from exc
        with self._refreshing:
            self._view = refreshed(view, library, self.model)
        return True


def _ids(ids: Iterable[int] | np.ndarray | None) -> np.ndarray | None:
    if ids is None or isinstance(ids, np.ndarray):
        return ids
    return np.fromiter(ids, dtype=np.int64)
