"""Libraries that earlier states of fovea wrote open, search and index today, losing nothing."""

import contextlib
import gzip
import os
import shutil
import sqlite3
from pathlib import Path

import pytest
from PIL import Image

import fovea
from commands import run
from fovea.indexer.scanning.verify import verify
from fovea.search.errors import LibraryError
from fovea.search.library import schema
from fovea.search.library.facts.folded import register
from fovea.search.library.library import DATABASE, Library
from scanner import Scanner

MADE = Path(__file__).with_name("made_before")  # its README says how
PICTURES = b"/made-before/pictures"  # the folder's place then
VERSIONS = sorted(int(file.name[8:-6]) for file in MADE.glob("version-*.db.gz"))
IMAGES, FILES = 4, 6
OLD = {  # what every version has
    "roots": "id, path, state, added_at, scanned_at",
    "images": "id, hash, bytes, width, height, format, orientation, taken_at, camera, latitude",
    "files": "id, path, root_id, size, mtime_ns, image_id, state, reason",
    "models": "id, name, identity, dim, source",
    "embeddings": "id, image_id, model_id, vector",
    "library": "key, value",
}


@contextlib.contextmanager
def plainly(folder):
    """The database without any code of ours."""
    with contextlib.closing(sqlite3.connect(folder / DATABASE)) as conn, conn:
        yield conn


def rows_of(folder):
    with plainly(folder) as conn:
        return {
            table: conn.execute(f"SELECT {columns} FROM {table} ORDER BY 1").fetchall()
            for table, columns in OLD.items()
        }


@pytest.fixture(params=VERSIONS)
def made(request, tmp_path):
    """A library as it was written, its version, and its pictures; all paths lead there."""
    folder, pictures = tmp_path / "library", tmp_path / "pictures"
    shutil.copytree(MADE / "pictures", pictures)
    folder.mkdir()
    database = gzip.decompress((MADE / f"version-{request.param}.db.gz").read_bytes())
    (folder / DATABASE).write_bytes(database)
    snapshot = MADE / f"version-{request.param}.snapshot"
    if snapshot.exists():
        shutil.copyfile(snapshot, folder / "index-1.snapshot")
    place = os.fsencode(pictures)
    with plainly(folder) as conn:
        assert conn.execute("PRAGMA user_version").fetchone() == (request.param,)
        register(conn)  # what its triggers call
        for table in ("roots", "files"):
            conn.execute(
                f"UPDATE {table} SET path = CAST(? || substr(path, ?) AS BLOB)",
                (place, len(PICTURES) + 1),
            )
        for path, mtime in conn.execute("SELECT path, mtime_ns FROM files").fetchall():
            os.utime(path, ns=(0, mtime))
    return folder, request.param, pictures


def test_every_version_before_the_present_one_is_there():
    assert VERSIONS == list(range(1, len(VERSIONS) + 1))
    assert VERSIONS[-1] >= 3


def test_it_opens_with_every_row(made):
    folder, _, _ = made
    before = rows_of(folder)
    with Library.open(folder) as library:
        assert schema.version_of(library.conn) == schema.VERSION
        assert library.counts().images == library.counts().embeddings == IMAGES
        assert library.rows("SELECT count(*) FROM shown") == [(IMAGES,)]
        assert library.rows("SELECT count(*) FROM names") == [(FILES,)]
        assert verify(library).problems == []
    assert rows_of(folder) == before


def test_it_is_searched(made):
    folder, version, pictures = made
    with fovea.Library.open(folder) as library:
        found = {path.name for path in pictures.rglob("*") if path.suffix in (".png", ".gif")}
        newest = library.search("", k=10)
        assert len(newest.hits) == IMAGES
        red = library.find(pictures / "red.jpg")
        assert library.paths(red) == (str(pictures / "red.jpg"),)
        similar = library.similar(red, k=10)
        assert {Path(hit.path).name for hit in similar.hits} <= found
        assert len(similar.hits) == IMAGES - 1
        assert len(library.search("name:blue").hits) == 1
        assert len(library.search("on:2019-07-14").hits) == 1
        assert len(library.search("in:trip").hits) == 2
        if version == 3:  # with the bundled model
            assert Path(library.search("yellow").hits[0].path).name == "yellow.gif"
            assert (folder / "index-1.snapshot").exists()


def test_it_is_indexed_again_without_embedding_anything(made):
    folder, _, pictures = made
    with Library.open(folder) as library:
        scan = Scanner(library)
        scan.model.identity = library.model().identity
        scan.model.name = library.model().name
        scan.model.dim = library.model().dim
        before = rows_of(folder)["embeddings"]
        report = scan(pictures)
        assert report.found == report.unchanged + report.failed == FILES
        assert scan.encoder.encoded == 0
        assert verify(library).problems == []
        if scan.model.dim == scan.encoder.dim:
            Image.new("RGB", (9, 9), "navy").save(pictures / "trip" / "navy.png")
            assert scan(pictures).embedded == 1
    assert rows_of(folder)["embeddings"][:IMAGES] == before


@pytest.mark.parametrize("step", range(schema.VERSION))
def test_a_step_that_fails_leaves_the_version_before_it_whole(tmp_path, monkeypatch, step):
    """The step fails before each of its statements, and at its end."""
    if step:
        monkeypatch.setattr(schema, "MIGRATIONS", schema.MIGRATIONS[:step])
        monkeypatch.setattr(schema, "VERSION", step)
        with Library.open(tmp_path, create=True) as library:
            library.add_root(b"/p")
        monkeypatch.undo()
    else:
        tmp_path.mkdir(exist_ok=True)

    def state():
        if not (tmp_path / DATABASE).exists():
            return None
        with plainly(tmp_path) as conn:
            return list(conn.iterdump()) or None, conn.execute("PRAGMA user_version").fetchone()

    before = state()
    statements = schema.MIGRATIONS[step]
    for at in range(len(statements) + 1):
        failing = (*statements[:at], "SELECT no_such_column FROM library")
        steps = (*schema.MIGRATIONS[:step], failing, *schema.MIGRATIONS[step + 1 :])
        with monkeypatch.context() as patched:
            patched.setattr(schema, "MIGRATIONS", steps)
            with pytest.raises(LibraryError):
                Library.open(tmp_path, create=True)
        if step:
            assert state() == before
        else:
            assert state() == (["BEGIN TRANSACTION;", "COMMIT;"], (0,))
    with Library.open(tmp_path, create=True) as library:
        assert schema.version_of(library.conn) == schema.VERSION
        assert len(library.roots()) == (1 if step else 0)


def test_a_real_library_survives_a_step_that_fails(made, monkeypatch):
    folder, version, _ = made
    before = rows_of(folder)
    failing = (*schema.MIGRATIONS[version], "SELECT no_such_column FROM library")
    steps = (*schema.MIGRATIONS[:version], failing, *schema.MIGRATIONS[version + 1 :])
    with monkeypatch.context() as patched:
        patched.setattr(schema, "MIGRATIONS", steps)
        with pytest.raises(LibraryError):
            Library.open(folder)
    with plainly(folder) as conn:
        assert conn.execute("PRAGMA user_version").fetchone() == (version,)
    assert rows_of(folder) == before
    with Library.open(folder) as library:
        assert library.counts().images == IMAGES


def test_a_library_of_a_newer_program_is_refused_in_one_line(made):
    folder, _, _ = made
    with plainly(folder) as conn:
        conn.execute(f"PRAGMA user_version = {schema.VERSION + 7}")
    before = rows_of(folder)
    for command in (["status"], ["search", "a dog"], ["verify"], ["index"]):
        done = run(*command, "--library", folder)
        assert done.code == 1
        assert done.err.count("\n") == 1
        assert f"schema version {schema.VERSION + 7}, written by a newer fovea" in done.err
        assert "upgrade fovea" in done.err
    assert rows_of(folder) == before
