"""Take changed files through decoding, embedding and writing, a batch at a time."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Literal

import numpy as np

from fovea.indexer.decoding.limits import Limits, one_line, unexpected
from fovea.indexer.workers.pool import USUAL_BATCH, Outcome, Pool, Task, batch_of
from fovea.search.clip.preprocess import Preprocess
from fovea.search.clip.protocols import IndexingEncoder
from fovea.search.library.library import Library
from fovea.search.library.rows import (
    FileState,
    FileWrite,
    ImageMetadata,
    Moments,
    NewImage,
    WriteBatch,
)
from fovea.search.maintenance.forget import forget_thumbnails

from .moments import embedded_moments, pictures_in
from .refusals import UNSTORED, encoded, is_refusal, write_each

InHand = Callable[[str, Sequence[bytes]], None]  # (doing, paths)

SETTLED = 500  # rows that need no embedding are written when so many wait,
SETTLED_S = 5.0  # or after so long


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run has come."""

    found: int  # files so far; final once ``walking`` is over
    done: int  # of them dealt with, unchanged ones included
    embedded: int
    failed: int
    skipped: int
    rate: float  # files embedded per second, since the first one
    walking: bool


@dataclass(slots=True)
class Tally:
    """What became of the files that changed."""

    embedded: int = 0
    moved: int = 0
    same: int = 0  # written again with the same content
    failed: int = 0
    skipped: int = 0
    gone: int = 0  # disappeared between the walk and their turn

    @property
    def done(self) -> int:
        return self.embedded + self.moved + self.same + self.failed + self.skipped + self.gone


@dataclass(frozen=True, slots=True)
class _Ready:
    """A file whose content is known or has just been embedded, and what it is to be counted as."""

    outcome: Outcome
    image_id: int | None  # of its content, if that is stored already
    counts_as: Literal["embedded", "moved", "same"]
    image: NewImage | None = None  # to store with it
    refreshed: NewImage | None = None  # a known image, whose metadata have been read anew


@dataclass(slots=True)
class Pipeline:
    """Takes the changed files of one run to rows: workers decode, this thread embeds and writes."""

    library: Library
    model_id: int
    preprocess: Preprocess
    load_encoder: Callable[[], IndexingEncoder]  # called for each batch; the caller caches it
    limits: Limits
    workers: int
    batch_size: int | None  # None: as many as the encoder takes in one pass
    stop: threading.Event
    tick: Callable[[Tally], None] = lambda tally: None
    in_hand: InHand | None = None  # told what is done to which files, before it is done
    tally: Tally = field(default_factory=Tally)
    gained: set[int] = field(default_factory=set)  # images that a file new to them shows
    problems: list[tuple[bytes, str]] = field(default_factory=list)  # not even a failure is stored
    _pictures: list[Outcome] = field(default_factory=list)
    _known: list[Outcome] = field(default_factory=list)
    _settled: list[FileWrite] = field(default_factory=list)
    _unreached: dict[str, list[bytes]] = field(default_factory=dict)  # reason -> paths; rows stay
    _batch: int = USUAL_BATCH
    _flushed: float = field(default_factory=time.monotonic)

    def run(self, changes: Iterator[Task | FileWrite | None]) -> None:
        """Process all changes; or, once ``stop`` is set, those decoded so far."""
        self._batch = self.batch_size or USUAL_BATCH
        tasks = self._tasks(changes)
        first = next((task for task in tasks if task is not None), None)
        if first is not None:
            self._decode(chain([first], tasks))
        self._write([])
        self._show("", [])

    def _tasks(self, changes: Iterator[Task | FileWrite | None]) -> Iterator[Task | None]:
        """Yield the tasks among the changes, and set aside the rows that need no reading."""
        for change in changes:
            if self.stop.is_set():
                return
            if isinstance(change, FileWrite):
                self._settle(change)
                if self._due():
                    self._write([])
            else:
                yield change
                if change is None:
                    self.tick(self.tally)

    def _decode(self, tasks: Iterator[Task | None]) -> None:
        with Pool(
            self.preprocess,
            self.limits,
            workers=self.workers,
            batch_size=self._batch,
            known=self._embedded_hashes(),
        ) as pool:
            while True:
                for outcome in pool.outcomes(tasks):
                    if outcome is not None:
                        self._sort(outcome)
                    if pictures_in(self._pictures) >= self._batch or self._due():
                        self._flush(pool)
                    self.tick(self.tally)
                    if self.in_hand is not None:
                        self.in_hand("decoding", pool.in_hand)
                    if self.stop.is_set():
                        break
                self._flush(pool)
                if self.stop.is_set() or not pool.retrying:
                    return

    def _embedded_hashes(self) -> Iterator[bytes]:
        rows = self.library.rows(
            "SELECT hash FROM images JOIN embeddings ON image_id = images.id WHERE model_id = ?",
            (self.model_id,),
        )
        return (hash for (hash,) in rows)

    def _sort(self, outcome: Outcome) -> None:
        if outcome.outcome == "pixels":
            self._pictures.append(outcome)
        elif outcome.outcome == "known":
            self._known.append(outcome)
        elif outcome.outcome == "gone":
            self.tally.gone += 1
        elif outcome.outcome == "unreachable" and outcome.task.image_id is not None:
            self._keep(outcome, outcome.reason or "")
        elif outcome.outcome == "failed" and self._is_as_it_was(outcome):
            self._keep(outcome, outcome.reason or "")
        else:
            reason = outcome.reason or "broken"
            state: FileState = "skipped" if reason.startswith("not a file") else "failed"
            self._settle(_row(outcome, state, reason))

    def _is_as_it_was(self, outcome: Outcome) -> bool:
        """Whether a file that cannot be decoded now has the content that was, once.

        It is only met where reading anew was asked for; of a file that could not even be read then,
        the stamps must tell.
        """
        image_id = outcome.task.image_id
        if image_id is None:
            return False
        if outcome.hash is None:
            return outcome.task.reread
        return self.library.image_by_hash([outcome.hash]).get(outcome.hash) == image_id

    def _keep(self, outcome: Outcome, reason: str) -> None:
        """Note why a file cannot be read or embedded now; what the library knows of it stays."""
        self.tally.failed += 1
        self._unreached.setdefault(reason, []).append(outcome.task.path)

    def _settle(self, row: FileWrite) -> None:
        self._settled.append(row)
        if row.state == "failed":
            self.tally.failed += 1
        else:
            self.tally.skipped += 1

    def _due(self) -> bool:
        waiting = len(self._settled) + len(self._known)
        waiting += sum(map(len, self._unreached.values()))
        late = time.monotonic() - self._flushed > SETTLED_S
        return waiting >= SETTLED or (late and waiting > 0)

    def _flush(self, pool: Pool) -> None:
        """Encode and write what has been decoded, in one transaction."""
        if not (self._pictures or self._known or self._settled or self._unreached):
            return
        outcomes = self._pictures + self._known
        ids = self.library.image_by_hash(outcome.hash for outcome in outcomes if outcome.hash)
        embedded = self.library.has_embedding(ids.values(), self.model_id)
        new: dict[bytes, Outcome] = {}  # of several files with one content, the first
        for outcome in self._pictures:
            if ids.get(outcome.hash or b"") not in embedded:
                new.setdefault(outcome.hash or b"", outcome)
        vectors, reasons = self._encode(pool, list(new.values()))
        described = dict(zip(new, zip(vectors, reasons, strict=True), strict=True))
        moments = self._moments(new)
        ready: list[_Ready] = []
        for outcome in outcomes:
            digest = outcome.hash or b""
            image_id, before = ids.get(digest), outcome.task.image_id
            vector, reason = described.get(digest, (None, None))
            if digest not in new and image_id not in embedded:
                # It was known, but its image has been deleted meanwhile.
                pool.retry(outcome.task._replace(force=True))
            elif reason is not None and image_id is not None and image_id == before:
                self._keep(outcome, reason)  # the image, and another model's embedding of it
            elif reason is not None:
                self._settle(_row(outcome, "failed", reason))
            else:
                is_new = new.get(digest) is outcome
                self._prepare(ready, outcome, image_id, vector, is_new, moments.get(digest))
        for outcome in self._pictures:
            assert outcome.slot is not None
            pool.release(outcome.slot)
        self._pictures, self._known = [], []
        self._write(ready)

    def _prepare(
        self,
        ready: list[_Ready],
        outcome: Outcome,
        image_id: int | None,
        vector: np.ndarray | None,
        is_new: bool,
        moments: Moments | None,
    ) -> None:
        try:
            ready.append(_ready(outcome, image_id, vector, is_new, moments))
        except Exception as exc:  # whatever it is, it is the failure of this file
            self._settle(_row(outcome, "failed", unexpected(exc)))

    def _encode(self, pool: Pool, outcomes: list[Outcome]) -> tuple[np.ndarray, list[str | None]]:
        """Embed decoded pictures: float32 unit rows (n, d), and why not those that have none."""
        if not outcomes:
            return np.empty((0, 0), np.float32), []
        self._show("embedding", (outcome.task.path for outcome in outcomes))
        slots = np.array([outcome.slot for outcome in outcomes], np.int64)
        pixels = pool.pixels[slots]
        encoder = self.load_encoder()
        if self.batch_size is None:
            self._batch = batch_of(encoder)
            pool.widen(self._batch)
        return encoded(encoder, pixels, self._dim(), is_first=not self.tally.embedded)

    def _dim(self) -> int:
        return next(row.dim for row in self.library.models() if row.id == self.model_id)

    def _moments(self, outcomes: Mapping[bytes, Outcome]) -> dict[bytes, Moments]:
        """Embed the moments of the videos among some contents."""
        videos = {key: one for key, one in outcomes.items() if one.frames is not None}
        if not videos:
            return {}
        encoder, dim = self.load_encoder(), self._dim()
        found = {key: embedded_moments(encoder, one, dim) for key, one in videos.items()}
        return {key: one for key, one in found.items() if one is not None}

    def _show(self, doing: str, paths: Iterable[bytes]) -> None:
        if self.in_hand is not None:
            self.in_hand(doing, list(paths))

    # Writing: a batch in one transaction; if the database refuses it, one file at a time

    def _write(self, ready: list[_Ready]) -> None:
        """Write what is ready and what is settled."""
        if ready or self._settled:
            self._show("storing", (entry.outcome.task.path for entry in ready))
            images = [entry.image for entry in ready if entry.image is not None]
            refreshed = [entry.refreshed for entry in ready if entry.refreshed is not None]
            files = [_row(entry.outcome, "indexed") for entry in ready]
            try:
                self._store(images, [*files, *self._settled], refreshed)
            except Exception as exc:  # sqlite3 raises many kinds for a value that it cannot take
                if not is_refusal(exc):
                    raise
                self._write_each(ready, exc)
            else:
                for entry in ready:
                    self._count(entry)
        for reason, paths in self._unreached.items():
            kept = f"{reason}; kept as it was"
            self.problems += write_each(partial(self._note, kept), paths)
        self._settled, self._unreached = [], {}
        self._flushed = time.monotonic()

    def _note(self, reason: str, paths: Sequence[bytes]) -> None:
        self.library.note(paths, reason)

    def _store(
        self,
        images: Sequence[NewImage] = (),
        files: Sequence[FileWrite] = (),
        refreshed: Sequence[NewImage] = (),
    ) -> None:
        self.library.write_batch(WriteBatch(images, files, self.model_id, refreshed))
        forget_thumbnails(self.library.folder, (image.hash for image in refreshed))

    def _write_each(self, ready: list[_Ready], refusal: Exception) -> None:
        """Write a batch that the database has refused one file at a time.

        Raise ``refusal`` if it takes nothing at all, or no content of a run's first batch: then it
        is not a matter of these files.
        """
        taken, contents = 0, 0
        failed: list[FileWrite] = []
        for entry in ready:
            try:
                self._store(
                    [entry.image] if entry.image else [],
                    [_row(entry.outcome, "indexed")],
                    [entry.refreshed] if entry.refreshed else [],
                )
            except Exception as exc:  # as above
                if not is_refusal(exc):
                    raise
                failed += self._refused(entry, f"{UNSTORED}{one_line(str(exc))}")
            else:
                taken, contents = taken + 1, contents + 1
                self._count(entry)
        for row in [*failed, *self._settled]:
            try:
                self._store(files=[row])
                taken += 1
            except Exception as exc:  # as above
                if not is_refusal(exc):
                    raise
                self.problems.append((row.path, f"{row.reason}; {UNSTORED}{one_line(str(exc))}"))
        hopeless = len({entry.outcome.hash for entry in ready}) > 1 and not contents
        if (not taken and len(ready) + len(self._settled) > 1) or (
            hopeless and not self.tally.embedded and not self.tally.same and not self.tally.moved
        ):
            raise refusal

    def _refused(self, entry: _Ready, reason: str) -> list[FileWrite]:
        """Fail a file that the database refuses, unless it shows the same picture as before."""
        self.tally.failed += 1
        task = entry.outcome.task
        if entry.image_id is not None and entry.image_id == task.image_id:
            self.problems.append((task.path, f"{reason}; kept as it was"))
            return []
        return [FileWrite(task.path, task.root_id, -1, -1, None, "failed", reason)]

    def _count(self, entry: _Ready) -> None:
        """Count an indexed file as embedded, unchanged or moved."""
        if entry.image_id is not None and entry.image_id != entry.outcome.task.image_id:
            self.gained.add(entry.image_id)
        if entry.counts_as == "embedded":
            self.tally.embedded += 1
        elif entry.counts_as == "same":
            self.tally.same += 1
        else:
            self.tally.moved += 1


def _ready(
    outcome: Outcome,
    image_id: int | None,
    vector: np.ndarray | None,
    is_new: bool,
    moments: Moments | None = None,
) -> _Ready:
    """Prepare the rows of one file; ``vector`` is its content's, if that has just been embedded."""
    before = outcome.task.image_id
    counts_as: Literal["embedded", "moved", "same"] = "moved"
    if is_new:
        counts_as = "embedded"
    elif image_id is not None and image_id == before:
        counts_as = "same"
    image = refreshed = None
    if outcome.outcome == "pixels":
        known, signature = ImageMetadata(**outcome.facts), outcome.signature
        digest = outcome.hash or b""
        if vector is not None:
            image = NewImage(digest, outcome.bytes, known, vector, signature, moments)
        if image_id is not None and outcome.task.force:
            refreshed = NewImage(digest, outcome.bytes, known, signature=signature)
    return _Ready(outcome, image_id, counts_as, image, refreshed)


def _row(outcome: Outcome, state: FileState, reason: str | None = None) -> FileWrite:
    return FileWrite(
        outcome.task.path,
        outcome.task.root_id,
        outcome.size,
        outcome.mtime_ns,
        outcome.hash if state == "indexed" else None,
        state,
        reason,
        outcome.ctime_ns,
    )
