"""Folders are looked at now and then, and a dead one holds nobody up."""

import os
import threading
import time

import pytest

import fovea.search.library.reachable
from fovea.search.library.reachable import unreachable


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(fovea.search.library.reachable, "KEPT_S", 0.0)


def test_what_is_missing_empty_or_no_folder_is_unreachable(tmp_path):
    names = [os.fsencode(tmp_path / name) for name in ("full", "empty", "missing", "file")]
    (tmp_path / "full" / "inner").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    assert unreachable(names) == frozenset(names[1:])
    (tmp_path / "full").rename(tmp_path / "missing")
    assert unreachable(names) == {names[0], names[1], names[3]}
    assert unreachable([]) == frozenset()


def test_an_answer_is_kept_for_a_moment(tmp_path, monkeypatch):
    monkeypatch.setattr(fovea.search.library.reachable, "KEPT_S", 60.0)
    path = os.fsencode(tmp_path / "folder")
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    assert not unreachable([path])
    (tmp_path / "folder").rename(tmp_path / "elsewhere")
    assert not unreachable([path])


def test_a_mount_that_hangs_is_unreachable_and_asked_once(tmp_path, monkeypatch):
    hung, real, asked = threading.Event(), os.scandir, []

    def hang(path):
        if path.endswith(b"dead"):
            asked.append(path)
            hung.wait()
        return real(path)

    monkeypatch.setattr("fovea.search.library.reachable.os.scandir", hang)
    dead, alive = os.fsencode(tmp_path / "dead"), os.fsencode(tmp_path)
    (tmp_path / "dead" / "inner").mkdir(parents=True)
    assert unreachable([dead, alive]) == {dead}
    assert unreachable([dead, alive]) == {dead}
    assert len(asked) == 1
    hung.set()
    while unreachable([dead, alive]):  # until the look has ended
        time.sleep(0.01)
