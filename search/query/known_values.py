"""What a filter's value may be in a library, for completing what people type.

Reads the database only, without waiting for anybody, and only for a moment: what a shell asks for
at the press of a key may be incomplete, but not late.
"""

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from difflib import SequenceMatcher, get_close_matches
from itertools import islice
from pathlib import Path

from fovea.search.errors import FoveaError
from fovea.search.library.connection import reader
from fovea.search.library.library import DATABASE

from .filters import FILTERS

__all__ = ["known_values", "near_values"]

MOST = 200  # values
PATIENCE_S = 0.5
STEPS = 10_000  # of SQLite's virtual machine between two looks at the clock
DATES = ("on", "after", "before")
COMPARED = 5_000  # values, with what somebody has written
LONGEST = 80  # characters of these that are compared
SIMILAR = 0.6  # difflib's ratio, from which a value is worth suggesting
ALIKE = 0.1  # less than the nearest one: folders of one path are all similar


def known_values(folder: Path, key: str, start: str) -> list[str]:
    """Return values of the filter ``key`` that begin with ``start``, in any case; sorted.

    Folders are named by the last parts of their paths, as many as ``start`` has, or by whole paths.
    Those that a terminal could not show are left out. Empty without a library, and for filters
    whose values are not listed.
    """
    found = {value for value in _values(folder, key, start) if _fits(value, start)}
    return sorted(found)[:MOST]


def near_values(folder: Path, key: str, value: str, most: int = 3) -> list[str]:
    """Return at most ``most`` values of the filter ``key`` that are like ``value``, nearest first.

    That is what contains it or is contained in it, or is written in nearly the same way.
    """
    start = "/" if value.startswith("/") else "_/" * value.count("/")
    found = {one for one in _values(folder, key, start) if one.isprintable()}
    names = {one[:LONGEST].casefold(): one for one in islice(sorted(found), COMPARED)}
    wanted = value[:LONGEST].casefold()
    near = get_close_matches(wanted, names, most, SIMILAR)
    likeness = [SequenceMatcher(None, name, wanted).ratio() for name in near]
    near = [name for name, ratio in zip(near, likeness, strict=True) if ratio > likeness[0] - ALIKE]
    near += sorted(name for name in names if wanted in name)[:most]
    return list(dict.fromkeys(names[name] for name in near))[:most]


def _fits(value: str, start: str) -> bool:
    return value.casefold().startswith(start.casefold()) and value.isprintable()


def _values(folder: Path, key: str, start: str) -> Iterator[str]:
    if key == "is":
        yield from (example.partition(":")[2] for example in FILTERS["is"].examples)
    elif key in FILTERS and (values := FILTERS[key].values) is not None:
        yield from values()
    elif key == "in":
        yield from _read(folder, lambda conn: _folders(conn, start))
    elif key in ("camera", "lens"):
        yield from _read(folder, lambda conn: _distinct(conn, key))
    elif key == "place":
        yield from _read(folder, _places)
    elif key == "tag":
        yield from _read(folder, _tags)
    elif key in DATES:
        yield from _read(folder, _years)


def _read(folder: Path, read: Callable[[sqlite3.Connection], Iterator[str]]) -> Iterator[str]:
    """Yield what is read of a library until ``PATIENCE_S`` is over, or something is wrong."""
    deadline = time.monotonic() + PATIENCE_S
    try:
        with closing(reader(folder / DATABASE)) as conn:
            conn.set_progress_handler(lambda: time.monotonic() > deadline, STEPS)
            yield from read(conn)
    except (sqlite3.Error, OSError, FoveaError):
        return


def _folders(conn: sqlite3.Connection, start: str) -> Iterator[str]:
    """Yield the names of the folders between the roots and the files."""
    tops = {os.path.dirname(root) for (root,) in conn.execute("SELECT path FROM roots")}
    parts, seen, last = start.count("/") + 1, set[bytes](), b""
    for (path,) in conn.execute("SELECT path FROM files ORDER BY path"):
        folder = path.rpartition(b"/")[0]
        if folder == last:
            continue
        last = folder
        while folder not in seen and folder not in tops and folder.strip(b"/"):
            seen.add(folder)
            name = os.fsdecode(folder)
            yield name if start.startswith("/") else "/".join(name.split("/")[-parts:])
            folder = folder.rpartition(b"/")[0]


def _distinct(conn: sqlite3.Connection, column: str) -> Iterator[str]:
    for (name,) in conn.execute(f"SELECT DISTINCT {column} FROM images WHERE {column} IS NOT NULL"):
        yield name


def _places(conn: sqlite3.Connection) -> Iterator[str]:
    for names in conn.execute("SELECT name, chinese FROM localities"):
        yield from filter(None, names)


def _tags(conn: sqlite3.Connection) -> Iterator[str]:
    for (name,) in conn.execute("SELECT name FROM tags"):
        yield name


def _years(conn: sqlite3.Connection) -> Iterator[str]:
    # One look into the SQL index each; both in one SELECT would read all of it.
    [(first, last)] = conn.execute(
        "SELECT (SELECT min(date) FROM shown), (SELECT max(date) FROM shown)"
    )
    if first is not None:
        yield from map(str, range(int(first[:4]), int(last[:4]) + 1))
