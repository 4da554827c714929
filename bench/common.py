"""What several benchmarks need: clustered vectors, a model with random weights, new processes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from fovea.search.clip.config import ClipConfig

BATCH = 10_000  # rows of clustered vectors
PER_CLUSTER = 250

T = TypeVar("T")


def clustered(count: int, size: int, dim: int, seed: int) -> Iterator[np.ndarray]:
    """Yield ``count`` float32 unit rows, a batch at a time, around fixed centres.

    The noise is as long as the centre's vector: the cosine of two images is about 0.5 within a
    cluster and about 0 otherwise. ``size`` decides the number of clusters.
    """
    centres = _unit(np.random.default_rng(0).standard_normal((max(1, size // PER_CLUSTER), dim)))
    rng = np.random.default_rng(seed)
    for start in range(0, count, BATCH):
        rows = min(BATCH, count - start)
        noise = rng.standard_normal((rows, dim), dtype=np.float32) / np.float32(np.sqrt(dim))
        yield _unit(centres[rng.integers(0, len(centres), rows)] + noise)


def _unit(rows: np.ndarray) -> np.ndarray:
    scaled: np.ndarray = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return scaled.astype(np.float32)


def write_model(folder: Path, config: ClipConfig | None = None) -> Path:
    """Write a CLIP with random weights, scaled to keep activations in a realistic range.

    Without a configuration it is a ViT-B/32.
    """
    import torch
    from safetensors.torch import save_file

    from fovea.search.clip.checkpoints.shapes import expected_shapes
    from fovea.search.clip.config import ClipConfig, TextConfig, VisionConfig

    if config is None:
        vision = VisionConfig(224, 12, 768, 12, patch_size=32)
        config = ClipConfig(512, vision, TextConfig(77, 49408, 512, 8, 12))
    generator = torch.Generator().manual_seed(0)
    state = {
        name: torch.randn(shape, generator=generator) * (shape[-1] if shape else 1) ** -0.5
        for name, shape in expected_shapes(config).items()
    }
    folder.mkdir(exist_ok=True)
    save_file(state, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    return folder


def apart(work: Callable[..., T], *arguments: object) -> T:
    """Call a function in a new process, so that it shares no memory or threads."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()
