"""The script moves or removes copies, and nothing else, whatever their names are."""

import os
import shutil
import subprocess
import sys

import pytest

from fovea.search.duplicates.groups import Duplicate, DuplicateGroup
from fovea.search.duplicates.script import script_of

SHELLS = [name for name in ("dash", "bash", "busybox", "ksh", "sh") if shutil.which(name)]
THEN = 1_700_000_000  # when all files were modified
HOSTILE = [
    b"plain.jpg",
    b"-rf.jpg",
    b"it's; touch ran; '.jpg",
    b'quo"te$(touch ran)`touch ran`.jpg',
    b"new\nline.jpg\n",
    b"#comment \\.jpg",
    b" space *?.jpg ",
    b"\xe4\xff not utf-8.jpg" if sys.platform != "darwin" else "ä.jpg".encode(),
    b"\x1b[31mred.jpg",
]


@pytest.fixture
def folder(tmp_path):
    """A folder with two files of each hostile name, and a best one for each."""
    for room in (b"best", b"copy"):
        place = os.path.join(os.fsencode(tmp_path), b"photos", room)
        os.makedirs(place)
        for name in HOSTILE:
            with open(os.path.join(place, name), "wb") as file:
                file.write(room)
            os.utime(file.name, (THEN, THEN + 0.5))
    return tmp_path


def entry(path, image_id):
    lacks = ("pixels",)
    return Duplicate(image_id, os.fsdecode(path), False, 10, 10, "JPEG", 4, None, None, lacks, THEN)


def groups(folder):
    rooms = [os.path.join(os.fsencode(folder), b"photos", room) for room in (b"best", b"copy")]
    return [
        DuplicateGroup("copies", *(made if at == 0 else (made,) for at, made in enumerate(pair)))
        for pair in (
            [entry(os.path.join(room, name), number) for number, room in enumerate(rooms)]
            for name in HOSTILE
        )
    ]


def equal(folder, name=b"plain.jpg"):
    """The group of two files with one content, which is what the library knows of them."""
    rooms = [os.path.join(os.fsencode(folder), b"photos", room) for room in (b"best", b"copy")]
    best, other = (entry(os.path.join(room, name), 1) for room in rooms)
    return [DuplicateGroup("copies", best, (other,))]


def run(folder, *arguments, shell="sh", found=None):
    script = folder / "tidy.sh"
    script.write_bytes(b"".join(script_of(groups(folder) if found is None else found)))
    command = [shell, *(["sh"] if shell == "busybox" else []), str(script), *map(str, arguments)]
    (folder / "here").mkdir(exist_ok=True)
    return subprocess.run(command, cwd=folder / "here", capture_output=True)


def names(folder, room):
    return set(os.listdir(os.path.join(os.fsencode(folder), b"photos", room)))


@pytest.mark.parametrize("shell", SHELLS)
def test_without_arguments_it_only_says_what_it_would_do(folder, shell):
    done = run(folder, shell=shell)
    assert (done.returncode, done.stderr.splitlines()[-1][:17]) == (0, b"9 files would go,")
    assert done.stdout.count(b"would go: ") == 9
    assert b"\x1b" not in done.stdout
    assert names(folder, b"best") == names(folder, b"copy") == set(HOSTILE)
    assert not list((folder / "here").iterdir())


@pytest.mark.parametrize("shell", SHELLS)
def test_it_moves_files_into_a_folder_under_their_paths(folder, shell):
    done = run(folder, "trash", shell=shell)
    assert done.stderr == b"9 files moved, 0 stay\n"
    assert names(folder, b"best") == set(HOSTILE) and names(folder, b"copy") == set()
    moved = os.fsencode(folder / "here" / "trash") + os.fsencode(folder) + b"/photos/copy"
    assert set(os.listdir(moved)) == set(HOSTILE)
    assert [path.name for path in (folder / "here").iterdir()] == ["trash"]  # nothing ran


def test_it_removes_files_only_when_told_so(folder):
    assert run(folder, "--rm").returncode == 2
    assert names(folder, b"copy") == set(HOSTILE)
    assert run(folder, "--remove").stderr == b"9 files removed, 0 stay\n"
    assert names(folder, b"best") == set(HOSTILE) and names(folder, b"copy") == set()


def test_files_stay_that_have_changed_or_whose_best_is_gone(folder):
    (folder / "photos" / "copy" / "plain.jpg").write_bytes(b"another picture")
    (folder / "photos" / "best" / "-rf.jpg").unlink()
    (folder / "photos" / "best" / "#comment \\.jpg").unlink()
    (folder / "photos" / "best" / "#comment \\.jpg").symlink_to("../copy/#comment \\.jpg")
    done = run(folder, "--remove")
    assert done.stderr.splitlines()[-1] == b"6 files removed, 3 stay"
    assert names(folder, b"copy") == {b"plain.jpg", b"-rf.jpg", b"#comment \\.jpg"}
    assert done.stderr.count(b"stays, as ") == 3


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("room", ["best", "copy"])
def test_files_stay_that_are_as_large_as_before_and_younger(folder, room, shell):
    found = groups(folder)
    os.utime(folder / "photos" / room / "plain.jpg", (1e9, 1e9))
    done = run(folder, "--remove", shell=shell, found=found)
    assert done.stderr.splitlines()[-1] == b"8 files removed, 1 stay"
    assert names(folder, b"copy") == {b"plain.jpg"}
    assert (b"the best" if room == "best" else b"it") + b" has changed or is gone" in done.stderr


@pytest.mark.parametrize("shell", SHELLS)
def test_files_that_are_to_be_equal_are_compared(folder, shell):
    found = equal(folder)  # one holds "best", the other "copy"
    done = run(folder, "--remove", shell=shell, found=found)
    assert done.stderr.endswith(b"0 files removed, 1 stay\n")
    assert b"stays, as it differs from the best: " in done.stderr
    copy = folder / "photos" / "copy" / "plain.jpg"
    copy.write_bytes(b"best")
    os.utime(copy, (1e9, 1e9))  # which does not matter where the bytes are the same
    assert run(folder, "--remove", shell=shell, found=found).stderr == b"1 file removed, 0 stay\n"
    assert not copy.exists() and (folder / "photos" / "best" / "plain.jpg").exists()


def test_hostile_names_are_compared_too(folder):
    for name in HOSTILE:
        best, copy = (
            os.path.join(os.fsencode(folder), b"photos", room, name) for room in (b"best", b"copy")
        )
        shutil.copyfile(best, copy)
    found = [group for name in HOSTILE for group in equal(folder, name)]
    assert run(folder, "--remove", found=found).stderr == b"9 files removed, 0 stay\n"
    assert not list((folder / "here").iterdir())


def test_where_ages_cannot_be_read_or_a_line_was_cut_files_stay(folder):
    found = groups(folder)
    (folder / "bin").mkdir()
    (folder / "bin" / "stat").write_text("#!/bin/sh\nexit 1\n")
    (folder / "bin" / "stat").chmod(0o755)
    script = folder / "tidy.sh"
    script.write_bytes(b"".join(script_of(found)))
    path = f"{folder / 'bin'}:{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", script, "--remove"], env={"PATH": path}, capture_output=True, cwd=folder
    )
    assert done.stderr.endswith(b"0 files removed, 9 stay\n")
    script.write_bytes(script.read_bytes().replace(b" alike  #", b"  #"))
    done = subprocess.run(["sh", script, "--remove"], capture_output=True, cwd=folder)
    assert done.stderr.endswith(b"0 files removed, 9 stay\n")
    assert names(folder, b"copy") == set(HOSTILE)


def test_what_is_in_the_folder_already_is_not_replaced(folder):
    run(folder, folder / "trash")
    again = folder / "photos" / "copy" / "plain.jpg"
    again.write_bytes(b"copy")
    os.utime(again, (THEN, THEN))
    done = run(folder, folder / "trash")
    assert done.stderr.endswith(b"0 files moved, 9 stay\n")
    assert done.stderr.count(b"FOLDER has one of that path") == 1
    assert again.exists()


def test_each_line_stands_for_itself(folder):
    """A person deletes lines: those of the first group, with the comment, or of some in between."""
    script = b"".join(script_of(groups(folder)))
    lines = script.split(b"\n")
    assert sum(line.startswith(b"spare ") for line in lines) == 9
    kept = b"\n".join(line for line in lines if b"plain.jpg" not in line)
    (folder / "tidy.sh").write_bytes(kept)
    subprocess.run(["sh", folder / "tidy.sh", "--remove"], check=True, capture_output=True)
    assert names(folder, b"copy") == {b"plain.jpg"}


def test_the_best_never_goes_and_no_groups_are_no_lines(folder):
    [first, *_] = found = groups(folder)
    odd = DuplicateGroup("copies", first.best, (first.best, *first.others))
    assert b"".join(script_of([odd])).count(b"\nspare ") == 1
    assert run(folder, found=[]).stderr == b"0 files would go, 0 stay; nothing has changed\n"
    assert len(found) == 9
    one = DuplicateGroup("copies", first.best, (first.best, first.others[0]))
    assert run(folder, found=[one]).stderr == b"1 file would go, 0 stay; nothing has changed\n"
