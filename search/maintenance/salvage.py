"""Keep what is whole of a damaged library: read it row by row into a new one."""

import math
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fovea.search.errors import LibraryError
from fovea.search.library import checks, schema
from fovea.search.library.connection import in_memory, reader
from fovea.search.library.library import DATABASE, Library, has_library

__all__ = ["SALVAGED", "SalvageReport", "salvage", "settle"]

SALVAGED = "salvaged"  # a key of the library's settings, until its next whole index run
MOST = 1 << 40  # no row has a higher id
DOUBTED = 0.25  # an SQL index that contradicts so many rows is not believed
PAGE = 512  # rows read at a time
UNREADABLE = (sqlite3.Error, UnicodeDecodeError, OverflowError, MemoryError)

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class SalvageReport:
    """How many rows of each kind were kept, and how many of those that are known were lost.

    The kinds are roots, models, images, files and embeddings.
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
        found = {table: _Table(source, table, progress) for table in _KEPT}
        if not any(len(table.rows) for table in found.values()):
            raise LibraryError(f"nothing in {path} can be read; restore a backup, or index again")
        with Library.open(folder, create=True) as library, library.writing():
            return _written(library, found, _settings(source))


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
    """The whole rows of one table, by id, and how many there were."""

    def __init__(
        self,
        conn: sqlite3.Connection,
        name: str,
        progress: Callable[[str, int], None] | None,
    ) -> None:
        columns, told = _columns(conn, name), _told_by_indexes(conn, name)
        self.rows: dict[int, Row] = {}
        for row in _rows(conn, name, columns) if columns else ():
            self.rows[row["id"]] = row
            if progress and len(self.rows) % PAGE == 0:
                progress(name, len(self.rows))
        self.ids = set(self.rows).union(*told)  # known to have been there
        for by_id in told:
            wrong = [
                row_id
                for row_id, row in self.rows.items()
                if any(row[column] != value for column, value in by_id.get(row_id, {}).items())
            ]
            if len(wrong) <= DOUBTED * len(by_id):  # else the SQL index is the damaged one
                for row_id in wrong:
                    del self.rows[row_id]


def _columns(conn: sqlite3.Connection, table: str) -> list[str]:
    """Return the columns that a table has, in the database and in this version."""
    with closing(in_memory()) as empty:
        schema.migrate(empty, "")
        wanted = [row[1] for row in empty.execute(f"PRAGMA table_info({table})")]
    try:
        there = {row[1] for row in conn.execute(f"PRAGMA table_info({table})")}
    except UNREADABLE:
        return []
    return [name for name in wanted if name in there] if "id" in there else []


def _rows(conn: sqlite3.Connection, table: str, columns: list[str]) -> Iterator[Row]:
    """Yield every row that can be read; around those that cannot, ever smaller ranges are tried."""
    sql = (
        f"SELECT {', '.join(columns)} FROM {table} NOT INDEXED "
        f"WHERE rowid >= ? AND rowid < ? ORDER BY rowid LIMIT {PAGE}"
    )
    seen: set[int] = set()
    ranges = [(1, _highest(conn, table) + 1)]
    while ranges:
        low, high = ranges.pop()
        try:
            page = conn.execute(sql, (low, high)).fetchall()
        except UNREADABLE:
            if high - low > 1:
                middle = (low + high) // 2
                ranges += [(middle, high), (low, middle)]  # the lower one comes first
            continue
        whole = [dict(zip(columns, row, strict=True)) for row in page]
        for row in whole:
            if isinstance(row["id"], int) and low <= row["id"] < high and row["id"] not in seen:
                seen.add(row["id"])
                yield row
        if len(page) == PAGE:
            after = max((row["id"] for row in whole if isinstance(row["id"], int)), default=low)
            if low <= after < high - 1:
                ranges.append((after + 1, high))


def _highest(conn: sqlite3.Connection, table: str) -> int:
    """Return an id that no row exceeds, from whatever tells it."""
    found = [0]
    for sql in (
        "SELECT seq FROM sqlite_sequence WHERE name = :table",
        f"SELECT max(rowid) FROM {table} NOT INDEXED",
    ):
        with suppress(*UNREADABLE):
            found += [n for (n,) in conn.execute(sql, {"table": table}) if isinstance(n, int)]
    for by_id in _told_by_indexes(conn, table):
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
    "models": (("sqlite_autoindex_models_1", ("identity",)),),
    "roots": (("sqlite_autoindex_roots_1", ("path",)),),
}


def _told_by_indexes(conn: sqlite3.Connection, table: str) -> list[dict[int, Row]]:
    """Return what each SQL index says of rows, as far as it can be read from either end."""
    found = []
    for index, columns in _TOLD[table]:
        by_id: dict[int, Row] = {}
        names = ", ".join(columns)
        for order in ("ASC", "DESC"):
            by = ", ".join(f"{name} {order}" for name in columns)
            try:
                for row_id, *values in conn.execute(
                    f"SELECT rowid, {names} FROM {table} INDEXED BY {index} ORDER BY {by}"
                ):
                    if isinstance(row_id, int):
                        by_id[row_id] = dict(zip(columns, values, strict=True))
                break
            except UNREADABLE:
                continue
        ids = len(by_id)
        plausible = all(
            _is_plausible(name, row[name]) for row in by_id.values() for name in columns
        )
        found.append(by_id if ids and plausible else {})
    return found


def _is_plausible(column: str, value: object) -> bool:
    """Whether an SQL index is what it should be, and not another one's page."""
    if column in ("path", "hash"):
        return isinstance(value, bytes) and (column == "path" or len(value) == 32)
    if column == "identity":
        return isinstance(value, str)
    return isinstance(value, int) or (column == "image_id" and value is None)


def _settings(conn: sqlite3.Connection) -> dict[str, Any]:
    try:
        return dict(conn.execute("SELECT key, value FROM library").fetchall())
    except (*UNREADABLE, ValueError, TypeError):
        return {}


# Which rows are whole


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_path(value: object) -> bool:
    return isinstance(value, bytes) and os.path.isabs(os.fsdecode(value)) and b"\0" not in value


def _is_whole_number(value: object) -> bool:
    return isinstance(value, int)


def _is_optional(kind: type | tuple[type, ...]) -> Callable[[object], bool]:
    def fits(value: object) -> bool:
        finite = not isinstance(value, float) or math.isfinite(value)
        return value is None or (isinstance(value, kind) and finite)

    return fits


_number, _whole, _text = _is_optional((int, float)), _is_optional(int), _is_optional(str)

# Table -> column -> what its value must be; other columns are taken as they are.
_KEPT: dict[str, dict[str, Callable[[object], bool]]] = {
    "roots": {"path": _is_path, "added_at": _is_text, "scanned_at": _text},
    "models": {
        "name": _is_text,
        "identity": lambda value: isinstance(value, str) and len(value) == 64,
        "dim": lambda value: isinstance(value, int) and 0 < value <= 65536,
        "source": _is_text,
    },
    "images": {
        "hash": lambda value: isinstance(value, bytes) and len(value) == 32,
        "bytes": _is_whole_number,
        **dict.fromkeys(("width", "height", "orientation", "iso"), _whole),
        **dict.fromkeys(("format", "taken_at", "camera", "lens", "damaged", "dated_by"), _text),
        **dict.fromkeys(("exposure", "f_number", "focal_length", "altitude"), _number),
        **dict.fromkeys(("latitude", "longitude"), _number),
    },
    "files": {
        "path": _is_path,
        "root_id": _is_whole_number,
        "size": _is_whole_number,
        "mtime_ns": _is_whole_number,
        "image_id": _whole,
        "state": lambda value: value in ("indexed", "skipped", "failed", "missing"),
        "reason": _text,
        "ctime_ns": _whole,
    },
    "embeddings": {
        "image_id": _is_whole_number,
        "model_id": _is_whole_number,
        "vector": lambda value: isinstance(value, bytes),
    },
}


def _is_whole(table: str, row: Row) -> bool:
    return all(fits(row[name]) for name, fits in _KEPT[table].items() if name in row)


# Writing


def _written(library: Library, found: dict[str, _Table], settings: dict[str, Any]) -> SalvageReport:
    """Write the whole rows that refer to whole rows, in one transaction."""
    whole = {
        name: {row_id: row for row_id, row in table.rows.items() if _is_whole(name, row)}
        for name, table in found.items()
    }
    roots, models, images = whole["roots"], whole["models"], whole["images"]
    embeddings = {
        row_id: row
        for row_id, row in whole["embeddings"].items()
        if row["image_id"] in images and _has_unit_length(row, models.get(row["model_id"]))
    }
    files = {
        row_id: row
        for row_id, row in whole["files"].items()
        if row["root_id"] in roots and _shows_something(row, images)
    }
    needed = {row["image_id"] for row in (*files.values(), *embeddings.values())}
    images = {row_id: row for row_id, row in images.items() if row_id in needed}
    kept = {
        "roots": roots, "models": models, "images": images, "files": files,
        "embeddings": embeddings,
    }  # fmt: skip
    numbers: dict[str, int] = {}
    with library.transaction() as conn:
        for table, rows in kept.items():
            numbers[table] = sum(_insert(conn, table, row) for row in rows.values())
        for key in ("model_id", "next_model_id"):
            if settings.get(key) in models:
                conn.execute("INSERT OR REPLACE INTO library VALUES (?, ?)", (key, settings[key]))
        if settings.get("model_id") not in models and len(models) == 1:
            conn.execute("UPDATE library SET value = ? WHERE key = 'model_id'", list(models))
        conn.execute("INSERT OR REPLACE INTO library VALUES (?, 1)", (SALVAGED,))
    lost = {table: max(0, len(found[table].ids) - number) for table, number in numbers.items()}
    return SalvageReport(numbers, lost)


def _has_unit_length(row: Row, model: Row | None) -> bool:
    if model is None or len(row["vector"]) != 2 * model["dim"]:
        return False
    return bool(checks.are_unit([row["vector"]], model["dim"])[0])


def _shows_something(row: Row, images: dict[int, Row]) -> bool:
    """Whether a file has its image; one that never had an image has none to lose."""
    if row["image_id"] is None:
        return bool(row["state"] != "indexed")
    return row["image_id"] in images


def _insert(conn: sqlite3.Connection, table: str, row: Row) -> bool:
    """Write a row, unless it contradicts one that is written already."""
    names = ", ".join(row)
    sql = f"INSERT INTO {table} ({names}) VALUES ({', '.join('?' * len(row))})"
    try:
        conn.execute(sql, list(row.values()))
    except sqlite3.IntegrityError:
        return False
    return True
