"""Measure searching against exhaustive search, by the number of images.

    python bench/search.py [--sizes 10000 100000 1000000] [--dim 512] [--queries 500]

Random unit vectors in clusters are written into a library; a second process builds the index, and a
third opens library and index (which checks the whole file) and searches, one query at a time.
Queries come from the same distribution. The baseline is exhaustive search of the same float16
vectors in the same process. Files are in the page cache.
"""

import argparse
import os
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.common import apart, clustered
from fovea.search.index.vector_index import VectorIndex
from fovea.search.index.view import snapshot_path
from fovea.search.library.library import DATABASE, Library
from fovea.search.library.rows import NewImage, WriteBatch

K = 10
WARM = 20  # untimed queries at the start


def main() -> None:
    """Measure each size and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--queries", type=int, default=500)
    options = parser.parse_args()
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    print(f"{platform.processor() or platform.machine()}, {cores} cores, load {load:.1f}")
    for size in options.sizes:
        with tempfile.TemporaryDirectory(prefix="fovea-bench-") as folder:
            measure(Path(folder), size, options.dim, options.queries)
    print(
        "times in ms a query unless named; target at 1,000,000: p50 < 2, recall >= 0.99, open < 1.5"
    )


def measure(folder: Path, size: int, dim: int, queries: int) -> None:
    """Fill, index and search one library, each in its own process; print its figures."""
    apart(fill, folder, size, dim)
    build_s, build_mb = apart(build, folder)
    figures = {"build s": build_s, "build MB": build_mb}
    kind, found = apart(serve, folder, size, dim, queries)
    with Library.open(folder) as library:
        model = library.model()
        assert model is not None
        figures["file MB"] = snapshot_path(library, model.id).stat().st_size / 1e6
    figures["db MB"] = (folder / DATABASE).stat().st_size / 1e6
    print(f"\n{size:,} images, {kind}")
    for name, figure in (found | figures).items():
        print(f"{name:<16}{figure:>12,.4f}", flush=True)


def fill(folder: Path, size: int, dim: int) -> None:
    """Write the library."""
    with Library.open(folder, create=True) as library:
        library.set_model("bench", "b" * 64, dim, "bench")
        number = 0
        for vectors in clustered(size, size, dim, seed=1):
            images = [
                NewImage(at.to_bytes(32, "little"), 0, vector=row)
                for at, row in enumerate(vectors, start=number)
            ]
            library.write_batch(WriteBatch(images))
            number += len(images)


def build(folder: Path) -> tuple[float, float]:
    """Build the index and write its snapshot; return the seconds and the peak in megabytes."""
    with Library.open(folder) as library:
        model = library.model()
        assert model is not None
        start = time.perf_counter()
        index = VectorIndex.open(library, model.id)
        index.save()
        seconds = time.perf_counter() - start
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def serve(folder: Path, size: int, dim: int, count: int) -> tuple[str, dict[str, float]]:
    """Open the library and search it; return the kind of its index, and figures by name."""
    queries = np.concatenate(list(clustered(count + WARM, size, dim, seed=2)))
    start = time.perf_counter()
    with Library.open(folder) as library:
        model = library.model()
        assert model is not None
        index = VectorIndex.open(library, model.id)
        open_s = time.perf_counter() - start
        start = time.perf_counter()
        index.search(queries[:1], K)
        first = (time.perf_counter() - start) * 1000
        found, times = one_by_one(lambda query: index.search(query, K).ids, queries)
        own_mb, mapped_mb = memory()
        exact = exhaustive(index)
        wanted, slow = one_by_one(exact, queries)
    shares = [np.isin(theirs, mine).mean() for mine, theirs in zip(found, wanted, strict=True)]
    return index.kind, {
        "p50": float(np.percentile(times, 50)),
        "p95": float(np.percentile(times, 95)),
        "exhaustive p50": float(np.percentile(slow, 50)),
        "exhaustive p95": float(np.percentile(slow, 95)),
        "recall@10": float(np.mean(shares)),
        "first query": first,
        "open s": open_s,
        "own MB": own_mb,  # anonymous memory
        "mapped MB": mapped_mb,  # pages of the mapped snapshot, which the system can reclaim
    }


def exhaustive(index: VectorIndex) -> Callable[[np.ndarray], np.ndarray]:
    """Exhaustive search of an index's vectors."""
    from fovea.search.index.exhaustive import Exhaustive

    rows = index._view.stored.rows
    kind = Exhaustive(rows.vectors)
    return lambda query: rows.image_ids[kind.search(query, K)[1]]


def one_by_one(
    search: Callable[[np.ndarray], np.ndarray], queries: np.ndarray
) -> tuple[np.ndarray, list[float]]:
    """Return the ids (q, K) and the milliseconds of each query after the first few."""
    ids, times = [], []
    for query in queries:
        start = time.perf_counter()
        ids.append(search(query[None])[0])
        times.append((time.perf_counter() - start) * 1000)
    return np.stack(ids[WARM:]), times[WARM:]


def memory() -> tuple[float, float]:
    """Return this process's anonymous and file-backed resident memory in megabytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    own, mapped = (int(fields[name].split()[0]) / 1000 for name in ("RssAnon", "RssFile"))
    return own, mapped


if __name__ == "__main__":
    main()
