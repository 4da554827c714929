"""However alike the pictures are, the work grows as their number does. Counted, not timed."""

import sys

import numpy as np
import pytest
from PIL import Image

from fovea.search.duplicates import candidates, comparing
from fovea.search.duplicates.groups import BUDGET, find_duplicates
from fovea.search.duplicates.signature import signature_of
from fovea.search.library.rows import FileWrite, ImageMetadata, NewImage, WriteBatch

DIM = 8
MOST = BUDGET + comparing.ROUNDS + 1  # pairs that are compared for each picture


@pytest.fixture
def filled(library, tmp_path, monkeypatch):
    """A function that stores as many pictures as asked, all alike, and counts what is compared."""
    root = library.add_root(tmp_path)
    library.set_model("toy", "0" * 64, DIM, "test")
    compared, counts = comparing.compared, []

    def counted(one, two):
        counts.append(len(one))
        return compared(one, two)

    monkeypatch.setattr(comparing, "compared", counted)
    vector = np.full(DIM, DIM**-0.5, np.float32)

    def count(first, images, signature):
        made, files = [], []
        for number in range(first, images):
            key = number.to_bytes(32, "big")
            known = ImageMetadata(number + 1, 100, "JPEG")
            made.append(NewImage(key, 1000, known, vector, signature(number)))
            files.append(FileWrite(bytes(tmp_path / f"{number}.jpg"), root.id, 1000, 1, key))
        library.write_batch(WriteBatch(made, files))
        counts.clear()
        return find_duplicates(library), sum(counts)

    return count


def test_copies_of_one_picture_are_one_group_after_few_comparisons(filled, scene):
    signature = signature_of(scene(1))
    for first, images in ((0, 500), (500, 1000)):
        found, count = filled(first, images, lambda _: signature)
        [group] = found.groups
        assert len(group.others) == images - 1 and group.best.width == images
        assert images - 1 <= count <= MOST * images


def test_white_pictures_are_no_copies_and_cost_little(filled):
    signature = signature_of(Image.new("RGB", (640, 480), "white"))
    for first, images in ((0, 400), (400, 1200)):
        found, count = filled(first, images, lambda _: signature)
        assert found.groups == () and count <= BUDGET * images


def test_equal_hashes_of_different_pictures_cost_little(filled, scene):
    """As somebody could make them: the hash says nothing, and the embedding neither."""
    scenes = [signature_of(scene(seed)) for seed in range(12)]
    found, count = filled(0, 300, lambda at: scenes[at % 12]._replace(hash=5))
    assert count <= MOST * 300
    for group in found.groups:  # of what was compared, copies alone are together
        rows = [int(one.path.rpartition("/")[2][:-4]) for one in (group.best, *group.others)]
        assert len({row % 12 for row in rows}) == 1


@pytest.mark.parametrize("count", [1024, 5000])
def test_lists_of_neighbours_have_a_largest_size(count):
    vectors = np.full((count, DIM), DIM**-0.5, np.float32)
    lists = list(candidates._lists(vectors))
    assert max(map(len, lists)) <= candidates.TOGETHER
    times = 1 if count <= candidates.TOGETHER else candidates.PLACES
    assert sum(map(len, lists)) == times * count
    assert sum(map(len, candidates.near_vectors(vectors))) <= times * candidates.K * count


def test_equal_hashes_are_paired_with_few_others():
    count = 3000
    pairs = np.concatenate(list(candidates.near_hashes(np.zeros(count, np.uint64))))
    assert len(np.unique(pairs, axis=0)) <= 2 * candidates.NEXT * count


def test_equal_files_of_many_pictures_are_gathered_in_one_list(library, put, monkeypatch):
    for number in range(20):
        put(f"{number}.png", Image.new("L", (8, 8), number), number, signed=False)
    with library.transaction() as conn:
        conn.execute(
            "INSERT INTO files (path, root_id, size, mtime_ns, image_id, state) "
            "SELECT path || '2', root_id, size, mtime_ns, image_id, state FROM files"
        )
    plain, lists = type(library).rows, []

    def rows(self, sql, *values):
        found = plain(self, sql, *values)
        return _watched(found, lists) if "HAVING" in sql else found

    monkeypatch.setattr(type(library), "rows", rows)
    found = find_duplicates(library)
    assert [len(group.others) for group in found.groups] == 20 * [1]
    assert len(lists) >= 20 and len({id(one) for one in lists}) <= 5


def _watched(rows, lists):
    """Yield rows, and gather the lists that whoever takes them has at hand."""
    for row in rows:
        lists += [one for one in sys._getframe(1).f_locals.values() if isinstance(one, list)]
        yield row
