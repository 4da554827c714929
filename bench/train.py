"""Measure speed and memory of training: whole batches against gradient caching.

    python bench/train.py [--shape small] [--batch 128] [--accumulate 1,4,16] [--device cpu]
    python bench/train.py --shape ViT-B/32 --batch 4096 --accumulate 1,8,16,32 --device cuda

Each line comes from its own process, so that its peak memory is its own, and times some updates on
random pictures and captions. "share" is the model FLOPs utilisation: three times the operations of
the forward pass per pair, divided by the peak that the machine reaches in matrix products, measured
in the same run. What gradient caching computes twice counts once. Decoding is not included:
--loading reports how many pictures per second are read from a tar file.
"""

import argparse
import io
import resource
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from bench.common import apart
from fovea.search.clip.config import ClipConfig, TextConfig, VisionConfig
from fovea.search.clip.datasets.pairs import PairSource, open_pairs
from fovea.search.clip.encoders.base import keep_allocations, pick_device
from fovea.search.clip.model import CLIP, initialise
from fovea.search.clip.tokenizer import Tokenizer
from fovea.search.clip.training.augment import Augmentation
from fovea.search.clip.training.batches import Batch, Batches
from fovea.search.clip.training.distributed import World
from fovea.search.clip.training.learner import Learner, training_dtype
from fovea.search.clip.training.recipe import TrainOptions

SHAPES = {
    "small": ClipConfig(
        256,
        VisionConfig(96, (2, 2, 3, 2), 32, heads=16),
        TextConfig(64, 6514, 256, heads=4, layers=3),
    ),
    "ViT-B/32": ClipConfig(
        512, VisionConfig(224, 12, 768, 12, patch_size=32), TextConfig(77, 49408, 512, 8, 12)
    ),
}
MB = 1 << 20


def main() -> None:
    """Print one line per number of slices."""
    options = arguments()
    device = pick_device(options.device)
    dtype = training_dtype(options.dtype, device)
    peak = products_per_s(device, dtype)
    print(f"{name_of(device)}, torch {torch.__version__}")
    print(
        f"{options.shape}, batches of {options.batch}, texts of {options.length} tokens, {dtype}; "
        f"matrix products: {peak / 1e12:.2f} TFLOP/s\n"
    )
    print("slices   images/s   ms / batch   share   peak memory, MB")
    for slices in map(int, options.accumulate.split(",")):
        try:
            line = apart(measure, options, slices)
        except torch.OutOfMemoryError:
            print(f"{slices:6}   out of memory")
            continue
        share = line["images_per_s"] * line["flops"] / peak
        print(
            f"{slices:6}   {line['images_per_s']:8.1f}   {1e3 * line['seconds']:10.1f}   "
            f"{share:5.1%}   {line['memory'] / MB:15,.0f}",
            flush=True,
        )
    if options.loading:
        print(f"\nread from a tar, {options.workers} threads: {loading(options):.0f} images/s")


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="small")
    parser.add_argument("--batch", type=int, default=128, help="pairs per update")
    parser.add_argument("--accumulate", default="1,4,16", help="slices of a batch, comma-separated")
    parser.add_argument("--length", type=int, default=16, help="tokens per text")
    parser.add_argument("--steps", type=int, default=5, help="timed updates")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument("--dtype", default="auto", help="auto, float32 or bfloat16")
    parser.add_argument("--loading", action="store_true", help="also time reading batches")
    parser.add_argument("--workers", type=int, default=2, help="threads that decode")
    return parser.parse_args()


def name_of(device: torch.device) -> str:
    """Name the device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"


def measure(options: argparse.Namespace, slices: int) -> dict[str, float]:
    """Time updates; return images/s, seconds per update, peak bytes, operations per pair."""
    keep_allocations()
    config = SHAPES[options.shape]
    torch.manual_seed(0)
    model = CLIP(config)
    initialise(model)
    run = TrainOptions(
        out=Path(),
        sources=(),
        batch_size=options.batch,
        accumulate=slices,
        device=options.device,
        dtype=options.dtype,
    )
    learner = Learner(model, run, World())
    on_gpu = learner.device.type == "cuda"
    batches = [random_batch(config, options, step) for step in range(2)]
    operations = operations_of_a_pair(learner, batches[0])
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    for batch in batches:  # the first ones allocate and choose kernels
        learner.update(batch, 1e-4)
    began = time.perf_counter()
    for step in range(options.steps):
        learner.update(batches[step % 2], 1e-4)  # which waits for its loss
    seconds = (time.perf_counter() - began) / options.steps
    if on_gpu:
        memory = torch.cuda.max_memory_allocated()
    else:
        unit = 1 if sys.platform == "darwin" else 1024
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    rate = options.batch / seconds
    return {"images_per_s": rate, "seconds": seconds, "memory": memory, "flops": operations}


def random_batch(config: ClipConfig, options: argparse.Namespace, step: int) -> Batch:
    """Make a batch of noise with texts of a caption's length."""
    rng = np.random.default_rng(step)
    count, size, last = options.batch, config.vision.image_size, config.text.vocab_size - 1
    tokens = rng.integers(0, last - 1, size=(count, options.length))
    tokens[:, 0], tokens[:, -1] = last - 1, last
    return Batch(
        step,
        rng.integers(0, 256, size=(count, size, size, 3), dtype=np.uint8),
        tokens,
        np.arange(count),
        np.zeros(count, np.int64),
        np.arange(count)[:, None],
        np.ones((count, 4), np.float32),
    )


def operations_of_a_pair(learner: Learner, batch: Batch) -> float:
    """Count the operations of training on one pair.

    That is three times the forward pass (Kaplan et al. 2020, arXiv:2001.08361, section 2.1).
    """
    some = slice(0, 2)
    images = learner._images(batch)[some]
    tokens = torch.from_numpy(batch.tokens[some]).to(learner.device)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        learner.model.eval()(images, tokens)
    learner.model.train()
    return 3 * counter.get_total_flops() / 2


def products_per_s(device: torch.device, dtype: torch.dtype) -> float:
    """Return the operations per second of a large matrix product, the device's peak."""
    side = 8192 if device.type == "cuda" else 2048
    x = torch.randn(side, side, device=device, dtype=dtype)
    repeats, best = (20, 0.0) if device.type == "cuda" else (3, 0.0)
    for _ in range(4):
        if device.type == "cuda":
            torch.cuda.synchronize()
        began = time.perf_counter()
        for _ in range(repeats):
            x @ x
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = max(best, 2 * side**3 * repeats / (time.perf_counter() - began))
    return best


def loading(options: argparse.Namespace, count: int = 256, side: int = 256) -> float:
    """Return how many pairs per second are read from a tar, decoded, cropped and tokenized."""
    config = SHAPES[options.shape]
    with tempfile.TemporaryDirectory() as place:
        shard = Path(place) / "0.tar"
        write_shard(shard, noise(count, side))
        batches = Batches(
            [open_pairs(PairSource((shard,)))],
            Tokenizer([]),
            image_size=config.vision.image_size,
            batch_size=64,
            context_length=config.text.context_length,
            augmentation=Augmentation(),
            workers=options.workers,
            cache_bytes=0,
        )
        stream = batches.from_step(0)
        next(stream)
        began = time.perf_counter()
        read = sum(len(batch.pixels) for batch in islice(stream, 8))
        seconds = time.perf_counter() - began
        stream.close()
    return read / seconds


def noise(count: int, side: int) -> Iterator[bytes]:
    """Yield JPEG files of smooth noise."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8))
        file = io.BytesIO()
        coarse.resize((side, side), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
        yield file.getvalue()


def write_shard(path: Path, pictures: Iterator[bytes]) -> None:
    """Write a shard as WebDataset lays it out: 000000.jpg beside 000000.txt."""
    with tarfile.open(path, "w") as tar:
        for number, data in enumerate(pictures):
            for suffix, content in (("jpg", data), ("txt", f"noise number {number}".encode())):
                member = tarfile.TarInfo(f"{number:06}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


if __name__ == "__main__":
    main()
