"""The process that changes the library's model for the server, at low priority.

It fetches the model if it is not on this disk, embeds the library with it, and activates it.
Stopped or killed at any moment, it keeps what it has: the next run resumes download and embedding.
"""

import signal
import sqlite3
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fovea.indexer.workers.host import step_back

from .process import NICE, Pace, asked, say

if TYPE_CHECKING:
    from fovea.indexer.switching.switch import SwitchProgress, SwitchReport
    from fovea.search.errors import FoveaError
    from fovea.search.library.library import Library
    from fovea.search.models.info import ModelInfo

STOPPED = {"switched": False, "stopped": True}


def main() -> None:
    """Change the model as the server asks: ``library``, ``name``, ``identity``.

    ``name`` is one that ``known_models`` lists, ``identity`` that of a model of the library, or
    None.
    """
    step_back(NICE)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    run = _Run()
    wanted = asked(run.heed)
    from fovea.search.errors import FoveaError

    try:
        say("report", run.change(Path(wanted["library"]), wanted["name"], wanted["identity"]))
    except KeyboardInterrupt:
        say("report", STOPPED)
    except FoveaError as exc:
        say("error", {"message": str(exc), "code": _code(exc)})
        sys.exit(1)
    except Exception as exc:  # a bug, or what a library raises: the page must hear of it, too
        from fovea.search.library.damage import explained
        from fovea.search.library.library import DATABASE

        if damage := explained(Path(wanted["library"]) / DATABASE, exc):
            say("error", {"message": str(damage), "code": "unexpected"})
            sys.exit(1)
        traceback.print_exc()  # for the server's log
        message = f"the change of model failed ({type(exc).__name__}); the server's log says more"
        say("error", {"message": message, "code": "unexpected"})
        sys.exit(1)


class _Run:
    """One change of model, and whether it is to stop."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._is_cancelled = False  # by somebody; else the server ends, and this may go on later
        self._is_fetching = False
        self._lock = threading.Lock()
        self._pace = Pace()

    def heed(self, is_asked: bool) -> None:
        """Stop after the batch in flight, or at once while nothing but a download is lost."""
        with self._lock:
            self._is_cancelled |= is_asked
            self._stop.set()
            if self._is_fetching:
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    def change(self, folder: Path, name: str, identity: str | None) -> dict[str, Any]:
        """Fetch, embed and activate; return what came of it. Raise ``FoveaError``."""
        from fovea.search.library.library import Library
        from fovea.search.maintenance.changeover import cancel_change, next_model

        with Library.open(folder) as library:
            try:
                model = self._fetched(library, name, identity)
            except KeyboardInterrupt:
                model = None
            if model is None:
                following = next_model(library)  # since an earlier try
                if self._is_cancelled and following and following.name == name:
                    cancel_change(library)
                return STOPPED
            current = library.model()
            if current is not None and current.identity == model.identity:
                cancel_change(library)
                return {"switched": True, "stopped": False}
            report = self._switched(library, model)
            following = next_model(library)
            if self._is_cancelled and following and following.identity == model.identity:
                cancel_change(library)
            return asdict(report)

    def _fetched(self, library: "Library", name: str, identity: str | None) -> "ModelInfo | None":
        """Return the model, from the network if need be; None if this is to stop.

        A file or folder that happens to have its name is never taken for it.
        """
        from fovea.search.models.resolve import resolve_known, resolve_listed

        rows = [row for row in library.models() if row.identity == identity]
        with self._lock:
            self._is_fetching = not self._stop.is_set()
        if not self._is_fetching:
            return None
        try:
            if rows:
                model = resolve_known(rows[0], progress=self._downloading)
            else:
                model = resolve_listed(name, progress=self._downloading)
        finally:
            with self._lock:
                self._is_fetching = False
        return None if self._stop.is_set() else model

    def _downloading(self, file: str) -> Callable[[int, int | None], None]:
        def show(done: int, total: int | None) -> None:
            if self._pace.is_time() or done == total:
                say("downloading", {"bytes": done, "total_bytes": total})

        return show

    def _switched(self, library: "Library", model: "ModelInfo") -> "SwitchReport":
        from fovea.indexer.switching.switch import SwitchProgress, switch_model

        say("embedding", asdict(SwitchProgress(library.counts().images, 0, 0.0)))
        return switch_model(
            library,
            model=model,
            load_encoder=model.load,
            progress=self._embedding,
            stop=self._stop,
        )

    def _embedding(self, now: "SwitchProgress") -> None:
        if self._pace.is_time() or now.waiting or now.embedded == now.images:
            say("embedding", asdict(now))


def _code(exc: "FoveaError") -> str | None:
    """Return a stable name for the errors that people meet while a model is fetched."""
    from fovea.search.clip.disk import FULL
    from fovea.search.errors import LibraryBusy, ModelDamaged, ModelUnreachable

    kinds = {ModelUnreachable: "offline", ModelDamaged: "damaged", LibraryBusy: "busy"}
    for kind, code in kinds.items():
        if isinstance(exc, kind):
            return code
    cause: BaseException | None = exc
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in FULL:
            return "space"
        if getattr(cause, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
            return "space"
        cause = cause.__cause__
    return None
