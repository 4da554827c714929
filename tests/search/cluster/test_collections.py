"""What is missing of a library's collections on a real Milvus server is made."""

import numpy as np
import pytest

import fovea.search.cluster.collections as collections_module
from fovea.search.cluster.collections import INDEX, Cluster
from fovea.search.cluster.store import Store
from fovea.search.errors import LibraryAway, LibraryError
from libraries import DIM, MODEL, eventually, kept


def state_of(cluster, name):
    indexes = cluster.client.run("list_indexes", name)
    return sorted(indexes), cluster.client.run("get_load_state", name)["state"].name


def ending_at(cluster, monkeypatch, verb, name):
    """Let a process end when it does something with a collection."""
    run = cluster.client.run

    def ended(wanted, *arguments, **named):
        if wanted == verb and arguments[0] == name:
            raise LibraryAway("ended")
        return run(wanted, *arguments, **named)

    monkeypatch.setattr(cluster.client, "run", ended)


@pytest.mark.parametrize("verb", ["create_index", "load_collection"])
@pytest.mark.parametrize("is_beside", [False, True])
def test_a_first_run_that_ends_early_is_simply_repeated(cluster, monkeypatch, verb, is_beside):
    pictures = cluster.collection_of(MODEL[1])
    name = cluster.about if is_beside else pictures
    killed = Cluster(cluster.address)
    ending_at(killed, monkeypatch, verb, name)
    with pytest.raises(LibraryAway):
        Store(killed).use_model(*MODEL)
    killed.close()
    assert cluster.exists(name) and state_of(cluster, name)[1] == "NotLoad"
    store = Store(cluster)
    store.use_model(*MODEL)
    store.upsert([kept(1, [(b"/p/a.jpg", b"/p", 1)])])
    eventually(lambda: store.count() == 1)
    assert state_of(cluster, pictures) == (["moment", "number", "vector"], "Loaded")
    assert state_of(cluster, cluster.about) == (["number", "vector"], "Loaded")


def test_what_is_whole_is_left_alone(store, cluster, monkeypatch):
    asked, run = [], cluster.client.run

    def noted(verb, *arguments, **named):
        asked.append(verb)
        return run(verb, *arguments, **named)

    monkeypatch.setattr(cluster.client, "run", noted)
    store.use_model(*MODEL)
    asking = {"has_collection", "list_indexes", "describe_index", "get_load_state"}
    assert set(asked) <= asking | {"describe_collection"}


@pytest.fixture
def coarse(cluster, monkeypatch):
    """A library with an index that compares few of its pictures."""
    with monkeypatch.context() as earlier:
        earlier.setitem(collections_module.INDEXES, "IVF_SQ8", {"nlist": 1024})
        earlier.setattr(collections_module, "COARSE", "none")
        earlier.setenv(INDEX, "IVF_SQ8")
        made = Store(cluster)
        made.use_model(*MODEL)
    made.upsert([kept(n, [(b"/p/%d.jpg" % n, b"/p", 1)]) for n in range(3)])
    eventually(lambda: made.count() == 3)
    return made


def test_a_coarse_index_is_refused_until_it_is_replaced(coarse, cluster):
    with pytest.raises(LibraryError, match="kind IVF_SQ8, .*: fovea index --library milvus://"):
        cluster.needed()
    assert len(next(Store(cluster).pictures())) == 3  # to be copied
    Store(cluster).use_model(*MODEL)
    used = cluster.needed().collection
    assert state_of(cluster, used) == (["moment", "number", "vector"], "Loaded")
    assert cluster.client.run("describe_index", used, "vector")["index_type"] == "HNSW"
    query = np.eye(DIM, dtype=np.float32)[0]
    ef = {"ef": 128}
    eventually(lambda: len(cluster.client.search(used, query, 5, "", ["number"], ef)) == 3)


def test_a_coarse_index_is_not_made(cluster, monkeypatch):
    monkeypatch.setenv(INDEX, "IVF_FLAT")
    with pytest.raises(LibraryError, match="FOVEA_MILVUS_INDEX is not one of HNSW, FLAT, DISKANN"):
        Store(cluster).use_model(*MODEL)
    assert not cluster.exists(cluster.collection_of(MODEL[1]))
