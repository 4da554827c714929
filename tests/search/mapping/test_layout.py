"""Where pictures lie on a map, and what lies together."""

import numpy as np
import pytest

from fovea.search.errors import LibraryError
from fovea.search.mapping import layout
from fovea.search.mapping.clusters import Cluster, grouped, members, named
from fovea.search.mapping.layout import SIDE, laid_out, placed, spread
from vectors import clustered

pytest.importorskip("sklearn", reason="a map needs fovea[map]")

DIM = 24


@pytest.fixture(scope="module")
def landmarks():
    """300 vectors around 10 centres, and their places."""
    vectors = clustered(300, DIM, centres=10)
    return vectors, laid_out(vectors)


def kept(vectors, places, k=10):
    """The share of each vector's k nearest that are among the k nearest places."""
    alike = np.argsort(-vectors @ vectors.T, axis=1)[:, 1 : k + 1]
    away = np.linalg.norm(places[:, None] - places[None], axis=-1)
    np.fill_diagonal(away, np.inf)
    near = np.argsort(away, axis=1)[:, :k]
    return np.mean([np.isin(a, n).mean() for a, n in zip(alike, near, strict=True)])


def test_what_is_alike_lies_together(landmarks):
    vectors, places = landmarks
    chance = 10 / (len(vectors) - 1)
    shuffled = places[np.random.default_rng(0).permutation(len(places))]
    assert kept(vectors, places) > 8 * chance
    assert kept(vectors, shuffled) < 2 * chance


def test_the_same_pictures_get_the_same_places(landmarks):
    vectors, places = landmarks
    assert np.array_equal(laid_out(vectors), places)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 10, 11, 12])
def test_few_pictures_have_places_too(count):
    places = laid_out(clustered(count, DIM))
    assert places.shape == (count, 2)
    assert np.isfinite(places).all()
    assert ((places >= 0) & (places <= SIDE)).all()
    assert len(np.unique(places, axis=0)) == count


@pytest.mark.parametrize("count", [2, 10, 40])
def test_copies_of_one_picture_lie_beside_each_other(count):
    vectors = np.repeat(clustered(1, DIM), count, axis=0)
    places = laid_out(vectors)
    assert np.isfinite(places).all()
    found = spread(placed(vectors, vectors, places)[0])
    assert len(np.unique(found, axis=0)) == count


def test_a_new_picture_lies_where_those_like_it_do(landmarks):
    vectors, places = landmarks
    rng = np.random.default_rng(5)
    new = vectors + 0.1 * rng.standard_normal(vectors.shape).astype(np.float32) / np.sqrt(DIM)
    new /= np.linalg.norm(new, axis=1, keepdims=True)
    found, _ = placed(new, vectors, places)
    away = np.linalg.norm(found - places, axis=1)
    by_chance = np.linalg.norm(found - places[rng.permutation(len(places))], axis=1)
    assert np.median(away) < np.median(by_chance) / 10


def test_a_picture_is_placed_by_itself_alone(landmarks):
    vectors, places = landmarks
    new = clustered(50, DIM, seed=3, centres=10)
    together, _ = placed(new, vectors, places)
    alone = np.concatenate([placed(row[None], vectors, places)[0] for row in new])
    assert np.allclose(together, alone, atol=0.05)  # float32; a map has 65,536 places a side


def test_a_picture_between_two_neighbourhoods_lies_in_one_of_them():
    vectors = np.eye(4, dtype=np.float32)[:2].repeat(3, axis=0)
    spots = np.array([[1000, 1000]] * 3 + [[60000, 60000]] * 3, np.float32)
    middle = np.array([[0.7072, 0.7070, 0, 0]], np.float32)
    [place], [nearest] = placed(middle, vectors, spots)
    assert np.array_equal(place, spots[nearest])


def test_spreading_moves_nothing_that_was_there_before():
    places = np.full((5, 2), 300.0)
    first = spread(places)
    assert len(np.unique(first, axis=0)) == 5
    more = spread(places, taken=first)
    assert len(np.unique(np.concatenate([first, more]), axis=0)) == 10
    assert np.abs(more.astype(int) - 300).max() < 500
    corner = spread(np.zeros((20, 2)))
    assert len(np.unique(corner, axis=0)) == 20


def test_without_scikit_learn_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr(layout.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(LibraryError, match=r'scikit-learn.*pip install "fovea\[map\]"'):
        laid_out(clustered(3, DIM))


def test_groups_lie_within_those_of_the_level_above(landmarks):
    _, places = landmarks
    leaves, groups = grouped(places)
    levels = [level for level, _ in groups]
    assert levels == sorted(levels)
    assert max(levels) == 1
    for level, parent in groups:
        assert (parent is None) == (level == 0)
        assert parent is None or groups[parent][0] == level - 1
    assert set(leaves) == {n for n, level in enumerate(levels) if level == 1}


@pytest.mark.parametrize("count", [0, 1, 5, 23])
def test_few_pictures_are_one_group(count):
    leaves, groups = grouped(np.random.default_rng(0).random((count, 2)))
    assert groups == [(0, None)]
    assert len(leaves) == count and not leaves.any()


def cluster(number, parent=None):
    return Cluster(number, 0 if parent is None else 1, parent, (), 0, 0.0, 0.0, 0.0, None)


def test_clusters_are_named_by_what_sets_them_apart():
    clusters = [cluster(0), cluster(1), cluster(2, 0), cluster(3, 0), cluster(4, 1)]
    leaves = np.repeat([2, 3, 4], [50, 50, 400])
    rng = np.random.default_rng(0)
    shares = 0.002 * rng.random((500, 5))
    shares[:, 0] = 0.3  # everywhere
    shares[:100, 1] = 0.4  # in cluster 0
    shares[:50, 2] = 0.3  # in cluster 2 alone
    shares[120, 3] = 0.9  # of one picture
    found = named(clusters, leaves, shares, ["picture", "dog", "beach", "one", "other"])
    assert [one.names for one in found] == [("dog",), (), ("beach", "dog"), ("dog",), ()]


def test_a_library_that_is_one_cluster_has_nothing_to_be_told_from():
    shares = np.full((30, 2), 0.5)
    [found] = named([cluster(0)], np.zeros(30, int), shares, ["dog", "cat"])
    assert found.names == ()


def test_members_of_a_cluster_are_those_of_the_clusters_within():
    clusters = [cluster(0), cluster(1), cluster(2, 0), cluster(3, 0), cluster(4, 1)]
    found = members(clusters, np.array([4, 2, 3, 2]))
    assert {number: rows.tolist() for number, rows in found.items()} == {
        0: [1, 2, 3], 1: [0], 2: [1, 3], 3: [2], 4: [0],
    }  # fmt: skip
