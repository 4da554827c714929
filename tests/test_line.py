import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from search.answer import Ranking
from search.line import lined


def ranked(likelihoods, named=()):
    n = len(likelihoods)
    scores = np.linspace(0.9, 0.1, n, dtype=np.float32)
    ranking = Ranking(np.arange(1, n + 1), scores, n, "words", frozenset(named))
    return lined(ranking, np.array(likelihoods, dtype=np.float32))


def test_the_order_stays_where_nothing_is_found_by_name():
    found = ranked([0.9, 0.4, 0.7, 0.1])
    assert found.ranking.ids.tolist() == [1, 2, 3, 4]
    assert found.likely == 2


def test_what_is_found_by_name_stands_above_the_line():
    found = ranked([0.9, 0.4, 0.1, 0.2, 0.3], named={3, 5})
    assert found.ranking.ids.tolist() == [1, 3, 5, 2, 4]
    assert found.likely == 3
    assert found.likelihoods.tolist() == np.array([0.9, 0.1, 0.3, 0.4, 0.2], "f4").tolist()


def test_nothing_likely_and_nothing_at_all():
    assert ranked([0.1, 0.2]).likely == 0
    assert ranked([]).likely == 0


@given(
    st.lists(st.tuples(st.floats(0, 1, width=32), st.booleans()), max_size=30),
)
def test_each_side_keeps_its_order_and_its_values(rows):
    named = {place for place, (_, is_named) in enumerate(rows, 1) if is_named}
    found = ranked([value for value, _ in rows], named)
    ids = found.ranking.ids.tolist()
    assert sorted(ids) == list(range(1, len(rows) + 1))
    above, below = ids[: found.likely], ids[found.likely :]
    assert above == sorted(above) and below == sorted(below)
    assert named <= set(above)
    likely = sum(value >= 0.5 and not is_named for value, is_named in rows)
    nearest = [image_id for image_id in range(1, len(rows) + 1) if image_id not in named]
    assert set(above) - named == set(nearest[:likely])
    for image_id, value in zip(ids, found.likelihoods.tolist(), strict=True):
        assert value == np.float32(rows[image_id - 1][0])
