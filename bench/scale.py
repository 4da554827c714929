"""Measure a library on Milvus beside FAISS, with the same vectors in the same run.

    python bench/scale.py [--size 1000000] [--dim 512] [--queries 200] [--at-once 1 4 16]

A real Milvus server is started on this machine from the package ``milvus``, out of reach of others.
Pictures with random unit vectors in clusters are written as ``fovea index`` passes them on, with a
file, a date and a camera each. Then each kind of index is asked for the ten nearest, by so many
threads at once, among all pictures and among 1, 10 and 60 % of them. Recall is that of exhaustive
search of the same float16 vectors. Times are in milliseconds.
"""

import argparse
import hashlib
import os
import platform
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import faiss
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.common import clustered
from fovea.search.cluster.address import Address
from fovea.search.cluster.collections import Cluster
from fovea.search.cluster.store import Store
from fovea.search.cluster.tokens import number_of, token
from fovea.search.index.exhaustive import Exhaustive
from fovea.search.index.kinds import KINDS
from fovea.search.library.rows import ImageMetadata, NewImage
from fovea.search.seam.writing import FileAt, Kept

K = 10
SHARES = {"one": 1, "ten": 10, "sixty": 60}  # of pictures by each camera, in per cent
ROOT = b"/archive"
BATCH = 5_000  # as changes are passed on
BUILD_S = 3_600

Ask = Callable[[np.ndarray, str | None], list[int]]  # the nearest, of pictures by a camera


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--at-once", type=int, nargs="+", default=[1, 4, 16])
    options = parser.parse_args()
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    print(f"{platform.processor() or platform.machine()}, {cores} cores, load {load:.1f}")
    print(f"{options.size:,} pictures of width {options.dim}", flush=True)
    size, dim = options.size, options.dim
    vectors = np.concatenate(list(clustered(size, size, dim, seed=1))).astype(np.float16)
    queries = np.concatenate(list(clustered(options.queries, size, dim, seed=2)))
    cameras = np.random.default_rng(3).choice(
        [*SHARES, ""], size, p=[*(share / 100 for share in SHARES.values()), 0.29]
    )
    truth = {name: exhaustive(vectors, queries, cameras, name) for name in [None, *SHARES]}
    started = time.perf_counter()
    faiss_ask = on_faiss(vectors, cameras)
    print(f"FAISS: built in {time.perf_counter() - started:,.0f} s", flush=True)
    measure("FAISS", faiss_ask, queries, truth, options.at_once)
    del faiss_ask
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "search" / "cluster"))
    from milvus_server import SMALL, MilvusServer

    with tempfile.TemporaryDirectory(prefix="fovea-scale-") as folder:
        # Milvus's own size of a segment: a question asks each of them.
        server = MilvusServer(Path(folder), settings=SMALL | {"dataCoord.segment.maxSize": "1024"})
        server.start()
        try:
            cluster = Cluster(Address("127.0.0.1", server.port, "scale"))
            load_all(cluster, vectors, cameras)
            del vectors
            measure("Milvus", on_milvus(cluster, size), queries, truth, options.at_once)
            cluster.close()
        finally:
            server.close()
    print(
        f"peak of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB"
    )


def exhaustive(
    vectors: np.ndarray, queries: np.ndarray, cameras: np.ndarray, name: str | None
) -> list[list[int]]:
    """Return the true neighbours among the pictures by a camera."""
    among = np.arange(len(vectors)) if name is None else np.flatnonzero(cameras == name)
    best = np.full((len(queries), K), -2.0, np.float32)
    ids = np.full((len(queries), K), -1)
    for first in range(0, len(among), 50_000):
        part = among[first : first + 50_000]
        scores = np.concatenate([best, queries @ vectors[part].astype(np.float32).T], axis=1)
        all_ids = np.concatenate([ids, np.broadcast_to(part, (len(queries), len(part)))], axis=1)
        order = np.argpartition(-scores, K, axis=1)[:, :K] if scores.shape[1] > K else None
        order = np.arange(K)[None].repeat(len(queries), 0) if order is None else order
        best = np.take_along_axis(scores, order, axis=1)
        ids = np.take_along_axis(all_ids, order, axis=1)
    return ids.tolist()


def on_faiss(vectors: np.ndarray, cameras: np.ndarray) -> Ask:
    """Build fovea's own index; where it would not pay, search exhaustively."""
    kind = KINDS["ivf"]
    built = kind.build(vectors) if len(vectors) >= 50_000 else None
    index = Exhaustive(vectors) if built is None else kind.open(vectors, built, 50_000)
    masks = {name: cameras == name for name in SHARES}

    def ask(query: np.ndarray, name: str | None) -> list[int]:
        faiss.omp_set_num_threads(1)  # of this thread, as in a server
        _, places = index.search(query[None], K, None if name is None else masks[name])
        return [int(place) for place in places[0]]

    return ask


def load_all(cluster: Cluster, vectors: np.ndarray, cameras: np.ndarray) -> None:
    """Write all pictures to Milvus, and wait until they are indexed."""
    store = Store(cluster)
    store.use_model("bench", "be" * 32, vectors.shape[1], "bench")
    started = time.perf_counter()
    for first in range(0, len(vectors), BATCH):
        store.upsert(
            [
                picture(at, vectors[at], cameras[at])
                for at in range(first, min(first + BATCH, len(vectors)))
            ]
        )
    took = time.perf_counter() - started
    print(f"Milvus: {len(vectors) / took:,.0f} pictures/s written, {took:,.0f} s", flush=True)
    started = time.perf_counter()
    collection = store.collection or ""
    cluster.client.flush(collection)
    deadline = started + BUILD_S
    while time.perf_counter() < deadline:
        found = cluster.client.run("describe_index", collection, index_name="vector")
        if int(found["indexed_rows"]) >= len(vectors) and store.count() == len(vectors):
            break
        time.sleep(2)
    print(f"Milvus: {_resident() / 1e9:.2f} GB resident")
    print(f"Milvus: indexed {time.perf_counter() - started:,.0f} s later", flush=True)


def _resident() -> int:
    """Return the bytes of memory of the largest process called milvus, 0 if there is none."""
    found = [0]
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if (place / "comm").read_text().strip() == "milvus":
                pages = int((place / "statm").read_text().split()[1])
                found.append(pages * os.sysconf("SC_PAGE_SIZE"))
        except OSError:
            continue  # it has ended
    return max(found)


def digest_of(at: int) -> bytes:
    """Return what stands for the SHA-256 of a picture's content."""
    return hashlib.sha256(at.to_bytes(8)).digest()


def picture(at: int, vector: np.ndarray, camera: str) -> Kept:
    """Make a picture with one file, in a folder of a thousand."""
    when = 1_000_000_000 + 600 * at
    path = ROOT + b"/%04d/IMG_%07d.jpg" % (at // 1000, at)
    metadata = ImageMetadata(4000, 3000, "JPEG", camera=camera or None)
    image = NewImage(digest_of(at), 3_000_000, metadata, vector.astype(np.float32))
    return Kept(image, (FileAt(path, ROOT, 3_000_000, when * 10**9),))


def on_milvus(cluster: Cluster, size: int) -> Ask:
    """Ask as queries do, for numbers alone."""
    collection = cluster.needed().collection
    place_of = {number_of(digest_of(at)): at for at in range(size)}

    def ask(query: np.ndarray, name: str | None) -> list[int]:
        found = "number >= 0" if name is None else f"camera == {token('camera', name)}"
        rows = cluster.client.search(collection, query, K, found, ["number"], {"ef": 128})
        return [place_of[int(row["number"])] for _, row in rows]

    return ask


def measure(
    kind: str,
    ask: Ask,
    queries: np.ndarray,
    truth: dict[str | None, list[list[int]]],
    at_once: Sequence[int],
) -> None:
    """Print p50, p99, rate and recall for each filter and number of threads."""
    for name, wanted in truth.items():
        share = "all" if name is None else f"{SHARES[name]} %"
        for threads in at_once:
            times: list[float] = []
            found: dict[int, list[int]] = {}
            lock = threading.Lock()

            def one(at: int) -> None:
                started = time.perf_counter()
                ids = ask(queries[at], name)  # noqa: B023
                took = time.perf_counter() - started
                with lock:  # noqa: B023
                    times.append(1000 * took)  # noqa: B023
                    found[at] = ids  # noqa: B023

            for at in range(min(10, len(queries))):
                ask(queries[at], name)
            started = time.perf_counter()
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(one, range(len(queries))))
            seconds = time.perf_counter() - started
            right = sum(len(set(found[at]) & set(ids)) for at, ids in enumerate(wanted))
            p50, p99 = np.percentile(times, [50, 99])
            print(
                f"{kind:<8}{share:>5}{threads:>4} at once{p50:>9.2f} p50{p99:>9.2f} p99"
                f"{len(queries) / seconds:>9.1f} /s   recall@10 {right / (K * len(queries)):.4f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
