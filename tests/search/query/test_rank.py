from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fovea.search.errors import Unanswerable
from fovea.search.index.vector_index import IndexOptions, VectorIndex
from fovea.search.library.rows import FileWrite, ImageMetadata, NewImage, WriteBatch
from fovea.search.query.hits import day_of, hits
from fovea.search.query.language import parse
from fovea.search.query.rank import Picture, rank, reordered
from vectors import clustered, exhaustive

DIM = 16


@dataclass
class Words:
    """A toy encoder that gives each text its own vector."""

    def encode_texts(self, texts):
        return np.concatenate([clustered(1, DIM, sum(map(ord, text))) for text in texts])


class Shelf:
    """A library of images with formats and years for filters of several selectivities."""

    def __init__(self, library, count, options=None):
        self.library = library
        self.model = library.set_model("toy", "t" * 64, DIM, "test")
        root = library.add_root(b"/p")
        self.vectors = clustered(count, DIM, 5)
        self.years = [2000 + n % 20 for n in range(count)]
        self.kinds = ["PNG" if n % 3 else "JPEG" for n in range(count)]
        self.hidden = [n % 50 == 7 for n in range(count)]
        new, files, gone = [], [], []
        for n, vector in enumerate(self.vectors):
            key, path = n.to_bytes(32, "big"), f"/p/{n:05}.jpg".encode()
            taken = f"{self.years[n]}-01-{n % 28 + 1:02}T00:00:00"
            new.append(NewImage(key, 1, ImageMetadata(4, 3, self.kinds[n], 1, taken), vector))
            files.append(FileWrite(path, root.id, 1, 1, key))
            gone += [path] if self.hidden[n] else []
        library.write_batch(WriteBatch(new, files, self.model.id))
        library.mark_missing(gone)
        keys = {n.to_bytes(32, "big"): n for n in range(count)}
        ids = library.image_by_hash(keys)
        self.ids = np.array([ids[key] for key in keys])
        self.index = VectorIndex.open(library, self.model.id, options=options)

    def rank(self, query, **more):
        return rank(self.library, self.index, Words(), parse(query), **more)

    def mask(self, year=None, kind=None, negated=False):
        """Return which images are visible and pass the filters, bool (n,), by definition."""
        meets = [
            (year is None or (own == year) != negated) and (kind is None or form == kind)
            for own, form in zip(self.years, self.kinds, strict=True)
        ]
        return np.array(meets) & ~np.array(self.hidden)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    from fovea.search.library.library import Library

    with Library.open(tmp_path_factory.mktemp("shelf"), create=True) as library:
        yield Shelf(library, 700)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A larger shelf with a trained index, which is approximate without filters."""
    from fovea.search.library.library import Library

    with Library.open(tmp_path_factory.mktemp("trained"), create=True) as library:
        made = Shelf(library, 4000, IndexOptions(exhaustive_below=2000))
        assert made.index.save() and made.index.kind == "ivf"
        yield made


def unit(vector):
    return (vector / np.linalg.norm(vector)).astype(np.float32)


SELECTIONS = st.sampled_from([
    ("", {}), ("on:2003", {"year": 2003}), ("-on:2003", {"year": 2003, "negated": True}),
    ("format:png", {"kind": "PNG"}), ("on:2004 format:jpeg", {"year": 2004, "kind": "JPEG"}),
    ("on:1999", {"year": 1999}),
])  # fmt: skip


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(SELECTIONS, st.text("abcxyz", min_size=1, max_size=5), st.integers(1, 60))
def test_a_filtered_answer_equals_exhaustive_search_over_the_allowed_images(
    shelf, chosen, words, k
):
    filters, meets = chosen
    mask = shelf.mask(**meets)
    ranking = shelf.rank(f"{words} {filters}", limit=k)
    scores, order = exhaustive(shelf.vectors, Words().encode_texts([words]), k, mask)
    there = min(k, int(mask.sum()))
    assert ranking.scores == pytest.approx(scores[0, :there], abs=1e-3)
    assert len(ranking.ids) == there and ranking.total == mask.sum()
    assert set(ranking.ids) <= set(shelf.ids[mask])


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(SELECTIONS, st.text("abcxyz", min_size=1, max_size=5))
def test_a_trained_index_gives_complete_answers_under_any_filter(trained, chosen, words):
    filters, meets = chosen
    mask, k = trained.mask(**meets), 30
    ranking = trained.rank(f"{words} {filters}", limit=k)
    _, order = exhaustive(trained.vectors, Words().encode_texts([words]), k, mask)
    there = min(k, int(mask.sum()))
    assert len(ranking.ids) == there and set(ranking.ids) <= set(trained.ids[mask])
    shared = np.isin(ranking.ids, trained.ids[order[0, :there]]).mean() if there else 1.0
    assert shared >= (0.9 if mask.sum() > 2000 else 1.0)  # few images are compared one by one


def test_terms_add_up(shelf):
    red, sea = Words().encode_texts(["red", "sea"])
    picture = clustered(1, DIM, 77)[0]
    stored = shelf.vectors[3].astype(np.float16).astype(np.float32)
    wanted = unit(red - 0.5 * sea + 2 * unit(stored) + 0.25 * picture)
    query = f"red -0.5:sea 2:like:{shelf.ids[3]}"
    ranking = shelf.rank(query, pictures=[Picture(picture, 0.25)], limit=20)
    scores, order = exhaustive(shelf.vectors, wanted[None], 20, shelf.mask())
    assert ranking.kind == "mixed"
    assert ranking.scores == pytest.approx(scores[0], abs=2e-3)
    assert ranking.ids[0] == shelf.ids[order[0, 0]]


def test_a_lone_negative_term_reverses_the_order(shelf):
    near, far = shelf.rank("sea", limit=700), shelf.rank("-sea", limit=700)
    assert near.ids[0] == far.ids[-1] and near.kind == far.kind == "words"
    assert near.scores == pytest.approx(-far.scores[::-1], abs=1e-3)


def test_terms_that_cancel_out_and_unknown_images_are_errors(shelf):
    with pytest.raises(Unanswerable, match="cancel") as caught:
        shelf.rank("sea -sea")
    assert (caught.value.code, caught.value.params) == ("query.cancelled", {})
    with pytest.raises(Unanswerable, match="like:99999") as caught:
        shelf.rank("like:99999")
    assert (caught.value.code, caught.value.params) == ("query.no_image", {"id": 99999})


def test_browsing_shows_the_newest_first(shelf):
    ranking = shelf.rank("format:png")
    assert ranking.scores is None and ranking.kind == "browse"
    days = [day_of(hit) for hit in hits(shelf.library, ranking, 0, 30)]
    assert days == sorted(days, reverse=True) and days[0].startswith("2019-")
    assert set(ranking.ids) == set(shelf.ids[shelf.mask(kind="PNG")]) and ranking.total == len(
        ranking.ids
    )
    assert len(shelf.rank("", limit=5).ids) == 5


def test_answers_can_be_sorted_by_name_or_date(shelf):
    by_name = hits(shelf.library, shelf.rank("sort:name"), 0, 40)
    assert [hit.path for hit in by_name] == sorted(hit.path for hit in by_name)
    nearest = shelf.rank("sea", limit=200)
    moved, line = reordered(shelf.library, nearest, parse("sea sort:date"), 50)
    dates = [hit.date for hit in hits(shelf.library, moved, 0, 200)]
    assert line == 50 and len(dates) == 200
    for first, last in ((0, 50), (50, 200)):
        assert dates[first:last] == sorted(dates[first:last], reverse=True)
        assert set(moved.ids[first:last]) == set(nearest.ids[first:last])
    scores = dict(zip(nearest.ids.tolist(), nearest.scores.tolist(), strict=True))
    assert [scores[key] for key in moved.ids.tolist()] == moved.scores.tolist()


def test_name_matches_join_an_answer_without_crowding_out_the_nearest(shelf):
    plain = shelf.rank("sea", limit=50)
    named = shelf.rank("00003 sea", limit=50)
    assert not plain.by_name and not named.by_name  # "sea" is in no name
    found = shelf.rank("00003", limit=50)
    assert found.by_name == {shelf.ids[3]} and list(found.ids).index(shelf.ids[3]) <= 1
    common = shelf.rank("jpg", limit=50)  # in every name
    assert 0 < len(common.by_name) <= 24
    nearest = set(exhaustive(shelf.vectors, Words().encode_texts(["jpg"]), 20, shelf.mask())[1][0])
    assert nearest <= {int(np.flatnonzero(shelf.ids == image_id)[0]) for image_id in common.ids}
    assert shelf.rank("00003 on:2010").by_name == frozenset()  # filters apply to names too
    assert len(found.ids) == 50 and len(set(found.ids.tolist())) == 50


def test_hits_have_the_fields_that_a_page_shows(shelf):
    ranking = shelf.rank("sea", limit=5)
    [hit] = hits(shelf.library, ranking, 2, 3)
    number = int(np.flatnonzero(shelf.ids == hit.image_id)[0])
    assert (hit.rank, hit.width, hit.height, hit.format) == (3, 4, 3, shelf.kinds[number])
    assert hit.taken_at == hit.date and hit.path == f"/p/{number:05}.jpg" and not hit.by_name
    assert hit.score == pytest.approx(float(ranking.scores[2]))


def keeping(known):
    """``Remembered`` for a library that does not change."""

    def remembered(name, make):
        if name not in known:
            known[name] = make()
        return known[name]

    return remembered


@pytest.mark.parametrize("query", ["a bird", "a bird format:PNG", "a bird sort:name", ""])
def test_kept_counts_change_no_answer(library, query):
    shelf, known = Shelf(library, 300), {}
    for _ in range(2):
        ours, kept = (
            shelf.rank(query, limit=50),
            shelf.rank(query, limit=50, remembered=keeping(known)),
        )
        assert ours.ids.tolist() == kept.ids.tolist()
        assert (ours.total, ours.among) == (kept.total, kept.among)
    without = int(shelf.rank("a bird").ids[0])
    ours, kept = (
        shelf.rank("a bird", without=without, **more)
        for more in ({}, {"remembered": keeping(known)})
    )
    assert (ours.total, ours.among) == (kept.total, kept.among)


def test_each_of_two_indexes_of_a_model_takes_in_what_is_new(library):
    shelf, known = Shelf(library, 40), {}
    other = VectorIndex.open(library, shelf.model.id)
    [vector] = Words().encode_texts(["something else"])
    key = b"n" * 32
    new = NewImage(key, 1, ImageMetadata(4, 3, "PNG"), vector)
    root = library.roots()[0].id
    library.write_batch(
        WriteBatch([new], [FileWrite(b"/p/new.jpg", root, 1, 1, key)], shelf.model.id)
    )
    image = library.image_by_hash([key])[key]
    for index in (shelf.index, other, shelf.index):
        found = rank(library, index, Words(), parse("something else"), remembered=keeping(known))
        assert found.ids[0] == image


def test_no_index_is_asked_twice_for_what_is_new_in_one_state_of_the_library(library, monkeypatch):
    """As after a new snapshot, which is not a change of the library."""
    shelf, known, asked = Shelf(library, 40), {}, []
    other = VectorIndex.open(library, shelf.model.id)
    refresh = VectorIndex.refresh
    monkeypatch.setattr(
        VectorIndex, "refresh", lambda self, *more: asked.append(self) or refresh(self, *more)
    )
    for index in (shelf.index, other, other, shelf.index, other):
        rank(library, index, Words(), parse("a bird"), remembered=keeping(known))
    assert asked == [shelf.index, other]
