"""What the library knows of the files that a walk meets, read in the walk's own order."""

import json
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import Executor
from functools import partial
from operator import itemgetter
from typing import Any

from fovea.indexer.decoding.limits import UNEXPECTED
from fovea.indexer.walking.walk import Found, Stamped
from fovea.search.errors import LibraryDamaged
from fovea.search.library.connection import REMEDY
from fovea.search.library.files import CHUNK, below
from fovea.search.library.library import Library
from fovea.search.library.rows import FileRow

from .refusals import UNEMBEDDED, UNSTORED

Answer = Callable[[], list[tuple[Any, ...]]]

PAGE = 4096  # rows read at a time; between two reads nothing is locked
RETRIED = tuple(
    f"reason LIKE '{start.strip()}%'" for start in ("unreadable:", UNEMBEDDED, UNSTORED, UNEXPECTED)
)

# A row equals a picture as the walk describes it only if nothing is to be done about that. Else it
# has an empty text for a ctime, which no file has.
# A page is one row of lists, so that SQLite reads all of it without Python's lock.
_STAMPS = """
    SELECT CAST(group_concat(path, x'00') AS BLOB), json_group_array(size),
        json_group_array(mtime_ns), json_group_array(ctime_ns)
    FROM (
        SELECT path, size, mtime_ns,
            CASE WHEN state = 'indexed' AND reason IS NULL THEN ctime_ns ELSE '' END AS ctime_ns
        FROM files WHERE path >= ? AND path < ? ORDER BY path LIMIT ?
    )
"""
_DETAILS = f"""
    SELECT state = 'indexed' AND reason IS NOT NULL,
        state = 'failed' AND ({" OR ".join(RETRIED)}
            OR root_id IN (SELECT value FROM json_each(?))),
        path, id, size, mtime_ns, state, image_id, ctime_ns
    FROM files WHERE path IN
"""


class Known:
    """What the library knows of files: read beside a walk, or of a few files before it.

    The walk notes in ``noted`` and ``retry`` the paths of which more than the stamps counts, as it
    comes to them, and in ``files`` the rows of files that it did not find. With a ``thread``, that
    alone uses ``library`` once the walk has begun.
    """

    def __init__(
        self,
        library: Library,
        unembedded: Iterable[int] = (),
        otherwise: Collection[int] = (),
        thread: Executor | None = None,
    ) -> None:
        self.unembedded = set(unembedded)  # images that the model has yet to embed
        self.files: dict[bytes, FileRow] = {}
        self.noted: set[bytes] = set()  # indexed, with a remark: kept though not found or readable
        self.retry: set[bytes] = set()  # failed, but not by their content, or with other decoders
        self._otherwise = json.dumps(sorted(otherwise))
        self._library, self._thread = library, thread

    def ask(self, sql: str, parameters: Sequence[object]) -> Answer:
        """Begin to read rows beside the walk; what is returned gives them when it is called."""
        if self._thread is None:
            return partial(self._library.rows, sql, parameters)
        return self._thread.submit(self._library.rows, sql, parameters).result

    def rows_of(self, paths: Sequence[bytes]) -> dict[bytes, FileRow]:
        """Read the whole rows of some files, and note what their reasons say."""
        found: dict[bytes, FileRow] = {}
        for start in range(0, len(paths), CHUNK):
            chunk = paths[start : start + CHUNK]
            marks = ",".join("?" * len(chunk))
            rows = self.ask(f"{_DETAILS} ({marks})", (self._otherwise, *chunk))
            for is_noted, is_retried, path, *row in rows():
                found[path] = FileRow(*row)
                if is_noted:
                    self.noted.add(path)
                if is_retried:
                    self.retry.add(path)
        return found


class OrderedRows:
    """The rows below a folder in the order of their paths, a page ahead of what is taken.

    ``ask`` is that of ``Known``. ``without`` are folders whose rows are left out, since they are
    walked by themselves.
    """

    def __init__(
        self,
        ask: Callable[[str, Sequence[object]], Answer],
        folder: bytes,
        without: Iterable[bytes] = (),
    ) -> None:
        self._ask = ask
        self._ranges = list(reversed(_ranges(folder, without)))  # still to be read, the first last
        self._asked = self._begin()
        self._rows: list[Stamped] = []
        self._at = 0  # those before it are taken

    def take(self, pictures: Sequence[Stamped | Found]) -> bool:
        """Take the next rows if they equal some pictures; return whether they do."""
        while len(self._rows) - self._at < len(pictures):
            if not self._read():
                return False
        end = self._at + len(pictures)
        if self._rows[self._at : end] != pictures:
            return False
        self._at = end
        return True

    def until(self, path: bytes) -> list[Stamped]:
        """Take the rows up to a path, included."""
        while not self._rows or self._rows[-1][0] <= path:
            if not self._read():
                break
        end = bisect_right(self._rows, path, self._at, key=_PATH)
        taken = self._rows[self._at : end]
        self._at = end
        return taken

    def rest(self) -> list[Stamped]:
        """Take up to a page of the rows that are left; none if there are none."""
        if self._at == len(self._rows):
            self._read()
        taken = self._rows[self._at :]
        self._at = len(self._rows)
        return taken

    def _begin(self) -> Answer | None:
        """Ask for the next page, if there may be one."""
        return self._ask(_STAMPS, (*self._ranges[-1], PAGE)) if self._ranges else None

    def _read(self) -> bool:
        """Add the next page; return whether there was one."""
        while self._asked is not None:
            page = _rows_in(self._asked())
            low, high = self._ranges.pop()
            if len(page) == PAGE:
                following = page[-1][0] + b"\0"  # no path is between the two
                if low < following:  # in a damaged database it might begin before this one
                    self._ranges.append((following, high))
            self._asked = self._begin()
            if page:
                self._rows = [*self._rows[self._at :], *page]
                self._at = 0
                return True
        return False


def _rows_in(page: list[tuple[Any, ...]]) -> list[Stamped]:
    [(paths, *columns)] = page
    if paths is None:
        return []
    rows = [paths.split(b"\0"), *map(json.loads, columns)]
    if len(rows[0]) != len(rows[1]):
        raise LibraryDamaged(f"a path in the library has a null byte; {REMEDY}")
    return list(zip(*rows, strict=True))


_PATH = itemgetter(0)


def _ranges(folder: bytes, without: Iterable[bytes]) -> list[tuple[bytes, bytes]]:
    """Return the half-open ranges of the paths below a folder, but not below some others in it."""
    low, end = below(folder)
    ranges = []
    for inner in sorted(below(path) for path in without):
        if low <= inner[0] and inner[1] <= end:
            ranges.append((low, inner[0]))
            low = inner[1]
    return [*ranges, (low, end)]
