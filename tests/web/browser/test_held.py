"""The library's panel says what pictures hold, and switches what is looked for."""

import shutil

import pytest

from browsing import answer, draw_line, indexed, served, violations, visited
from places import PHOTOS, read_only

KINDS = ["text", "copies", "places", "videos", "labels"]


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """A library of three photographs, which copies are told by already; it shows labels."""
    place = tmp_path_factory.mktemp("held")
    folder = place / "pictures"
    folder.mkdir()
    for name in ("p021.jpg", "p052.jpg", "p080.jpg"):
        shutil.copy(PHOTOS / name, folder)
    found = indexed(place / "library", folder)
    draw_line(found)
    return found


@pytest.fixture
def address(library):
    with served(library) as found:
        yield found


def opened(page):
    page.click("#open-library")
    page.wait_for_function("() => document.getElementById('held-labels-facts').textContent")


def facts(page, kind):
    return page.inner_text(f"#held-{kind}-facts")


def said(page, kind, text):
    page.locator(f"#held-{kind}-facts", has_text=text).wait_for()


@pytest.mark.parametrize("options", [{}, {"color_scheme": "dark", "locale": "zh-CN"}])
def test_each_line_has_its_state_and_its_switch(browser, address, options):
    with visited(browser, address, reduced_motion="reduce", **options) as page:
        opened(page)
        assert [facts(page, kind) != "" for kind in KINDS] == [True] * 5
        switches = page.get_by_role("switch")
        assert [one.get_attribute("data-kind") for one in switches.all()] == KINDS[:3]
        assert "3" in facts(page, "text")
        assert violations(page) == []


def test_what_is_switched_off_is_off_in_the_library(browser, address):
    with visited(browser, address) as page:
        opened(page)
        page.click("[role=switch][data-kind=text]")  # nothing was found: no question
        page.wait_for_selector("[role=switch][data-kind=text][aria-checked=false]")
        assert answer(page, "/api/status")["analyses"]["text"]["off"] is True
        assert facts(page, "text") == "Off"
        page.click("[role=switch][data-kind=text]")
        page.wait_for_selector("[role=switch][data-kind=text][aria-checked=true]")
        assert answer(page, "/api/status")["analyses"]["text"]["off"] is False


def test_what_was_found_is_forgotten_after_a_question(browser, address):
    with visited(browser, address) as page:
        opened(page)
        assert facts(page, "copies") == "3 pictures done"
        page.click("[role=switch][data-kind=copies]")
        page.wait_for_selector("#confirm-off[open]")
        assert violations(page) == []
        page.keyboard.press("Escape")
        assert answer(page, "/api/status")["analyses"]["copies"]["done"] == 3
        page.click("[role=switch][data-kind=copies]")
        page.click("#confirm-off [value=off]")
        page.wait_for_selector("[role=switch][data-kind=copies][aria-checked=false]")
        assert answer(page, "/api/status")["analyses"]["copies"]["off"] is True


def test_labels_are_given_and_taken_away(browser, address):
    with visited(browser, address) as page:
        opened(page)
        page.select_option("[data-part=held] select", "shipped")
        said(page, "labels", "3 pictures have a tag")
        assert answer(page, "/api/labels")["labels"] == "shipped"
        page.select_option("[data-part=held] select", "off")
        said(page, "labels", "0 pictures have a tag")
        assert answer(page, "/api/tags")["tags"] == []


def test_a_read_only_page_only_tells(browser, library):
    with read_only(library), served(library) as address, visited(browser, address) as page:
        opened(page)
        assert [facts(page, kind) != "" for kind in KINDS] == [True] * 5
        assert page.locator("[data-part=held] :is(button, select)").count() == 0
