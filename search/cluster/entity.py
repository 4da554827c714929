"""A picture as an entity in Milvus: the fields that filters ask for, and all the rest in JSON."""

import json
from collections.abc import Iterable
from contextlib import closing
from dataclasses import fields
from typing import Any
from urllib.parse import quote_from_bytes, unquote_to_bytes

import numpy as np

from fovea.search.library.connection import in_memory
from fovea.search.library.facts import dates
from fovea.search.library.facts.folded import fold
from fovea.search.library.rows import ImageMetadata, NewImage
from fovea.search.places.moving import names_of
from fovea.search.query.filters import NEARLY_SQUARE
from fovea.search.seam.writing import FileAt, Kept

from .tokens import of_file, token

__all__ = [
    "CODED",
    "FACTS",
    "NOWHERE",
    "Dating",
    "entity_of",
    "files_of",
    "kept_of",
    "moment",
    "schema",
    "stamp_of",
]

NONE = -1  # a number that is not known
NOWHERE = -999.0  # a latitude or longitude that is not known
TOKENS = 4096  # in one entity, the most that Milvus takes
JSON_BYTES = 60_000  # of the files of one entity; Milvus takes 65,536
LONGEST_NAME = 255
CODED = ("camera", "lens", "format")  # texts of few values, as tokens of the kind of that name
SHAPES = {"portrait": 1, "landscape": 2, "square": 3}
FACTS = (
    "hash",
    "number",
    "stamp",
    "bytes",
    "files",
    "facts",
    "place",
)  # what a picture is read back from
DATED = (
    f"SELECT {dates.DATE} FROM (SELECT ? AS taken_at, ? AS dated_by, {dates.NAMED} AS named, "
    f"{dates.OLDEST} AS oldest FROM files)"
)


def schema(dim: int, description: str) -> Any:
    """Return the schema of a collection of pictures embedded in ``dim`` dimensions."""
    from pymilvus import CollectionSchema, DataType, FieldSchema

    whole = {
        "number": DataType.INT64,  # the image's id
        "stamp": DataType.INT64,  # changes with anything that is known of the picture
        "moment": DataType.INT64,  # its date, as ``moment`` writes it
        "is_exact": DataType.BOOL,  # the picture says its date to the second
        "is_plain": DataType.BOOL,  # it has one file, all of whose tokens are there
        "is_cut": DataType.BOOL,  # it has more tokens than fit
        "camera": DataType.INT64,
        "lens": DataType.INT64,
        "format": DataType.INT64,
        "width": DataType.INT64,
        "height": DataType.INT64,
        "pixels": DataType.INT64,
        "bytes": DataType.INT64,
        "shape": DataType.INT8,
        "duration": DataType.INT64,  # of a video, in milliseconds
        "is_damaged": DataType.BOOL,
        "latitude": DataType.DOUBLE,
        "longitude": DataType.DOUBLE,
        "facts": DataType.JSON,  # all metadata
        "files": DataType.JSON,
        "place": DataType.JSON,
    }
    return CollectionSchema(
        [
            FieldSchema("hash", DataType.VARCHAR, max_length=64, is_primary=True),  # hexadecimal
            FieldSchema("vector", DataType.FLOAT_VECTOR, dim=dim),
            FieldSchema("name", DataType.VARCHAR, max_length=4 * LONGEST_NAME + 4),  # folded
            FieldSchema("tokens", DataType.ARRAY, element_type=DataType.INT64, max_capacity=TOKENS),
            *(FieldSchema(name, kind) for name, kind in whole.items()),
        ],
        description=description,
    )


def moment(date: str | None) -> int:
    """Return a date as a number that is ordered as dates are as texts; ``NONE`` without one.

    The digits of ``YYYYMMDDhhmmss``, those that are not known 0, then 1 where there is a time.
    """
    if not date:
        return NONE
    digits = "".join(c for c in date if c.isdigit())[:14]
    return int(digits.ljust(14, "0")) * 10 + (len(date) > 10)


class Dating:
    """Finds the date that a picture is shown under, as SQLite's triggers do."""

    def __init__(self) -> None:
        self._conn = in_memory()
        self._conn.execute("CREATE TABLE files (named_at TEXT, mtime_ns INTEGER)")

    def __enter__(self) -> "Dating":
        return self

    def __exit__(self, *error: object) -> None:
        self._conn.close()

    def date(self, metadata: ImageMetadata, files: Iterable[FileAt]) -> str | None:
        """Return the date of a picture with these files."""
        self._conn.execute("DELETE FROM files")
        rows = ((dates.named_date(file.path), file.mtime_ns) for file in files)
        self._conn.executemany("INSERT INTO files VALUES (?, ?)", rows)
        return self._one(DATED, (metadata.taken_at, metadata.dated_by))

    def _one(self, sql: str, values: tuple[Any, ...]) -> Any:
        with closing(self._conn.execute(sql, values)) as cursor:
            return cursor.fetchone()[0]


def entity_of(picture: Kept, number: int, dating: Dating) -> dict[str, Any]:
    """Return a picture as Milvus takes it. Raise ``ValueError`` for one without an embedding."""
    if picture.image.vector is None:
        raise ValueError(f"the picture {picture.hash.hex()} has no embedding")
    metadata = picture.metadata
    files, written = _written(picture)
    kept = files[: len(written)]
    found = {one for file in kept for one in of_file(file.path, file.root)}
    names = {token("place", name) for name in names_of(picture.place)}
    is_cut = len(found) + len(names) > TOKENS or len(kept) < len(files)
    tokens = [*sorted(names), *sorted(found)][:TOKENS]
    width, height = metadata.width, metadata.height
    row = {
        "hash": picture.hash.hex(),
        "number": number,
        "moment": moment(dating.date(metadata, kept)),
        "is_exact": len(metadata.taken_at or "") >= 19,
        "is_plain": len(files) == 1 and not is_cut,
        "is_cut": is_cut,
        "name": _first_name(kept),
        "tokens": tokens,
        **{kind: _code(kind, getattr(metadata, kind)) for kind in CODED},
        "width": NONE if width is None else width,
        "height": NONE if height is None else height,
        "pixels": NONE if width is None or height is None else width * height,
        "bytes": picture.image.bytes,
        "shape": _shape(width, height),
        "duration": NONE if metadata.duration_ms is None else metadata.duration_ms,
        "is_damaged": metadata.damaged is not None,
        "latitude": NOWHERE if metadata.latitude is None else metadata.latitude,
        "longitude": NOWHERE if metadata.longitude is None else metadata.longitude,
        **_told(picture, written),
    }
    vector = np.asarray(picture.image.vector, np.float16).astype(np.float32)  # as SQLite keeps it
    row["vector"] = (vector / np.linalg.norm(vector)).tolist()
    return row


def _written(picture: Kept) -> tuple[list[FileAt], list[list[Any]]]:
    """Return a picture's files in order, and of as many as fit what is written of them."""
    files = sorted(picture.files, key=lambda file: file.path)
    written = [_file_row(file) for file in files]
    while len(json.dumps(written)) > JSON_BYTES:  # a picture with hundreds of copies
        written.pop()
    return files, written


def _told(picture: Kept, written: list[list[Any]]) -> dict[str, Any]:
    """Return all that is known of a picture, and the stamp that changes with it."""
    metadata = picture.metadata
    values = ((field.name, getattr(metadata, field.name)) for field in fields(metadata))
    told: dict[str, Any] = {
        "facts": {name: value for name, value in values if value is not None},
        "files": {"all": written},  # Milvus takes objects alone
        "place": picture.place or {},
    }
    return told | {"stamp": token("stamp", json.dumps(list(told.values())))}


def stamp_of(picture: Kept) -> int:
    """Return the stamp that the entity of a picture has."""
    return int(_told(picture, _written(picture)[1])["stamp"])


def _code(kind: str, text: str | None) -> int:
    return NONE if text is None else token(kind, text)


def _first_name(files: list[FileAt]) -> str:
    names = (fold(_name_of(file.path)) for file in files)
    return min(names, key=lambda name: name.encode(), default="")[:LONGEST_NAME]


def _name_of(path: bytes) -> str:
    return path.rpartition(b"/")[2].decode("utf-8", "surrogateescape")


def _shape(width: int | None, height: int | None) -> int:
    if width is None or height is None:
        return 0
    if min(width, height) >= max(width, height) * (1 - NEARLY_SQUARE):
        return SHAPES["square"]
    return SHAPES["portrait" if height > width else "landscape"]


def _file_row(file: FileAt) -> list[Any]:
    """A path is bytes, of which JSON and Milvus take only those that are UTF-8."""
    return [
        quote_from_bytes(file.path),
        len(file.root),
        file.size,
        file.mtime_ns,
        file.ctime_ns,
    ]


def files_of(row: dict[str, Any]) -> tuple[FileAt, ...]:
    """Return the files of an entity."""
    found = []
    for quoted, root, *stamps in row["files"]["all"]:
        path = unquote_to_bytes(quoted)
        found.append(FileAt(path, path[:root], *stamps))
    return tuple(found)


def kept_of(row: dict[str, Any]) -> Kept:
    """Return the picture of an entity, read with the fields ``FACTS`` and, maybe, ``vector``."""
    known = {field.name for field in fields(ImageMetadata)}
    facts = {name: value for name, value in row["facts"].items() if name in known}
    vector = row.get("vector")
    image = NewImage(
        bytes.fromhex(row["hash"]),
        int(row.get("bytes", 0)),
        ImageMetadata(**facts),
        None if vector is None else np.asarray(vector, np.float32),
    )
    return Kept(image, files_of(row), row["place"] or None)
