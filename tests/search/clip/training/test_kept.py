"""Kept features of locked layers, of small random towers."""

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from closeness import assert_close
from fovea.search.clip.errors import ModelError
from fovea.search.clip.preprocess import Preprocess
from fovea.search.clip.training import kept as module
from fovea.search.clip.training.augment import Augmentation
from fovea.search.clip.training.kept import KeptViews
from fovea.search.clip.training.split import Halves
from small_clips import PARTS, RESNET, VIT, random_clip

COUNTS = (5, 3)  # images of two sources


class Stopped(Exception):
    """Stands for a kill between two images."""


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """Four views to a part."""
    monkeypatch.setattr(module, "ROWS", 4)
    monkeypatch.setattr(module, "PART", 1)
    monkeypatch.setattr(module, "OPEN", 2)


def image(source, index):
    rng = np.random.default_rng((source, index))
    return Image.fromarray(rng.integers(0, 256, (40, 36, 3), dtype=np.uint8))


def kept_views(folder, config=PARTS, views=(2, 1), counts=COUNTS, sizes="", **changes):
    given = {"seed": 0, "identity": {"data": "a"}} | changes
    how = given.pop("augmentation", Augmentation())
    sets = [SimpleNamespace(pairs=range(n), sizes_digest=lambda: sizes) for n in counts]
    return KeptViews(folder, Halves(random_clip(config), 2, 0), sets, views, how, **given)


def computed(folder, open_image=image, config=PARTS, **changes):
    kept = kept_views(folder, config, **changes)
    kept.compute(open_image, config.vision.image_size, workers=2)
    return kept


def everything(kept, counts=COUNTS):
    return [
        np.array(array)  # not mapped: a test may damage the file
        for source, count in enumerate(counts)
        for index in range(count)
        for view in range(kept.views[source])
        for array in (kept.get(source, index, view).features, kept.get(source, index, view).pooled)
    ]


def same(one, two):
    return len(one) == len(two) and all(map(np.array_equal, one, two))


@torch.no_grad()
@pytest.mark.parametrize("config", [PARTS, VIT, RESNET], ids=["lite", "vit", "resnet"])
def test_the_first_view_has_the_features_of_the_whole_image(tmp_path, config):
    kept = computed(tmp_path, config=config)
    halves, size = Halves(random_clip(config), 2, 0), config.vision.image_size
    for place in ((0, 0), (0, 4), (1, 2)):
        pixels = np.asarray(image(*place).resize((size, size), Image.Resampling.BICUBIC))
        x = torch.from_numpy(Preprocess.from_config(config).normalise(pixels[None]))
        found, expected = kept.get(*place, 0), halves.lower_images(x)
        assert found.features.dtype == found.pooled.dtype == np.float16
        assert_close(found.features, expected[0], dtype="float16", roundings=8)
        if config is PARTS:
            pooled = halves.model.visual.pool(halves.top_images(expected))
            assert_close(found.pooled, pooled[0], dtype="float16", roundings=8)
        else:
            assert found.pooled.shape == (0,)


def test_other_views_are_other_crops(tmp_path):
    kept = computed(tmp_path)
    assert not np.allclose(kept.get(0, 1, 0).features, kept.get(0, 1, 1).features, atol=1e-3)


def test_views_are_those_of_a_run_of_their_own(tmp_path):
    one, two = computed(tmp_path / "one"), computed(tmp_path / "two")
    assert same(everything(one), everything(two))
    more = computed(tmp_path / "two", seed=1)
    assert not same(everything(one), everything(more))
    plain = [kept.get(0, 3, 0).features for kept in (one, more)]
    assert np.array_equal(*plain)  # the whole image is not drawn


def test_kept_views_are_not_computed_again(tmp_path, monkeypatch):
    first = everything(computed(tmp_path))

    def unreachable(*arguments, **options):
        raise AssertionError("opened again, or locked")

    assert same(first, everything(computed(tmp_path, unreachable)))
    monkeypatch.setattr(module.FileLock, "acquire", unreachable)  # a folder to be read only
    assert same(first, everything(computed(tmp_path, unreachable)))


def test_progress_counts_the_images_of_all_sources(tmp_path):
    for _ in range(2):  # computed, then read
        seen = []
        kept_views(tmp_path).compute(image, 32, 1, lambda *counts, to=seen: to.append(counts))
        assert seen == [(2, 8), (4, 8), (5, 8), (8, 8)]


def test_a_stopped_run_computes_only_what_is_missing(tmp_path):
    opened = []

    def counted(source, index):
        opened.append((source, index))
        if len(opened) == 4:
            raise Stopped
        return image(source, index)

    with pytest.raises(Stopped):
        computed(tmp_path / "stopped", counted)
    first = opened[:2]
    opened[:] = [None] * 4
    resumed = computed(tmp_path / "stopped", counted)
    again = opened[4:]
    assert len(again) == sum(COUNTS) - len(first) and not set(first) & set(again)
    assert same(everything(resumed), everything(computed(tmp_path / "whole")))


def test_broken_images_are_remembered(tmp_path):
    def half(source, index):
        return None if (source, index) in {(0, 1), (1, 2)} else image(source, index)

    for kept in (computed(tmp_path, half), computed(tmp_path, half)):
        assert kept.broken == {(0, 1), (1, 2)}
        whole = np.concatenate(list(kept.whole()))
        assert len(whole) == sum(COUNTS) - 2
        assert np.array_equal(whole[1], kept.get(0, 2, 0).pooled)


def test_broken_images_are_tried_again_by_each_start(tmp_path):
    broken, opened = {(0, 1), (1, 2)}, []

    def half(source, index):
        opened.append((source, index))
        return None if (source, index) in broken else image(source, index)

    computed(tmp_path, half)
    opened.clear()
    computed(tmp_path, half)
    assert opened == [(0, 1), (1, 2)]  # and nothing is computed
    broken.remove((0, 1))
    kept = computed(tmp_path, half)
    assert kept.broken == {(1, 2)}
    whole = computed(tmp_path / "other", half)
    assert same(everything(kept), everything(whole))


def test_one_process_at_a_time_computes(tmp_path):
    began, waits, goes_on = (threading.Event() for _ in range(3))
    opened = []

    def slow(source, index):
        opened.append((source, index))
        began.set()
        assert goes_on.wait(60)
        return image(source, index)

    def unreachable(source, index):
        waits.set()
        raise AssertionError("computed by both")

    class Waiting(logging.Handler):
        def emit(self, record):
            if "waiting for another run that computes the features in" in record.getMessage():
                waits.set()

    handler = Waiting()
    module.log.addHandler(handler)
    try:
        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(computed, tmp_path, slow)
            assert began.wait(60)
            second = pool.submit(computed, tmp_path, unreachable)
            assert waits.wait(60)
            goes_on.set()
            assert same(everything(first.result()), everything(second.result()))
    finally:
        goes_on.set()
        module.log.removeHandler(handler)
    assert sorted(opened) == [(s, n) for s, count in enumerate(COUNTS) for n in range(count)]


def test_a_folder_that_cannot_be_locked_is_told(tmp_path, monkeypatch):
    def refused(lock, *arguments, **options):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(module.FileLock, "acquire", refused)
    with pytest.raises(ModelError, match="cannot lock .*: No locks available; keep the features"):
        computed(tmp_path)


@pytest.mark.parametrize("failing", ["numpy.save", "os.fsync"])
def test_a_full_disk_is_told_and_leaves_no_part(tmp_path, monkeypatch, failing):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(failing, full)
        with pytest.raises(ModelError, match=r"cannot write .*features.npy: .* is full .*make"):
            computed(tmp_path)
    assert not list(tmp_path.rglob("*.part"))
    assert same(everything(computed(tmp_path)), everything(computed(tmp_path / "other")))


@pytest.mark.parametrize("broken", ["3", "{}", '["1"]', "[true]", "[-1]", "[99]", "null", "[[0]]"])
def test_a_list_of_broken_images_that_is_none_is_made_again(tmp_path, broken):
    before = everything(computed(tmp_path))
    [path] = tmp_path.rglob("1-0-broken.json")
    path.write_text(broken)
    kept = computed(tmp_path)
    assert path.read_text() == "[]" and not kept.broken
    assert same(before, everything(kept))


@pytest.mark.parametrize("kind", ["features", "pooled"])
@pytest.mark.parametrize(
    "damage",
    [lambda a: a[:, :1], lambda a: a[:1], lambda a: a[0], lambda a: a.astype(np.float32)],
    ids=["views", "images", "dimensions", "dtype"],
)
def test_a_part_of_another_shape_is_computed_again(tmp_path, kind, damage):
    before = everything(computed(tmp_path))
    [path] = tmp_path.rglob(f"0-0-{kind}.npy")
    np.save(path, damage(np.load(path)))
    assert same(before, everything(computed(tmp_path)))


def test_features_are_computed_in_float32_on_any_processor(tmp_path, monkeypatch):
    monkeypatch.setattr("fovea.search.clip.encoders.base.multiplies_bfloat16", lambda: True)
    seen = []

    class Watched(Halves):
        def lower_images(self, pixels):
            found = super().lower_images(pixels)
            seen.append(found.dtype)
            return found

    monkeypatch.setitem(globals(), "Halves", Watched)
    computed(tmp_path)
    assert set(seen) == {torch.float32}


@pytest.mark.parametrize("name", ["0-0-features.npy", "0-2-pooled.npy", "1-0-broken.json"])
def test_a_damaged_part_is_computed_again(tmp_path, name):
    before = everything(computed(tmp_path))
    [path] = tmp_path.rglob(name)
    for content in (path.read_bytes()[:-1], b""):
        path.write_bytes(content)
        assert same(before, everything(computed(tmp_path)))


def test_a_part_that_is_lost_later_is_told(tmp_path):
    kept = computed(tmp_path)
    for path in tmp_path.rglob("*-features.npy"):
        path.unlink()
    with pytest.raises(ModelError, match="cannot be read back; check the disk"):
        everything(kept)


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"views": (2, 2)},
        {"counts": (5, 2)},
        {"identity": {"data": "b"}},
        {"sizes": "other"},
        {"augmentation": Augmentation(flip=0.0)},
    ],
)
def test_whatever_changes_the_features_changes_their_folder(tmp_path, changes):
    for _ in range(2):
        kept_views(tmp_path)
        kept_views(tmp_path, **changes)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ModelError, match="cannot make the folder .*file"):
        kept_views(tmp_path / "file")
