"""Embed sources into a destination, on this machine or on a cluster."""

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Protocol

from fovea.indexer.decoding.limits import Limits
from fovea.indexer.placing.place import place_pictures
from fovea.indexer.scanning.interrupting import interruptible
from fovea.indexer.scanning.named import root_path
from fovea.indexer.scanning.pipeline import Progress
from fovea.indexer.walking.prefetch import Prefetch
from fovea.indexer.workers.host import available_cores
from fovea.search.clip.engines.adapting import adapting
from fovea.search.clip.protocols import IndexingEncoder
from fovea.search.errors import FoveaError
from fovea.search.library.library import Library
from fovea.search.library.locks import exclusive
from fovea.search.maintenance.prepare import prepare
from fovea.search.models.info import ModelInfo

from .destination import Destination
from .exchange import WRITER, Exchange, check_exchange
from .here import Here
from .into_library import ONLY_FILES, IntoLibrary, common_folder
from .items import Order, Result
from .lists import names_in
from .remote import is_url
from .sources import Source, Work
from .stamps import Stamps

__all__ = [
    "EmbedReport",
    "Engine",
    "Run",
    "embed_into_files",
    "embed_into_library",
    "settle_library",
]

AHEAD = 200_000 // 64  # orders that the walk may be ahead
REPORT_S = 0.1  # seconds between two calls of ``progress``


class Engine(Protocol):
    """Where orders are carried out."""

    def results(self, orders: Iterable[Order | None]) -> Iterator[Result | None]:
        """Yield what became of each item once, in any order; None now and then."""


@dataclass(frozen=True, slots=True)
class EmbedReport:
    """What a run did. ``found`` counts files; those in shards are found as they are read."""

    found: int
    embedded: int
    unchanged: int  # done by an earlier run
    failed: int
    skipped: int  # ignored
    seconds: float
    shards: int = 0  # read to their end
    shards_unchanged: int = 0
    problems: tuple[tuple[str, str], ...] = ()  # places that could not be read, or files stored
    failures: tuple[tuple[str, int], ...] = ()  # reasons and how often each, the most often first
    stopped: bool = False
    missing: int = 0  # files and shards without a result; another run tries again
    rate: float = 0.0  # pictures a second, from the first one on


@dataclass(slots=True)
class Run:
    """What several runs have in common: sources in, results out, and an account of both."""

    model: ModelInfo
    load_encoder: Callable[[], IndexingEncoder]
    workers: int | None = None
    batch_size: int | None = None
    ignore: Sequence[str] = ()
    column: str | None = None
    limits: Limits = field(default_factory=Limits)
    stop: threading.Event = field(default_factory=threading.Event)
    progress: Callable[[Progress], None] | None = None
    engine: Engine | None = None  # None: this machine
    _counts: Counter[str] = field(default_factory=Counter)
    _reasons: Counter[str] = field(default_factory=Counter)
    _of_shards: Counter[str] = field(default_factory=Counter)  # results that each has had
    _ended: dict[str, Result] = field(default_factory=dict)  # but not all results are here
    _first: float | None = None
    _last: float = 0.0
    _reported: float = 0.0

    def into(self, sources: Sequence[Source], destination: Destination, own: Path) -> EmbedReport:
        """Embed what is not done yet; ``own`` is the destination's folder, never a source."""
        started = time.monotonic()
        known = destination.known(Stamps(sources))
        work = Work(
            sources, known.done, known.whole, known.begun, self.ignore, self.column,
            frozenset({root_path(own)}),
        )  # fmt: skip
        engine = self.engine or Here(
            self.model.preprocess, self.model.dim, cache(adapting(self.load_encoder)),
            self.limits, self.workers or available_cores(), self.batch_size, self.stop,
        )  # fmt: skip
        with interruptible(self.stop), Prefetch(work.orders(), AHEAD, work.halt) as orders:
            try:
                for result in engine.results(orders):
                    if result is not None:
                        self._account(result, work, destination)
                    self._tell(work, orders.is_active)
            except Exception:  # whatever failed, what is done is kept
                with suppress(Exception):  # the first reason is the one to tell
                    destination.finish()
                raise
            destination.finish()
            self._tell(work, False, last=True)
        return self._report(work, destination, time.monotonic() - started)

    def _account(self, result: Result, work: Work, destination: Destination) -> None:
        shard = result.item.shard
        if result.state == "shard":
            self._ended[shard] = result
            self._counts["ended"] += 1
        elif shard:
            self._of_shards[shard] += 1
        else:
            self._counts["of files"] += 1
        if result.state != "shard":
            self._counts[result.state] += 1
            if result.state == "embedded":
                self._last = time.monotonic()
                self._first = self._first or self._last
            elif result.state == "failed":
                self._reasons[(result.reason or "").partition(";")[0][:120]] += 1
            destination.take(result)
        ended = self._ended.get(shard) if shard else None
        if ended is not None and ended.members == self._of_shards[shard]:
            # Not before: that it is whole is written after all of its members.
            del self._ended[shard], self._of_shards[shard]
            if ended.is_settled:
                self._counts["shards"] += 1
            else:
                work.problems.append((shard, ended.reason or ""))
            destination.take(ended)

    def _done(self) -> int:
        return self._counts["embedded"] + self._counts["failed"] + self._counts["gone"]

    def _tell(self, work: Work, walking: bool, last: bool = False) -> None:
        now = time.monotonic()
        if self.progress is None or (now - self._reported < REPORT_S and not last):
            return
        self._reported = now
        done = work.before + work.skipped + self._done()
        self.progress(
            Progress(
                found=max(work.found, done),
                done=done,
                embedded=self._counts["embedded"],
                failed=self._counts["failed"],
                skipped=work.skipped,
                rate=self._rate(),
                walking=walking or any(source.kind == "shards" for source in work.sources),
            )
        )

    def _rate(self) -> float:
        elapsed = self._last - self._first if self._first is not None else 0.0
        return self._counts["embedded"] / elapsed if elapsed > 0 else 0.0

    def _report(self, work: Work, destination: Destination, seconds: float) -> EmbedReport:
        counts, stopped = self._counts, self.stop.is_set()
        in_shards = self._done() - counts["of files"]
        handed = work.found - work.before - work.skipped
        missing = max(0, handed - counts["of files"])
        missing += work.shards - counts["ended"]  # of which not even that is known
        missing += sum(one.members - self._of_shards[shard] for shard, one in self._ended.items())
        problems = [*work.problems]
        problems += [(os.fsdecode(name), reason) for name, reason in destination.problems]
        return EmbedReport(
            found=work.found + in_shards - counts["gone"],
            embedded=counts["embedded"],
            unchanged=work.before,
            failed=counts["failed"],
            skipped=work.skipped,
            seconds=round(seconds, 3),
            shards=counts["shards"],
            shards_unchanged=work.shards_before,
            problems=tuple(problems),
            failures=tuple(self._reasons.most_common(10)),
            stopped=stopped,
            missing=0 if stopped else missing,
            rate=round(self._rate(), 2),
        )


def embed_into_files(
    sources: Sequence[Source], folder: Path, run: Run, *, part: int | None = None
) -> EmbedReport:
    """Embed into a folder of parts; ``part`` is how many pictures one has.

    What the folder has already is not embedded again. Raise ``FoveaError`` if it holds another
    model's embeddings, ``LibraryBusy`` while another process fills it.
    """
    exchange = Exchange(folder, part)
    folders = [one.place for one in sources if one.kind == "folder" and not one.is_remote]
    check_exchange(folder, run.model)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise FoveaError(f"cannot write to {folder}: {exc.strerror}") from exc
    with exclusive(folder, WRITER, doing="is embedding into"):
        exchange.prepare(run.model, folders)
        return run.into(sources, exchange, folder)


def embed_into_library(sources: Sequence[Source], library: Library, run: Run) -> EmbedReport:
    """Embed into a library, whose folders the sources become.

    Of a list, the folder that all of its files are in. Nothing is removed: ``fovea index`` does
    that, and finds what was embedded unchanged. Raise ``FoveaError`` for shards and URLs, and if
    the library uses another model.
    """
    folders = [_folder_of(source, run.column) for source in sources]
    into = IntoLibrary(library, run.model)
    with ExitStack() as stack:
        stack.enter_context(library.writing())
        into.prepare([folder for folder in folders if folder is not None])
        report = run.into(sources, into, library.folder)
    settle_library(library, run.model, run.load_encoder, run.stop)
    return report


def settle_library(
    library: Library,
    model: ModelInfo,
    load_encoder: Callable[[], IndexingEncoder],
    stop: threading.Event,
) -> None:
    """Prepare a library for answers, as a scan does, unless the run was stopped."""
    current = library.model()
    if current is not None and not stop.is_set():
        prepare(library, current, load_encoder, model.folder)
        place_pictures(library, stop=stop)


def _folder_of(source: Source, column: str | None) -> bytes | None:
    """Return the folder that a library is to have for a source; raise for what it cannot hold."""
    if source.kind == "shards" or source.is_remote and source.kind == "folder":
        raise FoveaError(
            f"{ONLY_FILES}, not from {source.place}; embed into files instead (--as files), or "
            "unpack it into a folder"
        )
    if source.kind == "folder":
        return root_path(source.place)

    def check(name: bytes) -> None:
        if is_url(os.fsdecode(name)):
            raise FoveaError(f"{ONLY_FILES}, and {source.place} lists URLs; use --as files")

    return common_folder(names_in(source.place, column), check)
