"""The full-screen search, driven by Textual's own pilot; needs the extra ``terminal``."""

import asyncio
import shutil
import sys

import pytest

from commands import run
from fovea.search.errors import LibraryError
from fovea.search.maintenance.forget import THUMBNAILS

pytest.importorskip("textual", reason="Textual is not installed: pip install 'fovea[terminal]'")

from textual.widgets import Footer, Input, Static  # noqa: E402

from fovea.cli.terminal import browser as module  # noqa: E402
from fovea.cli.terminal.browser import Browser, Grid  # noqa: E402
from fovea.cli.terminal.source import Source  # noqa: E402
from fovea.cli.terminal.tiles import Blocks, Tile  # noqa: E402

PATIENCE_S = 15


def browse(library, steps, query="", size=(100, 40)):
    """Run the full-screen search, let ``steps`` use it, and return what they return."""

    async def use():
        with Source(library, device="cpu", dtype="float32") as source:
            app = Browser(source, query)
            async with app.run_test(size=size) as pilot:
                await until(lambda: app._found is not None or said(app))
                return await steps(app, pilot)

    return asyncio.run(use())


async def until(holds):
    async with asyncio.timeout(PATIENCE_S):
        while not holds():
            await asyncio.sleep(0.02)


def said(app):
    return str(app.query_one("#said", Static).render())


def names(app):
    return [hit.path.rpartition("/")[2] for hit in app.query_one(Grid).hits]


def tiles(app):
    return [tile for tile in app.query(Tile) if tile.hit is not None]


def drawn(app):
    """The tiles that show a picture."""
    return [tile for tile in tiles(app) if tile.query_one(Blocks)._rows]


def test_the_newest_are_shown_and_then_what_is_typed(used):
    async def steps(app, pilot):
        await until(lambda: len(drawn(app)) == 6)
        assert app.focused is app.query_one(Input)
        await pilot.press(*"name:blue")
        await until(lambda: names(app) == ["blue.png"])
        assert len(tiles(app)) == 1 and said(app) == "1 picture"
        await pilot.press("backspace", "backspace", "backspace", "backspace", *"lime")
        await until(lambda: names(app) == ["lime.png"])

    browse(used / "library", steps)


def test_it_begins_with_the_query_of_the_command_line(used):
    async def steps(app, pilot):
        assert app.query_one(Input).value == "name:lime"
        await until(lambda: names(app) == ["lime.png"] and len(drawn(app)) == 1)
        [tile] = tiles(app)
        rows = tile.query_one(Blocks)._rows
        cells = [segment for row in rows for segment in row if segment.text == "▀"]
        colours = [cell.style.color.triplet for cell in cells]
        assert len(colours) > 50 and all(c.green > 180 and c.red < 80 for c in colours)

    browse(used / "library", steps, "name:lime")


def test_arrows_choose_and_the_query_is_reached_again(used):
    async def steps(app, pilot):
        grid = app.query_one(Grid)
        await until(lambda: len(grid.hits) == 6)
        assert grid.columns == 3
        await pilot.press("down")
        assert app.focused is grid and grid.chosen == 0
        await pilot.press("right", "right", "down")
        assert grid.chosen == 5
        [chosen] = app.query("Tile.chosen")
        assert chosen.hit is grid.hits[5] and said(app).startswith("6 of 6  ")
        await pilot.press("right", "down")
        assert grid.chosen == 5, "there is nothing beyond the last"
        await pilot.press("left", "home")
        assert grid.chosen == 0
        await pilot.press("end", "pageup")
        assert grid.chosen == 0
        await pilot.press("up")
        assert app.focused is app.query_one(Input)
        await pilot.press("enter")
        assert app.focused is grid
        await pilot.press("slash")
        assert app.focused is app.query_one(Input)
        await pilot.press("enter", "q")
        assert not app.is_running or app._exit

    browse(used / "library", steps)


def test_y_copies_the_path_also_over_ssh(used):
    async def steps(app, pilot):
        await until(lambda: names(app) == ["blue.png"])
        await pilot.press("enter", "y")
        assert app.clipboard == str(used / "photos" / "blue.png")
        assert said(app) == f"copied {used / 'photos' / 'blue.png'}"

    browse(used / "library", steps, "name:blue")


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS has UTF-8 names only")
def test_a_name_with_control_characters_is_shown_escaped_and_not_copied(used):
    async def steps(app, pilot):
        await until(lambda: len(drawn(app)) == 1)
        await pilot.press("enter")
        await until(lambda: "caf\\udce9\\n\\x1b[31m.png" in said(app))
        [tile] = tiles(app)
        assert "caf\\udce9\\n\\x1b[31m.png" in str(tile.query_one(".caption", Static).render())
        await pilot.press("y")
        assert app.clipboard == "" and said(app).startswith("not copied: ")

    browse(used / "library", steps, "name:caf*")


def test_enter_opens_the_chosen_picture_and_failures_are_one_line(used, monkeypatch):
    opened = []

    def open_files(paths):
        opened.extend(paths)
        if len(opened) > 1:
            raise LibraryError("nothing is opened: there is no desktop here")
        return []

    monkeypatch.setattr("fovea.cli.terminal.viewer.open_files", open_files)

    async def steps(app, pilot):
        await until(lambda: names(app) == ["blue.png"])
        await pilot.press("enter", "enter")
        await until(lambda: opened)
        assert opened == [str(used / "photos" / "blue.png")]
        await pilot.press("enter")
        await until(lambda: said(app) == "nothing is opened: there is no desktop here")
        assert app.query_one("#said").has_class("wrong")

    browse(used / "library", steps, "name:blue")


def test_a_malformed_query_is_one_line_and_the_hits_stay(used):
    async def steps(app, pilot):
        await until(lambda: len(names(app)) == 6)
        await pilot.press(*"is:round")
        await until(lambda: "character 4" in said(app))
        assert app.query_one("#said").has_class("wrong") and "\n" not in said(app)
        assert len(names(app)) == 6
        await pilot.press(*(["backspace"] * 8), *"name:blue")
        await until(lambda: names(app) == ["blue.png"])
        assert said(app) == "1 picture" and not app.query_one("#said").has_class("wrong")

    browse(used / "library", steps)


def test_nothing_found_is_said(used):
    says = 'no pictures found: no file name matches "nothing-has-this-name"'

    async def steps(app, pilot):
        await until(lambda: said(app) == says)
        await pilot.press("down", "enter", "tab", "y")
        assert tiles(app) == [] and app.clipboard == ""

    browse(used / "library", steps, "name:nothing-has-this-name")


def test_typing_does_not_wait_for_a_slow_answer(used, monkeypatch):
    """A newer query replaces those that are waiting, and is the one that is shown."""
    import threading

    release, asked = threading.Event(), []
    search = Source._search

    def slow(self, query, k):
        asked.append(query)
        if query == "name:r":
            assert release.wait(PATIENCE_S)
        return search(self, query, k)

    monkeypatch.setattr(Source, "_search", slow)
    monkeypatch.setattr(module, "PAUSE_S", 0.0)

    async def steps(app, pilot):
        await until(lambda: len(names(app)) == 6)
        for value in ("name:r", "name:re", "name:lime", "name:blue"):
            app.query_one(Input).value = value
            await until(lambda: "name:r" in asked)
            await pilot.pause()
        assert app.query_one(Input).value == "name:blue" and len(names(app)) == 6
        release.set()
        await until(lambda: names(app) == ["blue.png"])
        assert "name:lime" not in asked

    browse(used / "library", steps)


@pytest.mark.parametrize("size", [(1, 1), (10, 3), (26, 16), (20, 200), (300, 60)])
def test_any_window_will_do(used, size):
    async def steps(app, pilot):
        grid = app.query_one(Grid)
        await until(lambda: len(grid.hits) == 6)
        await pilot.press("down", "right", "down", "end")
        assert grid.chosen == 5 and tiles(app)
        assert len(app.query(Tile)) == grid.columns * grid.rows

    browse(used / "library", steps, size=size)


def test_a_window_may_change_its_size(used):
    async def steps(app, pilot):
        grid = app.query_one(Grid)
        await until(lambda: len(grid.hits) == 6)
        await pilot.press("down", "end")
        for width, height in ((30, 20), (8, 4), (160, 50), (60, 30)):
            await pilot.resize_terminal(width, height)
            await until(lambda w=width: app.size.width == w)
            await pilot.pause()
            assert grid.chosen == 5
            assert any(tile.hit is grid.hits[5] for tile in app.query(Tile))
        await until(lambda: len(drawn(app)) == len(tiles(app)))
        assert app.query_one(Footer)

    browse(used / "library", steps)


@pytest.fixture
def offline(own, tmp_path):
    """A library of pictures whose folder is gone."""
    place = tmp_path / "stick"
    shutil.copytree(own / "photos", place, ignore=shutil.ignore_patterns("broken*", "caf*"))
    library = tmp_path / "lib"
    done = run("index", place, "--workers", 1, "--library", library)
    assert done.code == 0, done.err
    return place, library


def test_offline_originals_have_the_thumbnails_that_were_kept(offline, tmp_path, monkeypatch):
    place, library = offline
    monkeypatch.setattr("fovea.search.library.reachable.KEPT_S", 0.0)  # look each time

    async def keep(app, pilot):
        await until(lambda: len(drawn(app)) == 1)

    async def look(app, pilot):
        await until(lambda: len(names(app)) == 6 and len(drawn(app)) == 1)

        def captions():
            return [str(tile.query_one(".caption", Static).render()) for tile in tiles(app)]

        await until(lambda: sum("offline, or gone" in text for text in captions()) == 5)
        [kept] = [text for text in captions() if "offline, or gone" not in text]
        assert kept == "blue.png (offline)"

    browse(library, keep, "name:blue")
    place.rename(tmp_path / "unplugged")
    browse(library, look)


@pytest.mark.parametrize("damage", ["cut", "noise"])
def test_a_damaged_thumbnail_is_made_anew(offline, damage):
    _, library = offline

    async def look(app, pilot):
        await until(lambda: len(drawn(app)) == 1)

    browse(library, look, "name:blue")
    kept = sorted((library / THUMBNAILS).rglob("*-256.webp"))
    assert kept
    whole = [path.read_bytes() for path in kept]
    for path, data in zip(kept, whole, strict=True):
        path.write_bytes(data[:20] if damage == "cut" else data[:12] + b"\xff" * (len(data) - 12))
    browse(library, look, "name:blue")
    assert [path.read_bytes() for path in kept] == whole


def test_a_library_without_pictures_is_browsed(offline):
    place, library = offline
    for path in place.iterdir():
        path.unlink()
    (place / "note.txt").write_text("so that the folder is not taken for an unmounted one")
    assert run("index", "--library", library, "--confirm-deletions").code == 0

    async def steps(app, pilot):
        await until(lambda: said(app) == module.NO_HITS)
        await pilot.press(*"dog", "down")
        assert tiles(app) == []

    browse(library, steps)


def test_more_hits_come_as_they_are_needed(used, monkeypatch):
    monkeypatch.setattr(module, "PAGE", 2)

    async def steps(app, pilot):
        grid = app.query_one(Grid)
        await until(lambda: len(grid.hits) >= 2)
        await pilot.press("down")
        for count in (4, 6, 6):
            assert len(grid.hits) <= count
            await pilot.press("end")
            await until(lambda count=count: len(grid.hits) == count)
        assert grid.chosen == 5 and said(app).startswith("6 of 6")

    browse(used / "library", steps, size=(30, 18))


# The command


def test_browsing_needs_a_terminal(used):
    done = run("browse")
    assert done.code == 2 and "needs a terminal" in done.err


def test_a_real_terminal_is_used_and_left_as_it_was(at_terminal):
    shown = (b"\x1b[?1049h", b"\x11")  # Ctrl-Q once the screen is taken
    screen = at_terminal("browse", "name:blue", rows=30, answers=[shown])
    assert screen.code == 0 and "name:blue" in screen.text
    assert screen.text.rindex("\x1b[?1049l") > screen.text.rindex("\x1b[?1049h")


def test_it_ends_when_its_terminal_goes_away(used, left_by_terminal):
    command = [sys.executable, "-m", "fovea", "browse", "name:blue"]
    env = {"FOVEA_LIBRARY": str(used / "library")}
    assert left_by_terminal(command, env=env, sign=b"\x1b[?1049h") == 129


@pytest.mark.parametrize(
    ("attributes", "drawn"), [(b"62;4;22", b"\x1bP"), (b"62;22", "\U0010eeee".encode())]
)
def test_a_terminal_that_draws_pictures_is_made_to(at_terminal, attributes, drawn):
    """Sixel, or Kitty's placeholders; then the search is left."""
    pytest.importorskip("textual_image", reason="textual-image is not installed")
    answers = [(b"\x1b[c", b"\x1b_Gi=31;OK\x1b\\\x1b[?" + attributes + b"c"), (drawn, b"\x11")]
    screen = at_terminal(
        "browse", "name:blue", rows=30, pixels=(1000, 600), answers=answers, env={"LANG": "C.UTF-8"}
    )
    assert screen.code == 0 and drawn.decode() in screen.text and "▀" not in screen.text


def test_without_anything_indexed_there_is_nothing_to_browse(at_terminal, tmp_path):
    screen = at_terminal("browse", "--library", tmp_path / "none")
    assert screen.code == 1 and "fovea index FOLDER" in screen.text
    assert "\x1b[?1049h" not in screen.text
