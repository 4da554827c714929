"""Videos in the page: the time on the tile, the player from there, stills to jump to."""

import json
import urllib.request

import pytest

from browsing import chromium, indexed, served, visited
from films.drawn import corners, film, needs_av

pytestmark = needs_av
SCENES = (("red", 3), ("lime", 3), ("blue", 3))


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """The address of a search in two videos: one that browsers play, and one that none does."""
    chromium()  # skips before indexing
    home = tmp_path_factory.mktemp("films")
    folder = home / "films"
    folder.mkdir()
    options = {"deadline": "realtime", "cpu-used": "8"}
    film(folder / "plays.webm", SCENES, codec="libvpx", options=options, size=(320, 240))
    film(folder / "still.avi", [(corners((320, 240)), 3)], size=(320, 240))
    with served(indexed(home / "library", folder)) as address:
        with urllib.request.urlopen(f"{address}/api/search?q=name:plays.webm") as answer:
            [hit] = json.load(answer)["hits"]
        yield f"{address}/?q=like:{hit['image_id']}@0:07+is:video"  # as no model takes it otherwise


@pytest.fixture
def page(browser, films):
    with visited(browser, films) as page:
        page.wait_for_selector(".tile img")
        yield page


def player(page, what):
    return page.evaluate(f"document.querySelector('.detail-video').{what}")


def test_a_tile_says_time_and_length(page):
    tile = page.locator('.tile-open[title="plays.webm"]')
    assert tile.get_attribute("aria-label").endswith("video, at 0:06 of 0:09")
    assert "0:06" in tile.locator(".tile-badge.is-video").inner_text()


def test_the_player_begins_at_the_moment_and_jumps_to_others(page):
    page.locator('.tile-open[title="plays.webm"]').click()
    page.wait_for_function(
        "() => Math.abs(document.querySelector('.detail-video').currentTime - 6) < 0.9"
    )
    assert player(page, "videoWidth") == 320 and player(page, "paused")
    stills = page.locator(".detail-moments button")
    assert stills.count() == 3
    assert page.locator(".detail-moments [aria-current]").inner_text() == "0:06"
    stills.nth(1).click()
    page.wait_for_function("() => document.querySelector('.detail-video').currentTime < 6")
    assert player(page, "currentTime") >= 2.5
    page.keyboard.press("Escape")
    page.wait_for_function("() => !document.getElementById('detail').open")
    assert player(page, "hidden") and not player(page, "hasAttribute('src')")


def test_what_no_browser_plays_is_a_still(page):
    page.locator('.tile-open[title="still.avi"]').click()
    problem = page.locator(".detail-problem")
    problem.wait_for(state="visible")
    assert "cannot play" in problem.inner_text()
    page.wait_for_function("() => document.querySelector('.detail-large').naturalWidth > 0")
    assert player(page, "hidden")


def test_more_like_this_is_of_the_moment(page):
    page.locator('.tile-open[title="plays.webm"]').click()
    page.wait_for_function(
        "() => Math.abs(document.querySelector('.detail-video').currentTime - 6) < 0.9"
    )
    page.locator("[data-action=more-like]").click()
    page.wait_for_function("() => /like(:|%3A)\\d+(@|%40)0(:|%3A)0[56]/.test(location.search)")
    assert "plays.webm · 0:0" in page.locator("#chips").inner_text()
