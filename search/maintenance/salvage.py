"""Keep what is whole of a damaged library: read it row by row into a new one."""

import sqlite3
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fovea.search.errors import LibraryError
from fovea.search.library import schema
from fovea.search.library.connection import in_memory, reader
from fovea.search.library.facts.dates import named_date
from fovea.search.library.facts.places import DATA as PLACES
from fovea.search.library.facts.places import OFF
from fovea.search.library.facts.unit import are_moments, are_unit
from fovea.search.library.library import DATABASE, Library, has_library

from .whole_rows import KEPT, is_whole

__all__ = ["SALVAGED", "SalvageReport", "salvage", "settle"]

SALVAGED = "salvaged"  # a key of the library's settings, until its next whole index run
MOST = 1 << 40  # no row has a higher id
DOUBTED = 0.25  # an SQL index that contradicts so many rows is not believed
PAGE = 512  # rows read at a time
UNREADABLE = (sqlite3.Error, UnicodeDecodeError, OverflowError, MemoryError)

FAILURES, FAILURES_A_PAGE = 10_000, 4  # queries that may fail in one table, and for each page

# What is not copied: a name's date follows from the path, a root's state from the next index run.
_MADE_ANEW = {("files", "named_at"), ("roots", "state")}

Row = dict[str, Any]
Values = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class SalvageReport:
    """How many rows of each kind were kept, and how many of those that are known were lost.

    The kinds are roots, models, images, files, embeddings, marks (favourites and hidden pictures),
    searches, tags and tag_examples.
    """

    kept: dict[str, int]
    lost: dict[str, int]


def salvage(
    damaged: Path, folder: Path, progress: Callable[[str, int], None] | None = None
) -> SalvageReport:
    """Copy every whole row of a library's database into a new library in ``folder``.

    A row is whole if it can be read, has only values that fovea writes, and no SQL index
    contradicts it. The damaged library is only read. Files that are lost are found by the next
    index run; images whose embeddings are whole are not embedded again. ``progress`` is called with
    a table's name and the rows read of it. Raise ``LibraryError`` if ``folder`` holds a library, or
    if nothing can be read.
    """
    if not has_library(damaged):
        raise LibraryError(f"no library in {damaged}; name the folder of the damaged one")
    if has_library(folder):
        raise LibraryError(f"{folder} has a library already; choose a new folder")
    path = damaged / DATABASE
    try:
        source = reader(path)
    except sqlite3.Error as exc:
        raise LibraryError(f"{path} cannot be opened: {exc}; restore a backup") from exc
    with closing(source):
        with suppress(*UNREADABLE):
            source.execute("PRAGMA writable_schema = ON")  # opens in spite of damaged definitions
        source.text_factory = lambda text: text.decode("utf-8")
        found = {table: _Table(source, table, progress) for table in KEPT}
        if not any(len(table.rows) for table in found.values()):
            raise LibraryError(f"nothing in {path} can be read; restore a backup, or index again")
        with Library.open(folder, create=True) as library, library.writing():
            return _written(library, source, found)


def settle(library: Library) -> None:
    """After a whole index run: delete salvaged images whose files did not turn up."""
    if not library.rows("SELECT 1 FROM library WHERE key = ?", (SALVAGED,)) or library.offline():
        return
    with library.transaction() as conn:
        conn.execute(
            "DELETE FROM images WHERE id NOT IN "
            "(SELECT image_id FROM files WHERE image_id IS NOT NULL)"
        )
        conn.execute("DELETE FROM library WHERE key = ?", (SALVAGED,))


class _Table:
    """The rows of one table that no SQL index contradicts, by id, and the ids that there were.

    Embeddings are read without their vectors, which are most of a library.
    """

    def __init__(
        self,
        conn: sqlite3.Connection,
        name: str,
        progress: Callable[[str, int], None] | None,
    ) -> None:
        self.columns, told = _columns(conn, name), _told_by_indexes(conn, name)
        read = [column for column in self.columns if column != "vector"]
        self.at = {column: place for place, column in enumerate(read)}
        self.rows: dict[int, Values] = {}
        for row in _rows(conn, name, read) if read else ():
            self.rows[row[0]] = row
            if progress and len(self.rows) % PAGE == 0:
                progress(name, len(self.rows))
        self.ids = set(self.rows).union(*(by_id for _, by_id in told))  # known to have been there
        for columns, by_id in told:
            places = [self.at[column] for column in columns if column in self.at]
            if len(places) < len(columns):
                continue
            wrong = [
                row_id
                for row_id, values in by_id.items()
                if row_id in self.rows and tuple(self.rows[row_id][at] for at in places) != values
            ]
            if len(wrong) <= DOUBTED * len(by_id):  # else the SQL index is the damaged one
                for row_id in wrong:
                    del self.rows[row_id]

    def named(self, row: Values) -> Row:
        """Return a row's values by their columns."""
        return dict(zip(self.at, row, strict=True))


def _columns(conn: sqlite3.Connection, table: str) -> list[str]:
    """Return the columns that a table has, in the database and in this version."""
    with closing(in_memory()) as empty:
        schema.migrate(empty, "")
        wanted = [row[1] for row in empty.execute(f"PRAGMA table_info({table})")]
    try:
        there = {row[1] for row in conn.execute(f"PRAGMA table_info({table})")}
    except UNREADABLE:
        return []
    kept = [name for name in wanted if name in there and (table, name) not in _MADE_ANEW]
    return kept if "id" in there else []


def _rows(conn: sqlite3.Connection, table: str, columns: list[str]) -> Iterator[Values]:
    """Yield every row that can be read, once; ``columns`` begin with its id.

    Where a row cannot be read, ever longer steps lead past it; then what they have left out is
    halved until rows are found. So many queries may fail there: with damage all over a table, the
    rest of it is given up.
    """
    sql = (
        f"SELECT {', '.join(columns)} FROM {table} NOT INDEXED "
        f"WHERE rowid >= ? AND rowid < ? ORDER BY rowid LIMIT ?"
    )
    seen: set[int] = set()

    def read(low: int, high: int, most: int = PAGE) -> tuple[list[Values], int | None]:
        """Return new rows, and from which id on to continue; None if it cannot be read there."""
        found: list[Values] = []
        after, whole, number = low, True, 0
        try:
            for row in conn.execute(sql, (low, high, most)):
                number += 1
                if isinstance(row[0], int) and low <= row[0] < high:
                    after = max(after, row[0] + 1)
                    if row[0] not in seen:
                        seen.add(row[0])
                        found.append(row)
        except UNREADABLE:
            whole = False
        if whole:
            return found, after if number == most and after > low else high
        return found, after if after > low else None

    gaps: deque[tuple[int, int]] = deque()
    position, end = 1, _highest(conn, table) + 1
    while position < end:
        rows, after = read(position, end)
        if after is None:
            rows, after = read(position, end, 1)  # the row before one that cannot be read
        yield from rows
        step = 1
        while after is None:
            rows, after = ([], end) if position + step >= end else read(position + step, end, 1)
            yield from rows
            if after is None:
                step *= 2
            else:
                gaps.append((position, min(position + step, end)))
        position = after
    failures = FAILURES + FAILURES_A_PAGE * _pages(conn)
    while gaps and failures > 0:
        low, high = gaps.popleft()
        rows, after = read(low, high)
        yield from rows
        if after is None:
            failures -= 1
            middle = (low + high) // 2
            gaps += [gap for gap in ((low, middle), (middle, high)) if low < middle]
        elif after < high:
            gaps.append((after, high))


def _pages(conn: sqlite3.Connection) -> int:
    with suppress(*UNREADABLE):
        [(pages,)] = conn.execute("PRAGMA page_count")
        return int(pages)
    return 0


_IDS = {  # what else has a table's ids, each along its own B-tree
    "roots": ("SELECT max(root_id) FROM files INDEXED BY files_root_id",),
    "models": ("SELECT max(model_id) FROM embeddings INDEXED BY embeddings_model_id",),
    "images": (
        "SELECT max(image_id) FROM files INDEXED BY files_image_id",
        "SELECT max(image_id) FROM embeddings INDEXED BY sqlite_autoindex_embeddings_1",
        "SELECT max(image_id) FROM shown NOT INDEXED",
    ),
    "files": ("SELECT max(file_id) FROM folded", "SELECT max(id) FROM names_docsize"),
    "embeddings": (),
    "moments": (),
    "marks": (),
    "searches": (),
    "tags": (),
    "tag_examples": (),
}


def _highest(conn: sqlite3.Connection, table: str) -> int:
    """Return an id that no row exceeds, from whatever tells it."""
    found = [0]
    for sql in (
        "SELECT seq FROM sqlite_sequence WHERE name = :table",
        f"SELECT max(rowid) FROM {table} NOT INDEXED",
        *_IDS[table],
    ):
        with suppress(*UNREADABLE):
            rows = conn.execute(sql, {"table": table} if ":table" in sql else {})
            found += [n for (n,) in rows if isinstance(n, int)]
    for _, by_id in _told_by_indexes(conn, table):
        found.append(max(by_id, default=0))
    return min(max(found), MOST) or MOST


_TOLD = {  # SQL indexes that hold a whole fact about each row, and its columns
    "images": (("sqlite_autoindex_images_1", ("hash",)),),
    "files": (
        ("sqlite_autoindex_files_1", ("path",)),
        ("files_image_id", ("image_id",)),
        ("files_root_id", ("root_id",)),
    ),
    "embeddings": (("sqlite_autoindex_embeddings_1", ("image_id", "model_id")),),
    "moments": (),
    "models": (("sqlite_autoindex_models_1", ("identity",)),),
    "roots": (("sqlite_autoindex_roots_1", ("path",)),),
    "marks": (("sqlite_autoindex_marks_1", ("hash", "mark")),),
    "searches": (("sqlite_autoindex_searches_1", ("folded",)),),
    "tags": (("sqlite_autoindex_tags_1", ("folded",)),),
    "tag_examples": (("sqlite_autoindex_tag_examples_1", ("tag_id", "hash")),),
}


def _told_by_indexes(
    conn: sqlite3.Connection, table: str
) -> list[tuple[tuple[str, ...], dict[int, Values]]]:
    """Return what each SQL index says of rows, as far as it can be read from either end.

    That is its columns, and their values by the rows' ids.
    """
    found = []
    for index, columns in _TOLD[table]:
        by_id: dict[int, Values] = {}
        names = ", ".join(columns)
        for order in ("ASC", "DESC"):
            by = ", ".join(f"{name} {order}" for name in columns)
            try:
                for row_id, *values in conn.execute(
                    f"SELECT rowid, {names} FROM {table} INDEXED BY {index} ORDER BY {by}"
                ):
                    if isinstance(row_id, int):
                        by_id[row_id] = tuple(values)
                break
            except UNREADABLE:
                continue
        plausible = all(
            _is_plausible(name, value)
            for values in by_id.values()
            for name, value in zip(columns, values, strict=True)
        )
        found.append((columns, by_id if plausible else {}))
    return found


def _is_plausible(column: str, value: object) -> bool:
    """Whether an SQL index is what it should be, and not another one's page."""
    if column in ("path", "hash"):
        return isinstance(value, bytes) and (column == "path" or len(value) == 32)
    if column in ("identity", "mark", "folded"):
        return isinstance(value, str)
    return isinstance(value, int) or (column == "image_id" and value is None)


def _settings(conn: sqlite3.Connection) -> dict[str, Any]:
    try:
        return dict(conn.execute("SELECT key, value FROM library").fetchall())
    except (*UNREADABLE, ValueError, TypeError):
        return {}


# Writing


def _written(
    library: Library, source: sqlite3.Connection, found: dict[str, _Table]
) -> SalvageReport:
    """Write the whole rows that refer to whole rows, in one transaction."""
    settings = _settings(source)
    with library.transaction() as conn:
        roots = _write(conn, "roots", _whole_rows("roots", found))
        models = _write(conn, "models", _whole_rows("models", found))
        dims = {row["id"]: row["dim"] for row in _whole_rows("models", found)}
        images = _write(conn, "images", _whole_rows("images", found))
        files = _write(conn, "files", _files(found, roots, images))
        rows = _embeddings(source, found["embeddings"], images, {key: dims[key] for key in models})
        embeddings = _write(conn, "embeddings", rows)
        embeddings -= _without_moments(conn, source, embeddings, dims)
        marks = _write(conn, "marks", _whole_rows("marks", found))
        searches = _write(conn, "searches", _whole_rows("searches", found))
        tags = _write(conn, "tags", _whole_rows("tags", found))
        said = (row for row in _whole_rows("tag_examples", found) if row["tag_id"] in tags)
        examples = _write(conn, "tag_examples", said)
        unneeded = conn.execute(
            "DELETE FROM images WHERE id NOT IN (SELECT image_id FROM files "
            "WHERE image_id IS NOT NULL UNION SELECT image_id FROM embeddings)"
        ).rowcount
        for key in ("model_id", "next_model_id"):
            if settings.get(key) in models:
                conn.execute("INSERT OR REPLACE INTO library VALUES (?, ?)", (key, settings[key]))
        if settings.get("model_id") not in models and len(models) == 1:
            conn.execute("UPDATE library SET value = ? WHERE key = 'model_id'", list(models))
        if settings.get(PLACES) == OFF:  # as somebody wanted it; names themselves are looked up
            conn.execute("INSERT OR REPLACE INTO library VALUES (?, ?)", (PLACES, OFF))
        conn.execute("INSERT OR REPLACE INTO library VALUES (?, 1)", (SALVAGED,))
    written = {
        "roots": roots, "models": models, "images": images, "files": files,
        "embeddings": embeddings, "marks": marks, "searches": searches,
        "tags": tags, "tag_examples": examples,
    }  # fmt: skip
    numbers = {table: len(ids) for table, ids in written.items()}
    numbers["images"] -= unneeded
    lost = {table: max(0, len(found[table].ids) - number) for table, number in numbers.items()}
    return SalvageReport(numbers, lost)


def _whole_rows(name: str, found: dict[str, _Table]) -> Iterator[Row]:
    table = found[name]
    return (row for row in map(table.named, table.rows.values()) if is_whole(name, row))


def _files(found: dict[str, _Table], roots: set[int], images: set[int]) -> Iterator[Row]:
    for row in _whole_rows("files", found):
        if row["root_id"] in roots and _shows_something(row, images):
            yield {**row, "named_at": named_date(row["path"])}


def _shows_something(row: Row, images: set[int]) -> bool:
    """Whether a file has its image; one that never had an image has none to lose."""
    if row["image_id"] is None:
        return bool(row["state"] != "indexed")
    return row["image_id"] in images


def _embeddings(
    source: sqlite3.Connection, table: _Table, images: set[int], dims: dict[int, int]
) -> Iterator[Row]:
    """Read embeddings again, now with their vectors, as they are written."""
    if "vector" not in table.columns:
        return
    for values in _rows(source, "embeddings", table.columns):
        row = dict(zip(table.columns, values, strict=True))
        if (
            row["id"] in table.rows
            and is_whole("embeddings", row)
            and row["image_id"] in images
            and row["model_id"] in dims
            and _has_unit_length(row["vector"], dims[row["model_id"]])
        ):
            yield row


def _without_moments(
    conn: sqlite3.Connection, source: sqlite3.Connection, embeddings: set[int], dims: dict[int, int]
) -> set[int]:
    """Write the moments of the videos embedded; delete embeddings that have lost theirs.

    Those videos are embedded again. Return the embeddings deleted.
    """
    columns = ["embedding_id", "times", "vectors"]
    try:
        there = {row[1] for row in source.execute("PRAGMA table_info(moments)")}
    except UNREADABLE:
        there = set()
    if there.issuperset(columns):
        models = dict(conn.execute("SELECT id, model_id FROM embeddings"))
        for key, times, vectors in _rows(source, "moments", columns):
            if key in embeddings and are_moments(times, vectors, dims[models[key]]):
                conn.execute("INSERT INTO moments VALUES (?, ?, ?)", (key, times, vectors))
    gone = conn.execute(
        "DELETE FROM embeddings WHERE image_id IN "
        "(SELECT id FROM images WHERE duration_ms IS NOT NULL) "
        "AND id NOT IN (SELECT embedding_id FROM moments) RETURNING id"
    )
    return {key for (key,) in gone.fetchall()}


def _has_unit_length(vector: bytes, dim: int) -> bool:
    return len(vector) == 2 * dim and bool(are_unit([vector], dim)[0])


def _write(conn: sqlite3.Connection, table: str, rows: Iterator[Row]) -> set[int]:
    """Write rows, but none that contradicts one that is written already; return their ids."""
    written = set()
    for row in rows:
        names = ", ".join(row)
        sql = f"INSERT INTO {table} ({names}) VALUES ({', '.join('?' * len(row))})"
        with suppress(sqlite3.IntegrityError):
            conn.execute(sql, list(row.values()))
            written.add(row["id"])
    return written
