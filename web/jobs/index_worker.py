"""The process that indexes for the server, at low priority.

It is told to stop after the batch in flight; if the server ends in any way, at most that batch is
lost.
"""

import os
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fovea.indexer.workers.host import step_back

from .process import NICE, Pace, asked, note_in_hand, say

if TYPE_CHECKING:
    from fovea.indexer.scanning.scan import ScanReport
    from fovea.search.clip.encoders.base import TorchEncoder
    from fovea.search.library.library import Library
    from fovea.search.models.info import ModelInfo

LOOK_S = 0.5  # between two checks whether another process still indexes

FIELDS = ("found", "embedded", "unchanged", "moved", "deleted", "failed", "skipped", "stopped")


def main() -> None:
    """Index as the server asks: ``library``, ``folders``, ``model``.

    With ``reread``, the folders are files that were found changed, and only these are read. With
    ``adds``, folders that are no roots become ones; without, they are passed over.

    ``in_hand`` is the descriptor at which to note the files in hand.
    """
    step_back(NICE)
    stop = threading.Event()
    wanted = asked(lambda is_asked: stop.set())
    from fovea.search.clip.errors import FoveaError

    try:
        say("report", _index(wanted, stop))
    except FoveaError as exc:
        say("error", str(exc))
        sys.exit(1)
    except Exception as exc:  # a bug, unless the library is damaged
        from fovea.search.library.damage import explained
        from fovea.search.library.library import DATABASE

        damage = explained(Path(wanted["library"]) / DATABASE, exc)
        if damage is None:
            raise
        say("error", str(damage))
        sys.exit(1)


def _index(wanted: dict[str, Any], stop: threading.Event) -> dict[str, Any]:
    from fovea.indexer.scanning.scan import ModelChanged
    from fovea.search.library.library import Library
    from fovea.search.models.resolve import resolve_model

    with Library.open(Path(wanted["library"]), create=True) as library:
        while True:
            current = library.model()
            # a library keeps its model; a new one takes what was asked for
            name = None if current else wanted["model"]
            model = resolve_model(name, current, progress=_downloading)
            try:
                report = _report(library, wanted, model, stop)
                break
            except ModelChanged:  # while this waited for its turn
                continue
        if report is None:
            return {**dict.fromkeys(FIELDS, 0), "stopped": True, "unreached": []}
    return {**{name: getattr(report, name) for name in FIELDS}, **_problems(report)}


def _downloading(file: str) -> Callable[[int, int | None], None]:
    say("doing", "downloading")
    return lambda done, total: None


def _problems(report: "ScanReport") -> dict[str, Any]:
    """Tell ignore files that cannot be used, with what is wrong, from folders out of reach."""
    from fovea.indexer.walking.ignore import IGNORE_FILE

    is_rule = [os.path.basename(problem.path) == IGNORE_FILE for problem in report.problems]
    paths = [os.fsdecode(problem.path) for problem in report.problems]
    wrong = [
        f"{path}: {problem.reason}"
        for path, problem, rule in zip(paths, report.problems, is_rule, strict=True)
        if rule
    ]
    return {
        "unreached": [path for path, rule in zip(paths, is_rule, strict=True) if not rule],
        "ignore_files": [path for path, rule in zip(paths, is_rule, strict=True) if rule],
        "message": "; ".join(wrong) or None,
    }


def _report(
    library: "Library", wanted: dict[str, Any], model: "ModelInfo", stop: threading.Event
) -> "ScanReport | None":
    """Index as soon as no other process does; return None if told to stop before."""
    from fovea.indexer.scanning.scan import index_folders
    from fovea.search.errors import LibraryBusy

    pace, descriptor = Pace(), wanted.get("in_hand")
    last: list[tuple[str, Sequence[bytes]]] = []

    def in_hand(doing: str, paths: Sequence[bytes]) -> None:
        if descriptor is not None and [(doing, paths)] != last:
            last[:] = [(doing, paths)]
            note_in_hand(descriptor, doing, paths)

    def progress(now: Any) -> None:
        if pace.is_time():
            say("progress", asdict(now))

    def load() -> "TorchEncoder":
        say("doing", "loading")
        encoder = model.load()
        say("doing", "indexing")
        return encoder

    while not stop.is_set():
        try:
            return index_folders(
                library,
                [os.fsencode(folder) for folder in wanted["folders"]],
                model=model,
                load_encoder=load,
                progress=progress,
                stop=stop,
                wait_s=LOOK_S,
                changed=wanted.get("reread", False),
                only_roots=not wanted.get("adds", False),
                in_hand=in_hand,
            )
        except LibraryBusy as exc:
            say("waiting", str(exc))
    return None
