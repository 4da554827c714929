"""Both kinds of library, with the same pictures, give the same answers."""

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fovea.search.cluster.address import FOLDER
from fovea.search.cluster.desk import desk_folder
from fovea.search.cluster.entity import Dating, entity_of
from fovea.search.cluster.searcher import opened
from fovea.search.cluster.searcher import timeline as timeline_on_milvus
from fovea.search.cluster.source import ClusterSource
from fovea.search.cluster.store import Store
from fovea.search.embedded.store import EmbeddedStore
from fovea.search.index.vector_index import VectorIndex
from fovea.search.library.library import Library
from fovea.search.library.marks import mark
from fovea.search.overview.timeline import timeline
from fovea.search.query.filters import FILTERS, Filter, allowed_images
from fovea.search.query.rank import Embedded
from libraries import MODEL, VALUES, eventually, kept, libraries, made_library
from places import HOSTILE

KINDS = [
    (kind, FILTERS[kind].read(value))
    for kind, values in VALUES.items()
    for value in values
    if FILTERS[kind].read(value) is not None
]
FILTER = st.builds(
    lambda one, negated: Filter(*one, negated), st.sampled_from(KINDS), st.booleans()
)


class Both:
    """The same pictures in SQLite and in Milvus, compared by their contents."""

    def __init__(self, store, source, folder, pictures):
        self.source, self.pictures = source, pictures
        store.delete(store.hashes())
        self.library = Library.open(folder, create=True)
        for library in (self.library, source.library):
            for number, name in ((0, "hidden"), (2, "favourite")):
                mark(library, [kept(number, []).hash], name, True)
        self.embedded = EmbeddedStore(self.library)
        model = self.embedded.use_model(*MODEL)
        store.upsert(pictures)
        self.embedded.upsert(pictures)
        self.model = model
        client = source.client
        with Dating() as dating:
            stamps = {one.hash.hex(): entity_of(one, 1, dating)["stamp"] for one in pictures}
        eventually(lambda: self._stamps() == stamps)
        self.content_of = self._numbers()
        source.cluster._values = None  # of the pictures before
        self.id_of = self.library.image_by_hash([one.hash for one in pictures])
        self.hash_of = {image_id: digest for digest, image_id in self.id_of.items()}
        self.client = client

    def _stamps(self):
        rows = self.source.client.query(self.source.collection, "number >= 0", ["hash", "stamp"])
        return {row["hash"]: row["stamp"] for row in rows}

    def _numbers(self):
        rows = self.source.client.query(self.source.collection, "number >= 0", ["number", "hash"])
        return {int(row["number"]): bytes.fromhex(row["hash"]) for row in rows}

    def content_there(self):
        return self._numbers().values()

    def on_milvus(self, ids):
        return [self.content_of[int(one)] for one in ids]

    def in_sqlite(self, ids):
        return [self.hash_of[int(one)] for one in ids]

    def close(self):
        self.library.close()


@pytest.fixture
def both(store, source, tmp_path_factory):
    opened = []

    def make(pictures):
        opened.append(Both(store, source, tmp_path_factory.mktemp("library"), pictures))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


def passing(both, filters):
    wanted = sorted(both.in_sqlite(allowed_images(both.library, filters)))
    expression = both.source.expression(filters)
    rows = both.client.query(both.source.collection, expression, ["number"])
    return wanted, sorted(both.on_milvus(row["number"] for row in rows))


@given(pictures=libraries(), chosen=st.lists(st.lists(FILTER, min_size=1, max_size=3), max_size=40))
@settings(
    max_examples=8,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_filters_leave_the_same_pictures(both, pictures, chosen):
    here = both(pictures)
    for filters in chosen:
        wanted, found = passing(here, filters)
        assert found == wanted, filters


def test_every_filter_is_compared_but_those_that_are_refused():
    assert set(FILTERS) - set(VALUES) == {"text", "tag"}
    shapes = {example.partition(":")[2] for example in FILTERS["is"].examples}
    assert set(VALUES["is"]) == shapes


@pytest.mark.skipif(not HOSTILE.is_dir(), reason="../shared/hostile is not here")
def test_hostile_names_are_found_by_filters_and_deleted(both, store, tmp_path):
    made = tmp_path / "hostile"
    script = HOSTILE / "make_tree.py"
    subprocess.run([sys.executable, script, made], check=True, capture_output=True)
    walked = os.walk(os.fsencode(made))
    paths = sorted(os.path.join(folder, name) for folder, _, names in walked for name in names)
    root = os.fsencode(made)
    pictures = [kept(n + 2, [(path, root, 1)]) for n, path in enumerate(paths)]
    here = both(pictures)
    wanted = {("in", os.fsdecode(os.path.dirname(path))) for path in paths}
    wanted |= {("in", folder.rpartition("/")[2]) for _, folder in wanted}
    names = {os.fsdecode(os.path.basename(path)) for path in paths}
    wanted |= {("name", name) for name in names} | {("name", f"{name[:5]}*") for name in names}
    some = 0
    for kind, value in sorted(wanted):
        value = FILTERS[kind].read(value)
        if value is not None:
            right, found = passing(here, [Filter(kind, value)])
            assert found == right, (kind, value)
            some += bool(found)
    assert some > len(paths)
    store.delete([one.hash for one in pictures[::2]])
    eventually(lambda: set(here.content_there()) == {one.hash for one in pictures[1::2]})


@pytest.fixture(scope="module")
def shelf(milvus, tmp_path_factory):
    """Pictures with several files in several folders, and dates that depend on which is chosen."""
    day = 86_400 * 10**9
    pictures = [
        kept(1, [(b"/p/a/one.jpg", b"/p", 900 * day), (b"/p/b/uno.jpg", b"/p", 10 * day)]),
        kept(2, [(b"/p/a/two 2019-07-14.jpg", b"/p", 20 * day)], width=40, height=30),
        kept(3, [(b"/p/b/three.png", b"/p", 30 * day)], taken_at="2020", format="PNG"),
        kept(
            4,
            [(b"/p/a/IMG-20200101-WA1.jpg", b"/p", day), (b"/p/b/a.jpg", b"/p", day)],
            taken_at="2020-05-05T10:00:00",
            camera="Canon",
        ),
        kept(5, [(b"/p/b/IMG_7.jpg", b"/p", 0), (b"/p/c/IMG-20180101-WA1.jpg", b"/p", 5 * day)]),
        kept(6, [(b"/p/c/\xff.jpg", b"/p", 10**18 * 5)]),
        kept(7, [("/p/写真/海滩日落 harbour lights.jpg".encode(), b"/p", day)]),
    ]
    folder = tmp_path_factory.mktemp("shelf")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv(FOLDER, str(folder / "milvus"))
        with made_library(milvus) as cluster, Library.open(desk_folder(cluster.address)) as desk:
            source = ClusterSource(opened(cluster, desk), desk)
            here = Both(Store(cluster), source, folder / "library", pictures)
            yield here
            here.close()


QUERIES = [
    (),
    (Filter("in", "a"),),
    (Filter("in", "b"),),
    (Filter("in", "/p/b"), Filter("on", "1970")),
    (Filter("in", "c", True),),
    (Filter("in", "c"), Filter("name", "img_*")),
    (Filter("name", "o"),),
    (Filter("camera", "canon"),),
    (Filter("name", "nothing"),),
]


@pytest.mark.parametrize("filters", QUERIES, ids=str)
@pytest.mark.parametrize("sort", [None, "name"])
def test_lists_are_in_the_same_order(shelf, filters, sort):
    there = Embedded(shelf.library, None)
    wanted, total = there.browse(filters, sort, 100)
    found, reachable = shelf.source.browse(filters, sort, 100)
    assert reachable == total
    names, here = shelf.in_sqlite(wanted), shelf.on_milvus(found)
    assert sorted(here) == sorted(names)
    assert here == names or sort is None  # no two have one name; dates may tie
    few, _ = shelf.source.browse(filters, sort, 2)
    assert few.tolist() == found[:2].tolist()
    numbers = np.array(sorted(found.tolist()), np.int64)
    assert shelf.source.ordered(numbers, filters, sort).tolist() == found.tolist()


@pytest.mark.parametrize("filters", QUERIES, ids=str)
def test_dates_and_timelines_are_the_same(shelf, filters):
    assert timeline_on_milvus(shelf.source, filters) == timeline(shelf.library, filters)


@pytest.mark.parametrize("filters", QUERIES, ids=str)
def test_the_nearest_are_those_of_exhaustive_search(shelf, filters):
    index = VectorIndex.open(shelf.library, shelf.model.id)
    there = Embedded(shelf.library, index)
    query = shelf.pictures[0].image.vector
    others = there.eligible(filters, None)
    ids, scores = others.nearest(query, 10)
    mine = shelf.source.eligible(filters, None)
    numbers, cosines = mine.nearest(query, 10)
    assert shelf.on_milvus(numbers) == shelf.in_sqlite(ids)
    assert cosines == pytest.approx(scores, abs=1e-3)
    assert mine.count() == others.count() == mine.searchable() == len(ids)
    exact = sorted((one.image.vector @ query for one in shelf.pictures), reverse=True)
    if not filters:
        assert cosines == pytest.approx(exact, abs=1e-3)


def test_one_picture_is_left_out(shelf):
    query = shelf.pictures[0].image.vector
    [first, *others], _ = shelf.source.eligible((), None).nearest(query, 10)
    rest = shelf.source.eligible((), int(first))
    assert rest.nearest(query, 10)[0].tolist() == [int(one) for one in others]
    assert rest.count() == len(others)


def test_names_are_found_by_their_words(shelf):
    index = VectorIndex.open(shelf.library, shelf.model.id)
    there = Embedded(shelf.library, index).eligible((), None)
    mine = shelf.source.eligible((), None)
    for words in (
        "uno", "a one", "b", "two 2019", "nothing", "one uno", "harb", "harbour ligh", "ha", "bour",
        "harb lights", "日落", "滩日", "写真 日落", "海滩 harb", "写真", "thr", "b thr", "c thr",
    ):  # fmt: skip
        wanted = shelf.in_sqlite(there.named(words, 10))
        assert sorted(shelf.on_milvus(mine.named(words, 10))) == sorted(wanted), words


def test_vectors_come_back_as_they_were_stored(shelf):
    index = VectorIndex.open(shelf.library, shelf.model.id)
    numbers = np.array([*shelf.content_of, 12345], np.int64)
    places, vectors = shelf.source.vectors(numbers)
    assert sorted(places.tolist()) == list(range(len(shelf.pictures)))
    for place, vector in zip(places, vectors, strict=True):
        image_id = shelf.id_of[shelf.content_of[int(numbers[place])]]
        _, [wanted] = index.vectors(np.array([image_id], np.int64))
        assert vector == pytest.approx(wanted, abs=1e-3)
