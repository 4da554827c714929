"""Which files and folders a request names, and in which roots they are."""

import os
from collections.abc import Collection, Iterable
from pathlib import Path

from fovea.search.clip.user_path import check_path

from .changes import inside, root_of


def named_path(folder: Path | bytes | str) -> bytes:
    """Return the absolute path of a file or folder as it is named; links are kept.

    Raise ``FoveaError`` for a path that names nothing, such as an empty one.
    """
    return os.path.abspath(os.fsencode(check_path(folder)))


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
