"""The process that reads, hashes and decodes files for ``pool``. It never imports torch."""

import gc
import json
import mmap
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any

import numpy as np

from fovea.indexer.decoding.embedded_text import sidecar_words
from fovea.indexer.decoding.formats import (
    RAW_EXTENSIONS,
    VIDEO_REASON,
    extension,
    is_video,
    video_available,
)
from fovea.indexer.decoding.limits import Gone, Limits, Refused, Unreachable, unexpected
from fovea.indexer.decoding.pillow import decode
from fovea.indexer.decoding.reading import Contents, open_file, read_file
from fovea.search.clip.preprocess import Preprocess

from .host import Message, serve, set_alarm


def main(settings: str) -> None:
    """Serve requests until the other end closes the connection.

    ``settings`` is JSON: file descriptors of the connection, of the pixels and of the known
    hashes, the number of each, the model's ``preprocess``, the limits, and whether ``words`` are
    wanted.
    """
    options = json.loads(settings)
    limits = Limits(**options["limits"])
    preprocess = Preprocess(**options["preprocess"])
    shape = (options["slots"], preprocess.size, preprocess.size, 3)
    worker = Worker(
        preprocess,
        limits,
        _shared(options["pixels"], "uint8", shape),
        _shared(options["known"], "<u8", (options["known_count"],)),
        options["words"],
    )
    serve(options["connection"], limits, worker.answer)


def _shared(descriptor: int, dtype: str, shape: Sequence[int]) -> np.ndarray:
    length = int(np.prod(shape)) * np.dtype(dtype).itemsize
    if not length:
        return np.empty(shape, dtype)
    return np.frombuffer(mmap.mmap(descriptor, length), dtype).reshape(shape)


@dataclass(frozen=True, slots=True)
class Worker:
    """Reads, hashes and decodes, one file after another.

    ``pixels`` is uint8 (slots, size, size, 3), shared with the parent; ``known`` holds the sorted
    first 8 bytes of the hashes that need no decoding. ``words`` asks for the text that is embedded
    in a picture and in the XMP file beside it.
    """

    preprocess: Preprocess
    limits: Limits
    pixels: np.ndarray
    known: np.ndarray
    words: bool = False

    def answer(self, request: dict[str, Any], path: bytes) -> Message:
        """Deal with one file; its pixels, if any, are in ``request["slot"]`` when this returns.

        ``request["force"]`` decodes even a content that is known. With a ``request["name"]``, what
        takes the place of ``path`` is the content itself, and the name is not used as a path.
        """
        found: dict[str, Any] = {}
        try:
            name = request.pop("name", None)
            if name is not None:
                contents, path = Contents(path, len(path), 0), os.path.basename(os.fsencode(name))
            elif is_video(path):
                return self._watch(path, found, **request)
            else:
                contents = read_file(path, self.limits)
            found |= {"size": contents.size, "mtime_ns": contents.mtime_ns}
            found["ctime_ns"] = contents.ctime_ns
            found |= {"hash": sha256(contents.data).hexdigest(), "bytes": len(contents.data)}
            answer, grey = self._look(path, contents.data, found["hash"], **request)
            return found | answer, grey
        except Gone:
            return {"outcome": "gone"}, b""
        except Unreachable as exc:
            return found | {"outcome": "unreachable", "reason": str(exc)}, b""
        except Refused as exc:
            reason = str(exc)
        except MemoryError:
            reason = "too large: no memory to read it"
        except Exception as exc:  # whatever it is, it is the failure of this file
            reason = unexpected(exc)
        gc.collect()  # an error's frames may hold the picture; the next one needs the memory
        return found | {"outcome": "failed", "reason": reason}, b""

    def _watch(
        self, path: bytes, found: dict[str, Any], slot: int, force: bool, at: int | None = None
    ) -> Message:
        """Deal with a video; its poster is in the slot, and the pixels of its moments follow.

        ``at`` asks for its frame at that time, in milliseconds, and nothing else.
        """
        if not video_available():
            raise Refused(VIDEO_REASON)
        from fovea.indexer.decoding.video.decode import decode_video, still

        with open_file(path, self.limits.video_bytes) as opened:
            seconds = self.limits.video_time(opened.size)
            set_alarm(seconds)
            started = time.monotonic()
            found |= {"size": opened.size, "mtime_ns": opened.mtime_ns}
            found["ctime_ns"] = opened.ctime_ns
            with os.fdopen(os.dup(opened.descriptor), "rb") as file:
                if at is not None:
                    image = still(file, at, min(self.preprocess.draft_size), self.limits)
                    self.pixels[slot] = self.preprocess.pixels(image)
                    return found | {"outcome": "pixels"}, b""
                digest = opened.hash()
                found |= {"hash": digest.hex(), "bytes": opened.size}
                if not force and self._knows(digest):
                    return found | {"outcome": "known"}, b""
                left = seconds - (time.monotonic() - started)
                video = decode_video(file, self.preprocess, self.limits, left)
        self.pixels[slot] = video.pixels[video.poster]
        found |= {"outcome": "pixels", "facts": asdict(video.metadata), "times": video.times}
        return found, video.pixels.tobytes()

    def _look(
        self, path: bytes, data: bytes, digest: str, slot: int, force: bool, at: int | None = None
    ) -> Message:
        if not force and self._knows(bytes.fromhex(digest)):
            return {"outcome": "known"}, b""
        raw = extension(os.path.basename(path)) in RAW_EXTENSIONS
        found: dict[str, Any] = {}
        picture = decode(data, self.preprocess, self.limits, raw, self.words)
        self.pixels[slot] = picture.pixels
        if self.words:
            words = sidecar_words(path, self.limits) + picture.words
            found["captions"] = words.captions()
        found |= {"outcome": "pixels", "facts": asdict(picture.metadata)}
        signed = picture.signature
        if signed is None:
            return found, b""
        found["signature"] = signed[:-1]
        return found, signed.grey

    def _knows(self, digest: bytes) -> bool:
        prefix = int.from_bytes(digest[:8], "little")
        position = int(self.known.searchsorted(self.known.dtype.type(prefix)))
        return position < len(self.known) and int(self.known[position]) == prefix
