"""Write a library's tags and favourites as sidecars, and read sidecars into the library.

They go into a folder of their own; beside the pictures only where that is asked for. A file that
anybody else has written is left as it is; one of fovea's own that has nothing to say any more is
removed, since it would bring back what was taken away.
"""

import contextlib
import errno
import os
import stat
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal

from fovea.search.errors import LibraryError
from fovea.search.library.library import Library
from fovea.search.library.marks import set_marks
from fovea.search.library.paths import printable_name
from fovea.search.tags.scoring import refresh_if_possible
from fovea.search.tags.stored import Lesson, TagRefused, restore, tags

from .packet import BEST, Sidecar, is_ours, keyword, parse_sidecar, sidecar_bytes

__all__ = ["SidecarReport", "read_sidecars", "write_sidecars"]

SUFFIX = ".xmp"  # after the whole name: a.jpg.xmp
_FOUND = "SELECT image_id, name FROM tagged JOIN tags ON tags.id = tag_id"
_CONFIRMED = (
    "SELECT images.id, name FROM tag_examples JOIN images USING (hash) "
    "JOIN tags ON tags.id = tag_id WHERE is_so"
)
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)
LARGEST = 4 << 20  # bytes of a sidecar that is read


@dataclass(frozen=True, slots=True)
class SidecarReport:
    """What was written or read."""

    pictures: int  # sidecars that were written, or pictures of which sidecars said something new
    left: int = 0  # sidecars that other programs wrote, left as they are
    failed: int = 0  # sidecars that could not be written, removed or read
    removed: int = 0  # fovea's own, of pictures of which there is nothing to say any more
    read: int = 0  # sidecars that could be read, whether they said something new or not
    refused: int = 0  # keywords for which the library has too many tags


def write_sidecars(library: Library, folder: Path | None, *, found: bool = False) -> SidecarReport:
    """Write a sidecar for each file with a tag or a favourite's mark; hidden pictures have none.

    Tags are those that people confirmed; with ``found``, also those that probes and labels found.
    ``folder`` gets the tree of the roots; None writes beside the pictures. Other files lose the
    sidecar that fovea wrote for them. Raise ``LibraryError`` for a folder that lies below a root.
    """
    roots = [os.path.realpath(root.path).rstrip(b"/") + b"/" for root in library.roots()]
    if folder is not None and (root := _root_above(folder, roots)):
        raise LibraryError(
            f"{printable_name(folder)} lies in the indexed folder "
            f"{printable_name(os.fsdecode(root))}; name a folder elsewhere"
        )
    places = _places(library, folder, is_writing=True)
    refresh_if_possible(library)
    done: Counter[str] = Counter()
    for path, root_id, sidecar in _said(library, found):
        target = places(path, root_id)
        try:
            there = _what_is_there(target)
            if sidecar is None and there != "ours":
                continue
            if there == "another's":
                done["left"] += 1
            elif there == "no file" or (folder is not None and _root_above(target.parent, roots)):
                done["failed"] += 1  # or a link in the folder leads there
            elif sidecar is None:
                target.unlink()
                done["removed"] += 1
            else:
                if folder is not None:
                    target.parent.mkdir(parents=True, exist_ok=True)
                _write(target, sidecar_bytes(sidecar))
                done["pictures"] += 1
        except OSError:
            done["failed"] += 1
    return SidecarReport(done["pictures"], done["left"], done["failed"], done["removed"])


def read_sidecars(library: Library, folder: Path | None) -> SidecarReport:
    """Teach the keywords of sidecars as tags, and make those with five stars favourites.

    They are those in a folder that ``write_sidecars`` could have written, or beside the pictures.
    What is there stays. A keyword that a tag was written as is that tag: "a/b" for "a | b".
    """
    library.check_writable()
    places = _places(library, folder)
    told: dict[str, list[bytes]] = defaultdict(list)
    loved: list[bytes] = []
    read = failed = refused = 0
    for path, root_id, content in library.rows(
        "SELECT path, root_id, hash FROM files JOIN images ON images.id = image_id "
        "WHERE state = 'indexed' ORDER BY path"
    ):
        try:
            found = _first(places(path, root_id), places(os.path.splitext(path)[0], root_id))
        except OSError:
            failed += 1
            continue
        if found is None:
            continue
        read += 1
        for word in found.keywords:
            told[word].append(content)
        if found.rating == BEST:
            loved.append(content)
    named = {keyword(tag.name): tag.name for tag in tags(library)}
    with library.transaction() as conn:
        new = set(set_marks(conn, loved, "favourite", True))
        for word, contents in told.items():
            try:
                new.update(restore(conn, Lesson(named.get(word, word), contents)))
            except TagRefused:
                refused += 1
    refresh_if_possible(library)
    return SidecarReport(len(new), failed=failed, read=read, refused=refused)


def _first(*places: Path) -> Sidecar | None:
    """Read the first sidecar that is there. Raise ``OSError`` for one that cannot be read."""
    for place in places:
        try:
            if not stat.S_ISREG(place.stat().st_mode):  # such as a pipe
                raise OSError(errno.EINVAL, "not a file")
            data = _read(place)
        except OSError as exc:
            if exc.errno in _ABSENT:
                continue
            raise
        found = parse_sidecar(data)
        if found is None:
            raise OSError(errno.EINVAL, "not XMP")
        return found
    return None


def _places(
    library: Library, folder: Path | None, *, is_writing: bool = False
) -> Callable[[bytes, int], Path]:
    """Return a function from a file's path and root to its sidecar."""
    roots = {root.id: root.path for root in library.roots()}
    trees = {} if folder is None else _trees(roots, folder, is_writing)

    def place(path: bytes, root_id: int) -> Path:
        if folder is None:
            return Path(os.fsdecode(path) + SUFFIX)
        within = os.path.relpath(path, roots[root_id])
        return trees[root_id] / (os.fsdecode(within) + SUFFIX)

    return place


def _trees(roots: Mapping[int, bytes], folder: Path, is_writing: bool) -> dict[int, Path]:
    """Return the tree of each root in a folder: its name, with a digest where names are alike.

    A tree with a digest is that root's for good, whichever roots come and go, so writing makes it
    even if there is nothing to say yet. Older exports have the first of equal names as it is, and
    the others with the numbers of their roots: these are still read.
    """
    names = {
        number: os.fsdecode(os.path.basename(path.rstrip(b"/"))) or "root"
        for number, path in roots.items()
    }
    folded = Counter(map(_folded, names.values()))
    first = {name: number for number, name in sorted(names.items(), reverse=True)}
    trees = {}
    for number, name in names.items():
        own = folder / f"{name}-{_digest(roots[number])}"
        numbered = f"{name} ({number})"
        is_writing_own = is_writing and folded[_folded(name)] > 1
        if is_writing_own or os.path.isdir(own):  # false of names that are too long
            trees[number] = own
        elif numbered not in first and os.path.isdir(folder / numbered):
            trees[number] = folder / numbered
        else:
            trees[number] = folder / name if number == first[name] else own
        if is_writing_own:
            with contextlib.suppress(OSError):  # counted where a sidecar cannot be written
                own.mkdir(parents=True, exist_ok=True)
    return trees


def _folded(name: str) -> str:
    """Return a name as file systems compare it that ignore case."""
    return unicodedata.normalize("NFC", name).casefold()


def _digest(data: bytes) -> str:
    return sha256(data).hexdigest()[:8]


def _said(library: Library, found: bool) -> Iterator[tuple[bytes, int, Sidecar | None]]:
    """Yield each indexed file, its root, and its sidecar; None if there is nothing to say."""
    words: dict[int, list[str]] = defaultdict(list)
    with library.reading():
        for image_id, name in library.rows((_FOUND if found else _CONFIRMED) + " ORDER BY folded"):
            words[image_id].append(name)
        loved = {number for (number,) in library.rows("SELECT image_id FROM favourites")}
        hidden = {number for (number,) in library.rows("SELECT image_id FROM hidden")}
        files = library.rows(
            "SELECT path, root_id, image_id FROM files WHERE state = 'indexed' ORDER BY path"
        )
    for path, root_id, image_id in files:
        rating = BEST if image_id in loved else None
        sidecar = Sidecar(tuple(words.get(image_id, ())), rating)
        is_silent = image_id in hidden or sidecar == Sidecar()
        yield path, root_id, None if is_silent else sidecar


def _root_above(folder: Path, roots: Iterable[bytes]) -> bytes | None:
    """Return the root in which a folder lies once links are followed, which may not be there."""
    inside = os.fsencode(os.path.realpath(folder)) + b"/"
    return next((root.rstrip(b"/") or root for root in roots if inside.startswith(root)), None)


def _what_is_there(target: Path) -> Literal["nothing", "ours", "another's", "no file"]:
    """Say whose a sidecar is: another's if somebody else wrote or changed it, or made a link."""
    try:
        mode = target.lstat().st_mode
        if stat.S_ISREG(mode):
            return "ours" if is_ours(_read(target)) else "another's"
    except OSError as exc:
        if exc.errno in _ABSENT:
            return "nothing"
        raise
    return "another's" if stat.S_ISLNK(mode) else "no file"


def _read(place: Path) -> bytes:
    with place.open("rb") as file:
        return file.read(LARGEST)


def _write(target: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    part = target.with_name(f".{_digest(os.fsencode(target.name))}.{os.getpid()}.part")
    try:
        with part.open("xb") as file:
            file.write(data)
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)
