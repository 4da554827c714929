"""What is whole of a damaged library is saved, and costs no inference."""

import gzip
import random
import shutil
from pathlib import Path

import pytest

import fovea
from commands import run
from damaging import PAGE, cut, flip, made, swap, wipe
from fovea.indexer.scanning.verify import verify
from fovea.search.errors import LibraryError
from fovea.search.library.connection import connect
from fovea.search.library.library import DATABASE, Library
from fovea.search.maintenance import salvage as module
from fovea.search.maintenance.salvage import salvage
from scanner import Scanner

MADE_BEFORE = Path(__file__).parents[1] / "library" / "made_before"


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return made(tmp_path_factory.mktemp("original"))


def contents(library):
    """What each image is: its content, and its embedding."""
    return dict(
        library.rows(
            "SELECT hash, vector FROM images JOIN embeddings ON embeddings.image_id = images.id"
        )
    )


def rooted(original, name):
    """The first page of a table or of an SQL index."""
    conn = connect(original / "library" / DATABASE)
    [(page,)] = conn.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (name,))
    conn.close()
    return page


def test_all_of_a_sound_library_is_saved(original, tmp_path):
    report = salvage(original / "library", tmp_path / "saved")
    assert report.kept == {
        "roots": 1, "models": 1, "images": 40, "files": 41, "embeddings": 40, "marks": 0,
        "searches": 0, "tags": 0, "tag_examples": 0,
    }  # fmt: skip
    assert set(report.lost.values()) == {0}
    with Library.open(original / "library") as before, Library.open(tmp_path / "saved") as after:
        for table in ("roots", "images", "files", "models", "embeddings", "shown"):
            sql = f"SELECT * FROM {table} ORDER BY 1"
            assert after.rows(sql) == before.rows(sql)
        scan = Scanner(after)
        assert scan().embedded == 0
        assert verify(after).problems == []
        assert after.rows("SELECT key FROM library WHERE key = 'salvaged'") == []


@pytest.mark.parametrize(
    "index",
    ["sqlite_autoindex_embeddings_1", "embeddings_model_id", "sqlite_autoindex_files_1",
     "sqlite_autoindex_images_1", "files_image_id", "shown_date", "shown", "names_docsize"],
)  # fmt: skip
def test_a_lost_index_costs_nothing(original, tmp_path, index):
    """Also not where it has another one's page, as after two pages were exchanged."""
    for number, other in enumerate((None, "files_root_id")):
        copy = tmp_path / f"copy{number}"
        shutil.copytree(original / "library", copy)
        data = bytearray((copy / DATABASE).read_bytes())
        at = (rooted(original, index) - 1) * PAGE
        new = bytes(PAGE)
        if other:
            from_page = (rooted(original, other) - 1) * PAGE
            new = data[from_page : from_page + PAGE]
        data[at : at + PAGE] = new
        (copy / DATABASE).write_bytes(data)
        report = salvage(copy, tmp_path / f"saved{number}")
        assert (report.kept["images"], report.kept["embeddings"]) == (40, 40)
        with Library.open(tmp_path / f"saved{number}") as library:
            assert Scanner(library)(original / "photos").embedded == 0
            assert verify(library).problems == []


@pytest.mark.parametrize("table", ["files", "images", "embeddings"])
def test_a_lost_page_costs_what_is_on_it(original, tmp_path, table):
    copy = tmp_path / "copy"
    shutil.copytree(original / "library", copy)
    data = bytearray((copy / DATABASE).read_bytes())
    at = (rooted(original, table) - 1) * PAGE
    data[at : at + PAGE] = random.Random(1).randbytes(PAGE)
    (copy / DATABASE).write_bytes(data)
    report = salvage(copy, tmp_path / "saved")
    assert report.lost[table] > 0
    with Library.open(tmp_path / "saved") as library:
        scan = Scanner(library)
        report = scan(original / "photos")
        assert report.embedded == (0 if table == "files" else 40)
        scan()
        assert verify(library).problems == []


@pytest.mark.parametrize("fill", [b"\0", b"\xff"])
@pytest.mark.parametrize(
    "lost",
    [("roots", "sqlite_sequence", "images"),
     ("images", "sqlite_autoindex_images_1", "sqlite_sequence"),
     ("embeddings", "sqlite_autoindex_embeddings_1", "sqlite_sequence")],
)  # fmt: skip
def test_lost_tables_are_given_up(original, tmp_path, lost, fill):
    """Nothing tells how many rows there were, and no range of ids can be read."""
    copy = tmp_path / "copy"
    shutil.copytree(original / "library", copy)
    data = bytearray((copy / DATABASE).read_bytes())
    for name in lost:
        at = (rooted(original, name) - 1) * PAGE
        data[at : at + PAGE] = fill * PAGE
    (copy / DATABASE).write_bytes(data)
    report = salvage(copy, tmp_path / "saved")
    assert report.kept[lost[0]] == 0
    with Library.open(tmp_path / "saved") as library:
        Scanner(library)(original / "photos")
        Scanner(library)()
        assert verify(library).problems == []


def test_rows_around_many_that_are_lost_are_kept(tmp_path):
    """Single rows, whole pages, and rows that lie alone among them."""
    conn = connect(tmp_path / "x.db")
    conn.execute("CREATE TABLE roots (id INTEGER PRIMARY KEY, path TEXT)")
    lost = {2, 3, 5, 6, 7, 700, *range(900, 1400), *range(1401, 1500), 1999}
    rows = [(n, b"\xff" if n in lost else b"a") for n in range(1, 2001)]
    conn.executemany("INSERT INTO roots VALUES (?, CAST(? AS TEXT))", rows)
    found = [row for (row, _) in module._rows(conn, "roots", ["id", "path"])]
    conn.close()
    assert sorted(found) == [n for n in range(1, 2001) if n not in lost]


def test_a_library_of_older_tables_gets_the_dates_in_names(tmp_path):
    (tmp_path / "old").mkdir()
    stored = MADE_BEFORE / "version-3.db.gz"
    (tmp_path / "old" / DATABASE).write_bytes(gzip.decompress(stored.read_bytes()))
    conn = connect(tmp_path / "old" / DATABASE)
    conn.execute("UPDATE files SET path = CAST('/x/2019-07-14 a.png' AS BLOB) WHERE id = 1")
    conn.close()
    salvage(tmp_path / "old", tmp_path / "saved")
    with Library.open(tmp_path / "saved") as library:
        dates = library.rows("SELECT named_at FROM files WHERE id = 1")
    assert dates == [("2019-07-14",)]


@pytest.mark.parametrize(
    "sql",
    ["UPDATE files SET named_at = x'ff'", "UPDATE roots SET state = 'onlinf'"],
)
def test_what_is_made_anew_is_not_copied(original, tmp_path, sql):
    copy = tmp_path / "copy"
    shutil.copytree(original / "library", copy)
    conn = connect(copy / DATABASE)
    conn.execute("PRAGMA ignore_check_constraints = ON")
    conn.execute(sql)
    conn.close()
    report = salvage(copy, tmp_path / "saved")
    assert set(report.lost.values()) == {0}
    with Library.open(tmp_path / "saved") as library:
        assert verify(library).problems == []


def damage_lightly(data, chance):
    for _ in range(3):
        flip(data, chance)


@pytest.mark.parametrize("kind", [damage_lightly, swap, wipe, cut])
@pytest.mark.parametrize("seed", range(6))
def test_whatever_is_saved_is_right(original, tmp_path, kind, seed):
    copy = tmp_path / "copy"
    shutil.copytree(original / "library", copy)
    data = bytearray((copy / DATABASE).read_bytes())
    kind(data, random.Random(f"{kind.__name__} {seed}"))
    (copy / DATABASE).write_bytes(data)
    with Library.open(original / "library") as library:
        right = contents(library)
    try:
        salvage(copy, tmp_path / "saved")
    except LibraryError as exc:
        assert "restore a backup" in str(exc)
        return
    with Library.open(tmp_path / "saved") as library:
        if (
            kind is not damage_lightly
        ):  # which may change a vector a little, and so does nobody know
            found = contents(library)
            assert found.items() <= right.items()
        report = Scanner(library)(original / "photos")
        assert report.embedded <= 40
        Scanner(library)()
        assert verify(library).problems == []
    with fovea.Library.open(tmp_path / "saved") as library:
        assert len(library.search("", k=100).hits) >= 40


def test_an_embedding_that_an_index_contradicts_is_made_anew(original, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(original / "library", copy)
    conn = connect(copy / DATABASE)
    conn.execute("PRAGMA writable_schema = ON")
    conn.execute("DROP TRIGGER embeddings_are_final")
    kept = "name = 'sqlite_autoindex_embeddings_1'"
    [(root,)] = conn.execute(f"SELECT rootpage FROM sqlite_master WHERE {kept}")
    conn.close()
    data = bytearray((copy / DATABASE).read_bytes())
    page = bytes(data[(root - 1) * PAGE : root * PAGE])
    conn = connect(copy / DATABASE)
    conn.execute("PRAGMA foreign_keys = OFF")
    conn.execute("UPDATE embeddings SET image_id = image_id + 100 WHERE id = 7")
    conn.execute("UPDATE images SET id = 107 WHERE id = 7")
    conn.close()
    data = bytearray((copy / DATABASE).read_bytes())
    data[(root - 1) * PAGE : root * PAGE] = page  # the table says 107 now, and the index 7
    (copy / DATABASE).write_bytes(data)
    report = salvage(copy, tmp_path / "saved")
    assert report.kept["embeddings"] == 39 and report.lost["embeddings"] == 1


def test_images_whose_files_are_gone_are_dropped_by_the_next_whole_run(original, tmp_path):
    photos, copy = tmp_path / "photos", tmp_path / "copy"
    shutil.copytree(original / "photos", photos)
    with Library.open(copy, create=True) as library:
        Scanner(library)(photos)
    data = bytearray((copy / DATABASE).read_bytes())
    at = (rooted(original, "files") - 1) * PAGE
    data[at : at + PAGE] = bytes(PAGE)
    (copy / DATABASE).write_bytes(data)
    salvage(copy, tmp_path / "saved")
    (photos / "home" / "003 red.png").unlink()
    with Library.open(tmp_path / "saved") as library:
        assert library.counts().images == 40
        assert verify(library).problems == []  # they wait for their files
        scan = Scanner(library)
        assert scan().embedded == 0
        assert library.counts().images == 39
        assert verify(library).problems == []


def test_a_folder_with_a_library_is_refused(original, tmp_path):
    Library.open(tmp_path / "there", create=True).close()
    with pytest.raises(LibraryError, match="has a library already"):
        salvage(original / "library", tmp_path / "there")
    with pytest.raises(LibraryError, match="no library in"):
        salvage(tmp_path, tmp_path / "new")
    (tmp_path / DATABASE).write_bytes(b"x" * 10_000)
    with pytest.raises(LibraryError, match="restore a backup"):
        salvage(tmp_path, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_the_command_says_what_was_kept_and_what_to_do_next(original, tmp_path):
    done = run("library", "salvage", tmp_path / "a b", "--library", original / "library")
    assert done.code == 0
    assert done.out.splitlines()[2] == "images\t40 kept, 0 lost"
    assert done.err == f"fovea: now run: fovea index --library '{tmp_path / 'a b'}'\n"
    done = run("library", "salvage", tmp_path / "c", "--library", original / "library", "--json")
    assert done.json["kept"]["embeddings"] == 40
    saved = fovea.Library.salvage(original / "library", tmp_path / "d")
    assert saved.lost["files"] == 0
