"""Original files: shown where a browser can do so safely, otherwise offered for download."""

import io
import os
from typing import Any, BinaryIO

from flask import Blueprint, Response, current_app, request, send_file
from werkzeug.wsgi import wrap_file

from fovea.search.clip.formats import browser_media_type
from fovea.search.errors import FoveaError
from fovea.web.contract.describe import Choice, describe
from fovea.web.contract.problems import Problem
from fovea.web.engine.engine import current_engine
from fovea.web.jobs.changed_files import changed_files, has_changed
from fovea.web.jobs.desktop import can_show, show_in_folder

from .sources import Source, source_of
from .thumbnails import file_name

__all__ = ["blueprint", "shows_folders"]

blueprint = Blueprint("originals", __name__)

DOWNLOAD = Choice("download", "1 sends the file as a download.", ("0", "1"), "0")
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
    """Send formats that browsers can show as pictures, all others as attachments.

    Only files inside the library's folders are sent; links are not followed. Range requests are
    supported.
    """
    as_file = DOWNLOAD.read() == "1"
    library = current_engine().library
    source = source_of(library, image_id)
    try:
        if has_changed(library, source.path, source.stamps):
            changed_files().tell(source.path)
        response = _response(source, as_file)
    except BaseException:  # for example a range beyond the end of the file
        source.file.close()
        raise
    if request.method == "HEAD" or response.status_code == 304:
        source.file.close()  # otherwise the server closes it once it is sent
    return response


def shows_folders() -> bool:
    """Whether the present request could have a file shown in its folder."""
    return bool(current_app.extensions["fovea.may_show"](request)) and can_show()


@blueprint.post("/api/images/<int:image_id>/show")
@describe(
    "Show the file in its folder",
    {204: {}},
    tag="Images",
    problems=(403, 404, 410, 501, 503),
)
def show(image_id: int) -> tuple[str, int]:
    """Open the file manager with the file selected, on the desktop at which the server runs.

    Only where `show_in_folder` in `/api/status` is true: for requests from that machine, to a
    server that only that machine can reach, without a proxy. Nothing is changed, so a read-only
    library is shown, too.
    """
    if not current_app.extensions["fovea.may_show"](request):
        detail = "files are shown in their folders only from the machine that serves them"
        raise Problem(403, "Forbidden", detail, code="show.elsewhere")
    source = source_of(current_engine().library, image_id)
    source.file.close()
    try:
        show_in_folder(source.path)
    except BlockingIOError as exc:
        detail = f"{exc}; try again in a moment"
        raise Problem(
            503, "Service Unavailable", detail, code="show.busy", headers={"Retry-After": "2"}
        ) from exc
    except FoveaError as exc:
        raise Problem(501, "Not Implemented", str(exc), code="show.failed") from exc
    return "", 204


def _response(source: Source, as_file: bool) -> Response:
    kind = browser_media_type(source.file.read(32)) or OTHER
    source.file.seek(0)
    response = send_file(
        source.file,
        mimetype=kind,
        as_attachment=as_file or kind == OTHER,
        download_name=file_name(source.path),
        conditional=False,  # below, once the length is known
        etag="-".join(f"{stamp or 0:x}" for stamp in source.stamps),
        last_modified=source.modified,
    )
    response.content_length = source.size
    response.cache_control.private = True
    response.headers["Content-Security-Policy"] = "default-src 'none'; sandbox"
    response.make_conditional(request, accept_ranges=True, complete_length=source.size)
    if response.status_code == 206:
        # Werkzeug's range is an iterator, which occupies a thread until a slow client has read it;
        # the server sends a file on its own.
        start, size = response.content_range.start or 0, response.content_length or 0
        part: Any = Part(source.file, start, size)
        response.response = wrap_file(request.environ, part)
    return response


class Part(io.RawIOBase):
    """``size`` bytes of a file from ``start`` on, as a file; closing it closes the whole file."""

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
