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
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Served:
    """The figures of a searching process; milliseconds unless named otherwise."""

    kind: str
    open_s: float
    first: float
    p50: float
    p95: float
    exhaustive_p50: float
    exhaustive_p95: float
    recall: float
    own_mb: float  # anonymous memory
    mapped_mb: float  # pages of the mapped snapshot, which the system can reclaim


def main() -> None:
    """Measure each size and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--queries", type=int, default=500)
    options = parser.parse_args()
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    print(f"{platform.processor() or platform.machine()}, {cores} cores, load {load:.1f}")
    print(
        f"{'images':>9} {'kind':<10} {'p50':>7} {'p95':>7} {'exhaustive p50':>15} {'p95':>8} "
        f"{'recall@10':>9} {'first':>7} {'open s':>7} {'build s':>8} {'build MB':>9} "
        f"{'own MB':>7} {'mapped MB':>9} {'file MB':>8} {'db MB':>7}"
    )
    for size in options.sizes:
        with tempfile.TemporaryDirectory(prefix="fovea-bench-") as folder:
            measure(Path(folder), size, options.dim, options.queries)
    print(
        "times in ms a query unless named; target at 1,000,000: p50 < 2, recall >= 0.99, open < 1.5"
    )


def measure(folder: Path, size: int, dim: int, queries: int) -> None:
    """Fill, index and search one library, each in its own process; print its row."""
    apart(fill, folder, size, dim)
    build_s, build_mb = apart(build, folder)
    seen = apart(serve, folder, size, dim, queries)
    with Library.open(folder) as library:
        model = library.model()
        assert model is not None
        file_mb = snapshot_path(library, model.id).stat().st_size / 1e6
    db_mb = (folder / DATABASE).stat().st_size / 1e6
    print(
        f"{size:>9,} {seen.kind:<10} {seen.p50:>7.2f} {seen.p95:>7.2f} "
        f"{seen.exhaustive_p50:>15.2f} {seen.exhaustive_p95:>8.2f} {seen.recall:>9.4f} "
        f"{seen.first:>7.1f} {seen.open_s:>7.2f} {build_s:>8.1f} {build_mb:>9.0f} "
        f"{seen.own_mb:>7.0f} {seen.mapped_mb:>9.0f} {file_mb:>8.0f} {db_mb:>7.0f}",
        flush=True,
    )


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


def serve(folder: Path, size: int, dim: int, count: int) -> Served:
    """Open the library and search it."""
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
    return Served(
        kind=index.kind,
        open_s=open_s,
        first=first,
        p50=float(np.percentile(times, 50)),
        p95=float(np.percentile(times, 95)),
        exhaustive_p50=float(np.percentile(slow, 50)),
        exhaustive_p95=float(np.percentile(slow, 95)),
        recall=float(np.mean(shares)),
        own_mb=own_mb,
        mapped_mb=mapped_mb,
    )


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
