"""Small pictures: made once, kept beside the library, served for ever."""

import os
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from flask import Blueprint, Flask, Response, current_app, request

from fovea.indexer.decoding.formats import RAW_EXTENSIONS, extension
from fovea.indexer.decoding.limits import Refused
from fovea.indexer.workers.decode_pool import Crowded, Renderer
from fovea.search.library.library import Library
from fovea.search.maintenance.forget import THUMBNAILS, thumbnail_path
from fovea.web.contract.describe import Choice, Text, describe
from fovea.web.contract.problems import Problem
from fovea.web.engine.engine import Engine, current_engine

from .sources import open_source

__all__ = ["ThumbnailCache", "blueprint", "crowded", "install", "is_raw", "renderer"]

blueprint = Blueprint("thumbnails", __name__)

SIZES = (256, 512)  # pixels of the short side: for plain and for dense screens
PREVIEW = 2048  # pixels of the long side
LARGEST_CACHE = 4 << 30  # bytes; about 80,000 pictures in both sizes
REFUSALS = 10_000  # that are remembered
PRUNE_EVERY = 500  # pictures made between two looks at how large it has grown
YEAR_S = 365 * 24 * 3600

SIZE = Choice("size", "Pixels of the short side.", tuple(map(str, SIZES)), str(SIZES[0]))
VERSION = Text("v", "The content's mark, which makes the address one that never changes.", 64)
WEBP = {"image/webp": {"type": "string", "contentMediaType": "image/webp"}}
IMAGE_PROBLEMS = (404, 410, 422, 503)


class ThumbnailCache:
    """Small pictures by content and size in a folder of its own, which can be deleted any time.

    What cannot be made is remembered as long as the app runs, so that no page tries it again.
    """

    def __init__(self, folder: Path, renderer: Renderer, largest: int = LARGEST_CACHE) -> None:
        self.folder, self.renderer, self.largest = folder, renderer, largest
        self._lock = threading.Lock()
        self._making: dict[tuple[bytes, str], Future[dict[str, bytes]]] = {}
        self._refused: OrderedDict[tuple[bytes, str], Refused] = OrderedDict()
        self._made = 0

    def get(self, digest: bytes, kind: str, read: Callable[[], tuple[bytes, bool]]) -> bytes:
        """The picture of a content, ``kind`` a size in ``SIZES`` or "preview".

        ``read`` gives the content and whether it is camera RAW; it is called where the picture
        must be made, once however many ask. Raise ``Refused`` for what cannot be decoded, and
        what ``read`` raises.
        """
        kept = _read(self._path(digest, kind))
        if kept is not None:
            return kept
        key = digest, "preview" if kind == "preview" else "thumbnails"
        with self._lock:
            if key in self._refused:
                raise self._refused[key]
            made = self._making.get(key)
            mine = made is None
            if made is None:
                made = self._making[key] = Future()
        if mine:
            self._fulfil(made, key, self._path(digest, kind), read)
        return made.result()[kind]

    def _fulfil(
        self,
        made: "Future[dict[str, bytes]]",
        key: tuple[bytes, str],
        path: Path,
        read: Callable[[], tuple[bytes, bool]],
    ) -> None:
        """Make what others may wait for by now."""
        try:
            data, raw = read()
            make = self._make if key[1] == "thumbnails" else self._make_preview
            made.set_result(make(key[0], data, raw))
        except BaseException as exc:  # whatever it is, those who wait must hear of it
            if isinstance(exc, Refused):
                self._remember(key, exc)
            made.set_exception(exc)
        finally:
            with self._lock:
                del self._making[key]

    def _remember(self, key: tuple[bytes, str], refusal: Refused) -> None:
        with self._lock:
            self._refused[key] = refusal.with_traceback(None)
            while len(self._refused) > REFUSALS:
                self._refused.popitem(last=False)

    def _make(self, digest: bytes, data: bytes, raw: bool) -> dict[str, bytes]:
        made = {
            str(size): picture
            for size, picture in self.renderer.thumbnails(data, SIZES, raw=raw).items()
        }
        for kind, picture in made.items():
            self._keep(self._path(digest, kind), picture)
        return made

    def _make_preview(self, digest: bytes, data: bytes, raw: bool) -> dict[str, bytes]:
        picture = self.renderer.preview(data, PREVIEW, raw=raw)
        self._keep(self._path(digest, "preview"), picture)
        return {"preview": picture}

    def _path(self, digest: bytes, kind: str) -> Path:
        return thumbnail_path(self.folder, digest, kind)

    def _keep(self, path: Path, picture: bytes) -> None:
        """Write whole or not at all; a full disk costs no more than the picture's keeping."""
        part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            part.write_bytes(picture)
            part.replace(path)
        except OSError:
            with suppress(OSError):
                part.unlink(missing_ok=True)
        with self._lock:
            self._made += 1
            full = self._made % PRUNE_EVERY == 1  # once each run, too
        if full:
            self.prune()

    def prune(self) -> None:
        """Delete the oldest pictures until nine tenths of the most are left."""
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


def _read(path: Path) -> bytes | None:
    """A picture that was kept; None for one that is not whole, as after a power cut."""
    try:
        kept = path.read_bytes()
    except OSError:
        return None
    is_whole = kept[:4] == b"RIFF" and int.from_bytes(kept[4:8], "little") + 8 == len(kept)
    return kept if is_whole else None


def install(app: Flask) -> None:
    """Set the cache up, and have processes ready for the first page, unless this is a test."""
    engine: Engine = app.extensions["fovea"]
    made = Renderer()
    app.extensions["fovea.renderer"] = made
    app.extensions["fovea.thumbnails"] = ThumbnailCache(engine.folder / THUMBNAILS, made)
    engine.on_close(made.close)
    if not app.testing:
        threading.Thread(target=made.warm, daemon=True).start()


def renderer() -> Renderer:
    """The current app's decoding processes."""
    found: Renderer = current_app.extensions["fovea.renderer"]
    return found


def is_raw(path: str) -> bool:
    """Whether a file's name says that it comes from a camera's sensor."""
    return extension(os.path.basename(os.fsencode(path))) in RAW_EXTENSIONS


def crowded(exc: Crowded) -> Problem:
    """What a client hears whose picture waits too long for its turn."""
    return Problem(503, "Service Unavailable", str(exc), headers={"Retry-After": "5"})


@blueprint.get("/api/images/<int:image_id>/thumbnail")
@describe(
    "Show a small picture",
    {200: WEBP, 304: {}},
    tag="Images",
    parameters=(SIZE, VERSION),
    problems=IMAGE_PROBLEMS,
)
def thumbnail(image_id: int) -> Response:
    """Upright, as sRGB; of an animation the first frame. At most four times as long as wide."""
    return _picture(image_id, SIZE.read())


@blueprint.get("/api/images/<int:image_id>/preview")
@describe(
    "Show a large picture in a format that browsers know",
    {200: WEBP, 304: {}},
    tag="Images",
    parameters=(VERSION,),
    problems=IMAGE_PROBLEMS,
)
def preview(image_id: int) -> Response:
    """Its long side has at most 2,048 pixels."""
    return _picture(image_id, "preview")


def _picture(image_id: int, kind: str) -> Response:
    library, version = current_engine().library, VERSION.read()
    digest = _digest(library, image_id)
    response = current_app.response_class(mimetype="image/webp")
    response.set_etag(f"{digest.hex()[:32]}-{kind}")
    if version and digest.hex().startswith(version.lower()):
        response.headers["Cache-Control"] = f"private, max-age={YEAR_S}, immutable"
    if response.make_conditional(request).status_code == 304:
        return response
    cache: ThumbnailCache = current_app.extensions["fovea.thumbnails"]
    try:
        response.data = cache.get(digest, kind, lambda: _content(library, image_id, digest))
    except Refused as exc:
        raise Problem(422, "Unprocessable Content", f"no picture can be made: {exc}") from exc
    except Crowded as exc:
        raise crowded(exc) from exc
    return response


def _digest(library: Library, image_id: int) -> bytes:
    """The SHA-256 of an image's content."""
    if image_id <= 2**63 - 1:
        for (digest,) in library.rows("SELECT hash FROM images WHERE id = ?", (image_id,)):
            return bytes(digest)
    raise Problem(404, "Not Found", f"there is no image {image_id}")


def _content(library: Library, image_id: int, digest: bytes) -> tuple[bytes, bool]:
    """The bytes that were indexed, and whether they are camera RAW."""
    limits = renderer().limits
    with open_source(library, image_id) as source:
        if source.size > limits.file_bytes:
            raise Refused("its file is too large")
        data, path = source.file.read(limits.file_bytes + 1), source.path
    if sha256(data).digest() != digest:
        raise Problem(410, "Gone", "the file has changed since it was indexed; rescan its folder")
    return data, is_raw(path)
