"""Bring the library up to date with the folders on the disk."""

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path

from fovea.indexer.decoding.limits import Limits
from fovea.indexer.placing.place import place_pictures
from fovea.indexer.walking.ignore import Ignore
from fovea.indexer.walking.prefetch import Prefetch
from fovea.indexer.walking.walk import Closed
from fovea.indexer.workers.host import available_cores
from fovea.indexer.workers.pool import Task
from fovea.search.clip.engines.adapting import adapting
from fovea.search.clip.protocols import IndexingEncoder
from fovea.search.errors import FoveaError, ModelError
from fovea.search.library import checks
from fovea.search.library.damage import Check
from fovea.search.library.files import HELD_REASON
from fovea.search.library.library import Library
from fovea.search.library.paths import printable_name
from fovea.search.library.rows import FileWrite, ModelRow, Root
from fovea.search.maintenance.prepare import prepare
from fovea.search.maintenance.salvage import settle
from fovea.search.models.info import ModelInfo
from fovea.search.models.resolve import resolve_model

from .changes import Survey, adds_model, inside, known_at, known_files, note_decoders, root_of
from .dry_run import DryRun
from .interrupting import interruptible
from .missing import DELETED_REASON, MOVED_REASON, Verdict, judge, lost_files, note_settled
from .named import check_folder, covering, named_path, not_covered, paths_named, root_path
from .pipeline import InHand, Pipeline, Progress, Tally
from .refusals import write_each

AHEAD = 200_000  # changed files that the walk may be ahead of the decoding: about 60 MB
KERNEL = frozenset({b"/dev", b"/proc", b"/sys"})  # left out of roots around them
REPORT_S = 0.1  # seconds between two calls of ``progress``
HELD = (
    "files are gone or behind links now, too many at once: they stay searchable. If they were "
    "deleted or moved on purpose, run again with --confirm-deletions"
)

BARRED = "until then nothing below its folder is indexed or removed"
NO_FOLDER = "no folder has been indexed yet; name one: fovea index FOLDER"


class ModelChanged(FoveaError):
    """The library uses another model than this run's."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A folder that could not be listed or where too much was gone, or a bad ignore file.

    The pictures of that folder stay as they are. Also a file that could not be looked at, or of
    which the database took not even the failure.
    """

    path: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class ScanReport:
    """What a scan did. ``found`` is the sum of ``embedded``, ``unchanged``, ``moved``, ``failed``
    and ``skipped``, each file counted once; a run that was stopped accounts for fewer.
    """

    found: int  # files with a picture's extension
    embedded: int
    unchanged: int  # since the last scan, failures included: these are not tried again
    moved: int  # new files of a known content: moved, renamed or copied
    deleted: int  # no longer there, and not searchable any more
    failed: int
    skipped: int
    seconds: float
    held: int = 0  # no longer there, but too many at once: kept until confirmed
    passed_over: int = 0  # there, but not searchable any more: ignored now, or behind a link
    problems: tuple[Problem, ...] = ()  # what could not be listed, looked at or recorded
    barred: int = 0  # folders left as they are, since their ignore file cannot be used
    stopped: bool = False
    unplaced: int = 0  # pictures with coordinates whose place waits for ``fovea[places]``
    videos: int = 0  # passed over: they wait for ``fovea[video]``


def index_folders(
    library: Library,
    folders: Sequence[Path | bytes | str] = (),
    *,
    model: ModelInfo,
    load_encoder: Callable[[], IndexingEncoder],
    workers: int | None = None,
    batch_size: int | None = None,
    dry_run: bool = False,
    confirm_deletions: bool = False,
    progress: Callable[[Progress], None] | None = None,
    stop: threading.Event | None = None,
    ignore: Iterable[str] = (),
    limits: Limits | None = None,
    wait_s: float | None = 0.0,
    reread: bool = False,
    changed: bool = False,
    only_roots: bool = False,
    in_hand: InHand | None = None,
) -> ScanReport:
    """Walk folders, embed what is new or changed, and note what has moved or gone.

    Without folders, every root is walked again; a folder that is not a root yet becomes one.
    ``load_encoder`` is called when the first picture is ready to be embedded. Ctrl-C, or ``stop``,
    ends the run after the batch in flight; a second Ctrl-C at once. A run that is not stopped
    leaves the library prepared for answers. ``dry_run`` counts what would happen and writes
    nothing. ``ignore`` holds gitignore patterns, after each root's own. By default the batch is
    what the encoder takes in one pass, at least 32 pictures.

    ``reread`` reads every file anew, whatever its stamps say: metadata are replaced, thumbnails
    made again, and new contents embedded. Then ``folders`` may also name files, and folders inside
    of roots; the rest of their roots is brought up to date as usual. With ``changed``, ``folders``
    are files found changed: these are read anew, nothing else is looked at, and no root is added;
    those that are in no root, ignored, behind a link or gone are reported in ``problems``, and stay
    as they are. With ``only_roots``, ``folders`` are roots as the library lists them, and one that
    has left it meanwhile is passed over, not added again. ``in_hand`` is called with what is about
    to be done (decoding, embedding, storing) to which files.

    A root whose ignore file cannot be used is left as it is, and reported in ``problems``.

    Raise ``FoveaError`` for what is not a folder and for an invalid pattern in ``ignore``,
    ``ModelChanged`` if the library uses another model by the time it is this run's turn (a dry run
    counts what that would embed), and ``LibraryBusy`` if another process has been indexing for more
    than ``wait_s`` seconds.
    """
    started = time.monotonic()
    stop = stop or threading.Event()
    scan = _Scan(
        library,
        model,
        tuple(ignore),
        confirm_deletions,
        limits or Limits(),
        workers or available_cores(),
        batch_size,
        stop,
        progress,
        reread,
        changed,
        only_roots,
        in_hand,
    )
    Ignore(scan.ignore)  # whose patterns are this run's: an invalid one ends it
    as_named = changed or only_roots
    paths = list(map(named_path, folders)) if as_named else paths_named(library, folders, reread)
    load_encoder = cache(adapting(load_encoder))
    if dry_run:
        report = scan.dry_run(scan.roots(paths, add=False))
    else:
        with library.writing(wait_s), interruptible(stop):
            if paths or adds_model(library, *scan._details):  # else nothing is written before
                scan.check(checks.everyday)
            current = library.model()
            if current is not None and current.identity != model.identity:
                raise _other_model(library, current, model.name)
            report = scan.run(scan.roots(paths, add=True), load_encoder)
    report = replace(report, seconds=round(time.monotonic() - started, 3))
    current = library.model()
    if not (dry_run or paths or changed or report.stopped or report.problems):
        settle(library)
    if not dry_run and not report.stopped and current is not None:
        prepare(library, current, load_encoder, model.folder)
        report = replace(report, unplaced=place_pictures(library, stop=stop).waiting)
    return report


@dataclass(slots=True)
class _Scan:
    """One call of ``index_folders``."""

    library: Library
    model: ModelInfo
    ignore: Sequence[str]
    confirmed: bool
    limits: Limits
    workers: int
    batch_size: int | None
    stop: threading.Event
    progress: Callable[[Progress], None] | None
    reread: bool = False
    changed: bool = False
    only_roots: bool = False
    in_hand: InHand | None = None
    _scopes: frozenset[bytes] = frozenset()  # to read anew
    _reported: float = 0.0
    _first: float | None = None  # when the first picture had been embedded
    _passed: set[Check] = field(default_factory=set)

    # Which roots

    def roots(self, folders: Sequence[bytes], add: bool) -> list[Root]:
        """Choose the roots to walk: those asked for, and the registered ones inside them.

        Without a folder, all of them. ``add`` registers new ones, all or none. Raise ``FoveaError``
        for a folder that cannot become a root.
        """
        registered = {root.path: root for root in self.library.roots()}
        if self.changed:
            self._scopes = frozenset(folders)
            chosen = {root_of(path, registered) for path in folders}
            return [root for root in registered.values() if root.path in chosen]
        if self.only_roots and folders:
            folders = [path for path in folders if path in registered]
            if not folders:
                return []
        if self.reread:
            self._scopes = frozenset(folders or registered)
            folders = [covering(path, registered) for path in folders]
        new = not_covered(folders, registered, self.reread)
        for path in new:
            check_folder(path, root_path(self.library.folder))
        for path in new:
            if add:
                registered[path] = self.library.add_root(path)
            else:
                registered[path] = Root(-len(registered) - 1, path, "online", "", None)
        if not registered:
            raise FoveaError(NO_FOLDER)
        if not folders:
            return list(registered.values())
        return [
            root
            for root in registered.values()
            if any(inside(root.path, folder) for folder in folders)
        ]

    def _survey(
        self,
        library: Library,
        roots: list[Root],
        model_id: int | None,
        thread: Executor | None = None,
    ) -> Survey:
        if self.changed:
            known = known_at(library, self._scopes)
        else:
            known = known_files(library, roots, model_id, thread)
        excluded = KERNEL | {root_path(self.library.folder)}
        registered = frozenset(root.path for root in self.library.roots())
        survey = Survey(roots, known, self.ignore, excluded, registered=registered)
        survey.scopes, survey.only = self._scopes, self.changed
        if self.changed:
            outside = sorted(path for path in self._scopes if root_of(path, registered) is None)
            survey.closed += [Closed(path, "in no folder of the library") for path in outside]
        return survey

    # The run itself

    def run(self, roots: list[Root], load_encoder: Callable[[], IndexingEncoder]) -> ScanReport:
        """Walk the roots, and write what has changed."""
        model = self.library.add_model(*self._details)
        folder = self.library.folder  # read by a thread of its own, for the walk in another
        with Library.open(folder, any_thread=True) as reader, ThreadPoolExecutor(1) as thread:
            survey = self._survey(reader, roots, model.id, thread)
            pipeline = self._take_in(survey, model.id, load_encoder)
        if self.stop.is_set():
            return replace(_report(survey, pipeline.tally, refused=pipeline.problems), stopped=True)
        refused = pipeline.problems
        if survey.present or survey.stamped:
            self.check(checks.order)
        refused += write_each(self.library.mark_present, survey.present)
        stamped = write_each(self.library.note_ctimes, survey.stamped)
        refused += [(path, reason) for (path, _), reason in stamped]
        verdict = None
        if not self.changed:
            verdict = self._settle_lost(survey, pipeline.gained, refused)
            self._note_roots(survey)
        report = _report(survey, pipeline.tally, verdict, refused)
        self._tell(survey, pipeline.tally, False, last=True)
        return report

    def _take_in(
        self, survey: Survey, model_id: int, load_encoder: Callable[[], IndexingEncoder]
    ) -> Pipeline:
        """Write what changes while it is walked; return the pipeline, with what became of it."""

        @cache
        def load() -> IndexingEncoder:
            encoder = load_encoder()
            if self.library.model() is None:  # not before: an empty library may get any model
                self.library.set_model(*self._details)
            return encoder

        with Prefetch(survey.changes(), AHEAD, survey.halt) as changes:
            self.check(checks.everyday)
            pipeline = Pipeline(
                self.library,
                model_id,
                self.model.preprocess,
                load,
                limits=self.limits,
                workers=self.workers,
                batch_size=self.batch_size,
                stop=self.stop,
                tick=lambda tally: self._tell(survey, tally, changes.is_active),
                in_hand=self.in_hand,
            )
            pipeline.run(self._vouched(changes))
        return pipeline

    def _vouched(
        self, changes: Iterable[Task | FileWrite | None]
    ) -> Iterator[Task | FileWrite | None]:
        """Yield the changes once it is sure that files which are known are not new."""
        for change in changes:
            if change is not None:
                self.check(checks.order)
            yield change

    def check(self, part: Check) -> None:
        """Raise ``LibraryDamaged`` if one of the ``checks`` finds anything wrong; look only once.

        ``order`` reads every row, so it is asked only before something is written of which a row
        may exist: rows might not be where a search finds them.
        """
        if part not in self._passed:
            self.library.refuse_damaged(part)
            self._passed.add(part)

    def _settle_lost(
        self, survey: Survey, gained: set[int], refused: list[tuple[bytes, str]]
    ) -> Verdict:
        """Note what has moved, was deleted or is ignored, and what needs a confirmation.

        Add to ``refused`` what the database does not take, and why.
        """
        library, found = self.library, lost_files(survey)
        if found:
            self.check(checks.order)
        verdict = judge(library, survey, found, gained, self.confirmed)
        skipped = [(entry.path, entry.refusal) for entry in verdict.skipped]
        refused += [(row[0], why) for row, why in write_each(library.mark_skipped, skipped)]
        held = [entry.path for entry in verdict.held]
        for write, reason, paths in (
            (library.mark_missing, MOVED_REASON, verdict.moved),
            (library.mark_missing, DELETED_REASON, verdict.deleted),
            (library.note, HELD_REASON, held),
        ):
            refused += write_each(partial(write, reason=reason), paths)
        return verdict

    def _note_roots(self, survey: Survey) -> None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        for root in survey.roots:
            if root.id in survey.offline:
                self.library.set_root_state(root.id, "offline")
            elif root.id in survey.barred:
                self.library.set_root_state(root.id, "online")
            else:
                self.library.set_root_state(root.id, "online", scanned_at=now)
        unseen = {*survey.offline, *survey.barred}
        seen = [root.id for root in survey.roots if root.id not in unseen]
        note_settled(self.library, seen)
        note_decoders(self.library, seen)

    @property
    def _details(self) -> tuple[str, str, int, str]:
        return self.model.name, self.model.identity, self.model.dim, self.model.source

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

    def dry_run(self, roots: list[Root]) -> ScanReport:
        """Count what a run would do."""
        model_id = next(
            (row.id for row in self.library.models() if row.identity == self.model.identity), None
        )
        survey = self._survey(self.library, roots, model_id)
        survey.halt = self.stop
        run = DryRun(self.library, model_id, self.limits)
        for change in survey.changes():
            if self.stop.is_set():
                break
            run.count(change)
            self._tell(survey, run.tally, True)
        if self.stop.is_set():
            return replace(_report(survey, run.tally), stopped=True)
        lost = [] if self.changed else lost_files(survey)
        verdict = judge(self.library, survey, lost, run.gained, self.confirmed, run.would_show)
        return _report(survey, run.tally, verdict)


def check_request(
    library: Library, folders: Sequence[Path | str], model: str | None, *, reread: bool = False
) -> None:
    """Refuse what ``index_folders`` would refuse, before any model is downloaded for it.

    ``model`` is the name of the model asked for. Raise ``FoveaError`` for a folder that cannot be
    indexed and where there is none, ``ModelChanged`` if the library uses another model.
    """
    roots = {root.path for root in library.roots()}
    if not folders and not roots:
        raise FoveaError(NO_FOLDER)
    paths = paths_named(library, folders, reread)
    if reread:
        for path in paths:
            if covering(path, roots) != path and not os.path.lexists(path):
                name = printable_name(os.fsdecode(path))
                raise FoveaError(f"there is no file or folder {name}; check its name")
        paths = [covering(path, roots) for path in paths]
    for path in not_covered(paths, roots, reread):
        check_folder(path, root_path(library.folder))
    current = library.model()
    if model is None or current is None:
        return
    try:
        is_same = resolve_model(model, network=False).identity == current.identity
    except ModelError:  # it is not on this disk: the library's own may be downloaded again
        is_same = model.lower() == current.name.lower()
    if not is_same:
        raise _other_model(library, current, model)


def _other_model(library: Library, current: ModelRow, name: str) -> ModelChanged:
    return ModelChanged(
        f"{library.folder} uses {current.name}, not {name}; to change its model: fovea models use "
        f"{name}; to keep both, choose another folder for the library"
    )


def _report(
    survey: Survey,
    tally: Tally,
    verdict: Verdict | None = None,
    refused: Sequence[tuple[bytes, str]] = (),
) -> ScanReport:
    """Report a run; ``refused`` is what the database did not take, and why."""
    verdict = verdict or Verdict()
    met = {entry.path for entry in survey.refused}
    ignored = sum(entry.path in met for entry in verdict.skipped)
    problems = [
        Problem(entry.rules, f"{entry.reason}; {BARRED}")
        if entry.rules
        else Problem(entry.path, entry.reason)
        for entry in survey.closed
    ]
    problems += [Problem(path, reason) for path, reason in refused]
    for root in survey.roots:
        if root.id in survey.offline:
            problems.append(Problem(root.path, f"offline: {survey.offline[root.id]}"))
        if bad := survey.barred.get(root.id):
            problems.append(Problem(bad.path, f"{bad.reason}; {BARRED}"))
        if held := sum(entry.root_id == root.id for entry in verdict.held):
            problems.append(Problem(root.path, f"{held} {HELD}"))
    return ScanReport(
        found=survey.found - tally.gone,
        embedded=tally.embedded,
        unchanged=survey.unchanged + tally.same - ignored,
        moved=tally.moved,
        deleted=len(verdict.deleted),
        failed=tally.failed,
        skipped=tally.skipped + ignored,
        seconds=0.0,
        held=len(verdict.held),
        passed_over=verdict.passed_over,
        problems=tuple(dict.fromkeys(problems)),
        barred=len(survey.barred) + sum(entry.rules is not None for entry in survey.closed),
        videos=survey.videos,
    )
