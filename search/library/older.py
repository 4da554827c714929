"""Bring a database up to date as it is opened; one that is read-only as a temporary copy."""

import logging
import sqlite3
from dataclasses import replace
from pathlib import Path

from . import schema
from .access import access_of, mark_of
from .connection import Connection, connect, new_file
from .copies import copied_database

__all__ = ["up_to_date"]

log = logging.getLogger(__name__)


def up_to_date(conn: Connection, path: Path) -> Connection:
    """Return a connection to a database of this version's tables; close ``conn`` if it is another.

    A read-only database with older tables is copied, once for each process, and the copy is
    migrated: it can be searched, but not written. Raise ``LibraryError`` as ``schema.migrate`` and
    ``copied_database`` do.
    """
    if access_of(conn).is_writable:
        schema.migrate(conn, str(path))
        return conn
    schema.check(conn, str(path))
    if schema.version_of(conn) == schema.VERSION:
        return conn

    def migrate(copy: sqlite3.Connection) -> None:
        log.warning(
            "%s was written by an older fovea and is read-only: searching a temporary copy of it",
            path,
        )
        schema.migrate(copy, str(path))

    mark = mark_of(path)
    migrated = connect(copied_database(path, conn, new_file, migrate))
    migrated.execute("PRAGMA query_only = ON")
    migrated.access = replace(migrated.access, is_writable=False, mark=mark)
    conn.close()
    return migrated
