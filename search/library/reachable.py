"""Check whether folders are reachable, rarely, and without waiting for a dead network."""

import os
import threading
import time
from collections.abc import Iterable

__all__ = ["unreachable"]

KEPT_S = 2.0  # for which a result is reused
PATIENCE_S = 0.5  # for a disk or network; a slower one counts as unreachable meanwhile


class _Look:
    """One look at a folder in its own thread, which a dead mount may block for ever."""

    def __init__(self, path: bytes) -> None:
        self.began, self.is_there = time.monotonic(), False
        self._thread = threading.Thread(target=self._look, args=(path,), daemon=True)
        self._thread.start()

    def _look(self, path: bytes) -> None:
        try:
            with os.scandir(path) as entries:
                self.is_there = next(entries, None) is not None  # an empty one is not mounted
        except OSError:
            self.is_there = False

    @property
    def is_stale(self) -> bool:
        return not self._thread.is_alive() and time.monotonic() - self.began > KEPT_S

    def wait(self) -> bool:
        """Whether the folder turned out to be there in time."""
        self._thread.join(max(0.0, self.began + PATIENCE_S - time.monotonic()))
        return self.is_there


_looks: dict[bytes, _Look] = {}  # shared by the process, so that blocked threads do not pile up
_looking = threading.Lock()


def unreachable(paths: Iterable[bytes]) -> frozenset[bytes]:
    """Return those folders that are missing, empty, or cannot be listed."""
    asked = list(paths)
    with _looking:
        for path in asked:
            if path not in _looks or _looks[path].is_stale:
                _looks[path] = _Look(path)
        looks = {path: _looks[path] for path in asked}
    return frozenset(path for path, look in looks.items() if not look.wait())
