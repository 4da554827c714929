"""Measure a rescan of unchanged files against ``os.walk`` and ``stat`` alone.

    python bench/scan.py [--files 100000] [--runs 7] [--shape folders|one|deep]

The files are empty and their rows are written directly into the library, since unchanged files are
not read. Medians of some runs each, in turn. ``folders`` has 250 files in each folder, ``one`` all
in one, ``deep`` ten in each of many folders inside each other. A dry run compares all files and
writes nothing; of those that changed, it reads none.
"""

import argparse
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing import Process
from pathlib import Path
from statistics import median

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fovea.indexer.scanning.scan import index_folders
from fovea.indexer.walking.walk import Found, walk
from fovea.search.clip.preprocess import Preprocess
from fovea.search.clip.protocols import IndexingEncoder
from fovea.search.library.library import Library
from fovea.search.library.rows import FileWrite, NewImage, WriteBatch
from fovea.search.models.info import ModelInfo

DIM, PER_FOLDER, BATCH = 64, 250, 2000
BASE = "os.walk and stat alone"
CHANGED = (0, 1, 1000)
MODEL = ModelInfo("bench", Path(), "b" * 64, DIM, Preprocess(224), "bench")


def main() -> None:
    """Build the folder and the library, measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--shape", choices=["folders", "one", "deep"], default="folders")
    options = parser.parse_args()
    count = options.files
    with tempfile.TemporaryDirectory(prefix="fovea-bench-") as folder:
        place = Path(folder)
        maker = Process(target=make, args=(place, count, options.shape))  # its memory is not ours
        maker.start()
        maker.join()
        before = resident()
        with Library.open(place / "library") as library:
            times = measured(library, place / "photos", count, options.runs)
        after = resident()
    base = median(times[BASE])
    print(f"{'':<28}{'seconds':>8}{'files/s':>12}{'ratio':>8}")
    for name, seconds in times.items():
        each = median(seconds)
        print(f"{name:<28}{each:>8.3f}{count / each:>12,.0f}{each / base:>8.2f}")
    print(f"aim: a rescan in 1.70 times the base; here {count:,} files, {options.shape}")
    print(f"resident: {before} MiB before the first run, {after} MiB at most")


def make(place: Path, count: int, shape: str) -> None:
    """Make the files, and the library as a first run leaves it."""
    make_files(place / "photos", count, shape)
    with Library.open(place / "library", create=True) as library:
        fill(library, place / "photos")
        rescan(library, count)  # saves the index


def measured(library: Library, root: Path, count: int, runs: int) -> dict[str, list[float]]:
    """Return the seconds of each run of each work, the works taking turns."""
    times: dict[str, list[float]] = {}
    for _ in range(runs):
        times.setdefault(BASE, []).append(timed(lambda: walk_and_stat(root)))
        times.setdefault("rescan", []).append(timed(lambda: rescan(library, count)))
        for changed in CHANGED:
            age(library, count, changed, 1)
            seconds = timed(lambda: dry_run(library, count, changed))  # noqa: B023  # at once
            times.setdefault(f"dry run, {changed:,} changed", []).append(seconds)
            age(library, count, changed, -1)
    return times


def make_files(root: Path, count: int, shape: str) -> None:
    """Create empty .jpg files."""
    per_folder = {"folders": PER_FOLDER, "one": count, "deep": 10}[shape]
    for start in range(0, count, per_folder):
        folder = root / f"{start // 10_000:03d}" / f"{start:07d}"
        if shape == "deep":
            folder = root.joinpath(f"{start // 1000:04d}", *"abcdefghij"[: start // 10 % 100 // 10])
            folder /= f"{start:07d}"
        folder.mkdir(parents=True)
        for number in range(start, min(start + per_folder, count)):
            os.close(os.open(folder / f"IMG_{number:07d}.jpg", os.O_CREAT | os.O_WRONLY))


def fill(library: Library, root: Path) -> None:
    """Write a row, an image and an embedding for each file, as if it had been indexed."""
    model = library.set_model(MODEL.name, MODEL.identity, MODEL.dim, MODEL.source)
    owner = library.add_root(root)
    rng = np.random.default_rng(0)
    found = [entry for entry in walk(os.fsencode(root)) if isinstance(entry, Found)]
    for start in range(0, len(found), BATCH):
        chunk = found[start : start + BATCH]
        vectors = rng.standard_normal((len(chunk), DIM)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        hashes = [(start + place).to_bytes(32, "little") for place in range(len(chunk))]
        images = [NewImage(hash, 0, vector=row) for hash, row in zip(hashes, vectors, strict=True)]
        files = [
            FileWrite(
                entry.path, owner.id, entry.size, entry.mtime_ns, hash, ctime_ns=entry.ctime_ns
            )
            for entry, hash in zip(chunk, hashes, strict=True)
        ]
        library.write_batch(WriteBatch(images, files, model.id))


def age(library: Library, count: int, changed: int, by: int) -> None:
    """Let some rows, evenly spread, say that their files were changed at another time."""
    if changed:
        sql = "UPDATE files SET mtime_ns = mtime_ns + ? WHERE id % ? = 0"
        with library.transaction() as conn:
            conn.execute(sql, (by, count // changed))


def walk_and_stat(root: Path) -> None:
    """List and stat every file, the least that a scan must do."""
    for folder, _, names in os.walk(root):
        for name in names:
            os.stat(os.path.join(folder, name))


def rescan(library: Library, count: int) -> None:
    """Index the unchanged root again."""
    report = index_folders(library, model=MODEL, load_encoder=no_encoder)
    assert report.unchanged == report.found == count, report


def dry_run(library: Library, count: int, changed: int) -> None:
    """Count what has changed. The files are empty, so that none of those is read."""
    report = index_folders(library, model=MODEL, load_encoder=no_encoder, dry_run=True)
    assert (report.found, report.failed) == (count, changed), report


def no_encoder() -> IndexingEncoder:
    """Stand for a model that must not be loaded."""
    raise AssertionError("nothing has changed, and yet something is to be embedded")


def timed(work: Callable[[], None]) -> float:
    """Return how many seconds the work takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def resident() -> int:
    """Return the most memory that this process has had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


if __name__ == "__main__":
    main()
