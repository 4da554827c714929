"""The terms of a query as chips."""

import pytest

from browsing import names, visited


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


def test_a_sign_tells_whether_it_is_pressed(page):
    signs = [page.locator(f".chip:nth-child({place}) .chip-sign") for place in (2, 3)]
    assert [sign.get_attribute("aria-pressed") for sign in signs] == ["false", "true"]
    assert [sign.get_attribute("aria-label") for sign in signs] == ["Less of snow", "Less of rain"]


def test_a_picture_of_the_library_is_called_by_its_name(browser, gallery):
    with visited(browser, gallery) as page:
        page.wait_for_selector(".tile")
        wanted = names(page)["p021.jpg"]
        page.goto(f"{gallery}/?q=like:{wanted}")
        page.wait_for_selector(".chip")
        assert page.inner_text(".chip-name") == "p021.jpg"
        page.goto(f"{gallery}/?q=like:{wanted}+name:p052.jpg")  # it is not among the hits
        page.wait_for_selector(".chip")
        assert page.inner_text(".chip-name") == f"picture {wanted}"
