"""The engine of a library on Milvus: its pictures are there, and the rows of answers here."""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flask import Flask, request

from fovea.search.cluster.address import Address, address_of
from fovea.search.errors import FoveaError, LibraryReadOnly
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
        self._polled, self._state, self._seen = 0.0, 0, ("", 0)
        self._menus: tuple[float, dict[str, Any]] | None = None
        super().__init__(desk_folder(address), encoder_of=encoder_of, ahead=ahead)
        self.is_writable = False  # from here: what indexes passes pictures on

    @property
    def generation(self) -> int:
        """A number that changes with the rows here and, a little later, with Milvus."""
        now = time.monotonic()
        if now > self._polled + POLL_S:
            self._polled = now
            used = self.cluster.used()
            count = 0 if used is None else self.cluster.client.count(used.collection)
            seen = "" if used is None else used.collection, count
            if seen != self._seen:
                self._seen, self._state = seen, self._state + 1
        return super().generation + (self._state << 48)

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

    def hold(self, image_id: int) -> None:
        """See to it that the rows of an image are here, if Milvus has it."""
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
        """Return what menus offer, as of the last minute."""
        from fovea.search.cluster.searcher import menus

        known = self._menus
        if known is None or time.monotonic() > known[0] + FACETS_S:
            source = self._source()
            known = self._menus = time.monotonic(), menus(source, MOST_VALUES)
        return known[1]

    def install(self, app: Flask) -> None:
        """Fetch the rows of the image that a request names before it is answered."""

        @app.before_request
        def hold_asked() -> None:
            image_id = (request.view_args or {}).get("image_id")
            if image_id is not None and image_id < 2**53:
                self.hold(int(image_id))

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
