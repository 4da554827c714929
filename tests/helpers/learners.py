"""Learners of tiny models, one of them made of parts, and a batch for them."""

from dataclasses import replace

import numpy as np
import torch

from coloured import captioned_source, tiny_run
from fovea.search.clip.model import CLIP, initialise
from fovea.search.clip.parts.joining import joined
from fovea.search.clip.parts.packaged import open_image_part, open_text_part
from fovea.search.clip.training.batches import Batch
from fovea.search.clip.training.distributed import World
from fovea.search.clip.training.learner import Learner
from fovea.search.clip.training.recipe import TrainOptions
from small_clips import CLASSES, install_parts


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


def parts_run(folder, **changes):
    """Return the options of a run of a few steps from the parts of ``small_clips``."""
    options = {
        "out": folder / "run",
        "image_tower": "tiny-lite",
        "text_tower": "tiny-bert",
        "class_names": True,
        "tune_image": "2",
        "tune_text": "1",
        "batch_size": 8,
        "samples": 32,
        "classes_drawn": 4,
        "lr": 3e-3,
        "dtype": "float32",
        "device": "cpu",
        "workers": 1,
        "log_every": 2,
        "save_every": 2,
    } | changes
    if "sources" not in options:
        options["sources"] = (captioned_source(folder),)
    return TrainOptions(**options)


def parts_learner(tmp_path, monkeypatch, **changes):
    """Return a learner of a model joined of small parts, and the options of its run."""
    install_parts(tmp_path / "packages", monkeypatch)
    options = parts_run(tmp_path, sources=(), **changes)
    torch.manual_seed(0)
    image, text = open_image_part("tiny-lite"), open_text_part("tiny-bert")
    model = joined(image, text, names=CLASSES, hidden=options.hidden, queries=options.queries)
    return Learner(model, options, World()), text.tokenizer


def worded(one, tokenizer):
    """The batch with texts of this tokenizer, the same for each image's texts."""
    texts = ["a red square", "one small tile .", "the picture is blue", "a photo of a white tile"]
    tokens = tokenizer.tokenize([texts[n % 4] for n in range(len(one.tokens))], 9)
    return replace(one, tokens=tokens)
