"""Where the parts of the search box meet: suggestions, chips, the page itself."""

import pytest

from browsing import BOX, asks_for, type_in, visited

OPEN = "#suggestions:not([hidden])"
OPTION = "#suggestions [role=option]"
CHIP = "#chips .chip"
NARROW = {"viewport": {"width": 375, "height": 700}, "has_touch": True, "is_mobile": True}


@pytest.fixture
def album(browser, albums):
    address, _ = albums
    with visited(browser, f"{address}/?q=in:%222020+Norway%22") as page:
        page.wait_for_selector(".tile img")
        page.wait_for_selector(CHIP)
        yield page


def query(page) -> str:
    return page.evaluate("new URLSearchParams(location.search).get('q')")


def test_the_numbers_of_suggestions_follow_the_chips(album):
    """And choosing one leaves the chips as they are."""
    type_in(album, "iph")
    count = album.locator(OPTION, has_text="iPhone 12").locator(".suggestion-count").inner_text()
    album.locator(OPTION, has_text="iPhone 12").click()
    album.wait_for_url("**camera%3A**")
    assert query(album) == 'in:"2020 Norway" camera:"iPhone 12"'
    assert album.locator(CHIP).count() == 2
    album.wait_for_function(
        "count => document.getElementById('status').textContent.startsWith(`${count} `)", arg=count
    )
    album.fill(BOX, "")
    with album.expect_response(lambda response: asks_for(response.url) == "famil"):
        album.keyboard.type("famil")
    album.wait_for_selector(OPEN, state="hidden")


def test_the_pictures_are_no_part_of_the_tools(page):
    parents = page.evaluate(
        "['.tools', 'main'].map(name => document.querySelector(name).parentElement.tagName)"
    )
    assert parents == ["BODY", "BODY"]


def test_the_line_of_no_likely_matches_covers_nothing(browser, albums):
    """Its words take two lines on a phone."""
    address, _ = albums
    with visited(browser, f"{address}/?q=dog", **NARROW) as page:
        page.wait_for_selector(".tile img")
        overlaps = page.evaluate(
            """() => [...document.querySelectorAll(".grid-line span")].filter((span) =>
                span.getBoundingClientRect().top <
                document.getElementById("status").getBoundingClientRect().bottom).length"""
        )
        assert page.locator(".grid-line").count() and not overlaps
