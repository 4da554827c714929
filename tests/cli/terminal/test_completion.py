"""Completion: in the shells themselves, where they are installed, and what it offers."""

import os
import shutil
import sqlite3
import stat
import subprocess
import sys

import pytest
from PIL import Image

from commands import run
from fovea.cli.terminal.words import KEYS
from fovea.search.query import known_values as module
from fovea.search.query.filters import FILTERS
from fovea.search.query.known_values import known_values
from fovea.search.query.language import SORTS
from places import CHECKOUT

SHELLS = ("bash", "zsh", "fish")
START = {
    "bash": (".bashrc", "PS1='READY> '\n", ["--noprofile", "-i"]),
    "zsh": (".zshrc", "PS1='READY> '\n", ["-d", "-i"]),
    "fish": (
        ".config/fish/config.fish", "function fish_prompt; echo 'READY> '; end\n", ["-i"],
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def places(tmp_path_factory, home):
    """A library whose folders have names that shells split or act upon."""
    top = tmp_path_factory.mktemp("places")
    names = ("holidays/2019 Portugal", "holidays/2020", "work; rm -rf", "caf\u00e9")
    for number, name in enumerate(names):
        (top / "photos" / name).mkdir(parents=True)
        picture = Image.new("RGB", (32, 24), (number * 60, 90, 200))
        exif = Image.Exif()
        exif[0x0110] = "Canon EOS 5D" if number else "Pixel 8"
        exif.get_ifd(0x8769)[0xA434] = "EF50mm f/1.8"
        picture.save(top / "photos" / name / "a.jpg", exif=exif)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FOVEA_MODELS", str(home / "models"))
        patch.setenv("FOVEA_OFFLINE", "1")
        done = run(
            "index", top / "photos", "--library", top / "library", "--model", home / "model",
            "--workers", 1, "--json",
        )  # fmt: skip
    assert done.json["embedded"] == 4
    return top


@pytest.fixture
def env(places, tmp_path):
    """An environment in which ``fovea`` completes, and else writes down its arguments."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "fovea"
    program.write_text(
        '#!/bin/sh\nif [ -n "$_FOVEA_COMPLETE" ]; then\n'
        f'    PYTHONPATH="{CHECKOUT}" exec "{sys.executable}" -m fovea "$@"\nfi\n'
        f'printf "%s\\n" "$@" > "{tmp_path}/part" && mv "{tmp_path}/part" "{tmp_path}/words"\n'
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
    return kept | {
        "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "TERM": "xterm",
        "LANG": "C.UTF-8",
        "FOVEA_LIBRARY": str(places / "library"),
    }


LINES = [
    (b"fovea sim\tdog\r", ["similar", "dog"]),
    (b"fovea search dog in:hol\t\r", ["search", "dog", "in:holidays"]),
    (b"fovea search camera:Pix\t\r", ["search", 'camera:"Pixel 8"']),
    (b"fovea search -is:port\tdog\r", ["search", "-is:portrait", "dog"]),
    (b"fovea search dog --cop\t/tmp in:wo\t\r",
     ["search", "dog", "--copy-to", "/tmp", 'in:"work; rm -rf"']),
    (b"fovea search cam\tCan\t\r", ["search", 'camera:"Canon EOS 5D"']),
    (b"fovea roots rem\t\r", ["roots", "remove"]),
]  # fmt: skip


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_completes_words_filters_and_values(env, shell, type_into, tmp_path, monkeypatch):
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    name, prompt, options = START[shell]
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text(prompt)
    for variable in ("HOME", "SHELL"):
        monkeypatch.setenv(variable, env["HOME"] if variable == "HOME" else program)
    for variable in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "ZDOTDIR"):
        monkeypatch.delenv(variable, raising=False)
    assert run("completion", "--install").code == 0
    words = tmp_path / "words"
    for line, expected in LINES:
        words.unlink(missing_ok=True)
        shown = type_into([program, *options], env, [(b"READY> ", line)], done=words.exists)
        assert words.exists(), f"{shell}, {line!r}: {shown!r}"
        assert words.read_text().splitlines() == expected, shown


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b'fovea search in:"wo\t\r', 'in:"work; rm -rf"'),
        (b'fovea search "in:wo\t\r', 'in:"work; rm -rf"'),
        (b"fovea search 'in:wo\t\r", 'in:"work; rm -rf"'),
        (b'fovea search "in:hol\t\r', "in:holidays"),
        (b'fovea search "dog" "in:2019 Por\t\r', 'in:"2019 Portugal"'),
    ],
)
def test_bash_completes_between_quotation_marks(env, line, expected, type_into, tmp_path):
    program = shutil.which("bash")
    if program is None:
        pytest.skip("bash is not installed")
    script = run("completion", "bash").out
    (tmp_path / ".bashrc").write_text(f"PS1='READY> '\n{script}")
    words = tmp_path / "words"
    command = [program, "--noprofile", "-i"]
    shown = type_into(command, env, [(b"READY> ", line)], done=words.exists)
    assert words.exists() and words.read_text().splitlines()[-1] == expected, shown


# The command


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_is_printed_for_each_shell(shell):
    done = run("completion", shell)
    assert done.code == 0 and "_FOVEA_COMPLETE=" in done.out and f"{shell}_complete" in done.out
    program = shutil.which(shell)
    if program:
        checked = subprocess.run([program, "-n"], input=done.out, text=True, capture_output=True)
        assert (checked.returncode, checked.stderr) == (0, "")


@pytest.fixture
def at_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for variable in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "ZDOTDIR"):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path


def test_installing_twice_adds_one_line_and_keeps_the_rest(at_home):
    start = at_home / ".bashrc"
    start.write_bytes(b"alias ll='ls -l' # \xe9")
    first, again = (run("completion", "bash", "--install") for _ in range(2))
    script = at_home / ".local" / "share" / "fovea" / "completion.bash"
    assert first.out.splitlines() == [str(script), str(start)]
    assert again.out.splitlines() == [str(script)]
    lines = start.read_bytes().splitlines()
    assert lines[0] == b"alias ll='ls -l' # \xe9" and len(lines) == 2
    assert lines[1].startswith(f"[ -r {script} ] && . {script}".encode())


def test_files_go_where_the_environment_says(at_home, monkeypatch):
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "ZDOTDIR"):
        monkeypatch.setenv(name, str(at_home / name))
    (at_home / "ZDOTDIR").mkdir()
    assert run("completion", "fish", "--install").code == 0
    assert run("completion", "zsh", "--install").code == 0
    assert (at_home / "XDG_CONFIG_HOME" / "fish" / "completions" / "fovea.fish").is_file()
    assert (at_home / "XDG_DATA_HOME" / "fovea" / "completion.zsh").is_file()
    assert "completion.zsh" in (at_home / "ZDOTDIR" / ".zshrc").read_text()


@pytest.mark.parametrize("value", ["/bin/tcsh", ""])
def test_a_shell_that_is_not_known_is_to_be_named(at_home, monkeypatch, value):
    monkeypatch.setenv("SHELL", value)
    done = run("completion", "--install")
    assert done.code == 2 and "name one of: bash, zsh, fish" in done.err


def test_a_place_that_cannot_be_written_is_one_line(at_home):
    (at_home / ".local").write_text("")
    done = run("completion", "bash", "--install")
    assert done.code == 1 and done.err.count("\n") == 1 and "cannot write" in done.err
    (at_home / ".local").unlink()
    (at_home / ".bashrc").mkdir()
    done = run("completion", "bash", "--install")
    assert done.code == 1 and done.err.count("\n") == 1 and ".bashrc" in done.err


# What is offered


def test_completion_knows_every_filter():
    assert (*FILTERS, "like", "sort") == KEYS


def completed(line, library, *checks):
    """Complete a line in a new process, as Bash asks for it."""
    code = (
        "import sys; sys.argv = ['fovea']; import fovea.cli\n"
        "try:\n    fovea.cli.main()\nexcept SystemExit:\n    pass\n"
        f"loaded = {set(checks)!r} & set(sys.modules)\n"
        "assert not loaded, loaded"
    )
    asked = {"COMP_WORDS": line, "_FOVEA_COMPLETE": "bash_complete"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True,
        env=os.environ | asked | {"FOVEA_LIBRARY": str(library)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


HEAVY = ("torch", "faiss", "PIL", "flask", "textual", "transformers")


def test_completing_is_light(places):
    library = places / "library"
    light = (*HEAVY, "numpy", "sqlite_utils")
    assert completed("fovea search --pa", library, *light) == ["plain,--paths"]
    assert completed("fovea search na", library, *light) == ["part,name:"]
    found = completed("fovea search in:20", library, *HEAVY)
    assert found == ['plain,in:\\"2019\\ Portugal\\"', "plain,in:2020"]


def test_values_come_from_the_library_that_the_line_names(places, tmp_path):
    assert completed("fovea search camera:p", tmp_path) == [""]
    line = f"fovea search --library {places / 'library'} camera:p"
    assert completed(line, tmp_path) == ['plain,camera:\\"Pixel\\ 8\\"']


def test_a_completed_value_is_read_as_that_value(places, monkeypatch):
    """What the shell makes of it is one argument."""
    monkeypatch.setenv("FOVEA_OFFLINE", "1")
    library = ("--library", places / "library", "--json")
    [hit] = run("search", 'in:"work; rm -rf"', *library).json["hits"]
    assert "/work; rm -rf/" in hit["path"]


def test_folders_are_named_by_their_last_parts_or_whole(places):
    library, top = places / "library", str(places / "photos")
    assert known_values(library, "in", "HOL") == ["holidays"]
    assert known_values(library, "in", "holidays/") == ["holidays/2019 Portugal", "holidays/2020"]
    assert known_values(library, "in", top) == sorted(
        [top, *(f"{top}/{n}" for n in (
            "holidays", "holidays/2019 Portugal", "holidays/2020", "work; rm -rf", "caf\u00e9",
        ))]
    )  # fmt: skip
    assert "photos" in known_values(library, "in", "")
    assert os.path.basename(places) not in known_values(library, "in", "")


def test_other_filters_list_what_they_can(places):
    library = places / "library"
    assert known_values(library, "camera", "") == ["Canon EOS 5D", "Pixel 8"]
    assert known_values(library, "lens", "ef") == ["EF50mm f/1.8"]
    assert known_values(library, "is", "p") == ["portrait"]
    assert known_values(library, "format", "hei") == ["heic", "heics", "heif", "heifs"]
    [year] = known_values(library, "on", "")
    assert known_values(library, "before", year[:2]) == [year]
    for key in ("size", "near", "name", "like", "nonsense"):
        assert known_values(library, key, "") == []


def test_names_that_no_terminal_shows_are_not_offered(own):
    with sqlite3.connect(own.parent / "x.db"):
        pass
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_folders", lambda conn, start: iter(["a\x1b[31m", "caf\udce9", "b"]))
        assert known_values(own / "library", "in", "") == ["b"]


@pytest.mark.parametrize("content", [None, b"", b"no database at all, but long enough" * 100])
def test_without_a_sound_library_nothing_is_offered(tmp_path, content):
    if content is not None:
        (tmp_path / "library.db").write_bytes(content)
    for key in ("in", "camera", "on"):
        assert known_values(tmp_path, key, "") == []
    assert [path.name for path in tmp_path.iterdir()] == (
        ["library.db"] if content is not None else []
    )


def test_what_takes_too_long_is_given_up(places, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE_S", -1.0)
    monkeypatch.setattr(module, "STEPS", 1)
    assert known_values(places / "library", "camera", "") == []


def test_orders_are_completed(places):
    assert completed("fovea search sort:", places) == [f"plain,sort:{order}" for order in SORTS]
