"""Measure a whole indexing run against its limits and against a simple script.

    python bench/index.py [--photos FOLDER] [--small 1500] [--large 300] [--runs 2]
    python bench/index.py --small 20000 --large 2000 --runs 1     # with a GPU
    python bench/index.py --against rclip [--dtype float32] [--keep FOLDER]

Real JPEGs, repeated with a comment segment that makes each file distinct, and the same enlarged to
12 megapixels; ViT-B/32 with random weights. On a CPU encoder and decoders share the cores, so
together they allow 1 / (1/encode + 1/decode) images a second; on a GPU the slower of both is the
limit. Memory is the sum of the proportional set sizes of
the run and its workers (Linux). All figures are from the same run: the best of ``--runs``.

With ``--against rclip`` (or ``rclip,rclip==3.3.0``), rclip indexes the same files by the same
weights, at 256 pixels, in turn with fovea; ``rivals/beside_rclip.py`` says how, and what stands in
where it cannot be had (``--against imitation`` measures that). ``--keep`` keeps its environment.
"""

import argparse
import io
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from itertools import cycle, islice
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.common import apart, write_model
from bench.rivals import beside_rclip
from bench.rivals.beside_rclip import Rclip
from fovea.indexer.decoding.limits import Limits
from fovea.indexer.scanning.scan import index_folders
from fovea.indexer.walking.walk import Found, walk
from fovea.indexer.workers.host import available_cores
from fovea.indexer.workers.pool import USUAL_BATCH, Pool, Task, batch_of
from fovea.search.clip.preprocess import Preprocess
from fovea.search.library.library import Library
from fovea.search.models.info import describe_model

SIZE, RCLIP_SIZE = 224, 256  # pixels a side of what the model takes
BASES = 40  # photographs that are enlarged; the rest repeats them
PLAIN = {"small": 100, "large": 30}  # files for the simple script, which is slow
TARGETS = {"small": 4, "large": 6}  # times the simple script


@dataclass(frozen=True, slots=True)
class Setup:
    """What all ways share."""

    model: Path
    size: int
    dtype: str
    rclips: tuple[Rclip, ...] = ()


def main() -> None:
    """Make the folders and the model, time each way in its own process, and print tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    photos = Path(__file__).resolve().parents[2] / "shared" / "photos"
    parser.add_argument("--photos", type=Path, default=photos, help="folder of JPEGs")
    parser.add_argument("--small", type=int, default=1500, help="number of photographs as they are")
    parser.add_argument(
        "--large", type=int, default=300, help="number of photographs of 12 megapixels"
    )
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--ways", help="comma-separated; default: all that apply")
    parser.add_argument("--dtype", default="auto", help="the encoder's precision")
    parser.add_argument("--against", help="rclip, rclip==VERSION, imitation; comma-separated")
    parser.add_argument("--keep", type=Path, help="folder for rclip's environment")
    options = parser.parse_args()
    if not any(options.photos.glob("*.jpg")):
        sys.exit(f"no JPEGs in {options.photos}; name a folder with --photos")
    with tempfile.TemporaryDirectory(prefix="fovea-bench-") as scratch:
        os.environ["FOVEA_MODELS"] = str(Path(scratch) / "models")
        setup = set_up(Path(scratch), options)
        ways = options.ways.split(",") if options.ways else list(WAYS)
        for kind, count in (("small", options.small), ("large", options.large)):
            if count:
                folder = make_photos(Path(scratch) / kind, options.photos, count, kind)
                apart(settle, folder, setup)
                best = measure_all(folder, setup, options.runs, ways)
                print_table(folder, best, setup)


def set_up(scratch: Path, options: argparse.Namespace) -> Setup:
    """Write the model; with ``--against``, that of rclip, and install rclip."""
    if not options.against:
        return Setup(write_model(scratch / "model"), SIZE, options.dtype)
    from fovea.search.clip.config import ClipConfig, TextConfig, VisionConfig

    vision = VisionConfig(RCLIP_SIZE, 12, 768, 12, patch_size=32)
    text = TextConfig(77, 49408, 512, 8, 12)
    model = write_model(scratch / "model", ClipConfig(512, vision, text, activation="gelu"))
    place = options.keep or scratch / "rclip"
    others = beside_rclip.prepared(options.against.split(","), place.resolve(), model)
    return Setup(model, RCLIP_SIZE, options.dtype, others)


def settle(folder: Path, setup: Setup) -> None:
    """Index the folder once where OpenVINO is, so that its int8 tower is made: once a machine."""
    if not (find_spec("openvino") and find_spec("nncf")):
        return
    info = describe_model(setup.model, "bench", "bench")
    with tempfile.TemporaryDirectory() as place, Library.open(place, create=True) as library:
        index_folders(library, [folder], model=info, load_encoder=lambda: info.load(dtype="int8"))


def measure_all(
    folder: Path, setup: Setup, runs: int, ways: list[str]
) -> dict[str, dict[str, float]]:
    """Time each way ``runs`` times, in turn; keep the fastest run of each."""
    best: dict[str, dict[str, float]] = {}
    todo = [(way, way, setup) for way in ways if way != "rclip"]
    if "rclip" in ways:
        todo += [(one.name, "rclip", replace(setup, rclips=(one,))) for one in setup.rclips]
    for _ in range(runs):
        for name, way, its_setup in todo:
            figures = apart(measured, way, folder, its_setup)
            if name not in best or figures["rate"] > best[name]["rate"]:
                best[name] = figures
    return best


def print_table(folder: Path, best: dict[str, dict[str, float]], setup: Setup) -> None:
    """Print the figures of one set and its targets."""
    kind, count = folder.name, sum(1 for _ in folder.iterdir())
    rates = {way: figures["rate"] for way, figures in best.items()}
    if {"encode", "decode"} <= set(rates):
        rates["both"] = 1 / (1 / rates["encode"] + 1 / rates["decode"])
        if best["encode"]["on_gpu"]:
            rates["both"] = min(rates["encode"], rates["decode"])
    whole = [way for way in best if "seconds" in best[way]]
    rates |= {f"{way}, all": count / best[way]["seconds"] for way in whole}
    names = [("fovea index", "index"), *((one.name, one.name) for one in setup.rclips)]
    print(f"\n{count} {kind} photographs, ViT-B/32 at {setup.size}, {available_cores()} cores")
    print(f"{'':<48}{'images/s':>10}")
    for name, way in (
        ("simple script: full decode, float32, one by one", "plain"),
        ("encoder alone", "encode"),
        ("decoding alone", "decode"),
        ("the limit of both together", "both"),
        *((f"{name}, once the model is loaded", way) for name, way in names),
        *((f"{name}, all of it", f"{way}, all") for name, way in names),
    ):
        if way in rates:
            print(f"{name:<50}{rates[way]:>8.1f}")
    if "both" in rates and "index" in rates:
        print(f"share of the limit: {rates['index'] / rates['both']:.0%} (target 90 %)")
    if "plain" in rates and "index" in rates:
        times = rates["index"] / rates["plain"]
        print(f"against the simple script: {times:.1f} x ({TARGETS[kind]} x)")
    for name, _ in names[1:]:
        if name in rates and "index" in rates:
            least = f"; the limit is {rates['both'] / rates[name]:.1f} x" if "both" in rates else ""
            print(f"against {name}: {rates['index'] / rates[name]:.1f} x{least}")
            print(f"  the vectors of both: {agreement(folder, name)}")
    peaks = [f"{name} {best[way]['peak_mb']:,.0f} MB" for name, way in names if way in best]
    print(f"peak memory, workers included: {', '.join(peaks)} (target 1,500)", flush=True)


def agreement(folder: Path, other: str) -> str:
    """Compare the vectors that fovea and rclip gave the same files.

    Random weights give all pictures nearly one vector, so their mean is subtracted before.
    """
    with (
        np.load(vectors_of(folder, "index")) as ours,
        np.load(vectors_of(folder, other)) as theirs,
    ):
        names = sorted(ours.files)
        if names != sorted(theirs.files):
            return f"no: {len(names)} files here, {len(theirs.files)} there"
        one, two = (np.stack([found[name] for name in names]) for found in (ours, theirs))
    one, two = one - one.mean(0), two - two.mean(0)
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(two, axis=1)
    cosines = (one * two).sum(1) / lengths
    return f"cosine {cosines.mean():.4f} in the mean, {cosines.min():.4f} at worst, once centred"


def vectors_of(folder: Path, way: str) -> Path:
    """Where a way leaves the vectors of a folder's files."""
    return folder.with_name(f"{folder.name}-{way}.npz")


# The ways


def make_photos(folder: Path, source: Path, count: int, kind: str) -> Path:
    """Write ``count`` distinct JPEGs; large ones are scaled to 12 megapixels."""
    folder.mkdir()
    paths = sorted(source.glob("*.jpg"))
    contents = [path.read_bytes() for path in paths]
    if kind == "large":
        contents = [enlarged(content) for content in contents[: min(BASES, count)]]
    for number, content in enumerate(islice(cycle(contents), count)):
        comment = b"%09d" % number
        segment = b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment
        (folder / f"{number:06d}.jpg").write_bytes(content[:2] + segment + content[2:])
    return folder


def enlarged(content: bytes) -> bytes:
    """Return a JPEG scaled to 4000 x 3000 pixels."""
    with Image.open(io.BytesIO(content)) as image:
        large = image.convert("RGB").resize((4000, 3000), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    large.save(file, "JPEG", quality=90)
    return file.getvalue()


def index(folder: Path, setup: Setup) -> dict[str, float]:
    """Index the folder into a new library; the rate excludes loading the model."""
    from fovea.search.clip.encoders.base import TorchEncoder

    info = describe_model(setup.model, "bench", "bench")
    loading = 0.0

    def load() -> TorchEncoder:
        nonlocal loading
        started = time.perf_counter()
        encoder = info.load(dtype=setup.dtype)
        encoder.encode_pixels(np.zeros((1, setup.size, setup.size, 3), np.uint8))  # loads its tower
        loading = time.perf_counter() - started
        return encoder

    with tempfile.TemporaryDirectory() as place, Library.open(place, create=True) as library:
        report = index_folders(library, [folder], model=info, load_encoder=load)
        if setup.rclips:
            save_vectors(library, vectors_of(folder, "index"))
    assert report.embedded == report.found, report
    rate = report.embedded / (report.seconds - loading)
    return {"rate": rate, "seconds": report.seconds}


def save_vectors(library: Library, place: Path) -> None:
    """Write a library's vectors to an npz: float32 (d,) by file name."""
    rows = library.rows(
        "SELECT path, vector FROM files JOIN embeddings ON embeddings.image_id = files.image_id"
    )
    found = {os.fsdecode(path).rpartition("/")[2]: vector for path, vector in rows}
    vectors = {name: np.frombuffer(vector, np.float16) for name, vector in found.items()}
    np.savez(place, **{name: vector.astype(np.float32) for name, vector in vectors.items()})  # type: ignore[arg-type]  # of arrays by name


def encode(folder: Path, setup: Setup) -> dict[str, float]:
    """Encode ready pixels, a batch at a time, with nothing else running."""
    encoder = describe_model(setup.model, "bench", "bench").load(dtype=setup.dtype)
    rng = np.random.default_rng(0)
    batch = batch_of(encoder)
    pixels = rng.integers(0, 256, (batch, setup.size, setup.size, 3), np.uint8)
    encoder.encode_pixels(pixels)
    started, done = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - started) < 5:
        encoder.encode_pixels(pixels)
        done += batch
    return {"rate": done / elapsed, "on_gpu": float(encoder.device.type != "cpu")}


def decode(folder: Path, setup: Setup) -> dict[str, float]:
    """Decode all files with one worker per core, twice; the second time, all workers run."""
    files = [entry.path for entry in walk(os.fsencode(folder)) if isinstance(entry, Found)]
    cores = available_cores()
    with Pool(Preprocess(setup.size), Limits(), workers=cores, batch_size=USUAL_BATCH) as pool:
        for _ in range(2):
            started = time.perf_counter()
            for outcome in pool.outcomes(Task(path, 1) for path in files):
                if outcome is not None and outcome.slot is not None:
                    pool.release(outcome.slot)
            elapsed = time.perf_counter() - started
    return {"rate": len(files) / elapsed}


def plain(folder: Path, setup: Setup) -> dict[str, float]:
    """Open, resize, normalise and encode one photograph at a time, as a simple script does."""
    import torch

    from fovea.search.clip.checkpoints.checkpoint import load_clip

    clip, preprocess = load_clip(setup.model), Preprocess(setup.size)
    paths = sorted(folder.iterdir())[: PLAIN[folder.name]]

    def embed(path: Path) -> None:
        with Image.open(path) as image:
            pixels = preprocess.pixels(image)  # without ``draft``: decoded in full
        with torch.inference_mode():
            clip.encode_image(torch.from_numpy(preprocess.normalise(pixels[None])))

    embed(paths[0])
    started = time.perf_counter()
    for path in paths:
        embed(path)
    return {"rate": len(paths) / (time.perf_counter() - started)}


def against(folder: Path, setup: Setup) -> dict[str, float]:
    """Index the folder with rclip, or in its way; the rate excludes loading the model."""
    (other,) = setup.rclips
    figures = beside_rclip.run(other, folder, vectors_of(folder, other.name))
    count = sum(1 for _ in folder.iterdir())
    return figures | {"rate": count / (figures["seconds"] - figures["loading"])}


WAYS: dict[str, Callable[[Path, Setup], dict[str, float]]] = {
    "plain": plain,
    "encode": encode,
    "decode": decode,
    "index": index,
    "rclip": against,
}


# Measuring


def measured(way: str, folder: Path, setup: Setup) -> dict[str, float]:
    """Measure one way in this process; record the peak memory of it and its children."""
    peak, done = 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.1):
            peak = max(peak, sum(map(proportional_set, family(os.getpid()))))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        figures = WAYS[way](folder, setup)
    finally:
        done.set()
        watcher.join()
    return figures | {"peak_mb": peak / (1 << 20)}


def family(process_id: int) -> Iterator[int]:
    """Yield a process and its descendants; only the process itself without /proc."""
    yield process_id
    for task in Path(f"/proc/{process_id}/task").glob("*/children"):
        try:
            children = task.read_text().split()
        except OSError:
            continue
        for child in children:
            yield from family(int(child))


def proportional_set(process_id: int) -> int:
    """Return a process's proportional set size in bytes, 0 where it cannot be read."""
    try:
        lines = Path(f"/proc/{process_id}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:")), 0)


if __name__ == "__main__":
    main()
