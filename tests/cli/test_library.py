import json
import os

import click
import pytest

from commands import pictures, run
from fovea.cli import cli
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


GROUPS = ["library", "map", "mark", "models", "roots", "searches", "tag"]


def test_the_groups_are_those_of_the_program():
    assert [name for name, one in cli.commands.items() if isinstance(one, click.Group)] == GROUPS


@pytest.mark.parametrize(
    "command",
    ["roots list", "searches list", "tag list", "map status", "mark export", "models info"],
)
def test_the_library_may_be_named_before_a_command(used, tmp_path, monkeypatch, command):
    monkeypatch.setenv("FOVEA_LIBRARY", str(tmp_path / "none"))
    group, name = command.split()
    after = run(group, name, "--library", used / "library")
    before = run(group, "--library", used / "library", name)
    assert (before.code, before.out, before.err) == (0, after.out, after.err)
    other = run(group, "--library", tmp_path / "other", name, "--library", used / "library")
    assert (other.code, other.out) == (0, after.out), "the nearer one counts"


@pytest.mark.parametrize(
    ("group", "alone"),
    [("roots", "list"), ("searches", "list"), ("tag", "list"), ("map", "status")],
)
def test_a_group_with_a_library_alone_says_what_there_is(used, monkeypatch, tmp_path, group, alone):
    monkeypatch.setenv("FOVEA_LIBRARY", str(tmp_path / "none"))
    done = run(group, f"--library={used / 'library'}")
    assert done.code == 0 and done.out == run(group, alone, "--library", used / "library").out
    there = ("--library", used / "library")
    assert run(group, "--json", *there).out == run(group, alone, *there, "--json").out != done.out
    assert f"no library in {tmp_path / 'none'}" in run(group).err
    on_milvus = run(group, "--library", "milvus://localhost:1/x")
    assert on_milvus.code == 1 and on_milvus.err.startswith("Error: ")


@pytest.mark.parametrize("group", GROUPS)
def test_an_unknown_or_missing_command_lists_those_there_are(used, group):
    *others, last = sorted(cli.commands[group].commands)
    known = f"; there are {', '.join(others)} and {last}\n"
    done = run(group, "sugest")
    assert done.code == 2 and done.err.endswith(f"there is no command 'sugest'{known}")
    if group in ("library", "mark"):
        done = run(group, "--library", used / "library")
        assert done.code == 2 and done.err.endswith(f"a command is missing{known}")


@pytest.mark.parametrize("command", ["library copy", "models list", "models pull"])
def test_a_command_that_takes_no_library_says_so(used, command):
    group, name = command.split()
    done = run(group, "--library", used / "library", name, "a", "b")
    assert done.code == 2 and f"fovea {command} takes no --library" in done.err


def test_a_command_that_prints_no_json_says_so():
    done = run("tag", "--json", "label", "off")
    assert done.code == 2 and "fovea tag label takes no --json" in done.err


def test_a_library_before_a_command_is_checked_like_one_after_it():
    done = run("tag", "--library", "", "list")
    assert done.code == 2 and "the path is empty" in done.err
    done = run("tag", "--library", "milvus://localhost:1/x", "list")
    assert done.code == 1 and "works on a library in a folder, not on one on Milvus" in done.err
