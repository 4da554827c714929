"""The engine of a library on Milvus: its pictures are there, and the rows of answers here."""

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flask import Flask, request

from fovea.search.cluster.address import Address, address_of
from fovea.search.errors import FoveaError, LibraryAway, LibraryError, LibraryReadOnly
from fovea.search.index.vector_index import VectorIndex
from fovea.search.library.rows import Counts, ModelRow
from fovea.search.models.lazy import LazyEncoder, TextsLater
from fovea.search.overview.timeline import Timeline
from fovea.search.query.columns import Columns
from fovea.search.query.filters import Filter
from fovea.search.query.run import Question, Searcher

from .engine import Engine

__all__ = ["ClusterEngine", "engine_of"]

log = logging.getLogger(__name__)

POLL_S = 2.0  # between two looks whether Milvus has other pictures
FACETS_S = 60.0  # for which menus are kept
DETAILS = "images.image"  # the endpoint that says all of an image
MOST_VALUES = 200  # cameras, formats and folders that are counted


def engine_of(
    folder: Path,
    *,
    model: str | None,
    encoder_of: Callable[[ModelRow], LazyEncoder] | None,
    ahead: bool,
) -> Engine:
    """Open the library in a folder, or the one on Milvus whose address stands in its place."""
    address = address_of(folder)
    if address is None:
        return Engine(folder, model=model, encoder_of=encoder_of, ahead=ahead)
    return ClusterEngine(address, encoder_of=encoder_of, ahead=ahead)


class ClusterEngine(Engine):
    """A library on Milvus, opened for as long as the app runs.

    While Milvus is away, what asks it raises ``LibraryAway``, and later works again.
    """

    def __init__(
        self,
        address: Address,
        *,
        encoder_of: Callable[[ModelRow], LazyEncoder] | None = None,
        ahead: bool = True,
    ) -> None:
        from fovea.search.cluster.collections import Cluster
        from fovea.search.cluster.desk import desk_folder

        self.cluster = Cluster(address)
        self._polled, self._state = 0.0, 0
        self._seen: tuple[object, ...] = ()  # of Milvus, as it was then
        self._menus: tuple[float, dict[str, Any]] | None = None
        self._counting = threading.Lock()  # the menus
        super().__init__(desk_folder(address), encoder_of=encoder_of, ahead=ahead)
        self.is_writable = False  # from here: what indexes passes pictures on

    @property
    def generation(self) -> int:
        """A number that changes with what is said here and, a little later, with Milvus.

        Not with rows that are fetched for an answer, which change nothing.
        """
        now = time.monotonic()
        if now > self._polled + POLL_S:
            self._polled = now
            used = self.cluster.used()
            seen: tuple[object, ...] = ()
            if used is not None:
                count = self.cluster.client.count(used.collection)
                seen = used.collection, count, self._written(used.collection)
            if seen != self._seen:
                self._seen, self._state = seen, self._state + 1
        return super().generation + (self._state << 48)

    def _written(self, collection: str) -> int:
        """Count what was ever written, as of the last flush: a picture that is replaced, too."""
        try:
            stats = self.cluster.client.run("get_collection_stats", collection)
        except LibraryAway:
            raise
        except LibraryError:  # this user may not ask
            return 0
        return int(stats["row_count"])

    @property
    def rows_version(self) -> int:
        """A number that changes with the rows here, as those of each new answer do."""
        with self._watching:
            return Engine._changes(self)

    def _changes(self) -> int:
        """Count the changes of marks and saved searches, by the watcher's connection."""
        [changes] = self._watcher.execute("SELECT changes FROM said").fetchone()
        return int(changes)

    def check_writable(self) -> None:
        """Raise ``LibraryReadOnly``: pictures are indexed by a command."""
        raise LibraryReadOnly(
            "this library is on Milvus, and is indexed by a command: "
            f"fovea index FOLDER --library {self.cluster.address}"
        )

    def model(self) -> ModelRow | None:
        """Return the model in use; None before anything is indexed."""
        from fovea.search.cluster.searcher import opened

        index = opened(self.cluster, self.library)
        return None if index is None else super().model()

    def index(self) -> VectorIndex | None:
        """Return what stands for the index; None before anything is indexed."""
        from fovea.search.cluster.searcher import opened

        index = opened(self.cluster, self.library)
        return None if index is None else index.as_index()

    def searcher(self, question: Question) -> Searcher:
        """Return a searcher for this thread and the model in use."""
        from fovea.search.cluster.searcher import ClusterSearcher

        background = None if question.browses else self.background()
        return ClusterSearcher.on(self.cluster, self.library, TextsLater(self.encoder), background)

    def columns(self) -> Columns | None:
        """Return nothing: the rows here are few."""
        return None

    def counts(self) -> Counts:
        """Count the pictures; the machines that index know of the files."""
        from fovea.search.cluster.opening import counts_on

        found: Counts = self.remembered("counts", lambda: counts_on(self.cluster))
        return found

    def hold(self, image_id: int, *, anew: bool = False) -> None:
        """See to it that the rows of an image are here, if Milvus has it.

        ``anew`` asks whether they have changed; otherwise Milvus is asked only where they are
        missing.
        """
        from fovea.search.cluster.desk import Desk

        if not anew and Desk(self.library).has(image_id):
            return
        source = self._source()
        if source is not None:
            source.hold([image_id])

    def _source(self) -> Any:
        from fovea.search.cluster.searcher import opened
        from fovea.search.cluster.source import ClusterSource

        index = opened(self.cluster, self.library)
        return None if index is None else ClusterSource(index, self.library)

    def timeline(self, filters: tuple[Filter, ...]) -> Timeline:
        """Count the images that pass by month."""
        from fovea.search.cluster.searcher import timeline

        source = self._source()
        return Timeline(0, (), 0) if source is None else timeline(source, filters)

    def facets(self) -> dict[str, Any] | None:
        """Return what menus offer, as of the last minute; one request counts, for all."""
        from fovea.search.cluster.searcher import menus

        known = self._menus
        if known is not None and time.monotonic() <= known[0] + FACETS_S:
            return known[1]
        if not self._counting.acquire(blocking=known is None):
            assert known is not None
            return known[1]  # while another request counts
        try:
            if self._menus is known:
                self._menus = time.monotonic(), menus(self._source(), MOST_VALUES)
            assert self._menus is not None
            return self._menus[1]
        finally:
            self._counting.release()

    def install(self, app: Flask) -> None:
        """Fetch the rows of the image that a request names before it is answered."""

        @app.before_request
        def hold_asked() -> None:
            image_id = (request.view_args or {}).get("image_id")
            if image_id is not None and image_id < 2**53:
                self.hold(int(image_id), anew=request.endpoint == DETAILS)

    def warm(self) -> None:
        """Load the encoder in the background, before the first search."""

        def load() -> None:
            try:
                if self.index() is not None:
                    self.encoder()
            except FoveaError as exc:
                log.warning("%s", exc)

        self._in_background(load)

    def close(self) -> None:
        """Stop background work and close the connections."""
        super().close()
        self.cluster.close()
