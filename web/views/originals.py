"""Original files: shown where a browser can show them safely, else offered for download."""

import io
import os
from datetime import UTC, datetime
from typing import Any, BinaryIO

from flask import Blueprint, Response, current_app, request
from werkzeug.http import dump_options_header
from werkzeug.wsgi import wrap_file

from fovea.search.clip.formats import browser_media_type
from fovea.web.contract.describe import Choice, describe
from fovea.web.engine.engine import current_engine

from .sources import Source, source_of

__all__ = ["blueprint", "disposition"]

blueprint = Blueprint("originals", __name__)

DOWNLOAD = Choice("download", "1 offers the file for download.", ("0", "1"), "0")
BYTES = {"*/*": {"type": "string", "contentMediaType": "application/octet-stream"}}
OTHER = "application/octet-stream"


@blueprint.get("/api/images/<int:image_id>/original")
@describe(
    "Get the original file",
    {200: BYTES, 206: BYTES, 304: {}},
    tag="Images",
    parameters=(DOWNLOAD,),
    problems=(404, 410, 416, 503),
)
def original(image_id: int) -> Response:
    """As a picture if its content is of a kind that browsers show, else as an attachment.

    Only from a folder of the library, wherever links may lead. Ranges are answered.
    """
    as_file = DOWNLOAD.read() == "1"
    source = source_of(current_engine().library, image_id)
    try:
        response = _response(source, as_file)
    except BaseException:  # a range that the file has not, for one
        source.file.close()
        raise
    if request.method == "HEAD" or response.status_code == 304:
        source.file.close()  # otherwise the server closes it when it has sent it
    return response


def _response(source: Source, as_file: bool) -> Response:
    kind = browser_media_type(source.file.read(32)) or OTHER
    source.file.seek(0)
    response = current_app.response_class(mimetype=kind, direct_passthrough=True)
    response.content_length = source.size
    response.last_modified = datetime.fromtimestamp(source.mtime, UTC)
    response.set_etag(f"{source.size:x}-{int(source.mtime * 1e6):x}")
    response.headers["Cache-Control"] = "private, no-cache"
    shown = not as_file and kind != OTHER
    name = os.path.basename(source.path)
    response.headers["Content-Disposition"] = disposition(name, attachment=not shown)
    response.headers["Content-Security-Policy"] = "default-src 'none'; sandbox"
    response.make_conditional(request, accept_ranges=True, complete_length=source.size)
    file: Any = source.file  # which the server sends by itself; an iterator would hold a thread
    if response.status_code == 206:
        file = Part(file, response.content_range.start or 0, response.content_length or 0)
    response.response = wrap_file(request.environ, file, 1 << 16)
    return response


class Part(io.RawIOBase):
    """``size`` bytes of a file, from ``start`` on, as a file of their own that closes the whole."""

    def __init__(self, file: BinaryIO, start: int, size: int) -> None:
        self._file, self._start, self._size = file, start, size
        self._place = 0

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._place = offset + (0, self._place, self._size)[whence]
        return self._place

    def read(self, size: int = -1) -> bytes:
        left = max(self._size - self._place, 0)
        self._file.seek(self._start + self._place)
        data = self._file.read(left if size < 0 else min(size, left))
        self._place += len(data)
        return data

    def close(self) -> None:
        self._file.close()
        super().close()


def disposition(name: str, *, attachment: bool) -> str:
    """A Content-Disposition for any name of a file (RFC 6266, RFC 8187)."""
    from urllib.parse import quote

    plain = "".join(
        c if c.isascii() and c.isprintable() and c not in '"\\/%' else "_" for c in name
    )
    kind = "attachment" if attachment else "inline"
    header = dump_options_header(kind, {"filename": plain or "picture"})
    if plain != name:
        exact = quote(name.encode("utf-8", "replace"), safe="")
        header += f"; filename*=UTF-8''{exact}"
    return header
