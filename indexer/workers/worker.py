"""The process that reads, hashes and decodes files for the indexer.

Started by ``pool`` as a program of its own, so that it imports neither torch nor the caller's main
module. The kernel holds its limits: an alarm ends it when a file takes too long, an address-space
limit when it grows too large. Whoever started it learns the reason from how it ended.
"""

import gc
import json
import os
import sys
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # heavy ones are imported in ``main``, once the environment is set
    import numpy as np

    from fovea.indexer.decoding.limits import Limits
    from fovea.indexer.decoding.picture import Picture

FORCE = b"!"  # before a path: decode even a content that is known
TIRED = 75  # the exit code of a worker that has grown and wants to be replaced: EX_TEMPFAIL
GROWTH = 0.25  # of its memory limit that a worker may keep between two files
NICE = 5  # the encoder goes first where both share the cores


def main(settings: str) -> None:
    """Serve requests until the other end closes the connection.

    ``settings`` is JSON: file descriptors of the connection, of the pixels and of the known
    hashes, the number of each, the model's ``preprocess``, the limits, and whether ``words`` are
    wanted.
    """
    options = json.loads(settings)
    # Before NumPy is imported: its threads would reserve address space for nothing.
    os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"
    from fovea.indexer.decoding.limits import Limits
    from fovea.indexer.decoding.pillow import prepare
    from fovea.search.clip.preprocess import Preprocess

    prepare()
    limits = Limits(**options["limits"])
    preprocess = Preprocess(**options["preprocess"])
    shape = (options["slots"], preprocess.size, preprocess.size, 3)
    worker = Worker(
        preprocess,
        limits,
        _shared(options["pixels"], "uint8", shape),
        _shared(options["known"], "<u8", (options["known_count"],)),
        words=options["words"],
    )
    connection = Connection(options["connection"])
    size = confine(limits.memory)
    connection.send_bytes(b"ready")
    _silence()
    worker.serve(connection, size + int(GROWTH * limits.memory))


def _shared(descriptor: int, dtype: str, shape: Sequence[int]) -> "np.ndarray":
    import mmap

    import numpy as np

    length = int(np.prod(shape)) * np.dtype(dtype).itemsize
    if not length:
        return np.empty(shape, dtype)
    return np.frombuffer(mmap.mmap(descriptor, length), dtype).reshape(shape)


def confine(memory: int) -> int:
    """Let this process grow by ``memory`` bytes from here, step back for others, dump no core.

    Return its size now.
    """
    import resource

    from .host import step_back

    step_back(NICE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    size = address_space()
    most = size + memory
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    if size and (hard == resource.RLIM_INFINITY or most < hard):
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    return size


def address_space() -> int:
    """Return the bytes of this process's address space; 0 without /proc.

    Systems without it do not hold the limit either.
    """
    from resource import getpagesize

    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[0]) * getpagesize()
    except OSError:
        return 0


def _silence() -> None:
    """Send what C libraries print about broken files to nowhere."""
    sys.stderr.flush()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)


class Worker:
    """Reads, hashes and decodes, one file after another.

    ``pixels`` is uint8 (slots, size, size, 3), shared with the parent; ``known`` holds the sorted
    first 8 bytes of the hashes that need no decoding. ``words`` asks for what is written into a
    picture and beside it, too.
    """

    def __init__(
        self,
        preprocess: Any,
        limits: "Limits",
        pixels: "np.ndarray",
        known: "np.ndarray",
        *,
        words: bool = False,
    ) -> None:
        self.preprocess, self.limits, self.pixels, self.known = preprocess, limits, pixels, known
        self.words = words

    def serve(self, connection: Connection, most: int) -> None:
        """Answer each request, 4 bytes of slot and a path, with a line of JSON.

        Exit as ``TIRED`` after one that leaves this process larger than ``most`` bytes: what
        decoders leak would some day make a sound picture exceed the limit.
        """
        from signal import ITIMER_REAL, setitimer

        while True:
            try:
                request = connection.recv_bytes()
            except (EOFError, ConnectionError):
                return
            # Nobody handles the alarm: it ends the process, even in the middle of C code.
            setitimer(ITIMER_REAL, self.limits.seconds)
            answer = self.answer(int.from_bytes(request[:4], "big"), request[4:])
            setitimer(ITIMER_REAL, 0)
            try:
                connection.send_bytes(json.dumps(answer).encode())
            except ConnectionError:
                return
            if address_space() > most:
                os._exit(TIRED)  # at once: whoever waits for the end must not see half of it

    def answer(self, slot: int, path: bytes) -> dict[str, Any]:
        """Deal with one file; its pixels, if any, are in the slot when this returns."""
        from fovea.indexer.decoding.limits import Gone, Refused, Unreachable
        from fovea.indexer.decoding.reading import read_file

        force, path = path.startswith(FORCE), path.removeprefix(FORCE)
        answer: dict[str, Any] = {}
        try:
            contents = read_file(path, self.limits)
            answer |= {"size": contents.size, "mtime_ns": contents.mtime_ns}
            return answer | self._look(slot, path, contents.data, force)
        except Gone:
            return {"outcome": "gone"}
        except Unreachable as exc:
            return answer | {"outcome": "unreachable", "reason": str(exc)}
        except Refused as exc:
            reason = str(exc)
        except MemoryError:
            reason = "too large: no memory to read it"
        gc.collect()  # an error's frames may hold the picture; the next one needs the memory
        return answer | {"outcome": "failed", "reason": reason}

    def _look(self, slot: int, path: bytes, data: bytes, force: bool) -> dict[str, Any]:
        from dataclasses import asdict
        from hashlib import sha256

        from fovea.indexer.decoding.formats import RAW_EXTENSIONS, extension
        from fovea.indexer.decoding.pillow import decode

        digest = sha256(data).digest()
        answer = {"hash": digest.hex(), "bytes": len(data)}
        if not force and self._knows(digest):
            return answer | {"outcome": "known"}
        raw = extension(os.path.basename(path)) in RAW_EXTENSIONS
        picture = decode(data, self.preprocess, self.limits, raw, self.words)
        self.pixels[slot] = picture.pixels
        facts = {
            "width": picture.width,
            "height": picture.height,
            "format": picture.format,
            "orientation": picture.orientation,
        }
        if self.words:
            answer["captions"] = self._captions(path, picture)
        return answer | {"outcome": "pixels", "facts": facts | asdict(picture.shot)}

    def _captions(self, path: bytes, picture: "Picture") -> tuple[str, ...]:
        from fovea.indexer.decoding.embedded_text import sidecar_words

        return (sidecar_words(path, self.limits) + picture.words).captions()

    def _knows(self, digest: bytes) -> bool:
        prefix = int.from_bytes(digest[:8], "little")
        place = int(self.known.searchsorted(self.known.dtype.type(prefix)))
        return place < len(self.known) and int(self.known[place]) == prefix
