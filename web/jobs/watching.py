"""Watch the folders while the server runs, and scan what changes: ``fovea serve --watch``."""

import logging
import os
import threading
from pathlib import Path

from flask import Flask

from fovea.indexer.decoding.limits import one_line
from fovea.indexer.watching.pending import Work
from fovea.indexer.watching.watch import Watch
from fovea.search.errors import FoveaError
from fovea.web.engine.engine import Engine

from .scans import Scans

__all__ = ["start_watching"]

WAIT_S = 5.0  # between two looks whether a scan has ended
AGAIN_S = 60.0  # until watching is tried again after an error
MOST_TOLD = 1000  # characters of an error

log = logging.getLogger("fovea.web.watching")


def start_watching(app: Flask) -> None:
    """Watch the library's folders in a thread that ends with the app.

    What changes is scanned by the app's own scans, one at a time; what changes during one is
    joined, and scanned after it.
    """
    engine: Engine = app.extensions["fovea"]
    scans: Scans = app.extensions["fovea.scans"]

    def index(work: Work) -> None:
        if work.roots:
            scans.start([Path(os.fsdecode(root)) for root in work.roots])
        if files := [path for path in work.files if os.path.lexists(path)]:
            scans.start([Path(os.fsdecode(file)) for file in files], reread=True)
        _await(scans, engine.closing)

    app.extensions["fovea.watching"] = watching = threading.Event()

    def run() -> None:
        own = os.path.realpath(os.fsencode(engine.folder))
        while not engine.closing.is_set():
            try:
                watch = Watch(lambda: [root.path for root in engine.library.roots()], own, index)
                watching.set()
                watch.run(engine.closing)
            except Exception as exc:  # whatever it is, folders are to be watched again after it
                if engine.closing.is_set():
                    return  # what it worked with is closed
                told = str(exc) if isinstance(exc, FoveaError) else f"{type(exc).__name__}: {exc}"
                log.warning("cannot watch the folders now: %s", one_line(told, MOST_TOLD))
            finally:
                watching.clear()
            engine.closing.wait(AGAIN_S)

    threading.Thread(target=run, name="watch", daemon=True).start()


def _await(scans: Scans, closing: threading.Event) -> None:
    """Wait until no scan runs."""
    document = scans.document()
    while document and document["state"] == "running" and not closing.is_set():
        document = scans.wait(document, WAIT_S)
