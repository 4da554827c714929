"""How near embeddings must be, and which engine is taken."""

import numpy as np
import pytest

from fovea.search.clip.engines.choose import FLOAT_GAIN, INT8_GAIN, chosen
from fovea.search.clip.engines.faithful import Agreement, agreement
from vectors import clustered


def test_the_same_embeddings_agree():
    rows = clustered(80, 32)
    found = agreement(rows, rows)
    assert (found.mean, found.worst) == pytest.approx((1, 1))
    assert (found.recall, found.pictures, found.is_faithful) == (1, 80, True)


def test_neighbours_are_compared_as_sets_of_ten_others():
    rows = clustered(200, 8)
    noisy = rows + 0.1 * clustered(200, 8, seed=1)
    noisy /= np.linalg.norm(noisy, axis=1, keepdims=True)
    shared = []
    for row in range(200):  # one at a time, in float64, by sorting
        near = [
            [other for other in np.argsort(-(some.astype(float) @ some[row])) if other != row][:10]
            for some in (rows, noisy)
        ]
        shared.append(len(set(near[0]) & set(near[1])) / 10)
    assert agreement(noisy, rows).recall == pytest.approx(np.mean(shared))
    assert agreement(noisy, rows).worst == pytest.approx((noisy * rows).sum(1).min())


@pytest.mark.parametrize(
    ("mean", "worst", "recall", "is_faithful"),
    [
        (0.99, 0.98, 0.95, True),
        (0.989, 0.98, 0.95, False),
        (0.999, 0.979, 1.0, False),
        (0.999, 0.99, 0.949, False),
    ],
)
def test_what_is_faithful(mean, worst, recall, is_faithful):
    assert Agreement(mean, worst, recall, 64).is_faithful is is_faithful


def test_embeddings_that_are_no_numbers_are_not_faithful():
    rows = clustered(20, 8)
    broken = rows.copy()
    broken[3] = np.nan
    assert not agreement(broken, rows).is_faithful


def test_any_copy_of_a_picture_is_as_good_a_neighbour():
    copies = np.repeat(clustered(4, 32), 20, axis=0)
    other = copies[::-1] + np.float32(1e-4) * clustered(80, 32, seed=1)
    other /= np.linalg.norm(other, axis=1, keepdims=True)
    assert agreement(other[::-1], copies).recall == 1


def test_too_few_pictures_are_refused():
    rows = clustered(10, 8)
    with pytest.raises(ValueError, match="too few"):
        agreement(rows, rows)


OF = "openvino float32"


@pytest.mark.parametrize(
    ("speeds", "default", "expected"),
    [
        ({"torch float32": 10}, "torch float32", "torch float32"),
        ({"torch float32": 10, "torch bfloat16": 10.5}, "torch bfloat16", "torch bfloat16"),
        ({"torch float32": 10, "torch bfloat16": 9.5}, "torch bfloat16", "torch bfloat16"),
        ({"torch float32": 15, "torch bfloat16": 10}, "torch bfloat16", "torch float32"),
        ({"torch float32": 10, OF: 10 * FLOAT_GAIN}, "torch float32", OF),
        ({"torch float32": 10, OF: 10.9}, "torch float32", "torch float32"),
        (
            {"torch float32": 10, OF: 13, "openvino int8": 13 * INT8_GAIN},
            "torch float32",
            "openvino int8",
        ),
        ({"torch float32": 10, OF: 13, "openvino int8": 15}, "torch float32", OF),
    ],
)
def test_another_engine_must_be_clearly_faster(speeds, default, expected):
    assert chosen(speeds, default) == expected
