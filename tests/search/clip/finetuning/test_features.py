import numpy as np
import pytest
import torch

from closeness import assert_close
from fovea.search.clip.errors import ModelError
from fovea.search.clip.finetuning.features import FeatureStore, LowerHalf
from fovea.search.clip.training.split import Halves
from small_clips import RESNET, VIT, random_clip

CONTENTS = [b"one", b"two"]
FEATURES = np.arange(24, dtype=np.float16).reshape(2, 3, 4)


def test_a_part_comes_back_for_the_same_contents_in_the_same_order(tmp_path):
    store = FeatureStore(tmp_path, {"model": "a"})
    assert store.get(CONTENTS) is None
    put = store.put(CONTENTS, {"left_out": 1}, FEATURES)
    found = FeatureStore(tmp_path, {"model": "a"}).get(CONTENTS)
    for part in (put, found):
        assert part.notes == {"left_out": 1} and np.array_equal(part.features, FEATURES)
    assert store.get(CONTENTS[::-1]) is None
    assert store.get([b"onet", b"wo"]) is None
    assert FeatureStore(tmp_path, {"model": "b"}).get(CONTENTS) is None


def test_a_part_without_pictures_is_a_part(tmp_path):
    store = FeatureStore(tmp_path, 1)
    assert store.put([], [], np.empty((0, 3))).features.shape == (0, 3)


@pytest.mark.parametrize("suffix", [".npy", ".json"])
def test_a_part_that_is_not_whole_is_none(tmp_path, suffix):
    store = FeatureStore(tmp_path, 1)
    store.put(CONTENTS, [], FEATURES)
    [path] = tmp_path.glob(f"*{suffix}")
    for content in (path.read_bytes()[:-5], b""):
        path.write_bytes(content)
        assert store.get(CONTENTS) is None
    path.unlink()
    assert store.get(CONTENTS) is None


def test_parts_that_nobody_asks_for_are_dropped(tmp_path):
    FeatureStore(tmp_path, 1).put(CONTENTS, [], FEATURES)
    store = FeatureStore(tmp_path, 1)
    store.put([b"three"], [], FEATURES[:1])
    store.drop_others()
    assert store.get(CONTENTS) is None and store.get([b"three"]) is not None
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("failing", ["npy", "json"])
def test_a_full_disk_is_told_and_leaves_no_part(tmp_path, monkeypatch, failing):
    store = FeatureStore(tmp_path, 1)

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("numpy.save" if failing == "npy" else "os.fsync", full)
    with pytest.raises(ModelError, match=r"cannot write .* is full"):
        store.put(CONTENTS, [], FEATURES)
    assert store.get(CONTENTS) is None
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize("config", [VIT, RESNET], ids=["vit", "resnet"])
def test_the_first_view_is_the_whole_picture(config):
    model = random_clip(config)
    lower = LowerHalf(model, 1, device="cpu", dtype="float32")
    rng = np.random.default_rng(0)
    level = rng.integers(0, 256, (2, 1, 1, 3), dtype=np.uint8)
    squares = [np.broadcast_to(one, (lower.side, lower.side, 3)) for one in level]
    found = lower.features(squares, CONTENTS, 3)
    assert found.dtype == np.float16 and found.shape[:2] == (2, 3)
    size = config.vision.image_size
    pixels = np.broadcast_to(level, (2, size, size, 3))
    with torch.no_grad():
        expected = Halves(model, 1, 1).lower_images(
            torch.from_numpy(lower.preprocess.normalise(pixels))
        )
    # resampling a flat square may miss its level by one of 255 steps
    assert_close(found[:, 0], expected, dtype="float16", roundings=8)
    assert not np.allclose(found[:, 0], found[:, 1], atol=0.02)  # its colours vary


def test_views_follow_from_the_content_alone():
    lower = LowerHalf(random_clip(VIT), 1, device="cpu", dtype="float32")
    rng = np.random.default_rng(0)
    squares = list(rng.integers(0, 256, (3, lower.side, lower.side, 3), dtype=np.uint8))
    contents = [bytes([number]) * 32 for number in range(3)]
    one = lower.features(squares, contents, 4)
    two = lower.features(squares[1:], contents[1:], 4)
    assert_close(two, one[1:], dtype="float16", roundings=4)
    assert not np.allclose(one[1], lower.features(squares[1:2], contents[:1], 4)[0], atol=0.01)
