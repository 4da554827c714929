"""Watch the roots of a library, and have indexed what changes there.

Local folders are watched by watchdog, which follows no links, takes names of any bytes, and tells
when a file is closed. Folders on a network, of whose changes by others the system is not told, are
scanned at intervals instead; so is what cannot be watched.
"""

import logging
import os
import threading
import time
import warnings
from collections.abc import Callable, Collection

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver, ObservedWatch

from fovea.indexer.decoding.formats import EXTENSIONS, extension
from fovea.indexer.scanning.changes import inside, root_of
from fovea.indexer.walking.ignore import IGNORE_FILE
from fovea.search.library.network import remote_kind
from fovea.search.library.paths import printable_name
from fovea.search.library.reachable import unreachable

from .pending import Pending, Work

__all__ = ["POLL_S", "Watch"]

STEP_S = 0.2  # between two looks at what has settled
LOOK_S = 2.0  # between two looks at the roots: new ones, and those that vanish or come back
POLL_S = 60.0  # between two scans of what cannot be watched
SHARE = 0.05  # of the time that such scans may take
SURE_S = 3600.0  # between two scans of everything: the system drops events if too many come

# watchdog's own remark when a folder is new and its events come out of order, which is no problem.
warnings.filterwarnings("ignore", "Callback with id .* already exists", RuntimeWarning)

log = logging.getLogger("fovea.indexer.watching")

Identity = tuple[int, int]


class Watch:
    """Notices changes below the roots, and calls ``index`` with what has settled.

    ``roots`` returns the absolute paths of the roots, which may change meanwhile; ``own`` is the
    library's folder, whose changes are nobody's business. ``index`` is called in the thread of
    ``run``, first with all roots, and what changes meanwhile waits for its return. It is given
    nothing outside the roots, but one may leave the library before it begins. An ``OSError`` that
    watching raises is logged, and the root scanned every ``poll_s`` seconds instead.
    """

    def __init__(
        self,
        roots: Callable[[], Collection[bytes]],
        own: bytes,
        index: Callable[[Work], None],
        *,
        poll_s: float = POLL_S,
    ) -> None:
        self._roots, self._own, self._index, self._poll_s = roots, own, index, poll_s
        self.pending = Pending()
        self._watched: dict[bytes, tuple[Identity, ObservedWatch]] = {}
        self._polled: dict[bytes, float] = {}  # root -> when to scan it next
        self._gone: set[bytes] = set()
        self._known: set[bytes] = set()
        self._observer: BaseObserver | None = None

    @property
    def watched(self) -> frozenset[bytes]:
        """The roots whose changes the system tells."""
        return frozenset(self._watched)

    @property
    def polled(self) -> frozenset[bytes]:
        """The roots that are scanned at intervals."""
        return frozenset(self._polled)

    def run(self, stop: threading.Event) -> None:
        """Watch until ``stop`` is set. Whatever ``index`` raises ends it."""
        self._observer = Observer()
        self._observer.start()
        try:
            self._look()
            looked = sure = time.monotonic()
            while not stop.wait(STEP_S):
                now = time.monotonic()
                if now - looked >= LOOK_S:
                    looked = now
                    self._look()
                if now - sure >= SURE_S:
                    sure = now
                    for root in self._known - self._gone:
                        self.pending.unclear(root)
                self._scan_polled(now)
                work = self.pending.take()
                if work is not None and not stop.is_set():
                    self._hand_over(work)
        finally:
            self._observer.stop()
            self._observer.join(STEP_S)

    def _hand_over(self, work: Work) -> None:
        """Have indexed what is still in the library: a root may have left it since the last look.

        A folder that was removed from the library would be added again.
        """
        roots = frozenset(self._roots())
        work = Work(
            tuple(root for root in work.roots if root in roots),
            tuple(path for path in work.files if root_of(path, roots) is not None),
        )
        if work.roots or work.files:
            self._index(work)

    # Which roots are watched, and how

    def _look(self) -> None:
        """Watch what has become a root, and look which ones have vanished or come back."""
        roots = set(self._roots())
        known, self._known = self._known, roots
        for root in known - roots:
            self._leave(root)
        gone = set(unreachable(roots))
        for root in roots - gone:
            if root not in known or root in self._gone or not self._is_watched_still(root):
                self._unwatch(root)
                if self._watch(root):
                    self.pending.unclear(root)
                else:
                    gone.add(root)
        for root in gone - self._gone:
            self._unwatch(root)
            self._polled.pop(root, None)
            self.pending.unclear(root)  # the scan notes that it is offline
        self._gone = gone

    def _leave(self, root: bytes) -> None:
        """Let go of a folder that is no root any more."""
        self._unwatch(root)
        self._polled.pop(root, None)
        self._gone.discard(root)
        self.pending.drop(root)
        if (around := root_of(root, self._known)) is not None:
            self.pending.unclear(around)  # whose own these files are now

    def _is_watched_still(self, root: bytes) -> bool:
        """Whether the folder there is the one that is watched: another may be mounted since."""
        if root in self._polled:
            return True
        seen = self._watched.get(root)
        return seen is not None and seen[0] == _identity(root) and self._is_alive(seen[1])

    def _is_alive(self, watch: ObservedWatch) -> bool:
        """Whether a root is still watched: its thread ends when the folder is deleted."""
        emitters = self._observer.emitters if self._observer is not None else ()
        return any(emitter.watch == watch and emitter.is_alive() for emitter in emitters)

    def _watch(self, root: bytes) -> bool:
        """Watch a root, or have it scanned at intervals; return False if it has just vanished."""
        self._polled.pop(root, None)
        kind = remote_kind(os.fsdecode(root))  # type: ignore[arg-type]
        if kind is not None:
            self._poll(root, f"is on a network ({kind})")
            return True
        if os.path.islink(root):  # since it became a root: watchdog would watch the link itself
            self._poll(root, "is a link now")
            return True
        identity = _identity(root)
        if identity is None:
            return False
        try:
            assert self._observer is not None
            handler = _Handler(self, root)
            watch = self._observer.schedule(handler, os.fsdecode(root), recursive=True)
            self._watched[root] = identity, watch
        except OSError as exc:  # as many folders are watched as the system allows, say
            if _identity(root) != identity:
                return False
            self._poll(root, f"cannot be watched: {exc.strerror or exc}")
        return True

    def _poll(self, root: bytes, why: str) -> None:
        name = printable_name(os.fsdecode(root))
        log.info("%s %s; it is scanned every %g s instead", name, why, self._poll_s)
        self._polled[root] = time.monotonic() + self._poll_s

    def _unwatch(self, root: bytes) -> None:
        seen = self._watched.pop(root, None)
        if seen is not None and self._observer is not None:
            self._observer.unschedule(seen[1])

    def _scan_polled(self, now: float) -> None:
        due = [root for root, at in self._polled.items() if now >= at]
        if not due:
            return
        self._hand_over(Work(tuple(due), ()))
        ended = time.monotonic()
        wait = max(self._poll_s, (ended - now) / SHARE)
        for root in due:
            if root in self._polled:
                self._polled[root] = ended + wait

    # What is told

    def heard(self, root: bytes, event: FileSystemEvent) -> None:
        """Take in one event below a root, in watchdog's thread."""
        path, target = os.fsencode(event.src_path), os.fsencode(event.dest_path)
        concerned = [one for one in (path, target) if one and self._concerns(root, one)]
        if not concerned:
            return
        kind = event.event_type
        if event.is_directory:
            if kind != "modified":  # what was done in it is told by itself
                self.pending.unclear(root)
        elif kind == "moved":
            if path in concerned and _is_telling(path):
                self.pending.forget(path)
                self.pending.unclear(root)
            elif target in concerned:
                self._written(root, target, True)
        elif kind == "deleted":
            self.pending.forget(path)
            if _is_telling(path):
                self.pending.unclear(root)
        else:
            self._written(root, path, kind == "closed")

    def _written(self, root: bytes, path: bytes, is_closed: bool) -> None:
        if os.path.basename(path) == IGNORE_FILE:
            self.pending.unclear(root)
        elif _is_telling(path):
            self.pending.written(root, path, is_closed=is_closed)

    def _concerns(self, root: bytes, path: bytes) -> bool:
        """Whether a path belongs to this root, not to one inside it or to the library itself."""
        return not inside(path, self._own) and root_of(path, self._known | {root}) == root


def _is_telling(path: bytes) -> bool:
    name = os.path.basename(path)
    return name == IGNORE_FILE or extension(name) in EXTENSIONS


def _identity(root: bytes) -> Identity | None:
    try:
        status = os.stat(root)
    except OSError:
        return None
    return status.st_dev, status.st_ino


class _Handler(FileSystemEventHandler):
    """Hands the events of one root over; watchdog calls ``dispatch``."""

    def __init__(self, watch: Watch, root: bytes) -> None:
        self._watch, self._root = watch, root

    def dispatch(self, event: FileSystemEvent) -> None:
        if event.event_type in ("created", "modified", "closed", "moved", "deleted"):
            self._watch.heard(self._root, event)
