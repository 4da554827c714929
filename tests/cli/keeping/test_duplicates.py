"""``fovea duplicates``: groups as text, JSON, paths and a script; what is waiting and off."""

import os
import shutil
import subprocess
import sys

import pytest
from PIL import Image

import fovea
from commands import ODD, index_once, run, settle
from places import read_only
from small_clips import write_model

NAMES = ("large.png", "small.jpg", "again.png", "other.png")


@pytest.fixture(scope="module")
def indexed(tmp_path_factory):
    """A picture, a small copy, the same file twice more, once by an odd name; another picture."""
    folder = tmp_path_factory.mktemp("home")
    write_model(folder / "model")
    photos = folder / "photos"
    photos.mkdir()
    scene = Image.effect_mandelbrot((300, 200), (-2, -1.2, 1, 1.2), 40).convert("RGB")
    scene.save(photos / "large.png")
    os.utime(photos / "large.png", (1_600_000_000, 1_600_000_000))  # before it was copied
    scene.resize((150, 100)).save(photos / "small.jpg", quality=90)
    shutil.copyfile(photos / "large.png", photos / "again.png")
    other = scene.transpose(Image.Transpose.ROTATE_90).resize((300, 200))
    other.save(photos / "other.png")
    if sys.platform != "darwin":
        shutil.copyfile(photos / "large.png", os.path.join(os.fsencode(photos), ODD))
    index_once(folder)
    return folder


@pytest.fixture
def home(indexed, monkeypatch):
    settle(monkeypatch, indexed)
    return indexed


@pytest.fixture
def own(indexed, tmp_path, monkeypatch):
    """A copy of the library, to be changed."""
    settle(monkeypatch, indexed)
    monkeypatch.setenv("FOVEA_LIBRARY", str(tmp_path / "library"))
    shutil.copytree(indexed / "library", tmp_path / "library")
    return indexed


COUNT = 4 - (sys.platform == "darwin")  # files of the group


def test_a_group_is_shown_with_what_the_others_lack(home):
    done = run("duplicates")
    lines = done.out.splitlines()
    assert lines[0] == f"{home / 'photos' / 'large.png'}\t300 x 200 PNG, {size(home)}\tbest"
    assert len(lines) == COUNT + 1 and lines[-1] == ""
    assert lines[1].startswith("  ") and lines[1].endswith("\tthe same file content")
    [small] = [line for line in lines if "small.jpg" in line]
    assert "\t150 x 100 JPEG, " in small
    assert small.split("\t")[2].startswith("fewer pixels, a lossier format")
    assert done.err.startswith("fovea: 1 group of copies among 3 pictures; the others take ")
    assert "other.png" not in done.out


def size(home):
    from fovea.cli.output import size_text

    return size_text((home / "photos" / "again.png").stat().st_size)


def test_json_and_python_have_the_same(home):
    found = run("duplicates", "--json").json
    assert (found["pictures"], found["waiting"]) == (3, 0)
    [group] = found["groups"]
    assert group["kind"] == "copies"
    lacks = {one["path"].rpartition("/")[2]: one["lacks"] for one in group["others"]}
    assert lacks["again.png"] == ["nothing"] and lacks["small.jpg"][:2] == ["pixels", "format"]
    with fovea.Library.open() as library:
        [same] = library.duplicates().groups
    assert [same.best.path, *(one.path for one in same.others)] == [
        group["best"]["path"],
        *(one["path"] for one in group["others"]),
    ]
    assert same.spare == sum(one["bytes"] for one in group["others"])


def test_paths_are_those_of_all_but_the_best(home):
    lines, null = (run("duplicates", option).result.stdout_bytes for option in ("--paths", "-0"))
    paths = null.split(b"\0")
    assert paths.pop() == b"" and lines == b"".join(path + b"\n" for path in paths)
    assert len(paths) == COUNT - 1 and all(map(os.path.exists, paths))
    assert os.fsencode(home / "photos" / "large.png") not in paths


def test_a_script_is_written_once_and_runs_nothing(home, tmp_path):
    target = tmp_path / "tidy.sh"
    done = run("duplicates", "--script", target)
    assert done.out == (
        f"wrote {target}, for {COUNT - 1} files; nothing has been moved. Read it; sh {target} says "
        "what it would do\n"
    )
    assert {path.name for path in (home / "photos").iterdir()} >= set(NAMES)
    said = subprocess.run(["sh", target], capture_output=True)
    assert said.stdout.count(b"would go: ") == COUNT - 1
    again = run("duplicates", "--script", target)
    assert again.code == 1 and again.err == f"Error: cannot write {target}: File exists\n"
    both = run("duplicates", "--script", target, "--json")
    assert both.code == 2 and "exclude each other" in both.err


def test_a_library_of_before_gets_its_signatures_first(own):
    """As one that was indexed before there were signatures."""
    with fovea.Library.open() as library, library._store.transaction() as conn:
        conn.execute("DELETE FROM analyses")
    assert "copies\t0 pictures done; 3 wait for fovea analyse" in run("status").out
    [group] = run("duplicates", "--json").json["groups"]
    assert len(group["others"]) == COUNT - 1
    assert "copies\t3 pictures done" in run("status").out
    assert run("verify").code == 0


def test_indexing_again_makes_what_is_missing_in_the_background(own, monkeypatch):
    monkeypatch.setenv("FOVEA_ANALYSES", "copies")
    with fovea.Library.open() as library, library._store.transaction() as conn:
        conn.execute("DELETE FROM analyses")
    done = run("index", "--workers", 1)
    assert "copies: 3 pictures analysed" in done.err
    assert run("duplicates", "--json").json["waiting"] == 0


def test_switched_off_only_equal_files_are_found(own):
    assert run("analyse", "--off", "copies").code == 0
    done = run("duplicates", "--json")
    [group] = done.json["groups"]
    assert {tuple(one["lacks"]) for one in group["others"]} == {("nothing",)}
    assert "fovea analyse --on copies" in done.err
    assert "copies\toff; to switch it on: fovea analyse --on copies" in run("status").out


def test_a_library_that_cannot_be_changed_is_grouped_as_it_is(own, tmp_path):
    with fovea.Library.open() as library, library._store.transaction() as conn:
        conn.execute("DELETE FROM analyses WHERE image_id = 1")
    with read_only(tmp_path / "library"):
        done = run("duplicates", "--json")
    assert done.code == 0 and done.json["waiting"] == 1
    assert "1 picture compared by content alone" in done.err
