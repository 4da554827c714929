"""A query has one answer, however many hits are asked for and however they are fetched."""

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fovea.search.errors import Unanswerable
from fovea.search.library.library import Library
from fovea.search.library.rows import FileWrite, ImageMetadata, NewImage, WriteBatch
from fovea.search.query import rank as rank_module
from fovea.search.query.likelihood import LINE, Background, default_labels
from fovea.search.query.measured import Measured, Signs, Worth
from fovea.search.query.rank import Picture
from fovea.search.query.run import Question, Searcher
from vectors import clustered

DIM = 8
MODEL = "a" * 64
QUERIES = (
    "sea", "sea -dog", "dog cat", "2:sea", "like:1", "sea like:2", "in:odd", "sea in:odd",
    "name:*7*", "dog -in:odd", "sea sort:date", "dog sort:name", "sort:name", "",
    "sea after:2010", "zebra format:png",
)  # fmt: skip
CHOOSING = ("in:odd", "sea in:odd", "name:dog*", "sea in:odd name:*1*", "in:odd sort:name")


class Words:
    """A toy encoder that gives each text its own vector."""

    def encode_texts(self, texts):
        seeds = [int(hashlib.sha256(text.encode()).hexdigest()[:6], 16) for text in texts]
        return np.concatenate([clustered(1, DIM, seed) for seed in seeds])


def filled(folder, count, seed):
    """Build a library of ``count`` images in two folders; a third have a copy in the other one."""
    library = Library.open(folder, create=True)
    model = library.set_model("toy", MODEL, DIM, "test")
    root = library.add_root(b"/p")
    new, files = [], []
    for n, vector in enumerate(clustered(count, DIM, seed)):
        key = n.to_bytes(32, "big")
        taken = f"{2000 + n % 20}-01-01T00:00:00" if n % 2 else None
        format = "PNG" if n % 3 else "JPEG"
        new.append(NewImage(key, 1, ImageMetadata(4, 3, format, 1, taken), vector))
        name, place = ("dog" if n % 5 == 0 else "sea" if n % 7 == 0 else "x"), ("odd", "even")
        paths = [f"/p/{place[n % 2]}/{name}{n}.jpg"]
        paths += [f"/p/{place[1 - n % 2]}/{n}.jpg"] if n % 3 == 0 else []
        for number, path in enumerate(paths):
            mtime = (n + 1000 * number) * 86_400 * 10**9
            files.append(FileWrite(path.encode(), root.id, 1, mtime, key))
    library.write_batch(WriteBatch(new, files, model.id))
    library.mark_missing([entry.path for entry in files if b"3" in entry.path][:5])
    return library


def searcher_of(library):
    """Open a searcher with a random background in place of a real model's."""
    vectors = clustered(len(default_labels()), DIM, 77)
    worth = Worth(0.9, 0.5, 400)
    words = Signs((1.0, 0.5, 0.5), -1.0, 0.2, worth)
    background = Background(MODEL, vectors, 30.0, Measured(MODEL, (0.0,) * DIM, words, words))
    opened = Searcher.of(library, library.model(), Words())
    return Searcher(library, opened.index, opened.encoder, background)


def listed(answer):
    return [(hit.rank, hit.image_id, hit.score, hit.likelihood, hit.path) for hit in answer.hits]


@pytest.fixture(scope="module")
def libraries(tmp_path_factory):
    """Libraries of several sizes, built once."""
    sizes = (1, 7, 60, 400)
    made = [filled(tmp_path_factory.mktemp("library"), n, n) for n in sizes]
    yield made
    for library in made:
        library.close()


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    size=st.integers(0, 3),
    query=st.sampled_from(QUERIES),
    picture=st.booleans(),
    depths=st.sampled_from([(60, 100, 1000), (200, 300, 1000), (200, 2000, 10_000)]),
    ks=st.lists(st.integers(1, 450), min_size=1, max_size=4),
)
def test_an_answer_does_not_depend_on_how_many_hits_are_asked_for(
    libraries, size, query, picture, depths, ks
):
    library = libraries[size]
    if "like:2" in query and size == 0:
        query = "like:1"
    pictures = (Picture(clustered(1, DIM, 3)[0]),) if picture else ()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fovea.search.query.run.DEPTHS", depths)
        question = Question.of(query, *pictures)
        whole = searcher_of(library).answer(question, 1000)
        assert len(whole.hits) == whole.total, "the total counts the hits that can be reached"
        for k in ks:
            part = searcher_of(library).answer(question, k)
            assert (part.total, part.likely) == (whole.total, whole.likely)
            assert listed(part) == listed(whole)[:k]
        paged, searcher = [], searcher_of(library)
        listing = searcher.listing(question)
        while len(paged) < listing.total:
            listing = searcher.deepened(listing, len(paged) + 7)
            paged += searcher.hits(listing, len(paged), len(paged) + 7)
        assert [hit.image_id for hit in paged] == [hit.image_id for hit in whole.hits]
        assert listing.likely == whole.likely
    if whole.likely is not None:
        near = [hit.likelihood for hit in whole.hits if not hit.by_name]
        if "sort:" not in query:
            assert near == sorted(near, reverse=True)
        for hit in whole.hits:
            assert (hit.likelihood >= LINE or hit.by_name) == (hit.rank <= whole.likely)


def test_an_unlikely_hit_by_name_does_not_end_the_likely_ones(libraries, monkeypatch):
    def by_name_unlikely(library, index, background, ranking):
        named = np.isin(ranking.ids, list(ranking.by_name))
        return np.where(named, 0.1, 0.9).astype(np.float32)

    monkeypatch.setattr("fovea.search.query.run.likelihoods", by_name_unlikely)
    answer = searcher_of(libraries[3]).answer(Question.of("dog"), 1000)
    assert any(hit.by_name for hit in answer.hits) and answer.total > 300
    assert answer.likely == answer.total
    assert all((hit.likelihood < LINE) == hit.by_name for hit in answer.hits)


def test_a_line_that_is_gone_since_the_first_page_leaves_the_order(libraries):
    searcher = searcher_of(libraries[3])
    listing = searcher.listing(Question.of("sea"))
    assert listing.likely is not None and not listing.is_whole
    bare = replace(searcher, background=replace(searcher.background, signs=None))
    deep = bare.deepened(listing, 300)
    assert (deep.likely, deep.ranking.likelihoods) == (None, None)
    assert deep.ranking.ids[: len(listing.ranking.ids)].tolist() == listing.ranking.ids.tolist()


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    size=st.integers(0, 3),
    query=st.sampled_from(QUERIES),
    depths=st.sampled_from([(60, 100, 1000), (200, 2000, 10_000)]),
    k=st.integers(1, 450),
)
def test_likely_matches_alone_are_those_before_the_line(libraries, size, query, depths, k):
    library = libraries[size]
    if "like:2" in query and size == 0:
        query = "like:1"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fovea.search.query.run.DEPTHS", depths)
        question = Question.of(query)
        whole = searcher_of(library).answer(question, 1000)
        found = searcher_of(library).answer(replace(question, likely_only=True), k)
    if question.browses:
        assert (found.total, listed(found)) == (whole.total, listed(whole)[:k])
    elif "sort:" in query:
        unsorted = Question.of(" ".join(part for part in query.split() if "sort:" not in part))
        near = searcher_of(library).answer(unsorted, 1000)
        by_score = {hit.image_id for hit in near.hits[: near.likely] if not hit.by_name}
        among = {hit.image_id for hit in whole.hits}
        assert {hit.image_id for hit in found.hits} <= among
        if len(near.hits) == len(whole.hits):
            ids = [hit.image_id for hit in whole.hits]
            kept = [image_id for image_id in ids if image_id in by_score]
            chosen = searcher_of(library).answer(replace(question, likely_only=True), 1000)
            assert [hit.image_id for hit in chosen.hits if hit.image_id in by_score] == kept
    else:
        assert (found.total, found.likely) == (whole.likely, whole.likely)
        assert listed(found) == listed(whole)[: min(k, whole.likely)]
    assert not found.total or not found.hints


def test_where_nothing_is_likely_that_is_said(libraries, monkeypatch):
    def unlikely(library, index, background, ranking):
        return np.full(len(ranking.ids), 0.1, np.float32)

    monkeypatch.setattr("fovea.search.query.run.likelihoods", unlikely)
    answer = searcher_of(libraries[2]).answer(replace(Question.of("zebra"), likely_only=True))
    assert (answer.hits, answer.total, answer.likely) == ((), 0, 0)
    assert [hint.code for hint in answer.hints] == ["unlikely"]


def test_likely_matches_alone_need_a_model_that_draws_a_line(libraries):
    bare = replace(searcher_of(libraries[2]), background=None)
    with pytest.raises(Unanswerable, match="toy does not say") as caught:
        bare.answer(replace(Question.of("sea"), likely_only=True))
    assert (caught.value.code, caught.value.params) == ("query.no_line", {"model": "toy"})
    assert bare.answer(replace(Question.of("in:odd"), likely_only=True)).hits


def test_a_negative_number_of_hits_is_refused(libraries):
    with pytest.raises(ValueError, match="-1"):
        searcher_of(libraries[1]).answer(Question.of("sea"), -1)


@pytest.mark.parametrize("order", ["date", "name"])
@pytest.mark.parametrize("terms", ["sea", "dog", "dog -in:odd", "like:2"])
def test_a_sorted_answer_has_the_likely_ones_in_order_and_then_the_others(libraries, terms, order):
    searcher = searcher_of(libraries[3])
    plain = searcher.listing(Question.of(terms))
    listing = searcher.listing(Question.of(f"{terms} sort:{order}"))
    likely = listing.likely
    assert likely == plain.likely and 0 < likely < listing.total == len(plain.ranking.ids)
    assert listing.is_whole and listing.order == order
    found = searcher.hits(listing, 0, listing.total)
    as_ranked = {hit.image_id: hit for hit in searcher.hits(plain, 0, listing.total)}
    for part, ids in (
        (found[:likely], plain.ranking.ids[:likely]),
        (found[likely:], plain.ranking.ids[likely:]),
    ):
        assert {hit.image_id for hit in part} == set(ids.tolist())
        names = [min(map(os.path.basename, hit.paths)) for hit in part]
        keys = [hit.date for hit in part] if order == "date" else names
        assert keys == sorted(keys, reverse=order == "date") and len(set(keys)) > 3
    for hit in found:
        same = as_ranked[hit.image_id]
        assert (hit.score, hit.likelihood) == (same.score, same.likelihood)


def test_without_a_line_the_nearest_are_sorted(libraries):
    searcher = replace(searcher_of(libraries[3]), background=None)
    plain = searcher.answer(Question.of("sea"), 200)
    answer = searcher.answer(Question.of("sea sort:date"), 1000)
    assert answer.total == len(answer.hits) == 200 and answer.likely is None
    assert {hit.image_id for hit in answer.hits} == {hit.image_id for hit in plain.hits}
    dates = [hit.date for hit in answer.hits]
    assert dates == sorted(dates, reverse=True)


def test_what_is_deleted_while_it_is_sorted_is_left_out(libraries, monkeypatch):
    searcher = searcher_of(libraries[3])
    plain = searcher.listing(Question.of("sea"))
    gone = plain.ranking.ids[[0, plain.likely]].tolist()
    true_ids = rank_module._ids

    def ids_left(library, sql, values):
        ids = true_ids(library, sql, values)
        return ids[~np.isin(ids, gone)] if "ORDER BY shown.date" in sql else ids

    monkeypatch.setattr(rank_module, "_ids", ids_left)
    listing = searcher.listing(Question.of("sea sort:date"))
    assert listing.likely == plain.likely - 1
    assert listing.total == len(listing.ranking.ids) == len(plain.ranking.ids) - 2
    assert len(listing.ranking.scores) == len(listing.ranking.likelihoods) == listing.total


@pytest.mark.parametrize("falls_to", [0.89, 0.1])
def test_the_line_does_not_depend_on_how_many_hits_are_asked_for(libraries, monkeypatch, falls_to):
    def chances(library, index, background, ranking):
        return np.linspace(0.95, falls_to, 400, dtype=np.float32)[: len(ranking.ids)]

    monkeypatch.setattr("fovea.search.query.run.likelihoods", chances)
    monkeypatch.setattr("fovea.search.query.run.DEPTHS", (50, 100, 1000))
    answers = [searcher_of(libraries[3]).answer(Question.of("zebra"), k) for k in (1, 101, 1000)]
    [likely] = {answer.likely for answer in answers}
    assert likely == sum(hit.likelihood >= LINE for hit in answers[-1].hits)


def test_one_file_passes_all_filters_on_files(libraries):
    library = libraries[3]
    for query in ("in:odd name:dog*", "in:even name:*3* sea"):
        folder, part = ("odd", "dog") if "dog" in query else ("even", "3")
        hits = searcher_of(library).answer(Question.of(query), 1000).hits
        assert hits
        for hit in hits:
            assert Path(hit.path).parent.name == folder and part in Path(hit.path).name


def test_a_hit_is_offline_if_the_file_that_it_shows_is(tmp_path):
    with Library.open(tmp_path / "library", create=True) as library:
        model = library.set_model("toy", MODEL, DIM, "test")
        (tmp_path / "here").mkdir()
        (tmp_path / "here" / "a.jpg").touch()
        roots = [library.add_root(os.fsencode(tmp_path / name)) for name in ("here", "usb")]
        new = [NewImage(b"k" * 32, 1, ImageMetadata(4, 3, "PNG", 1, None), clustered(1, DIM, 1)[0])]
        files = [FileWrite(root.path + b"/a.jpg", root.id, 1, 1, b"k" * 32) for root in roots]
        library.write_batch(WriteBatch(new, files, model.id))
        expected = {"": ("here", False), "in:here": ("here", False), "in:usb": ("usb", True)}
        for query, shown in expected.items():
            [hit] = searcher_of(library).answer(Question.of(query), 5).hits
            assert (Path(hit.path).parent.name, hit.offline) == shown, query


def test_like_ranks_all_visible_images_but_the_image_itself(libraries):
    library = libraries[3]
    visible = len(searcher_of(library).answer(Question.of("sea"), 1000).hits)
    answer = searcher_of(library).answer(Question.like(9), 1000)
    assert 9 not in {hit.image_id for hit in answer.hits}
    assert len(answer.hits) == answer.total == visible - 1


def test_a_hit_shows_a_file_that_passes_the_filters(libraries):
    for library in libraries[1:]:
        for query in (
            "in:odd",
            "sea in:odd",
            "name:dog*",
            "sea in:odd name:*1*",
            "in:odd sort:name",
        ):
            answer = searcher_of(library).answer(Question.of(query), 1000)
            for hit in answer.hits:
                path = Path(hit.path)
                assert "in:odd" not in query or path.parent.name == "odd", (query, hit)
                assert "name:dog*" not in query or path.name.startswith("dog")
                assert hit.path == hit.paths[0] and len(set(hit.paths)) == len(hit.paths)


def test_a_hit_has_the_date_of_the_file_that_passes_the_filters(tmp_path):
    library = Library.open(tmp_path / "library", create=True)
    model, root = library.set_model("toy", MODEL, DIM, "test"), library.add_root(b"/p")
    day = 86_400 * 10**9
    new = [
        NewImage(bytes([n]) * 32, 1, ImageMetadata(4, 3, "PNG", 1, None), vector)
        for n, vector in enumerate(clustered(2, DIM, 1))
    ]
    files = [
        FileWrite(b"/p/even/a.jpg", root.id, 1, 100 * day, new[0].hash),
        FileWrite(b"/p/odd/a.jpg", root.id, 1, 900 * day, new[0].hash),
        FileWrite(b"/p/odd/b.jpg", root.id, 1, 500 * day, new[1].hash),
    ]
    library.write_batch(WriteBatch(new, files, model.id))

    def shown(query):
        hits = searcher_of(library).answer(Question.of(query), 10).hits
        return [(hit.path, hit.date[:10]) for hit in hits]

    assert shown("") == [("/p/odd/b.jpg", "1971-05-16"), ("/p/even/a.jpg", "1970-04-11")]
    assert shown("in:odd") == [("/p/odd/a.jpg", "1972-06-19"), ("/p/odd/b.jpg", "1971-05-16")]
    assert shown("in:odd after:1972") == [] == shown("after:1971-06")
    assert shown("in:odd on:1972") == [("/p/odd/a.jpg", "1972-06-19")]
    assert shown("in:even") == [("/p/even/a.jpg", "1970-04-11")]
    library.close()


def test_a_library_without_a_model_gives_an_empty_answer(tmp_path):
    with Library.open(tmp_path / "library", create=True) as library:
        answer = Searcher.of(library, library.model(), None).answer(Question.of("sea in:odd"), 5)
    assert (answer.hits, answer.total, answer.likely, answer.model) == ((), 0, None, None)


@pytest.mark.parametrize("count", [60, 700])
def test_a_searcher_opened_before_a_deletion_answers_like_a_new_one(tmp_path, count):
    library = filled(tmp_path / "library", count, 5)
    before = searcher_of(library)
    before.answer(Question.of("sea"), 5)
    with Library.open(library.folder) as other:
        gone = [entry.path for entry in other.entries() if b"7" in entry.path]
        other.delete_files(gone)
        for query in ("sea", "like:2"):
            newcomer = searcher_of(other).answer(Question.of(query), 500)
            old = before.answer(Question.of(query), 500)
            assert (old.total, old.likely) == (newcomer.total, newcomer.likely)
            assert [hit.path for hit in old.hits] == [hit.path for hit in newcomer.hits]
            chances = [[hit.likelihood for hit in answer.hits] for answer in (old, newcomer)]
            np.testing.assert_allclose(*chances, rtol=1e-4, atol=1e-7)
    library.close()
