"""An index is trained for any width, and refused if it does not equal exhaustive search."""

import numpy as np
import pytest

from closeness import assert_close
from fovea.search.index import train_ivf as training
from fovea.search.index.ivf import IvfIndex
from vectors import clustered


@pytest.mark.parametrize(
    ("dim", "parts"), [(512, 64), (256, 32), (640, 80), (768, 96), (1024, 128), (3, 1), (100, 10)]
)
def test_codes_have_a_part_for_about_eight_dimensions(dim, parts):
    index = training.train(clustered(700, dim).astype(np.float16))
    assert index.pq.M == parts


@pytest.mark.parametrize("dim", [30, 96])
def test_indices_of_several_widths_reach_the_recall_required(dim):
    vectors = clustered(3000, dim).astype(np.float16)
    index = training.train(vectors)
    training.fill(index, vectors)
    assert index.ntotal == 3000
    effort = training.measure_recall(vectors, index)
    assert effort is not None and effort.recall >= training.RECALL[10]


def test_filling_goes_on_where_it_stopped():
    vectors = clustered(3000, 16).astype(np.float16)
    index = training.train(vectors)
    training.fill(index, vectors[:1000])
    training.fill(index, vectors)
    assert index.ntotal == 3000
    effort = training.measure_recall(vectors, index)
    assert IvfIndex(vectors, index, effort, 0).search(vectors[2500:2501].astype("f4"), 1)[1] == 2500


def test_an_index_that_misses_neighbours_is_refused(monkeypatch):
    vectors = clustered(3000, 32, centres=1, spread=50.0).astype(np.float16)  # no structure
    index = training.train(vectors)
    training.fill(index, vectors)
    monkeypatch.setattr(training, "PROBES", (1,))
    monkeypatch.setattr(training, "FACTORS", (2,))
    assert training.measure_recall(vectors, index) is None


def test_an_index_of_something_else_is_refused(monkeypatch):
    monkeypatch.setattr(training, "FACTORS", (8,))  # with more, all candidates are compared
    vectors = clustered(3000, 32).astype(np.float16)
    index = training.train(vectors)
    training.fill(index, np.roll(vectors, 1500, axis=0))  # positions that mean other vectors
    assert training.measure_recall(vectors, index) is None


def test_training_twice_gives_the_same_lists():
    vectors = clustered(3000, 16).astype(np.float16)
    first, second = training.train(vectors), training.train(vectors)
    assert_close(
        second.quantizer.reconstruct_n(0, second.nlist),
        first.quantizer.reconstruct_n(0, first.nlist),
        terms=3000,  # vectors that a centre may be the mean of
    )
