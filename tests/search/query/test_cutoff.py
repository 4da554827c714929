import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fovea.search.query.cutoff import falling, line_drawn
from fovea.search.query.likelihood import LINE
from fovea.search.query.rank import Ranking


def ranked(likelihoods, named=()):
    n = len(likelihoods)
    scores = np.linspace(0.9, 0.1, n, dtype=np.float32)
    ranking = Ranking(np.arange(1, n + 1), scores, n, "words", frozenset(named))
    return line_drawn(ranking, np.array(likelihoods, dtype=np.float32))


def test_a_likelihood_out_of_order_is_shared_with_those_before_it():
    found, likely = ranked([0.9, 0.4, 0.7, 0.1])
    assert found.ids.tolist() == [1, 2, 3, 4]
    assert found.likelihoods.tolist() == pytest.approx([0.9, 0.55, 0.55, 0.1])
    assert likely == 3


def test_one_late_likely_image_does_not_move_the_line_down():
    found, likely = ranked([0.9, 0.1, 0.1, 0.7])
    assert found.likelihoods.tolist() == pytest.approx([0.9, 0.3, 0.3, 0.3])
    assert likely == 1


def test_images_found_by_name_stay_above_the_line():
    found, likely = ranked([0.9, 0.4, 0.1, 0.2, 0.3], named={3, 5})
    assert found.ids.tolist() == [1, 3, 5, 2, 4]
    assert likely == 3
    assert found.likelihoods.tolist() == np.array([0.9, 0.1, 0.3, 0.4, 0.2], "f4").tolist()


def test_without_likely_images_the_line_comes_first():
    assert ranked([0.1, 0.2])[1] == 0
    assert ranked([])[1] == 0


@given(
    st.lists(st.tuples(st.floats(0, 1, width=32), st.booleans()), max_size=30),
)
def test_each_side_keeps_its_order_and_none_below_is_likely(rows):
    named = {place for place, (_, is_named) in enumerate(rows, 1) if is_named}
    found, likely = ranked([value for value, _ in rows], named)
    ids, likelihoods = found.ids.tolist(), found.likelihoods.tolist()
    assert sorted(ids) == list(range(1, len(rows) + 1))
    above, below = ids[:likely], ids[likely:]
    assert above == sorted(above) and below == sorted(below)
    assert named <= set(above)
    pairs = list(zip(ids, likelihoods, strict=True))
    near = [value for image_id, value in pairs if image_id not in named]
    assert near == sorted(near, reverse=True)
    assert all((value >= LINE) == (n < likely - len(named)) for n, value in enumerate(near))
    for image_id, value in pairs:
        assert image_id not in named or value == np.float32(rows[image_id - 1][0])


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=8))
def test_no_falling_sequence_is_nearer(values):
    """Compare with the closed form of isotonic regression: the min-max of means."""
    exact = [
        min(
            max(np.mean(values[first : last + 1]) for last in range(place, len(values)))
            for first in range(place + 1)
        )
        for place in range(len(values))
    ]
    assert falling(np.array(values)).tolist() == pytest.approx(exact, abs=1e-6)


def test_a_sequence_is_capped_at_the_one_before_it():
    assert falling(np.array([0.8, 0.2]), most=0.5).tolist() == pytest.approx([0.5, 0.2])
