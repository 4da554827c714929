"""Take changed files through decoding, embedding and writing, a batch at a time."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain

import numpy as np

from fovea.indexer.decoding.limits import Limits
from fovea.indexer.workers.pool import USUAL_BATCH, Outcome, Pool, Task, batch_of
from fovea.search.clip.errors import FoveaError
from fovea.search.clip.preprocess import Preprocess
from fovea.search.clip.protocols import IndexingEncoder
from fovea.search.library.library import Library
from fovea.search.library.rows import FileState, FileWrite, ImageMetadata, NewImage, WriteBatch

SETTLED = 500  # rows that need no embedding are written when so many wait,
SETTLED_S = 5.0  # or after so long
LENGTH_ERROR = 1e-2  # by which the length of an embedding may differ from 1
UNSOUND = "not embedded: the model gave no unit vector for it"


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
    tally: Tally = field(default_factory=Tally)
    gained: set[int] = field(default_factory=set)  # images that a file new to them shows
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
        self._write([], np.empty((0, 0), np.float32), [])

    def _tasks(self, changes: Iterator[Task | FileWrite | None]) -> Iterator[Task | None]:
        """Yield the tasks among the changes, and set aside the rows that need no reading."""
        for change in changes:
            if self.stop.is_set():
                return
            if isinstance(change, FileWrite):
                self._settle(change)
                if self._due():
                    self._write([], np.empty((0, 0), np.float32), [])
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
                    if len(self._pictures) >= self._batch or self._due():
                        self._flush(pool)
                    self.tick(self.tally)
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
            self.tally.failed += 1
            self._unreached.setdefault(outcome.reason or "", []).append(outcome.task.path)
        else:
            reason = outcome.reason or "broken"
            state: FileState = "skipped" if reason.startswith("not a file") else "failed"
            self._settle(_row(outcome, state, reason))

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
        new: dict[bytes | None, Outcome] = {}  # of several files with one content, the first
        for outcome in self._pictures:
            if ids.get(outcome.hash or b"") not in embedded:
                new.setdefault(outcome.hash, outcome)
        vectors = self._encode(pool, list(new.values()))
        sound = checked_rows(vectors, is_first=not self.tally.embedded)
        good = dict(zip(new, sound, strict=True))
        files: list[FileWrite] = []
        for outcome in outcomes:
            image_id = ids.get(outcome.hash or b"")
            if outcome.hash not in new and image_id not in embedded:
                # It was known, but its image has been deleted meanwhile.
                pool.retry(outcome.task._replace(force=True))
            elif not good.get(outcome.hash, True):
                self._settle(_row(outcome, "failed", UNSOUND))
            else:
                self._count(outcome, image_id, new.get(outcome.hash) is outcome)
                files.append(_row(outcome, "indexed"))
        for outcome in self._pictures:
            assert outcome.slot is not None
            pool.release(outcome.slot)
        self._pictures, self._known = [], []
        kept = [outcome for outcome, fine in zip(new.values(), sound, strict=True) if fine]
        self._write(kept, vectors[sound], files)

    def _count(self, outcome: Outcome, image_id: int | None, embedded: bool) -> None:
        """Count an indexed file as embedded, unchanged or moved."""
        before = outcome.task.image_id
        if image_id is not None and image_id != before:
            self.gained.add(image_id)
        if embedded:
            self.tally.embedded += 1
        elif image_id is not None and image_id == before:
            self.tally.same += 1
        else:
            self.tally.moved += 1

    def _encode(self, pool: Pool, outcomes: list[Outcome]) -> np.ndarray:
        """Embed decoded pictures: float32 unit rows (n, d)."""
        if not outcomes:
            return np.empty((0, 0), np.float32)
        slots = np.array([outcome.slot for outcome in outcomes], np.int64)
        encoder = self.load_encoder()
        if self.batch_size is None:
            self._batch = batch_of(encoder)
            pool.widen(self._batch)
        return encoder.encode_pixels(pool.pixels[slots])

    def _write(self, new: list[Outcome], vectors: np.ndarray, files: list[FileWrite]) -> None:
        images = [
            NewImage(outcome.hash or b"", outcome.bytes, ImageMetadata(**outcome.facts), vector)
            for outcome, vector in zip(new, vectors, strict=True)
        ]
        if images or files or self._settled:
            batch = WriteBatch(images, [*files, *self._settled], self.model_id)
            self.library.write_batch(batch)
        for reason, paths in self._unreached.items():
            self.library.note(paths, f"{reason}; kept as it was")
        self._settled, self._unreached = [], {}
        self._flushed = time.monotonic()


def checked_rows(vectors: np.ndarray, *, is_first: bool) -> np.ndarray:
    """Say which rows are unit vectors: bool (n,).

    Raise ``FoveaError`` if none of the first batch is: the model does not work here.
    """
    with np.errstate(all="ignore"):
        sound: np.ndarray = np.abs(np.linalg.norm(vectors, axis=1) - 1) < LENGTH_ERROR
    if len(sound) > 1 and not sound.any() and is_first:
        raise FoveaError(
            f"the model gave no embedding for any of the first {len(sound)} pictures; "
            "try float32 as dtype, or another model"
        )
    return sound


def _row(outcome: Outcome, state: FileState, reason: str | None = None) -> FileWrite:
    return FileWrite(
        outcome.task.path,
        outcome.task.root_id,
        outcome.size,
        outcome.mtime_ns,
        outcome.hash if state == "indexed" else None,
        state,
        reason,
    )
