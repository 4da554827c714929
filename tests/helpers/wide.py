"""Toy models that a library changes to and from."""

from types import SimpleNamespace

import numpy as np

from fovea.indexer.switching.switch import switch_model
from fovea.search.clip.preprocess import Preprocess
from toys import TolerantEncoder

FORMER, NEW, THIRD = "c0" * 32, "d1" * 32, "e2" * 32
DIMS = {FORMER: 3, NEW: 4, THIRD: 4}


def described(identity):
    return SimpleNamespace(
        name=f"model-{identity[:2]}", identity=identity, dim=DIMS[identity],
        preprocess=Preprocess(8), source="test",
    )  # fmt: skip


class WideEncoder(TolerantEncoder):
    """Red, green, blue, and how bright; ``before`` is called with the number of each batch."""

    dim = 4

    def __init__(self, before=None):
        super().__init__()
        self.before, self.batches = before, 0

    def encode_pixels(self, pixels):
        self.batches += 1
        if self.before:
            self.before(self.batches)
        return widened(super().encode_pixels(pixels))

    def encode_texts(self, texts):
        return widened(super().encode_texts(texts))


def widened(rows):
    """Rows of one more column: their sum."""
    rows = np.concatenate([rows, rows.sum(axis=1, keepdims=True)], axis=1)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def switch(library, identity=NEW, encoder=None, **options):
    encoder = encoder or (TolerantEncoder() if identity == FORMER else WideEncoder())
    options = {"batch_size": 3} | options
    return switch_model(
        library, model=described(identity), load_encoder=lambda: encoder, workers=1, **options
    )
