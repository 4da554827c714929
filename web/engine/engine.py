"""The engine that all requests share: the library, its index and its encoder, all thread-safe."""

import contextlib
import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from pathlib import Path
from typing import Any

import faiss
from flask import current_app, g, has_request_context

from fovea.indexer.workers.host import available_cores
from fovea.search.errors import FoveaError, LibraryError
from fovea.search.index.vector_index import VectorIndex
from fovea.search.index.view import snapshot_path
from fovea.search.library.access import access_of, has_changed
from fovea.search.library.connection import connect
from fovea.search.library.damage import explained, guarded
from fovea.search.library.library import DATABASE, Library
from fovea.search.library.reachable import unreachable
from fovea.search.library.rows import Counts, ModelRow
from fovea.search.models.lazy import TORCH_AFTER_S, LazyEncoder, TextsLater
from fovea.search.models.resolve import resolve_model
from fovea.search.overview.timeline import Timeline, timeline
from fovea.search.query.columns import Columns
from fovea.search.query.filters import Filter
from fovea.search.query.likelihood import Background, background_path
from fovea.search.query.measured import measured_in
from fovea.search.query.run import Question, Searcher
from fovea.search.suggesting.known import Known
from fovea.search.tags.scoring import is_fresh, refresh_if_possible

from .kept_accounts import KeptAccounts
from .kept_duplicates import KeptDuplicates
from .known import KeptKnown
from .large import KeptColumns
from .listings import Listings

__all__ = ["Engine", "current_engine"]

log = logging.getLogger(__name__)

FORMER_S = 60.0  # how long the former model stays loaded after a switch
LOOK_S = 5.0  # between two checks for a newer snapshot
TURN_S = 1.0  # that a remark waits for others, so as to be alone
FORMER = 4  # connections of a thread that are left open, since a caller may still use one
CACHE_KIB = 4096  # of database pages, for each thread's connection


class _Connection:
    """One thread's library, closed when the thread ends."""

    def __init__(self, folder: Path, openings: int) -> None:
        self.library = Library.open(folder)
        self.library.conn.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        self.openings = openings  # of the engine's watcher, before this one
        self.looked = time.monotonic()

    def close(self) -> None:
        with contextlib.suppress(sqlite3.ProgrammingError):  # another thread's, which closes it
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
        encoder_of: Callable[[ModelRow], LazyEncoder] | None = None,
        ahead: bool = True,
    ) -> None:
        """Open the library, creating it if it is missing.

        ``model`` names the model for indexing a library that has none yet, ``encoder_of`` replaces
        the models on the disk, and ``ahead`` loads index and encoder before they are needed.
        """
        self.folder, self.requested_model, self._ahead = folder, model, ahead
        self._database = folder / DATABASE
        with Library.open(folder, create=True) as library:
            self.is_writable = library.is_writable  # or only searched, as long as this runs
        self._encoder_of = encoder_of or _encoder_on_disk
        self._local = threading.local()
        self._opening = threading.Lock()  # of the index and the encoder
        self._index: VectorIndex | None = None
        self._snapshot: tuple[int, int] | None = None  # the one that the index was read from
        self._look_again = 0.0
        self._encoder: LazyEncoder | None = None
        # For requests that began before the model changed.
        self._former_index: VectorIndex | None = None
        self._former_encoder: LazyEncoder | None = None
        self._forget_at = 0.0
        self._background: Background | None = None
        self._background_mark: tuple[int, int] | None = None  # of the file that it was read from
        self._making = ""  # the identity of the model whose background is being computed
        self.listings = Listings()
        # More rankings at once would only wait for the interpreter lock and for each other.
        self.turns = threading.BoundedSemaphore(available_cores())
        self._remembered: dict[Hashable, tuple[int, Any]] = {}  # few names, so never cleared
        self._columns = KeptColumns(self, self._in_background if ahead else None)
        self._known = KeptKnown(self, self._in_background if ahead else None)
        self.duplicates = KeptDuplicates(self, self._in_background if ahead else None)
        self.accounts = KeptAccounts(self)
        self.closing = threading.Event()
        self._farewells: list[Callable[[], None]] = []
        self._watching = threading.Lock()
        self._watcher = connect(folder / DATABASE, any_thread=True)
        self._openings = 0  # of the watcher
        self._remarking = threading.Lock()
        self._same_pictures = (0, 0)  # the newest generation after remarks; since when they are so
        self._is_checked = False

    # The library

    @property
    def library(self) -> Library:
        """This thread's connection."""
        connection: _Connection | None = getattr(self._local, "connection", None)
        if connection is None or self._is_late(connection):
            if connection is None:
                self._local.former = deque(maxlen=FORMER)
            else:
                self._local.former.append(connection)
            connection = self._local.connection = _Connection(self.folder, self._openings)
            faiss.omp_set_num_threads(1)  # for this thread: many requests search at once
        return connection.library

    def _is_late(self, connection: _Connection) -> bool:
        """Whether a library has changed without SQLite's notice, checked every ``LOOK_S``.

        And at once where ``generation`` has noticed: what is kept for a generation is not older.
        """
        if connection.openings != self._openings:
            return True
        if self.is_writable or time.monotonic() < connection.looked + LOOK_S:
            return False
        connection.looked = time.monotonic()
        return connection.library.has_changed_unnoticed

    @property
    def generation(self) -> int:
        """A number that changes whenever any process writes to the library."""
        path = self._database
        with self._watching, guarded(path):
            if has_changed(access_of(self._watcher), path):  # and SQLite does not say so
                watcher = connect(path, any_thread=True)
                self._watcher.close()
                self._watcher, self._openings = watcher, self._openings + 1
            value = self._changes()
        return value + (self._openings << 32)

    def _changes(self) -> int:
        """Return a number that changes with each commit, by the watcher's connection."""
        [value] = self._watcher.execute("PRAGMA data_version").fetchone()
        return int(value)

    @property
    def rows_version(self) -> int:
        """A number that changes whenever any row of the library may have."""
        return self.generation

    @property
    def pictures_since(self) -> int:
        """The generation since which the pictures are as they are now, as far as is known.

        What is only said of pictures changes the ``generation``, not this; see ``remarks``.
        """
        generation, (newest, since) = self.generation, self._same_pictures
        return since if generation == newest else generation

    @contextlib.contextmanager
    def remarks(self) -> Iterator[Library]:
        """Write what is said of pictures, and nothing else, by this thread's connection.

        Those are marks, saved searches, tags and what analyses find. What is kept of the pictures
        then need not be read again, unless another connection has written meanwhile.
        """
        library, has_turn = self.library, self._remarking.acquire(timeout=TURN_S)
        try:
            state = library.rows("PRAGMA data_version")  # changes with others' commits only
            before, since = self.generation, self.pictures_since
            try:
                yield library
            finally:
                after = self.generation
                is_alone = library.rows("PRAGMA data_version") == state
                if is_alone and after >> 32 == before >> 32:  # and in the same file
                    self._same_pictures = (after, since)
        finally:
            if has_turn:
                self._remarking.release()

    def refresh_tags(self) -> None:
        """Bring the tags up to date where they are not and the library can be changed."""
        if self.is_writable and not is_fresh(self.library):
            with self.remarks() as library:
                refresh_if_possible(library)

    def check_writable(self) -> None:
        """Raise ``LibraryReadOnly`` if the library cannot be changed here."""
        self.library.check_writable()

    def offline(self) -> tuple[int, ...]:
        """Return the ids of the roots that are offline now."""
        roots = self._kept("all roots", self.library.roots)
        gone = unreachable(root.path for root in roots)
        return tuple(root.id for root in roots if root.state == "offline" or root.path in gone)

    def remembered(self, name: Hashable, make: Callable[[], Any]) -> Any:
        """Return what ``make`` returns, cached by ``name`` until the library changes."""
        generation = self.generation
        found = self._remembered.get(name)
        if found is None or found[0] != generation:
            found = self._remembered[name] = (generation, make())
        return found[1]

    def _kept(self, name: Hashable, make: Callable[[], Any]) -> Any:
        """Return what ``make`` reads by this thread's connection, cached like ``remembered``.

        Not where connections notice a change later than ``generation``: they would fill the cache
        with what they still see.
        """
        return self.remembered(name, make) if self.is_writable else make()

    def timeline(self, filters: tuple[Filter, ...]) -> Timeline:
        """Count the images that pass some filters by month."""
        return timeline(self.library, filters, self.columns())

    def facets(self) -> dict[str, Any] | None:
        """Return what menus offer; None where the rows of the library tell."""
        return None

    def columns(self) -> Columns | None:
        """Return what filters look at, of a large library; None where SQL has to answer."""
        return self._columns.now()

    def known(self) -> Known:
        """Return what the library knows, for suggestions; of a large one, as it lately was."""
        return self._known.now()

    def counts(self) -> Counts:
        """Count images and files, anew once the library has changed or a folder has come or gone.

        In a large library that takes longer than a page should wait each time.
        """
        found: Counts = self.remembered(("counts", self.offline()), lambda: self.library.counts())
        return found

    # The model

    def model(self) -> ModelRow | None:
        """Return the model that the library uses; None before anything is indexed.

        Within one request it stays the same, even if the library switches to another one.
        """
        if not has_request_context():
            return self.library.model()
        if "fovea_model" not in g:
            g.fovea_model = self._kept("model", self.library.model)
        found: ModelRow | None = g.fovea_model
        return found

    def index(self) -> VectorIndex | None:
        """Return the index of the model in use; None before anything is indexed."""
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
        """Whether another process has written a new snapshot, checked every ``LOOK_S``."""
        now = time.monotonic()
        if now < self._look_again:
            return False
        self._look_again = now + LOOK_S
        before, self._snapshot = self._snapshot, _mark(snapshot_path(self.library, model_id))
        return self._snapshot != before

    def encoder(self) -> LazyEncoder:
        """Return the encoder of the model in use.

        Raise ``LibraryError`` before anything is indexed, ``ModelError`` if the model is missing.
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

    def searcher(self, question: Question) -> Searcher:
        """Return a searcher for this thread and the model in use.

        Browsing does not wait for the index, which takes seconds to load for a million pictures.
        """
        later = TextsLater(self.encoder)
        if question.browses:
            self._refuse_damaged()
            return Searcher(self.library, None, later, None, self._kept, self.columns())
        return Searcher(
            self.library, self.index(), later, self.background(), self._kept, self.columns()
        )

    def embed_ahead(self, question: Question) -> None:
        """Embed the words of a question that is about to be ranked, into the encoder's cache.

        So many requests' words are embedded together, though few questions are ranked at a time.
        """
        texts = [str(term.value) for term in question.query.terms if term.kind == "text"]
        if texts and self.model() is not None:
            self.encoder().encode_texts(texts)

    def _refuse_damaged(self) -> None:
        """Check the library once, as loading an index does; usually another process has."""
        if not self._is_checked:
            self.library.refuse_damaged_once()
            self._is_checked = True

    def warm(self) -> None:
        """Load index and encoder in the background, before the first search."""

        def load() -> None:
            if self.index() is not None:
                self.encoder()
                self.columns()
                self.known()

        self._in_background(load)

    def _in_background(self, work: Callable[..., None], *arguments: object) -> None:
        def run() -> None:
            try:
                work(*arguments)
            except FoveaError as exc:  # a request that needs the result reports it
                log.warning("%s", exc)
            except Exception as exc:
                if self.closing.is_set():
                    return  # what it worked with is closed; nobody needs the result
                damage = explained(self.folder / DATABASE, exc)
                if damage is None:
                    raise
                log.warning("%s", damage)

        threading.Thread(target=run, daemon=True).start()

    def background(self) -> Background | None:
        """Return the background of the model in use, as it is saved now.

        None until it has been computed, and for a model that was never measured.
        """
        model = self.model()
        if model is None:
            return None
        with self._opening:
            known, mark = self._background, _mark(background_path(self.folder, model.identity))
            is_known = known is not None and known.identity == model.identity
            if is_known and mark == self._background_mark:
                return known
            self._background = Background.load(self.folder, model.identity)
            self._background_mark = mark
            if self._background is None and self._ahead and self._making != model.identity:
                self._making = model.identity
                self._in_background(self._make_background, model.identity)
            return self._background

    def _make_background(self, identity: str) -> None:
        encoder = self.encoder()
        place = encoder.place
        signs = None if place is None else measured_in(place, identity, encoder.dim)
        if encoder.identity != identity or signs is None or self.closing.wait(TORCH_AFTER_S):
            return
        made = Background.of(identity, encoder.full(), signs)
        made.save(self.folder)
        with self._opening:
            self._background = made
            self._background_mark = _mark(background_path(self.folder, identity))

    # Closing

    def on_close(self, farewell: Callable[[], None]) -> None:
        """Call ``farewell`` when the engine is closed, at the same time as all others."""
        self._farewells.append(farewell)

    def close(self) -> None:
        """Stop background work and close this thread's connection.

        Other threads' connections close when those threads end.
        """
        self.closing.set()
        parting = [threading.Thread(target=farewell) for farewell in self._farewells]
        self._farewells.clear()
        for thread in parting:
            thread.start()
        for thread in parting:
            thread.join()
        connection: _Connection | None = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
            del self._local.connection
        with self._watching:
            self._watcher.close()


def current_engine() -> Engine:
    """Return the engine of the current app."""
    found: Engine = current_app.extensions["fovea"]
    return found


def _mark(path: Path) -> tuple[int, int] | None:
    """Return a file's inode and mtime, which change when it is replaced; None if it is missing."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def _encoder_on_disk(model: ModelRow) -> LazyEncoder:
    return LazyEncoder.of(resolve_model(None, model, network=False))
