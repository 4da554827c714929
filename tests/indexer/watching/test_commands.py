"""``fovea watch`` and ``fovea serve --watch`` in processes of their own, and the systemd unit."""

import configparser
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from urllib.request import urlopen

import pytest

import fovea
from coloured import encoded
from commands import run, settle
from fovea.cli import cli
from places import CHECKOUT
from small_clips import write_model

PATIENCE_S = 90
UNIT = CHECKOUT / "docs" / "fovea-watch.service"


@pytest.fixture
def home(tmp_path, monkeypatch):
    write_model(tmp_path / "model")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "red.png").write_bytes(encoded("red", 1))
    settle(monkeypatch, tmp_path)
    return tmp_path


@contextmanager
def running(*words):
    """A command in a process of its own, ended by SIGTERM."""
    command = [sys.executable, "-m", "fovea", *map(str, words)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=CHECKOUT
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def names():
    with fovea.Library.open() as library:
        return {hit.path.rpartition("/")[2] for hit in library.search("", k=100).hits}


def until_watching(address):
    end = time.monotonic() + PATIENCE_S
    while not json.load(urlopen(f"{address}/api/status"))["watching"]:
        assert time.monotonic() < end
        time.sleep(0.1)


def until_indexed(wanted, process):
    end = time.monotonic() + PATIENCE_S
    while (found := names()) != wanted:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, found
        time.sleep(0.1)


def until_removed(folder):
    """Remove a folder from the library, as soon as no other process indexes."""
    end = time.monotonic() + PATIENCE_S
    while (done := run("roots", "remove", folder)).code != 0:
        assert time.monotonic() < end, done.err
        time.sleep(0.1)


def ended(process, number=signal.SIGTERM):
    process.send_signal(number)
    out, err = process.communicate(timeout=PATIENCE_S)
    return process.returncode, out, err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_changes_is_indexed_until_a_signal(home, number):
    photos = home / "photos"
    options = ("--model", home / "model", "--workers", 1, "--device", "cpu", "--json")
    with running("watch", photos, *options) as process:
        assert json.loads(process.stdout.readline()) == {"embedded": 1}
        (photos / "new").mkdir()
        (photos / "new" / "blue.png").write_bytes(encoded("blue", 2))
        until_indexed({"red.png", "blue.png"}, process)
        (photos / "red.png").unlink()
        until_indexed({"blue.png"}, process)
        (photos / "broken.png").write_bytes(b"no picture")
        (photos / "lime.png").write_bytes(encoded("lime", 3))
        until_indexed({"blue.png", "lime.png"}, process)
        code, out, err = ended(process, number)
    assert (code, err.splitlines()) == (0, ["fovea: watching; Ctrl-C to stop", "fovea: stopped"])
    told = [json.loads(line) for line in out.splitlines()]
    sums = {name: sum(one.get(name, 0) for one in told) for name in ("deleted", "failed")}
    assert sums == {"deleted": 1, "failed": 1}


def test_removed_folders_stay_removed(home):
    photos, other, gone = folders = [home / "photos", home / "other", home / "gone"]
    for number, folder in enumerate(folders):
        folder.mkdir(exist_ok=True)
        (folder / f"{number}.png").write_bytes(encoded("lime", 4 + number))
    options = ("--model", home / "model", "--workers", 1, "--device", "cpu", "--json")
    with running("watch", *folders, *options) as process:
        assert json.loads(process.stdout.readline()) == {"embedded": 4}
        for folder in (other, gone):
            until_removed(folder)
            (folder / "x.png").touch()
            (folder / "x.png").unlink()  # has its folder scanned, once that is quiet
        shutil.rmtree(gone)
        for number in (8, 9):  # by the second one the others would have been scanned
            (photos / f"{number}.png").write_bytes(encoded("blue", number))
            until_indexed({"red.png", "0.png", "8.png", f"{number}.png"}, process)
        assert run("roots", "list").out.split() == ["online", str(photos)]
        assert ended(process)[0] == 0


def test_a_server_scans_what_changes(home):
    photos = home / "photos"
    run("index", photos, "--model", home / "model", "--workers", 1)
    with running("serve", "--watch", "--no-browser", "--port", 0) as process:
        words = process.stdout.readline().split()
        until_watching(next(word for word in words if word.startswith("http")).rstrip("/"))
        (photos / "blue.png").write_bytes(encoded("blue", 2))
        until_indexed({"red.png", "blue.png"}, process)
        os.rename(photos / "blue.png", photos / "azure.png")
        until_indexed({"red.png", "azure.png"}, process)
        assert ended(process)[0] == 0


def test_without_a_folder_it_says_what_to_do(home):
    done = run("watch")
    assert (done.code, done.out) == (1, "")
    assert done.err == "Error: no folder has been indexed yet; name one: fovea watch FOLDER\n"


def test_a_missing_folder_is_one_line(home):
    done = run("watch", home / "nowhere", "--model", home / "model")
    assert done.code == 1
    assert done.err.splitlines()[-1] == f"Error: there is no folder {home}/nowhere; check its name"


# The unit for systemd


def unit():
    found = configparser.RawConfigParser(strict=False)
    found.optionxform = str
    found.read_string(UNIT.read_text("utf-8"))
    return found


def test_the_unit_runs_a_command_that_exists(home):
    program, command, *rest = shlex.split(unit()["Service"]["ExecStart"])
    assert os.path.basename(program) == "fovea"
    cli.commands[command].make_context(command, rest)  # raises for what it does not take
    with running(command, *rest, home / "photos", "--model", home / "model") as process:
        assert process.stdout.readline().endswith("1 embedded\n")
        assert ended(process)[0] == 0  # as systemd ends it


def test_systemd_takes_the_unit(tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    text = UNIT.read_text("utf-8").replace("%h/.local/bin/fovea", sys.executable)
    (tmp_path / UNIT.name).write_text(text)
    command = ["systemd-analyze", "verify", "--user", "--man=no", tmp_path / UNIT.name]
    environment = os.environ | {"XDG_RUNTIME_DIR": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert UNIT.name not in done.stderr, done.stderr
    assert done.returncode == 0, done.stderr
