"""What the tests of one subject share."""

import numpy as np

from closeness import assert_close
from fovea.search.index.vector_index import IndexOptions, VectorIndex
from vectors import clustered, exhaustive, recall

DIM = 16


SMALL = IndexOptions(exhaustive_below=1500, at_once=100)


QUERIES = clustered(10, DIM, seed=77)


def opened(library, options=None) -> VectorIndex:
    return VectorIndex.open(library, library.model().id, options=options)


def check_answers(index, vectors, ids, k=10, least=1.0) -> None:
    """The index finds what exhaustive search finds among the vectors with these ids."""
    found = index.search(QUERIES, k)
    there = min(k, len(ids))
    scores, order = exhaustive(vectors, QUERIES, there)
    assert len(index) == len(ids)
    assert found.scores.dtype == np.float32 and found.ids.dtype == np.int64
    assert found.ids.shape == found.scores.shape == (len(QUERIES), k)
    assert recall(found.ids[:, :there], ids[order]) >= least
    assert (found.ids[:, there:] == -1).all() and np.isneginf(found.scores[:, there:]).all()
    if least == 1.0:
        assert_close(found.scores[:, :there], scores, terms=DIM)
