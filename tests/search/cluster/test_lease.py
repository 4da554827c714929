"""Several machines write to one library on Milvus, and keep what the others wrote."""

import threading

import pytest

import fovea.search.cluster.lease as lease_module
import fovea.search.cluster.store as store_module
from fovea.search.cluster.client import STRONG
from fovea.search.cluster.collections import Cluster, Kinds
from fovea.search.cluster.store import Store
from fovea.search.errors import LibraryError
from libraries import DIM, eventually, kept, made_library

MACHINES = (b"/a", b"/b", b"/c")
PICTURES = 20


def of_machine(root):
    """The same pictures on each machine, in a folder of its own."""
    return [kept(n, [(root + b"/%d.jpg" % n, root, 1)], dim=DIM) for n in range(PICTURES)]


def files_there(cluster):
    found = [one for batch in Store(cluster).pictures() for one in batch]
    return {one.hash: {file.root for file in one.files} for one in found}


def wanted_by(cluster):
    return [row["of"] for row in cluster.bodies(Kinds.WRITER, consistency=STRONG)]


@pytest.fixture
def other(cluster):
    """Another machine's connection to the same library."""
    made = Cluster(cluster.address)
    yield made
    made.close()


def test_pictures_that_machines_write_at_once_keep_the_files_of_all(store, cluster):
    ready = threading.Barrier(len(MACHINES))
    failed = []

    def write(root):
        machine = Cluster(cluster.address)
        try:
            one = Store(machine)
            ready.wait()
            one.upsert(of_machine(root), roots={root})
        except Exception as exc:
            failed.append(exc)
        finally:
            machine.close()

    threads = [threading.Thread(target=write, args=(root,)) for root in MACHINES]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    whole = dict.fromkeys((one.hash for one in of_machine(b"/a")), set(MACHINES))
    eventually(lambda: files_there(cluster) == whole)


def test_the_lease_is_waited_for(store, cluster, other):
    entered = threading.Event()

    def wait():
        with other.lease.held():
            entered.set()

    waiting = threading.Thread(target=wait)
    with cluster.lease.held():
        waiting.start()
        assert not entered.wait(1.5)
    assert entered.wait(60)
    waiting.join()
    assert wanted_by(cluster) == []


def test_who_died_with_the_lease_does_not_stop_others(store, cluster, monkeypatch):
    cluster.note(Kinds.WRITER, [("gone", {"of": "gone", "count": 7})])
    monkeypatch.setattr(lease_module, "DEAD_S", 0.5)
    with cluster.lease.held():
        assert wanted_by(cluster) == [cluster.lease._key]


def test_the_lease_is_renewed_between_batches(store, cluster, monkeypatch):
    said, note = [], Cluster.note

    def noted(self, kind, bodies):
        found = list(bodies)
        if kind == Kinds.WRITER:
            said.extend(body["count"] for _, body in found)
        note(self, kind, found)

    monkeypatch.setattr(Cluster, "note", noted)
    monkeypatch.setattr(store_module, "BATCH", 5)
    monkeypatch.setattr(lease_module, "RENEW_S", 0.0)
    store.upsert(of_machine(b"/a"), roots={b"/a"})
    assert len(set(said)) == 1 + PICTURES // 5  # others see that it lives
    monkeypatch.setattr(lease_module, "RENEW_S", 30.0)
    said.clear()
    store.upsert(of_machine(b"/a"), roots={b"/a"})
    assert len(said) == 1


def test_who_was_taken_for_dead_stops_writing(store, cluster, other, monkeypatch):
    monkeypatch.setattr(store_module, "BATCH", 5)
    monkeypatch.setattr(lease_module, "RENEW_S", 0.0)
    upsert, written = cluster.client.upsert, []

    def slow(collection, rows):
        upsert(collection, rows)
        if collection == store.collection:
            written.append(len(rows))
            other.forget(Kinds.WRITER, [cluster.lease._key])

    monkeypatch.setattr(cluster.client, "upsert", slow)
    with pytest.raises(LibraryError, match="another took its turn; run it again"):
        store.upsert(of_machine(b"/a"), roots={b"/a"})
    assert written == [5] and wanted_by(cluster) == []


def test_who_was_silent_too_long_stops_even_where_its_row_is_there(store, cluster, monkeypatch):
    with cluster.lease.held():
        cluster.lease.renew()
        monkeypatch.setattr(lease_module, "RENEW_S", 0.0)
        monkeypatch.setattr(lease_module, "DEAD_S", 0.0)  # another may be about to take it
        assert wanted_by(cluster) == [cluster.lease._key]
        with pytest.raises(LibraryError, match="another took its turn"):
            cluster.lease.renew()


def test_what_fails_under_the_lease_gives_it_back(store, cluster):
    with pytest.raises(ZeroDivisionError), cluster.lease.held():
        1 / 0  # noqa: B018
    assert wanted_by(cluster) == []


def test_deleting_leaves_the_files_of_other_machines(store, cluster, other):
    first, second, _ = MACHINES
    store.upsert(of_machine(first), roots={first})
    Store(other).upsert(of_machine(second), roots={second})
    hashes = [one.hash for one in of_machine(first)]
    store.withdraw(hashes, roots={first})
    assert files_there(cluster) == dict.fromkeys(hashes, {second})
    Store(other).withdraw(hashes, roots={second})
    eventually(lambda: files_there(cluster) == {})


def test_libraries_do_not_wait_for_each_other(milvus, store, cluster):
    with made_library(milvus) as elsewhere, cluster.lease.held(), elsewhere.lease.held():
        assert elsewhere.address != cluster.address
