"""The manual page: it is what the help says, and whoever formats it has nothing to complain of."""

import importlib
import shutil
import subprocess
import sys

import pytest

from places import CHECKOUT

sys.path.insert(0, str(CHECKOUT / "docs"))
manual = importlib.import_module("manual")
regenerate = importlib.import_module("regenerate")
sys.path.pop(0)


def test_the_page_is_as_the_help_is_now():
    assert manual.PAGE.read_text("utf-8") == manual.manual(), "run python docs/regenerate.py"


def test_the_page_has_every_command():
    page = manual.PAGE.read_text("utf-8")
    for path in regenerate.commands():
        if path:
            assert f"\n.SS {' '.join(('fovea', *path))}\n" in page


def shown(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
def test_groff_formats_the_page_without_a_warning():
    text = shown("groff", "-man", "-Tascii", "-P-c", "-ww", "-rLL=100n", manual.PAGE)
    plain = text.replace("\b", "")
    assert "fovea search beach -people in:holidays after:2019\n" in plain
    assert "~/Pictures" in plain and "library's folder" in plain


@pytest.mark.skipif(shutil.which("mandoc") is None, reason="mandoc is not installed")
def test_mandoc_finds_no_error():
    subprocess.run(["mandoc", "-T", "lint", "-W", "error", manual.PAGE], check=True)


@pytest.mark.skipif(shutil.which("man") is None, reason="man is not installed")
def test_man_shows_the_page():
    done = subprocess.run(
        ["man", "-l", manual.PAGE], capture_output=True, text=True,
        env={"PATH": "/usr/bin:/bin", "MANWIDTH": "100", "LANG": "C.UTF-8", "MANPAGER": "cat"},
    )  # fmt: skip
    if done.returncode and "invalid option" in done.stderr:
        pytest.skip("this man has no -l")
    assert done.returncode == 0 and "fovea - find photographs" in done.stdout


def test_every_character_is_shown_as_it_is():
    assert manual._text(".a-b'c\\d\"e^~é") == "\\&.a\\-b\\(aqc\\ed\\(dqe\\(ha\\(ti\\[u00E9]"
