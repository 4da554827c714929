"""What becomes of an answer: tables, paths, copies, the viewer."""

import os
import re
import shutil
import stat
import sys

import pytest

from commands import ODD, run
from fovea.cli.terminal import viewer

LINK = re.compile(r"\x1b\]8;;(?P<address>[^\x1b]*)\x1b\\(?P<text>[^\x1b]+)\x1b\]8;;\x1b\\")
not_on_macos = pytest.mark.skipif(sys.platform == "darwin", reason="macOS has UTF-8 names only")


# The table


def test_lines_for_programs_have_two_columns_whatever_the_query(used):
    for query in ("the dog", "name:*", "", "sort:name", "red sort:date"):
        done = run("search", query)
        rows = [line.split("\t") for line in done.out.splitlines()]
        assert rows and all(len(row) == 2 for row in rows), query
        is_ranked = query in ("the dog", "red sort:date")
        pattern = r"-?[01]\.\d{3}" if is_ranked else "-"
        assert all(re.fullmatch(pattern, score) for score, _ in rows), query
        assert "\x1b" not in done.out and "score" not in done.out


@pytest.mark.parametrize("query", ["the dog", "name:*"])
def test_a_terminal_shows_a_header_and_the_same_columns_for_every_query(at_terminal, query):
    screen = at_terminal("search", query, "-k", 3)
    lines = screen.text.splitlines()
    start = next(number for number, line in enumerate(lines) if "score" in line)
    assert screen.code == 0
    assert lines[start] == "\x1b[1m score  date        path\x1b[0m"
    rows = [line for line in lines[start + 1 :] if not line.startswith("fovea: ")]
    form = r" *(-|-?[01]\.\d{3})  \d{4}-\d\d-\d\d  \x1b\]8;;file://\S+"
    assert len(rows) == 3 and all(re.match(form, row) for row in rows)
    assert all((row[:6].strip() == "-") == (query == "name:*") for row in rows)


@not_on_macos
def test_a_terminal_gets_links_with_every_byte_of_a_path_and_no_control_character(
    at_terminal, used
):
    screen = at_terminal("search", "the", "dog")
    links = LINK.findall(screen.text)
    assert len(links) == 6
    [(address, text)] = [link for link in links if "caf" in link[0]]
    assert address.endswith("/photos/caf%E9%0A%1B%5B31m.png")
    assert text.endswith("caf\\udce9\\n\\x1b[31m.png")
    assert all(re.match(r"file://[^/]*/", address) for address, _ in links)
    assert "\x1b[31m" not in screen.text


@pytest.mark.parametrize("term", ["dumb", "linux"])
def test_a_terminal_that_knows_no_links_gets_none(at_terminal, term):
    screen = at_terminal("search", "the dog", "-k", 1, env={"TERM": term})
    assert screen.code == 0 and "score" in screen.text and "\x1b]8" not in screen.text


# Paths


def test_paths_are_bytes_one_a_line_or_between_nulls(used):
    done = run("search", "the dog", "--json").json
    expected = [os.fsencode(hit["path"]) for hit in done["hits"]]
    lines = run("search", "--paths", "the dog").result.stdout_bytes
    assert lines == b"".join(path + b"\n" for path in expected)
    for options in (["-0"], ["--null"], ["--paths", "-0"]):
        nulls = run("search", *options, "the dog").result.stdout_bytes
        assert nulls == b"".join(path + b"\0" for path in expected)
    if sys.platform != "darwin":
        assert any(path.endswith(ODD) for path in expected)
        said = "fovea: line breaks split 1 path into several lines; -0 keeps paths whole\n"
        assert run("search", "--paths", "the dog").err == said
        assert not run("search", "-0", "the dog").err
    assert not run("search", "--paths", "name:blue").err
    file = used / "photos" / "red.png"
    similar = run("similar", "-0", "-k", 1, file).result.stdout_bytes
    assert similar.startswith(b"/") and similar.count(b"\0") == 1 and similar.endswith(b"\0")


@not_on_macos
def test_paths_at_a_terminal_are_escaped(at_terminal):
    screen = at_terminal("search", "--paths", "the dog")
    assert "caf\\udce9\\n\\x1b[31m.png\n" in screen.text and "\x1b" not in screen.text


def test_an_answer_has_one_form(used):
    for forms in (["--json", "--paths"], ["--json", "-0"], ["--paths", "--preview"]):
        done = run("search", "dog", *forms)
        assert done.code == 2 and "cannot be combined" in done.err


def test_paths_without_hits_are_nothing(used):
    done = run("search", "-0", "name:nothing-has-this-name")
    assert (done.code, done.out) == (0, "") and "no pictures found" in done.err


# Copies


def test_hits_are_copied_with_their_names_and_times(used, tmp_path):
    place = tmp_path / "new" / "folder"
    done = run("search", "name:*.png", "--copy-to", place)
    assert done.code == 0, done.err
    assert f"copied 6 pictures to {place}" in done.err
    for copy in place.iterdir():
        original = used / "photos" / copy.name
        assert copy.read_bytes() == original.read_bytes()
        assert copy.stat().st_mtime_ns == original.stat().st_mtime_ns
    assert len(list(place.iterdir())) == 6 and done.out.count("\n") == 6


def test_a_copy_is_as_private_as_its_file(own, tmp_path):
    place = tmp_path / "private"
    place.mkdir()
    for name, mode in (("blue.png", 0o600), ("red.png", 0o644)):
        shutil.copyfile(own / "photos" / name, place / name)
        (place / name).chmod(mode)
    library = ("--library", tmp_path / "lib")
    assert run("index", place, "--workers", 1, *library).code == 0
    assert run("search", "", "--copy-to", tmp_path / "to", *library).code == 0
    assert stat.S_IMODE((tmp_path / "to" / "blue.png").stat().st_mode) == 0o600
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE((tmp_path / "to" / "red.png").stat().st_mode) == 0o644 & ~mask


def test_nothing_is_overwritten_and_names_get_numbers(used, tmp_path):
    (tmp_path / "blue.png").write_bytes(b"mine")
    (tmp_path / "blue-2.png").symlink_to(tmp_path / "nowhere")
    for number in (3, 4):
        assert run("search", "name:blue.png", "--copy-to", tmp_path).code == 0
        copy = tmp_path / f"blue-{number}.png"
        assert copy.read_bytes() == (used / "photos" / "blue.png").read_bytes()
    assert (tmp_path / "blue.png").read_bytes() == b"mine"
    assert not (tmp_path / "nowhere").exists()


def test_a_long_name_stays_within_what_file_systems_take(own, tmp_path):
    (tmp_path / "long").mkdir()
    name = "x" * 251 + ".png"
    shutil.copyfile(own / "photos" / "blue.png", tmp_path / "long" / name)
    library = ("--library", tmp_path / "lib")
    assert run("index", tmp_path / "long", "--workers", 1, *library).code == 0
    for _ in range(2):
        assert run("search", "name:x*", "--copy-to", tmp_path / "to", *library).code == 0
    assert sorted(p.name for p in (tmp_path / "to").iterdir()) == ["x" * 249 + "-2.png", name]


@not_on_macos
def test_a_name_of_any_bytes_is_kept(own, tmp_path):
    (tmp_path / "odd").mkdir()
    odd = os.path.join(os.fsencode(tmp_path / "odd"), ODD)
    shutil.copyfile(own / "photos" / "blue.png", odd)
    library = ("--library", tmp_path / "lib")
    assert run("index", tmp_path / "odd", "--workers", 1, *library).code == 0
    assert run("search", "", "--copy-to", tmp_path / "to", *library).code == 0
    assert os.listdir(os.fsencode(tmp_path / "to")) == [ODD]


def test_one_file_that_fails_does_not_stop_the_others(own, tmp_path):
    place, to = tmp_path / "photos", tmp_path / "to"
    shutil.copytree(own / "photos", place, ignore=shutil.ignore_patterns("caf*", "broken*"))
    library = ("--library", tmp_path / "lib")
    assert run("index", place, "--workers", 1, *library).code == 0
    (place / "blue.png").unlink()
    (place / "red.png").unlink()
    os.mkfifo(place / "red.png")
    done = run("search", "name:*.png", "--copy-to", to, *library)
    assert done.code == 1 and done.out.count("\n") == 6
    assert f"cannot copy {place / 'blue.png'}: No such file" in done.err
    assert f"cannot copy {place / 'red.png'}: it is not a regular file" in done.err
    assert "copied 4 pictures" in done.err
    assert {p.name for p in to.iterdir()} == {"black.png", "lime.png", "white.png", "yellow.png"}


def test_a_copy_elsewhere_serves_where_the_first_file_is_gone(own, tmp_path):
    place = tmp_path / "photos"
    for name in ("a", "b"):
        (place / name).mkdir(parents=True)
        shutil.copyfile(own / "photos" / "blue.png", place / name / f"{name}.png")
    library = ("--library", tmp_path / "lib")
    assert run("index", place, "--workers", 1, *library).code == 0
    [hit] = run("search", "", "--json", *library).json["hits"]
    os.unlink(hit["paths"][0])
    assert run("search", "", "--copy-to", tmp_path / "to", *library).code == 0
    assert [p.name for p in (tmp_path / "to").iterdir()] == [os.path.basename(hit["paths"][1])]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device is always full here")
def test_nothing_is_left_of_a_copy_that_fails(used, tmp_path, monkeypatch):
    def full(source, target, length):
        target.write(source.read(10))
        target.flush()
        with open("/dev/full", "wb", buffering=0) as device:
            device.write(b"x")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    done = run("search", "name:blue.png", "--copy-to", tmp_path / "to")
    assert done.code == 1 and "blue.png" in done.err and "copied 0 pictures" in done.err
    assert list((tmp_path / "to").iterdir()) == []


def test_copies_go_into_no_folder_of_the_library(used, tmp_path):
    (tmp_path / "link").symlink_to(used / "photos")
    before = sorted(os.listdir(used / "photos"))
    for place in ("photos", "photos/new/folder"):
        done = run("search", "dog", "--copy-to", used / place)
        assert (done.code, done.out) == (1, "") and "which the library covers" in done.err
    done = run("search", "dog", "--copy-to", tmp_path / "link" / "new")
    assert done.code == 1 and "which the library covers" in done.err
    assert sorted(os.listdir(used / "photos")) == before


def test_copies_do_not_go_where_an_unplugged_folder_was(own, tmp_path):
    place = tmp_path / "stick"
    shutil.copytree(own / "photos", place, ignore=shutil.ignore_patterns("broken*"))
    library = ("--library", tmp_path / "lib")
    assert run("index", place, "--workers", 1, *library).code == 0
    place.rename(tmp_path / "unplugged")
    done = run("search", "", "--copy-to", place / "new", *library)
    assert done.code == 1 and "which the library covers" in done.err and not place.exists()


def test_copies_do_not_go_into_a_file_or_nowhere(used, tmp_path):
    (tmp_path / "file").write_text("")
    assert run("search", "dog", "--copy-to", tmp_path / "file").code == 2
    assert run("search", "dog", "--copy-to", "").code == 2
    done = run("search", "dog", "-k", 2, "--copy-to", tmp_path / "file" / "folder")
    assert done.code == 1 and done.err.count("cannot copy") == 2


# The viewer


@pytest.fixture
def desktop(tmp_path, monkeypatch):
    """A desktop whose opener notes what it is asked to open, and refuses what is blue."""
    opener = tmp_path / "bin" / ("open" if sys.platform == "darwin" else "xdg-open")
    opener.parent.mkdir()
    opener.write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$@" >> "{tmp_path}/opened"\n'
        'case "$1" in *blue.png) exit 3;; esac\n'
    )
    opener.chmod(opener.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{opener.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("DISPLAY", ":9")
    monkeypatch.delenv("SSH_CONNECTION", raising=False)
    return tmp_path / "opened"


def test_the_best_hit_is_opened_or_as_many_as_asked_for(used, desktop):
    query = "name:*.png -name:blue -name:red sort:name"
    first = run("search", query, "--open")
    assert first.code == 0 and first.out.count("\n") == 4
    assert desktop.read_text() == f"{used / 'photos' / 'black.png'}\n"
    desktop.unlink()
    assert run("search", query, "-k", 2, "--open").code == 0
    names = ("black.png", "lime.png")
    assert sorted(desktop.read_text().splitlines()) == [str(used / "photos" / n) for n in names]


def test_a_viewer_that_fails_is_one_line(used, desktop):
    done = run("search", "name:blue.png", "--open")
    assert done.code == 1 and done.out.count("\n") == 1
    assert f"cannot open {used / 'photos' / 'blue.png'}" in done.err


def test_a_picture_that_is_not_there_is_not_opened(own, desktop, tmp_path):
    place = tmp_path / "photos"
    place.mkdir()
    shutil.copyfile(own / "photos" / "red.png", place / "red.png")
    library = ("--library", tmp_path / "lib")
    assert run("index", place, "--workers", 1, *library).code == 0
    place.rename(tmp_path / "unplugged")
    done = run("search", "", "--open", *library)
    assert done.code == 1 and "red.png is offline, or gone" in done.err and not desktop.exists()


def test_without_a_desktop_nothing_is_opened_and_that_is_said(used, desktop, monkeypatch):
    if sys.platform == "darwin":
        monkeypatch.setenv("SSH_CONNECTION", "1")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    done = run("search", "the dog", "-k", 3, "--open")
    assert done.code == 1 and done.out.count("\n") == 3
    assert "nothing is opened" in done.err and not desktop.exists()


def test_without_an_opener_nothing_is_opened_and_that_is_said(used, monkeypatch):
    if sys.platform == "darwin":
        pytest.skip("macOS always has one")
    monkeypatch.setenv("DISPLAY", ":9")
    monkeypatch.setattr(viewer.shutil, "which", lambda name: None)
    done = run("search", "the dog", "--open")
    assert done.code == 1 and "install xdg-utils" in done.err


def test_not_hundreds_of_viewers_are_started(used, desktop, monkeypatch):
    monkeypatch.setattr("fovea.cli.terminal.results.MOST_OPENED", 2)
    done = run("search", "name:*.png -name:blue", "-k", 5, "--open")
    assert done.code == 0 and "opening the first 2 of 5" in done.err
    assert desktop.read_text().count("\n") == 2
