"""What all requests share: the library, its index and its encoder, each safe to use in threads."""

import contextlib
import logging
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flask import current_app

from search.errors import LibraryError
from search.index import VectorIndex
from search.library import DATABASE, Library
from search.models import resolve_model
from search.records import ModelRow

from .encoders import SharedEncoder

__all__ = ["Engine", "engine"]

log = logging.getLogger(__name__)

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
    ) -> None:
        """Open the library, making it where it is missing. ``model`` is what indexing shall use
        in a library that has none yet; ``encoder_of`` replaces the models on the disk.
        """
        self.folder, self.requested_model = folder, model
        Library.open(folder, create=True).close()
        self._encoder_of = encoder_of or _encoder_on_disk
        self._local = threading.local()
        self._opening = threading.Lock()  # of the index and the encoder
        self._index: VectorIndex | None = None
        self._encoder: SharedEncoder | None = None
        self._remembered: dict[str, tuple[int, Any]] = {}
        self.closing = threading.Event()
        self._farewells: list[Callable[[], None]] = []
        self._watching = threading.Lock()
        self._watcher = sqlite3.connect(
            folder / DATABASE, check_same_thread=False, isolation_level=None
        )

    # The library

    @property
    def library(self) -> Library:
        """This thread's connection."""
        connection: _Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = _Connection(self.folder)
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

    def index(self) -> VectorIndex | None:
        """The index of the model that answers now; None before anything is indexed."""
        model = self.library.model()
        if model is None:
            return None
        with self._opening:
            if self._index is None or self._index.model.id != model.id:
                self._index = VectorIndex.open(self.library, model.id)
            return self._index

    def encoder(self) -> SharedEncoder:
        """The encoder of the model that answers now.

        Raise ``LibraryError`` before anything is indexed, ``ModelError`` where the model is gone.
        """
        model = self.library.model()
        if model is None:
            raise LibraryError("nothing is indexed yet; add a folder first")
        with self._opening:
            if self._encoder is None or self._encoder.identity != model.identity:
                self._encoder = self._encoder_of(model)
            return self._encoder

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


def engine() -> Engine:
    """The engine of the app that answers this request."""
    found: Engine = current_app.extensions["fovea"]
    return found


def _encoder_on_disk(model: ModelRow) -> SharedEncoder:
    return SharedEncoder.of(resolve_model(None, model, network=False))
