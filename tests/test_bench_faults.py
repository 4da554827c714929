"""The bench of faults runs, and it counts what goes wrong."""

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys

import pytest

from bench.faults import FAULTS
from bench.faulty import databases, network, snapshots
from bench.faulty.ground import (
    Ended,
    Plan,
    Started,
    Tally,
    Toy,
    child,
    draw,
    examined,
    index,
    left_behind,
)
from fovea.search.errors import LibraryError
from fovea.search.library.library import Library
from places import CHECKOUT

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


@pytest.mark.parametrize(
    "names", ["snapshots two-indexers vanishing memory", "garbage traversals", "searchers hostile"]
)
def test_quick_rows_find_nothing_wrong(names):
    command = [sys.executable, CHECKOUT / "bench" / "faults.py", "--quick", "--markdown"]
    for name in names.split():
        command += ["--only", name]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    told, _, head, _, *rows = run.stdout.splitlines()
    assert told.startswith("`python bench/faults.py --markdown --seed 0`: ")
    assert head.startswith("| fault | tried | lost | wrong | unaccounted |")
    assert len(rows) == len(names.split())
    for row in rows:
        tried, *counts = [cell.strip().replace(",", "") for cell in row.split("|")][2:6]
        assert int(tried) > 0 and counts == ["0", "0", "0"], row


@pytest.mark.parametrize("name", ["kills", "injected", "in-use", "disk-full", "replaced"])
def test_other_rows_end_and_count_their_trials(name):
    """What else they find is for the bench to say: a moment differs between machines."""
    command = [sys.executable, CHECKOUT / "bench" / "faults.py", "--quick", "--only", name]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode in (0, 1) and "Traceback (most" not in run.stderr, run.stderr
    row = run.stdout.splitlines()[-1].split()
    assert (row[0], row[2]) == (name, "0"), run.stderr  # none is lost at any moment
    if name != "injected" or shutil.which("cc"):
        assert int(row[1]) > 0


@pytest.mark.parametrize("name", ["databases", "slow", "uploads"])
def test_rows_of_the_command_line_and_the_server_find_nothing_wrong(name):
    tally = FAULTS[name].run(Plan(1, 0, quick=True))
    assert (tally.tried, tally.lost, tally.wrong, tally.unaccounted) == (1, 0, 0, 0), tally


def test_what_is_wrong_with_a_library_is_counted(tmp_path):
    root, library = tmp_path / "photos", tmp_path / "library"
    for number in range(6):
        draw(root / f"{number}.png", number)
    assert child(lambda: index(library, root).embedded).value == 6

    def counts(whole=True):
        found = examined(library, [root], Toy(), whole)
        return {kind: len(complaints) for kind, complaints in found.items() if complaints}

    assert counts() == {}
    (root / "0.png").unlink()
    (library / "writer.1.tmp").touch()
    draw(root / "7.png", 7)
    assert counts(whole=False) == {}
    assert counts() == {"lost": 1, "wrong": 1, "unaccounted": 1}
    assert left_behind(library) == ["writer.1.tmp"]
    with Library.open(library) as opened, opened.transaction() as conn:
        rows = conn.execute("SELECT image_id, vector FROM embeddings").fetchall()
        conn.execute("DELETE FROM embeddings WHERE image_id > 4")
        conn.executemany(
            "INSERT INTO embeddings (image_id, model_id, vector) VALUES (?, 1, ?)",
            [(rows[4][0], rows[5][1])],
        )
    found = examined(library, [root], Toy(), whole=False)
    assert any("of another picture" in complaint for complaint in found["wrong"])
    assert any("no embedding" in complaint for complaint in found["lost"])


def test_how_a_process_ends_is_told():
    def fail():
        raise ValueError("no")

    def refuse():
        raise LibraryError("a line")

    def hang():
        signal.pause()

    assert child(lambda: {"a": 1}) == Ended({"a": 1}, None, None, False, False)
    assert child(refuse).error == "a line"
    assert child(fail).failure.startswith("ValueError: no")
    assert child(lambda: os.kill(os.getpid(), signal.SIGTERM)).failure == "it ended by SIGTERM"
    assert child(hang, kill_after=0.1).killed
    assert "did not end" in child(hang, limit=0.1).failure
    first, second = Started(lambda: 1), Started(lambda: 2)
    assert (second.ended().value, first.ended().value) == (2, 1)


def test_a_tally_keeps_the_first_examples():
    tally = Tally()
    tally.take({"lost": ["a", "b"], "wrong": []}, "here")
    tally.add("unaccounted", "c", 3)
    assert (tally.lost, tally.wrong, tally.unaccounted) == (2, 0, 3)
    assert tally.examples == ["lost: here: a", "lost: here: b", "unaccounted: c"]


@pytest.mark.parametrize("damage", snapshots.DAMAGES, ids=lambda damage: damage.__name__)
def test_damage_changes_a_snapshot_and_follows_from_its_seed(damage):
    whole = random.Random(0).randbytes(20_000)
    found = [damage(whole, random.Random(seed)) for seed in (1, 1, 2)]
    assert found[0] == found[1] != whole and found[2] != whole


def test_damage_of_a_database_is_found_by_sqlite(tmp_path):
    path = tmp_path / "library.db"
    conn = sqlite3.connect(path)
    conn.execute("CREATE TABLE t (a TEXT, b BLOB)")
    conn.execute("CREATE INDEX i ON t (a)")
    conn.executemany("INSERT INTO t VALUES (?, ?)", [(str(n), bytes(50)) for n in range(2000)])
    conn.commit()
    conn.close()
    assert databases.integrity(path) is None
    whole = path.read_bytes()
    for damage in (databases.swapped, databases.zeroed, databases.scrambled, databases.cut):
        path.write_bytes(damage(whole, 4096, random.Random(3)))
        assert databases.integrity(path), damage


def test_replies_about_a_damaged_database_are_judged():
    def reply(code=0, hits=None, problem=None):
        return {"code": code, "hits": hits, "problem": problem}

    right = {"verify --json": reply(), "search x": reply(hits=40)}
    tally = Tally()
    found = {"verify --json": reply(), "search x": reply(hits=39), "roots": reply(1, None, "dead")}
    databases._compare(found, right, "row 7 missing from index", "swapped 1", tally)
    assert (tally.lost, tally.wrong, tally.unaccounted) == (1, 1, 1)
    tally = Tally()
    found = {"verify --json": reply(1), "search x": reply(1)}
    databases._compare(found, right, "row 7 missing from index", "swapped 1", tally)
    assert (tally.lost, tally.wrong, tally.unaccounted) == (0, 0, 0)


def test_garbage_is_varied_and_follows_from_its_seed():
    rng, again = (Plan(1, 5).random("garbage") for _ in range(2))
    drawn = [network.garbage(rng) for _ in range(300)]
    assert drawn == [network.garbage(again) for _ in range(300)]
    assert len(set(drawn)) > 250 and any(data.startswith(b"GET /") for data in drawn)
