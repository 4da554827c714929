"""Whole answers, with likelihoods and the line, are the same in both kinds of library."""

from dataclasses import replace

import numpy as np
import pytest

from fovea.search.cluster.address import FOLDER
from fovea.search.cluster.desk import desk_folder
from fovea.search.cluster.ledger import ledger_folder, pass_on
from fovea.search.cluster.searcher import ClusterSearcher
from fovea.search.errors import Unanswerable
from fovea.search.index.vector_index import VectorIndex
from fovea.search.library.library import Library
from fovea.search.query.likelihood import Background
from fovea.search.query.measured import LabelSigns, Measured, Signs, Worth
from fovea.search.query.run import Question, Searcher
from libraries import eventually, made_library
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
