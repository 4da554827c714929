import os
from types import SimpleNamespace

import pytest

from fovea.search.cluster.address import FOLDER
from fovea.search.cluster.desk import desk_folder
from fovea.search.cluster.searcher import opened
from fovea.search.cluster.source import ClusterSource
from fovea.search.cluster.store import Store
from fovea.search.library.library import Library
from libraries import MODEL, made_library, running_server


@pytest.fixture(scope="session")
def milvus():
    """A real Milvus server on loopback; ``FOVEA_TEST_MILVUS`` is the port of one that runs."""
    if port := os.environ.get("FOVEA_TEST_MILVUS"):
        yield SimpleNamespace(port=int(port))
        return
    with running_server() as server:
        yield server


@pytest.fixture
def cluster(milvus, tmp_path, monkeypatch):
    """A library on Milvus without a model, kept apart from this user's own."""
    monkeypatch.setenv(FOLDER, str(tmp_path / "milvus"))
    with made_library(milvus, empty=True) as made:
        yield made


@pytest.fixture
def address(cluster):
    return cluster.address


@pytest.fixture
def store(cluster):
    """An empty library on Milvus."""
    made = Store(cluster)
    made.use_model(*MODEL)
    return made


@pytest.fixture
def source(store, address):
    """What queries ask of it."""
    with Library.open(desk_folder(address)) as desk:
        index = opened(store.cluster, desk)
        yield ClusterSource(index, desk)
