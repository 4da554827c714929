"""Analyse the pictures of a library that are embedded: each content once, kind after kind.

Files are read where they are, if they still hold what the library knows. Indexing may go on
meanwhile. What is done is written now and then, and at the end of whatever ends a run; what cannot
be read now is tried by the next run, what fails is remembered with its reason.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

from fovea.indexer.decoding.limits import Limits
from fovea.indexer.scanning.interrupting import interruptible
from fovea.indexer.workers.host import available_cores
from fovea.search.analyses.stored import Done, Pending, analysis_counts, is_off, pending, store
from fovea.search.library.library import Library
from fovea.search.library.locks import exclusive

from .crew import Crew
from .kinds import Analysis, module_of

__all__ = ["AnalysisProgress", "AnalysisReport", "Analysed", "Writing", "analyse", "has_work"]

LOCK = "analyses"
# Seconds between two transactions: a tenth of those since the beginning, within these. Servers read
# anew what they keep of a library once it has changed.
WRITE_S, WRITE_LATE_S = 2.0, 60.0
LINGER_S = 3.0  # for the pictures in flight, once a run is to stop
WRITE_AT = 256  # results that are written at once, however soon they came
REPORT_S = 0.1  # between two calls of ``progress``


Writing = Callable[[], AbstractContextManager[Library]]


@dataclass(frozen=True, slots=True)
class AnalysisProgress:
    """How far a run has come with one kind."""

    kind: str
    said: str  # what is looked for, in a few words
    total: int  # pictures that this run has to analyse
    done: int  # of them, failures included
    failed: int
    rate: float  # pictures per second


@dataclass(frozen=True, slots=True)
class Analysed:
    """What a run did of one kind."""

    kind: str
    done: int = 0
    failed: int = 0
    pending: int = 0  # they wait: folders that are offline, changed files, or this run was stopped
    missing: str | None = None  # how to get what it needs
    is_off: bool = False


@dataclass(frozen=True, slots=True)
class AnalysisReport:
    """What a run did, kind by kind."""

    kinds: tuple[Analysed, ...]
    seconds: float
    stopped: bool = False


def has_work(library: Library, kinds: Sequence[Analysis]) -> bool:
    """Whether any of these kinds could analyse a picture now; quick, and loads nothing heavy."""
    return any(
        one.missing() is None and analysis_counts(library, one.kind, one.version).pending
        for one in kinds
    )


def analyse(
    library: Library,
    kinds: Sequence[Analysis],
    *,
    stop: threading.Event | None = None,
    progress: Callable[[AnalysisProgress], None] | None = None,
    workers: int | None = None,
    limits: Limits | None = None,
    wait_s: float | None = 0.0,
    writing: Writing | None = None,
) -> AnalysisReport:
    """Analyse the pictures that no current version has analysed, with one kind after another.

    Kinds that are off, or need what is not installed, are only reported. Ctrl-C, or ``stop``, ends
    the run after the pictures in flight, or soon; a second Ctrl-C at once. ``writing`` gives what
    results are written by, instead of ``library``. Raise ``LibraryBusy`` if another process
    analyses after ``wait_s`` seconds, ``LibraryReadOnly`` if the library cannot be changed here,
    and ``WorkersError`` if no process can be started.
    """
    started = time.monotonic()
    stop = stop or threading.Event()
    library.check_writable()
    found = []
    with exclusive(library.folder, LOCK, wait_s, doing="is analysing pictures of"):
        with interruptible(stop):
            for one in kinds:
                run = _Run(
                    library, one, stop, progress, workers or available_cores(), limits, writing
                )
                found.append(run.report())
        seconds = round(time.monotonic() - started, 3)
    return AnalysisReport(tuple(found), seconds, stop.is_set())


class _Run:
    """One kind's part of a call of ``analyse``."""

    def __init__(
        self,
        library: Library,
        analysis: Analysis,
        stop: threading.Event,
        progress: Callable[[AnalysisProgress], None] | None,
        workers: int,
        limits: Limits | None,
        writing: Writing | None,
    ) -> None:
        self._library, self._analysis, self._stop = library, analysis, stop
        self._progress, self._workers = progress, workers
        self._writing = writing or (lambda: contextlib.nullcontext(library))
        limits = limits or Limits()
        self._limits = replace(
            limits,
            memory=max(limits.memory, analysis.memory),
            seconds=max(limits.seconds, analysis.seconds),
        )
        self._total = self._done = self._failed = 0
        self._started = time.monotonic()
        self._reported = 0.0

    def report(self) -> Analysed:
        """Do what is to be done, and say what was."""
        kind, missing = self._analysis.kind, self._analysis.missing()
        version = None if missing else self._analysis.version
        counts = analysis_counts(self._library, kind, version)
        if not (counts.is_off or missing or self._stop.is_set()) and counts.pending:
            self._total = counts.pending
            self._run(self._analysis.version)
        after = analysis_counts(self._library, kind, version)
        done = self._done - self._failed
        return Analysed(kind, done, self._failed, after.pending, missing, after.is_off)

    def _run(self, version: str) -> None:
        results: list[Done] = []
        started = written = stopping = time.monotonic()
        workers = min(self._workers, self._total)
        try:
            with Crew(module_of(self._analysis.kind), self._limits, workers) as crew:
                for one in crew.outcomes(self._pictures(version)):
                    if one is not None:
                        results.append(one)
                        self._done += 1
                        self._failed += one.reason is not None
                    now = time.monotonic()
                    pause = min(max(WRITE_S, (now - started) / 10), WRITE_LATE_S)
                    if len(results) >= WRITE_AT or now - written > pause:
                        self._write(version, results)
                        written = now
                    self._tell()
                    if not self._stop.is_set():
                        stopping = now
                    elif now - stopping > LINGER_S:
                        break
        finally:
            self._write(version, results)
        self._tell(last=True)

    def _pictures(self, version: str) -> Iterator[Pending]:
        for picture in pending(self._library, self._analysis.kind, version):
            if self._stop.is_set() or is_off(self._library, self._analysis.kind):
                return
            yield picture

    def _write(self, version: str, results: list[Done]) -> None:
        """Store results, and take them from the list."""
        if results:
            done, results[:] = results[:], []
            with self._writing() as library:
                store(library, self._analysis.kind, version, done, self._analysis.store)

    def _tell(self, last: bool = False) -> None:
        now = time.monotonic()
        if self._progress is None or (now - self._reported < REPORT_S and not last):
            return
        self._reported = now
        rate = self._done / max(now - self._started, 1e-3)
        one = self._analysis
        self._progress(
            AnalysisProgress(one.kind, one.said, self._total, self._done, self._failed, rate)
        )
