"""Measure in which engine and precision a tower embeds fastest on this CPU, and choose.

The rules: torch in the precision that the CPU's instructions suggest is taken, unless another float
engine is at least ``FLOAT_GAIN`` times as fast; int8 is taken instead where it is faithful
(``faithful.py``) and at least ``INT8_GAIN`` times as fast. So a measurement that is off by a few
per cent changes nothing that matters.
"""

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fovea.search.clip.errors import ModelError

from .faithful import Agreement, agreement
from .openvino_runtime import OpenVinoTower, converted, is_installed
from .quantise import methods, quantised
from .record import Record

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["CALIBRATION", "LEAST", "MOST", "Measured", "Sources", "chosen", "measured"]

CALIBRATION = 64  # pictures; as many more at least show how faithful the result is
LEAST, MOST = CALIBRATION + 64, CALIBRATION + 256  # pictures that a measurement takes
FLOAT_GAIN, INT8_GAIN = 1.1, 1.2
ROUNDS, ROUNDS_S = 3, 2.0  # the fastest pass counts, of so many or in so many seconds
TIMED_BATCH = 16  # pictures in one of them, at most
SAME = 0.9999  # the worst cosine of two towers that both compute in float32

Tower = Callable[["Tensor"], "Tensor"]


@dataclass(frozen=True, slots=True)
class Sources:
    """The image tower of a model, in the forms that are compared."""

    size: int  # of its pictures' sides, pixels
    batch: int  # pictures in one pass
    default: str  # the torch precision that the CPU's instructions suggest
    tower: Callable[[str], Tower]  # in torch, in a precision
    module: "Callable[[], nn.Module] | None"  # float32, of plain operators; None if there is none


@dataclass(frozen=True, slots=True)
class Measured:
    """What came of a measurement: the record, the tower to use, and the models to keep."""

    record: Record
    tower: Tower
    models: dict[str, Any]  # of OpenVINO, by precision
    int8: Tower | None  # where it is faithful, though perhaps not faster


def measured(sources: Sources, pixels: np.ndarray) -> Measured:
    """Compare all ways to embed pictures, uint8 (n, s, s, 3), of which some calibrate int8.

    Where OpenVINO cannot take the tower, the record says why, and torch is used. Raise
    ``ModelError`` if the extra's installation is broken.
    """
    started = time.monotonic()
    towers = {"torch float32": sources.tower("float32")}
    if sources.default != "float32":
        towers[f"torch {sources.default}"] = sources.tower(sources.default)
    models: dict[str, Any] = {}
    agreed, method, problem = None, "", ""
    if is_installed() and sources.module is not None:
        test = pixels[CALIBRATION:]
        try:
            exact = unit_rows(towers["torch float32"], test, sources.batch)
            model = converted(sources.module(), sources.size)
            tower = OpenVinoTower(model)
            if agreement(unit_rows(tower, test, sources.batch), exact).worst < SAME:
                raise ValueError("OpenVINO computes something else than torch")
            towers["openvino float32"], models["float32"] = tower, model
            calibration = pixels[:CALIBRATION]
            for method in methods(model):
                made = quantised(model, calibration, method)
                tower = OpenVinoTower(made)
                found = agreement(unit_rows(tower, test, sources.batch), exact)
                agreed = max(agreed or found, found, key=_quality)
                if found.is_faithful:
                    towers["openvino int8"], models["int8"] = tower, made
                    break
        except (ModelError, MemoryError):  # a broken installation, or a moment's want: ask again
            raise
        except Exception as exc:  # whatever two large libraries raise for an unusual tower
            lines = str(exc).strip().splitlines()
            problem = (lines or [type(exc).__name__])[0][:160]
    elif is_installed():
        problem = "OpenVINO does not take models of this kind"
    is_faithful = "openvino int8" in towers
    speeds = timed(towers, pixels[: min(sources.batch, TIMED_BATCH)])
    name = chosen(speeds, f"torch {sources.default}")
    engine, _, precision = name.partition(" ")
    if name != "openvino float32":
        models.pop("float32", None)
    record = Record(
        engine,
        precision,
        method if is_faithful else "",
        {key: round(value, 2) for key, value in speeds.items()},
        agreed,
        problem,
        seconds=round(time.monotonic() - started, 1),
    )
    return Measured(record, towers[name], models, towers.get("openvino int8"))


def _quality(found: Agreement) -> float:
    return min(found.mean, found.worst, found.recall)


def chosen(speeds: Mapping[str, float], default: str) -> str:
    """Choose one of the engines by their speeds, as the rules above say.

    There is a speed of "openvino int8" only if that is faithful.
    """
    best = default
    for name in ("torch float32", "openvino float32"):
        if speeds.get(name, 0.0) >= FLOAT_GAIN * speeds[best]:
            best = name
    if speeds.get("openvino int8", 0.0) >= INT8_GAIN * speeds[best]:
        best = "openvino int8"
    return best


def unit_rows(tower: Tower, pixels: np.ndarray, batch: int) -> np.ndarray:
    """Embed pixels as float32 unit rows (n, d)."""
    import torch
    from torch.nn.functional import normalize

    with torch.inference_mode():
        parts = [
            normalize(tower(torch.from_numpy(pixels[row : row + batch])).float(), dim=-1)
            for row in range(0, len(pixels), batch)
        ]
        rows: np.ndarray = torch.cat(parts).numpy()
    return rows


def timed(towers: Mapping[str, Tower], pixels: np.ndarray) -> dict[str, float]:
    """Return how many pictures a second each tower embeds; they take turns, so that all meet the
    same noise.
    """
    import torch

    best = dict.fromkeys(towers, float("inf"))
    batch = torch.from_numpy(pixels)
    with torch.inference_mode():
        for tower in towers.values():
            tower(batch)
        rounds, end = 0, time.perf_counter() + ROUNDS_S
        while rounds < ROUNDS or time.perf_counter() < end:
            rounds += 1
            for name, tower in towers.items():
                start = time.perf_counter()
                tower(batch)
                best[name] = min(best[name], time.perf_counter() - start)
    return {name: len(pixels) / seconds for name, seconds in best.items()}


def digest(data: bytes) -> str:
    """Return the SHA-256 of a tower's file, in hex."""
    return hashlib.sha256(data).hexdigest()
