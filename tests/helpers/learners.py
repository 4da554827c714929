"""A learner of a tiny model, and a batch for it."""

import numpy as np
import torch

from coloured import tiny_run
from fovea.search.clip.model import CLIP, initialise
from fovea.search.clip.training.batches import Batch
from fovea.search.clip.training.distributed import World
from fovea.search.clip.training.learner import Learner


def learner(tmp_path, **changes):
    options = tiny_run(tmp_path, sources=(), **changes)
    torch.manual_seed(0)
    model = CLIP(options.config(600))
    initialise(model)
    return Learner(model, options, World())


def batch(n=8, seed=0):
    rng = np.random.default_rng(seed)
    tokens = np.zeros((2 * n, 9), np.int64)
    for row in tokens:
        length = int(rng.integers(2, 9))
        row[: length + 1] = [598, *rng.integers(0, 500, size=length - 1), 599]
    tags = np.arange(4 * n).reshape(2 * n, 2)
    tags[1, 1] = tags[0, 0]  # two pairs that are not each other's negatives
    pixels = rng.integers(0, 256, size=(n, 32, 32, 3), dtype=np.uint8)
    owners = [
        *range(n),
        *rng.integers(0, n, size=n // 2),
        *[-1] * (n // 2),
    ]  # more captions, prompts
    sources = np.arange(2 * n) % 2
    return Batch(0, pixels, tokens, np.array(owners), sources, tags, np.ones((n, 4), np.float32))
