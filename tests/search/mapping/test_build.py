"""The map of a library: built, kept, and grown."""

import os
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest

from fovea.search.errors import LibraryBusy, LibraryError
from fovea.search.library import locks
from fovea.search.library.library import Library
from fovea.search.library.locks import briefly, exclusive
from fovea.search.library.marks import contents, mark
from fovea.search.library.rows import FileWrite, ImageMetadata, NewImage, WriteBatch
from fovea.search.maintenance.forget import forget_root
from fovea.search.mapping import build
from fovea.search.mapping.build import build_map, current_map, remove_maps, stored_map
from fovea.search.mapping.stored import SIDE, load, map_path, save
from fovea.search.query.likelihood import Background, default_labels
from vectors import clustered

pytest.importorskip("sklearn", reason="a map needs fovea[map]")

DIM = 24
MODEL = "0" * 64


def fill(library, vectors, first=0, identity=MODEL, root="/pictures"):
    """Store pictures with files, numbered from ``first``; return their ids."""
    model = library.set_model(identity[:4], identity, DIM, "test")
    folder, root = root, library.add_root(root)
    numbers = range(first, first + len(vectors))
    # Contents in no order, as SHA-256 has it.
    hashes = [np.random.default_rng(number).bytes(32) for number in numbers]
    images = [
        NewImage(key, 1, ImageMetadata(4, 3, "JPEG"), row)
        for key, row in zip(hashes, vectors, strict=True)
    ]
    files = [
        FileWrite(os.fsencode(f"{folder}/{number}.jpg"), root.id, 1, 0, key)
        for number, key in zip(numbers, hashes, strict=True)
    ]
    library.write_batch(WriteBatch(images, files, model.id))
    known = library.image_by_hash(hashes)
    return np.array([known[key] for key in hashes])


def places(found):
    return dict(zip(found.image_ids.tolist(), map(tuple, found.positions.tolist()), strict=True))


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """The folder of a library of 150 pictures with a map of 100 landmarks."""
    folder = tmp_path_factory.mktemp("filled") / "library"
    with Library.open(folder, create=True) as library:
        fill(library, clustered(150, DIM, centres=6))
        build_map(library, landmarks=100)
    return folder


@pytest.fixture
def mapped(filled, tmp_path):
    """The same library, in a copy."""
    shutil.copytree(filled, tmp_path / "copy")
    with Library.open(tmp_path / "copy") as library:
        yield library


@pytest.fixture
def free(mapped, monkeypatch):
    """Whether others could take the lock of laying out, each time that a map was saved."""
    found = []

    def saving(*values):
        with briefly(mapped.folder, build.LOCK) as is_free:
            found.append(is_free)
        return save(*values)

    monkeypatch.setattr(build, "save", saving)
    return found


def test_a_map_has_all_searchable_pictures(mapped):
    found = current_map(mapped)
    assert found.image_ids.tolist() == [
        n for (n,) in mapped.rows("SELECT id FROM images ORDER BY id")
    ]
    assert len(found.landmarks) == 100
    assert (found.positions > 0).all() and (found.positions < SIDE).all()
    assert sum(one.count for one in found.clusters if one.level == 0) == 150
    assert found.identity == MODEL
    assert not found.is_outgrown


def test_the_same_pictures_have_the_same_map_in_any_library(mapped, tmp_path):
    vectors = clustered(150, DIM, centres=6)
    with Library.open(tmp_path / "other", create=True) as other:
        fill(other, vectors[::-1][:0])
        for number in reversed(range(150)):  # other ids
            fill(other, vectors[number : number + 1], number)
        found = build_map(other, landmarks=100)
        by_path = "SELECT image_id, path FROM files"
        names, others = dict(mapped.rows(by_path)), dict(other.rows(by_path))
    first = {names[key]: place for key, place in places(current_map(mapped)).items()}
    again = {others[key]: place for key, place in places(found).items()}
    assert first == again


def test_new_pictures_move_no_other(mapped):
    before = places(current_map(mapped))
    new = fill(mapped, clustered(40, DIM, seed=8, centres=6), 1000)
    after = current_map(mapped)
    assert {key: place for key, place in places(after).items() if key not in new} == before
    assert set(new.tolist()) <= set(after.image_ids.tolist())
    assert len(set(places(after).values())) == 190
    assert places(stored_map(mapped)) == places(after)  # so they stay


def test_placing_new_pictures_spares_a_map_that_was_laid_out_meanwhile(mapped, monkeypatch):
    fill(mapped, clustered(40, DIM, seed=8, centres=6), 1000)
    with Library.open(mapped.folder) as other:
        plain, made = build._with, []

        def placing(*values):
            made.append(build_map(other, landmarks=80))
            return plain(*values)

        monkeypatch.setattr(build, "_with", placing)
        current_map(mapped)
    [made] = made
    assert stored_map(mapped).laid_out == made.laid_out == 190


def test_new_pictures_are_saved_under_the_lock_that_laying_out_takes(mapped, free):
    fill(mapped, clustered(40, DIM, seed=8, centres=6), 1000)
    with exclusive(mapped.folder, build.LOCK):  # as while it is laid out
        found = current_map(mapped)
        assert len(found) == 190 and free == []
    assert len(stored_map(mapped)) == 150
    assert places(current_map(mapped)) == places(found) == places(stored_map(mapped))
    assert free == [False]


def test_a_new_picture_lies_among_those_like_it(mapped):
    vectors = clustered(150, DIM, centres=6)
    before = current_map(mapped)
    near = (vectors[:1] + 0.01).astype(np.float32)
    [new] = fill(mapped, near / np.linalg.norm(near), 1000)
    after = places(current_map(mapped))
    away = np.linalg.norm(before.positions.astype(float) - after[int(new)], axis=1)
    alike = vectors @ vectors[0]
    assert away[np.argsort(-alike)[:5]].mean() < away.mean() / 3


def test_pictures_that_are_gone_or_hidden_are_not_on_it(mapped):
    before = current_map(mapped)
    hidden, gone = before.image_ids[:2].tolist()
    mark(mapped, contents(mapped, [hidden]).values(), "hidden", True)
    with mapped.transaction() as conn:
        conn.execute("DELETE FROM files WHERE image_id = ?", (gone,))
    after = current_map(mapped)
    assert after.image_ids.tolist() == before.image_ids[2:].tolist()
    assert np.array_equal(after.positions, before.positions[2:])
    assert sum(one.count for one in after.clusters if one.level == 0) == 148
    mark(mapped, contents(mapped, [hidden]).values(), "hidden", False)
    assert places(current_map(mapped))[hidden] == places(before)[hidden]


def test_pictures_of_a_cluster_come_from_its_middle(mapped):
    found = current_map(mapped)
    cluster = found.clusters[0]
    ids = found.of_cluster(0)
    assert len(ids) == cluster.count and ids[0] == cluster.image_id
    spots = np.array([places(found)[key] for key in ids.tolist()]) / SIDE
    away = np.hypot(*(spots - [cluster.x, cluster.y]).T)
    assert (np.diff(away) >= 0).all()
    with pytest.raises(KeyError):
        found.of_cluster(1000)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 10])
def test_tiny_libraries_have_maps(tmp_path, count):
    with Library.open(tmp_path / "tiny", create=True) as library:
        fill(library, clustered(count, DIM))
        found = build_map(library)
        assert len(found) == count == len(set(places(found).values()))
        fill(library, clustered(2, DIM, seed=4), 500)
        after = places(current_map(library))
        assert len(after) == count + 2
        assert after.items() >= places(found).items()


def test_a_library_of_copies_has_a_map(tmp_path):
    with Library.open(tmp_path / "same", create=True) as library:
        fill(library, np.repeat(clustered(1, DIM), 60, axis=0))
        found = build_map(library, landmarks=30)
        assert len(set(places(found).values())) == 60


def test_a_library_without_model_has_none(library):
    assert current_map(library) is None
    with pytest.raises(LibraryError, match="nothing is indexed yet"):
        build_map(library)


def test_another_model_has_another_map(mapped):
    fill(mapped, clustered(150, DIM, seed=2, centres=6), 0, identity="1" * 64)
    assert current_map(mapped) is None
    second = build_map(mapped, landmarks=100)
    assert second.identity == "1" * 64
    mapped.set_model(MODEL[:4], MODEL, DIM, "test")
    assert current_map(mapped).identity == MODEL
    assert remove_maps(mapped) and current_map(mapped) is None
    assert not remove_maps(mapped)


@pytest.mark.parametrize("step", build.STEPS)
def test_an_interrupted_build_leaves_the_map_as_it_was(mapped, step):
    before, stop = map_path(mapped.folder, MODEL).read_bytes(), threading.Event()
    fill(mapped, clustered(5, DIM, seed=9), 700)

    def note(now):
        if now.step == step:
            stop.set()
            note_again(now)

    def note_again(now):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_map(mapped, progress=note, stop=stop)
    assert map_path(mapped.folder, MODEL).read_bytes() == before
    assert not list(mapped.folder.glob("*.part"))
    stop = threading.Event()
    stop.set()
    with pytest.raises(KeyboardInterrupt):
        build_map(mapped, stop=stop)


def test_what_a_killed_build_has_left_goes_with_the_next(mapped):
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    path = map_path(mapped.folder, MODEL)
    left = path.with_suffix(f".{gone.pid}.part")
    other = map_path(mapped.folder, "1" * 64).with_suffix(f".{gone.pid}.part")
    recycled = path.with_suffix(f".{os.getppid()}.part")
    own = [
        path.with_suffix(f".{os.getppid()}0.part"),  # as if another process was writing it
        mapped.folder / f"map-of-town.{gone.pid}.part",
        mapped.folder / f"map-{'0' * 16}.part",
        mapped.folder / f"map-{'0' * 16}.x.part",
    ]
    for one in (left, other, recycled, *own):
        one.write_bytes(b"half")
    os.utime(recycled, (0, 0))  # from before the process that has this id now
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(locks, "is_alive", lambda pid: pid != gone.pid)
        build_map(mapped, landmarks=100)
    assert not left.exists() and not other.exists() and not recycled.exists()
    assert all(one.read_bytes() == b"half" for one in own)
    os.symlink(own[1], left)
    remove_maps(mapped)
    assert not left.is_symlink() and own[1].read_bytes() == b"half", "the link alone is removed"


def test_one_process_at_a_time_lays_it_out(mapped):
    with exclusive(mapped.folder, build.LOCK):
        with pytest.raises(LibraryBusy, match="is laying out the map of"):
            build_map(mapped)


@pytest.mark.parametrize("damage", ["cut", "empty", "noise", "other library"])
def test_a_damaged_file_is_ignored(mapped, caplog, damage):
    path = map_path(mapped.folder, MODEL)
    data = path.read_bytes()
    if damage == "other library":
        found = stored_map(mapped)
        assert load(mapped.folder, MODEL, "another", DIM) is None
        assert load(mapped.folder, MODEL, mapped.id, DIM + 1) is None
        assert save(found, mapped.folder)
        return
    path.write_bytes({"cut": data[: len(data) // 2], "empty": b"", "noise": b"x" * 500}[damage])
    assert current_map(mapped) is None
    assert "lay the map out anew" in caplog.text


def test_a_map_that_most_pictures_came_after_says_so(mapped):
    fill(mapped, clustered(151, DIM, seed=6, centres=6), 2000)
    assert current_map(mapped).is_outgrown
    assert not build_map(mapped, landmarks=100).is_outgrown


def test_a_forgotten_folder_leaves_no_trace(mapped):
    added = fill(mapped, clustered(30, DIM, seed=3, centres=6), 900, root="/more")
    before = build_map(mapped, landmarks=100)
    assert np.isin(added, before.landmark_ids).any()
    [root] = [root for root in mapped.roots() if root.path == b"/more"]
    forget_root(mapped, root.id)
    after = stored_map(mapped)
    assert not np.isin(added, after.image_ids).any()
    assert not np.isin(added, after.landmark_ids).any()
    assert len(after.landmarks) == len(after.spots) == len(after.leaves) < 100
    assert places(before).items() >= places(after).items() and len(after) == 150
    [root] = mapped.roots()
    forget_root(mapped, root.id)
    assert not map_path(mapped.folder, MODEL).exists()


def test_a_folder_that_is_forgotten_while_a_map_is_laid_out_leaves_no_trace(mapped, monkeypatch):
    monkeypatch.setattr(build, "WAIT_S", 0.0)
    added = fill(mapped, clustered(30, DIM, seed=3, centres=6), 900, root="/more")
    [root] = [root for root in mapped.roots() if root.path == b"/more"]
    met = []

    def note(now):
        if now.step == "naming":
            met.append(forget_root(mapped, root.id))

    made = build_map(mapped, landmarks=100, progress=note)
    assert met == [30] and len(made) == 150
    for found in (made, stored_map(mapped)):
        assert not np.isin(added, found.image_ids).any()
        assert not np.isin(added, found.landmark_ids).any()


def test_images_are_forgotten_under_the_lock_that_laying_out_takes(mapped, free):
    fill(mapped, clustered(30, DIM, seed=3, centres=6), 900, root="/more")
    build_map(mapped, landmarks=100)
    free.clear()
    [root] = [root for root in mapped.roots() if root.path == b"/more"]
    forget_root(mapped, root.id)
    assert free == [False] and len(stored_map(mapped)) == 150


def test_clusters_get_names_from_the_labels(mapped):
    found = current_map(mapped)
    labels = len(default_labels())
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((labels, DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    # One label is what a cluster's pictures show.
    cluster = max((one for one in found.clusters if one.level == 0), key=lambda one: one.count)
    ids = found.of_cluster(cluster.id)[:20].tolist()
    rows = mapped.rows(f"SELECT vector FROM embeddings WHERE image_id IN {tuple(ids)}")
    mean = np.frombuffer(b"".join(row for (row,) in rows), "<f2").reshape(20, DIM).mean(axis=0)
    vectors[7] = mean / np.linalg.norm(mean)
    background = Background(MODEL, vectors, 30.0)
    made = build_map(mapped, background=lambda: background, landmarks=100)
    names = [one.names for one in made.clusters if one.level == 0]
    assert [default_labels()[7] in some for some in names].count(True) == 1
    assert current_map(mapped).clusters == made.clusters
