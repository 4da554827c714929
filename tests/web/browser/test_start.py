"""What the page loads at once, and what waits for its first pictures."""

import pytest

from browsing import BOX, answer, visited


@pytest.fixture
def early(browser, gallery):
    """A page whose later parts are held back until `early.go()`."""
    with visited(browser, "about:blank") as page:
        held = []
        page.route("**/rest.js", lambda route: held.append(route))
        page.go = lambda: [held.pop().continue_() for _ in list(held)]
        page.goto_at_once(gallery)
        page.wait_for_selector(".tile img")
        yield page


def wait_until_held(page):
    page.wait_for_function("() => performance.now() > 2000")


@pytest.mark.parametrize("how", ["click", "Enter"])
def test_a_picture_opened_before_the_parts_are_there_opens_with_them(early, how):
    if how == "click":
        early.click(".tile[data-index='0'] .tile-open")
    else:
        early.focus(".tile[data-index='0'] .tile-open")
        early.keyboard.press("Enter")
    wait_until_held(early)
    assert early.locator("#detail[open]").count() == 0
    early.go()
    early.wait_for_selector("#detail[data-state=ready]")


@pytest.mark.parametrize("name", ["library", "saved"])
def test_a_dialog_asked_for_before_its_part_is_there_opens_with_it(early, name):
    early.click(f"#open-{name}")
    wait_until_held(early)
    early.go()
    early.wait_for_selector(f"#{name}[open]")


def test_the_slideshow_key_waits_for_the_slideshow(early):
    early.evaluate("document.activeElement.blur()")
    early.keyboard.press("s")
    wait_until_held(early)
    early.go()
    early.wait_for_selector("#slideshow[open]")


def test_the_first_view_needs_one_style_sheet_and_searches_alone(early):
    sheets = early.eval_on_selector_all("link[rel=stylesheet]", "all => all.length")
    early.fill(BOX, "name:nothing-is-called-so")
    early.wait_for_selector("#empty:not([hidden])")
    assert sheets == 1
    assert answer(early, "/api/search?q=")["total"] > 0
