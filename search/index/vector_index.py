"""The index of one model's embeddings: a snapshot, and exactly whatever is newer.

The database is the truth. A snapshot that fails a check is left aside and its embeddings are
read from the database; embeddings written since are searched exhaustively, deleted ones masked.
So an answer is never stale, and a snapshot can be deleted at any time.
"""

import logging
import threading
from collections.abc import Iterable

import numpy as np

from fovea.search.errors import LibraryBusy, LibraryError
from fovea.search.library.library import Library
from fovea.search.library.locks import exclusive
from fovea.search.library.rows import ModelRow

from .ivf import Trained
from .rebuild import worth_saving, write
from .segments import Neighbours, nearest
from .snapshot import Unusable
from .view import IndexOptions, differences, load, refreshed, refreshed_within, state_of

__all__ = ["IndexOptions", "Neighbours", "VectorIndex"]

log = logging.getLogger(__name__)


class VectorIndex:
    """The nearest embeddings of one model. Searches may run in several threads at once."""

    def __init__(self, library: Library, model: ModelRow, options: IndexOptions) -> None:
        self.model = model
        self.options = options
        self._library = library
        self._refreshing = threading.Lock()  # held for milliseconds
        self._saving = threading.Lock()  # held for minutes, where an index is trained
        self._state = load(library, model, options)

    @classmethod
    def open(
        cls, library: Library, model_id: int, *, options: IndexOptions | None = None
    ) -> "VectorIndex":
        """Load the snapshot, or rebuild from the database on any doubt; nothing is trained here.

        Raise ``LibraryError`` for a model that the library does not know.
        """
        model = next((model for model in library.models() if model.id == model_id), None)
        if model is None:
            raise LibraryError(f"{library.folder} has no model {model_id}; index a folder first")
        index = cls(library, model, options or IndexOptions())
        index._store_newer()
        return index

    def __len__(self) -> int:
        """How many embeddings are searched."""
        return len(self._state)

    @property
    def kind(self) -> str:
        """``exhaustive`` or ``trained``."""
        return "trained" if isinstance(self._state.stored.kind, Trained) else "exhaustive"

    @property
    def recall(self) -> float:
        """recall@10 against exhaustive search, measured when the index was built."""
        kind = self._state.stored.kind
        return kind.effort.recall if isinstance(kind, Trained) else 1.0

    def search(
        self,
        queries: np.ndarray,
        k: int,
        *,
        allowed: Iterable[int] | np.ndarray | None = None,
        exclude: Iterable[int] | np.ndarray | None = None,
    ) -> Neighbours:
        """The ``k`` images nearest to each query.

        ``queries`` is float32 (q, d), unit rows. ``allowed`` limits the answer to some images,
        ``exclude`` keeps some out; neither makes it shorter than it should be. Raise
        ``ValueError`` for queries of another shape or with values that are no numbers.
        """
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        if queries.ndim != 2 or queries.shape[1] != self.model.dim:
            raise ValueError(f"queries of shape {queries.shape}, not (q, {self.model.dim})")
        if not np.isfinite(queries).all():
            raise ValueError("a query has values that are not numbers")
        if k < 1:
            raise ValueError(f"k is {k}; ask for at least one neighbour")
        state = self._state
        asked = min(k, max(1, len(state)))
        found = nearest((state.stored, state.tail), queries, asked, _ids(allowed), _ids(exclude))
        short = ((0, 0), (0, k - asked))
        return Neighbours(
            np.pad(found.scores, short, constant_values=-np.inf),
            np.pad(found.ids, short, constant_values=-1),
        )

    def holds(self, image_ids: np.ndarray) -> np.ndarray:
        """Those of the images, int64 (n,), that can be found in this index, bool (n,)."""
        state, held = self._state, np.zeros(len(image_ids), bool)
        for segment in (state.stored, state.tail):
            held[segment.places(image_ids)] = True
        return held

    def vectors(self, image_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Places in ``image_ids``, int64 (m,), and vectors, float32 (m, d), of those it holds.

        The vectors are the float16 ones of the database, of unit length to rounding.
        """
        state = self._state
        parts = [segment.vectors(image_ids) for segment in (state.stored, state.tail)]
        places, vectors = zip(*parts, strict=True)
        return np.concatenate(places), np.concatenate(vectors)

    def refresh(self, library: Library | None = None) -> None:
        """Heed what was written and deleted since, by whichever process.

        A thread other than the opening one passes its own ``library``.
        """
        with self._refreshing:
            self._state = refreshed(self._state, library or self._library, self.model)

    def save(self, library: Library | None = None) -> bool:
        """Write a new snapshot if it is worth it; return whether one was written.

        Worth it: enough was written or deleted since, or the index should be trained by now.
        Training a million embeddings takes minutes. Another process that is saving goes first.
        """
        return self._save(library or self._library, train=True)

    def check(self, library: Library | None = None) -> list[str]:
        """Compare every embedding with the database; return what differs, a line each."""
        with (library or self._library).reading() as conn:
            state = refreshed_within(self._state, conn, self.model)
            return differences(state, conn, self.model)

    def _store_newer(self) -> None:
        """On opening: spare the next opening the reading of many rows from the database."""
        state = self._state
        dead = len(state.stored.rows) - len(state.stored)
        if dead and isinstance(state.stored.kind, Trained):
            return  # its lists would have to be filled anew, which is not quick
        if len(state.tail.rows) >= self.options.at_once:
            try:
                self._save(self._library, train=False)
            except LibraryError as exc:
                log.warning("the index is not saved: %s", exc)

    def _save(self, library: Library, *, train: bool) -> bool:
        if not self._saving.acquire(blocking=False):
            return False
        try:
            with exclusive(library.folder, f"index-{self.model.id}"):
                return self._save_alone(library, train)
        except LibraryBusy:
            return False
        finally:
            self._saving.release()

    def _save_alone(self, library: Library, train: bool) -> bool:
        """Write what is there now, then go on from the new snapshot."""
        self.refresh(library)
        state = self._state
        if not worth_saving(state, self.options, train):
            return False
        snapshot = write(state, library, self.model, self.options, train)
        try:
            state = state_of(snapshot, self.model, self.options)
        except Unusable as exc:
            raise LibraryError(f"the snapshot was written, but {exc}; check the disk") from exc
        with self._refreshing:
            self._state = refreshed(state, library, self.model)
        return True


def _ids(ids: Iterable[int] | np.ndarray | None) -> np.ndarray | None:
    if ids is None or isinstance(ids, np.ndarray):
        return ids
    return np.fromiter(ids, dtype=np.int64)
