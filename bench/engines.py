"""Compare the engines and precisions in which a CPU can embed pictures, all in one run.

    python bench/engines.py --photographs DIR [--model fovea-small] [--seconds 2]
    python bench/engines.py --photographs DIR --calibrate OTHER

Without --model the tower is a ViT-B/32 for 256 pixels with random weights. The first 64 pictures of
DIR calibrate int8, or those of --calibrate, or with --calibrate drawn ones that a generator paints;
the others (256 at most) are embedded by every engine and compared with torch in float32: cosines,
and recall@10 of each picture's neighbours. Engines take turns, and the fastest pass counts.
OpenVINO and NNCF come with the extra openvino; onnxruntime (with onnx and onnxscript) is compared
if it is installed.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from PIL import Image

from bench.common import write_model
from bench.encode import machine
from fovea.search.clip.config import ClipConfig, TextConfig, VisionConfig
from fovea.search.clip.encoders.load import load_encoder
from fovea.search.clip.engines import choose
from fovea.search.clip.engines.choose import CALIBRATION, MOST, Tower, timed, unit_rows
from fovea.search.clip.engines.faithful import agreement
from fovea.search.clip.engines.openvino_runtime import OpenVinoTower, converted, is_installed
from fovea.search.clip.engines.quantise import methods, quantised
from fovea.search.clip.preprocess import Preprocess
from fovea.search.models.resolve import resolve_model

VIT = ClipConfig(
    512, VisionConfig(256, 12, 768, 12, patch_size=32), TextConfig(77, 49408, 512, 8, 12)
)


def main() -> None:
    """Print a table with a row per engine."""
    options = arguments()
    choose.ROUNDS_S = options.seconds * 6
    with tempfile.TemporaryDirectory() as scratch:
        name, folder = "ViT-B/32 for 256 pixels, random weights", Path(scratch)
        if options.model:
            model = resolve_model(options.model, network=False)
            name, folder = model.name, model.folder
        else:
            write_model(folder, VIT)
        encoder = load_encoder(folder, device="cpu", dtype="float32")
        pixels = pictures(options.photographs, encoder.preprocess, MOST)
        drawn = {"drawn": painted}.get(str(options.calibrate), pictures)
        calibration = pixels[:CALIBRATION]
        if options.calibrate:
            calibration = drawn(options.calibrate, encoder.preprocess, CALIBRATION)
        pixels = pixels[CALIBRATION:]
        print(f"{machine(torch.device('cpu'))}, torch {torch.__version__}\n{name}\n", flush=True)
        towers = torch_towers(encoder)
        module = encoder._module()
        if module is not None and is_installed():
            towers |= openvino_towers(module(), encoder.preprocess.size, calibration)
        if module is not None:
            size = encoder.preprocess.size
            towers |= onnx_towers(module(), size, calibration, Path(scratch), pixels[:2])
        table(towers, pixels, encoder.batch_size)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--photographs", type=Path, required=True, help="a folder of pictures")
    parser.add_argument("--calibrate", type=Path, help="another folder for that; or: drawn")
    parser.add_argument("--model", help="a local model, by name or folder")
    parser.add_argument("--seconds", type=float, default=2.0, help="time for each engine")
    return parser.parse_args()


def pictures(folder: Path, preprocess: Preprocess, most: int) -> np.ndarray:
    """Decode pictures of a folder, as uint8 (n, s, s, 3)."""
    files = sorted(file for file in folder.rglob("*") if file.suffix in (".jpg", ".png", ".webp"))
    return np.stack([preprocess.pixels(Image.open(file).convert("RGB")) for file in files[:most]])


def painted(folder: Path, preprocess: Preprocess, most: int) -> np.ndarray:
    """Paint pictures of smooth fields at several scales, as uint8 (n, s, s, 3)."""
    rng, made = np.random.default_rng(0), []
    for _ in range(most):
        total = np.zeros((256, 256, 3))
        for side in (2, 5, 16, 64):
            field = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
            wide = Image.fromarray(field).resize((256, 256), Image.Resampling.BICUBIC)
            total += np.asarray(wide) * rng.uniform(0, 1)
        total *= 255 / total.max()
        made.append(preprocess.pixels(Image.fromarray(total.astype(np.uint8))))
    return np.stack(made)


def torch_towers(encoder: Any) -> dict[str, Tower]:
    """Return fovea's own towers on torch."""
    return {f"torch {name}": encoder._tower_in(name) for name in ("float32", "bfloat16")}


def openvino_towers(
    module: torch.nn.Module, size: int, calibration: np.ndarray
) -> dict[str, Tower]:
    """Convert and quantise the tower, and say how long that takes."""
    started = time.perf_counter()
    model = converted(module, size)
    print(f"converted by OpenVINO in {time.perf_counter() - started:.1f} s")
    made: dict[str, Tower] = {"OpenVINO float32": OpenVinoTower(model)}
    for method in methods(model)[:1]:
        started = time.perf_counter()
        made[f"OpenVINO int8, {method}"] = OpenVinoTower(quantised(model, calibration, method))
        print(f"quantised by NNCF, {method}, in {time.perf_counter() - started:.1f} s")
    return made


def onnx_towers(
    module: torch.nn.Module, size: int, calibration: np.ndarray, scratch: Path, example: np.ndarray
) -> dict[str, Tower]:
    """Quantise the tower with onnxruntime's own tools; empty where it is not installed."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # its wheels tell their makers of each process
    try:
        import onnx  # noqa: F401 - the export needs it
        import onnxruntime
        from onnxruntime.quantization import (
            CalibrationDataReader,
            QuantType,
            quantize_dynamic,
            quantize_static,
        )
        from onnxruntime.quantization.shape_inference import quant_pre_process
    except ImportError:
        return {}
    plain, ready = scratch / "tower.onnx", scratch / "ready.onnx"
    torch.onnx.export(
        module, (torch.from_numpy(example),), str(plain), dynamo=False, opset_version=17,
        input_names=["pixels"], dynamic_axes={"pixels": {0: "n"}},
    )  # fmt: skip
    quant_pre_process(str(plain), str(ready), skip_symbolic_shape=True)
    quantize_dynamic(ready, scratch / "dynamic.onnx", per_channel=True)

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.rows = iter(calibration)

        def get_next(self) -> dict[str, np.ndarray] | None:
            row = next(self.rows, None)
            return None if row is None else {"pixels": row[None]}

    static = scratch / "static.onnx"
    quantize_static(ready, static, Reader(), per_channel=True, weight_type=QuantType.QInt8)

    def tower(path: Path) -> Callable[[torch.Tensor], torch.Tensor]:
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
        return lambda pixels: torch.from_numpy(session.run(None, {"pixels": pixels.numpy()})[0])

    names = {"float32": plain, "int8, dynamic": scratch / "dynamic.onnx", "int8, static": static}
    return {f"onnxruntime {name}": tower(path) for name, path in names.items()}


def table(towers: dict[str, Tower], pixels: np.ndarray, batch: int) -> None:
    """Time and compare the towers."""
    exact = unit_rows(towers["torch float32"], pixels, batch)
    speeds = timed(towers, pixels[:16])
    print(f"\n{'engine':32} images/s  × float32  mean cosine  worst  recall@10")
    for name, tower in towers.items():
        near = agreement(unit_rows(tower, pixels, batch), exact)
        gain = speeds[name] / speeds["torch float32"]
        print(
            f"{name:32} {speeds[name]:8.1f}  {gain:9.2f}  {near.mean:11.4f}  {near.worst:.4f}"
            f"  {near.recall:.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
