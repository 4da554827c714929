"""The logistic regression against scikit-learn, and where its line lies."""

import numpy as np
import pytest

from fovea.search.tags.probe import (
    ANSWERS,
    PRECISE,
    Probe,
    average_precision,
    fit_logistic,
    fit_probe,
    settled,
)


def drawn(count, dim, seed):
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((count, dim))
    rows[: count // 4, 0] += 2
    return rows / np.linalg.norm(rows, axis=1, keepdims=True), np.arange(count) < count // 4


@pytest.mark.parametrize(
    ("count", "dim", "strength"),
    [(60, 10, 0.1), (20, 64, 0.1), (60, 10, 10.0), (20, 64, 1000.0), (200, 50, 1.0)],
)
def test_it_is_scikit_learns(count, dim, strength):
    linear = pytest.importorskip("sklearn.linear_model", reason="needs scikit-learn")
    rows, is_so = drawn(count, dim, count)
    weights = np.random.default_rng(1).uniform(0.2, 5, count)
    found = fit_logistic(rows, is_so, weights, strength)
    theirs = linear.LogisticRegression(C=strength, tol=1e-10, max_iter=10_000)
    theirs.fit(rows, is_so, sample_weight=weights)
    np.testing.assert_allclose(found[:-1], theirs.coef_[0], atol=1e-4 * np.abs(found).max())
    np.testing.assert_allclose(found[-1], theirs.intercept_[0], atol=1e-4 * np.abs(found).max())


@pytest.mark.parametrize("dim", [8, 300])
def test_a_probe_is_the_same_in_few_and_in_many_dimensions(dim):
    rows, is_so = drawn(80, 8, 3)
    wide = np.zeros((80, dim))
    wide[:, :8] = rows
    probe = fit_probe(wide[is_so], wide[~is_so][:10], wide[~is_so][10:])
    few = fit_probe(rows[is_so], rows[~is_so][:10], rows[~is_so][10:])
    np.testing.assert_allclose(probe.weights[:8], few.weights, atol=1e-4)
    assert probe.threshold == pytest.approx(few.threshold, abs=1e-5)


def test_separable_examples_and_equal_ones_are_fitted():
    one = np.eye(4)[[0, 0, 0]]
    assert np.isfinite(fit_probe(one, np.eye(4)[[1]], np.eye(4)[[2, 3]]).weights).all()
    assert np.isfinite(fit_probe(one, one, one).weights).all()
    assert fit_probe(one[:2], one, one) is None
    assert fit_probe(one, one[:0], one[:0]) is None


def tangled(count, share, seed):
    """Pictures of which a share has the tag, not quite told apart by the first number."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((count, 16)) * 0.5
    is_so = rng.random(count) < share
    rows[:, 0] += np.where(is_so, 0.9, -0.2)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True), is_so


def judged(rows, is_so, rounds, seed):
    """Confirm and reject what a probe suggests, and return the last one and who was spoken of."""
    yes = np.random.default_rng(seed).permutation(np.flatnonzero(is_so))[:5]
    no, answers = yes[:0], yes[:0]
    for turn in range(rounds + 1):
        named = np.concatenate([yes, no])
        probe = fit_probe(rows[yes], rows[no], rows[:200], np.isin(named, answers))
        free = np.setdiff1d(np.arange(len(rows)), named)
        chances = probe.probabilities(rows[free])
        if probe.is_proven:
            probe = settled(probe, chances[chances >= probe.threshold], len(yes))
        if turn == rounds:
            return probe, yes, free[chances >= probe.threshold]
        by_line = np.argsort(np.abs(chances - probe.threshold))[:10]
        shown = free[np.union1d(np.argsort(-chances)[:10], by_line)]
        answers = np.concatenate([answers, shown])
        yes = np.concatenate([yes, shown[is_so[shown]]])
        no = np.concatenate([no, shown[~is_so[shown]]])


def test_without_answers_nothing_is_proven():
    rows, is_so = tangled(400, 0.2, 1)
    yes, no = rows[is_so][:30], rows[~is_so][:30]
    for answers in (None, [True] * (ANSWERS - 1) + [False] * (61 - ANSWERS)):
        probe = fit_probe(yes, no, rows[-200:], answers)
        assert not probe.is_proven and probe.right is None
    chances = probe.probabilities(yes)
    assert 5 < (chances >= probe.threshold).sum() < 30  # half of them, by probes fitted without


def test_the_estimate_is_what_is_right():
    estimates, truths = [], []
    for seed in range(12):
        rows, is_so = tangled(2000, 0.1, seed)
        probe, yes, found = judged(rows, is_so, 2, seed)
        assert probe.is_proven
        estimates.append(probe.right)
        truths.append((len(yes) + is_so[found].sum()) / (len(yes) + len(found)))
    assert np.mean(estimates) == pytest.approx(np.mean(truths), abs=0.05)
    assert np.mean(truths) > PRECISE


def test_the_line_is_where_enough_are_right_on_average():
    probe = Probe(np.ones(2, np.float32), 0.0, 0.3, is_proven=True)
    made = settled(probe, np.array([0.4, 0.9, 0.5, 0.9]), 0)
    assert (made.threshold, made.right) == (0.5, pytest.approx(2.3 / 3))
    assert settled(probe, np.array([0.9, 0.9]), 2).right == pytest.approx(3.8 / 4)
    for chances in (np.array([]), np.array([0.4, 0.35])):
        none = settled(probe, chances, 3)
        assert none.right == 1.0 and none.threshold >= PRECISE  # those that were confirmed


def test_few_examples_find_few_pictures():
    probe = Probe(np.ones(2, np.float32), 0.0, 0.3)
    chances = np.linspace(0.4, 0.9, 100)
    found = {said: (chances >= settled(probe, chances, said).threshold).sum() for said in (3, 4, 5)}
    assert found == {3: 15, 4: 20, 5: 50}, "fewer for each of few examples"
    assert settled(probe, chances, 10) == probe


def test_answers_that_are_all_alike_are_not_believed_beyond_what_was_seen():
    rows, is_so = tangled(400, 0.2, 1)
    yes = rows[is_so][:30]
    probe = fit_probe(yes, rows[:0], rows[~is_so][:200], [True] * 30)
    assert probe.is_proven and (probe.probabilities(rows[~is_so]) > probe.threshold).mean() < 0.2
    probe = fit_probe(yes[:5], rows[~is_so][:30], rows[-200:], [False] * 5 + [True] * 30)
    assert probe.is_proven and probe.probabilities(rows[~is_so]).mean() < 0.1


def test_average_precision():
    scores = np.array([0.9, 0.8, 0.7, 0.6])
    assert average_precision(scores, np.array([True, False, True, False])) == pytest.approx(5 / 6)
    assert average_precision(scores, np.zeros(4, bool)) == 0
