"""Measure embedding: Ray with 1, 2 and 4 decoding workers against this machine's plain pool.

python bench/embed.py FOLDER [--copies N] [--device cuda --dtype auto --model random]

Prints pictures a second from the first result on, the whole time with the start of the cluster, and
milliseconds of CPU that all processes took for a picture, which other work here disturbs less. The
model ``random`` is a ViT-B/32 with random weights.

python bench/embed.py FOLDER --memory 16000 [--pause 0.004]

Takes one picture of the folder so many times through Ray, with an encoder that only waits,
``--pause`` seconds for each, and prints the most memory that all processes had together.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.common import write_model
from fovea.indexer.embedding.embed import EmbedReport, Run, embed_into_files
from fovea.indexer.embedding.on_ray import HELD, HELD_EACH, OnRay, load_here
from fovea.indexer.embedding.sources import source_of
from fovea.indexer.scanning.pipeline import Progress
from fovea.indexer.workers.host import available_cores
from fovea.search.models.info import ModelInfo, describe_model
from fovea.search.models.resolve import resolve_model

SAMPLE_S = 0.25
KINDS = ("Pss", "Pss_Anon", "Pss_Shmem")


@dataclass(frozen=True)
class Used:
    """A model, and where it computes and how."""

    model: ModelInfo
    device: str = "cpu"
    dtype: str = "float32"


def embedded(
    folder: Path,
    workers: int,
    on_ray: bool,
    used: Used,
    load: Any = None,
    progress: Callable[[Progress], None] | None = None,
) -> EmbedReport:
    """Embed a folder anew."""
    stop, where = threading.Event(), (used.device, used.dtype)
    if used.model.source == "random":
        load = load or partial(loaded, used)  # nodes know models by name
    here = cache(partial(used.model.load, device=used.device, dtype=used.dtype))
    run = Run(used.model, here, workers, stop=stop, progress=progress)
    if on_ray:
        run.engine = OnRay("local", used.model, *where, run.limits, workers, None, stop, load)
    with tempfile.TemporaryDirectory() as place:
        return embed_into_files([source_of(str(folder))], Path(place) / "out", run)


def loaded(used: Used) -> Any:
    import torch

    torch.set_num_threads(available_cores())  # Ray tells it to use one
    return used.model.load(device=used.device, dtype=used.dtype)


def measured(folder: Path, workers: int, on_ray: bool, used: Used) -> dict[str, float | int | str]:
    """Embed a folder anew; return the rate and the time."""
    seen: list[tuple[float, int, float]] = []  # (time, embedded, seconds of CPU), once a second

    def progress(state: Progress) -> None:
        now = time.monotonic()
        if state.embedded and (not seen or now - seen[-1][0] > 1):
            spent = sum(map(cpu_of, below(os.getpid())))
            seen.append((now, state.embedded, spent))

    report = embedded(folder, workers, on_ray, used, progress=progress)
    engine = "ray" if on_ray else "pool"
    (_, first, before), (_, last, after) = seen[0], max(seen, key=lambda one: one[2])
    return {"engine": engine, "workers": workers, "embedded": report.embedded,
            "rate": report.rate, "seconds": report.seconds,
            "cpu_ms": round((after - before) / max(last - first, 1) * 1000, 2)}  # fmt: skip


def cpu_of(pid: int) -> float:
    """Return the seconds of CPU that a process has had (Linux: fields 14 and 15 of its stat)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(") ")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Paused:
    """A model in memory that waits for so many seconds a picture instead of computing."""

    def __init__(self, encoder: Any, dim: int, seconds: float) -> None:
        self._encoder, self._dim, self._seconds = encoder, dim, seconds

    def encode_pixels(self, pixels: np.ndarray) -> np.ndarray:
        time.sleep(self._seconds * len(pixels))
        return np.eye(1, self._dim, dtype=np.float32).repeat(len(pixels), axis=0)


def paused(model: ModelInfo, seconds: float) -> Paused:
    return Paused(load_here(model, "cpu", "float32"), model.dim, seconds)


class Watch:
    """Adds up, again and again, the memory of this process and all below it.

    Pages that several share count once (Linux: ``Pss`` of smaps_rollup, in kB).
    """

    def __init__(self) -> None:
        self.peak = dict.fromkeys(KINDS, 0)
        self.parts: dict[str, int] = {}  # at the peak, by kind of process
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def end(self) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(SAMPLE_S):
            total, parts = dict.fromkeys(KINDS, 0), dict[str, int]()
            for pid in below(os.getpid()):
                sizes = memory_of(pid)
                for kind in KINDS:
                    total[kind] += sizes.get(kind, 0)
                name = kind_of(pid)
                parts[name] = parts.get(name, 0) + sizes.get("Pss_Anon", 0)
            if total["Pss"] > self.peak["Pss"]:
                self.parts = parts
            for kind in KINDS:
                self.peak[kind] = max(self.peak[kind], total[kind])


def below(pid: int) -> list[int]:
    """List a process and all that it started, and those that these started."""
    found = [pid]
    for thread in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = thread.read_text().split()
        except OSError:
            continue
        for child in children:
            found += below(int(child))
    return found


def memory_of(pid: int) -> dict[str, int]:
    """Return what smaps_rollup says, in bytes; nothing of a process that has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return {}
    return {line.split(":")[0]: int(line.split()[1]) << 10 for line in lines}


def kind_of(pid: int) -> str:
    try:
        line = Path(f"/proc/{pid}/cmdline").read_text(errors="replace").replace("\0", " ")
    except OSError:
        return "ended"
    for kind in ("Decoder", "Encoder"):
        if f"({kind})" in line:
            return f"{kind.lower()}s"
    if "fovea.indexer.workers" in line:
        return "decoding processes"
    return "driver" if pid == os.getpid() else "ray itself"


def remembered(folder: Path, count: int, workers: int, seconds: float) -> dict[str, Any]:
    """Embed one picture ``count`` times on Ray; return the most memory of all processes, in MB."""
    model = resolve_model("fovea-small")
    picture = next(path for path in sorted(folder.iterdir()) if path.suffix.lower() == ".jpg")
    small = shrunk(picture)
    with tempfile.TemporaryDirectory() as place:
        for number in range(count):
            (Path(place) / f"{number:06d}.jpg").write_bytes(small)
        watch = Watch()
        report = embedded(Path(place), workers, True, Used(model), partial(paused, model, seconds))
        watch.end()
    side = model.preprocess.size
    return {
        "embedded": report.embedded,
        "rate": report.rate,
        "pixels": (report.embedded * side * side * 3) >> 20,
        "bound": (HELD + HELD_EACH * workers) >> 20,
        "peak": {kind: size >> 20 for kind, size in watch.peak.items()},
        "at_peak": {name: size >> 20 for name, size in sorted(watch.parts.items())},
    }


def shrunk(path: Path) -> bytes:
    """Return a small JPEG of a picture, which takes little time to decode."""
    import io

    from PIL import Image

    target = io.BytesIO()
    with Image.open(path) as image:
        image.convert("RGB").resize((240, 240)).save(target, "JPEG")
    return target.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--copies", type=int, default=4, help="of each picture")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--memory", type=int, metavar="PICTURES")
    parser.add_argument(
        "--pause", type=float, default=0.004, metavar="SECONDS", help="for each picture"
    )
    parser.add_argument("--model", default="fovea-small", help="a name, a folder or random")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    options = parser.parse_args()
    if options.memory:
        for workers in options.workers:
            found = remembered(options.folder, options.memory, workers, options.pause)
            print(json.dumps({"workers": workers} | found), flush=True)
        return
    with tempfile.TemporaryDirectory() as place:
        for number in range(options.copies):
            shutil.copytree(options.folder, Path(place) / "photographs" / str(number))
        if options.model == "random":
            model = describe_model(write_model(Path(place) / "model"), "random", "random")
        else:
            model = resolve_model(options.model)
        used = Used(model, options.device, options.dtype)
        for workers in options.workers:
            for on_ray in (False, True):
                found = measured(Path(place) / "photographs", workers, on_ray, used)
                print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
