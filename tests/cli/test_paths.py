"""Paths that mean nothing are one clear line, and never the working directory."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import fovea
from commands import run
from fovea.search.errors import FoveaError
from places import CHECKOUT

EMPTY = [
    ("index", ""),
    ("index", "photos", ""),
    ("index", "photos", "--library", ""),
    ("index", "photos", "--model", ""),
    ("search", "red", "--library", ""),
    ("search", "red", "--image", ""),
    ("similar", ""),
    ("classify", "", "--label", "a"),
    ("status", "--library", ""),
    ("verify", "--library", ""),
    ("roots", "list", "--library", ""),
    ("roots", "remove", ""),
    ("serve", "", "--no-browser"),
    ("serve", "--library", "", "--no-browser"),
    ("finetune", "--from", "", "--out", "x"),
    ("finetune", "--out", ""),
    ("train", "", "--out", "x"),
    ("evaluate", ""),
]


@pytest.mark.parametrize("words", EMPTY, ids=" ".join)
def test_an_empty_path_is_refused(own, monkeypatch, words):
    monkeypatch.chdir(own)
    before = run("status").out
    done = run(*words)
    assert done.code != 0 and done.err.strip() and "Traceback" not in done.err
    assert run("status").out == before


def test_an_empty_variable_is_refused(own, monkeypatch):
    monkeypatch.setenv("FOVEA_LIBRARY", "")
    for words in (("status",), ("index", own / "photos"), ("search", "red")):
        done = run(*words)
        assert (done.code, "FOVEA_LIBRARY is empty" in done.err) == (1, True)


COMMANDS = [
    ("index",), ("index", "photos"), ("index", "/"), ("search", "red"), ("similar", "a.jpg"),
    ("status",), ("verify",), ("roots",), ("roots", "remove", "photos"), ("models",),
    ("serve", "--no-browser"),
]  # fmt: skip


@pytest.mark.skipif(sys.platform == "win32", reason="a folder in use cannot be removed there")
@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_working_directory_that_is_gone_is_one_line(used, tmp_path, words, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    done = run(*words)
    assert done.code == 1
    [line] = done.err.splitlines()
    assert line.startswith("Error: the working directory cannot be used") and "cd " in line


def test_a_working_directory_that_is_gone_does_not_keep_the_program_from_starting(tmp_path):
    program = (
        "import os, sys, fovea.cli; os.chdir(sys.argv[1]); os.rmdir(sys.argv[1]); "
        "sys.argv[1:] = ['status']; fovea.cli.main()"
    )
    gone = tmp_path / "gone"
    gone.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", program, gone], cwd=CHECKOUT, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1 and "working directory" in done.stderr


IMPOSSIBLE = {
    "": "the path is empty",
    "a\0b": "null character",
    "a\ud800b": "half a character",
    "~no-such-user/x": "there is no user 'no-such-user'",
}


@pytest.mark.parametrize("path", IMPOSSIBLE)
def test_python_refuses_paths_that_mean_nothing(own, tmp_path, path):
    with fovea.Library.open(tmp_path / "library") as library:
        roots = library.roots
        for call in (library.index, library.forget, library.similar, library.find):
            with pytest.raises(FoveaError, match=IMPOSSIBLE[path]):
                call(path)
        with pytest.raises(FoveaError, match=IMPOSSIBLE[path]):
            library.search(image=path)
        assert library.roots == roots
    for create in (False, True):
        with pytest.raises(FoveaError, match=IMPOSSIBLE[path]):
            fovea.Library.open(path, create=create)


def test_python_needs_no_working_directory_for_whole_paths(own, tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with fovea.Library.open(tmp_path / "library") as library:
        assert library.find(own / "photos" / "red.png")
        for call in (library.index, library.forget, library.find):
            with pytest.raises(FoveaError, match="working directory"):
                call(Path("photos"))
    with pytest.raises(FoveaError, match="working directory"):
        fovea.Library.open("library", create=True)


def test_a_folder_with_a_tilde_can_be_named(own, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkdir("~nobody-at-all")
    assert run("index", "./~nobody-at-all").code == 0
    done = run("roots", "remove", "~nobody-at-all")
    assert done.code == 1 and "./~nobody-at-all" in done.err
    assert run("roots", "remove", "./~nobody-at-all").code == 0
