"""Bring the library up to date with the folders on the disk."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Protocol

from fovea.indexer.decoding.decoder_versions import note_decoders
from fovea.indexer.decoding.limits import Limits
from fovea.indexer.walking.prefetch import Ahead
from fovea.indexer.workers.host import available_cores
from fovea.search.clip.preprocess import Preprocess
from fovea.search.errors import FoveaError
from fovea.search.library.files import HELD_REASON
from fovea.search.library.library import Library
from fovea.search.library.paths import printable_name
from fovea.search.library.rows import Root
from fovea.search.maintenance.changeover import images_to_embed

from .changes import Survey, inside, known_files
from .dry_run import Rehearsal
from .missing import DELETED_REASON, MOVED_REASON, Verdict, judged, leftovers
from .pipeline import Pipeline, PixelEncoder, Progress, Tally

AHEAD = 200_000  # changed files that the walk may be ahead of the decoding: about 60 MB
KERNEL = frozenset({b"/dev", b"/proc", b"/sys"})  # left out where a root is around them
REPORT_S = 0.1  # seconds between two calls of ``progress``
HELD = (
    "files are gone or behind links now, too many at once to believe: they stay in answers. "
    "If it is right, run again with --confirm-deletions"
)


class Model(Protocol):
    """What a scan needs to know of a model before it is loaded."""

    @property
    def name(self) -> str: ...
    @property
    def identity(self) -> str: ...
    @property
    def dim(self) -> int: ...
    @property
    def preprocess(self) -> Preprocess: ...
    @property
    def source(self) -> str: ...


class ModelChanged(FoveaError):
    """The library has changed its model since this run's was chosen."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A folder that a scan could not look at, or not believe; what is known of it stays."""

    path: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class ScanReport:
    """What a scan did. ``found`` is the sum of ``embedded``, ``unchanged``, ``moved``, ``failed``
    and ``skipped``, each file counted once; a run that was stopped accounts for fewer.
    """

    found: int  # files with a picture's extension
    embedded: int
    unchanged: int  # as they were last time, failures included: these are not tried again
    moved: int  # new files of a known content: moved, renamed or copied
    deleted: int  # no longer there, and no longer in answers
    failed: int
    skipped: int
    seconds: float
    held: int = 0  # no longer there, but too many at once: kept until confirmed
    passed_over: int = 0  # there, but in no answer any more: a pattern covers them, or a link
    problems: tuple[Problem, ...] = ()  # folders and roots that could not be looked at
    stopped: bool = False
    unembedded: int = 0  # images that keep the library from switching to the model


def index_folders(
    library: Library,
    folders: Sequence[Path | bytes | str] = (),
    *,
    model: Model,
    load_encoder: Callable[[], PixelEncoder],
    workers: int | None = None,
    batch_size: int = 32,
    dry_run: bool = False,
    confirm_deletions: bool = False,
    progress: Callable[[Progress], None] | None = None,
    stop: threading.Event | None = None,
    ignore: Iterable[str] = (),
    limits: Limits | None = None,
    wait_s: float | None = 0.0,
    keeps_model: bool = False,
) -> ScanReport:
    """Walk folders, embed what is new or changed, and note what has moved or gone.

    Without folders, every root is walked again; a folder that is no root yet becomes one.
    ``load_encoder`` is called when the first picture is ready to be embedded. Ctrl-C, or ``stop``,
    ends the run after the batch in flight; a second Ctrl-C at once. ``dry_run`` counts what would
    happen and writes nothing. ``ignore`` holds gitignore patterns, after each root's own.

    A model other than the library's embeds all roots, and answers once nothing is left to embed;
    or once another run has found the same images out of reach, in a root that stays offline. Those
    are in no answer until a run finds them again. With ``keeps_model`` it is a mistake instead:
    ``ModelChanged`` is raised where the library answers by another model by the time it is this
    run's turn.

    Raise ``FoveaError`` for a folder that is none, and ``LibraryBusy`` if another process has been
    indexing for more than ``wait_s`` seconds.
    """
    started = time.monotonic()
    stop = stop or threading.Event()
    scan = _Scan(library, model, tuple(ignore), confirm_deletions, stop, progress)
    paths = [root_path(folder) for folder in folders]
    if dry_run:
        report = scan.rehearse(scan.roots(paths, add=False))
    else:
        with library.writing(wait_s), interruptible(stop):
            if keeps_model and scan.switches():
                raise ModelChanged(
                    f"{library.folder} does not answer by {model.name} any more; "
                    "run the command again"
                )
            roots = scan.roots(paths, add=True)
            scan.limits, scan.batch_size = limits or Limits(), batch_size
            scan.workers = workers or available_cores()
            report = scan.run(roots, load_encoder)
    return replace(report, seconds=round(time.monotonic() - started, 3))


def root_path(folder: Path | bytes | str) -> bytes:
    """Return a folder's absolute path, without links: what is walked is what was meant."""
    return os.path.realpath(os.fsencode(folder))


@contextmanager
def interruptible(stop: threading.Event) -> Iterator[None]:
    """Let the first Ctrl-C set ``stop``, and the second do what it does elsewhere."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's
        return

    def first(number: int, frame: FrameType | None) -> None:
        stop.set()
        signal.signal(signal.SIGINT, before)

    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, first)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class _Scan:
    """One call of ``index_folders``."""

    limits = Limits()
    batch_size = 32
    workers = 1

    def __init__(
        self,
        library: Library,
        model: Model,
        ignore: tuple[str, ...],
        confirmed: bool,
        stop: threading.Event,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        self.library, self.model, self.ignore, self.confirmed = library, model, ignore, confirmed
        self.stop, self.progress = stop, progress
        self._reported = 0.0
        self._first: float | None = None  # when the first picture had been embedded

    # Which roots

    def roots(self, folders: Sequence[bytes], add: bool) -> list[Root]:
        """Choose the roots to walk: those asked for, and the registered ones inside them.

        All of them without a folder, or where the library changes its model. ``add`` registers
        new ones, all or none. Raise ``FoveaError`` for a folder that is no root and cannot be one.
        """
        registered = {root.path: root for root in self.library.roots()}
        new = [path for path in dict.fromkeys(folders) if path not in registered]
        for path in new:
            check_folder(path, root_path(self.library.folder))
        for path in new:
            if add:
                registered[path] = self.library.add_root(path)
            else:
                registered[path] = Root(-len(registered) - 1, path, "online", "", None)
        if not registered:
            raise FoveaError("no folder has been indexed yet; name one: fovea index FOLDER")
        if not folders or self.switches():
            return list(registered.values())
        return [
            root
            for root in registered.values()
            if any(inside(root.path, folder) for folder in folders)
        ]

    def _survey(self, roots: list[Root], model_id: int | None) -> Survey:
        known = known_files(self.library, roots, model_id)
        return Survey(roots, known, self.ignore, KERNEL | {root_path(self.library.folder)})

    # The run itself

    def run(self, roots: list[Root], load_encoder: Callable[[], PixelEncoder]) -> ScanReport:
        """Do all of it, and write it."""
        before = self._left() if self.switches() else None
        model = self.library.add_model(*self._details())
        survey = self._survey(roots, model.id)

        def load() -> PixelEncoder:
            encoder = load_encoder()
            if self.library.model() is None:  # not before: a library without a picture is free
                self.library.set_model(*self._details())
            return encoder

        with Ahead(survey.changes(), AHEAD, survey.halt) as changes:

            def tick(tally: Tally) -> None:
                self._tell(survey, tally, changes.drawing)

            pipeline = Pipeline(
                self.library,
                model.id,
                self.model.preprocess,
                load,
                limits=self.limits,
                workers=self.workers,
                batch_size=self.batch_size,
                stop=self.stop,
                tick=tick,
            )
            pipeline.run(iter(changes))
        if self.stop.is_set():
            return replace(_report(survey, pipeline.tally), stopped=True)
        self.library.mark_present(survey.present)
        verdict = self._settle_leftovers(survey, pipeline.gained)
        self._note_roots(survey)
        report = _report(survey, pipeline.tally, verdict)
        self._tell(survey, pipeline.tally, False, last=True)
        return self._switched(report, before) if self.switches() else report

    def _settle_leftovers(self, survey: Survey, gained: set[int]) -> Verdict:
        """Note what has moved, what was deleted or is passed over, and what is to be confirmed."""
        verdict = judged(self.library, survey, leftovers(survey), gained, self.confirmed)
        self.library.mark_skipped((entry.path, entry.refusal) for entry in verdict.skipped)
        self.library.mark_missing(verdict.moved, MOVED_REASON)
        self.library.mark_missing(verdict.deleted, DELETED_REASON)
        self.library.note((entry.path for entry in verdict.held), HELD_REASON)
        return verdict

    def _note_roots(self, survey: Survey) -> None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        for root in survey.roots:
            if root.id in survey.offline:
                self.library.set_root_state(root.id, "offline")
            else:
                self.library.set_root_state(root.id, "online", scanned_at=now)
        note_decoders(
            self.library, [root.id for root in survey.roots if root.id not in survey.offline]
        )

    # A change of model

    def switches(self) -> bool:
        """Whether the library answers by another model than this run's."""
        current = self.library.model()
        return current is not None and current.identity != self.model.identity

    def _switched(self, report: ScanReport, before: int | None) -> ScanReport:
        """Answer by the model from now on, unless images are left that it has not embedded.

        As many as ``before`` the run are out of reach, and do not hold it up for ever.
        """
        left = self._left()
        if left and left != before:
            return replace(report, unembedded=left)
        model = self.library.set_model(*self._details())
        return replace(report, problems=(*report.problems, *self._left_behind(model.id)))

    def _details(self) -> tuple[str, str, int, str]:
        return self.model.name, self.model.identity, self.model.dim, self.model.source

    def _left(self) -> int | None:
        """Count the images in answers that the model has to embed; None if it is new here."""
        known = (row.id for row in self.library.models() if row.identity == self.model.identity)
        model_id = next(known, None)
        if model_id is None:
            return None
        return sum(1 for _ in images_to_embed(self.library, model_id))

    def _left_behind(self, model_id: int) -> Iterator[Problem]:
        """Name the roots with pictures that leave the answers by a change of model."""
        rows = self.library.rows(
            "SELECT roots.path, count(DISTINCT image_id) FROM files "
            "JOIN roots ON roots.id = root_id WHERE files.state = 'indexed' AND NOT EXISTS "
            "(SELECT 1 FROM embeddings WHERE embeddings.image_id = files.image_id "
            "AND model_id = ?) GROUP BY roots.id",
            (model_id,),
        )
        for path, count in rows:
            yield Problem(
                path, f"{count} pictures are in no answer until {self.model.name} embeds them"
            )

    def _tell(self, survey: Survey, tally: Tally, walking: bool, last: bool = False) -> None:
        now = time.monotonic()
        if tally.embedded and self._first is None:
            self._first = now
        if self.progress is None or (now - self._reported < REPORT_S and not last):
            return
        self._reported = now
        elapsed = now - self._first if self._first is not None else 0.0
        self.progress(
            Progress(
                found=survey.found - tally.gone,
                done=survey.unchanged + tally.done - tally.gone,
                embedded=tally.embedded,
                failed=tally.failed,
                skipped=tally.skipped,
                rate=tally.embedded / elapsed if elapsed > 0 else 0.0,
                walking=walking,
            )
        )

    # What would happen

    def rehearse(self, roots: list[Root]) -> ScanReport:
        """Count what a run would do. Files are read only where one may be a known content."""
        model_id = next(
            (row.id for row in self.library.models() if row.identity == self.model.identity), None
        )
        survey = self._survey(roots, model_id)
        survey.halt = self.stop
        rehearsal = Rehearsal(self.library, model_id, self.limits)
        for change in survey.changes():
            if self.stop.is_set():
                break
            rehearsal.take(change)
            self._tell(survey, rehearsal.tally, True)
        if self.stop.is_set():
            return replace(_report(survey, rehearsal.tally), stopped=True)
        verdict = judged(self.library, survey, leftovers(survey), rehearsal.gained, self.confirmed)
        return _report(survey, rehearsal.tally, verdict)


def check_folder(path: bytes, own: bytes) -> None:
    """Raise ``FoveaError`` for what cannot become a root; ``own`` is the library's folder."""
    name = printable_name(os.fsdecode(path))
    if not os.path.lexists(path):
        raise FoveaError(f"there is no folder {name}; check its name")
    if not os.path.isdir(path):
        raise FoveaError(f"{name} is not a folder; name the folder that it is in")
    if inside(path, own):
        raise FoveaError(f"{name} is the library's own folder; keep it elsewhere: --library DIR")
    try:
        os.scandir(path).close()
    except OSError as exc:
        raise FoveaError(f"cannot list {name}: {exc.strerror}; check its permissions") from exc


def _report(survey: Survey, tally: Tally, verdict: Verdict | None = None) -> ScanReport:
    verdict = verdict or Verdict()
    met = {entry.path for entry in survey.refused}
    refused = sum(entry.path in met for entry in verdict.skipped)
    problems = [Problem(entry.path, entry.reason) for entry in survey.closed]
    for root in survey.roots:
        if root.id in survey.offline:
            problems.append(Problem(root.path, f"offline: {survey.offline[root.id]}"))
        if held := sum(entry.root_id == root.id for entry in verdict.held):
            problems.append(Problem(root.path, f"{held} {HELD}"))
    return ScanReport(
        found=survey.found - tally.gone,
        embedded=tally.embedded,
        unchanged=survey.unchanged + tally.same - refused,
        moved=tally.moved,
        deleted=len(verdict.deleted),
        failed=tally.failed,
        skipped=tally.skipped + refused,
        seconds=0.0,
        held=len(verdict.held),
        passed_over=verdict.passed_over,
        problems=tuple(problems),
    )
