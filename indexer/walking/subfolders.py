"""Complete the path of a folder while somebody types it."""

import errno
import os
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Completion", "Subfolder", "completed", "starting_places"]

MOST = 50  # folders offered
LISTED = 50_000  # entries of a folder that are looked at
PATIENCE_S = 1.0  # for a disk or network
WAITING = 8  # looks at once that a dead mount may block
MOUNTS = ("/media", "/run/media", "/mnt", "/Volumes")
REASONS = {
    errno.ENOENT: "missing",
    errno.ENOTDIR: "missing",
    errno.EACCES: "forbidden",
    errno.EPERM: "forbidden",
}


@dataclass(frozen=True, slots=True)
class Subfolder:
    """A folder to go on with."""

    path: bytes
    leads_to: bytes | None = None  # the folder behind a link


@dataclass(frozen=True, slots=True)
class Completion:
    """Folders whose paths begin as typed, and why there may be none or more."""

    folders: tuple[Subfolder, ...] = ()
    has_more: bool = False
    reason: str | None = None  # missing, forbidden, slow or unreadable


@dataclass(slots=True)
class _Look:
    """One look at a disk in its own thread, which a dead mount may block for ever."""

    work: Callable[[], Completion]
    found: Completion | None = None
    done: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        try:
            self.found = self.work()
        except OSError as exc:
            self.found = Completion(reason=REASONS.get(exc.errno or 0, "unreadable"))
        finally:
            self.done.set()
            _seats.release()


_seats = threading.BoundedSemaphore(WAITING)


def completed(path: bytes) -> Completion:
    """List the folders whose paths begin with an absolute path; the last name in any case.

    After a slash these are all that lie in the folder. Hidden ones are listed only if the last name
    begins with a dot. Links to folders are listed, and not followed further.
    """
    return _patiently(lambda: _below(path))


def starting_places() -> Completion:
    """List where pictures often lie: the user's pictures, the home folder, and what is mounted."""
    return _patiently(_places)


def _patiently(work: Callable[[], Completion]) -> Completion:
    """Wait ``PATIENCE_S`` for a look at a disk."""
    if not _seats.acquire(blocking=False):
        return Completion(reason="slow")
    look = _Look(work)
    threading.Thread(target=look.run, daemon=True).start()
    look.done.wait(PATIENCE_S)
    return look.found or Completion(reason="slow")


def _below(path: bytes) -> Completion:
    parent, _, name = path.rpartition(b"/")
    parent = os.path.normpath(parent + b"/")
    if parent.startswith(b"//"):
        parent = parent[1:]
    wanted = os.fsdecode(name).casefold()
    found: list[bytes] = []
    with os.scandir(parent) as entries:
        for count, entry in enumerate(entries):
            if count == LISTED:
                break
            if _begins(os.fsdecode(entry.name), wanted) and _is_folder(entry):
                found.append(entry.path)
        else:
            return _first(found)
    return Completion(_first(found).folders, True)


def _begins(name: str, wanted: str) -> bool:
    return name.casefold().startswith(wanted) and (wanted[:1] == "." or name[:1] != ".")


def _is_folder(entry: "os.DirEntry[bytes]") -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _first(paths: Iterable[bytes]) -> Completion:
    ordered = sorted(paths, key=lambda path: (os.fsdecode(path).casefold(), path))
    folders = [
        Subfolder(path, os.path.realpath(path) if os.path.islink(path) else None)
        for path in ordered[:MOST]
    ]
    return Completion(tuple(folders), len(ordered) > MOST)


def _places() -> Completion:
    from platformdirs import user_pictures_path

    home = Path.home()
    found = [user_pictures_path(), home]
    for mount in (*MOUNTS, *(f"{mount}/{home.name}" for mount in MOUNTS)):
        with suppress(OSError), os.scandir(mount) as entries:
            names = sorted(entry.name for entry in entries if entry.is_dir())
            found += [Path(mount, name) for name in names if name != home.name]
    there = [os.fsencode(path) for path in dict.fromkeys(found) if path.is_dir()]
    return Completion(tuple(Subfolder(path) for path in there[:MOST]), len(there) > MOST)
