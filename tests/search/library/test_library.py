"""The library keeps what was written, whoever writes and whenever it is stopped."""

import os
import random
import sqlite3
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fovea.search.errors import LibraryError
from fovea.search.library import schema
from fovea.search.library.files import HELD_REASON, below
from fovea.search.library.library import DATABASE, Library, default_library_folder
from fovea.search.library.rows import FileWrite, ImageMetadata, NewImage, WriteBatch
from vectors import content, images, paths, put, unit

pytestmark = pytest.mark.usefixtures("nothing_is_unreachable")


def test_a_library_keeps_its_id_and_rows_when_it_is_opened_again(tmp_path):
    with Library.open(tmp_path / "lib", create=True) as library:
        root = library.add_root(b"/photos")
        put(library, root.id, b"/photos/a.jpg", 1)
        first = library.id
    with Library.open(tmp_path / "lib") as library:
        assert library.id == first
        assert library.roots() == [root]
        assert library.model().identity == "a" * 64
        rows = library.rows("SELECT path, size, mtime_ns, state, image_id FROM files")
        assert rows == [(b"/photos/a.jpg", 10, 99, "indexed", 1)]


def test_two_libraries_have_different_ids(tmp_path):
    with (
        Library.open(tmp_path / "a", create=True) as a,
        Library.open(tmp_path / "b", create=True) as b,
    ):
        assert a.id != b.id


def test_the_database_is_in_wal_mode_with_foreign_keys(library):
    assert library.rows("PRAGMA journal_mode") == [("wal",)]
    assert library.rows("PRAGMA foreign_keys") == [(1,)]
    assert library.rows("PRAGMA synchronous") == [(2,)]


def test_a_folder_without_a_library_says_how_to_make_one(tmp_path):
    with pytest.raises(LibraryError, match="no library in .*index a folder first"):
        Library.open(tmp_path)
    with pytest.raises(LibraryError, match="no library"):
        Library.open(tmp_path / "absent")
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(LibraryError, match="cannot use"):
        Library.open(tmp_path / "file", create=True)
    with pytest.raises(LibraryError):
        Library.open(tmp_path / "file")


def test_a_file_that_is_no_database_is_refused(tmp_path):
    (tmp_path / DATABASE).write_bytes(b"GIF89a" * 1000)
    with pytest.raises(LibraryError, match="not a library's database"):
        Library.open(tmp_path)
    assert (tmp_path / DATABASE).read_bytes() == b"GIF89a" * 1000


def test_a_database_of_another_program_is_refused_untouched(tmp_path):
    with sqlite3.connect(tmp_path / DATABASE) as conn:
        conn.execute("CREATE TABLE mine (x)")
    conn.close()
    with pytest.raises(LibraryError, match="another program"):
        Library.open(tmp_path)
    with sqlite3.connect(tmp_path / DATABASE) as conn:
        assert conn.execute("SELECT name FROM sqlite_master").fetchall() == [("mine",)]
    conn.close()


def test_a_newer_schema_asks_for_an_upgrade(library):
    library.conn.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    with pytest.raises(LibraryError, match=f"version {schema.VERSION + 1}.*upgrade fovea"):
        Library.open(library.folder)


def test_a_damaged_database_is_named(colour_library):
    folder = colour_library.folder
    colour_library.conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    colour_library.close()
    size = (folder / DATABASE).stat().st_size
    with open(folder / DATABASE, "r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (size - 4096))
    with pytest.raises(LibraryError, match="damaged.*backup"), Library.open(folder) as library:
        library.roots()


def test_a_library_that_may_not_be_written_can_be_read(colour_library, monkeypatch):
    folder = colour_library.folder
    colour_library.close()
    assert not (folder / f"{DATABASE}-wal").exists()
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with Library.open(folder) as library:
        assert library.counts().files == {"indexed": 8}
        with pytest.raises(LibraryError, match="is read-only; check its permissions"):
            library.add_root(b"/p")
    assert not (folder / f"{DATABASE}-shm").exists()


def test_a_folder_with_a_name_of_any_bytes_can_hold_a_library(tmp_path):
    folder = tmp_path / os.fsdecode(b"caf\xe9 ?#%41&mode=ro\n")
    with Library.open(folder, create=True) as library:
        library.add_root(b"/p")
    assert (folder / DATABASE).is_file()
    with Library.open(folder) as library:
        assert len(library.roots()) == 1


def test_the_default_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("FOVEA_LIBRARY", str(tmp_path))
    assert default_library_folder() == tmp_path
    monkeypatch.delenv("FOVEA_LIBRARY")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert "fovea" in default_library_folder().parts


def test_a_migration_brings_an_older_library_up_to_date(colour_library, monkeypatch):
    step = ("CREATE TABLE added (name TEXT)", "INSERT INTO added VALUES ('new')")
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, step))
    monkeypatch.setattr(schema, "VERSION", schema.VERSION + 1)
    with Library.open(colour_library.folder) as library:
        assert library.rows("SELECT name FROM added") == [("new",)]
        assert len(images(library)) == 8


def test_a_migration_that_fails_changes_nothing(colour_library, monkeypatch):
    step = ("CREATE TABLE added (name TEXT)", "INSERT INTO nowhere VALUES (1)")
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, step))
    monkeypatch.setattr(schema, "VERSION", schema.VERSION + 1)
    with pytest.raises(LibraryError, match="nowhere"):
        Library.open(colour_library.folder)
    monkeypatch.undo()
    with Library.open(colour_library.folder) as library:
        assert library.rows("SELECT name FROM sqlite_master WHERE name = 'added'") == []
        assert len(images(library)) == 8


def test_two_files_of_one_content_share_an_image(library):
    root = library.add_root(b"/p")
    put(library, root.id, b"/p/a.jpg", 1)
    put(library, root.id, b"/p/b.jpg", 1)
    assert library.rows("SELECT image_id FROM files") == [(1,), (1,)]
    assert library.counts().embeddings == 1


def test_a_path_need_not_be_utf8_or_free_of_newlines(library):
    root = library.add_root(b"/p\xff")
    names = [b"/p\xff/\xfe\n.jpg", b"/p\xff/" + "🦊".encode() + b".jpg", b"/p\xff/" + b"n" * 255]
    for number, name in enumerate(names):
        put(library, root.id, name, number)
    assert {path for (path,) in library.rows("SELECT path FROM files")} == set(names)
    assert library.roots()[0].path == b"/p\xff"


@given(
    folder=st.binary(min_size=1, max_size=6).map(lambda b: b"/" + b.replace(b"\0", b"x")),
    path=st.binary(min_size=1, max_size=8).map(lambda b: b"/" + b.replace(b"\0", b"x")),
)
def test_the_range_below_a_folder_is_its_prefix(folder, path):
    low, high = below(folder)
    assert (low <= path < high) == path.startswith(folder.rstrip(b"/") + b"/")


def test_a_changed_file_leaves_its_old_image_which_goes(library):
    root = library.add_root(b"/p")
    put(library, root.id, b"/p/a.jpg", 1)
    put(library, root.id, b"/p/a.jpg", 2)
    assert images(library) == [2]
    assert library.rows("SELECT model_id, embedding_id FROM tombstones") == [(1, 1)]


def test_a_file_that_breaks_leaves_its_image(library):
    root = library.add_root(b"/p")
    put(library, root.id, b"/p/a.jpg", 1)
    library.write_batch(
        WriteBatch(files=[FileWrite(b"/p/a.jpg", root.id, 3, 4, None, "failed", "truncated")])
    )
    assert images(library) == []
    [entry] = library.entries()
    assert (entry.state, entry.reason) == ("failed", "truncated")


def test_two_files_that_swap_contents_keep_both_images(library):
    root = library.add_root(b"/p")
    put(library, root.id, b"/p/a", 1)
    put(library, root.id, b"/p/b", 2)
    swapped = [
        FileWrite(b"/p/a", root.id, 10, 100, content(2)),
        FileWrite(b"/p/b", root.id, 10, 100, content(1)),
    ]
    library.write_batch(WriteBatch(files=swapped))
    assert images(library) == [1, 2]
    assert library.rows("SELECT count(*) FROM tombstones") == [(0,)]


def test_ids_of_images_and_embeddings_are_never_reused(library):
    root = library.add_root(b"/p")
    put(library, root.id, b"/p/a", 1)
    library.delete_files([b"/p/a"])
    assert images(library) == []
    put(library, root.id, b"/p/a", 1)
    assert images(library) == [2]
    assert library.rows("SELECT id FROM embeddings") == [(2,)]


def test_a_missing_file_keeps_its_image_and_may_return(library):
    root = library.add_root(b"/p")
    put(library, root.id, b"/p/a", 1)
    library.mark_missing([b"/p/a"])
    assert paths(library) == {b"/p/a": "missing"}
    assert images(library) == [1]
    library.mark_present([b"/p/a", b"/p/never"])
    assert paths(library) == {b"/p/a": "indexed"}


def test_a_file_that_failed_and_went_does_not_return_as_indexed(library):
    root = library.add_root(b"/p")
    library.write_batch(
        WriteBatch(files=[FileWrite(b"/p/a", root.id, 1, 1, None, "failed", "broken")])
    )
    library.mark_missing([b"/p/a"])
    library.mark_present([b"/p/a"])
    assert paths(library) == {b"/p/a": "missing"}


def test_an_indexed_file_without_a_known_content_is_refused(library):
    root = library.add_root(b"/p")
    with pytest.raises(ValueError, match="content is unknown"):
        library.write_batch(
            WriteBatch(files=[FileWrite(b"/p/a", root.id, 1, 1, content(7), "indexed")])
        )
    assert paths(library) == {}


@pytest.mark.parametrize(
    ("vector", "complaint"),
    [
        (np.ones(4, "float32") / 2, "shape"),
        (np.ones(3, "float32"), "length"),
        (np.zeros(3, "float32"), "length"),
        (np.full(3, np.nan, "float32"), "length"),
    ],
)
def test_a_vector_that_does_not_suit_the_model_is_refused(library, vector, complaint):
    root = library.add_root(b"/p")
    library.set_model("toy", "a" * 64, 3, "test")
    batch = WriteBatch(
        [NewImage(content(1), 1, ImageMetadata(), vector)],
        [FileWrite(b"/p/a", root.id, 1, 1, content(1))],
    )
    with pytest.raises(ValueError, match=complaint):
        library.write_batch(batch)
    assert images(library) == []


def test_vectors_need_a_model(library):
    with pytest.raises(ValueError, match="set_model"):
        library.write_batch(WriteBatch([NewImage(content(1), 1, vector=unit(1))]))


def test_an_embedding_is_kept_as_float16(library):
    root = library.add_root(b"/p")
    put(library, root.id, b"/p/a", 1)
    [(blob,)] = library.rows("SELECT vector FROM embeddings")
    assert np.array_equal(np.frombuffer(blob, "<f2"), unit(1).astype("float16"))


def test_an_embedding_cannot_be_changed_in_place(colour_library):
    with (
        pytest.raises(sqlite3.IntegrityError, match="written once"),
        colour_library.transaction() as conn,
    ):
        conn.execute("UPDATE embeddings SET vector = x'00' WHERE id = 1")


def test_metadata_lands_in_its_columns(library):
    metadata = ImageMetadata(
        640, 480, "JPEG", 6, "2024-05-06T07:08:09", "A", "B", 0.01, 2.8, 200, 50.0, 1.5, -2.5, 30.0,
        "the last 8 rows", "DateTimeOriginal", 61_000, 2_000,
    )  # fmt: skip
    library.write_batch(WriteBatch([NewImage(content(1), 5, metadata)]))
    [row] = list(library.db.query("SELECT * FROM images"))
    assert row == {
        "id": 1, "hash": content(1), "bytes": 5, "width": 640, "height": 480, "format": "JPEG",
        "orientation": 6, "taken_at": "2024-05-06T07:08:09", "camera": "A", "lens": "B",
        "exposure": 0.01, "f_number": 2.8, "iso": 200, "focal_length": 50.0, "latitude": 1.5,
        "longitude": -2.5, "altitude": 30.0,
        "damaged": "the last 8 rows", "dated_by": "DateTimeOriginal", "duration_ms": 61_000,
        "poster_ms": 2_000,
    }  # fmt: skip


def test_hashes_are_looked_up_by_the_thousand(library):
    library.write_batch(WriteBatch([NewImage(content(n), 1) for n in range(0, 3000, 2)]))
    found = library.image_by_hash(content(n) for n in range(3000))
    assert set(found) == {content(n) for n in range(0, 3000, 2)}
    assert len(set(found.values())) == 1500


def test_a_library_remembers_its_model_and_keeps_the_old_ones(library):
    assert library.model() is None
    first = library.set_model("small", "a" * 64, 3, "bundled")
    second = library.set_model("large", "b" * 64, 8, "download")
    assert library.model() == second
    assert library.models() == [first, second]
    assert library.set_model("renamed", "a" * 64, 3, "folder").id == first.id
    assert library.model().name == "renamed"


def test_a_model_made_known_does_not_answer_yet(library):
    first = library.set_model("small", "a" * 64, 3, "bundled")
    library.add_model("large", "b" * 64, 8, "download")
    assert library.model() == first


def test_one_identity_has_one_width(library):
    library.set_model("small", "a" * 64, 3, "bundled")
    with pytest.raises(ValueError, match="width 3, not 4"):
        library.set_model("small", "a" * 64, 4, "bundled")


def test_a_second_model_embeds_images_that_are_there(library):
    root = library.add_root(b"/p")
    for number in range(5):
        put(library, root.id, b"/p/%d" % number, number)
    put(library, root.id, b"/p/again", 0)
    other = library.add_model("large", "b" * 64, 4, "test")
    assert library.has_embedding([1, 2, 99], other.id) == set()
    for number in range(5):
        new = NewImage(content(number), 10, vector=unit(number, 4))
        library.write_batch(WriteBatch([new], model_id=other.id))
    assert library.has_embedding([1, 2, 99], other.id) == {1, 2}
    assert images(library) == [1, 2, 3, 4, 5]


def test_files_are_counted_by_their_state(library):
    """Against the rows themselves, with roots that are there and one that is not."""
    rng = random.Random(4)
    roots = [library.add_root(f"/{name}") for name in "abc"]
    library.set_root_state(roots[2].id, "offline")
    reasons = (None, None, HELD_REASON, "because")
    states = ("indexed", "indexed", "skipped", "failed", "missing")
    key = b"k" * 32
    files = [
        FileWrite(
            b"%s/%d" % (root.path, number), root.id, 1, 1, key, rng.choice(states),
            rng.choice(reasons),
        )
        for number, root in enumerate(rng.choices(roots, k=200))
    ]  # fmt: skip
    library.write_batch(WriteBatch([NewImage(key, 1)], files))
    assert library.counts().files == Counter(entry.state for entry in library.entries())
    assert list(library.counts().files) == sorted(library.counts().files)
    assert set(library.counts().files) == {"failed", "indexed", "missing", "offline", "skipped"}
