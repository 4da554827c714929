"""What is indexed here is passed on to a real Milvus server, and nothing is lost on the way."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

import fovea.search.cluster.ledger as ledger_module
from fovea.search.cluster.ledger import Passed, compared, ledger_folder, ledger_of, pass_on, size_of
from fovea.search.cluster.store import Store
from fovea.search.errors import LibraryAway, LibraryError
from fovea.search.library.library import Library
from fovea.search.library.rows import ModelRow
from fovea.search.maintenance.forget import forget_root
from fovea.search.seam.writing import FileAt, Kept, Unread
from libraries import DIM, eventually, kept

WIDE = 7


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


# Several machines


@pytest.fixture
def folder(tmp_path):
    """A second folder, with one picture."""
    made = tmp_path / "more"
    made.mkdir()
    Image.new("RGB", (9, 9), "teal").save(made / "teal.png")
    return made


@pytest.fixture
def shared(address, cluster, photos, folder, add_file):
    """A ledger with both folders, passed on."""
    with Library.open(ledger_folder(address)) as library:
        for one in (photos, folder):
            root = library.add_root(one)
            for path in sorted(one.iterdir()):
                add_file(library, root.id, path)
        pass_on(library)
        yield library


def unread_there(cluster):
    return [file for batch in Store(cluster).unread() for file in batch]


def names_in(*folders):
    return sorted(path.name for folder in folders for path in folder.iterdir())


def forget(library, folder):
    [number] = [root.id for root in library.roots() if root.path == bytes(folder)]
    forget_root(library, number)
    pass_on(library)


def embed_anew(library):
    """Give all pictures an embedding by another model, and use that."""
    wide = library.add_model("wide", "ef" * 32, WIDE, "test")
    vector = np.full(WIDE, WIDE**-0.5).astype("<f2").tobytes()
    with library.transaction() as conn:
        conn.execute(
            "INSERT INTO embeddings (image_id, model_id, vector) SELECT id, ?, ? FROM images",
            (wide.id, vector),
        )
    use(library, wide.id)


def use(library, model_id):
    with library.transaction() as conn:
        conn.execute("UPDATE library SET value = ? WHERE key = 'model_id'", (model_id,))


def test_a_folder_removed_here_and_indexed_elsewhere_stays(shared, cluster, photos, folder):
    forget(shared, folder)
    eventually(lambda: names_on_milvus(cluster) == names_in(photos))
    root = bytes(folder)
    store = Store(cluster)
    [red] = [
        one
        for batch in store.pictures()
        for one in batch
        if one.files[0].path.endswith(b"/red.png")
    ]
    copy = FileAt(root + b"/copy.png", root, 1, 1)
    store.upsert([dataclasses.replace(red, files=(copy,))], roots={root})
    broken = Unread(root + b"/broken.jpg", root, "failed", "it is empty", 0, 1)
    store.account([broken])
    with shared.transaction() as conn:
        conn.execute("UPDATE files SET mtime_ns = 7 WHERE path = ?", (bytes(photos / "red.png"),))
    assert pass_on(shared).written == 1
    eventually(lambda: names_on_milvus(cluster) == sorted([*names_in(photos), "copy.png"]))
    assert unread_there(cluster) == [broken]


def test_a_removed_folder_does_not_come_back_with_a_former_model(shared, cluster, photos, folder):
    former = shared.model()
    embed_anew(shared)
    assert pass_on(shared).switched == "wide"
    forget(shared, folder)
    broken = Unread(bytes(folder / "b.jpg"), bytes(folder), "failed", "it is empty", 0, 1)
    Store(cluster).account([broken])
    use(shared, former.id)
    assert pass_on(shared) == Passed(0, 1, former.name)
    assert cluster.used(now=True).model.identity == former.identity
    eventually(lambda: names_on_milvus(cluster) == names_in(photos))
    eventually(lambda: unread_there(cluster) == [broken])  # of another machine by now


@pytest.mark.parametrize("is_made_again", [False, True])
def test_a_milvus_that_lost_all_is_filled_again(shared, cluster, photos, folder, is_made_again):
    cluster.client.run("drop_alias", cluster.address.name)
    for name in cluster.client.run("list_collections"):
        if name.startswith(cluster.address.name):
            cluster.client.run("drop_collection", name)
    if is_made_again:  # by another machine, which has passed on what it has
        model = shared.model()
        store = Store(cluster)
        store.use_model(model.name, model.identity, model.dim, model.source)
    assert pass_on(shared) == Passed(len(names_in(photos, folder)), 0)
    eventually(lambda: names_on_milvus(cluster) == names_in(photos, folder))
    assert pass_on(shared) == Passed(0, 0)


def test_another_model_leaves_the_pictures_of_others_alone(shared, cluster, monkeypatch):
    wide = ModelRow(1, "wide", "ef" * 32, WIDE, "test")
    others = Store(cluster, wide)
    pictures = [kept(n, [(b"/b/%d.jpg" % n, b"/b", 1)], dim=WIDE) for n in range(20)]
    others.upsert(pictures, roots={b"/b"})
    eventually(lambda: others.count() == 20)
    embed_anew(shared)
    written = []
    upsert = Store._write

    def counted(self, pictures, *more):
        written.extend(pictures)
        return upsert(self, pictures, *more)

    monkeypatch.setattr(Store, "_write", counted)
    assert pass_on(shared) == Passed(9, 0, "wide")
    assert len(written) == 9
    eventually(lambda: Store(cluster).count() == 29)


def test_only_pictures_that_lose_files_are_counted_and_written(store):
    here, there, nobody = b"/a", b"/b", b"/c"
    alone = kept(1, [(b"/a/1", here, 1)])
    shared = kept(2, [(b"/a/2", here, 1), (b"/b/2", there, 1)])
    foreign = kept(3, [(b"/b/3", there, 1)])
    store.upsert([alone, shared, foreign])
    hashes = [one.hash for one in (alone, shared, foreign)]
    assert store.withdraw([*hashes, bytes(32)], roots={here, nobody}) == 2
    eventually(lambda: store.count() == 2)
    found = {one.hash: one for batch in store.pictures() for one in batch}
    assert {file.path for one in found.values() for file in one.files} == {b"/b/2", b"/b/3"}
    assert found[shared.hash].image.vector == pytest.approx(shared.image.vector, abs=1e-3)
    assert store.withdraw(hashes, roots={here}) == 0
