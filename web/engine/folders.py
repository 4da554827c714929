"""The folders of a library as a tree, with their numbers of pictures."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import numpy as np

from fovea.search.library.facts.folded import canonical_path, fold, fold_path
from fovea.search.library.library import Library
from fovea.search.library.marks import hidden_images
from fovea.search.query.columns import Columns, images_within
from fovea.search.query.language import Filter, Query

from .engine import Engine

__all__ = ["LONGEST", "VISIBLE", "Folder", "Folders", "folders_of", "name_within"]

LONGEST = 2000  # characters of a query
SEPARATOR = os.fsencode(os.sep)
VISIBLE = "image_id NOT IN (SELECT image_id FROM hidden)"


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder with pictures in it or below it."""

    path: bytes
    name: bytes  # from the name of the indexed folder on
    count: int  # pictures in it and below it, each once
    above: int  # the place of the folder that it is in; -1 for one at the top


@dataclass(frozen=True)
class Folders:
    """All folders, by path: what is in a folder follows it.

    Those whose paths differ in their Unicode form only are one folder, as they are to ``in:``.
    """

    entries: Sequence[Folder]

    @cached_property
    def _inside(self) -> dict[int, list[int]]:
        """The places of the folders in each folder, by its place; -1 for the top."""
        found: dict[int, list[int]] = {}
        for place, folder in enumerate(self.entries):
            found.setdefault(folder.above, []).append(place)
        return found

    @cached_property
    def _places(self) -> dict[str, int]:
        paths = (canonical_path(os.fsdecode(folder.path)) for folder in self.entries)
        return {path: place for place, path in enumerate(paths)}

    @cached_property
    def _folded(self) -> list[str]:
        """The whole path of each folder as ``in:`` compares it, with a slash at its end."""
        return [fold_path(os.fsdecode(folder.path)) + "/" for folder in self.entries]

    @cached_property
    def askable(self) -> list[bool]:
        """Of each folder, whether a query can name it."""
        return [_has_query(folder) for folder in self.entries]

    @cached_property
    def _names(self) -> list[str]:
        return [fold_path(os.fsdecode(folder.name)) for folder in self.entries]

    def place_of(self, path: str) -> int | None:
        """Return the place of the folder with this path; None if it has no pictures."""
        return self._places.get(canonical_path(path.rstrip("/") or "/"))

    def within(self, place: int) -> list[int]:
        """Return the places of the folders directly in one; of the topmost ones for -1."""
        return self._inside.get(place, [])

    def named(self, text: str) -> list[int]:
        """Return the places of folders whose names have all words of a text, the last in their own.

        Names that begin with the text come first, then those with the most pictures.
        """
        words = fold(text.replace(os.sep, " ")).split()
        if not words:
            return []
        found = []
        for place, name in enumerate(self._names):
            own = name.rpartition("/")[2]
            if words[-1] in own and all(word in name for word in words[:-1]):
                found.append((not own.startswith(words[-1]), -self.entries[place].count, place))
        return [place for *_, place in sorted(found)]

    def short(self, place: int) -> str | None:
        """Return the shortest end of a folder's path that is this folder alone to ``in:``."""
        path = os.fsdecode(self.entries[place].path)
        parts = path.strip("/").split("/")
        below = sum(1 for folded in self._folded if folded.startswith(self._folded[place]))
        for first in range(len(parts) - 1, -1, -1):
            end = "/".join(parts[first:])
            part = f"/{fold_path(end)}/"
            if end.strip() and sum(part in folded for folded in self._folded) == below:
                return end
        return None

    def largest(self, most: int) -> list[Folder]:
        """Return the folders with the most pictures that a query can name, by path."""
        ordered = sorted(range(len(self.entries)), key=lambda place: -self.entries[place].count)
        named = islice((place for place in ordered if self.askable[place]), most)
        return [self.entries[place] for place in sorted(named)]


def folders_of(engine: Engine) -> Folders:
    """Return the folders of the library as it is now. Hidden pictures do not count."""
    found: Folders = engine.remembered("folders", lambda: _read(engine))
    return found


def name_within(path: str, roots: Iterable[bytes]) -> str:
    """Return how a folder is called: from the name of the indexed folder on, or its own name."""
    whole = canonical_path(path)
    for root in sorted(roots, key=len):
        top = canonical_path(os.fsdecode(root))
        if whole == top or whole.startswith(top.rstrip("/") + "/"):
            above = max(0, top.rstrip("/").count("/") - 1)
            return "/".join(path.strip("/").split("/")[above:]) or path
    return path.rstrip("/").rpartition("/")[2] or path


def _has_query(folder: Folder) -> bool:
    """Whether a query for the folder fits into a search box and an address."""
    try:
        text = str(Query(filters=(Filter("in", folder.path.decode()),)))
    except UnicodeDecodeError:
        return False
    return len(text) <= LONGEST and len(text.splitlines()) == 1


@dataclass(frozen=True, slots=True)
class _Files:
    """Where the indexed files of each image lie."""

    folders: Sequence[bytes]
    file_images: np.ndarray
    file_folders: np.ndarray  # places in ``folders``


def _read(engine: Engine) -> Folders:
    library, columns = engine.library, engine.columns()
    if columns is None:
        return _tree(library, _files(library))
    return _tree(library, _filed(columns, ~np.isin(columns.ids, hidden_images(library))))


def _filed(columns: Columns, is_visible: np.ndarray) -> _Files:
    kept = is_visible[columns.file_images]
    return _Files(columns.values.folders, columns.file_images[kept], columns.file_folders[kept])


def _files(library: Library) -> _Files:
    sql = (
        "SELECT image_id, path FROM files WHERE state = 'indexed' AND image_id IS NOT NULL "
        f"AND {VISIBLE} ORDER BY image_id"
    )
    code_of: dict[bytes, int] = {}
    images, folders = [], []
    for image_id, path in library.rows(sql):
        images.append(image_id)
        folders.append(code_of.setdefault(os.path.dirname(path), len(code_of)))
    return _Files(list(code_of), np.array(images, np.int64), np.array(folders, np.int64))


def _tree(library: Library, files: _Files) -> Folders:
    """Count the pictures below each folder, from the roots to the files."""
    groups: dict[str, int] = {}
    inside: set[tuple[int, int]] = set()
    names: list[tuple[bytes, bytes]] = []  # the path as it is, and how people call it
    folders = sorted((path, number) for number, path in enumerate(files.folders))
    for root in sorted((root.path for root in library.roots()), key=len):
        stem = os.path.dirname(root)
        for folder, number in folders:
            for place in _upwards(folder, root):
                group = groups.setdefault(canonical_path(os.fsdecode(place)), len(groups))
                inside.add((number, group))
                if group == len(names):
                    names.append((place, place[len(stem) :].strip(SEPARATOR)))
    counts = images_within(files, list(inside), len(groups))
    shown = sorted((*name, count) for name, count in zip(names, counts, strict=True) if count)
    places = {canonical_path(os.fsdecode(path)): place for place, (path, *_) in enumerate(shown)}

    def above(path: bytes) -> int:
        folder = os.path.dirname(path)
        return -1 if folder == path else places.get(canonical_path(os.fsdecode(folder)), -1)

    return Folders([Folder(path, name, count, above(path)) for path, name, count in shown])


def _upwards(folder: bytes, root: bytes) -> list[bytes]:
    """List a folder and its parents up to a root; empty if it is not below the root."""
    inside = root.rstrip(SEPARATOR) + SEPARATOR
    places = []
    while (folder + SEPARATOR).startswith(inside):
        places.append(folder)
        above = os.path.dirname(folder)
        if above == folder:
            break
        folder = above
    return places
