"""The public Python API: a library of pictures and the model that embeds them."""

import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, SupportsIndex

from fovea.search.clip.user_path import user_path
from fovea.search.cluster import opening
from fovea.search.library.library import Library as Store
from fovea.search.library.library import default_library_folder
from fovea.search.models.better import Offer, better_model
from fovea.search.models.installed import better_bundled
from fovea.search.models.languages import languages_of
from fovea.search.models.lazy import LazyEncoder, TextsLater
from fovea.search.models.resolve import resolve_model
from fovea.search.places.stored import switch as switch_places
from fovea.search.query.hits import Answer, places
from fovea.search.query.likelihood import Background
from fovea.search.query.rank import Picture
from fovea.search.query.run import Question, Searcher
from fovea.search.suggesting.languages import hint_for

from .keeping import Keeping
from .overview import Overview
from .telling import telling as _telling

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

    from fovea.indexer.scanning.pipeline import Progress
    from fovea.indexer.scanning.scan import ScanReport
    from fovea.indexer.scanning.verify import VerifyReport
    from fovea.indexer.switching.switch import SwitchProgress, SwitchReport
    from fovea.search.library.rows import Counts
    from fovea.search.maintenance.backup import BackupReport, RestoreReport
    from fovea.search.maintenance.salvage import SalvageReport

__all__ = ["Library"]

Download = Callable[[str], Callable[[int, int | None], None]]


class Library(Keeping, Overview):
    """A library of pictures: its folders, their index, and the model that embeds them.

    Use it as a context manager. A library belongs to the thread that opened it; other threads and
    processes open it themselves.
    """

    def __init__(
        self,
        store: Store,
        *,
        device: str = "auto",
        dtype: str = "auto",
        on_download: Download | None = None,
    ) -> None:
        self._store, self._device, self._dtype = store, device, dtype
        self._on_download = on_download
        self._searcher: Searcher | None = None
        self._encoder: LazyEncoder | None = None  # of the searcher
        self._known = None  # and the state it is of

    @classmethod
    def open(
        cls,
        folder: str | os.PathLike[str] | None = None,
        *,
        create: bool = False,
        device: str = "auto",
        dtype: str = "auto",
        on_download: Download | None = None,
    ) -> "Library":
        """Open the library in a folder, creating it with ``create`` if it is missing.

        The default folder is ``FOVEA_LIBRARY``, else one in the user's data folder. Models run on
        ``device`` (auto, cpu, cuda, cuda:N or mps) in ``dtype`` (auto, float32, bfloat16, float16
        or, on a CPU, int8). Before a model is downloaded, ``on_download`` is called with its name,
        and returns a function that is called with the bytes so far and in all (None if unknown).
        Raise ``LibraryError`` if there is no library, or if it cannot be used.
        """
        named = default_library_folder() if folder is None else folder
        store, cluster = opening.opened_at(named, create=create)
        made = cls(store, device=device, dtype=dtype, on_download=on_download)
        made._cluster = cluster
        return made

    def close(self) -> None:
        """Close the database."""
        self._searcher = None  # its index may have the database open, too
        opening.closed(self._cluster, self._store)

    def __enter__(self) -> "Library":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def folder(self) -> Path:
        """The library's folder."""
        return self._store.folder

    @property
    @_telling
    def model(self) -> str | None:
        """The name of the model that the library uses; None before anything is indexed."""
        row = self._store.model()
        return None if row is None else row.name

    @property
    def better_bundled(self) -> str | None:
        """The name of the bundled model, if it is better than the one that the library uses.

        None unless the library uses a model that an earlier version of fovea came with.
        """
        return better_bundled(self._store.model())

    @property
    @_telling
    def roots(self) -> list[Path]:
        """The folders that the library covers."""
        return [Path(os.fsdecode(root.path)) for root in self._store.roots()]

    @property
    def is_writable(self) -> bool:
        """Whether the library can be changed here; one that cannot is searched all the same."""
        return self._store.is_writable

    @_telling
    def counts(self) -> "Counts":
        """Count images, embeddings, and files by state."""
        return opening.counts_on(self._cluster, self._store)

    # Indexing

    @_telling
    def index(
        self,
        *folders: str | os.PathLike[str],
        model: str | os.PathLike[str] | None = None,
        ignore: Iterable[str] = (),
        confirm_deletions: bool = False,
        reread: bool = False,
        dry_run: bool = False,
        places: bool | None = None,
        workers: int | None = None,
        batch_size: int | None = None,
        progress: "Callable[[Progress], None] | None" = None,
        stop: Event | None = None,
    ) -> "ScanReport":
        """Bring the library up to date with these folders, or with all that it covers.

        A new library uses ``model``, else the best one on this disk, else the bundled one; only
        a model that is named, or that the library already uses, is downloaded. ``ignore`` has
        gitignore patterns. ``reread`` reads all files anew, or those in ``folders``, which may name
        files too, whatever their size and times say. ``dry_run`` counts what would happen; it
        writes and downloads nothing. ``places`` switches places by name on or off, now and later;
        off forgets those known. ``progress`` is called ten times a second. ``stop`` ends the run
        after the batch in flight, and Ctrl-C sets it; without ``stop``, ``KeyboardInterrupt`` is
        raised then.
        Raise ``ModelChanged`` if the library uses another model than ``model``, ``LibraryBusy``
        while another process is indexing, ``FoveaError`` for a missing folder.
        """
        from fovea.indexer.scanning.scan import check_request, index_folders

        self._check_own("fovea index does")
        if isinstance(ignore, str):
            raise TypeError("ignore is a list of patterns, not one string")
        if not dry_run:
            self._store.check_writable()
        named, name = [user_path(folder) for folder in folders], _name(model)
        check_request(self._store, named, name, reread=reread)
        current = self._store.model()
        info = resolve_model(name, current, network=not dry_run, progress=self._on_download)
        if places is not None and not dry_run:
            switch_places(self._store, places)
        report = index_folders(
            self._store,
            named,
            model=info,
            load_encoder=lambda: info.load(device=self._device, dtype=self._dtype),
            workers=workers,
            batch_size=batch_size,
            reread=reread,
            dry_run=dry_run,
            confirm_deletions=confirm_deletions,
            progress=progress,
            stop=stop,
            ignore=ignore,
        )
        _check_finished(report.stopped, stop)
        return report

    @_telling
    def verify(self, *, quick: bool = False) -> "VerifyReport":
        """Report the state of every file ever seen, and check the database and the index.

        ``quick`` reads no embeddings, and leaves out SQLite's own full check.
        """
        from fovea.indexer.scanning.verify import verify

        self._check_own("fovea verify does")
        return verify(self._store, quick=quick)

    @_telling
    def forget(self, folder: str | os.PathLike[str]) -> int:
        """Remove a folder and its pictures from the library; return how many files those were.

        The files themselves stay as they are. Raise ``LibraryError`` for a folder that the library
        does not cover.
        """
        from fovea.search.errors import LibraryError
        from fovea.search.maintenance.forget import forget_root

        self._check_own("remove its pictures, then run fovea index")
        place = os.fsencode(user_path(folder))
        names = {os.path.abspath(place), os.path.realpath(place)}
        found = [root for root in self._store.roots() if root.path in names]
        if not found:
            covered = ", ".join(map(str, self.roots)) or "no folder yet"
            raise LibraryError(f"{self.folder} does not cover {folder}; it covers {covered}")
        return forget_root(self._store, found[0].id)

    # Safekeeping

    @_telling
    def backup(
        self,
        folder: str | os.PathLike[str],
        *,
        progress: "Callable[[int, int], None] | None" = None,
    ) -> "BackupReport":
        """Copy the database, as it is at this moment, into a new or empty folder, and check it.

        Others may search and index meanwhile. ``progress`` is called with the bytes copied so far,
        and all of them. Raise ``LibraryError`` for a folder that is not empty, ``LibraryDamaged``
        if the library is damaged.
        """
        from fovea.search.maintenance.backup import back_up

        self._check_own("back Milvus up with its own tools")
        return back_up(self._store, user_path(folder), progress)

    @staticmethod
    def restore(
        backup: str | os.PathLike[str],
        folder: str | os.PathLike[str] | None = None,
        *,
        progress: "Callable[[int, int], None] | None" = None,
    ) -> "RestoreReport":
        """Check a backup, and put it in the place of the library in ``folder``, which is kept.

        The default folder is that of ``open``. Raise ``LibraryError`` for a backup that is damaged
        or missing, ``LibraryBusy`` while any process uses the library; nothing has changed then.
        """
        from fovea.search.maintenance.backup import restore

        place = default_library_folder() if folder is None else user_path(folder)
        return restore(user_path(backup), place, progress)

    @staticmethod
    def salvage(
        damaged: str | os.PathLike[str],
        folder: str | os.PathLike[str],
        *,
        progress: "Callable[[str, int], None] | None" = None,
    ) -> "SalvageReport":
        """Read what is whole of a damaged library, row by row, into a new one in ``folder``.

        Index it afterwards: pictures whose embeddings are whole are not embedded again.
        ``progress`` is called with a table's name and the rows read of it. Raise ``LibraryError``
        if ``folder`` has a library, or if nothing can be read.
        """
        from fovea.search.maintenance.salvage import salvage

        return salvage(user_path(damaged), user_path(folder), progress)

    # Searching

    @_telling
    def search(
        self,
        query: str = "",
        *,
        image: "str | os.PathLike[str] | Image | None" = None,
        at: float | None = None,
        k: int = 10,
        likely_only: bool = False,
    ) -> Answer:
        """Return the ``k`` images nearest to a query, to a picture, or to both, best first.

        ``query`` is in the query language (docs/queries.md). Filters alone, or an empty query,
        return the newest images first. A picture has weight 1; of a video it is the frame at ``at``
        seconds. With ``likely_only``, hits end where
        the likely matches end; ``hints`` of an empty answer say why it is empty. Raise
        ``QueryError`` for a malformed query, ``Unanswerable`` if its terms cancel out or the model
        draws no line, ``LibraryError`` for a picture that cannot be read, ``ValueError`` for a
        negative ``k``.
        """
        _check_k(k)
        if not isinstance(query, str):
            raise TypeError(f"a query is a text, not {type(query).__name__}")
        question = replace(Question.of(query), likely_only=likely_only)
        searcher = self._current_searcher()
        if image is not None and searcher.index is not None:
            question = replace(question, pictures=(Picture(self._embedded(image, at)),))
        elif isinstance(image, str | os.PathLike):
            self.find(image)  # a file that cannot be read is an error in an empty library too
        answer = searcher.answer(question, k)
        if searcher.index is None or not any(term.kind == "text" for term in question.query.terms):
            return answer
        reads = languages_of(self._found_encoder().place)
        hint = hint_for(self._store, question.query, searcher.index.model.name, reads)
        return answer if hint is None else replace(answer, hints=(*answer.hints, hint))

    @_telling
    def similar(
        self,
        picture: "SupportsIndex | str | os.PathLike[str] | Image",
        *,
        at: float | None = None,
        k: int = 10,
        likely_only: bool = False,
    ) -> Answer:
        """Return the ``k`` images nearest to a picture: an image id, a file, or one in memory.

        A file need not be in the library; if its content is, that image is left out of the hits. Of
        a video, ``at`` chooses the moment in which that second lies; one stands for all without it.
        With ``likely_only``, hits end where the likely matches end. Raise ``LibraryError`` for a
        file that cannot be read, ``Unanswerable`` for an unknown id or where the model draws no
        line, ``ValueError`` for a negative ``k``.
        """
        _check_k(k)
        searcher = self._current_searcher()
        question = self._nearness(picture, searcher, at)
        return searcher.answer(replace(question, likely_only=likely_only), k)

    def _nearness(
        self,
        picture: "SupportsIndex | str | os.PathLike[str] | Image",
        searcher: Searcher,
        at: float | None,
    ) -> Question:
        """Return the question for what is near a picture, without that picture itself."""
        moment = _milliseconds(at)
        if isinstance(picture, SupportsIndex):
            return Question.like(int(picture), moment)
        known = self.find(picture) if isinstance(picture, str | os.PathLike) else None
        if searcher.index is None:
            return Question.of("")
        if known and searcher.source.vector(known) is not None:
            return Question.like(known, moment)
        return replace(Question.of("", Picture(self._embedded(picture, at))), without=known)

    @_telling
    def find(self, file: str | os.PathLike[str]) -> int | None:
        """Return the id of the image with a file's content; None if the library does not have it.

        Raise ``LibraryError`` for a file that cannot be read.
        """
        from fovea.indexer.workers.query_image import content_hash

        digest = content_hash(user_path(file))
        opening.hold_content(self._cluster, self._store, digest)
        return self._store.image_by_hash([digest]).get(digest)

    @_telling
    def paths(self, image_id: int) -> tuple[str, ...]:
        """Return the paths of an image's files, those online first; empty for an unknown id."""
        place = places(self._store, [image_id]).get(image_id)
        return () if place is None else place.paths

    # Models

    @_telling
    def use_model(
        self,
        name: str | os.PathLike[str],
        *,
        incomplete: bool = False,
        workers: int | None = None,
        batch_size: int | None = None,
        progress: "Callable[[SwitchProgress], None] | None" = None,
        stop: Event | None = None,
    ) -> "SwitchReport":
        """Embed all pictures with another model, then use it.

        The library uses its current model until all pictures are embedded. It stays with that one
        if pictures are offline or too many cannot be read, unless ``incomplete`` leaves them
        behind; see the report's ``switched``. Going back is instant. Raise ``ModelError`` if the
        model does not exist or cannot be loaded.
        """
        from fovea.indexer.switching.switch import switch_model
        from fovea.search.maintenance.changeover import resolve_in

        self._check_own("fovea models use does")
        self._store.check_writable()
        info = resolve_in(self._store, _name(name) or "", progress=self._on_download)
        report = switch_model(
            self._store,
            model=info,
            load_encoder=lambda: info.load(device=self._device, dtype=self._dtype),
            workers=workers,
            batch_size=batch_size,
            incomplete=incomplete,
            progress=progress,
            stop=stop,
        )
        _check_finished(report.stopped, stop)
        return report

    @_telling
    def better_model(self) -> Offer | None:
        """Return a better model for ``use_model``; None if the library has one, or there is none.

        Its ``bytes`` are about those of its download, 0 if it is on this disk. From a former
        bundled model it is the best one on this disk, or else the bundled one. Nothing is
        downloaded; where downloads are switched off, models that would need one are not offered.
        """
        return better_model(self._store.model())

    # The model and the searcher in use

    def _current_searcher(self) -> Searcher:
        """Return the searcher for the library's model, opening it anew after a change of model."""
        row, known = self._store.model(), self._searcher
        if self._cluster is not None:
            return opening.searcher_on(self._cluster, self._store, TextsLater(self._found_encoder))
        if row is None:
            return Searcher.of(self._store, None, None)
        if known is None or known.index is None or known.index.model.id != row.id:
            self._encoder = None
            known = self._searcher = Searcher.of(self._store, row, TextsLater(self._found_encoder))
        elif known.background is None:  # indexing may have saved it since
            background = Background.load(self.folder, row.identity)
            known = self._searcher = replace(known, background=background)
        return known

    def _found_encoder(self) -> LazyEncoder:
        """Return the encoder of the searcher's model, which need not be on this disk before."""
        if self._encoder is None:
            model = resolve_model(None, self._store.model(), progress=self._on_download)
            self._encoder = LazyEncoder.of(model, device=self._device, dtype=self._dtype)
        return self._encoder

    def _embedded(
        self, picture: "str | os.PathLike[str] | Image", at: float | None
    ) -> "np.ndarray":
        """Return a picture's unit vector, float32 (d,); a file is decoded in a separate process."""
        encoder = self._found_encoder()
        if not isinstance(picture, str | os.PathLike):
            from PIL.Image import Image

            if not isinstance(picture, Image):
                kind = type(picture).__name__
                raise TypeError(f"a picture is a path or a PIL.Image.Image, not {kind}")
            if at is not None:
                raise TypeError("only a video has a time")
            return encoder.encode_images([picture])[0]
        from fovea.indexer.workers.query_image import QueryImageDecoder

        with QueryImageDecoder(encoder.preprocess) as decoder:  # starts while torch is imported
            encoder.full()
            pixels = decoder.pixels(user_path(picture), _milliseconds(at))
        return encoder.encode_pixels(pixels[None])[0]


def _check_k(k: int) -> None:
    """Raise ``TypeError`` or ``ValueError`` for what is no number of hits, before any search."""
    if not isinstance(k, SupportsIndex):
        raise TypeError(f"k is a number of hits, not {type(k).__name__}")
    if k.__index__() < 0:
        raise ValueError(f"k is {k}; it cannot be negative")


def _milliseconds(at: float | None) -> int | None:
    """Return seconds in milliseconds. Raise ``ValueError`` for what is no time of a video."""
    if at is None:
        return None
    if not 0 <= at < 1e6:
        raise ValueError(f"at is {at}; it must be the seconds since a video's beginning")
    return round(1000 * at)


def _check_finished(stopped: bool, stop: Event | None) -> None:
    """Raise ``KeyboardInterrupt`` if Ctrl-C ended a run; the batch in flight is written by then."""
    if stopped and stop is None:
        raise KeyboardInterrupt


def _name(model: str | os.PathLike[str] | None) -> str | None:
    """Return a model's name, or its path in a form that is never mistaken for a name."""
    if model is None or isinstance(model, str):
        return model
    return os.path.abspath(user_path(model))
