"""What is indexed here is passed on to a real Milvus server, and nothing is lost on the way."""

import pytest

import fovea.search.cluster.ledger as ledger_module
from fovea.search.cluster.ledger import compared, ledger_folder, ledger_of, pass_on, size_of
from fovea.search.cluster.store import Store
from fovea.search.errors import LibraryAway, LibraryError
from fovea.search.library.library import Library
from fovea.search.library.rows import ModelRow
from fovea.search.maintenance.forget import forget_root
from fovea.search.seam.writing import FileAt, Kept
from libraries import DIM, eventually, kept


@pytest.fixture
def ledger(address, cluster, photos, add_file):
    """A ledger with the eight photos under one root, not passed on yet."""
    with Library.open(ledger_folder(address)) as library:
        root = library.add_root(photos)
        for path in sorted(photos.iterdir()):
            add_file(library, root.id, path)
        yield library


def names_on_milvus(cluster):
    store = Store(cluster)
    return sorted(
        file.path.rpartition(b"/")[2].decode()
        for batch in store.pictures()
        for one in batch
        for file in one.files
    )


def test_what_changes_is_passed_on(ledger, cluster, photos, address):
    names = sorted(path.name for path in photos.iterdir())
    assert ledger_of(ledger) == address
    assert pass_on(ledger).written == len(names)
    eventually(lambda: names_on_milvus(cluster) == names)
    assert size_of(ledger) == (ledger.model().name, len(names))
    assert compared(ledger) == [] and pass_on(ledger).written == 0
    first, second, *rest = names
    ledger.mark_missing([bytes(photos / first)])
    ledger.delete_files([bytes(photos / second)])
    assert compared(ledger) != []
    assert pass_on(ledger).deleted == 2
    eventually(lambda: names_on_milvus(cluster) == rest)
    ledger.mark_present([bytes(photos / first)])
    pass_on(ledger)
    eventually(lambda: names_on_milvus(cluster) == [first, *rest])
    [root] = ledger.roots()
    forget_root(ledger, root.id)
    pass_on(ledger)
    eventually(lambda: names_on_milvus(cluster) == [])


def test_a_run_that_is_broken_off_is_simply_repeated(ledger, cluster, photos, monkeypatch):
    names = sorted(path.name for path in photos.iterdir())
    monkeypatch.setattr(ledger_module, "BATCH", 3)
    upsert, calls = Store.upsert, []

    def failing(self, *arguments, **named):
        calls.append(1)
        if len(calls) == 2:
            raise LibraryAway("Milvus is away")
        return upsert(self, *arguments, **named)

    monkeypatch.setattr(Store, "upsert", failing)
    with pytest.raises(LibraryAway):
        pass_on(ledger)
    assert compared(ledger) != []
    pass_on(ledger)
    eventually(lambda: names_on_milvus(cluster) == names)
    assert compared(ledger) == []


def test_another_model_is_used_once_all_is_embedded(ledger, cluster, photos):
    pass_on(ledger)
    wider = ledger.add_model("wider", "ef" * 32, 7, "test")
    former = cluster.used(now=True)
    eventually(lambda: cluster.client.count(former.collection) == 8)
    with ledger.transaction() as conn:
        conn.execute("UPDATE library SET value = ? WHERE key = 'model_id'", (wider.id,))
    with pytest.raises(Exception, match="8 pictures .* no embedding by wider"):
        pass_on(ledger)
    assert cluster.used(now=True) == former
    import numpy as np

    vector = np.full(7, 7**-0.5).astype("<f2").tobytes()
    with ledger.transaction() as conn:
        conn.execute(
            "INSERT INTO embeddings (image_id, model_id, vector) SELECT id, ?, ? FROM images",
            (wider.id, vector),
        )
    assert pass_on(ledger).switched == "wider"
    assert cluster.used(now=True).model.name == "wider"
    eventually(lambda: len(names_on_milvus(cluster)) == 8)


def test_a_new_machine_begins_with_the_model_of_the_library(ledger, address, tmp_path, monkeypatch):
    pass_on(ledger)
    monkeypatch.setenv("FOVEA_CLUSTER_FOLDER", str(tmp_path / "another machine"))
    with Library.open(ledger_folder(address)) as other:
        assert other.model().identity == ledger.model().identity
        assert other.roots() == []


def test_files_that_were_lost_there_are_noticed_and_written_again(ledger, cluster, photos):
    names = sorted(path.name for path in photos.iterdir())
    pass_on(ledger)
    store = Store(cluster)
    eventually(lambda: names_on_milvus(cluster) == names)
    first, second, *others = (one for batch in store.pictures() for one in batch)
    rest = [file.path.rpartition(b"/")[2].decode() for one in others for file in one.files]
    elsewhere = FileAt(b"/elsewhere/x.png", b"/elsewhere", 1, 1)
    store.upsert([Kept(first.image, (elsewhere,))])
    store.delete([second.hash])
    eventually(lambda: names_on_milvus(cluster) == sorted([*rest, "x.png"]))
    missing, incomplete = compared(ledger)
    assert "1 pictures are not in" in missing
    assert "1 pictures lack files of this machine" in incomplete
    assert pass_on(ledger).written == 2
    eventually(lambda: names_on_milvus(cluster) == sorted([*names, "x.png"]))
    assert compared(ledger) == []


def test_a_model_is_not_switched_to_while_pictures_of_others_lack_it(ledger, cluster):
    pass_on(ledger)
    used = cluster.used(now=True)
    new = Store(cluster, ModelRow(1, "new", "77" * 32, DIM, "test"))
    count = used.model and Store(cluster).count()
    new.upsert([kept(n, [(b"/new/%d" % n, b"/new", 1)]) for n in range(count)])  # as many, others
    with pytest.raises(LibraryError, match=f"{count} pictures of .* have no embedding by new"):
        ledger_module._check_whole(new, used.collection, new.model)
