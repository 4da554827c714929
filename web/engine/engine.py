"""What all requests share: the library, its index and its encoder, each safe to use in threads."""

import contextlib
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from flask import current_app, g, has_request_context

from fovea.indexer.workers.host import available_cores
from fovea.search.errors import FoveaError, LibraryError
from fovea.search.index.vector_index import VectorIndex
from fovea.search.index.view import snapshot_path
from fovea.search.library.connection import connect
from fovea.search.library.library import DATABASE, Library
from fovea.search.library.rows import ModelRow
from fovea.search.models.resolve import resolve_model
from fovea.search.query.likelihood import Background
from fovea.search.query.run import Searcher

from .encoders import TORCH_AFTER_S, SharedEncoder
from .listings import Listings

__all__ = ["Engine", "current_engine"]

log = logging.getLogger(__name__)

FORMER_S = 60.0  # that a former model is kept for, once another one answers
LOOK_S = 5.0  # between two looks for a newer snapshot
CACHE_KIB = 4096  # pages of the database that each thread's connection keeps


class _Connection:
    """A thread's library, closed when its thread ends."""

    def __init__(self, folder: Path) -> None:
        self.library = Library.open(folder)
        self.library.conn.execute(f"PRAGMA cache_size = -{CACHE_KIB}")

    def close(self) -> None:
        with contextlib.suppress(sqlite3.ProgrammingError):  # another thread's: it ends with it
            self.library.close()

    def __del__(self) -> None:
        if hasattr(self, "library"):
            self.close()


class Engine:
    """The library in a folder, opened for as long as the app runs."""

    def __init__(
        self,
        folder: Path,
        *,
        model: str | None = None,
        encoder_of: Callable[[ModelRow], SharedEncoder] | None = None,
        ahead: bool = True,
    ) -> None:
        """Open the library, making it where it is missing.

        ``model`` is what indexing shall use in a library that has none yet, ``encoder_of``
        replaces the models on the disk, and ``ahead`` loads in the background what will be needed.
        """
        self.folder, self.requested_model, self._ahead = folder, model, ahead
        Library.open(folder, create=True).close()
        self._encoder_of = encoder_of or _encoder_on_disk
        self._local = threading.local()
        self._opening = threading.Lock()  # of the index and the encoder
        self._index: VectorIndex | None = None
        self._snapshot: tuple[int, int] | None = None  # the one that the index was read from
        self._look_again = 0.0
        self._encoder: SharedEncoder | None = None
        # What requests that began before a change of model still need.
        self._former_index: VectorIndex | None = None
        self._former_encoder: SharedEncoder | None = None
        self._forget_at = 0.0
        self._background: Background | None = None
        self._making = ""  # the identity of the model whose background is on its way
        self.listings = Listings()
        # More at once would only wait for the interpreter's lock, and for each other.
        self.turns = threading.BoundedSemaphore(available_cores())
        self._remembered: dict[str, tuple[int, Any]] = {}
        self.closing = threading.Event()
        self._farewells: list[Callable[[], None]] = []
        self._watching = threading.Lock()
        self._watcher = connect(folder / DATABASE, any_thread=True)

    # The library

    @property
    def library(self) -> Library:
        """This thread's connection."""
        connection: _Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = _Connection(self.folder)
            faiss.omp_set_num_threads(1)  # of this thread: many ask at once
        return connection.library

    @property
    def generation(self) -> int:
        """A number that changes with every change of the library, by whichever process."""
        with self._watching:
            [value] = self._watcher.execute("PRAGMA data_version").fetchone()
        return int(value)

    def remembered(self, name: str, make: Callable[[], Any]) -> Any:
        """What ``make`` returns, made anew only where the library has changed since."""
        generation = self.generation
        found = self._remembered.get(name)
        if found is None or found[0] != generation:
            found = self._remembered[name] = (generation, make())
        return found[1]

    # The model

    def model(self) -> ModelRow | None:
        """The model that answers: for one request the same throughout, whatever changes meanwhile.

        None before anything is indexed.
        """
        if not has_request_context():
            return self.library.model()
        if "fovea_model" not in g:
            g.fovea_model = self.library.model()
        found: ModelRow | None = g.fovea_model
        return found

    def index(self) -> VectorIndex | None:
        """The index of the model that answers; None before anything is indexed."""
        model = self.model()
        if model is None:
            return None
        with self._opening:
            self._forget_former()
            former = self._former_index
            if former is not None and former.model.id == model.id:
                return former
            if self._index is None or self._index.model.id != model.id:
                self._former_index, self._forget_at = self._index, time.monotonic() + FORMER_S
                self._open_index(model.id)
            elif self._ahead and self._is_outdated(model.id):
                self._in_background(self._open_index, model.id)
            assert self._index is not None
            return self._index

    def _forget_former(self) -> None:
        if time.monotonic() > self._forget_at:
            self._former_index = self._former_encoder = None

    def _open_index(self, model_id: int) -> None:
        mark = _mark(snapshot_path(self.library, model_id))
        self._index, self._snapshot = VectorIndex.open(self.library, model_id), mark

    def _is_outdated(self, model_id: int) -> bool:
        """Whether another process has written a new snapshot; looked at now and then."""
        now = time.monotonic()
        if now < self._look_again:
            return False
        self._look_again = now + LOOK_S
        before, self._snapshot = self._snapshot, _mark(snapshot_path(self.library, model_id))
        return self._snapshot != before

    def encoder(self) -> SharedEncoder:
        """The encoder of the model that answers.

        Raise ``LibraryError`` before anything is indexed, ``ModelError`` where the model is gone.
        """
        model = self.model()
        if model is None:
            raise LibraryError("nothing is indexed yet; add a folder first")
        with self._opening:
            self._forget_former()
            former = self._former_encoder
            if former is not None and former.identity == model.identity:
                return former
            if self._encoder is None or self._encoder.identity != model.identity:
                self._former_encoder, self._forget_at = self._encoder, time.monotonic() + FORMER_S
                self._encoder = self._encoder_of(model)
                if self._ahead:
                    self._in_background(self._encoder.warm, self.closing)
            return self._encoder

    def searcher(self) -> Searcher:
        """What answers queries: this thread's library, and the model that it uses now."""
        return Searcher(self.library, self.index(), _Texts(self), self.background())

    def warm(self) -> None:
        """Load in the background what the first search will need."""

        def load() -> None:
            if self.index() is not None:
                self.encoder()

        self._in_background(load)

    def _in_background(self, work: Callable[..., None], *arguments: object) -> None:
        def run() -> None:
            try:
                work(*arguments)
            except FoveaError as exc:  # the request that needs it will say so
                log.warning("%s", exc)

        threading.Thread(target=run, daemon=True).start()

    def background(self) -> Background | None:
        """What the model makes of the default labels; None until that is known."""
        model = self.model()
        if model is None:
            return None
        with self._opening:
            if self._background is not None and self._background.identity == model.identity:
                return self._background
            self._background = Background.load(self.folder, model.identity)
            if self._background is None and self._ahead and self._making != model.identity:
                self._making = model.identity
                self._in_background(self._make_background, model.identity)
            return self._background

    def _make_background(self, identity: str) -> None:
        encoder = self.encoder()
        if encoder.identity == identity and not self.closing.wait(TORCH_AFTER_S):
            made = Background.of(identity, encoder.full())
            made.save(self.folder)
            self._background = made

    # The end

    def on_close(self, farewell: Callable[[], None]) -> None:
        """Have this called when the app ends, the last one first."""
        self._farewells.append(farewell)

    def close(self) -> None:
        """End what runs in the background, and let go of this thread's connection.

        The others' connections end with their threads.
        """
        self.closing.set()
        while self._farewells:
            self._farewells.pop()()
        connection: _Connection | None = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
            del self._local.connection
        with self._watching:
            self._watcher.close()


class _Texts:
    """The encoder of texts, looked for only once a query has words."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        return self._engine.encoder().encode_texts(texts)


def current_engine() -> Engine:
    """The engine of the app that answers this request."""
    found: Engine = current_app.extensions["fovea"]
    return found


def _mark(path: Path) -> tuple[int, int] | None:
    """What changes when a file is written anew; None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def _encoder_on_disk(model: ModelRow) -> SharedEncoder:
    return SharedEncoder.of(resolve_model(None, model, network=False))
