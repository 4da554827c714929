"""Measure how long commands that should feel instant take, each in a new process.

    python bench/start.py [--runs 9]

The library is small and indexed with the bundled model. The baselines, in the same run, are Python
alone and importing torch. The median of the runs counts.
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

CHECKOUT = Path(__file__).resolve().parents[1]
PICTURES = 40


def main() -> None:
    """Print one line per command: median and fastest wall time, processor time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=9)
    runs = parser.parse_args().runs
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
        print(f"{'command':32}{'median':>10}{'fastest':>10}{'processor':>11}")
        for name, command in measured.items():
            walls, processor = timed(command, environment, runs)
            median, fastest = statistics.median(walls), min(walls)
            print(f"{name:32}{median:8.3f} s{fastest:8.3f} s{processor:9.3f} s", flush=True)


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
