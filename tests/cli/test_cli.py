import os
import re
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coloured import encoded
from commands import run
from fovea.search.library.library import Library
from fovea.search.library.paths import printable, printable_name
from places import CHECKOUT


def test_the_demo_answers_without_touching_the_users_library(used, tmp_path, monkeypatch):
    pytest.importorskip("skimage")
    monkeypatch.setenv("FOVEA_LIBRARY", str(tmp_path / "mine"))
    done = run("demo")
    assert done.code == 0, done.err
    assert "photographs embedded by fovea-small" in done.out
    assert done.out.count(".png") + done.out.count(".jpg") == 12
    assert "likely matches" in done.err, "as the command says it"
    assert not (tmp_path / "mine").exists()


def test_the_demo_without_its_pictures_says_what_to_install(used, monkeypatch):
    monkeypatch.setattr("fovea.data.demo_photographs", list)
    done = run("demo")
    assert done.code == 1
    assert "pip install 'fovea[demo]'" in done.err


def test_help_needs_neither_torch_nor_numpy():
    code = (
        "import sys, fovea.cli\n"
        "try:\n    fovea.cli.cli(['--help'])\n"
        "except SystemExit:\n    pass\n"
        "heavy = {'torch', 'numpy', 'PIL', 'faiss', 'sqlite_utils', 'tqdm'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, check=True, capture_output=True)


def test_words_are_answered_without_torch(used):
    code = (
        "import sys, fovea.cli\n"
        "try:\n    fovea.cli.cli(['search', 'the dog', '-k', '1'])\n"
        "except SystemExit as exc:\n    assert not exc.code, exc.code\n"
        "heavy = {'torch', 'flask', 'rich', 'textual', 'textual_image', 'transformers', "
        "'openvino', 'nncf'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=CHECKOUT,
        env=os.environ | {"FOVEA_LIBRARY": str(used / "library")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_a_file_in_the_library_has_its_like_without_torch(used):
    file = str(used / "photos" / "red.png")
    code = (
        "import sys, fovea.cli\n"
        f"try:\n    fovea.cli.cli(['similar', {file!r}])\n"
        "except SystemExit as exc:\n    assert not exc.code, exc.code\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, check=True, capture_output=True)


def test_a_reader_that_leaves_early_is_no_error(used):
    command = f"{sys.executable} -m fovea verify | head -1"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"], cwd=CHECKOUT, capture_output=True, text=True
    )
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device is always full here")
@pytest.mark.parametrize("words", [["verify", "--json"], ["--help"]])
def test_results_that_find_no_room_are_one_line(used, words):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "fovea", *words],
            cwd=CHECKOUT, stdout=full, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("fovea: cannot write the results: No space left")
    assert done.stderr.count("\n") == 1


def test_any_terminal_can_be_printed_to(used):
    done = subprocess.run(
        [sys.executable, "-m", "fovea", "search", "the dog"],
        cwd=CHECKOUT,
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()


def test_ctrl_c_ends_a_run_that_can_be_repeated(own, tmp_path):
    photos = tmp_path / "many"
    photos.mkdir()
    for number in range(400):
        (photos / f"{number}.png").write_bytes(encoded("red", number))
    library = tmp_path / "interrupted"
    process = subprocess.Popen(
        [sys.executable, "-m", "fovea", "index", photos, "--library", library, "--batch-size", "4",
         "--workers", "1", "--model", own / "model"],
        cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None:
            if (library / "library.db").exists() and run_count(library):
                break
            time.sleep(0.05)
        process.send_signal(2)
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
    if process.returncode == 0:
        pytest.skip("the run was over before it could be interrupted")
    assert process.returncode == 1
    assert "stopped; run the command again" in err
    assert "Traceback" not in err
    assert run("verify", "--library", library, "--json").json["ok"]


def run_count(library):
    with Library.open(library) as opened:
        return opened.counts().images


def test_the_version_is_told():
    assert run("--version").out.startswith("fovea")


@pytest.mark.parametrize("words", [[], ["models"], ["roots"]])
def test_summaries_of_commands_are_not_cut_off(words):
    shown = run(*words, "--help").out
    assert "Commands:" in shown and "..." not in shown.partition("Commands:")[2]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_can_complete(shell):
    done = subprocess.run(
        [sys.executable, "-m", "fovea"],
        cwd=CHECKOUT,
        env=os.environ | {"_FOVEA_COMPLETE": f"{shell}_source"},
        capture_output=True,
        text=True,
    )
    assert "_fovea_completion" in done.stdout or "complete" in done.stdout


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é 東京 🐕", "plain é 東京 🐕"),
        ("a\nb\tc", "a\\nb\\tc"),
        ("\x1b[2J", "\\x1b[2J"),
        ("caf\udce9", "caf\\udce9"),
        ("\u202egnp", "\\u202egnp"),
    ],
)
def test_names_are_printed_as_one_harmless_line(text, shown):
    assert printable(text) == printable_name(text) == shown


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("C:\\Photos\\beach.jpg", "C:\\Photos\\beach.jpg"),
        ("a\\nb", "a\\\\nb"),
        ("a\\", "a\\"),
        ("a\\\nb", "a\\\\\\nb"),
        ("caf\\xe9", "caf\\\\xe9"),
        ("a\\\\b", "a\\\\\\b"),
    ],
)
def test_a_backslash_in_a_name_looks_like_no_escape(name, shown):
    assert printable_name(name) == shown


@given(st.text(alphabet="\\nrtxuUa01f\n\t\x1b\xe9\udce9", max_size=12))
def test_a_printed_name_can_be_read_back(name):
    """Undo the escapes as they are read: each means what it says, any other backslash itself."""
    escapes = r"\\(x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8}|[nrt\\])"
    undone = re.sub(
        escapes,
        lambda found: found[0].encode().decode("unicode_escape"),
        printable_name(name),
    )
    assert undone == name
