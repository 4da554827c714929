"""Columns against SQL: drawn libraries of odd names and dates, filtered and sorted both ways."""

import gc
import os
import random
import sqlite3
from types import SimpleNamespace

import numpy as np
import pytest

from fovea.search.library.library import Library
from fovea.search.library.marks import MARKS, mark
from fovea.search.library.rows import FileWrite, ImageMetadata, NewImage, WriteBatch
from fovea.search.overview.timeline import timeline
from fovea.search.query import choosing
from fovea.search.query.choosing import chosen
from fovea.search.query.columns import images_within, read_columns
from fovea.search.query.filters import allowed_images, visible
from fovea.search.query.language import parse
from fovea.search.query.rank import rank
from fovea.search.tags.stored import make_tag

NS = 1_000_000_000
ROOTS = (b"/photos", b"/photos/inner", b"/Phone")
FOLDERS = (
    "/photos", "/photos/2019", "/photos/2019/Café", "/photos/2019/Cafe\u0301", "/photos/inner/a",
    "/photos/inner/a/b", "/Phone/2019", "/Phone/DCIM/2019", "/Phone/ＤＣＩＭ", "/Phone/odd\udcff",
)  # fmt: skip
NAMES = (
    "IMG_{}.jpg", "img_{}.JPG", "{}.png", "Café {}.jpg", "Cafe\u0301 {}.jpg", "a%b_{}.jpg",
    "same.jpg", "Ｘ{}.heic", "日本{}.jpg", "IMG_20190714_1015{}.jpg", "odd\udcfe{}.jpg",
    "a\n{}.jpg",
)  # fmt: skip
DAYS = (
    None, "2019", "2019-07", "2019-07-14", "2019-07-14T10:15:00", "2019-07-14T10:15:10",
    "2020-01-01T00:00:00", "2020-01", "1999-12-31T23:59:59",
)  # fmt: skip
CAMERAS = (None, "Canon EOS 6D", "CANON eos m", "NIKON D90", "Ünlü 50%", "a_b")
LENSES = (None, "EF50mm f/1.8", "ef-s 10-50MM", "Ünlü 50%")
SIDES = (None, 1, 40, 41, 4000, 6000)
FILTERS = (
    "in:2019", "in:photos/2019", "in:café", "in:/photos", "in:/photos/2019/Café", "in:/Phone/DCIM",
    "in:a", 'in:"odd\udcff"', "in:/", "name:img", "name:same", "name:café", "name:.jpg", "name:%",
    "name:日本", "name:IMG_*", "name:*.JPG", "name:s*e.jpg", "name:*é*", "name:same.jpg*same.jpg",
    "name:*", "name:**", "name:*a*b*", "name:?.png", "name:\udcfe", "on:2019", "on:2019-07",
    "on:2019-07-14", "after:2018", "after:2019-07-14", "after:2019-07", "before:2019-08",
    "before:2019-07-15", "before:2020", "camera:canon", "camera:%", "camera:_", "camera:ü",
    "lens:50mm", "lens:%", "lens:ü",
    "format:png", "format:jpg", "format:heic", "is:square", "is:landscape", "is:portrait",
    "is:damaged", "size:>1MP", "size:<=500B", "size:>=24MP", "near:48.2,16.4,10km",
    "near:0,180,500km", "near:90,0,10000km", "is:favourite", "is:hidden", "tag:rex",
)  # fmt: skip


class Drawn:
    """A library that changes by chance."""

    def __init__(self, library, seed):
        self.library, self.rng, self.count = library, random.Random(seed), 0
        self.roots = {root: library.add_root(root).id for root in ROOTS}
        self.paths = []

    def grow(self, images):
        """Write images with one to three files each, some of them failed, and further copies."""
        new, files = [], []
        for _ in range(images):
            self.count += 1
            key = self.count.to_bytes(32, "big")
            new.append(NewImage(key, self.rng.choice((1, 500, 10**7)), self.metadata()))
            files += [self.file(key) for _ in range(self.rng.choice((1, 1, 2, 3)))]
        known = [key for (key,) in self.library.rows("SELECT hash FROM images ORDER BY id")]
        files += [self.file(self.rng.choice(known)) for _ in range(3 if known else 0)]
        self.library.write_batch(WriteBatch(new, files))
        with self.library.transaction() as conn:
            tag, _ = make_tag(conn, "rex")
            sql = "INSERT OR IGNORE INTO tagged SELECT ?, id, 1.0 FROM images WHERE id % 7 = 0"
            conn.execute(sql, (tag,))

    def metadata(self):
        choice = self.rng.choice
        place = choice(((None, None), (48.2, 16.4), (48.25, 16.45), (0.0, -179.5), (89.0, 3.0)))
        return ImageMetadata(
            choice(SIDES), choice(SIDES), choice((None, "JPEG", "PNG", "HEIF")), 1, choice(DAYS),
            choice(CAMERAS), choice(LENSES), latitude=place[0], longitude=choice((place[1], None)),
            damaged=choice((None, None, "half is missing")), dated_by="DateTime",
        )  # fmt: skip

    def file(self, key):
        choice = self.rng.choice
        name = choice(NAMES).format(self.rng.randrange(100))
        path = os.fsencode(f"{choice(FOLDERS)}/{name}")
        root = max((root for root in ROOTS if path.startswith(root + b"/")), key=len)
        self.paths.append(path)
        mtime_ns = choice((1_561_900_000, 1_563_100_000, 1_577_900_000, 2**33)) * NS
        if self.rng.random() < 0.1:
            return FileWrite(path, self.roots[root], 1, mtime_ns, None, "failed", "broken")
        return FileWrite(path, self.roots[root], 1, mtime_ns, key)

    def change(self):
        """Delete, lose and find some files, read a picture anew, and mark or unmark two."""
        some = self.rng.sample(self.paths, 6)
        self.library.delete_files(some[:2])
        self.library.mark_missing(some[2:4])
        self.library.mark_present(some[3:5])
        key = self.rng.randrange(1, self.count + 1).to_bytes(32, "big")
        self.library.write_batch(WriteBatch(refreshed=[NewImage(key, 1, self.metadata())]))
        for kind in MARKS:
            other = self.rng.randrange(1, self.count + 1).to_bytes(32, "big")
            mark(self.library, [key, other], kind, self.rng.random() < 0.8)

    def query(self):
        filters = self.rng.sample(FILTERS, self.rng.choice((0, 1, 1, 2, 3)))
        signed = [self.rng.choice(("", "", "-")) + text for text in filters]
        return " ".join([*signed, self.rng.choice(("", "sort:date", "sort:name"))])


def browsed(library, query, columns, limit=10**6):
    ranking = rank(library, None, None, query, columns=columns, limit=limit)
    return ranking.ids.tolist(), ranking.total


@pytest.mark.parametrize("seed", range(12))
def test_columns_choose_and_sort_as_sql_does_whatever_changes(library, seed):
    drawn = Drawn(library, seed)
    for _ in range(3):
        drawn.grow(25)
        columns = read_columns(library)
        assert columns is not None and len(columns) <= drawn.count
        for _ in range(40):
            query = parse(drawn.query())
            found = chosen(library, columns, query.filters)
            if found is not None:
                seen = visible(library, found.ids, query.filters)
                assert seen.tolist() == allowed_images(library, query.filters).tolist()
            assert browsed(library, query, columns) == browsed(library, query, None), str(query)
            by_month = timeline(library, query.filters, columns)
            assert by_month == timeline(library, query.filters)
            assert by_month.total == browsed(library, query, None)[1]
            assert browsed(library, query, columns, 7) == browsed(library, query, None, 7)
        drawn.change()


@pytest.mark.parametrize(
    "text", [text for text in FILTERS if text not in ("name:?.png", "name:*a*b*")]
)
def test_each_filter_is_answered_by_columns(library, text):
    drawn = Drawn(library, 99)
    drawn.grow(60)
    columns = read_columns(library)
    for sign in ("", "-"):
        filters = parse(sign + text).filters
        found = chosen(library, columns, filters, is_dated=True)
        assert found.ids.tolist() == allowed_images(library, filters).tolist()


def test_sql_answers_where_many_dates_depend_on_the_chosen_files(library, monkeypatch):
    drawn = Drawn(library, 5)
    drawn.grow(60)
    columns = read_columns(library)
    query = parse("in:2019 sort:date")
    assert chosen(library, columns, query.filters, is_dated=True).dates is not None
    monkeypatch.setattr(choosing, "PARTED", 0)
    assert chosen(library, columns, query.filters, is_dated=True) is None
    assert browsed(library, query, columns) == browsed(library, query, None)


def test_an_empty_library_has_columns(library):
    columns = read_columns(library)
    assert len(columns) == 0
    for text in ("", "in:2019", "name:a", "on:2019", "camera:a", "is:square sort:name"):
        assert browsed(library, parse(text), columns) == ([], 0)


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM folded WHERE file_id = 3",
        "UPDATE images SET width = -5 WHERE id = 2",
        "UPDATE images SET bytes = 'many' WHERE id = 2",
        "UPDATE folded SET name = 'a' || char(0) || 'b' WHERE file_id = 1",
        "INSERT INTO shown (image_id, date) VALUES (12345, '2019')",
        "UPDATE shown SET date = 'tést' WHERE image_id = 1",
    ],
)
def test_what_columns_cannot_hold_is_left_to_sql(library, damage):
    Drawn(library, 1).grow(20)
    library.conn.execute("PRAGMA foreign_keys = OFF")
    library.conn.execute(damage)
    assert read_columns(library) is None


@pytest.mark.parametrize("seed", range(20))
def test_images_of_groups_of_folders_are_counted_once(seed):
    rng = np.random.default_rng(seed)
    count, folders, groups = rng.integers(1, 9, 3).tolist()
    owners = np.sort(rng.integers(0, count, rng.integers(0, 30)))
    files = SimpleNamespace(file_images=owners, file_folders=rng.integers(0, folders, len(owners)))
    inside = [
        (folder, group)
        for folder in range(folders)
        for group in range(groups)
        if rng.random() < 0.5
    ]
    expected = [
        len({
            owner
            for owner, folder in zip(owners.tolist(), files.file_folders.tolist(), strict=True)
            if (folder, group) in inside
        })
        for group in range(groups)
    ]  # fmt: skip
    assert images_within(files, inside, groups) == expected


def test_columns_are_of_one_state_while_another_connection_writes(library):
    drawn = Drawn(library, 3)
    drawn.grow(20)
    with Library.open(library.folder) as reader, reader.reading():
        before = allowed_images(reader, ()).tolist()  # the state that is read begins here
        drawn.grow(20)
        assert read_columns(reader).ids.tolist() == before
    assert len(read_columns(library)) > len(before)


@pytest.mark.parametrize("text", ["", "sort:name", "after:2018", "in:2019 sort:name"])
def test_the_first_images_do_not_keep_all_others_in_memory(library, text):
    Drawn(library, 8).grow(60)
    columns = read_columns(library)
    ids = rank(library, None, None, parse(text), columns=columns, limit=5).ids
    assert len(ids) == 5 and ids.base is None


def test_the_database_of_values_is_closed_with_its_columns(library):
    columns = read_columns(library)
    database = columns.values._database
    assert database.execute("SELECT count(*) FROM files").fetchone() == (0,)
    del columns
    gc.collect()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        database.execute("SELECT 1")
