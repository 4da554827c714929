import os
import threading

import pytest

from fovea.indexer.walking import subfolders as module
from fovea.indexer.walking.subfolders import completed, starting_places


@pytest.fixture
def place(tmp_path):
    for name in ("Alpha", "alpine", "beta", ".hidden", "Alphabet"):
        (tmp_path / name).mkdir()
    (tmp_path / "also a file").write_text("")
    return tmp_path


def names(path):
    found = completed(os.fsencode(path))
    assert found.reason is None
    return [os.fsdecode(os.path.basename(folder.path)) for folder in found.folders]


def test_folders_are_completed_in_any_case_and_in_order(place):
    assert names(f"{place}/") == ["Alpha", "Alphabet", "alpine", "beta"]
    assert names(f"{place}/AL") == ["Alpha", "Alphabet", "alpine"]
    assert names(f"{place}/alpi") == ["alpine"]
    assert names(f"{place}/alpine") == ["alpine"]
    assert names(f"{place}/x") == []


def test_hidden_folders_are_listed_only_after_a_dot(place):
    assert names(f"{place}/.") == [".hidden"]
    assert names(f"{place}/h") == []


def test_links_say_where_they_lead_and_broken_ones_are_left_out(place):
    (place / "link").symlink_to("beta")
    (place / "broken").symlink_to("nowhere")
    (place / "circle").symlink_to("circle")
    (place / "file").symlink_to("also a file")
    found = completed(os.fsencode(f"{place}/")).folders
    links = {folder.path: folder.leads_to for folder in found if folder.leads_to}
    assert links == {os.fsencode(place / "link"): os.fsencode(place / "beta")}


def test_a_name_that_is_not_utf8_is_completed(place):
    os.mkdir(os.fsencode(place) + b"/caf\xe9")
    [folder] = completed(os.fsencode(f"{place}/caf")).folders
    assert folder.path == os.fsencode(place) + b"/caf\xe9"


def test_no_more_than_some_are_listed(place, monkeypatch):
    monkeypatch.setattr(module, "MOST", 2)
    found = completed(os.fsencode(f"{place}/"))
    assert (len(found.folders), found.has_more) == (2, True)
    monkeypatch.setattr(module, "MOST", 50)
    monkeypatch.setattr(module, "LISTED", 3)  # entries of a huge folder
    assert completed(os.fsencode(f"{place}/")).has_more


def test_what_cannot_be_listed_has_a_reason(place):
    assert completed(os.fsencode(f"{place}/none/")).reason == "missing"
    assert completed(os.fsencode(f"{place}/also a file/")).reason == "missing"
    assert completed(b"/" + b"a" * 5000 + b"/").reason == "unreadable"


def test_a_folder_without_permission_says_so(place, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(module.os, "scandir", refuse)
    assert completed(os.fsencode(f"{place}/")).reason == "forbidden"


def test_a_dead_mount_is_not_waited_for_and_blocks_a_few_threads_only(place, monkeypatch):
    answer, looks = threading.Event(), []

    def hang(path):
        looks.append(path)
        answer.wait()
        raise FileNotFoundError(2, "gone", path)

    monkeypatch.setattr(module, "PATIENCE_S", 0.01)
    monkeypatch.setattr(module.os, "scandir", hang)
    try:
        for _ in range(module.WAITING + 3):
            assert completed(os.fsencode(f"{place}/")).reason == "slow"
        assert len(looks) <= module.WAITING
    finally:
        answer.set()
    for _ in range(module.WAITING):  # all come back
        assert module._seats.acquire(timeout=30)
    for _ in range(module.WAITING):
        module._seats.release()


def test_it_begins_with_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert os.fsencode(tmp_path) in [folder.path for folder in starting_places().folders]
