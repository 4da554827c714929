"""Measure how long a new picture takes from being written whole to being found.

    python bench/watch.py [--pictures 500] [--runs 5] [--burst 50]

The pictures are drawn, and embedded by the bundled model. ``fovea watch`` keeps the model loaded;
``fovea serve --watch`` starts a process for each scan. The baseline is ``fovea index`` by hand,
from its start to its end. A burst is that many pictures, one after the other; it counts until the
last one is found.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fovea.search.library.library import Library

LOOK_S = 0.02
PATIENCE_S = 120.0
REST_S = 3.0  # between two runs, so that each begins at rest


def main() -> None:
    """Index, watch in both ways, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=500)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--burst", type=int, default=50)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fovea-bench-") as folder:
        photos, own = Path(folder) / "photos", Path(folder) / "library"
        photos.mkdir()
        os.environ |= {"FOVEA_LIBRARY": str(own), "FOVEA_OFFLINE": "1"}
        draw = Draw(photos)
        for _ in range(options.pictures):
            draw()
        fovea("index", str(photos)).wait()
        rows: dict[str, tuple[float, float]] = {}
        times = []
        for _ in range(options.runs):
            draw()
            started = time.monotonic()
            fovea("index").wait()
            times.append(time.monotonic() - started)
        rows["fovea index, by hand"] = median(times), max(times)
        for words in (("watch",), ("serve", "--watch", "--no-browser", "--port", "0")):
            name = f"fovea {' '.join(words[:2])}"
            process = fovea(*words)
            try:
                found(own, draw())  # it is up
                for count, what in ((1, "one picture"), (options.burst, f"{options.burst}")):
                    times = []
                    for _ in range(options.runs):
                        time.sleep(REST_S)
                        for _ in range(count):
                            last = draw()
                        times.append(found(own, last))
                    rows[f"{name}, {what}"] = median(times), max(times)
            finally:
                process.send_signal(signal.SIGTERM)
                process.wait()
    print(f"{'seconds until a new picture is found':<42}{'median':>8}{'worst':>8}")
    for name, (middle, worst) in rows.items():
        print(f"{name:<42}{middle:>8.2f}{worst:>8.2f}")


class Draw:
    """Writes pictures, each unlike the others."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._count = folder, 0
        self._random = np.random.default_rng(0)

    def __call__(self) -> Path:
        """Write the next one; return its path."""
        self._count += 1
        coarse = self._random.integers(0, 256, (9, 12, 3), dtype=np.uint8)
        path = self._folder / f"{self._count:05}.jpg"
        Image.fromarray(coarse).resize((800, 600), Image.Resampling.BICUBIC).save(path)
        return path


def fovea(*words: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "fovea", *words]
    checkout = Path(__file__).resolve().parents[1]
    return subprocess.Popen(
        command, cwd=checkout, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def found(folder: Path, path: Path) -> float:
    """Wait until a search of the library would find a file; return the seconds it took."""
    started = time.monotonic()
    sql = "SELECT count(*) FROM files WHERE path = ? AND state = 'indexed'"
    with Library.open(folder) as library:
        return waited(lambda: bool(next(iter(library.rows(sql, (os.fsencode(path),))))[0]), started)


def waited(is_so: Callable[[], bool], started: float) -> float:
    while not is_so():
        if time.monotonic() - started > PATIENCE_S:
            raise SystemExit("the picture was not found in time")
        time.sleep(LOOK_S)
    return time.monotonic() - started


if __name__ == "__main__":
    main()
