"""Measure how fast the encoder embeds pictures, and how close that comes to the hardware's limit.

    python bench/encode.py [--device cpu] [--dtypes float32,bfloat16] [--batches 1,8,32]
    python bench/encode.py --model fovea-small

A ViT-B/32 with random weights embeds random pixels. The limit is measured in the same run: the
matrix products of one forward pass, in their real shapes, each timed alone in torch's fastest way.
The baseline is the reference model in float32, one picture at a time. With --model, another model
is timed, without the limit. bench/engines.py compares torch with OpenVINO and onnxruntime on a CPU.
"""

import argparse
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
import torch.nn.functional as F

from bench.common import write_model
from fovea.search.clip.checkpoints.checkpoint import load_clip
from fovea.search.clip.encoders.base import TorchEncoder, multiplies_bfloat16, pick_device
from fovea.search.clip.encoders.kernels import Linear, Target
from fovea.search.clip.encoders.load import load_encoder
from fovea.search.models.resolve import resolve_model


def main() -> None:
    """Print one line per precision and batch size."""
    options = arguments()
    device = pick_device(options.device)
    with tempfile.TemporaryDirectory() as scratch:
        if options.model:
            model = resolve_model(options.model, network=False)
            folder, name, side = model.folder, model.name, model.preprocess.size
        else:
            folder, name, side = write_model(Path(scratch)), "ViT-B/32, random weights", 224
        print(f"{machine(device)}\n{name}, {side} pixels, torch {torch.__version__}\n")
        alone = baseline(folder, side, options.seconds)
        print(f"baseline: the reference model, float32, CPU, one by one: {alone:.1f} images/s\n")
        limit = "" if options.model else "   products alone   share   TFLOP/s"
        print(f"dtype     batch   images/s   × baseline{limit}")
        for dtype in options.dtypes.split(",") if options.dtypes else default_dtypes(device):
            encoder = load_encoder(folder, device=options.device, dtype=dtype)
            for batch in map(int, options.batches.split(",")):
                took = embedding_seconds(encoder, side, batch, options.seconds)
                rate = batch / took
                limit = "" if options.model else compared(encoder, batch, took, options.seconds)
                name = str(encoder.dtype).removeprefix("torch.")
                print(f"{name:9} {batch:5}  {rate:9.1f}  {rate / alone:11.1f}{limit}", flush=True)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", help="time this local model instead, by name or folder")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument("--dtypes", help="comma-separated; default: those that suit the device")
    parser.add_argument(
        "--batches", default="1,8,16,32,64", help="pictures per call, comma-separated"
    )
    parser.add_argument("--seconds", type=float, default=3.0, help="time for each measurement")
    return parser.parse_args()


def machine(device: torch.device) -> str:
    """Name the device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    units = "with" if multiplies_bfloat16() else "without"
    kind = torch.backends.cpu.get_cpu_capability()
    return f"{platform.machine()} {kind}, {torch.get_num_threads()} threads, {units} bfloat16 units"


def default_dtypes(device: torch.device) -> list[str]:
    """Return the precisions worth using on this device."""
    if device.type == "cpu":
        return ["float32", "bfloat16"] if multiplies_bfloat16() else ["float32"]
    return ["float16", "bfloat16"]


def baseline(folder: Path, side: int, seconds: float) -> float:
    """Return images/s of the reference model in float32, one picture at a time."""
    model = load_clip(folder)
    picture = torch.zeros(1, 3, side, side)
    with torch.inference_mode():
        return 1 / fastest(lambda: model.encode_image(picture), seconds)


def compared(encoder: TorchEncoder, batch: int, took: float, seconds: float) -> str:
    """Time the matrix products of one batch alone; return the columns that compare ``took``."""
    place = Target(encoder.device, encoder.dtype)
    with torch.inference_mode():
        products = sum(
            count * product_seconds(place, rows, inputs, outputs, seconds / 8)
            for rows, inputs, outputs, count in matrix_products(batch)
        )
    operations = sum(2 * r * i * o * count for r, i, o, count in matrix_products(batch))
    return f"  {batch / products:15.1f}  {products / took:6.1%}  {operations / took / 1e12:8.3f}"


def embedding_seconds(encoder: TorchEncoder, side: int, batch: int, seconds: float) -> float:
    """Return the seconds that embedding one batch of random pixels takes."""
    rng = np.random.default_rng(0)
    calls = 1 if encoder.device.type == "cpu" else 8  # copies to a GPU overlap with its computing
    pixels = rng.integers(0, 256, (batch * calls, side, side, 3), dtype=np.uint8)
    return fastest(lambda: encoder.encode_pixels(pixels), seconds) / calls


def matrix_products(batch: int) -> list[tuple[int, int, int, int]]:
    """List (rows, inputs, outputs, count) of each product with a weight matrix in one pass.

    As in the encoder, the last block's query, output and MLP see one position. The products inside
    attention (3 % of all) are left out, which makes the limit stricter.
    """
    width, layers, positions, dim = 768, 12, 50, 512
    rows = batch * positions
    return [
        (batch * (positions - 1), 3 * 32 * 32, width, 1),
        (rows, width, 3 * width, layers - 1),
        (rows, width, width, layers - 1),
        (rows, width, 4 * width, layers - 1),
        (rows, 4 * width, width, layers - 1),
        (rows, width, 2 * width, 1),
        (batch, width, width, 2),
        (batch, width, 4 * width, 1),
        (batch, 4 * width, width, 1),
        (batch, width, dim, 1),
    ]


def product_seconds(place: Target, rows: int, inputs: int, outputs: int, seconds: float) -> float:
    """Return the seconds of one product, computed in the fastest of three ways."""
    x = torch.randn(rows, inputs).to(place.device, place.dtype)
    weight = torch.randn(outputs, inputs).to(place.device, place.dtype)
    linear, turned = Linear(place, weight), weight.t().contiguous()
    ways: list[Callable[[], torch.Tensor]] = [
        lambda: linear(x),
        lambda: F.linear(x, weight),
        lambda: torch.mm(x, turned),
    ]
    return min(fastest(way, seconds / len(ways), place.device) for way in ways)


def fastest(
    call: Callable[[], object], seconds: float, device: torch.device | None = None
) -> float:
    """Return the median seconds of the faster half of the calls that fit in ``seconds``."""
    is_gpu = device is not None and device.type == "cuda"
    repeats = 20 if is_gpu else 1  # amortises the launch of a kernel
    call()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 3:
        if is_gpu:
            torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(repeats):
            call()
        if is_gpu:
            torch.cuda.synchronize()
        times.append((time.perf_counter() - start) / repeats)
    return statistics.median(sorted(times)[: max(1, len(times) // 2)])


if __name__ == "__main__":
    main()
