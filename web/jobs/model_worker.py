"""The process that changes the library's model for the server, at low priority.

It fetches the model if it is not on this disk, embeds the library with it, and activates it.
Stopped or killed at any moment, it keeps what it has: the next run resumes download and embedding.
"""

import errno
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fovea.indexer.workers.host import step_back

from .process import asked, say

if TYPE_CHECKING:
    from fovea.indexer.switching.switch import SwitchProgress, SwitchReport
    from fovea.search.errors import FoveaError
    from fovea.search.library.library import Library
    from fovea.search.models.info import ModelInfo

NICE = 10
EVERY_S = 0.2  # between two lines

STOPPED = {"switched": False, "stopped": True}


def main() -> None:
    """Change the model as the server asks: ``library``, ``name``."""
    step_back(NICE)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    run = _Run()
    wanted = asked(run.heed)
    from fovea.search.errors import FoveaError

    try:
        say("report", run.change(Path(wanted["library"]), wanted["name"]))
    except KeyboardInterrupt:
        say("report", STOPPED)
    except FoveaError as exc:
        say("error", {"message": str(exc), "code": _code(exc)})
        sys.exit(1)


class _Run:
    """One change of model, and whether it is to stop."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._is_cancelled = False  # by somebody; else the server ends, and this may go on later
        self._is_fetching = False
        self._lock = threading.Lock()
        self._last = 0.0

    def heed(self, is_asked: bool) -> None:
        """Stop after the batch in flight, or at once while nothing but a download is lost."""
        with self._lock:
            self._is_cancelled |= is_asked
            self._stop.set()
            if self._is_fetching:
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    def change(self, folder: Path, name: str) -> dict[str, Any]:
        """Fetch, embed and activate; return what came of it. Raise ``FoveaError``."""
        from fovea.search.library.library import Library
        from fovea.search.maintenance.changeover import cancel_change, next_model

        with Library.open(folder) as library:
            model = self._fetched(library, name)
            if model is None:
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

    def _fetched(self, library: "Library", name: str) -> "ModelInfo | None":
        """Return the model, from the network if need be; None if this is to stop."""
        from fovea.search.maintenance.changeover import resolve_in

        with self._lock:
            self._is_fetching = not self._stop.is_set()
        if not self._is_fetching:
            return None
        model = resolve_in(library, name, progress=self._downloading)
        with self._lock:
            self._is_fetching = False
        return None if self._stop.is_set() else model

    def _downloading(self, file: str) -> Callable[[int, int | None], None]:
        def show(done: int, total: int | None) -> None:
            if self._is_time() or done == total:
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
        if self._is_time() or now.waiting or now.embedded == now.images:
            say("embedding", asdict(now))

    def _is_time(self) -> bool:
        """Whether the server may hear of progress again."""
        now = time.monotonic()
        if now - self._last < EVERY_S:
            return False
        self._last = now
        return True


def _code(exc: "FoveaError") -> str | None:
    """Return a stable name for the errors that people meet while a model is fetched."""
    from fovea.search.errors import LibraryBusy, ModelDamaged, ModelUnreachable

    kinds = {ModelUnreachable: "offline", ModelDamaged: "damaged", LibraryBusy: "busy"}
    for kind, code in kinds.items():
        if isinstance(exc, kind):
            return code
    cause: BaseException | None = exc
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
            return "space"
        cause = cause.__cause__
    return None
