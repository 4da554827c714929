import json
import os

from commands import pictures, run
from fovea.search.library.library import Library


def test_status_tells_what_there_is(used):
    found = run("status", "--json").json
    assert found["model"] == "model"
    assert (found["images"], found["embeddings"]) == (6, 6)
    assert found["files"]["failed"] == 1
    assert [root["path"] for root in found["roots"]] == [str(used / "photos")]
    text = run("status").out
    assert f"library\t{used / 'library'}" in text and "6, of which 6 embedded" in text


def test_verify_accounts_for_every_file(used):
    done = run("verify", "--json")
    found = done.json
    assert found["ok"] is True
    states = {os.fsencode(file["path"]): file["state"] for file in found["files"]}
    folder = os.fsencode(used / "photos")
    assert states == {
        os.path.join(folder, name): "failed" if name == b"broken.jpg" else "indexed"
        for name in os.listdir(folder)
    }
    [broken] = [file for file in found["files"] if file["state"] == "failed"]
    assert broken["reason"]
    assert len(run("verify").out.splitlines()) == len(states)


def test_verify_exits_with_1_where_the_library_contradicts_itself(own, tmp_path):
    with Library.open(tmp_path / "library") as library, library.transaction() as conn:
        conn.execute("DELETE FROM embeddings WHERE id = 1")
    done = run("verify", "--json")
    assert done.code == 1
    assert json.loads(done.out)["ok"] is False


def test_roots_are_listed_and_removed(own):
    assert run("roots").out == run("roots", "list").out == f"online\t{own / 'photos'}\n"
    [root] = run("roots", "list", "--json").json
    assert root == {"path": str(own / "photos"), "state": "online"}
    gone = run("roots", "remove", own / "photos")
    assert gone.code == 0
    assert run("roots").out == ""
    assert run("status", "--json").json["images"] == 0
    assert all(path.is_file() for path in pictures(own)), "the files stay"
    again = run("roots", "remove", own / "photos")
    assert again.code == 1 and "does not cover" in again.err


def test_a_second_writer_is_told_who_is_first(own, tmp_path):
    with Library.open(tmp_path / "library") as library, library.writing():
        done = run("index")
    assert done.code == 1
    assert f"another fovea (pid {os.getpid()}) is indexing" in done.err
