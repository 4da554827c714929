"""Write a library's tags and favourites as sidecars, and read sidecars into the library.

They go into a folder of their own; beside the pictures only where that is asked for. A file that
anybody else has written is left as it is.
"""

import errno
import os
import stat
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fovea.search.errors import LibraryError
from fovea.search.library.library import Library
from fovea.search.library.marks import mark
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
LARGEST = 4 << 20  # bytes of a sidecar that is read


@dataclass(frozen=True, slots=True)
class SidecarReport:
    """What was written or read."""

    pictures: int  # files with a sidecar that was written, or that said something new
    left: int = 0  # sidecars that other programs wrote, left as they are
    failed: int = 0  # sidecars that could not be written or read


def write_sidecars(library: Library, folder: Path | None, *, found: bool = False) -> SidecarReport:
    """Write a sidecar for each file with a tag or a favourite's mark; hidden pictures have none.

    Tags are those that people confirmed; with ``found``, also those that probes and labels found.
    ``folder`` gets the tree of the roots; None writes beside the pictures. Raise ``LibraryError``
    for a folder that lies below a root.
    """
    places = _places(library, folder)
    roots = [os.path.realpath(root.path).rstrip(b"/") + b"/" for root in library.roots()]
    if folder is not None and (root := _root_above(folder, roots)):
        raise LibraryError(
            f"{printable_name(folder)} lies in the indexed folder "
            f"{printable_name(os.fsdecode(root))}; name a folder elsewhere"
        )
    refresh_if_possible(library)
    written = left = failed = 0
    for path, root_id, sidecar in _said(library, found):
        target = places(path, root_id)
        try:
            if _is_anothers(target):
                left += 1
                continue
            if folder is not None:
                if _root_above(target.parent, roots):  # a link in the folder leads there
                    failed += 1
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
            _write(target, sidecar_bytes(sidecar))
            written += 1
        except OSError:
            failed += 1
    return SidecarReport(written, left, failed)


def read_sidecars(library: Library, folder: Path | None) -> SidecarReport:
    """Teach the keywords of sidecars as tags, and make those with five stars favourites.

    They are those in a folder that ``write_sidecars`` could have written, or beside the pictures.
    What is there stays. A keyword that a tag was written as is that tag: "a/b" for "a | b".
    """
    library.check_writable()
    places = _places(library, folder)
    told: dict[str, list[bytes]] = defaultdict(list)
    loved: list[bytes] = []
    seen, failed = 0, 0
    for path, root_id, content in library.rows(
        "SELECT path, root_id, hash FROM files JOIN images ON images.id = image_id "
        "WHERE state = 'indexed' ORDER BY path"
    ):
        found = None
        for place in (places(path, root_id), places(os.path.splitext(path)[0], root_id)):
            try:
                found = parse_sidecar(_read(place, LARGEST))
                break
            except FileNotFoundError:
                continue
            except OSError:
                failed += 1
                break
        if found is None:
            continue
        seen += 1
        for word in found.keywords:
            told[word].append(content)
        if found.rating == BEST:
            loved.append(content)
    named = {keyword(tag.name): tag.name for tag in tags(library)}
    with library.transaction() as conn:
        for word, contents in told.items():
            try:
                restore(conn, Lesson(named.get(word, word), contents))
            except TagRefused:
                failed += 1
    mark(library, loved, "favourite", True)
    refresh_if_possible(library)
    return SidecarReport(seen, failed=failed)


def _places(library: Library, folder: Path | None) -> Callable[[bytes, int], Path]:
    """Return a function from a file's path and root to its sidecar."""
    roots = {root.id: root.path for root in library.roots()}
    names: dict[int, bytes] = {}
    for number, path in roots.items():
        name = os.path.basename(path.rstrip(b"/")) or b"root"
        names[number] = name if name not in names.values() else b"%s (%d)" % (name, number)

    def place(path: bytes, root_id: int) -> Path:
        if folder is None:
            return Path(os.fsdecode(path) + SUFFIX)
        within = os.path.relpath(path, roots[root_id])
        return folder / os.fsdecode(os.path.join(names[root_id], within) + SUFFIX.encode())

    return place


def _said(library: Library, found: bool) -> Iterator[tuple[bytes, int, Sidecar]]:
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
        if image_id not in hidden and (image_id in words or image_id in loved):
            rating = BEST if image_id in loved else None
            yield path, root_id, Sidecar(tuple(words.get(image_id, ())), rating)


def _root_above(folder: Path, roots: Iterable[bytes]) -> bytes | None:
    """Return the root in which a folder lies once links are followed, which may not be there."""
    inside = os.fsencode(os.path.realpath(folder)) + b"/"
    return next((root.rstrip(b"/") or root for root in roots if inside.startswith(root)), None)


def _is_anothers(target: Path) -> bool:
    """Whether another program, or somebody, wrote this sidecar, or changed it since fovea did."""
    try:
        return not is_ours(_read(target, LARGEST))
    except FileNotFoundError:
        return False


def _read(place: Path, most: int) -> bytes:
    """Read the beginning of a file. Raise ``OSError`` for what is no file, such as a pipe."""
    if not stat.S_ISREG(place.stat().st_mode):
        raise OSError(errno.EINVAL, "not a file")
    with place.open("rb") as file:
        return file.read(most)


def _write(target: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    part = target.with_name(f".{target.name[:200]}.{os.getpid()}.part")
    try:
        with part.open("xb") as file:
            file.write(data)
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)
