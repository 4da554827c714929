"""Measure how fast ``fovea serve`` answers 8 users at once, idle and while it indexes.

    python bench/serve.py [--images 100000] [--users 8] [--seconds 20] [--pictures 3000]
    python bench/serve.py --page [--images 1000000] [--library FOLDER]

The library consists of random embeddings, as wide as the bundled model's. The users are connections
of another process, which sends the next query as soon as one has an answer or, typing, at most
twice a second. "Fresh" queries are all different. The baseline, in the same run, is the simplest
Flask app for the job: torch embeds the text, one product with all vectors, SQL for the paths, 50
hits as JSON, no cache; waitress serves it with as many threads. With ``--page``, one user asks for
what the page shows instead, as bench/page.py describes.
"""

import argparse
import json
import os
import platform
import random
import select
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote
from urllib.request import Request, urlopen

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.common import apart, clustered
from bench.large import large_library, prepare
from bench.page import measure
from fovea.search.clip.encoders.numpy_text import NumpyTextEncoder
from fovea.search.index.vector_index import VectorIndex
from fovea.search.library.library import Library
from fovea.search.library.rows import FileWrite, ImageMetadata, NewImage, WriteBatch
from fovea.search.models.resolve import resolve_model
from fovea.search.query.hits import hits
from fovea.search.query.language import parse
from fovea.search.query.likelihood import Background, default_labels, likelihoods
from fovea.search.query.rank import rank
from fovea.search.query.run import DEPTHS

CHECKOUT = Path(__file__).resolve().parents[1]

MODEL = "fovea-small"
PER_FOLDER = 250
HITS, RANKED = 50, DEPTHS[0]  # hits of a page, and ranked for the first page
REPEATED = 40  # texts that all users share
TYPING_S = 0.5  # between two queries of a user who types
THREADS = 32  # of each server
PLAIN = "plain"  # the first argument of the process that serves the baseline

T = TypeVar("T")


def main() -> None:
    """Make the library, run all phases, and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--users", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=20, help="length of each phase")
    parser.add_argument(
        "--pictures", type=int, default=3000, help="number of pictures to index meanwhile"
    )
    parser.add_argument("--page", action="store_true", help="time what the page asks for instead")
    parser.add_argument("--library", type=Path, help="with --page: where the library is kept")
    options = parser.parse_args()
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    print(f"{platform.machine()}, {cores} cores, load before {load:.1f}; {options.images:,} images")
    with tempfile.TemporaryDirectory(prefix="fovea-bench-") as place:
        folder = Path(place)
        if options.page:
            measure(large_library(options.library or folder, options.images))
            return
        apart(fill, folder / "library", folder / "photos", options.images)
        apart(prepare, folder / "library")
        apart(make_pictures, folder / "new", options.pictures)
        apart(parts, folder / "library")
        print(f"\n{'':<34}{'requests/s':>11}{'p50 ms':>9}{'p90':>9}{'p99':>9}{'failed':>8}")
        idle = served(folder, options.users, options.seconds)
        with serving([__file__, PLAIN, str(folder / "library")], folder) as port:
            ask = Asking(port, options.users, options.seconds)
            ask("the simplest app, typing", fresh(10), TYPING_S)
            plain = ask("the simplest app, fresh words", fresh(6))
            ask(f"the simplest app, {REPEATED} texts", few(7))
        ratio = len(idle) / len(plain)
        print(f"fresh words: {ratio:.2f} x the answers of the simplest app")
    print("targets on an idle machine: p50 < 30 ms, p99 < 150 ms; indexing < 2 x the idle p99")


def served(folder: Path, users: int, seconds: float) -> np.ndarray:
    """Time ``fovea serve``: one user, all users, shared texts, and while it indexes.

    Return the milliseconds of all users' requests with fresh words.
    """
    command = ["-m", "fovea", "serve", "--library", str(folder / "library"), "--port", "0"]
    with serving([*command, "--no-browser"], folder) as port:
        time.sleep(10)  # torch is imported in the background
        Asking(port, 1, seconds)("fovea, one user, fresh words", fresh(1))
        ask = Asking(port, users, seconds)
        typing = ask(f"fovea, {users} users typing", fresh(8), TYPING_S)
        idle = ask(f"fovea, {users} users, fresh words", fresh(2))
        ask(f"fovea, {users} users, {REPEATED} texts", few(3))
        with indexing(port, folder / "new"):
            still = ask(f"fovea, {users} typing, while indexing", fresh(9), TYPING_S)
            busy = ask(f"fovea, {users} users, while indexing", fresh(5))
        for name, one, other in (("typing", still, typing), ("at once", busy, idle)):
            ratio = np.percentile(one, 99) / np.percentile(other, 99)
            print(f"  {name}: p99 while indexing / idle: {ratio:.2f}")
    return idle


# The library


def fill(folder: Path, photos: Path, count: int) -> None:
    """Write the library: images with embeddings in clusters, each in one file."""
    photos.mkdir()
    model = resolve_model(MODEL, network=False)
    with Library.open(folder, create=True) as library:
        row = library.set_model(model.name, model.identity, model.dim, model.source)
        owner = library.add_root(photos)
        start = 0
        for vectors in clustered(count, count, model.dim, seed=1):
            hashes = [at.to_bytes(32, "little") for at in range(start, start + len(vectors))]
            images = [
                NewImage(hash, 2_000_000, ImageMetadata(4000, 3000, "JPEG"), vector)
                for hash, vector in zip(hashes, vectors, strict=True)
            ]
            files = [
                FileWrite(path_of(photos, start + at), owner.id, 2_000_000, 0, hash)
                for at, hash in enumerate(hashes)
            ]
            library.write_batch(WriteBatch(images, files, row.id))
            start += len(vectors)


def path_of(photos: Path, number: int) -> bytes:
    """Return the path of a file, which is never opened and need not exist."""
    return os.fsencode(photos / f"{number // PER_FOLDER:05d}" / f"IMG_{number:07d}.jpg")


def make_pictures(folder: Path, count: int) -> None:
    """Write distinct JPEG files of 1600 x 1200 pixels."""
    folder.mkdir()
    rng = np.random.default_rng(1)
    contents = []
    for number in range(min(count, 8)):
        coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
        path = folder / f"{number}.jpg"
        coarse.resize((1600, 1200), Image.Resampling.BICUBIC).save(path, quality=90)
        contents.append(path.read_bytes())
    for number in range(len(contents), count):
        content = contents[number % len(contents)] + number.to_bytes(4, "little")
        (folder / f"{number}.jpg").write_bytes(content)


# The steps of one query


def parts(folder: Path) -> None:
    """Print how long each step of one query takes, in a process without other work."""
    model = resolve_model(MODEL, network=False)
    words, background = NumpyTextEncoder.open(model.folder), Background.load(folder, model.identity)
    assert words is not None and background is not None
    took: dict[str, list[float]] = {}
    with Library.open(folder) as library:
        row = library.model()
        assert row is not None
        index = VectorIndex.open(library, row.id)
        texts = fresh(7)
        for number in range(120):
            text = next(texts)
            vector = clocked(took, "words to embedding (NumPy)", words.encode_texts, [text])
            clocked(took, "vector search", index.search, vector, RANKED)
            rank_once = partial(rank, library, index, Known(vector), limit=RANKED)
            ranking = clocked(took, "ranking, vector search included", rank_once, parse(text))
            clocked(took, "likelihoods", likelihoods, library, index, background, ranking)
            clocked(took, "rows of a page", hits, library, ranking, 0, HITS)
            if number < 20:
                took.clear()  # warm
    whole = sum(np.median(times) for name, times in took.items() if name != "vector search")
    print(f"\n{'the steps of one query':<40}{'p50 ms':>8}{'p99':>8}{'share':>8}")
    for name, times in took.items():
        p50, p99 = np.percentile(times, (50, 99))
        print(f"{name:<40}{p50:>8.2f}{p99:>8.2f}{p50 / whole:>8.0%}", flush=True)


@dataclass(frozen=True)
class Known:
    """An encoder that returns a precomputed embedding."""

    vectors: np.ndarray  # float32 (1, d)

    def encode_texts(self, texts: object) -> np.ndarray:
        """float32 (1, d)."""
        return self.vectors


def clocked(
    took: dict[str, list[float]], name: str, work: Callable[..., T], *arguments: object
) -> T:
    """Call a function and record its milliseconds."""
    started = time.perf_counter()
    result = work(*arguments)
    took.setdefault(name, []).append((time.perf_counter() - started) * 1000)
    return result


# The users


def fresh(seed: int) -> Iterator[str]:
    """Yield texts that are all different, also from those of other seeds."""
    rng, labels = random.Random(seed), default_labels()
    while True:
        first, second, third = rng.sample(labels, 3)
        yield f"a {first} and a {second} near the {third}, number {rng.randrange(10**6)} of {seed}"


def few(seed: int) -> Iterator[str]:
    """Yield ``REPEATED`` texts in random order, again and again."""
    rng, chosen = random.Random(seed), fresh(seed)
    texts = [next(chosen) for _ in range(REPEATED)]
    while True:
        yield rng.choice(texts)


@dataclass(frozen=True)
class Asking:
    """Users of one server, all at once."""

    port: int
    users: int
    seconds: float

    def __call__(self, name: str, texts: Iterator[str], pause: float = 0.0) -> np.ndarray:
        """Send queries for one phase, from another process, and print the figures.

        Return the milliseconds of the successful requests.
        """
        count = int(self.seconds * 3000)  # more than any server can answer
        chosen = [text for text, _ in zip(texts, range(count), strict=False)]
        times, failed = apart(ask_all, self.port, self.users, self.seconds, pause, chosen)
        p50, p90, p99 = np.percentile(times, (50, 90, 99)) if len(times) else [0.0] * 3
        rate = len(times) / self.seconds
        print(f"{name:<34}{rate:>11.1f}{p50:>9.1f}{p90:>9.1f}{p99:>9.1f}{failed:>8}", flush=True)
        return times


class User:
    """One connection, over which a query is sent whenever the last one is answered."""

    def __init__(self, port: int, due: float) -> None:
        self.port, self.due = port, due  # due: when to ask next, by ``time.perf_counter``
        self.started: float | None = None  # of the query that waits for its answer
        self.connection = self._connected()

    def ask(self, text: str) -> None:
        """Send a query."""
        self.started, self._reply, self._length = time.perf_counter(), bytearray(), 0
        head = f"GET /api/search?limit={HITS}&q={quote(text)} HTTP/1.1\r\n"
        self.connection.sendall(f"{head}Host: 127.0.0.1:{self.port}\r\n\r\n".encode())

    def status(self) -> int | None:
        """Receive what has arrived; return the answer's status once it is whole."""
        data = self.connection.recv(1 << 18)
        if not data:
            raise ConnectionError("the server has closed the connection")
        self._reply += data
        if not self._length:
            head, found, _ = bytes(self._reply).partition(b"\r\n\r\n")
            if not found:
                return None
            size = next(
                row for row in head.lower().split(b"\r\n") if row[:15] == b"content-length:"
            )
            self._length = len(head) + 4 + int(size[15:])
        return int(self._reply[9:12]) if len(self._reply) >= self._length else None

    def renew(self) -> None:
        """Connect again."""
        self.connection.close()
        self.started, self.connection = None, self._connected()

    def _connected(self) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection


def ask_all(
    port: int, users: int, seconds: float, pause: float, texts: list[str]
) -> tuple[np.ndarray, int]:
    """Return the milliseconds of each successful request, and the number of failed ones.

    Every user sends a query each ``pause`` seconds, or as soon as the last one is answered. One
    thread does it for all, on plain sockets, which takes 0.1 to 0.2 ms of a core for an answer: the
    processor is the server's.
    """
    todo, failed = iter(texts), 0
    times: list[float] = []
    began = time.perf_counter()
    asking = [User(port, began + pause * number / users) for number in range(users)]
    while True:
        now = time.perf_counter()
        is_over = now >= began + seconds
        for user in asking:
            if user.started is None and user.due <= now and not is_over:
                user.due = max(user.due + pause, now)
                user.ask(next(todo))
        waiting = [user for user in asking if user.started is not None]
        if is_over and not waiting:
            break
        first = min((user.due for user in asking if user.started is None), default=now + 60)
        patience = 60 if is_over else max(0.0, first - now)
        connections = [user.connection for user in waiting]
        ready = set(select.select(connections, [], [], patience)[0])
        for user in waiting:
            if user.connection not in ready and (ready or now < began + seconds + 60):
                continue
            try:
                status = user.status()
            except OSError:
                status = 0
                user.renew()
            if status is not None and user.started is not None and status == 200:
                times.append((time.perf_counter() - user.started) * 1000)
                user.started = None
            elif status is not None:
                failed, user.started = failed + 1, None
    for user in asking:
        user.connection.close()
    return np.array(times), failed


# The servers


@contextmanager
def serving(arguments: list[str], folder: Path) -> Iterator[int]:
    """Run a server that prints its URL first; yield its port."""
    environment = os.environ | {"FOVEA_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=CHECKOUT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
        if "http://" not in line:
            raise SystemExit(f"the server did not start: {(folder / 'server.log').read_text()}")
        yield int(line.split("http://", 1)[1].split("/")[0].rsplit(":", 1)[1])
    finally:
        server.terminate()
        server.wait(30)


@contextmanager
def indexing(port: int, folder: Path) -> Iterator[None]:
    """Let the server index a folder during the block, which starts once it embeds pictures."""
    call(port, "POST", "/api/roots", {"path": str(folder)})
    for _ in range(240):
        scan = call(port, "GET", "/api/scans")["scan"]
        if scan and scan["embedded"]:
            break
        time.sleep(0.5)
    else:
        raise SystemExit(f"indexing has not started: {scan}")
    before, started = scan["embedded"], time.perf_counter()
    yield
    scan = call(port, "GET", "/api/scans")["scan"]
    rate = (scan["embedded"] - before) / (time.perf_counter() - started)
    note = "" if scan["state"] == "running" else f"; it was {scan['state']} before: more --pictures"
    print(f"  indexed meanwhile: {rate:.1f} images a second{note}")
    call(port, "DELETE", "/api/scans/current")


def call(port: int, method: str, path: str, body: object = None) -> dict[str, Any]:
    """Send one JSON request; return the decoded answer."""
    request = Request(
        f"http://127.0.0.1:{port}{path}",
        None if body is None else json.dumps(body).encode(),
        {"Content-Type": "application/json"},
        method=method,
    )
    with urlopen(request, timeout=60) as reply:  # noqa: S310
        document: dict[str, Any] = json.loads(reply.read() or b"{}")
    return document


def serve_plainly(folder: Path) -> None:
    """Serve the baseline."""
    from flask import Flask, request
    from waitress.server import create_server

    from fovea.search.library.connection import connect
    from fovea.search.library.library import DATABASE

    model = resolve_model(MODEL, network=False)
    encoder = model.load()
    database = connect(folder / DATABASE)
    rows = database.execute("SELECT image_id, vector FROM embeddings").fetchall()
    ids = [image_id for image_id, _ in rows]
    vectors = np.frombuffer(b"".join(vector for _, vector in rows), "<f2").astype(np.float32)
    vectors = vectors.reshape(len(ids), -1)
    app = Flask(__name__)

    @app.get("/api/search")
    def search() -> dict[str, object]:
        [query] = encoder.encode_texts([request.args["q"]])
        scores = vectors @ query
        best = np.argsort(-scores)[: int(request.args["limit"])]
        found = []
        with closing(connect(folder / DATABASE)) as files:
            for place in best:
                [path] = files.execute(
                    "SELECT path FROM files WHERE image_id = ?", (ids[place],)
                ).fetchone()
                score = float(scores[place])
                found.append({"image_id": ids[place], "path": os.fsdecode(path), "score": score})
        return {"hits": found}

    server = create_server(app, host="127.0.0.1", port=0, threads=THREADS)
    print(f"http://127.0.0.1:{server.effective_port}/", flush=True)
    server.run()


if __name__ == "__main__":
    if sys.argv[1:2] == [PLAIN]:
        serve_plainly(Path(sys.argv[2]))
    else:
        main()
