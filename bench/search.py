"""Measure searching against exhaustive search, by the number of images.

    python bench/search.py [--sizes 10000 100000 1000000] [--dim 512] [--queries 500]
    python bench/search.py --sizes 10000000 --dim 256 --folder /somewhere/large --changes

Random unit vectors in clusters are written into a library; a second process builds the index, a
third finds the true neighbours, and a fourth opens library and index (which checks the whole file)
and searches, one query at a time. Queries come from the same distribution. The baseline is
exhaustive search of the same float16 vectors: in the same process, or, where there are so many that
they stay in the database, by reading all of it. Files are in the page cache, but for the lines that
say cold.

With ``--folder`` the library, the index and the true neighbours stay there, with their figures, and
are not made again. ``--changes`` then writes and deletes some images. Memory is in megabytes.
"""

import argparse
import json
import logging
import os
import platform
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.common import apart, clustered
from fovea.search.index.streamed import compared
from fovea.search.index.vector_index import IndexOptions, VectorIndex
from fovea.search.library.library import DATABASE, Library
from fovea.search.library.rows import ModelRow

K, DEEP = 10, 200  # neighbours; the second is what a page of hits is ranked among
WARM = 20  # untimed queries at the start
SLOW = 2  # single queries answered by reading the whole database
NEW, GONE = 20_000, 10_000  # images written and deleted by ``--changes``

Figures = dict[str, float]
T = TypeVar("T")


@dataclass(frozen=True)
class Case:
    """A library of so many images, and the queries that it is asked."""

    folder: Path
    size: int
    dim: int
    queries: int
    options: IndexOptions

    def index(self, library: Library) -> VectorIndex:
        """Open the index of the library's model."""
        return VectorIndex.open(library, model_of(library).id, options=self.options)

    def questions(self) -> np.ndarray:
        """Return the queries, the first few of them untimed, float32 (q, d)."""
        count = self.queries + WARM
        return np.concatenate(list(clustered(count, self.size, self.dim, seed=2)))

    def known_at(self, name: str) -> Path:
        """Return where figures are kept for the next time."""
        return self.folder.with_name(f"{self.folder.name}-{name}.json")

    def once(self, name: str, make: Callable[["Case"], T]) -> T:
        """Return what is kept, or make it in a new process."""
        path = self.known_at(name)
        if not path.exists():
            path.write_text(json.dumps(apart(make, self)))
        known: T = json.loads(path.read_text())
        return known


def main() -> None:
    """Measure each size and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--folder", type=Path, help="keep what is made here, and use it again")
    parser.add_argument("--resident", type=int, default=2048, help="MiB of vectors in memory")
    parser.add_argument("--changes", action="store_true", help="also write and delete images")
    options = parser.parse_args()
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    print(f"{platform.processor() or platform.machine()}, {cores} cores, load {load:.1f}")
    for size in options.sizes:
        with tempfile.TemporaryDirectory(prefix="fovea-bench-") as temporary:
            folder = (options.folder or Path(temporary)) / f"{size}x{options.dim}"
            folder.parent.mkdir(parents=True, exist_ok=True)
            resident = IndexOptions(resident=options.resident << 20)
            case = Case(folder, size, options.dim, options.queries, resident)
            measure(case)
            if options.changes:
                print_all(apart(change, case))
                case.known_at("truth").unlink()
    print(
        "times in ms a query unless named; targets: at 1,000,000 p50 < 2, recall >= 0.99, "
        "open < 1.5; at 10,000,000 p50 < 5, recall >= 0.95, less than 3 GB"
    )


def measure(case: Case) -> None:
    """Fill, index and search one library, each in its own process; print its figures."""
    if not case.folder.exists():
        part = case.folder.with_name(f"{case.folder.name}.part")
        apart(fill, replace(case, folder=part))
        part.rename(case.folder)
    built = case.once("build", build)
    ids, exact = case.once("truth", neighbours)
    found = apart(cold, case)
    kind, warm = apart(serve, case, ids)
    [snapshot] = case.folder.glob("*.snapshot")
    sizes = {"file MB": snapshot.stat().st_size / 1e6}
    sizes["db MB"] = (case.folder / DATABASE).stat().st_size / 1e6
    print(f"\n{case.size:,} images of width {case.dim}, {kind}")
    print_all(warm | found | exact | built | sizes)


def print_all(figures: Figures) -> None:
    """Print a line for each figure."""
    for name, figure in figures.items():
        print(f"{name:<24}{figure:>14,.4f}", flush=True)


def fill(case: Case) -> None:
    """Write the library's images and embeddings; without a journal, since nothing is lost."""
    with Library.open(case.folder, create=True) as library:
        model = library.set_model("bench", "b" * 64, case.dim, "bench")
        for pragma in ("journal_mode = OFF", "synchronous = OFF", "foreign_keys = OFF"):
            library.conn.execute(f"PRAGMA {pragma}").fetchall()
        number = 0
        for vectors in clustered(case.size, case.size, case.dim, seed=1):
            add(library, model, number + 1, vectors)
            number += len(vectors)


def add(library: Library, model: ModelRow, first: int, vectors: np.ndarray) -> None:
    """Write images with consecutive ids and contents, and their vectors."""
    rows = list(enumerate(vectors.astype("<f2"), start=first))
    hashes = [(at, at.to_bytes(32, "big")) for at, _ in rows]
    conn = library.conn
    conn.execute("BEGIN")
    conn.executemany("INSERT INTO images (id, hash, bytes) VALUES (?, ?, 0)", hashes)
    conn.executemany(
        "INSERT INTO embeddings (image_id, model_id, vector) VALUES (?, ?, ?)",
        ((at, model.id, row.tobytes()) for at, row in rows),
    )
    conn.execute("COMMIT")


def build(case: Case) -> Figures:
    """Build the index and write its snapshot; return the seconds and the peak of the memory."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    cpu = time.process_time()
    with Library.open(case.folder) as library:
        start = time.perf_counter()
        index = case.index(library)
        opened = time.perf_counter()
        index.save()
        figures = {"first open s": opened - start, "build s": time.perf_counter() - opened}
    figures["build CPU s"] = time.process_time() - cpu
    figures["build peak MB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    return figures


def neighbours(case: Case) -> tuple[list[list[int]], Figures]:
    """Find the true neighbours of the queries; return their ids, and figures by name."""
    figures: Figures = {}
    queries = case.questions()
    with Library.open(case.folder) as library:
        rows = case.index(library)._view.stored.rows
        exact = compared(rows.vectors)
        if isinstance(rows.vectors, np.ndarray):
            wanted, times = one_by_one(lambda query: exact.search(query, K)[1], queries)
            figures["exhaustive p50"] = float(np.median(times))
        else:
            start = time.perf_counter()
            wanted = exact.search(queries[WARM:], K)[1]
            seconds = time.perf_counter() - start
            figures["exhaustive, all at once"] = 1000 * seconds / case.queries
        ids = rows.image_ids[wanted]
    figures["exhaustive peak MB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    return ids.tolist(), figures


def cold(case: Case) -> Figures:
    """Open the library and search it while none of its files is in the page cache."""
    queries = case.questions()[: 3 * WARM]
    touch(case.folder, forget=True)
    start = time.perf_counter()
    with Library.open(case.folder) as library:
        index = case.index(library)
        figures = {"cold open s": time.perf_counter() - start}
        figures["cold first query"] = timed(lambda: index.search(queries[:1], K))
        _, times = one_by_one(lambda query: index.search(query, K).ids, queries)
        figures["cold p50"] = float(np.median(times))
    return figures


def serve(case: Case, truth: list[list[int]]) -> tuple[str, Figures]:
    """Open the library and search it; return the kind of its index, and figures by name."""
    import faiss

    wanted = np.array(truth)  # (q, K)
    queries = case.questions()
    touch(case.folder, forget=False)
    start = time.perf_counter()
    with Library.open(case.folder) as library:
        opened = time.perf_counter()
        index = case.index(library)
        figures = {"open s": time.perf_counter() - start}
        figures["of it the index s"] = time.perf_counter() - opened
        figures["first query"] = timed(lambda: index.search(queries[:1], K))
        for threads in (1, len(os.sched_getaffinity(0))):
            faiss.omp_set_num_threads(threads)
            found, times = one_by_one(lambda query: index.search(query, K).ids, queries)
            for share in (50, 95, 99):
                figures[f"p{share}, {threads} threads"] = float(np.percentile(times, share))
        pairs = zip(wanted, found, strict=True)
        figures["recall@10"] = float(np.mean([np.isin(*pair).mean() for pair in pairs]))
        _, times = one_by_one(lambda query: index.search(query, DEEP).ids, queries[:120])
        figures[f"p50 of {DEEP} neighbours"] = float(np.median(times))
        for part in (0.5, 0.01, 0.001):
            allowed = np.flatnonzero(np.random.default_rng(3).random(case.size) < part) + 1
            times = [
                timed(partial(index.search, row[None], K, allowed=allowed)) for row in queries[:11]
            ]
            figures[f"p50 among {part:.1%}"] = float(np.median(times))
        faiss.omp_set_num_threads(1)
        figures["two at once, queries/s"] = at_once(index, queries)
        own, mapped = memory()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
        if case.options.stay_stored(case.size, case.dim):
            exact = compared(index._view.stored.rows.vectors)
            times = [timed(partial(exact.search, row[None], K)) for row in queries[:SLOW]]
            figures["exhaustive, one by one"] = float(np.median(times))
    figures["own MB"] = own  # anonymous memory
    figures["mapped MB"] = mapped  # programs and libraries
    figures["peak MB"] = peak
    return index.kind, figures


def at_once(index: VectorIndex, queries: np.ndarray) -> float:
    """Return how many queries two threads answer in a second."""

    def search(some: np.ndarray) -> None:
        one_by_one(lambda query: index.search(query, K).ids, some)

    threads = [threading.Thread(target=search, args=(queries[at::2],)) for at in range(2)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(queries) / (time.perf_counter() - start)


def change(case: Case) -> Figures:
    """Write and delete some images; return how long an open index takes to take that in."""
    vectors = np.concatenate(list(clustered(NEW, case.size, case.dim, seed=3)))
    figures: Figures = {}
    with Library.open(case.folder) as library:
        model = model_of(library)
        index = case.index(library)
        [(last,)] = library.rows("SELECT max(id) FROM images")
        add(library, model, last + 1, vectors)
        figures[f"refresh, {NEW:,} new"] = timed(index.refresh)
        found = index.search(vectors[:200], 1).ids[:, 0]
        assert (found == np.arange(200) + last + 1).all()
        gone = np.random.default_rng(4).choice(last, GONE, replace=False) + 1
        with library.transaction() as conn:
            conn.executemany("DELETE FROM images WHERE id = ?", ((int(n),) for n in gone))
        figures[f"refresh, {GONE:,} deleted"] = timed(index.refresh)
        queries = case.questions()[:200]
        found, times = one_by_one(lambda query: index.search(query, K).ids, queries)
        assert not np.isin(found, gone).any()
        figures["p50 before saving"] = float(np.median(times))
        index.options = replace(index.options, share=0.0)  # so few are not worth it else
        start = time.perf_counter()
        assert index.save()
        figures["save s"] = time.perf_counter() - start
        assert index.kind == "ivf" and not np.isin(index.search(queries, K).ids, gone).any()
        figures["recall@10 anew"] = index.recall
    figures["peak MB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    return figures


def model_of(library: Library) -> ModelRow:
    """Return the library's model."""
    model = library.model()
    assert model is not None
    return model


def timed(work: Callable[[], object]) -> float:
    """Return the milliseconds that a call takes."""
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1000


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


def touch(folder: Path, *, forget: bool) -> None:
    """Read the library's files into the page cache, or drop them from there."""
    for path in (folder / DATABASE, *folder.glob("*.snapshot")):
        with open(path, "rb", buffering=0) as file:
            if forget:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            else:
                room = bytearray(8 << 20)
                while file.readinto(room):
                    pass


def memory() -> tuple[float, float]:
    """Return this process's anonymous and file-backed resident memory in megabytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    own, mapped = (int(fields[name].split()[0]) / 1000 for name in ("RssAnon", "RssFile"))
    return own, mapped


if __name__ == "__main__":
    main()
