"""The process that indexes for the server, at low priority.

It prints its progress as lines of JSON. A line on its standard input asks it to end after the batch
in flight. When that input is closed, because the server closes it or has ended in any way, this
process ends within seconds; at most that batch is lost.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from fovea.indexer.workers.host import step_back

if TYPE_CHECKING:
    from fovea.indexer.scanning.scan import ScanReport
    from fovea.search.library.library import Library
    from fovea.search.models.info import ModelInfo

NICE = 10
EVERY_S = 0.2  # between two lines
LOOK_S = 0.5  # between two checks whether another process still indexes
FAREWELL_S = 10.0  # for the batch in flight, once the server has gone

FIELDS = ("found", "embedded", "unchanged", "moved", "deleted", "failed", "skipped", "stopped")


def main() -> None:
    """Index as the line of JSON on standard input says: ``library``, ``folders``, ``model``."""
    step_back(NICE)
    told = open(0, "rb", buffering=0, closefd=False)  # noqa: SIM115  # as long as this process
    asked = json.loads(told.readline())
    stop = threading.Event()
    threading.Thread(target=_heed, args=(told, stop), daemon=True).start()
    from fovea.search.clip.errors import FoveaError

    try:
        _say("report", _index(asked, stop))
    except FoveaError as exc:
        _say("error", str(exc))
        sys.exit(1)


def _index(asked: dict[str, Any], stop: threading.Event) -> dict[str, Any]:
    from fovea.indexer.scanning.scan import ModelChanged
    from fovea.search.library.library import Library
    from fovea.search.models.resolve import resolve_model

    with Library.open(Path(asked["library"]), create=True) as library:
        while True:
            current = library.model()
            # a library keeps its model; a new one takes what was asked for
            model = resolve_model(None if current else asked["model"], current)
            try:
                report = _report(library, asked["folders"], model, stop)
                break
            except ModelChanged:  # while this waited for its turn
                continue
        if report is None:
            return {**dict.fromkeys(FIELDS, 0), "stopped": True, "unreached": []}
    unreached = [os.fsdecode(problem.path) for problem in report.problems]
    return {**{name: getattr(report, name) for name in FIELDS}, "unreached": unreached}


def _report(
    library: "Library", folders: Sequence[str], model: "ModelInfo", stop: threading.Event
) -> "ScanReport | None":
    """Index as soon as no other process does; return None if told to stop before."""
    from fovea.indexer.scanning.scan import index_folders
    from fovea.search.errors import LibraryBusy

    last = 0.0

    def progress(now: Any) -> None:
        nonlocal last
        if time.monotonic() - last >= EVERY_S:
            last = time.monotonic()
            _say("progress", asdict(now))

    while not stop.is_set():
        try:
            return index_folders(
                library,
                [os.fsencode(folder) for folder in folders],
                model=model,
                load_encoder=model.load,
                progress=progress,
                stop=stop,
                wait_s=LOOK_S,
            )
        except LibraryBusy as exc:
            _say("waiting", str(exc))
    return None


def _heed(told: BinaryIO, stop: threading.Event) -> None:
    """Stop when told to, and end this process when the server has gone."""
    while told.readline():
        stop.set()
    stop.set()
    time.sleep(FAREWELL_S)
    os._exit(1)


def _say(kind: str, value: object) -> None:
    try:
        print(json.dumps({kind: value}), flush=True)
    except BrokenPipeError:  # the server has gone
        os._exit(1)
