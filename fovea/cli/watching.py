"""``fovea watch``."""

import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fovea.search.library.paths import printable_name

if TYPE_CHECKING:
    from fovea.indexer.analysing.background import Background
    from fovea.indexer.scanning.scan import ScanReport
    from fovea.indexer.watching.pending import Work
    from fovea.search.clip.encoders.base import TorchEncoder
    from fovea.search.library.library import Library
    from fovea.search.models.info import ModelInfo

from .indexing import check_machine
from .opening import library_folder
from .options import (
    FILE,
    embedding_options,
    json_option,
    library_option,
    machine_options,
    model_option,
    value_option,
)
from .output import print_json, talk
from .progress import download_bar

SHOWN = ("embedded", "moved", "deleted", "failed", "skipped", "held", "passed_over")
LOOK_S = 0.5  # between two looks whether another process still indexes


@click.command(short_help="Keep the library up to date while folders change.")
@click.argument("folders", nargs=-1, metavar="[FOLDER]...", type=FILE)
@library_option
@model_option("Embed with this model in a new library.  [default: the best at hand]")
@machine_options
@embedding_options
@value_option(
    "--poll",
    "Seconds between two scans of folders on a network, which tell of no changes.",
    "S",
    click.FloatRange(min=1),
    60,
)
@json_option("Print one JSON document per update.")
def watch(
    folders: tuple[Path, ...],
    folder: Path | None,
    name: str | None,
    device: str,
    dtype: str,
    workers: int | None,
    batch_size: int | None,
    poll: float,
    as_json: bool,
) -> None:
    """Index each FOLDER, then whatever changes in the library's folders, until Ctrl-C.

    \b
    fovea watch ~/Pictures
    """
    from fovea.indexer.analysing.background import Background
    from fovea.indexer.watching.watch import Watch
    from fovea.search.library.library import Library

    check_machine(device, dtype)
    place = library_folder(folder)
    stop = threading.Event()
    options = {"workers": workers, "batch_size": batch_size}
    with _ended_by_signals(stop), Library.open(place, create=True) as library:
        updates = _Updates(library, name, device, dtype, options, stop, as_json)
        updates.analyses = analyses = Background(place)
        updates.add(folders)
        analyses.start()
        talk("watching; Ctrl-C to stop")
        roots = lambda: [root.path for root in library.roots()]  # noqa: E731
        own = os.path.realpath(os.fsencode(place))
        try:
            Watch(roots, own, updates.make, poll_s=poll).run(stop)
        finally:
            analyses.close()
    talk("stopped")


class _Updates:
    """Indexes what the watch hands over; keeps the model loaded."""

    analyses: "Background | None" = None

    def __init__(
        self,
        library: "Library",
        name: str | None,
        device: str,
        dtype: str,
        options: dict[str, Any],
        stop: threading.Event,
        as_json: bool,
    ) -> None:
        self._library, self._name, self._options = library, name, options
        self._machine = {"device": device, "dtype": dtype}
        self._stop, self._as_json = stop, as_json
        self._loaded: tuple[str, TorchEncoder] | None = None  # identity of its model

    def add(self, folders: tuple[Path, ...]) -> None:
        """Index folders, which may be new; without any, check that there are some."""
        from fovea.indexer.scanning.scan import NO_FOLDER
        from fovea.search.errors import FoveaError

        if folders:
            self._index([os.fsencode(folder) for folder in folders])
        elif not self._library.roots():
            raise FoveaError(NO_FOLDER.replace("fovea index", "fovea watch"))

    def make(self, work: "Work") -> None:
        """Index what has changed. Files that have gone again meanwhile are left to their root."""
        if work.roots:
            self._index(work.roots, only_roots=True)
        if files := [path for path in work.files if os.path.lexists(path)]:
            self._index(files, changed=True)

    def _index(
        self, paths: Sequence[bytes], *, changed: bool = False, only_roots: bool = False
    ) -> None:
        from fovea.indexer.scanning.scan import ModelChanged, index_folders
        from fovea.search.errors import LibraryBusy
        from fovea.search.models.resolve import resolve_model

        is_told = False
        while not self._stop.is_set():
            current = self._library.model()
            model = resolve_model(None if current else self._name, current, progress=download_bar)
            try:
                report = index_folders(
                    self._library,
                    paths,
                    model=model,
                    load_encoder=lambda chosen=model: self._encoder(chosen),  # type: ignore[misc]
                    stop=self._stop,
                    wait_s=LOOK_S,
                    changed=changed,
                    only_roots=only_roots,
                    **self._options,
                )
            except ModelChanged:
                continue
            except LibraryBusy as exc:
                if not is_told:
                    talk(str(exc))
                is_told = True
            else:
                self._show(report)
                if report.embedded and self.analyses is not None:
                    self.analyses.start()
                return

    def _encoder(self, model: "ModelInfo") -> "TorchEncoder":
        if self._loaded is None or self._loaded[0] != model.identity:
            self._loaded = model.identity, model.load(**self._machine)
        return self._loaded[1]

    def _show(self, report: "ScanReport") -> None:
        """Print what has changed; nothing if nothing has."""
        for problem in report.problems:
            talk(f"{printable_name(os.fsdecode(problem.path))}: {problem.reason}")
        changes = {field: count for field in SHOWN if (count := getattr(report, field))}
        if not changes:
            return
        if self._as_json:
            print_json(changes)
        else:
            words = [f"{count:,} {field.replace('_', ' ')}" for field, count in changes.items()]
            click.echo(f"{time.strftime('%H:%M:%S')}  {', '.join(words)}")


@contextmanager
def _ended_by_signals(stop: threading.Event) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM, as of systemd, end the watch after the batch in flight."""

    def end(number: int, frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {one: signal.signal(one, end) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
