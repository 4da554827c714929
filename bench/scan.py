"""Measure a rescan of unchanged files against ``os.walk`` and ``stat`` alone.

    python bench/scan.py [--files 100000]

The files are empty and their rows are written directly into the library, since unchanged files are
not read. Best of three runs each, in turn.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fovea.indexer.scanning.scan import index_folders
from fovea.indexer.walking.walk import Found, walk
from fovea.search.clip.preprocess import Preprocess
from fovea.search.clip.protocols import IndexingEncoder
from fovea.search.library.library import Library
from fovea.search.library.rows import FileWrite, NewImage, WriteBatch
from fovea.search.models.info import ModelInfo

DIM, PER_FOLDER, BATCH = 512, 250, 2000
MODEL = ModelInfo("bench", Path(), "b" * 64, DIM, Preprocess(224), "bench")


def main() -> None:
    """Build the folder and the library, measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=100_000)
    count = parser.parse_args().files
    with tempfile.TemporaryDirectory(prefix="fovea-bench-") as folder:
        root = Path(folder) / "photos"
        make_files(root, count)
        with Library.open(Path(folder) / "library", create=True) as library:
            fill(library, root)
            plain, scan = [], []
            for _ in range(3):
                plain.append(timed(lambda: walk_and_stat(root)))
                scan.append(timed(lambda: rescan(library, count)))
    print(f"{'':<28}{'seconds':>8}{'files/s':>12}{'ratio':>8}")
    for name, seconds in (("os.walk and stat alone", min(plain)), ("rescan", min(scan))):
        ratio = seconds / min(plain)
        print(f"{name:<28}{seconds:>8.2f}{count / seconds:>12,.0f}{ratio:>8.2f}")
    print(f"target: a rescan of 100,000 files in less than 3 s; here {count:,} files")


def make_files(root: Path, count: int) -> None:
    """Create empty .jpg files, a few hundred per folder."""
    for start in range(0, count, PER_FOLDER):
        folder = root / f"{start // 10_000:03d}" / f"{start:07d}"
        folder.mkdir(parents=True)
        for number in range(start, min(start + PER_FOLDER, count)):
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


def walk_and_stat(root: Path) -> None:
    """List and stat every file, the least that a scan must do."""
    for folder, _, names in os.walk(root):
        for name in names:
            os.stat(os.path.join(folder, name))


def rescan(library: Library, count: int) -> None:
    """Index the unchanged root again."""
    report = index_folders(library, model=MODEL, load_encoder=no_encoder)
    assert report.unchanged == report.found == count, report


def no_encoder() -> IndexingEncoder:
    """Stand for a model that must not be loaded."""
    raise AssertionError("nothing has changed, and yet something is to be embedded")


def timed(work: Callable[[], None]) -> float:
    """Return how many seconds the work takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
