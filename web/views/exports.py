"""Export a selection: its originals as a zip file, its data as CSV or JSON, or its paths."""

import csv
import io
import json
import os
import threading
import zipfile
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any

from flask import Blueprint, Flask, Response, current_app, request

from fovea.search.library.library import Library
from fovea.search.library.paths import path_fields
from fovea.search.query.hits import places
from fovea.web.contract.describe import bad_request, describe, json_body
from fovea.web.contract.problems import Problem
from fovea.web.engine.engine import current_engine

from .images import COLUMNS, FACTS
from .sources import Source, open_source

__all__ = ["blueprint", "install"]

blueprint = Blueprint("exports", __name__)

MOST = 10_000  # images in one export
ARCHIVES = 4  # made at once: each occupies a thread until its client has read it
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
    "properties": {
        "ids": {"type": "array", "items": {"type": "integer"}, "maxItems": MOST, "minItems": 1},
        "format": {"enum": list(FORMATS)},
    },
    "required": ["ids", "format"],
    "additionalProperties": False,
}
FORM = {
    "type": "object",
    "properties": {
        "ids": {"type": "string", "description": "Image ids, separated by commas."},
        "format": {"enum": list(FORMATS)},
    },
    "required": ["ids", "format"],
}
ANSWER = {kind: {"type": "string"} for kind in TYPES.values() if kind != "application/json"}
ANSWER["application/json"] = {"type": "array"}


@blueprint.post("/api/exports")
@describe(
    "Export images",
    {200: ANSWER},
    tag="Images",
    body={"application/json": BODY, "application/x-www-form-urlencoded": FORM},
    problems=(404, 413, 415, 503),
)
def export() -> Response:
    """Send originals as a zip file, metadata as CSV or JSON, or paths, one per line.

    Images no longer in the library are left out. A zip file lists files that could not be read in
    `missing.txt`.
    """
    ids, kind = _asked()
    library = current_engine().library
    known = {image_id: place.paths for image_id, place in places(library, ids).items()}
    ids = [image_id for image_id in dict.fromkeys(ids) if image_id in known]
    if not ids:
        raise Problem(404, "Not Found", "none of these images is in the library")
    if kind == "zip":
        return _named(_archive(library, [(i, known[i][0]) for i in ids]), kind)
    if kind == "paths":
        text = "".join(f"{path_fields(known[i][0])['path']}\n" for i in ids)
        body = text.encode("utf-8", "surrogateescape")
    else:
        rows = _rows(library, ids, known)
        body = json.dumps(rows, indent=1).encode() if kind == "json" else _csv(rows)
    return _named(current_app.response_class(body, mimetype=TYPES[kind]), kind)


def _named(response: Response, kind: str) -> Response:
    name = f"fovea-{datetime.now():%Y%m%d-%H%M%S}.{ENDINGS[kind]}"
    response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    response.headers["Cache-Control"] = "no-store"
    return response


def install(app: Flask) -> None:
    """Limit how many archives the app makes at once."""
    app.extensions["fovea.archives"] = threading.BoundedSemaphore(ARCHIVES)


def _asked() -> tuple[list[int], str]:
    if request.mimetype == "application/x-www-form-urlencoded":
        parts = request.form.get("ids", "").split(",")
        ids: object = [int(p) for p in parts if p.isascii() and p.isdigit() and len(p) < 19]
        if len(ids) != len(parts):  # type: ignore[arg-type]
            raise bad_request("ids must be image ids separated by commas")
        kind: object = request.form.get("format")
    else:
        body = json_body(["ids", "format"])
        ids, kind = body.get("ids"), body.get("format")
    if not isinstance(ids, list) or not ids or not all(map(_is_id, ids)):
        raise bad_request("ids must be a list of image ids")
    if len(ids) > MOST:
        raise Problem(413, "Content Too Large", f"at most {MOST:,} images per export")
    if kind not in FORMATS:
        raise bad_request(f"format must be one of {', '.join(FORMATS)}")
    return ids, str(kind)


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


# Data


def _rows(
    library: Library, ids: Sequence[int], known: dict[int, tuple[str, ...]]
) -> list[dict[str, Any]]:
    found = library.rows(
        f"{FACTS} WHERE id IN (SELECT value FROM json_each(?))",
        [json.dumps(list(ids))],
    )
    facts = {row[0]: dict(zip(COLUMNS, row[1:], strict=True)) for row in found}
    return [{"image_id": i, **path_fields(known[i][0]), **facts[i]} for i in ids if i in facts]


def _csv(rows: Sequence[dict[str, Any]]) -> bytes:
    """Write CSV, with the byte order mark by which spreadsheets recognise UTF-8."""
    file = io.StringIO()
    writer = csv.writer(file)
    names = ("image_id", "path", *COLUMNS)
    writer.writerow(names)
    writer.writerows([_harmless(row.get(name)) for name in names] for row in rows)
    return b"\xef\xbb\xbf" + file.getvalue().encode("utf-8", "backslashreplace")


# Spreadsheets take a cell that begins with one of these for a formula, full width included.
_FORMULAS = tuple("=+-@\t\r\n＝＋－＠")


def _harmless(value: object) -> object:
    """Quote a cell that a spreadsheet would take for a formula (OWASP, CSV injection)."""
    if isinstance(value, str) and value.startswith(_FORMULAS):
        return f"'{value}"
    return value


# Originals


def _archive(library: Library, images: Sequence[tuple[int, str]]) -> Response:
    """Stream a zip file. Raise ``Problem`` 503 if too many are being made already."""
    seats: threading.BoundedSemaphore = current_app.extensions["fovea.archives"]
    if not seats.acquire(blocking=False):
        detail = "too many downloads at once; try again in a moment"
        raise Problem(503, "Service Unavailable", detail, headers={"Retry-After": "30"})
    gone = request.environ.get("waitress.client_disconnected", lambda: False)
    response = current_app.response_class(_zipped(library, images, gone), mimetype=TYPES["zip"])
    response.call_on_close(seats.release)
    return response


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


def _zipped(
    library: Library, images: Sequence[tuple[int, str]], gone: Callable[[], bool]
) -> Iterator[bytes]:
    """Yield a zip file as it is written; pictures are compressed already, so they are stored."""
    outlet, missing, names = _Outlet(), [], set[str]()
    with zipfile.ZipFile(outlet, "w", zipfile.ZIP_STORED) as archive:
        for image_id, path in images:
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


def _unique(name: str, taken: set[str]) -> str:
    """Number a name if it is taken already, whatever its case, and add it to ``taken``."""
    stem, ending = os.path.splitext(name)
    number, found = 1, name
    while found.casefold() in taken:
        number += 1
        found = f"{stem} ({number}){ending}"
    taken.add(found.casefold())
    return found


def _zip_time(seconds: float) -> tuple[int, int, int, int, int, int]:
    """Convert a file's time to that of a zip entry, which lies between 1980 and 2107."""
    try:
        when = datetime.fromtimestamp(seconds)
    except (OverflowError, OSError, ValueError):
        when = datetime(1980, 1, 1)
    year = min(max(when.year, 1980), 2107)
    return year, when.month, when.day, when.hour, when.minute, when.second
