"""The terms of a query as chips."""

import pytest

from browsing import visited


@pytest.fixture
def page(browser, gallery):
    with visited(browser, f"{gallery}/?q=red+%2Bsnow+-rain") as page:
        page.wait_for_selector(".chip")
        yield page


def focused(page) -> list:
    """The index of the chip that has the focus, and the control."""
    return page.evaluate(
        """() => {
            const { activeElement } = document;
            const chip = activeElement.closest(".chip");
            return [[...document.querySelectorAll(".chip")].indexOf(chip), activeElement.className];
        }"""
    )


def test_the_focus_stays_where_a_chip_is_changed(page):
    page.focus(".chip:nth-child(2) .chip-sign")
    page.keyboard.press("Enter")
    page.wait_for_selector(".chip.is-negative:nth-child(2)")
    assert focused(page) == [1, "chip-sign"]
    page.focus(".chip:nth-child(3) .chip-weight")
    page.select_option(".chip:nth-child(3) .chip-weight", "2")
    page.wait_for_url("**2%3Arain*")
    assert focused(page) == [2, "chip-weight"]


def test_the_focus_goes_on_from_a_chip_that_is_removed(page):
    page.focus(".chip:nth-child(3) .chip-remove")
    page.keyboard.press("Enter")
    page.wait_for_selector(".chip:nth-child(3)", state="detached")
    assert focused(page) == [1, "chip-remove"]
    page.keyboard.press("Enter")  # the one word that is left needs no chip
    page.wait_for_selector("#chips", state="hidden")
    assert page.evaluate("document.activeElement.name") == "q"
