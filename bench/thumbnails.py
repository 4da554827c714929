"""Measure how fast a page of fifty thumbnails is served, before and after they are made.

    python bench/thumbnails.py [FOLDER]

FOLDER contains the pictures, by default ../shared/photos. They go into a new library without a
model and are requested over six connections, as by a browser. Cold: no thumbnail exists yet; warm:
all exist; known: the browser has them cached and revalidates.
"""

import argparse
import hashlib
import http.client
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fovea.indexer.decoding.formats import EXTENSIONS, extension
from fovea.search.library.library import Library
from fovea.search.library.rows import FileWrite, ImageMetadata, NewImage, WriteBatch
from fovea.web.app import create_app
from fovea.web.serving.server import serve

PAGE = 50
CONNECTIONS = 6  # a browser's limit per server


def main() -> None:
    """Print one line for each kind of request."""
    photos = Path(__file__).resolve().parents[2] / "shared" / "photos"
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=photos)
    folder = parser.parse_args().folder
    files = sorted(p for p in folder.iterdir() if extension(os.fsencode(p.name)) in EXTENSIONS)
    with tempfile.TemporaryDirectory(prefix="fovea-bench-") as place:
        library = Path(place) / "library"
        images = registered(library, folder.resolve(), [path.resolve() for path in files[:PAGE]])
        with served(library) as (port, warm):
            warm()
            measure(port, images)


def registered(folder: Path, root: Path, files: Sequence[Path]) -> list[tuple[int, str]]:
    """Write files into a new library like an indexer; return each image's id and version."""
    new, rows = [], []
    with Library.open(folder, create=True) as library:
        model = library.set_model("none", "0" * 64, 2, "bench")
        root_id = library.add_root(root).id
        for path in files:
            data, status = path.read_bytes(), path.stat()
            digest = hashlib.sha256(data).digest()
            with Image.open(path) as image:
                facts = ImageMetadata(image.width, image.height, image.format or "")
            new.append(NewImage(digest, len(data), facts, np.array([1, 0], np.float32)))
            size, changed = status.st_size, status.st_mtime_ns
            rows.append(FileWrite(os.fsencode(path), root_id, size, changed, digest))
        library.write_batch(WriteBatch(new, rows, model.id))
        found = library.image_by_hash([row.hash for row in rows if row.hash])
    return [(image_id, digest.hex()[:8]) for digest, image_id in found.items()]


@contextmanager
def served(folder: Path) -> Iterator[tuple[int, Callable[[], None]]]:
    """Serve a library until the block ends; yield the port and a call that starts decoders."""
    app = create_app(folder, testing=True)  # which starts no decoders
    bound: list[int] = []
    ready = threading.Event()

    def on_ready(port: int) -> None:
        bound.append(port)
        ready.set()

    threading.Thread(
        target=serve, args=(app, "127.0.0.1", 0), kwargs={"on_ready": on_ready}, daemon=True
    ).start()
    ready.wait()
    try:
        yield bound[0], app.extensions["fovea.renderer"].warm
    finally:
        app.extensions["fovea"].close()


def measure(port: int, images: Sequence[tuple[int, str]]) -> None:
    """Request the page in each way, and print the table."""
    print(f"{len(images)} thumbnails, {CONNECTIONS} at a time, {os.cpu_count()} cores, "
          f"load {os.getloadavg()[0]:.1f}")  # fmt: skip
    print(f"{'':24}{'page':>9}{'p50':>10}{'p99':>10}{'bytes':>10}")
    addresses = [f"/api/images/{number}/thumbnail?v={mark}" for number, mark in images]
    marks: dict[str, str] = {}
    asked(port, [f"{address}&size=512" for address in addresses], marks, "cold, both sizes made")
    for size in (256, 512):
        page = [f"{address}&size={size}" for address in addresses]
        asked(port, page, marks, f"warm, {size}")
    asked(port, [f"{address}&size=512" for address in addresses], marks, "known: 304", known=True)


def asked(
    port: int, page: Sequence[str], marks: dict[str, str], title: str, known: bool = False
) -> None:
    """Fetch a page like a browser does; print a row of the table."""
    local = threading.local()

    def fetch(address: str) -> tuple[float, int]:
        if not hasattr(local, "connection"):
            local.connection = http.client.HTTPConnection("127.0.0.1", port)
        headers = {"If-None-Match": marks[address]} if known else {}
        started = time.perf_counter()
        local.connection.request("GET", address, headers=headers)
        answer = local.connection.getresponse()
        data = answer.read()
        took = time.perf_counter() - started
        if answer.status != (304 if known else 200):
            raise RuntimeError(f"{address}: {answer.status} {data[:200]!r}")
        marks[address] = answer.headers["ETag"]
        return took, len(data)

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        started = time.perf_counter()
        found = list(pool.map(fetch, page))
        whole = time.perf_counter() - started
    times = sorted(took for took, _ in found)
    p50, p99 = statistics.median(times), times[int(0.99 * (len(times) - 1))]
    size = sum(length for _, length in found)
    print(f"{title:24}{whole:7.2f} s{p50 * 1e3:7.1f} ms{p99 * 1e3:7.1f} ms{size:10,}")


if __name__ == "__main__":
    main()
