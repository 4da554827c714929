"""Measure how long commands that should feel instant take, each in a new process.

    python bench/start.py [--runs 9] [--images 20000 --library FOLDER]

With ``--images``, words are also searched for in a library of so many pictures, bench/large.py's,
which is kept in the folder; and where it has to be checked for damage first, as after a change. The
other library is small and indexed with the bundled model. The baselines, in the same run, are
Python alone and importing torch. The median of the runs counts.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.large import large_library
from fovea.search.library.damage import CHECKED

CHECKOUT = Path(__file__).resolve().parents[1]
PICTURES = 40


def main() -> None:
    """Print one line per command: median and fastest wall time, processor time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--images", type=int, default=0)
    parser.add_argument("--library", type=Path, help="where the library of so many is kept")
    options = parser.parse_args()
    runs = options.runs
    with tempfile.TemporaryDirectory() as place:
        environment = settled(Path(place))
        picture = str(Path(place) / "photos" / "0.png")
        (Path(place) / "other.png").write_bytes(Path(picture).read_bytes() + b"\0")
        fovea = [sys.executable, "-m", "fovea"]
        measured = {
            "python alone": [sys.executable, "-c", "pass"],
            "import torch": [sys.executable, "-c", "import torch"],
            "fovea --help": [*fovea, "--help"],
            "fovea search WORDS": [*fovea, "search", "a dog on a beach"],
            "fovea similar, a known file": [*fovea, "similar", picture],
            "fovea search WORDS, by torch": [*fovea, "search", "a dog", "--dtype", "bfloat16"],
            "fovea similar, a new file": [*fovea, "similar", str(Path(place) / "other.png")],
        }
        searched = {name: environment for name in measured}
        if options.images:
            library = large_library(options.library or Path(place) / "large", options.images)
            name = f"the same, {options.images:,} pictures"
            measured[name] = measured["fovea search WORDS"]
            measured[f"{name}, checked"] = [
                *("bash", "-c", f'rm -f "{library / CHECKED}" && exec "$@"', "bash"),
                *measured[name],
            ]
            for also in (name, f"{name}, checked"):
                searched[also] = environment | {"FOVEA_LIBRARY": str(library)}
        print(f"{'command':36}{'median':>10}{'fastest':>10}{'processor':>11}")
        for name, command in measured.items():
            walls, processor = timed(command, searched[name], runs)
            median, fastest = statistics.median(walls), min(walls)
            print(f"{name:36}{median:8.3f} s{fastest:8.3f} s{processor:9.3f} s", flush=True)


def settled(place: Path) -> dict[str, str]:
    """Index generated pictures; return the environment variables that name their library."""
    photos = place / "photos"
    photos.mkdir()
    rng = np.random.default_rng(0)
    for number in range(PICTURES):
        pixels = rng.integers(0, 256, (96, 128, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(photos / f"{number}.png")
    environment = os.environ | {
        "FOVEA_LIBRARY": str(place / "library"),
        "FOVEA_MODELS": str(place / "models"),
        "FOVEA_OFFLINE": "1",
    }
    command = [sys.executable, "-m", "fovea", "index", str(photos), "--model", "fovea-small"]
    subprocess.run(command, cwd=CHECKOUT, env=environment, check=True, stdout=subprocess.DEVNULL)
    return environment


def timed(command: list[str], environment: dict[str, str], runs: int) -> tuple[list[float], float]:
    """Return the wall times of all runs, and the processor time of one."""
    walls, before = [], sum(os.times()[2:4])
    for _ in range(runs):
        started = time.perf_counter()
        subprocess.run(command, cwd=CHECKOUT, env=environment, check=True, capture_output=True)
        walls.append(time.perf_counter() - started)
    return walls, (sum(os.times()[2:4]) - before) / runs


if __name__ == "__main__":
    main()
