"""Writing to a real Milvus server."""

import os
import subprocess
import sys

import numpy as np
import pytest

import fovea.search.cluster.collections as collections_module
import fovea.search.cluster.store as store_module
from fovea.search.cluster.collections import INDEX, Cluster
from fovea.search.cluster.store import Store
from fovea.search.embedded.store import EmbeddedStore
from fovea.search.errors import LibraryAway, LibraryError
from fovea.search.library.library import Library
from fovea.search.seam.writing import Unread
from libraries import DIM, MODEL, ROOTS, eventually, kept
from places import HOSTILE

PLACE = {
    "key": "[1]",
    "town": "1",
    "city": None,
    "region": None,
    "country": "PT",
    "found": ["1", "PT"],
    "localities": [
        ["1", "town", "Lisbon", "里斯本", ["lisboa", "lisbon"]],
        ["PT", "country", "Portugal", None, ["portugal"]],
    ],
}


def file_of(name, root=ROOTS[0], when=1):
    return root + b"/" + name, root, when


def same(one, other):
    assert one.image.hash == other.image.hash and one.image.bytes == other.image.bytes
    assert one.metadata == other.metadata and one.place == other.place
    assert set(one.files) == set(other.files)
    assert one.image.vector == pytest.approx(other.image.vector, abs=1e-3)


def all_of(store):
    return {one.hash: one for batch in store.pictures() for one in batch}


@pytest.fixture(params=["sqlite", "milvus"])
def writing(request, tmp_path):
    """An empty library of either kind."""
    if request.param == "milvus":
        yield request.getfixturevalue("store")
        return
    with Library.open(tmp_path / "library", create=True) as library:
        made = EmbeddedStore(library)
        made.use_model(*MODEL)
        yield made


def test_what_is_written_is_read_back_and_writing_twice_is_writing_once(writing):
    pictures = [
        kept(1, [file_of(b"a.jpg"), file_of(b"b/\xff\"'\\.jpg", when=-(10**18))], width=3),
        kept(2, [file_of("写.png".encode(), ROOTS[2])], taken_at="2019", camera='"x"\\'),
    ]
    pictures.append(type(pictures[0])(kept(3, []).image, kept(3, [file_of(b"c.jpg")]).files, PLACE))
    for _ in range(2):
        writing.upsert(pictures)
    eventually(lambda: writing.count() == 3)
    found = all_of(writing)
    assert found.keys() == {one.hash for one in pictures}
    for one in pictures:
        same(found[one.hash], one)
    assert writing.known([pictures[0].hash, bytes(32)]) == {pictures[0].hash}


def test_files_are_replaced_and_pictures_deleted(writing):
    first = kept(1, [file_of(b"a.jpg"), file_of(b"b.jpg")])
    second = kept(2, [file_of(b"c.jpg")])
    writing.upsert([first, second])
    moved = type(first)(first.image, kept(1, [file_of(b"new/a.jpg")]).files)
    writing.upsert([moved])
    writing.delete([second.hash, bytes(32)])
    eventually(lambda: writing.count() == 1)
    same(all_of(writing)[first.hash], moved)


def test_files_without_a_picture_are_accounted_for(writing):
    odd = Unread(ROOTS[2] + b"/\xff.jpg", ROOTS[2], "failed", "it is empty", 0, 7)
    ignored = Unread(ROOTS[0] + b"/x.jpg", ROOTS[0], "skipped", None, 1, 2)
    writing.account([odd, ignored])
    writing.account([odd])

    def found():
        return {one for batch in writing.unread() for one in batch}

    eventually(lambda: found() == {odd, ignored})


def test_another_model_is_refused_once_there_are_pictures(writing):
    writing.upsert([kept(1, [file_of(b"a.jpg")])])
    eventually(lambda: writing.count() == 1)
    with pytest.raises(LibraryError, match="uses toy, not other"):
        writing.use_model("other", "aa" * 32, 16, "test")
    assert writing.model.name == "toy"


@pytest.mark.skipif(not HOSTILE.is_dir(), reason="../shared/hostile is not here")
def test_hostile_names_come_back(writing, tmp_path):
    made = tmp_path / "hostile"
    script = HOSTILE / "make_tree.py"
    subprocess.run([sys.executable, script, made], check=True, capture_output=True)
    root = os.fsencode(made)
    names = sorted(
        os.path.join(os.fsencode(folder), os.fsencode(name))
        for folder, _, files in os.walk(made)
        for name in files
    )
    assert len(names) > 10
    pictures = [kept(n, [(path, root, 1)]) for n, path in enumerate(names)]
    writing.upsert(pictures)
    eventually(lambda: writing.count() == len(pictures))
    found = all_of(writing)
    assert sorted(found[one.hash].files[0].path for one in pictures) == names


# Milvus alone


def test_two_contents_never_share_a_number(store, monkeypatch):
    def taken(digest, place=0):
        return 7 if place == 0 else 1000 * place + digest[0]

    monkeypatch.setattr(store_module, "number_of", taken)
    pictures = [kept(n, [file_of(b"%d.jpg" % n)]) for n in range(3)]
    for one in pictures:
        store.upsert([one])
    store.upsert(pictures)
    eventually(lambda: store.count() == 3)
    rows = store.client.query(store.collection, "number >= 0", ["number", "hash"])
    assert len({row["number"] for row in rows}) == 3
    assert 7 in {row["number"] for row in rows}


def test_machines_keep_each_other_s_files(store):
    here, there = ROOTS[:2]
    both = kept(1, [file_of(b"a.jpg", here)])
    other = type(both)(both.image, kept(1, [file_of(b"b.jpg", there)]).files)
    store.upsert([both], roots={here})
    store.upsert([other], roots={there})
    eventually(lambda: len(all_of(store)[both.hash].files) == 2)
    store.withdraw([both.hash], roots={here})
    eventually(lambda: [f.path for f in all_of(store)[both.hash].files] == [there + b"/b.jpg"])
    store.withdraw([both.hash], roots={there})
    eventually(lambda: store.count() == 0)


def test_the_alias_picks_the_model(store, cluster):
    store.upsert([kept(1, [file_of(b"a.jpg")])])
    wider = ("wider", "bb" * 32, 24, "test")
    from fovea.search.library.rows import ModelRow

    filling = Store(cluster, ModelRow(1, *wider))
    filling.upsert([kept(1, [file_of(b"a.jpg")], dim=24)])
    assert cluster.used(now=True).model.name == "toy"
    eventually(lambda: filling.count() == 1)
    filling.activate()
    assert cluster.used().model.name == "wider"
    [picture] = all_of(Store(cluster)).values()
    assert np.asarray(picture.image.vector).shape == (24,)


def test_a_collection_of_others_is_left_alone(cluster, address):
    from pymilvus import CollectionSchema, DataType, FieldSchema

    foreign = CollectionSchema(
        [
            FieldSchema("id", DataType.INT64, is_primary=True),
            FieldSchema("v", DataType.FLOAT_VECTOR, dim=2),
        ]
    )
    cluster.client.run("create_collection", address.name, schema=foreign)
    with pytest.raises(LibraryError, match="another program"):
        cluster.used(now=True)
    cluster.client.run("drop_collection", address.name)


# Collections


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
