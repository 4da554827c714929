import numpy as np
import pytest
from PIL import Image

from fovea.indexer.learning import near_duplicates as copies
from fovea.indexer.learning.near_duplicates import groups, thumbnail


def picture(seed, size=60):
    """A smooth random picture, uint8 (size, size, 3)."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8))
    return np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC))


def test_copies_of_another_size_or_quality_are_one_group(tmp_path):
    Image.fromarray(picture(1)).save(tmp_path / "a.jpg", quality=60)
    with Image.open(tmp_path / "a.jpg") as again:
        stored = np.asarray(again.resize((40, 40)))
    shown = [picture(0), picture(1), picture(2), stored, picture(0, size=100)]
    found = groups(np.stack([thumbnail(one) for one in shown]))
    assert found.tolist() == [0, 1, 2, 1, 0]


@pytest.mark.parametrize("block", [1, 3, 1000])
def test_a_copy_of_a_copy_is_a_copy(monkeypatch, block):
    monkeypatch.setattr(copies, "BLOCK", block)
    rows = np.full((7, 192), 100, np.uint8)
    rows[1:5] += np.arange(1, 5, dtype=np.uint8)[:, None] * 7  # each like the one before
    rows[5] = 200
    rows[6] = 205
    assert groups(rows).tolist() == [0, 0, 0, 0, 0, 5, 5]


def test_nothing_has_no_groups():
    assert groups(np.empty((0, 192), np.uint8)).tolist() == []
