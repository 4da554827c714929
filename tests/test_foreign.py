import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("transformers", reason="the optional extra 'transformers' is not installed")

from foreign_clips import write_foreign  # noqa: E402
from search.clip.encoder import load_encoder  # noqa: E402
from search.clip.families import FAMILIES  # noqa: E402

CHECKOUT = Path(__file__).parents[1]
TEXTS = ["a red dog on the beach", "ein hund am strand", "红色自行车", "一只狗在海滩上", "cat"]


def noise(width, height, seed=0):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (max(1, height // 4), max(1, width // 4), 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


PICTURES = [noise(*size) for size in ((64, 48), (48, 65), (33, 90), (32, 32), (200, 30), (41, 37))]


def exact(folder):
    return load_encoder(folder, device="cpu", dtype="float32")


@pytest.mark.parametrize("together", [True, False], ids=["one file", "two files"])
@pytest.mark.parametrize("kind", sorted(FAMILIES))
def test_embeddings_equal_those_of_transformers_itself(tmp_path, kind, together):
    own = write_foreign(tmp_path / "m", kind, together=together)
    encoder = exact(tmp_path / "m")
    want = np.concatenate([own.images([picture]) for picture in PICTURES])
    got = encoder.encode_images(PICTURES)
    assert got.dtype == np.float32 and got.shape == (len(PICTURES), encoder.dim)
    np.testing.assert_allclose(got, want, atol=1e-5)
    np.testing.assert_allclose(encoder.encode_texts(TEXTS), own.texts(TEXTS), atol=1e-5)
    assert encoder.encode_texts([]).shape == (0, encoder.dim)
    assert abs(np.linalg.norm(got, axis=1) - 1).max() < 1e-5
    spread = want @ want.T
    assert spread.min() < 0.9, "the random model tells pictures apart"
