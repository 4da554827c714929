"""The library's tables, and the migrations from one version of them to the next."""

import sqlite3

from fovea.search.errors import LibraryError

from .connection import immediate
from .facts import analyses, dates, moments, places, signatures, tags, texts

__all__ = ["APPLICATION_ID", "MIGRATIONS", "VERSION", "check", "migrate", "version_of"]

APPLICATION_ID = 0x466F7661  # "Fova": marks the file as a library of ours (PRAGMA application_id)

FIRST = (
    """
    CREATE TABLE library (
        key TEXT PRIMARY KEY,
        value
    ) WITHOUT ROWID
    """,
    "INSERT INTO library VALUES ('id', lower(hex(randomblob(16)))), ('model_id', NULL)",
    """
    CREATE TABLE roots (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        path BLOB NOT NULL UNIQUE,
        state TEXT NOT NULL DEFAULT 'online' CHECK (state IN ('online', 'offline')),
        added_at TEXT NOT NULL,
        scanned_at TEXT
    )
    """,
    """
    CREATE TABLE images (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        hash BLOB NOT NULL UNIQUE,  -- SHA-256 of the file's bytes
        bytes INTEGER NOT NULL,
        width INTEGER,
        height INTEGER,
        format TEXT,
        orientation INTEGER,
        taken_at TEXT,
        camera TEXT,
        lens TEXT,
        exposure REAL,  -- seconds
        f_number REAL,
        iso INTEGER,
        focal_length REAL,  -- millimetres
        latitude REAL,  -- degrees, north positive
        longitude REAL,  -- degrees, east positive
        altitude REAL  -- metres
    )
    """,
    """
    CREATE TABLE files (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        path BLOB NOT NULL UNIQUE,
        root_id INTEGER NOT NULL REFERENCES roots (id),
        size INTEGER NOT NULL,
        mtime_ns INTEGER NOT NULL,
        image_id INTEGER REFERENCES images (id),
        state TEXT NOT NULL CHECK (state IN ('indexed', 'skipped', 'failed', 'missing')),
        reason TEXT
    )
    """,
    "CREATE INDEX files_image_id ON files (image_id)",
    "CREATE INDEX files_root_id ON files (root_id)",
    """
    CREATE TABLE models (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        name TEXT NOT NULL,
        identity TEXT NOT NULL UNIQUE,  -- SHA-256 of the weights
        dim INTEGER NOT NULL,
        source TEXT NOT NULL
    )
    """,
    """
    CREATE TABLE embeddings (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        image_id INTEGER NOT NULL REFERENCES images (id) ON DELETE CASCADE,
        model_id INTEGER NOT NULL REFERENCES models (id) ON DELETE CASCADE,
        vector BLOB NOT NULL,  -- float16, little-endian, unit length
        UNIQUE (image_id, model_id)
    )
    """,
    # An SQL index has the row's id after its own columns: (model_id, id), so that one model's
    # newest embeddings are found without reading another's.
    "CREATE INDEX embeddings_model_id ON embeddings (model_id)",
    """
    CREATE TRIGGER embeddings_are_final BEFORE UPDATE ON embeddings BEGIN
        SELECT raise(ABORT, 'an embedding is written once; delete it and insert another');
    END
    """,
    """
    CREATE TABLE tombstones (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        model_id INTEGER NOT NULL,
        embedding_id INTEGER NOT NULL
    )
    """,
    "CREATE INDEX tombstones_model_id ON tombstones (model_id)",
    """
    CREATE TRIGGER embeddings_leave_tombstones AFTER DELETE ON embeddings BEGIN
        INSERT INTO tombstones (model_id, embedding_id) VALUES (old.model_id, old.id);
    END
    """,
    """
    CREATE TABLE snapshots (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        model_id INTEGER NOT NULL REFERENCES models (id) ON DELETE CASCADE,
        checksum TEXT NOT NULL  -- of the snapshots written last for this database
    )
    """,
)

# A file's name and the folders from its root to it, as words. A path is bytes; whatever is not
# UTF-8 is not part of a word.
_PLACES = """
    SELECT files.id AS id, CAST(substr(files.path, length(roots.path) + 1) AS TEXT) AS place
    FROM files JOIN roots ON roots.id = files.root_id
"""
_NAME = "replace(place, rtrim(place, replace(place, '/', '')), '')"  # what follows the last slash
_FOLDER = "rtrim(place, replace(place, '/', ''))"

NAMES = (
    "CREATE VIRTUAL TABLE names USING fts5(name, folder, tokenize = 'unicode61')",
    f"INSERT INTO names (rowid, name, folder) SELECT id, {_NAME}, {_FOLDER} FROM ({_PLACES})",
    f"""
    CREATE TRIGGER files_get_names AFTER INSERT ON files BEGIN
        INSERT INTO names (rowid, name, folder)
        SELECT id, {_NAME}, {_FOLDER} FROM ({_PLACES} WHERE files.id = new.id);
    END
    """,
    f"""
    CREATE TRIGGER files_change_names AFTER UPDATE OF path, root_id ON files
    WHEN old.path IS NOT new.path OR old.root_id IS NOT new.root_id BEGIN
        DELETE FROM names WHERE rowid = old.id;
        INSERT INTO names (rowid, name, folder)
        SELECT id, {_NAME}, {_FOLDER} FROM ({_PLACES} WHERE files.id = new.id);
    END
    """,
    """
    CREATE TRIGGER files_lose_names AFTER DELETE ON files BEGIN
        DELETE FROM names WHERE rowid = old.id;
    END
    """,
)

# The searchable images: those of indexed files. Their date is when they were taken, if they say so,
# else the earliest time at which one of their files was last changed, in local time. Without this
# table, each query would have to look at every file.
_DATED = """
    INSERT INTO shown (image_id, date)
    SELECT id, coalesce(
        taken_at,
        strftime('%Y-%m-%dT%H:%M:%S', oldest / 1000000000, 'unixepoch', 'localtime')
    )
    FROM (
        SELECT id, taken_at, (
            SELECT min(mtime_ns) FROM files WHERE image_id = images.id AND state = 'indexed'
        ) AS oldest
        FROM images
    )
    WHERE oldest IS NOT NULL
"""


def _dated_anew(image_id: str) -> str:
    return f"DELETE FROM shown WHERE image_id = {image_id}; {_DATED} AND id = {image_id};"


SHOWN = (
    """
    CREATE TABLE shown (
        image_id INTEGER PRIMARY KEY REFERENCES images (id) ON DELETE CASCADE,
        date TEXT  -- ISO 8601, local time
    )
    """,
    "CREATE INDEX shown_date ON shown (date)",
    "CREATE INDEX files_shown ON files (image_id, mtime_ns) WHERE state = 'indexed'",
    _DATED,
    f"""
    CREATE TRIGGER files_show_images AFTER INSERT ON files
    WHEN new.state = 'indexed' BEGIN {_dated_anew("new.image_id")} END
    """,
    f"""
    CREATE TRIGGER files_change_images AFTER UPDATE OF image_id, state, mtime_ns ON files
    WHEN old.image_id IS NOT new.image_id OR old.state <> new.state
        OR old.mtime_ns <> new.mtime_ns BEGIN
        {_dated_anew("old.image_id")}
        {_dated_anew("new.image_id")}
    END
    """,
    f"""
    CREATE TRIGGER files_hide_images AFTER DELETE ON files
    WHEN old.state = 'indexed' BEGIN {_dated_anew("old.image_id")} END
    """,
    f"""
    CREATE TRIGGER images_change_dates AFTER UPDATE OF taken_at ON images BEGIN
        {_dated_anew("new.id")}
    END
    """,
)

# What lets an edit be noticed that keeps size and mtime; what a damaged picture lacks; and where an
# image's date comes from.
FACTS = (
    "ALTER TABLE files ADD COLUMN ctime_ns INTEGER",  # NULL: not known, so never compared
    "ALTER TABLE images ADD COLUMN damaged TEXT",  # what is missing of the picture; NULL: nothing
    "ALTER TABLE images ADD COLUMN dated_by TEXT",  # the tag that taken_at is from
)

# The day in a file's name stands in for pictures that do not say theirs, or not exactly
# (``dates.py``), and each date says where it comes from.
_SOURCED = f"""
    INSERT INTO shown (image_id, date, date_source)
    SELECT id, {dates.DATE}, {dates.DATE_SOURCE}
    FROM (
        SELECT images.id, taken_at, dated_by, {dates.NAMED} AS named, {dates.OLDEST} AS oldest
        FROM images JOIN files ON files.image_id = images.id AND files.state = 'indexed'
        WHERE {{}}
        GROUP BY images.id
    )
"""


def _sourced_anew(image_id: str) -> str:
    return (
        f"DELETE FROM shown WHERE image_id = {image_id}; "
        f"{_SOURCED.format(f'images.id = {image_id}')};"
    )


DATES = (
    "ALTER TABLE files ADD COLUMN named_at TEXT",  # the date in its name, ISO 8601
    "UPDATE files SET named_at = named_date(path) WHERE named_date(path) IS NOT NULL",
    "ALTER TABLE shown ADD COLUMN date_source TEXT",  # a tag, or ``FILE_NAME`` or ``FILE_TIME``
    "DROP INDEX files_shown",
    "CREATE INDEX files_shown ON files (image_id, mtime_ns, named_at) WHERE state = 'indexed'",
    "DROP TRIGGER files_show_images",
    "DROP TRIGGER files_change_images",
    "DROP TRIGGER files_hide_images",
    "DROP TRIGGER images_change_dates",
    "DELETE FROM shown",
    _SOURCED.format("TRUE"),
    f"""
    CREATE TRIGGER files_show_images AFTER INSERT ON files
    WHEN new.state = 'indexed' BEGIN {_sourced_anew("new.image_id")} END
    """,
    f"""
    CREATE TRIGGER files_change_images AFTER UPDATE OF image_id, state, mtime_ns, named_at ON files
    WHEN old.image_id IS NOT new.image_id OR old.state <> new.state
        OR old.mtime_ns <> new.mtime_ns OR old.named_at IS NOT new.named_at BEGIN
        {_sourced_anew("old.image_id")}
        {_sourced_anew("new.image_id")}
    END
    """,
    f"""
    CREATE TRIGGER files_hide_images AFTER DELETE ON files
    WHEN old.state = 'indexed' BEGIN {_sourced_anew("old.image_id")} END
    """,
    f"""
    CREATE TRIGGER images_change_dates AFTER UPDATE OF taken_at, dated_by ON images BEGIN
        {_sourced_anew("new.id")}
    END
    """,
)

# Names as they are compared (folded.py): ``names`` has their words, which the tokenizer for ASCII
# has only to split at spaces, so that no version of SQLite finds other words; ``folded`` has them
# whole, the folder with a slash at its end. The functions come with every connection.
_WORDS = """
    INSERT INTO names (rowid, name, folder)
    SELECT files.id, folded_words(folded.name),
        folder_words(substr(files.path, length(roots.path) + 1))
    FROM files JOIN roots ON roots.id = files.root_id JOIN folded ON file_id = files.id
"""
_WHOLE = """
    INSERT INTO folded (file_id, name, folder)
    SELECT id, folded_name(path), folded_folder(path) FROM files
"""

FOLDED = (
    "DROP TRIGGER files_get_names",
    "DROP TRIGGER files_change_names",
    "DROP TRIGGER files_lose_names",
    "DROP TABLE names",
    "CREATE VIRTUAL TABLE names USING fts5(name, folder, tokenize = 'ascii')",
    """
    CREATE TABLE folded (
        file_id INTEGER PRIMARY KEY,
        name TEXT NOT NULL,
        folder TEXT NOT NULL
    )
    """,
    _WHOLE,
    _WORDS,
    f"""
    CREATE TRIGGER files_get_names AFTER INSERT ON files BEGIN
        {_WHOLE} WHERE id = new.id;
        {_WORDS} WHERE files.id = new.id;
    END
    """,
    f"""
    CREATE TRIGGER files_change_names AFTER UPDATE OF path, root_id ON files
    WHEN old.path IS NOT new.path OR old.root_id IS NOT new.root_id BEGIN
        DELETE FROM names WHERE rowid = old.id;
        DELETE FROM folded WHERE file_id = old.id;
        {_WHOLE} WHERE id = new.id;
        {_WORDS} WHERE files.id = new.id;
    END
    """,
    """
    CREATE TRIGGER files_lose_names AFTER DELETE ON files BEGIN
        DELETE FROM names WHERE rowid = old.id;
        DELETE FROM folded WHERE file_id = old.id;
    END
    """,
)

# Few files are not simply indexed; without this index, counting and listing them reads all rows.
UNUSUAL = (
    "CREATE INDEX files_unusual ON files (state, reason, root_id) "
    "WHERE state <> 'indexed' OR reason IS NOT NULL",
)

# What people say of pictures and of searches. Marks belong to contents, whether the library has an
# image of them now or not: they outlast moves, changes of model, and a folder that is removed and
# comes back. Triggers keep the marked images' ids, so that no query looks contents up.
MARKS = (
    """
    CREATE TABLE marks (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        hash BLOB NOT NULL,  -- SHA-256 of the content
        mark TEXT NOT NULL CHECK (mark IN ('favourite', 'hidden')),
        marked_at TEXT NOT NULL,  -- ISO 8601, UTC
        UNIQUE (hash, mark)
    )
    """,
    """
    CREATE TABLE searches (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        name TEXT NOT NULL,
        folded TEXT NOT NULL UNIQUE,  -- the name as names are compared
        query TEXT NOT NULL,
        likes TEXT NOT NULL,  -- JSON: number after "like:" -> SHA-256 of that picture's content
        place INTEGER NOT NULL,  -- in the list, ascending
        saved_at TEXT NOT NULL  -- ISO 8601, UTC
    )
    """,
    """
    CREATE TABLE favourites (
        image_id INTEGER PRIMARY KEY REFERENCES images (id) ON DELETE CASCADE
    )
    """,
    """
    CREATE TABLE hidden (
        image_id INTEGER PRIMARY KEY REFERENCES images (id) ON DELETE CASCADE
    )
    """,
    """
    CREATE TRIGGER marks_mark_images AFTER INSERT ON marks BEGIN
        INSERT OR IGNORE INTO favourites
        SELECT id FROM images WHERE hash = new.hash AND new.mark = 'favourite';
        INSERT OR IGNORE INTO hidden
        SELECT id FROM images WHERE hash = new.hash AND new.mark = 'hidden';
    END
    """,
    """
    CREATE TRIGGER marks_leave_images AFTER DELETE ON marks BEGIN
        DELETE FROM favourites WHERE old.mark = 'favourite'
        AND image_id IN (SELECT id FROM images WHERE hash = old.hash);
        DELETE FROM hidden WHERE old.mark = 'hidden'
        AND image_id IN (SELECT id FROM images WHERE hash = old.hash);
    END
    """,
    """
    CREATE TRIGGER images_get_marks AFTER INSERT ON images
    WHEN EXISTS (SELECT 1 FROM marks WHERE hash = new.hash) BEGIN
        INSERT OR IGNORE INTO favourites
        SELECT new.id FROM marks WHERE hash = new.hash AND mark = 'favourite';
        INSERT OR IGNORE INTO hidden
        SELECT new.id FROM marks WHERE hash = new.hash AND mark = 'hidden';
    END
    """,
)

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    FIRST,
    NAMES,
    SHOWN,
    FACTS,
    DATES,
    FOLDED,
    UNUSUAL,
    MARKS,
    places.TABLES,
    analyses.TABLES,
    texts.TABLES,
    signatures.TABLES,
    tags.TABLES,
    moments.TABLES,
    tags.LABELLED,
)  # MIGRATIONS[v] leads from version v to v + 1
VERSION = len(MIGRATIONS)


def version_of(conn: sqlite3.Connection) -> int:
    """Return the version of the tables in this database; 0 for an empty one."""
    return int(conn.execute("PRAGMA user_version").fetchone()[0])


def check(conn: sqlite3.Connection, name: str) -> None:
    """Raise ``LibraryError`` for the database of a newer fovea or of another program."""
    version = version_of(conn)
    tables = conn.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if (tables or version) and not _is_ours(conn):
        raise LibraryError(f"{name} is a database of another program; choose another folder")
    if version > VERSION:
        raise LibraryError(
            f"{name} has schema version {version}, written by a newer fovea; "
            f"this one knows {VERSION}; upgrade fovea"
        )


def migrate(conn: sqlite3.Connection, name: str) -> None:
    """Bring the database to ``VERSION``, each step in a transaction of its own.

    A process that ends between two steps leaves a whole library of an older version. ``name`` is
    the database's in errors. Raise ``LibraryError`` for the database of a newer fovea or of another
    program. ``conn`` is in autocommit mode.
    """
    while version_of(conn) != VERSION or not _is_ours(conn):  # usually false, and takes no lock
        with immediate(conn):
            check(conn, name)
            version = version_of(conn)  # again: another process may have been first
            if version < VERSION:
                for statement in MIGRATIONS[version]:
                    conn.execute(statement)
                conn.execute(f"PRAGMA user_version = {version + 1}")
                conn.execute(f"PRAGMA application_id = {APPLICATION_ID}")


def _is_ours(conn: sqlite3.Connection) -> bool:
    return bool(conn.execute("PRAGMA application_id").fetchone()[0] == APPLICATION_ID)
