"""Thumbnails and previews, cached in the library's folder; whole pictures, which are not kept."""

import logging
import os
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from functools import partial
from hashlib import sha256
from itertools import islice
from pathlib import Path
from urllib.parse import quote

from flask import Blueprint, Flask, Response, current_app, request

from fovea.indexer.decoding.formats import RAW_EXTENSIONS, extension
from fovea.indexer.decoding.limits import Refused
from fovea.indexer.workers.decode_pool import Crowded, Frame, Renderer
from fovea.search.clip.disk import reason_of
from fovea.search.index.moments import moment_times
from fovea.search.library.library import Library
from fovea.search.maintenance.forget import THUMBNAILS, thumbnail_path
from fovea.search.query.hits import places
from fovea.web.contract.describe import Choice, Number, Text, describe
from fovea.web.contract.problems import Problem
from fovea.web.engine.engine import Engine, current_engine
from fovea.web.jobs.changed_files import changed_files, has_changed

from .sources import sources_of

__all__ = [
    "Content",
    "ThumbnailCache",
    "blueprint",
    "crowded",
    "file_name",
    "install",
    "is_raw",
    "marked",
    "own_folder",
    "renderer",
]

log = logging.getLogger(__name__)

blueprint = Blueprint("thumbnails", __name__)

SIZES = (256, 512)  # pixels of the short side: for plain and for dense screens
PREVIEW = 2048  # pixels of the long side
WHOLE = 8192  # the same; browsers and JPEG could take more, but not the memory of small machines
LARGEST_CACHE = 4 << 30  # bytes; about 80,000 pictures in both sizes
COPIES = 10  # of a picture's files that are read for the right content
REFUSALS = 10_000  # remembered
PRUNE_EVERY = 500  # pictures made between two checks of the size of the cache
YEAR_S = 365 * 24 * 3600

SIZE = Choice("size", "Length of the short side in pixels.", tuple(map(str, SIZES)), str(SIZES[0]))
VERSION = Text("v", "Start of the content's SHA-256; the answer may then be cached for good.", 64)
AT = Number(
    "at", "Milliseconds: one of the moments of a video, instead of its poster.", 0, 0, 10**9 - 1
)
WEBP = {"image/webp": {"type": "string", "contentMediaType": "image/webp"}}
JPEG = {"image/jpeg": {"type": "string", "contentMediaType": "image/jpeg"}}
IMAGE_PROBLEMS = (404, 410, 422, 503)


Content = tuple[bytes | Frame, bool]  # a picture's bytes, or a frame; whether it is camera RAW


class ThumbnailCache:
    """A folder of pictures by content and size, which can be deleted at any time.

    Failures are remembered while the app runs, so that no page tries them again.
    """

    def __init__(
        self,
        folder: Path,
        renderer: Renderer,
        largest: int = LARGEST_CACHE,
        *,
        kept: Path | None = None,
    ) -> None:
        """``kept`` is another such folder, which is only read."""
        self.folder, self.renderer, self.largest = folder, renderer, largest
        self._kept, self._has_told = kept, False
        self._lock = threading.Lock()
        self._making: dict[tuple[bytes, str], Future[dict[str, bytes]]] = {}
        self._refused: OrderedDict[tuple[bytes, str], Refused] = OrderedDict()
        self._made = 0

    def get(
        self, digest: bytes, kind: str, read: Callable[[], Content], at: int | None = None
    ) -> bytes:
        """Return a picture as WebP; ``kind`` is one of ``SIZES`` as text, or "preview".

        If it must be made, ``read`` is called, once however many requests wait; it returns the
        content, whose SHA-256 is ``digest``, and whether that is camera RAW. ``at`` is the time of
        a moment of a video. Raise ``Refused`` if the content cannot be decoded, and whatever
        ``read`` raises.
        """
        for folder in filter(None, (self._kept, self.folder)):
            kept = _read(thumbnail_path(folder, digest, marked(kind, at)))
            if kept is not None:
                return kept
        key = digest, marked("preview" if kind == "preview" else "thumbnails", at)
        with self._lock:
            if key in self._refused:
                raise self._refused[key]
            made = self._making.get(key)
            mine = made is None
            if made is None:
                made = self._making[key] = Future()
        if mine:
            self._fulfil(made, key, read, at)
        return made.result()[kind]

    def _fulfil(
        self,
        waiting: "Future[dict[str, bytes]]",
        key: tuple[bytes, str],
        read: Callable[[], Content],
        at: int | None,
    ) -> None:
        """Make pictures that other requests may be waiting for."""
        digest, group = key
        try:
            data, raw = read()
            with closed_after(data):
                if group == marked("preview", at):
                    made = {"preview": self.renderer.preview(data, PREVIEW, raw=raw)}
                else:
                    sizes = self.renderer.thumbnails(data, SIZES, raw=raw)
                    made = {str(size): picture for size, picture in sizes.items()}
            for kind, picture in made.items():
                self._keep(thumbnail_path(self.folder, digest, marked(kind, at)), picture)
            waiting.set_result(made)
        except BaseException as exc:  # the waiting requests must not hang
            if isinstance(exc, Refused):
                self._remember(key, exc)
            waiting.set_exception(exc)
        finally:
            with self._lock:
                del self._making[key]

    def _remember(self, key: tuple[bytes, str], refusal: Refused) -> None:
        with self._lock:
            self._refused[key] = refusal.with_traceback(None)
            while len(self._refused) > REFUSALS:
                self._refused.popitem(last=False)

    def _keep(self, path: Path, picture: bytes) -> None:
        """Write a picture whole or not at all; where that fails it is not cached. Log it once."""
        part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            part.write_bytes(picture)
            part.replace(path)
        except OSError as exc:
            with suppress(OSError):
                part.unlink(missing_ok=True)
            if not self._has_told:
                self._has_told = True
                log.warning("thumbnails are made but not kept: %s", reason_of(exc, self.folder))
        with self._lock:
            self._made += 1
            full = self._made % PRUNE_EVERY == 1  # also after the first one of a run
        if full:
            self.prune()

    def prune(self) -> None:
        """Delete the oldest pictures of a cache that is too large, down to 90 % of its limit."""
        found = []
        for path in self.folder.glob("??/*"):
            try:
                status = path.stat()
            except OSError:
                continue
            found.append((status.st_mtime, status.st_size, path))
        total = sum(size for _, size, _ in found)
        if total <= self.largest:
            return
        for _, size, path in sorted(found):
            path.unlink(missing_ok=True)
            total -= size
            if total <= 0.9 * self.largest:
                break


def marked(kind: str, at: int | None) -> str:
    """Name a kind of picture of a moment."""
    return kind if at is None else f"at{at}-{kind}"


def closed_after(data: bytes | Frame) -> AbstractContextManager[object]:
    """Close a video's file after its frame has been made."""
    return closing(data) if isinstance(data, Frame) else nullcontext()


def own_folder(library_id: str) -> Path:
    """Return where this user keeps the thumbnails of a library that cannot be written."""
    from platformdirs import user_cache_path

    return user_cache_path("fovea", appauthor=False) / THUMBNAILS / library_id


def _read(path: Path) -> bytes | None:
    """Read a cached picture; None if it is missing or, as after a power cut, incomplete."""
    try:
        kept = path.read_bytes()
    except OSError:
        return None
    is_whole = kept[:4] == b"RIFF" and int.from_bytes(kept[4:8], "little") + 8 == len(kept)
    return kept if is_whole else None


def install(app: Flask) -> None:
    """Set up the cache, and start decoding processes for the first page, except in tests."""
    engine: Engine = app.extensions["fovea"]
    made = Renderer()
    app.extensions["fovea.renderer"] = made
    kept = engine.folder / THUMBNAILS
    cache = ThumbnailCache(kept, made)
    if not engine.is_writable:
        cache = ThumbnailCache(own_folder(engine.library.id), made, kept=kept)
    app.extensions["fovea.thumbnails"] = cache
    engine.on_close(made.close)
    if not app.testing:
        threading.Thread(target=made.warm, daemon=True).start()


def renderer() -> Renderer:
    """Return the current app's decoding processes."""
    found: Renderer = current_app.extensions["fovea.renderer"]
    return found


def is_raw(path: str) -> bool:
    """Whether a file has the extension of a camera RAW format."""
    return extension(os.path.basename(os.fsencode(path))) in RAW_EXTENSIONS


def crowded(exc: Crowded) -> Problem:
    """Tell a client to try again, as too many pictures are waiting to be decoded."""
    return Problem(503, "Service Unavailable", str(exc), headers={"Retry-After": "5"})


@blueprint.get("/api/images/<int:image_id>/thumbnail")
@describe(
    "Get a thumbnail",
    {200: WEBP, 304: {}},
    tag="Images",
    parameters=(SIZE, VERSION, AT),
    problems=IMAGE_PROBLEMS,
)
def thumbnail(image_id: int) -> Response:
    """Send a WebP, upright, in sRGB; of an animation the first frame, of a video its poster.

    The long side is at most four times the short one.
    """
    return _picture(image_id, SIZE.read())


@blueprint.get("/api/images/<int:image_id>/preview")
@describe(
    "Get a preview",
    {200: WEBP, 304: {}},
    tag="Images",
    parameters=(VERSION, AT),
    problems=IMAGE_PROBLEMS,
)
def preview(image_id: int) -> Response:
    """Send a WebP, for formats that browsers cannot show. The long side is at most 2,048 pixels."""
    return _picture(image_id, "preview")


@blueprint.get("/api/images/<int:image_id>/picture")
@describe(
    "Get the whole picture as JPEG",
    {200: JPEG, 206: JPEG, 304: {}},
    tag="Images",
    parameters=(VERSION, AT),
    problems=(*IMAGE_PROBLEMS, 416),
)
def picture(image_id: int) -> Response:
    """Send a JPEG in place of an original that browsers cannot show, such as HEIC or camera RAW.

    It is upright, in sRGB, and has no metadata, so no location. The long side is at most 8,192
    pixels. Camera RAW is the JPEG in it or, where that is small, developed at half its size.
    """
    response = _picture(image_id, "whole")
    if response.status_code != 304:
        place = places(current_engine().library, [image_id]).get(image_id)
        name = os.path.splitext(file_name(place.paths[0]))[0] if place else str(image_id)
        saved_as = f"inline; filename*=UTF-8''{quote(name, safe='')}.jpg"  # RFC 6266, section 4.3
        response.headers["Content-Disposition"] = saved_as
    return response


def file_name(path: str) -> str:
    """Return a file's name for a browser to save it under: of printable characters only."""
    name = os.fsencode(os.path.basename(path)).decode("utf-8", "replace")
    return "".join(c if c.isprintable() else "_" for c in name)


def _picture(image_id: int, kind: str) -> Response:
    library, version, at = current_engine().library, VERSION.read(), AT.given()
    digest = _digest(library, image_id)
    if at is not None and at not in moment_times(library, image_id):
        raise Problem(404, "Not Found", f"image {image_id} has no moment at {at} ms")
    mimetype = "image/jpeg" if kind == "whole" else "image/webp"
    response = current_app.response_class(mimetype=mimetype)
    response.set_etag(f"{digest.hex()[:32]}-{marked(kind, at)}")
    if version and digest.hex().startswith(version.lower()):
        response.headers["Cache-Control"] = f"private, max-age={YEAR_S}, immutable"
    if response.make_conditional(request).status_code == 304:
        return response
    cache: ThumbnailCache = current_app.extensions["fovea.thumbnails"]
    try:
        if kind == "whole":
            data, raw = _content(library, image_id, digest, at)
            with closed_after(data):
                response.data = cache.renderer.whole(data, WHOLE, raw=raw)
        else:
            read = partial(_content, library, image_id, digest, at)
            response.data = cache.get(digest, kind, read, at)
    except Refused as exc:
        raise Problem(422, "Unprocessable Content", f"cannot decode the file: {exc}") from exc
    except Crowded as exc:
        raise crowded(exc) from exc
    response.make_conditional(request, accept_ranges=True, complete_length=len(response.data))
    return response


def _digest(library: Library, image_id: int) -> bytes:
    """Look up the SHA-256 of an image's content."""
    if image_id <= 2**63 - 1:
        for (digest,) in library.rows("SELECT hash FROM images WHERE id = ?", (image_id,)):
            return bytes(digest)
    raise Problem(404, "Not Found", f"there is no image {image_id}")


def _content(library: Library, image_id: int, digest: bytes, at: int | None) -> Content:
    """Read the bytes that were indexed, and tell whether they are camera RAW.

    They are those of the first file that still holds them; others on the way are indexed again. A
    video is too large to be read for a frame: its file's times must be those that were indexed.
    """
    limits = renderer().limits
    [(poster,)] = library.rows("SELECT poster_ms FROM images WHERE id = ?", (image_id,))
    is_told: list[bool] = []  # for each file that has changed
    for source in islice(sources_of(library, image_id), COPIES):
        if poster is not None:
            if not has_changed(library, source.path, source.stamps):
                return Frame(source.file, poster if at is None else at), False
            source.file.close()
            is_told.append(changed_files().tell(source.path))
            continue
        with source.file:
            if source.size > limits.file_bytes:
                continue
            data = source.file.read(limits.file_bytes + 1)
        if sha256(data).digest() == digest:
            return data, is_raw(source.path)
        is_told.append(changed_files().tell(source.path))
    if not is_told:
        raise Refused("it is too large")
    next_step = "it is being indexed again" if all(is_told) else "rescan its folder"
    raise Problem(410, "Gone", f"the file has changed since it was indexed; {next_step}")
