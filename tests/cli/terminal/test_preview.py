"""Pictures in a terminal: half blocks anywhere, and what the terminal says it can draw."""

import importlib.util
import re

import pytest
from PIL import Image

from commands import run
from fovea.cli.terminal.graphics import blocks, fitted, graphics, half_blocks

KITTY = (b"\x1b[c", b"\x1b_Gi=31;OK\x1b\\\x1b[?62;22c")
SIXEL = (b"\x1b[c", b"\x1b_Gi=31;OK\x1b\\\x1b[?62;4;22c")  # both, as WezTerm: Sixel is drawn
NEITHER = (b"\x1b[c", b"\x1b[?62;22c")
PIXELS = (1000, 480)
needs_library = pytest.mark.skipif(
    importlib.util.find_spec("textual_image") is None,
    reason="textual-image is not installed: pip install 'fovea[terminal]'",
)


def test_a_picture_fits_into_its_box_and_keeps_its_shape():
    for size, box, expected in [
        ((200, 100), (40, 20), (40, 10)),
        ((100, 200), (40, 20), (20, 20)),
        ((100, 100), (40, 20), (40, 20)),
        ((5000, 1), (40, 20), (40, 1)),
        ((1, 5000), (40, 20), (1, 20)),
        ((2, 1), (1, 1), (1, 1)),
    ]:
        assert fitted(Image.new("RGB", size), *box) == expected


def test_blocks_hold_two_pixels_each():
    image = Image.new("RGB", (2, 4), "red")
    image.paste("blue", (0, 2, 2, 4))
    image.putpixel((1, 1), (0, 255, 0))
    red, blue, green = (255, 0, 0), (0, 0, 255), (0, 255, 0)
    assert blocks(image, 2, 2) == [[(red, red), (red, green)], [(blue, blue), (blue, blue)]]
    assert blocks(image.convert("P"), 2, 2)[1] == [(blue, blue)] * 2


def test_colours_are_as_many_as_the_terminal_says(monkeypatch):
    image = Image.new("RGB", (2, 2), (250, 2, 100))
    monkeypatch.setenv("COLORTERM", "truecolor")
    assert half_blocks(image, 2, 1) == "\x1b[38;2;250;2;100;48;2;250;2;100m▀▀\x1b[0m\n"
    monkeypatch.delenv("COLORTERM")
    assert half_blocks(image, 2, 1) == "\x1b[38;5;197;48;5;197m▀▀\x1b[0m\n"


def test_without_a_terminal_there_is_no_preview(used):
    graphics.cache_clear()
    done = run("search", "dog", "--preview")
    assert done.code == 1 and "needs a terminal" in done.err and done.out == ""


@pytest.mark.parametrize("pixels", [(0, 0), PIXELS])
def test_a_terminal_that_draws_nothing_gets_half_blocks(at_terminal, pixels):
    """Without the extra it is not even asked."""
    screen = at_terminal("search", "name:red.png", "--preview", pixels=pixels, answers=[NEITHER],
                         env={"COLORTERM": "truecolor"})  # fmt: skip
    assert screen.code == 0
    colours = re.findall(r"38;2;(\d+);(\d+);(\d+);48", screen.text)
    assert len(colours) > 100
    assert all(int(r) > 190 and int(g) < 60 and int(b) < 60 for r, g, b in colours)
    assert screen.text.count("▀") == 48 * 12 or screen.text.count("▀") > 200
    assert "\x1bP" not in screen.text and "a=T" not in screen.text


@needs_library
def test_a_terminal_with_sixel_gets_sixel(at_terminal):
    screen = at_terminal("search", "name:red.png", "--preview", pixels=PIXELS, answers=[SIXEL])
    assert screen.code == 0 and "▀" not in screen.text
    assert re.search(r"\x1bP[0-9;]*q", screen.text)


@needs_library
def test_kitty_gets_its_own_protocol(at_terminal):
    screen = at_terminal("search", "name:red.png", "--preview", pixels=PIXELS, answers=[KITTY])
    assert screen.code == 0 and "▀" not in screen.text and "\x1bP" not in screen.text
    assert re.search(r"\x1b_G[^\x1b]*f=100[^\x1b]*;iVBOR", screen.text)


@needs_library
def test_a_terminal_that_never_answers_gets_half_blocks(at_terminal):
    screen = at_terminal("search", "name:red.png", "--preview", pixels=PIXELS)
    assert screen.code == 0 and "▀" in screen.text
    assert screen.text.count("\x1b[c") == 1, "it is asked once"


def test_a_tiny_terminal_gets_tiny_pictures(at_terminal):
    screen = at_terminal("search", "name:red.png", "--preview", rows=2, columns=3)
    assert screen.code == 0 and 0 < screen.text.count("▀") <= 3


def test_a_picture_that_is_gone_is_said_in_its_place(at_terminal, own, tmp_path):
    import shutil

    place, library = tmp_path / "photos", tmp_path / "lib"
    place.mkdir()
    for name in ("red.png", "blue.png"):
        shutil.copyfile(own / "photos" / name, place / name)
    assert run("index", place, "--workers", 1, "--library", library).code == 0
    (place / "red.png").unlink()
    screen = at_terminal("search", "", "--preview", "--library", library)
    assert screen.code == 0 and "▀" in screen.text
    assert f"(no picture: {place / 'red.png'}: it is offline, or gone)" in screen.text
