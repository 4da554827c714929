"""The process that reads, hashes and decodes files for ``pool``. It never imports torch."""

import gc
import json
import mmap
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any

import numpy as np

from fovea.indexer.decoding.embedded_text import sidecar_words
from fovea.indexer.decoding.formats import RAW_EXTENSIONS, extension
from fovea.indexer.decoding.limits import Gone, Limits, Refused, Unreachable, unexpected
from fovea.indexer.decoding.pillow import decode
from fovea.indexer.decoding.reading import read_file
from fovea.search.clip.preprocess import Preprocess

from .host import Message, serve


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

        ``request["force"]`` decodes even a content that is known.
        """
        found: dict[str, Any] = {}
        try:
            contents = read_file(path, self.limits)
            found |= {"size": contents.size, "mtime_ns": contents.mtime_ns}
            found["ctime_ns"] = contents.ctime_ns
            found |= {"hash": sha256(contents.data).hexdigest(), "bytes": len(contents.data)}
            return found | self._look(path, contents.data, found["hash"], **request), b""
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

    def _look(
        self, path: bytes, data: bytes, digest: str, slot: int, force: bool
    ) -> dict[str, Any]:
        if not force and self._knows(bytes.fromhex(digest)):
            return {"outcome": "known"}
        raw = extension(os.path.basename(path)) in RAW_EXTENSIONS
        found: dict[str, Any] = {}
        picture = decode(data, self.preprocess, self.limits, raw, self.words)
        self.pixels[slot] = picture.pixels
        if self.words:
            words = sidecar_words(path, self.limits) + picture.words
            found["captions"] = words.captions()
        return found | {"outcome": "pixels", "facts": asdict(picture.metadata)}

    def _knows(self, digest: bytes) -> bool:
        prefix = int.from_bytes(digest[:8], "little")
        position = int(self.known.searchsorted(self.known.dtype.type(prefix)))
        return position < len(self.known) and int(self.known[position]) == prefix
