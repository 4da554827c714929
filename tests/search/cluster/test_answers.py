"""Whole answers, with likelihoods and the line, are the same in both kinds of library.

And what is held here of the pictures in them.
"""

from dataclasses import replace

import numpy as np
import pytest

from fovea.search.cluster.address import FOLDER, Address
from fovea.search.cluster.desk import Desk, desk_folder
from fovea.search.cluster.entity import Dating, entity_of
from fovea.search.cluster.ledger import ledger_folder, pass_on
from fovea.search.cluster.searcher import ClusterSearcher
from fovea.search.errors import Unanswerable
from fovea.search.index.vector_index import VectorIndex
from fovea.search.library.library import Library
from fovea.search.library.marks import mark
from fovea.search.query.likelihood import Background
from fovea.search.query.measured import LabelSigns, Measured, Signs, Worth
from fovea.search.query.run import Question, Searcher
from libraries import eventually, kept, made_library
from toys import TolerantEncoder

QUERIES = (
    "red", "lime -blue", "red sort:name", "blue sort:date", "", "sort:name", "cyan name:*e*",
    "-maroon", "white format:png", "name:nothing",
)  # fmt: skip


@pytest.fixture
def searchers(milvus, tmp_path, monkeypatch, photos, add_file):
    """Searchers of the eight photos, in a folder and on Milvus, both with a line."""
    monkeypatch.setenv(FOLDER, str(tmp_path / "milvus"))
    with made_library(milvus, empty=True) as cluster:
        with Library.open(ledger_folder(cluster.address)) as library:
            root = library.add_root(photos)
            for path in sorted(photos.iterdir()):
                add_file(library, root.id, path)
            pass_on(library)
            used = cluster.used(now=True)
            eventually(lambda: cluster.client.count(used.collection) == 8)
            encoder, model = TolerantEncoder(), library.model()
            signs = Signs((5.0, 1.0, 0.0), -4.0, 0.1, Worth(0.9, 0.5, 400))
            labels = LabelSigns(0.0, 0.9, 1.0)
            measured = Measured(model.identity, (0.0,) * model.dim, signs, signs, labels)
            background = Background.of(model.identity, encoder, measured)
            index = VectorIndex.open(library, model.id)
            here = Searcher(library, index, encoder, background)
            with Library.open(desk_folder(cluster.address)) as desk:
                there = ClusterSearcher.on(cluster, desk, encoder, background)
                yield here, there


def test_answers_are_the_same(searchers):
    drawn = set()
    for text in QUERIES:
        for likely_only in (False, True):
            drawn.add(same_answer(searchers, text, likely_only))
    assert drawn > {None}  # some have a line


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """Rows of a library on Milvus that nobody asks, and what writes some of its pictures."""
    monkeypatch.setenv(FOLDER, str(tmp_path))
    with Library.open(desk_folder(Address("127.0.0.1", 1, "nowhere"))) as library:
        yield Desk(library)


def entities(numbers):
    with Dating() as dating:
        pictures = [(n, kept(n, [(b"/photos/%d.jpg" % n, b"/photos", 0)])) for n in numbers]
        return [entity_of(picture, number, dating) for number, picture in pictures]


def test_the_desk_forgets_what_was_needed_longest_ago(desk, monkeypatch):
    monkeypatch.setattr("fovea.search.cluster.desk.MOST_HELD", 20)
    monkeypatch.setattr("fovea.search.cluster.desk.SPARE", 2)
    first, later = entities(range(1, 11)), entities(range(11, 41))
    desk.put(first, [])
    mark(desk.library, [bytes.fromhex(first[4]["hash"])], "favourite", True)
    for at in range(0, 30, 5):
        assert desk.stale({row["number"]: row["stamp"] for row in first[:2]}) == []
        desk.put(later[at : at + 5], [])
        held = desk.numbers("SELECT image_id FROM held", [])
        assert len(held) <= 20 and {1, 2} | {row["number"] for row in later[at : at + 5]} <= {*held}
        for table, column in (("images", "id"), ("files", "image_id")):
            assert desk.numbers(f"SELECT {column} FROM {table} ORDER BY 1", []) == sorted(held)
    assert 5 not in held and desk.marked("favourite") == [bytes.fromhex(first[4]["hash"])]
    assert desk.stale({5: first[4]["stamp"]}) == [5]


def test_another_program_that_opens_the_desk_takes_nothing_from_it(desk, monkeypatch):
    desk.put(entities(range(1, 11)), [])
    monkeypatch.setattr("fovea.search.cluster.desk.MOST_HELD", 5)
    desk_folder(Address("127.0.0.1", 1, "nowhere"))
    assert len(desk.numbers("SELECT image_id FROM held", [])) == 10


def test_a_desk_of_before_is_kept(tmp_path, monkeypatch):
    monkeypatch.setenv(FOLDER, str(tmp_path))
    address = Address("127.0.0.1", 1, "nowhere")
    with Library.open(desk_folder(address)) as library:
        Desk(library).put(entities([1]), [])
        with library.transaction() as conn:
            conn.execute("DROP INDEX held_place")
            conn.execute("ALTER TABLE held DROP COLUMN place")
            for (name,) in library.rows("SELECT name FROM sqlite_master WHERE name LIKE '%_said'"):
                conn.execute(f"DROP TRIGGER {name}")
            conn.execute("DROP TABLE said")
    with Library.open(desk_folder(address)) as library:
        desk = Desk(library)
        desk.put(entities([2]), [])
        assert desk.has(1) and desk.has(2) and not desk.has(3)


def test_the_desk_has_no_embeddings_and_a_list_is_counted_once(searchers, monkeypatch):
    _, there = searchers
    source, asked = there.source, []
    count = source.client.count

    def counting(collection, *more):
        asked.append(collection)
        return count(collection, *more)

    monkeypatch.setattr(source.client, "count", counting)
    for sort in ("name", "date"):
        asked.clear()
        ids, total = source.browse([], sort, 5)
        assert (len(ids), total, asked.count(source.collection)) == (5, 8, 1)
    source.hold(ids.tolist())
    assert there.library.rows("SELECT count(*) FROM images") == [(5,)]
    assert there.library.rows("SELECT count(*) FROM embeddings") == [(0,)]


def same_answer(searchers, text, likely_only):
    answers = []
    for searcher in searchers:
        question = replace(Question.of(text), likely_only=likely_only)
        try:
            answers.append(searcher.answer(question, 5))
        except Unanswerable as exc:
            answers.append(exc.code)
    here, there = answers
    if isinstance(here, str) or isinstance(there, str):
        assert here == there
        return None
    assert (there.total, there.likely, there.order) == (here.total, here.likely, here.order)
    names = [[hit.path for hit in answer.hits] for answer in (here, there)]
    if here.order == "nearest":
        scores = [[hit.score for hit in answer.hits] for answer in (here, there)]
        assert scores[1] == pytest.approx(scores[0], abs=1e-3)
        assert [hit.likelihood for hit in there.hits] == [
            None if hit.likelihood is None else pytest.approx(hit.likelihood, abs=1e-2)
            for hit in here.hits
        ]
    elif here.order == "name":
        assert names[0] == names[1]
    else:
        assert np.all(np.diff([hit.rank for hit in there.hits]) == 1)
    return here.likely
