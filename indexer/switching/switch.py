"""Change a library's model: embed its pictures with the new one, then activate it.

Files are read again where they are, if they still hold what the library knows; nothing is walked,
and indexing with the former model may go on meanwhile. What that adds is embedded before the new
model is activated, which waits for the indexing to end.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import chain
from pathlib import Path

import numpy as np

from fovea.indexer.decoding.limits import Limits
from fovea.indexer.scanning.interrupting import interruptible
from fovea.indexer.scanning.missing import too_many
from fovea.indexer.scanning.moments import embedded_moments, pictures_in
from fovea.indexer.scanning.refusals import encoded
from fovea.indexer.walking.walk import is_empty
from fovea.indexer.workers.host import available_cores
from fovea.indexer.workers.pool import USUAL_BATCH, Outcome, Pool, Task, batch_of
from fovea.search.clip.engines.adapting import adapting
from fovea.search.clip.preprocess import Preprocess
from fovea.search.clip.protocols import IndexingEncoder
from fovea.search.errors import LibraryBusy
from fovea.search.index.view import snapshot_path
from fovea.search.library.facts.stamps import stamps_of
from fovea.search.library.library import Library
from fovea.search.library.rows import ModelRow, Moments
from fovea.search.maintenance.changeover import (
    LOOK_S,
    FileCopy,
    StoredImage,
    activate,
    add_embeddings,
    changing,
    images_to_embed,
    next_model,
    set_next_model,
)
from fovea.search.maintenance.prepare import prepare
from fovea.search.models.info import ModelInfo
from fovea.search.query.likelihood import background_path
from fovea.search.query.measured import measured_in

__all__ = ["SwitchProgress", "SwitchReport", "switch_model"]

TAKE_OVER_S = 120.0  # for another process to end its last batch
WAIT_S = 1.0  # between two looks at whether another process still indexes
REPORT_S = 0.1  # between two calls of ``progress``
UNREADABLE = "unreadable:"  # how the reason begins where only permissions are in the way


@dataclass(frozen=True, slots=True)
class SwitchProgress:
    """How far a switch has come."""

    images: int  # searchable ones
    embedded: int  # of them, with the new model
    rate: float  # pictures embedded per second by this run
    waiting: str | None = None  # for whom, when all is embedded but another process indexes


@dataclass(frozen=True, slots=True)
class SwitchReport:
    """What a switch did. Pictures that were not embedded are in one of the last three counts."""

    switched: bool
    images: int  # searchable ones
    embedded: int  # by this run
    seconds: float
    stopped: bool = False
    superseded: bool = False  # another model was asked for meanwhile
    unreachable: int = 0  # their folder is offline, or their files cannot be read now
    changed: int = 0  # their files have changed or disappeared since they were indexed
    failed: int = 0  # they cannot be decoded now, or the model gave no vector


def switch_model(
    library: Library,
    *,
    model: ModelInfo,
    load_encoder: Callable[[], IndexingEncoder],
    workers: int | None = None,
    batch_size: int | None = None,
    incomplete: bool = False,
    only_embed: bool = False,
    progress: Callable[[SwitchProgress], None] | None = None,
    stop: threading.Event | None = None,
    limits: Limits | None = None,
    wait_s: float | None = None,
) -> SwitchReport:
    """Embed all searchable pictures with another model, then make it the library's.

    Until then the library uses the former model. It keeps it while pictures are unreachable (in
    folders that are offline) or too many of them have changed, disappeared or broken at once;
    ``incomplete`` activates the model nevertheless, and what is not embedded is not searchable
    until indexing finds it. What has been embedded stays, so that the same call resumes after an
    interruption. ``load_encoder`` is called when the first picture is decoded. The library is
    prepared for the new model's answers before it is activated. With ``only_embed``
    it stays as it is.

    Ctrl-C, or ``stop``, ends the run after the batch in flight; so does another change of model
    that is asked for meanwhile. Raise ``LibraryBusy`` if another process still embeds after
    ``wait_s`` seconds: by default one that does so for another model is given time to notice.
    """
    started = time.monotonic()
    stop = stop or threading.Event()
    row = library.add_model(model.name, model.identity, model.dim, model.source)
    if not only_embed:
        before = next_model(library)
        if wait_s is None and before is not None and before.id != row.id:
            wait_s = TAKE_OVER_S
        set_next_model(library, row.id)
    with changing(library, LOOK_S if wait_s is None else wait_s), interruptible(stop):
        switch = _Switch(
            library,
            row,
            model.folder,
            model.preprocess,
            cache(adapting(load_encoder)),
            limits or Limits(),
            workers or available_cores(),
            batch_size,
            stop,
            progress,
            follows=not only_embed,
        )
        report = switch.embed_only() if only_embed else switch.run(incomplete)
    return replace(report, seconds=round(time.monotonic() - started, 3))


@dataclass(slots=True)
class _Tally:
    """What became of the images that were to be embedded; each is in one set at most."""

    embedded: int = 0
    unreachable: set[int] = field(default_factory=set)
    changed: set[int] = field(default_factory=set)
    failed: set[int] = field(default_factory=set)

    @property
    def left(self) -> set[int]:
        return self.unreachable | self.changed | self.failed


@dataclass(slots=True)
class _Switch:
    """One call of ``switch_model``."""

    library: Library
    row: ModelRow
    place: Path  # the model's folder or weights file
    preprocess: Preprocess
    load_encoder: Callable[[], IndexingEncoder]
    limits: Limits
    workers: int
    batch_size: int | None
    stop: threading.Event
    progress: Callable[[SwitchProgress], None] | None
    follows: bool  # the announced change of model: another one ends this run
    tally: _Tally = field(default_factory=_Tally)
    superseded: bool = False
    _under_way: dict[int, StoredImage] = field(default_factory=dict)
    _reachable: dict[int, bool] = field(default_factory=dict)  # by root
    _before: int = 0  # embedded when this run began
    _images: int = 0
    _first: float | None = None
    _batch: int = USUAL_BATCH
    _reported: float = 0.0

    # The run

    def run(self, incomplete: bool) -> SwitchReport:
        """Embed, wait until nobody indexes, and activate the model."""
        self._count()
        self._embed()
        if self._ended():
            return self._report(switched=False)
        if self.tally.embedded or not self._is_prepared():  # it may take minutes; nobody waits yet
            prepare(self.library, self.row, self.load_encoder, self.place)
        while not self._ended():
            try:
                with self.library.writing():
                    self._embed()  # what was indexed since
                    if self._ended():
                        break
                    complete = incomplete or self._is_complete()
                    switched = complete and activate(self.library, self.row.id, self.tally.left)
                    return self._report(switched=switched)
            except LibraryBusy as exc:
                self._tell(waiting=str(exc))
                self.stop.wait(WAIT_S)
                self._embed()
        return self._report(switched=False)

    def embed_only(self) -> SwitchReport:
        """Embed what is there now."""
        self._count()
        self._embed()
        return self._report(switched=False)

    def _is_prepared(self) -> bool:
        """Whether the model's index and background are there, from an earlier use."""
        background = background_path(self.library.folder, self.row.identity)
        needs_none = measured_in(self.place, self.row.identity, self.row.dim) is None
        there = needs_none or background.exists()
        return there and snapshot_path(self.library, self.row.id).exists()

    def _ended(self) -> bool:
        """Whether this run must end without activating the model."""
        if self.follows and not self.superseded:
            wanted = next_model(self.library)
            self.superseded = wanted is None or wanted.id != self.row.id
        return self.stop.is_set() or self.superseded

    def _is_complete(self) -> bool:
        """Whether no more is left unembedded than the files that change in everyday use."""
        lost = len(self.tally.changed) + len(self.tally.failed)
        embedded = self._before + self.tally.embedded
        return not self.tally.unreachable and not too_many(lost, embedded)

    def _report(self, *, switched: bool) -> SwitchReport:
        tally = self.tally
        [(images,)] = self.library.rows("SELECT count(*) FROM shown")
        return SwitchReport(
            switched=switched,
            images=images,
            embedded=tally.embedded,
            seconds=0.0,
            stopped=self.stop.is_set() and not switched,
            superseded=self.superseded,
            unreachable=len(tally.unreachable),
            changed=len(tally.changed),
            failed=len(tally.failed),
        )

    # Embedding

    def _count(self) -> None:
        """Find out how much there is to do."""
        [(self._images, self._before)] = self.library.rows(
            "SELECT count(*), count(embeddings.id) FROM shown LEFT JOIN embeddings "
            "ON embeddings.image_id = shown.image_id AND model_id = ?",
            (self.row.id,),
        )

    def _embed(self) -> None:
        """Embed what the model has not embedded yet, except what this run has failed to."""
        tasks = self._tasks()
        first = next(tasks, None)
        if first is None:
            return
        pictures: list[Outcome] = []
        self._batch = self.batch_size or USUAL_BATCH
        with Pool(
            self.preprocess, self.limits, workers=self.workers, batch_size=self._batch
        ) as pool:
            waiting = chain([first], tasks)
            while True:
                for outcome in pool.outcomes(waiting):
                    if outcome is not None and self._is_sound(pool, outcome):
                        pictures.append(outcome)
                    if pictures_in(pictures) >= self._batch:
                        self._write(pool, pictures)
                        pictures = []
                        if self._ended():
                            return
                    self._tell()
                    if self.stop.is_set():
                        break
                self._write(pool, pictures)
                pictures = []
                if self._ended() or not pool.retrying:
                    break
        self._tell(last=True)

    def _tasks(self) -> Iterator[Task]:
        for image in images_to_embed(self.library, self.row.id):
            if self.stop.is_set():
                return
            if image.id not in self.tally.left:
                self._under_way[image.id] = image
                yield _task(image, image.copies[0])

    def _is_sound(self, pool: Pool, outcome: Outcome) -> bool:
        """Whether a file was decoded and still has the content that the library knows.

        If not, note why, and try the image's next copy.
        """
        image_id = outcome.task.image_id
        assert image_id is not None
        image = self._under_way[image_id]
        if outcome.outcome == "pixels":
            if outcome.hash == image.hash:
                return True
            assert outcome.slot is not None
            pool.release(outcome.slot)
        paths = [copy.path for copy in image.copies]
        tried = paths.index(outcome.task.path) + 1
        self._note(image, image.copies[tried - 1], outcome)
        if tried < len(paths):  # another copy may still be sound
            pool.retry(_task(image, image.copies[tried]))
        else:
            del self._under_way[image.id]
        return False

    def _note(self, image: StoredImage, copy: FileCopy, outcome: Outcome) -> None:
        """Note why an image was not embedded; of several copies, the most hopeful reason."""
        tally = self.tally
        if outcome.outcome == "unreachable" or (outcome.reason or "").startswith(UNREADABLE):
            fate = tally.unreachable
        elif outcome.outcome == "gone":
            fate = tally.changed if self._is_reachable(copy.root_id) else tally.unreachable
        elif outcome.outcome == "pixels" or _has_changed(copy):
            fate = tally.changed
        else:
            fate = tally.failed
        order = (tally.changed, tally.failed, tally.unreachable)
        known = next((there for there in order if image.id in there), None)
        if known is None or order.index(known) < order.index(fate):
            if known is not None:
                known.discard(image.id)
            fate.add(image.id)

    def _is_reachable(self, root_id: int) -> bool:
        """Whether a root is there at all."""
        if root_id not in self._reachable:
            path = next((root.path for root in self.library.roots() if root.id == root_id), None)
            try:
                self._reachable[root_id] = path is not None and not is_empty(path)
            except OSError:
                self._reachable[root_id] = False
        return self._reachable[root_id]

    def _write(self, pool: Pool, pictures: list[Outcome]) -> None:
        """Embed a batch and write it, in one transaction."""
        if not pictures:
            return
        slots = np.array([outcome.slot for outcome in pictures], np.int64)
        pixels = pool.pixels[slots]
        encoder = self.load_encoder()
        if self.batch_size is None:
            self._batch = batch_of(encoder)
            pool.widen(self._batch)
        vectors, reasons = encoded(encoder, pixels, self.row.dim, is_first=not self.tally.embedded)
        sound = np.array([reason is None for reason in reasons])
        ids = []
        moments: dict[int, Moments] = {}
        for outcome, fine in zip(pictures, sound, strict=True):
            assert outcome.slot is not None and outcome.task.image_id is not None
            pool.release(outcome.slot)
            image_id = outcome.task.image_id
            del self._under_way[image_id]
            for noted in (self.tally.unreachable, self.tally.changed, self.tally.failed):
                noted.discard(image_id)  # of its other copies
            if fine:
                ids.append(image_id)
                found = embedded_moments(encoder, outcome, self.row.dim)
                moments |= {} if found is None else {image_id: found}
            else:
                self.tally.failed.add(image_id)
        add_embeddings(self.library, self.row, ids, vectors[sound], moments)
        self.tally.embedded += len(ids)

    def _tell(self, *, waiting: str | None = None, last: bool = False) -> None:
        now = time.monotonic()
        if self.tally.embedded and self._first is None:
            self._first = now
        if self.progress is None or (now - self._reported < REPORT_S and not (last or waiting)):
            return
        self._reported = now
        elapsed = now - self._first if self._first is not None else 0.0
        rate = self.tally.embedded / elapsed if elapsed > 0 else 0.0
        embedded = self._before + self.tally.embedded
        self.progress(SwitchProgress(max(self._images, embedded), embedded, rate, waiting))


def _task(image: StoredImage, copy: FileCopy) -> Task:
    return Task(copy.path, copy.root_id, copy.size, copy.mtime_ns, image.id)


def _has_changed(copy: FileCopy) -> bool:
    """Whether a file's size or time differ from when it was indexed."""
    try:
        stamps = stamps_of(os.stat(copy.path, follow_symlinks=False))
    except OSError:
        return False
    # A file indexed in the tick of its last change is remembered by a time just before it.
    return stamps.size != copy.size or stamps.mtime_ns - copy.mtime_ns not in (0, 1)
