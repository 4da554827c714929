"""What must hold in every library's database, and where it does not.

SQLite checks its own structure: ``integrity_check`` also compares every SQL index with its table,
which ``quick_check`` does not. The rest are rules of ours. Each function yields one line for each
contradiction, and raises what SQLite raises where the database cannot be read at all.
"""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing

import numpy as np

from . import schema
from .connection import in_memory
from .facts.unit import are_moments, are_unit

__all__ = [
    "both_ways",
    "counts",
    "everyday",
    "links",
    "names",
    "order",
    "rows",
    "structure",
    "tables",
    "vectors",
]

_AMONG = "image_id IN (SELECT value FROM json_each(?))"
LINES = 20  # contradictions of one kind that are listed
PAGE = 4096  # embeddings read at a time
SMALL = 20_000  # images up to which SQLite's full check takes a fraction of a second
SAMPLES = 64  # rows of a table that are looked up in a large library


def structure(conn: sqlite3.Connection, *, quick: bool = False) -> Iterator[str]:
    """Let SQLite check the pages, the records and, unless ``quick``, the SQL indexes.

    Both read the whole database once; the full check also looks up each row in each SQL index.
    """
    answers = conn.execute(f"PRAGMA {'quick' if quick else 'integrity'}_check({LINES})")
    for (answer,) in answers.fetchall():
        if answer != "ok":
            lines = (line for line in str(answer).splitlines() if not line.startswith("***"))
            yield "; ".join(lines) or "not ok"


def tables(conn: sqlite3.Connection) -> Iterator[str]:
    """Compare tables, their columns, SQL indexes and triggers with those of the migrations.

    Not their text: earlier versions wrote other comments.
    """
    with closing(in_memory()) as empty:
        schema.migrate(empty, "")
        wanted = _parts(empty)
    found = _parts(conn)
    for key in sorted(wanted):
        if found.get(key) != wanted[key]:
            yield f"the definition of the {' '.join(key)} has changed"


def _parts(conn: sqlite3.Connection) -> dict[tuple[str, str], list[tuple[object, ...]]]:
    """Return what belongs to each table, SQL index and trigger, by kind and name."""
    found = {}
    for kind, name, table in conn.execute("SELECT type, name, tbl_name FROM sqlite_master"):
        parts: list[tuple[object, ...]] = [(table,)]
        if kind == "table":
            parts += conn.execute(
                'SELECT name, type, "notnull", pk FROM pragma_table_info(?)', [name]
            )
        elif kind == "index":
            parts += conn.execute("SELECT name FROM pragma_index_info(?)", [name])
        found[kind, name] = parts
    return found


def _is(column: str, *kinds: str) -> str:
    return f"typeof({column}) IN ({', '.join(map(repr, kinds))})"


_WHOLE = ("width", "height", "orientation", "iso", "duration_ms", "poster_ms")
_REAL = ("exposure", "f_number", "focal_length")
_TEXT = ("format", "taken_at", "camera", "lens", "damaged", "dated_by")
_FOLDED = ("latitude", "longitude", "altitude")

# Table -> what holds in each row, beyond the table's own constraints.
ROWS = {
    "roots": (
        _is("path", "blob"),
        "length(path) > 0 AND instr(path, x'00') = 0",
        "state IN ('online', 'offline')",
        _is("added_at", "text"),
        _is("scanned_at", "text", "null"),
    ),
    "images": (
        "typeof(hash) = 'blob' AND length(hash) = 32",
        _is("bytes", "integer"),
        *(_is(name, "integer", "null") for name in _WHOLE),
        *(_is(name, "real", "integer", "null") for name in (*_REAL, *_FOLDED)),
        *(_is(name, "text", "null") for name in _TEXT),
    ),
    "files": (
        _is("path", "blob"),
        "length(path) > 0 AND instr(path, x'00') = 0",
        _is("root_id", "integer"),
        _is("size", "integer"),
        _is("mtime_ns", "integer"),
        _is("image_id", "integer", "null"),
        "state IN ('indexed', 'skipped', 'failed', 'missing')",
        _is("reason", "text", "null"),
        _is("ctime_ns", "integer", "null"),
        _is("named_at", "text", "null"),
    ),
    "models": (
        _is("name", "text"),
        _is("identity", "text"),
        "typeof(dim) = 'integer' AND dim BETWEEN 1 AND 65536",
        _is("source", "text"),
    ),
    "tombstones": (_is("model_id", "integer"), _is("embedding_id", "integer")),
    "snapshots": (_is("model_id", "integer"), _is("checksum", "text")),
    "shown": (_is("date", "text", "null"), _is("date_source", "text", "null")),
    "folded": (_is("name", "text"), _is("folder", "text")),
    "marks": (
        "typeof(hash) = 'blob' AND length(hash) = 32",
        "mark IN ('favourite', 'hidden')",
        _is("marked_at", "text"),
    ),
    "searches": (
        *(_is(name, "text") for name in ("name", "folded", "query", "saved_at")),
        "json_valid(likes)",
        _is("place", "integer"),
    ),
    "localities": (
        *(_is(name, "text") for name in ("key", "name")),
        "kind IN ('town', 'region', 'country')",
        _is("chinese", "text", "null"),
    ),
    "places": (
        "json_valid(key)",
        *(_is(name, "integer") for name in ("town_id", "country_id")),
        *(_is(name, "integer", "null") for name in ("city_id", "region_id")),
    ),
    "placed": (_is("place_id", "integer", "null"),),
    "moments": (
        "typeof(times) = 'blob' AND length(times) > 0 AND length(times) % 8 = 0",
        "typeof(vectors) = 'blob' AND length(vectors) > 0",
    ),
    "analyses": (
        *(_is(name, "text") for name in ("kind", "version")),
        _is("reason", "text", "null"),
    ),
    "signatures": (
        *(_is(*one) for one in (("hash", "integer"), ("grey", "blob"))),
        _is("sharpness", "real", "integer"),
    ),
    "texts": ("json_valid(lines)",),
    "tags": (
        *(_is(name, "text") for name in ("name", "folded", "made_at")),
        "prompts IS NULL OR json_valid(prompts)",
    ),
    "tag_examples": (
        "typeof(hash) = 'blob' AND length(hash) = 32",
        "is_so IN (0, 1) AND is_answer IN (0, 1)",
        _is("marked_at", "text"),
    ),
    "tag_probes": (
        *(_is(name, "text") for name in ("identity", "fitted_to")),
        _is("scored_to", "integer"),
        _is("coefficients", "blob", "null"),
        _is("threshold", "real"),
        _is("right", "real", "null"),
    ),
    "tag_labels": (_is("threshold", "real"), _is("right", "real", "null")),
    **dict.fromkeys(("tagged", "labelled"), ("ifnull(probability, -1) BETWEEN 0.0 AND 1.0",)),
}


def rows(conn: sqlite3.Connection) -> Iterator[str]:
    """Look for values that fovea never writes: other types, text that is not UTF-8."""
    for table, rules in ROWS.items():
        wrong = " OR ".join(f"({rule}) IS NOT 1" for rule in rules)
        [(count,)] = conn.execute(f"SELECT count(*) FROM {table} NOT INDEXED WHERE {wrong}")
        if count:
            yield f"{count} rows of {table} have impossible values"
    texts = {
        table: [name for name, kind in _columns(conn, table) if kind == "TEXT"] for table in ROWS
    }
    texts["library"] = ["key", "value"]
    for table, names in texts.items():
        try:
            for _ in conn.execute(f"SELECT {', '.join(names)} FROM {table}") if names else ():
                pass
        except (sqlite3.OperationalError, UnicodeDecodeError) as exc:
            if "UTF-8" not in str(exc) and not isinstance(exc, UnicodeDecodeError):
                raise
            yield f"a text of {table} is not UTF-8"
    known = dict(conn.execute("SELECT key, typeof(value) FROM library"))
    if known.get("id") != "text" or known.get("model_id") not in ("integer", "null"):
        yield "the library's own settings are lost"
    [(lost,)] = conn.execute(
        "SELECT count(*) FROM library WHERE key = 'model_id' AND value NOT NULL "
        "AND value NOT IN (SELECT id FROM models)"
    )
    if lost:
        yield "the library's model is lost"


def _columns(conn: sqlite3.Connection, table: str) -> list[tuple[str, str]]:
    return [(row[1], row[2]) for row in conn.execute(f"PRAGMA table_info({table})")]


# Ways to read all rows of a table, each another B-tree, and none a large one.
_WAYS = {
    "embeddings": (
        "INDEXED BY sqlite_autoindex_embeddings_1",
        "INDEXED BY embeddings_model_id",
    ),
    "files": (
        "INDEXED BY sqlite_autoindex_files_1",
        "INDEXED BY files_image_id",
        "INDEXED BY files_root_id",
    ),
    "images": ("INDEXED BY sqlite_autoindex_images_1", "NOT INDEXED"),
    "shown": ("INDEXED BY shown_date", "NOT INDEXED"),
    "folded": ("NOT INDEXED",),
    "marks": ("INDEXED BY sqlite_autoindex_marks_1", "NOT INDEXED"),
    "searches": ("INDEXED BY sqlite_autoindex_searches_1", "NOT INDEXED"),
    "placed": ("INDEXED BY placed_place_id", "NOT INDEXED"),
    "tags": ("INDEXED BY sqlite_autoindex_tags_1", "NOT INDEXED"),
    "tag_examples": ("INDEXED BY sqlite_autoindex_tag_examples_1", "NOT INDEXED"),
}


def counts(conn: sqlite3.Connection) -> Iterator[str]:
    """Compare the lengths of SQL indexes, and of small tables: quick, and no full check.

    SQLite counts ``*`` along whatever SQL index is smallest, whichever is asked for, unless there
    is a condition. Counting ids decodes each of an SQL index, which notices more damage.
    """
    lengths: dict[str, int] = {}
    for table, ways in _WAYS.items():
        for way in ways:
            what = "*" if way == "NOT INDEXED" else "rowid"
            [(count,)] = conn.execute(f"SELECT count({what}) FROM {table} {way} WHERE ?", (True,))
            first = lengths.setdefault(table, count)
            if count != first:
                yield f"{table} has {first} rows by one way and {count} by another"
    [(indexed,)] = conn.execute(
        "SELECT count(DISTINCT image_id) FROM files INDEXED BY files_shown WHERE state = 'indexed'"
    )
    if lengths["shown"] != indexed:
        yield f"{indexed} images have an indexed file, but {lengths['shown']} are searchable"
    if lengths["files"] != lengths["folded"]:
        yield (
            f"there are {lengths['files']} files, but names of {lengths['folded']} can be compared"
        )
    for mark, table in (("favourite", "favourites"), ("hidden", "hidden")):
        [(noted, marked)] = conn.execute(
            f"SELECT (SELECT count(*) FROM {table} WHERE ?1), (SELECT count(*) FROM marks "
            "CROSS JOIN images USING (hash) WHERE mark = ?2)",
            (True, mark),
        )
        if noted != marked:
            yield f"{marked} images have the mark {mark}, but {noted} are noted as such"


# Columns that ascend strictly along an SQL index that is searched for single rows.
_ORDERS = (
    ("files", "path", "INDEXED BY sqlite_autoindex_files_1"),
    ("images", "hash", "INDEXED BY sqlite_autoindex_images_1"),
    ("embeddings", "(image_id, model_id)", "INDEXED BY sqlite_autoindex_embeddings_1"),
    ("shown", "image_id", "NOT INDEXED"),
)


def order(conn: sqlite3.Connection) -> Iterator[str]:
    """Look whether rows would be missed by a search for them: seconds for a million pictures."""
    for table, columns, how in _ORDERS:
        names = columns.strip("()").split(", ")
        before = ", ".join(f"lag({name}) OVER () AS before_{name}" for name in names)
        last = "(" + ", ".join(f"before_{name}" for name in names) + ")"
        [(count,)] = conn.execute(
            f"SELECT count(*) FROM (SELECT {', '.join(names)}, {before} FROM {table} {how}) "
            f"WHERE {columns} <= {last}"
        )
        if count:
            yield f"{count} rows of {table} are not where a search looks for them"


def both_ways(conn: sqlite3.Connection, image_ids: list[int]) -> Iterator[str]:
    """Look whether some images are searchable by one way and not by another."""
    shown, by_file, by_image, known = (
        {image_id for (image_id,) in conn.execute(sql, (json.dumps(image_ids),))}
        for sql in (
            f"SELECT image_id FROM shown WHERE {_AMONG}",
            "SELECT image_id FROM files INDEXED BY files_shown "
            f"WHERE state = 'indexed' AND {_AMONG}",
            "SELECT image_id FROM files INDEXED BY files_image_id "
            f"WHERE +state = 'indexed' AND {_AMONG}",
            f"SELECT id FROM images WHERE {_AMONG.replace('image_id', 'id', 1)}",
        )
    )
    differing = (shown ^ by_file) | (shown ^ by_image) | (shown - known)
    if differing:
        yield f"{len(differing)} images are found by one way and not by another"


# What these queries count must not exist, even after a crash: a batch is written whole.
_LINKS = (
    (
        "{} indexed files without an image",
        "SELECT count(*) FROM files NOT INDEXED LEFT JOIN images ON images.id = image_id "
        "WHERE files.state = 'indexed' AND images.id IS NULL",
    ),
    (  # those of a salvaged library wait for their files
        "{} images without a file",
        "SELECT count(*) FROM images NOT INDEXED WHERE id NOT IN "
        "(SELECT image_id FROM files WHERE image_id IS NOT NULL) "
        "AND NOT EXISTS (SELECT 1 FROM library WHERE key = 'salvaged')",
    ),
    (
        "{} embeddings without an image or of no model",
        "SELECT count(*) FROM embeddings WHERE image_id NOT IN (SELECT id FROM images) "
        "OR model_id NOT IN (SELECT id FROM models)",
    ),
    (
        "{} files of no root",
        "SELECT count(*) FROM files NOT INDEXED WHERE root_id NOT IN (SELECT id FROM roots)",
    ),
    (  # those of a salvaged library wait for the next index run
        "{} indexed images that no model has embedded",
        "SELECT count(DISTINCT image_id) FROM files WHERE state = 'indexed' "
        "AND image_id NOT IN (SELECT image_id FROM embeddings) "
        "AND NOT EXISTS (SELECT 1 FROM library WHERE key = 'salvaged')",
    ),
    (
        "{} images with an indexed file that are not searchable",
        "SELECT count(DISTINCT image_id) FROM files NOT INDEXED WHERE state = 'indexed' "
        "AND image_id NOT IN (SELECT image_id FROM shown)",
    ),
    (
        "{} searchable images without an indexed file",
        "SELECT count(*) FROM shown WHERE image_id NOT IN "
        "(SELECT image_id FROM files NOT INDEXED WHERE state = 'indexed')",
    ),
    (
        "{} files whose names cannot be searched",
        "SELECT count(*) FROM files NOT INDEXED WHERE id NOT IN (SELECT id FROM names_docsize)",
    ),
    (
        "{} names of no file",
        "SELECT count(*) FROM names_docsize WHERE id NOT IN (SELECT id FROM files)",
    ),
    (
        "{} names without their text",
        "SELECT count(*) FROM names_docsize WHERE id NOT IN (SELECT id FROM names_content)",
    ),
    (
        "{} files whose names cannot be compared",
        "SELECT count(*) FROM files NOT INDEXED WHERE id NOT IN (SELECT file_id FROM folded)",
    ),
    (
        "{} compared names of no file",
        "SELECT count(*) FROM folded WHERE file_id NOT IN (SELECT id FROM files)",
    ),
    (
        "{} images have a text that was not found by an analysis, or cannot be searched",
        "SELECT count(*) FROM texts WHERE NOT EXISTS (SELECT 1 FROM analyses "
        "WHERE analyses.image_id = texts.image_id AND kind = 'text') "
        "OR image_id NOT IN (SELECT id FROM text_words_docsize) "
        "OR image_id NOT IN (SELECT id FROM text_runs_docsize)",
    ),
    (
        "{} videos whose moments are lost",
        "SELECT (SELECT count(*) FROM images JOIN embeddings ON image_id = images.id "
        "WHERE duration_ms IS NOT NULL "
        "AND embeddings.id NOT IN (SELECT embedding_id FROM moments)) + "
        "(SELECT count(*) FROM moments JOIN embeddings ON embeddings.id = embedding_id "
        "JOIN images ON images.id = image_id WHERE duration_ms IS NULL)",
    ),
    (
        "{} images have a place but no coordinates",
        "SELECT count(*) FROM placed JOIN images ON images.id = image_id "
        "WHERE latitude IS NULL OR longitude IS NULL",
    ),
    *(
        (
            f"{{}} images differ from the marks in whether they are {said}",
            "SELECT count(*) FROM images LEFT JOIN marks ON marks.hash = images.hash "
            f"AND mark = '{mark}' WHERE (marks.id IS NOT NULL) IS NOT "
            f"(images.id IN (SELECT image_id FROM {table}))",
        )
        for mark, table, said in (
            ("favourite", "favourites", "favourites"),
            ("hidden", "hidden", "hidden"),
        )  # fmt: skip
    ),
)


def links(conn: sqlite3.Connection) -> Iterator[str]:
    """Follow every reference from row to row, and compare what is kept in two tables."""
    for complaint, sql in _LINKS:
        [(count,)] = conn.execute(sql)
        if count:
            yield complaint.format(count)
    broken: dict[tuple[str, str], int] = {}
    for table, _, other, _ in conn.execute("PRAGMA foreign_key_check"):
        broken[table, other] = broken.get((table, other), 0) + 1
    for (table, other), count in broken.items():
        yield f"{count} rows of {table} refer to rows of {other} that do not exist"


def names(conn: sqlite3.Connection) -> Iterator[str]:
    """Compare the names and folders that a search compares with those in the files' paths."""
    [(count,)] = conn.execute(
        "SELECT count(*) FROM folded JOIN files NOT INDEXED ON files.id = file_id "
        "WHERE name IS NOT folded_name(path) OR folder IS NOT folded_folder(path)"
    )
    if count:
        yield f"{count} names are not compared as the files are called"


def vectors(conn: sqlite3.Connection) -> Iterator[str]:
    """Check the length of every embedding in bytes, and as a vector: 1 to rounding."""
    dims = dict(conn.execute("SELECT id, dim FROM models"))
    sizes, lengths = 0, 0
    cursor = conn.execute("SELECT model_id, vector FROM embeddings NOT INDEXED")
    while page := cursor.fetchmany(PAGE):
        whole: dict[int, list[bytes]] = {}
        for model_id, vector in page:
            if isinstance(vector, bytes) and len(vector) == 2 * dims.get(model_id, -1):
                whole.setdefault(model_id, []).append(vector)
            else:
                sizes += 1
        for model_id, found in whole.items():
            lengths += int(np.count_nonzero(~are_unit(found, dims[model_id])))
    moments = conn.execute(
        "SELECT model_id, times, moments.vectors FROM moments JOIN embeddings ON id = embedding_id"
    )
    for model_id, times, found in moments:
        lengths += not are_moments(times, found, dims.get(model_id, 1))
    if sizes:
        yield f"{sizes} embeddings of the wrong length for their model"
    if lengths:
        yield f"{lengths} embeddings are not unit vectors"


# Table, SQL index, its columns, and the rows that it has.
_INDEXES = (
    ("files", "sqlite_autoindex_files_1", ("path",), "1"),
    ("files", "files_image_id", ("image_id",), "1"),
    ("files", "files_root_id", ("root_id",), "1"),
    ("files", "files_shown", ("image_id", "mtime_ns"), "state = 'indexed'"),
    ("images", "sqlite_autoindex_images_1", ("hash",), "1"),
    ("embeddings", "sqlite_autoindex_embeddings_1", ("image_id", "model_id"), "1"),
    ("embeddings", "embeddings_model_id", ("model_id",), "1"),
    ("shown", "shown_date", ("date",), "1"),
)


def everyday(conn: sqlite3.Connection) -> Iterator[str]:
    """Check as much as every command can wait for: all of a small library, samples of a large one.

    A fraction of a second in either case, once the file is in memory.
    """
    yield from counts(conn)
    [(images,)] = conn.execute("SELECT count(*) FROM shown")
    if images <= SMALL:
        yield from structure(conn)
    else:
        yield from _samples(conn)


def _samples(conn: sqlite3.Connection) -> Iterator[str]:
    """Look for some rows of each table by each of its SQL indexes."""
    for table, index, columns, condition in _INDEXES:
        names = ", ".join(columns)
        [(lowest, highest)] = conn.execute(  # each by itself is found at once
            f"SELECT (SELECT min(rowid) FROM {table}), (SELECT max(rowid) FROM {table})"
        )
        where = " AND ".join(f"{name} IS ?" for name in columns)
        step = max(1, ((highest or 0) - (lowest or 0)) // SAMPLES)
        for start in range(lowest or 0, (highest or 0) + 1, step):
            row = conn.execute(
                f"SELECT rowid, {names} FROM {table} NOT INDEXED WHERE rowid >= ? AND {condition} "
                "LIMIT 1",
                (start,),
            ).fetchone()
            if row is None:
                break
            sql = f"SELECT rowid FROM {table} INDEXED BY {index} WHERE {where} AND {condition} "
            found = conn.execute(f"{sql} AND rowid = ?", (*row[1:], row[0])).fetchall()
            if found != [(row[0],)]:
                yield f"a row of {table} is not where a search looks for it"
                break
