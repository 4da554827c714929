"""Ten thousand pictures: only those near the window are in the page."""

import pytest

from browsing import invented, served, visited
from fovea.search.library.rows import ImageMetadata

MANY = 10_000
MOST = 400  # tiles: some windows full of them
FIRST = """[...document.querySelectorAll(".tile")].map((tile) => ({
        index: +tile.dataset.index, top: tile.getBoundingClientRect().top,
    })).filter(({ top }) => top > 70).sort((one, other) => one.index - other.index)[0]"""


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A server whose library knows so many pictures; their files are gone."""

    def described(number):
        return f"{number:05}.jpg", ImageMetadata(400, 300 if number % 3 else 600, "JPEG")

    with served(invented(tmp_path_factory.mktemp("many"), MANY, described)) as address:
        yield address


def test_scrolling_to_the_last_picture_keeps_the_page_small(browser, many):
    with visited(browser, many) as page:
        page.watch.expected.append("thumbnail")  # there is nothing to make them of
        session = page.context.new_cdp_session(page)
        session.send("Network.enable")
        session.send("Network.setBlockedURLs", {"urls": ["*/thumbnail*"]})
        page.wait_for_selector(".tile")
        last = -1
        while last < MANY - 1:
            page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
            page.wait_for_function(
                "last => Math.max(...[...document.querySelectorAll('.tile')]"
                ".map((tile) => +tile.dataset.index)) > last",
                arg=last,
            )
            indexes = page.eval_on_selector_all(
                ".tile", "tiles => tiles.map((tile) => +tile.dataset.index)"
            )
            assert len(indexes) < MOST
            last = max(indexes)
        assert last == MANY - 1
        page.keyboard.press("Home")
        page.evaluate("scrollTo(0, 0)")
        page.wait_for_selector(".tile[data-index='0']")


def test_a_reload_leads_back_to_a_place_deep_down(browser, many):
    with visited(browser, "about:blank") as page:
        page.watch.expected.append("thumbnail")
        page.route("**/thumbnail?*", lambda route: route.abort())
        page.goto(many)
        page.wait_for_selector(".tile")
        page.evaluate("scrollTo(0, 0.9 * document.documentElement.scrollHeight)")
        page.wait_for_function(f"() => ({FIRST})?.index > 8000")
        page.wait_for_function("() => history.state?.at?.place > 8000")
        page.wait_for_timeout(1000)  # all that is near has come, and the place is noted
        before = page.evaluate(FIRST)
        page.reload()
        page.wait_for_function(f"index => ({FIRST})?.index === index", arg=before["index"])
        page.wait_for_timeout(500)
        after = page.evaluate(FIRST)
        assert after["index"] == before["index"] and abs(after["top"] - before["top"]) <= 2
        assert page.locator(".tile").count() < MOST
