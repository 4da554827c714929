"""The process that reads, decodes and analyses pictures for ``crew.py``."""

import gc
import json
import os
from collections.abc import Callable
from hashlib import sha256
from importlib import import_module
from typing import Any

from PIL import Image

from fovea.indexer.decoding.formats import RAW_EXTENSIONS, extension
from fovea.indexer.decoding.limits import Gone, Limits, Refused, Unreadable, unexpected
from fovea.indexer.decoding.pillow import explained, open_picture, plain
from fovea.indexer.decoding.raw import developed
from fovea.indexer.decoding.reading import read_file
from fovea.indexer.workers.host import Message, serve, step_back

__all__ = ["Worker", "main", "picture"]

NICE = 5  # beyond what all workers step back: nobody waits for an analysis


def main(settings: str) -> None:
    """Serve requests until the other end closes the connection.

    ``settings`` is JSON: the connection's file descriptor, the limits, and the module of the
    analysis.
    """
    step_back(NICE)
    options = json.loads(settings)
    limits = Limits(**options["limits"])
    found = import_module(options["module"]).ANALYSIS
    worker = Worker(limits, found.side, found.opened())  # its engine does not count as growth
    serve(options["connection"], limits, worker.answer)


def picture(data: bytes, *, raw: bool, side: int, limits: Limits) -> Image.Image:
    """Decode a file's bytes: upright, RGB, the long side at most ``side`` pixels.

    Raise ``Refused`` with the reason for what cannot be decoded within the limits.
    """
    with explained(data, limits):
        if raw:
            image = developed(data, side, limits)
        else:
            draft = lambda opened: opened.draft(None, (side, side))  # noqa: E731
            image = plain(open_picture(data, limits, draft).image)
        if max(image.size) > side:
            shape = [max(1, round(length * side / max(image.size))) for length in image.size]
            image = image.resize((shape[0], shape[1]), Image.Resampling.LANCZOS, reducing_gap=3.0)
        return image.convert("RGB")


class Worker:
    """Analyses one file after another."""

    def __init__(self, limits: Limits, side: int, find: Callable[[Image.Image], Any]) -> None:
        self._limits, self._side, self._find = limits, side, find

    def answer(self, request: dict[str, Any], path: bytes) -> Message:
        """Analyse one file if its content is still ``request["hash"]``.

        The ``outcome`` is done, failed (for a ``reason`` that lies in the content) or passed: this
        file cannot be read now, or holds something else by now.
        """
        try:
            data = read_file(path, self._limits).data
            if sha256(data).hexdigest() != request["hash"]:
                return {"outcome": "passed"}, b""
            raw = extension(os.path.basename(path)) in RAW_EXTENSIONS
            image = picture(data, raw=raw, side=self._side, limits=self._limits)
            del data
            return {"outcome": "done", "result": self._find(image)}, b""
        except (Gone, Unreadable):
            return {"outcome": "passed"}, b""
        except Refused as exc:
            reason = str(exc)
        except MemoryError:
            reason = "too large: no memory to analyse it"
        except Exception as exc:  # whatever it is, it is the failure of this picture
            reason = unexpected(exc)
        gc.collect()  # an error's frames may hold the picture; the next one needs the memory
        return {"outcome": "failed", "reason": reason}, b""
