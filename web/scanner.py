"""The process that indexes for the server, at low priority.

It prints a line of JSON as it goes on, and ends after the batch in flight when its standard input
is closed: by the server, or by the server's end.
"""

import json
import os
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

NICE = 10
EVERY_S = 0.2  # between two lines


def main() -> None:
    """Index as the line of JSON on standard input says: ``library``, ``folders``, ``model``."""
    with_nice()
    asked = json.loads(sys.stdin.readline())
    stop = threading.Event()
    threading.Thread(target=_wait_for_end, args=(stop,), daemon=True).start()
    from search.errors import FoveaError

    try:
        _say("report", _index(asked, stop))
    except FoveaError as exc:
        _say("error", str(exc))
        sys.exit(1)


def with_nice() -> None:
    """Step back for everybody else."""
    if hasattr(os, "nice"):
        os.nice(NICE)


def _index(asked: dict[str, Any], stop: threading.Event) -> dict[str, Any]:
    from indexer import index_folders
    from search.index import VectorIndex
    from search.library import Library
    from search.likelihood import Background
    from search.models import resolve_model

    last = 0.0

    def progress(now: Any) -> None:
        nonlocal last
        if time.monotonic() - last >= EVERY_S:
            last = time.monotonic()
            _say("progress", asdict(now))

    with Library.open(Path(asked["library"]), create=True) as library:
        current = library.model()
        # a library keeps its model; a new one takes what was asked for
        model = resolve_model(None if current else asked["model"], current)
        report = index_folders(
            library,
            [os.fsencode(folder) for folder in asked["folders"]],
            model=model,
            load_encoder=model.load,
            progress=progress,
            stop=stop,
            wait_s=None,
        )
        answering = library.model()
        if answering is not None and (report.embedded or report.deleted):
            VectorIndex.open(library, answering.id).save()
            if Background.load(library.folder, model.identity) is None:
                Background.of(model.identity, model.load()).save(library.folder)
    fields = ("found", "embedded", "unchanged", "moved", "deleted", "failed", "skipped", "stopped")
    return {name: getattr(report, name) for name in fields}


def _wait_for_end(stop: threading.Event) -> None:
    sys.stdin.read()
    stop.set()


def _say(kind: str, value: object) -> None:
    try:
        print(json.dumps({kind: value}), flush=True)
    except BrokenPipeError:  # the server has gone
        os._exit(1)


if __name__ == "__main__":
    main()
