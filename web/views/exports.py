"""Export a selection: its originals as a zip file, its data as CSV or JSON, or its paths."""

import csv
import io
import json
import os
import threading
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

from flask import Blueprint, Flask, Response, current_app, request

from fovea.search.library.library import Library
from fovea.search.library.paths import path_fields
from fovea.search.query.hits import places
from fovea.web.contract.describe import bad_request, describe, form_body, json_body
from fovea.web.contract.problems import Problem
from fovea.web.engine.choices import CHOICE, LISTED, Choice, chosen, one_of, read_choice
from fovea.web.engine.engine import current_engine

from .images import COLUMNS, FACTS
from .sources import Source, open_source

__all__ = ["blueprint", "install"]

blueprint = Blueprint("exports", __name__)

ARCHIVES = 4  # and other long exports at once: each occupies a thread until its client has read it
BATCH = 1000  # images whose rows are in memory at a time
NAME_BYTES = 200  # of a name in an archive: with a number added it still fits every file system
BLOCK = 1 << 18  # bytes read at a time
FORMATS = ("zip", "csv", "json", "paths")
TYPES = {
    "zip": "application/zip",
    "csv": "text/csv",
    "json": "application/json",
    "paths": "text/plain",
}
ENDINGS = {"zip": "zip", "csv": "csv", "json": "json", "paths": "txt"}
_DEVICES = frozenset(
    ["CON", "PRN", "AUX", "NUL", *(f"{port}{n}" for port in ("COM", "LPT") for n in range(10))]
)  # names that Windows reserves

BODY = {
    "type": "object",
    "properties": {**CHOICE, "format": {"enum": list(FORMATS)}},
    "required": ["format"],
    "oneOf": one_of(),
    "additionalProperties": False,
}
MEASURED_BODY = {
    "type": "object",
    "properties": CHOICE,
    "oneOf": one_of(),
    "additionalProperties": False,
}
SEPARATED = {"type": "string", "description": "Image ids, separated by commas."}
FORM = {
    "type": "object",
    "properties": {
        "ids": SEPARATED,
        **{name: CHOICE[name] for name in ("query", "cursor")},
        "likely_only": {"enum": ["true", "false"]},
        "except": SEPARATED,
        "format": {"enum": list(FORMATS)},
    },
    "required": ["format"],
    "additionalProperties": False,
}
ANSWER = {kind: {"type": "string"} for kind in TYPES.values() if kind != "application/json"}
ANSWER["application/json"] = {"type": "array"}


@blueprint.post("/api/exports")
@describe(
    "Export images",
    {200: ANSWER},
    tag="Images",
    body={"application/json": BODY, "application/x-www-form-urlencoded": FORM},
    problems=(404, 410, 413, 415, 503),
)
def export() -> Response:
    """Send originals as a zip file, metadata as CSV or JSON, or paths, one per line.

    Instead of `ids`, a `query` exports all that it finds now, but for `except`. Images no longer
    in the library are left out. A path with a line break takes several lines. A zip file lists
    files that could not be read in `missing.txt`.
    """
    choice, kind = _asked()
    library, ids = _found(choice)
    if kind == "zip":
        return _named(_streamed(lambda gone: _zipped(library, ids, gone), kind), kind)
    text = {"paths": _paths, "csv": _csv, "json": _json}[kind](library, ids)
    if len(ids) > LISTED:
        return _named(_streamed(lambda gone: _until(gone, text), kind), kind)
    return _named(current_app.response_class(b"".join(text), mimetype=TYPES[kind]), kind)


@blueprint.post("/api/selections")
@describe(
    "Count and measure images",
    {200: "Measured"},
    tag="Images",
    body={"application/json": MEASURED_BODY},
    problems=(404, 410, 413, 415, 503),
)
def measure() -> dict[str, Any]:
    """Say how many images an export would have, which, and the `bytes` of their originals."""
    library, ids = _found(read_choice(json_body()))
    sql = "SELECT sum(bytes) FROM images WHERE id IN (SELECT value FROM json_each(?))"
    [(size,)] = library.rows(sql, [json.dumps(ids)])
    return {"count": len(ids), "bytes": int(size or 0), "ids": ids}


def _found(choice: Choice) -> tuple[Library, list[int]]:
    """Return the images of a choice that have files. Raise ``Problem`` 404 without any."""
    engine = current_engine()
    library, ids = engine.library, chosen(engine, choice)
    sql = (
        "SELECT DISTINCT image_id FROM files "
        "WHERE state = 'indexed' AND image_id IN (SELECT value FROM json_each(?))"
    )
    known = {image_id for (image_id,) in library.rows(sql, [json.dumps(ids)])}
    ids = [image_id for image_id in ids if image_id in known]
    if not ids:
        raise Problem(404, "Not Found", "none of these images is in the library")
    return library, ids


def _named(response: Response, kind: str) -> Response:
    name = f"fovea-{datetime.now():%Y%m%d-%H%M%S}.{ENDINGS[kind]}"
    response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    response.headers["Cache-Control"] = "no-store"
    return response


def install(app: Flask) -> None:
    """Limit how many archives the app makes at once."""
    app.extensions["fovea.archives"] = threading.BoundedSemaphore(ARCHIVES)


def _asked() -> tuple[Choice, str]:
    if request.mimetype == "application/x-www-form-urlencoded":
        body: dict[str, Any] = dict(form_body()[0])
        for name in ("ids", "except"):
            if name in body:
                body[name] = _separated(name, body[name])
        if "likely_only" in body:
            body["likely_only"] = {"true": True, "false": False}.get(body["likely_only"])
    else:
        body = json_body()
    choice, kind = read_choice(body), body.get("format")
    if kind not in FORMATS:
        raise bad_request(f"format must be one of {', '.join(FORMATS)}")
    return choice, str(kind)


def _separated(name: str, text: str) -> list[int]:
    parts = text.split(",") if text or name == "ids" else []
    ids = [int(part) for part in parts if part.isascii() and part.isdigit() and len(part) < 19]
    if len(ids) != len(parts):
        raise bad_request(f"{name} must be image ids separated by commas")
    return ids


# Data


def _placed(library: Library, ids: Sequence[int]) -> Iterator[dict[int, str]]:
    """Yield the path of each image that has any, by image id, batch by batch."""
    for first in range(0, len(ids), BATCH):
        part = ids[first : first + BATCH]
        found = places(library, part)
        yield {image_id: found[image_id].paths[0] for image_id in part if image_id in found}


def _paths(library: Library, ids: Sequence[int]) -> Iterator[bytes]:
    for placed in _placed(library, ids):
        text = "".join(f"{path_fields(path)['path']}\n" for path in placed.values())
        yield text.encode("utf-8", "surrogateescape")


def _rows(library: Library, ids: Sequence[int]) -> Iterator[list[dict[str, Any]]]:
    for placed in _placed(library, ids):
        found = library.rows(
            f"{FACTS} WHERE id IN (SELECT value FROM json_each(?))", [json.dumps(list(placed))]
        )
        facts = {row[0]: dict(zip(COLUMNS, row[1:], strict=True)) for row in found}
        yield [
            {"image_id": image_id, **path_fields(path), **facts[image_id]}
            for image_id, path in placed.items()
            if image_id in facts
        ]


def _json(library: Library, ids: Sequence[int]) -> Iterator[bytes]:
    """Write a list with an object a line."""
    before = "[\n"
    for rows in filter(None, _rows(library, ids)):
        yield (before + ",\n".join(map(json.dumps, rows))).encode()
        before = ",\n"
    yield b"[]\n" if before == "[\n" else b"\n]\n"


def _csv(library: Library, ids: Sequence[int]) -> Iterator[bytes]:
    """Write CSV, with the byte order mark by which spreadsheets recognise UTF-8."""
    names = ("image_id", "path", *COLUMNS)
    yield b"\xef\xbb\xbf" + _cells([names])
    for rows in _rows(library, ids):
        yield _cells([_harmless(row.get(name)) for name in names] for row in rows)


def _cells(rows: Iterable[Sequence[object]]) -> bytes:
    file = io.StringIO()
    csv.writer(file).writerows(rows)
    return file.getvalue().encode("utf-8", "backslashreplace")


# Spreadsheets take a cell that begins with one of these for a formula, full width included.
_FORMULAS = tuple("=+-@\t\r\n＝＋－＠")


def _harmless(value: object) -> object:
    """Quote a cell that a spreadsheet would take for a formula (OWASP, CSV injection)."""
    if isinstance(value, str) and value.startswith(_FORMULAS):
        return f"'{value}"
    return value


# Originals


def _streamed(parts: Callable[[Callable[[], bool]], Iterator[bytes]], kind: str) -> Response:
    """Send the parts as they are made, given whether the client is gone.

    Raise ``Problem`` 503 if too many are being sent already.
    """
    seats: threading.BoundedSemaphore = current_app.extensions["fovea.archives"]
    if not seats.acquire(blocking=False):
        detail = "too many downloads at once; try again in a moment"
        raise Problem(503, "Service Unavailable", detail, headers={"Retry-After": "30"})
    gone = request.environ.get("waitress.client_disconnected", lambda: False)
    response = current_app.response_class(parts(gone), mimetype=TYPES[kind])
    response.call_on_close(seats.release)
    return response


def _until(gone: Callable[[], bool], parts: Iterable[bytes]) -> Iterator[bytes]:
    for part in parts:
        if gone():
            return
        yield part


class _Outlet(io.RawIOBase):
    """The unseekable target of a zip file, which keeps what is written until it is taken."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def taken(self) -> bytes:
        data = b"".join(self._parts)
        self._parts.clear()
        return data


def _zipped(library: Library, ids: Sequence[int], gone: Callable[[], bool]) -> Iterator[bytes]:
    """Yield a zip file as it is written; pictures are compressed already, so they are stored."""
    outlet, missing, names = _Outlet(), [], dict[str, int]()
    with zipfile.ZipFile(outlet, "w", zipfile.ZIP_STORED) as archive:
        for image_id, path in (entry for part in _placed(library, ids) for entry in part.items()):
            if gone():
                return
            try:
                with open_source(library, image_id) as source:
                    for _ in _added(archive, source, _unique(_safe_name(source.path), names)):
                        yield outlet.taken()
            except (Problem, OSError) as exc:
                missing.append(f"{_safe_name(path)}: {exc}")
            yield outlet.taken()
        if missing:
            archive.writestr(_unique("missing.txt", names), "\n".join(missing) + "\n")
    yield outlet.taken()


def _added(archive: zipfile.ZipFile, source: Source, name: str) -> Iterator[None]:
    """Add a file block by block, up to the size it had when it was opened."""
    entry = zipfile.ZipInfo(name, _zip_time(source.mtime))
    entry.external_attr = 0o644 << 16
    left = source.size
    with archive.open(entry, "w", force_zip64=source.size > 1 << 31) as target:
        while block := source.file.read(min(BLOCK, left)):
            target.write(block)
            left -= len(block)
            yield


def _safe_name(path: str) -> str:
    """Turn a path into a file name that every system accepts.

    Without folders, control characters and the names of Windows devices.
    """
    name = os.path.basename(os.fsencode(path)).decode("utf-8", "replace")
    name = "".join("_" if c in '<>:"/\\|?*' or not c.isprintable() else c for c in name)
    stem, ending = os.path.splitext(name.strip(" .") or "picture")
    if stem.split(".")[0].strip().upper() in _DEVICES:
        stem = f"_{stem}"
    most = NAME_BYTES - len(ending.encode())
    return stem.encode()[:most].decode("utf-8", "ignore") + ending if most > 0 else "picture"


def _unique(name: str, taken: dict[str, int]) -> str:
    """Number a name if it is taken already, whatever its case, and add it to ``taken``.

    ``taken`` counts how often each name was asked for, so that thousands of one name take no
    longer than others.
    """
    stem, ending = os.path.splitext(name)
    key, found = name.casefold(), name
    number = taken.get(key, 0)
    while found.casefold() in taken:
        number += 1
        found = f"{stem} ({number}){ending}"
    taken[key] = max(number, 1)
    taken.setdefault(found.casefold(), 1)
    return found


def _zip_time(seconds: float) -> tuple[int, int, int, int, int, int]:
    """Convert a file's time to that of a zip entry, which lies between 1980 and 2107."""
    try:
        when = datetime.fromtimestamp(seconds)
    except (OverflowError, OSError, ValueError):
        when = datetime(1980, 1, 1)
    year = min(max(when.year, 1980), 2107)
    return year, when.month, when.day, when.hour, when.minute, when.second
