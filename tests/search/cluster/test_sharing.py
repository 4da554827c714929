"""Several machines pass on to one library: what one removes, changes or finds lost is its own."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from fovea.search.cluster.ledger import Passed, ledger_folder, pass_on
from fovea.search.cluster.store import Store
from fovea.search.library.library import Library
from fovea.search.library.rows import ModelRow
from fovea.search.maintenance.forget import forget_root
from fovea.search.seam.writing import FileAt, Unread
from libraries import eventually, kept

WIDE = 7


@pytest.fixture
def folder(tmp_path):
    """A second folder, with one picture."""
    made = tmp_path / "more"
    made.mkdir()
    Image.new("RGB", (9, 9), "teal").save(made / "teal.png")
    return made


@pytest.fixture
def ledger(address, cluster, photos, folder, add_file):
    """A ledger with both folders, passed on."""
    with Library.open(ledger_folder(address)) as library:
        for one in (photos, folder):
            root = library.add_root(one)
            for path in sorted(one.iterdir()):
                add_file(library, root.id, path)
        pass_on(library)
        yield library


def names_there(cluster):
    pictures = (one for batch in Store(cluster).pictures() for one in batch)
    return sorted(file.path.rpartition(b"/")[2].decode() for one in pictures for file in one.files)


def unread_there(cluster):
    return [file for batch in Store(cluster).unread() for file in batch]


def names_in(*folders):
    return sorted(path.name for folder in folders for path in folder.iterdir())


def forget(ledger, folder):
    [number] = [root.id for root in ledger.roots() if root.path == bytes(folder)]
    forget_root(ledger, number)
    pass_on(ledger)


def embed_anew(ledger):
    """Give all pictures an embedding by another model, and use that."""
    wide = ledger.add_model("wide", "ef" * 32, WIDE, "test")
    vector = np.full(WIDE, WIDE**-0.5).astype("<f2").tobytes()
    with ledger.transaction() as conn:
        conn.execute(
            "INSERT INTO embeddings (image_id, model_id, vector) SELECT id, ?, ? FROM images",
            (wide.id, vector),
        )
    use(ledger, wide.id)


def use(ledger, model_id):
    with ledger.transaction() as conn:
        conn.execute("UPDATE library SET value = ? WHERE key = 'model_id'", (model_id,))


def test_a_folder_removed_here_and_indexed_elsewhere_stays(ledger, cluster, photos, folder):
    forget(ledger, folder)
    eventually(lambda: names_there(cluster) == names_in(photos))
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
    with ledger.transaction() as conn:
        conn.execute("UPDATE files SET mtime_ns = 7 WHERE path = ?", (bytes(photos / "red.png"),))
    assert pass_on(ledger).written == 1
    eventually(lambda: names_there(cluster) == sorted([*names_in(photos), "copy.png"]))
    assert unread_there(cluster) == [broken]


def test_a_removed_folder_does_not_come_back_with_a_former_model(ledger, cluster, photos, folder):
    former = ledger.model()
    embed_anew(ledger)
    assert pass_on(ledger).switched == "wide"
    forget(ledger, folder)
    broken = Unread(bytes(folder / "b.jpg"), bytes(folder), "failed", "it is empty", 0, 1)
    Store(cluster).account([broken])
    use(ledger, former.id)
    assert pass_on(ledger) == Passed(0, 1, former.name)
    assert cluster.used(now=True).model.identity == former.identity
    eventually(lambda: names_there(cluster) == names_in(photos))
    eventually(lambda: unread_there(cluster) == [broken])  # of another machine by now


@pytest.mark.parametrize("is_made_again", [False, True])
def test_a_milvus_that_lost_all_is_filled_again(ledger, cluster, photos, folder, is_made_again):
    cluster.client.run("drop_alias", cluster.address.name)
    for name in cluster.client.run("list_collections"):
        if name.startswith(cluster.address.name):
            cluster.client.run("drop_collection", name)
    if is_made_again:  # by another machine, which has passed on what it has
        model = ledger.model()
        store = Store(cluster)
        store.use_model(model.name, model.identity, model.dim, model.source)
    assert pass_on(ledger) == Passed(len(names_in(photos, folder)), 0)
    eventually(lambda: names_there(cluster) == names_in(photos, folder))
    assert pass_on(ledger) == Passed(0, 0)


def test_another_model_leaves_the_pictures_of_others_alone(ledger, cluster, monkeypatch):
    wide = ModelRow(1, "wide", "ef" * 32, WIDE, "test")
    others = Store(cluster, wide)
    pictures = [kept(n, [(b"/b/%d.jpg" % n, b"/b", 1)], dim=WIDE) for n in range(20)]
    others.upsert(pictures, roots={b"/b"})
    eventually(lambda: others.count() == 20)
    embed_anew(ledger)
    written = []
    upsert = Store._write

    def counted(self, pictures, *more):
        written.extend(pictures)
        return upsert(self, pictures, *more)

    monkeypatch.setattr(Store, "_write", counted)
    assert pass_on(ledger) == Passed(9, 0, "wide")
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
