"""A damaged library: one clear line on every surface, no hit less in silence, and no bug hidden."""

import random
import shutil
import sqlite3

import pytest

import fovea
from commands import run
from damaging import KINDS, PAGE, cut, damaged, drive, encoder_of, flip, made, silent
from fovea.indexer.scanning.verify import verify
from fovea.search.errors import LibraryDamaged
from fovea.search.library import checks, damage
from fovea.search.library.connection import REMEDY, connect
from fovea.search.library.library import DATABASE, Library
from fovea.web.app import create_app
from scanner import Scanner

SEED = "one"
NUMBERS = {flip: 120, cut: 20}
LINE = "is damaged"


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return made(tmp_path_factory.mktemp("original"))


@pytest.fixture(scope="module")
def right(original):
    return drive(original, photos=original / "photos")


@pytest.fixture
def own(original, tmp_path):
    """The folder of a library to be damaged."""
    shutil.copytree(original / "library", tmp_path / "library")
    return tmp_path / "library"


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_is_damaged_says_so_in_one_line(original, right, tmp_path, kind):
    lines = 0
    for number in range(NUMBERS.get(kind, 40)):
        copy = damaged(original, tmp_path / "copy", kind, random.Random(f"{SEED} {number}"))
        said = drive(
            copy, photos=original / "photos", index=number % 8 == 0, forget=number % 8 == 1
        )
        assert not silent(said, right), (number, silent(said, right), said)
        lines += any(LINE in str(line) for line in said.values())
        if said.get("verify") == "ok":
            assert said == {key: right.get(key, value) for key, value in said.items()}, number
    assert lines > 5


def roots_of(folder):
    conn = connect(folder / DATABASE)
    pages = dict(conn.execute("SELECT name, rootpage FROM sqlite_master WHERE rootpage > 0"))
    conn.close()
    return pages


def exchange(folder, one, other):
    pages = roots_of(folder)
    data = bytearray((folder / DATABASE).read_bytes())
    a, b = ((pages[name] - 1) * PAGE for name in (one, other))
    data[a : a + PAGE], data[b : b + PAGE] = data[b : b + PAGE], data[a : a + PAGE]
    (folder / DATABASE).write_bytes(data)


PAIRS = [
    ("sqlite_autoindex_files_1", "sqlite_autoindex_images_1"),
    ("files_image_id", "sqlite_autoindex_embeddings_1"),
    ("files_root_id", "embeddings_model_id"),
    ("shown_date", "files_shown"),
    ("shown", "names_docsize"),
]


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_two_exchanged_pages_are_noticed_everywhere(original, own, one, other):
    exchange(own, one, other)
    done = run("verify", "--library", own)
    assert done.code == 1 and REMEDY in done.err
    if one not in ("shown", "shown_date"):
        assert len(done.out.splitlines()) == 41  # every file is listed all the same
    quick = run("verify", "--quick", "--library", own)
    assert quick.code == 1 and REMEDY in quick.err
    found = run("search", "", "--library", own)
    assert found.code == 1 and LINE in found.err and found.err.count("\n") == 1
    with Library.open(own) as library:
        scan = Scanner(library)
        with pytest.raises(LibraryDamaged, match="salvage"):
            scan(original / "photos")
        assert scan.encoder.encoded == 0


def change(folder, sql, *values):
    conn = connect(folder / DATABASE)
    conn.execute("PRAGMA foreign_keys = OFF")
    conn.execute("PRAGMA ignore_check_constraints = ON")
    [(trigger,)] = conn.execute("SELECT sql FROM sqlite_master WHERE name = 'embeddings_are_final'")
    conn.execute("DROP TRIGGER embeddings_are_final")
    conn.execute(sql, values)
    conn.execute(trigger)
    conn.close()
    damage._checked.clear()


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE embeddings SET vector = zeroblob(6) WHERE id = 9",
        "UPDATE embeddings SET vector = x'007c007c007c' WHERE id = 9",  # infinite
        "UPDATE embeddings SET vector = x'00' WHERE id = 9",
        "UPDATE embeddings SET vector = 'text' WHERE id = 9",
        "UPDATE files SET path = 'text' WHERE id = 9",
        "UPDATE files SET path = x'2f6100' WHERE id = 9",
        "UPDATE files SET path = 17 WHERE id = 9",
        "UPDATE files SET size = 'large' WHERE id = 9",
        "UPDATE files SET state = 'lost' WHERE id = 9",
        "UPDATE images SET hash = x'00' WHERE id = 9",
        "UPDATE images SET width = 'wide' WHERE id = 9",
        "UPDATE images SET taken_at = CAST(x'ff' AS TEXT) WHERE id = 9",
        "UPDATE roots SET path = 5",
        "INSERT INTO library VALUES ('x', CAST(x'ff' AS TEXT))",
        "UPDATE library SET value = 77 WHERE key = 'model_id'",
        "UPDATE models SET dim = 'wide'",
        "DELETE FROM library WHERE key = 'model_id'",
        "DELETE FROM shown WHERE image_id = 9",
        "DELETE FROM names WHERE rowid = 9",
        "DELETE FROM roots",
        "DELETE FROM models",
    ],
)
def test_verify_finds_what_fovea_never_writes(own, sql):
    change(own, sql)
    with Library.open(own) as library:
        report = verify(library)
        assert not report.ok and not report.database_ok and report.problems
    done = run("verify", "--library", own, "--json")
    assert done.code == 1 and REMEDY in done.err


def test_quick_reads_no_embedding(own):
    change(own, "UPDATE embeddings SET vector = zeroblob(6) WHERE id = 9")
    assert run("verify", "--quick", "--library", own).code == 0
    assert run("verify", "--library", own).code == 1
    with fovea.Library.open(own) as library:
        assert library.verify(quick=True).ok and not library.verify().ok


def test_a_message_of_sqlite_that_is_not_text_is_damage(own, monkeypatch):
    data = (own / DATABASE).read_bytes()
    data = data.replace(b"CREATE TABLE tombstones", b"CREATE TABL\xff tombstones")
    (own / DATABASE).write_bytes(data)
    for words in (["status"], ["search", "red"], ["roots", "list"], ["verify"]):
        done = run(*words, "--library", own)
        assert done.code == 1 and done.err.count("\n") == 1 and LINE in done.err
    with pytest.raises(LibraryDamaged):
        fovea.Library.open(own)


def test_a_lost_id_is_damage(own):
    change(own, "DELETE FROM library WHERE key = 'id'")
    done = run("status", "--library", own)
    assert done.code == 1 and "lost its settings; go back to a backup" in done.err


@pytest.mark.parametrize("sql", ["value = 77", "value = 'x'", "key = 'x'"])
def test_a_lost_model_is_not_taken_for_an_empty_library(own, sql):
    change(own, f"UPDATE library SET {sql} WHERE key = 'model_id'")
    done = run("search", "", "--library", own)
    assert done.code == 1 and "has lost its model; go back to a backup" in done.err
    app = create_app(own, encoder_of=encoder_of, testing=True)
    assert app.test_client().get("/api/search?q=red").status_code == 503
    app.extensions["fovea"].close()


def test_python_and_the_server_say_it_too(own):
    with fovea.Library.open(own) as library:
        change(own, "UPDATE files SET path = 17 WHERE image_id = 9")
        change(own, "UPDATE roots SET path = 5")
        with pytest.raises(LibraryDamaged, match="impossible values"):
            library.forget("/photos/of/nobody")
        with pytest.raises(LibraryDamaged):
            library.paths(9)
    app = create_app(own, encoder_of=encoder_of, testing=True)
    answer = app.test_client().get("/api/roots")
    assert answer.status_code == 503
    assert answer.json["code"] == "damaged" and REMEDY in answer.json["detail"]
    app.extensions["fovea"].close()


# Our own mistakes


def test_a_mistake_of_ours_stays_one_where_the_library_is_sound(own, monkeypatch):
    def mistaken(*arguments):
        raise IndexError("ours")

    monkeypatch.setattr(Library, "roots", mistaken)
    monkeypatch.setattr(Library, "counts", mistaken)
    with pytest.raises(IndexError, match="ours"):
        run("status", "--library", own)
    with fovea.Library.open(own) as library, pytest.raises(IndexError, match="ours"):
        library.counts()
    app = create_app(own, encoder_of=encoder_of, testing=True)
    answer = app.test_client().get("/api/roots")
    assert answer.status_code == 500 and answer.json["code"] == "unexpected"
    app.extensions["fovea"].close()
    with Library.open(own) as library, pytest.raises(sqlite3.IntegrityError):
        with library.transaction() as conn:
            conn.execute("INSERT INTO library VALUES ('id', 1)")


def test_a_library_that_is_only_locked_is_not_called_damaged(own, monkeypatch):
    monkeypatch.setattr(checks, "structure", lambda conn: (_ for _ in ()).throw(locked()))
    assert damage.damage_of(own / DATABASE) is None


def locked():
    exc = sqlite3.OperationalError("database is locked")
    exc.sqlite_errorcode = sqlite3.SQLITE_BUSY
    return exc


def test_the_checks_of_a_large_library_are_samples(own, monkeypatch):
    monkeypatch.setattr(checks, "SMALL", 10)
    with Library.open(own) as library:
        library.refuse_damaged(checks.everyday)
    exchange(own, "sqlite_autoindex_files_1", "sqlite_autoindex_images_1")
    with Library.open(own) as library, pytest.raises(LibraryDamaged):
        library.refuse_damaged(checks.everyday)
