"""Which files and folders a request names, in which roots they are, and what can become a root."""

import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from fovea.search.clip.user_path import check_path
from fovea.search.errors import FoveaError
from fovea.search.library.library import Library
from fovea.search.library.paths import printable_name

from .changes import inside, root_of


def named_path(folder: Path | bytes | str) -> bytes:
    """Return the absolute path of a file or folder as it is named; links are kept.

    Raise ``FoveaError`` for a path that names nothing, such as an empty one.
    """
    return os.path.abspath(os.fsencode(check_path(folder)))


def root_path(folder: Path | bytes | str) -> bytes:
    """Return a folder's absolute path, without links: what is walked is what was meant.

    Raise ``FoveaError`` for a path that names nothing, such as an empty one.
    """
    return os.path.realpath(os.fsencode(check_path(folder)))


def paths_named(
    library: Library, folders: Iterable[Path | bytes | str], reread: bool
) -> list[bytes]:
    """Return the paths of folders to index, or of what is to be read anew."""
    if not reread:
        return [root_path(folder) for folder in folders]
    roots = {root.path for root in library.roots()}
    return [path_in(folder, roots) for folder in folders]


def path_in(folder: Path | bytes | str, roots: Collection[bytes]) -> bytes:
    """Return the path of what is to be read anew: below one of the roots if it is named so.

    Links that lead to a root are resolved, but not those below it, which a walk does not follow
    either. What is named in no root is resolved like a new folder.
    """
    path = above = named_path(folder)
    while True:
        real = os.path.realpath(above)
        if real in roots:
            rest = path[len(above) :].lstrip(b"/")
            return os.path.join(real, rest) if rest else real
        above, inner = os.path.dirname(above), above
        if above == inner:
            return os.path.realpath(path)


def covering(path: bytes, roots: Collection[bytes]) -> bytes:
    """Return the innermost root that a file or folder is in, else the path itself."""
    return root_of(path, roots) or path


def not_covered(paths: Iterable[bytes], roots: Collection[bytes], reread: bool) -> list[bytes]:
    """Return the folders that are to become roots; none around roots that are only read anew."""
    return [
        path
        for path in dict.fromkeys(paths)
        if path not in roots and not (reread and any(inside(root, path) for root in roots))
    ]


def check_folder(path: bytes, own: bytes) -> None:
    """Raise ``FoveaError`` for what cannot become a root; ``own`` is the library's folder."""
    name = printable_name(os.fsdecode(path))
    if not os.path.lexists(path):
        raise FoveaError(f"there is no folder {name}; check its name")
    if not os.path.isdir(path):
        raise FoveaError(f"{name} is not a folder; name the folder that it is in")
    if inside(path, own):
        raise FoveaError(f"{name} is the library's own folder; name another one")
    try:
        os.scandir(path).close()
    except OSError as exc:
        raise FoveaError(f"cannot list {name}: {exc.strerror}; check its permissions") from exc


@dataclass(frozen=True, slots=True)
class Overlap:
    """Which roots a folder lies in or around. Each file belongs to the innermost root only."""

    inside: bytes | None  # the innermost root around it
    around: tuple[bytes, ...]  # roots in it

    @classmethod
    def of(cls, path: bytes, roots: Collection[bytes]) -> "Overlap":
        """Compare a folder, without links, with roots; that it is one of them is no overlap."""
        others = [root for root in roots if root != path]
        found = root_of(path, frozenset(others))
        return cls(found, tuple(sorted(root for root in others if inside(root, path))))
