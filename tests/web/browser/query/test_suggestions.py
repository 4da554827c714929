"""Suggestions under the search box: a list that nobody has to use, by keys, mouse and touch."""

import json
import re

import pytest

from browsing import asks_for, type_in, violations, visited
from places import PHOTOS

BOX = "input[name=q]"
OPEN = "#suggestions:not([hidden])"
OPTION = "#suggestions [role=option]"
NARROW = {"viewport": {"width": 320, "height": 640}, "has_touch": True, "is_mobile": True}
FOLDER = PHOTOS.name


def query(page) -> str:
    return page.evaluate("new URLSearchParams(location.search).get('q')")


def state(page) -> dict:
    """What the box tells assistive technology."""
    return page.evaluate(
        """() => {
            const box = document.querySelector("input[name=q]");
            const active = document.getElementById(box.getAttribute("aria-activedescendant"));
            return {
                expanded: box.getAttribute("aria-expanded"),
                active: active?.querySelector(".suggestion-label").textContent ?? null,
                selected: document.querySelectorAll("#suggestions [aria-selected=true]").length,
                value: box.value,
                focused: document.activeElement === box,
            };
        }"""
    )


def test_the_box_is_a_combobox_with_nothing_chosen_beforehand(page):
    assert state(page)["expanded"] == "false"
    type_in(page, "p00")
    assert state(page) == {
        "expanded": "true", "active": None, "selected": 0, "value": "p00", "focused": True
    }  # fmt: skip
    assert page.get_attribute(BOX, "aria-controls") == "suggestions-list"
    first = page.locator(OPTION).first
    assert first.locator(".suggestion-kind").inner_text() == "File"
    assert first.locator(".suggestion-label").inner_html() == "<mark>p00</mark>*"
    assert page.inner_text("#suggestions-said").endswith("suggestions")
    page.keyboard.press("Enter")
    page.wait_for_selector("#suggestions", state="hidden")
    page.wait_for_url("**q=p00")
    assert state(page)["value"] == "p00"


def test_arrows_and_enter_choose(page):
    type_in(page, FOLDER[:4])
    page.keyboard.press("ArrowUp")
    last = state(page)["active"]
    page.keyboard.press("ArrowDown")
    assert state(page)["active"] is None, "the box itself is one of the places"
    page.keyboard.press("ArrowDown")
    first = page.locator(OPTION).first
    found = state(page)
    assert found["active"] == first.locator(".suggestion-label").inner_text() == FOLDER
    assert last and found["selected"] == 1 and found["focused"]
    count = first.locator(".suggestion-count").inner_text()
    page.keyboard.press("Enter")
    page.wait_for_function("() => new URLSearchParams(location.search).get('q')?.includes('in:')")
    page.wait_for_selector("#suggestions", state="hidden")
    page.wait_for_function(
        f"() => document.getElementById('status').textContent.startsWith('{count} ')"
    )
    assert query(page) == f"in:{FOLDER}"
    assert state(page)["focused"]


def test_tab_chooses_what_is_pointed_at_and_otherwise_goes_on(page):
    type_in(page, f"dog {FOLDER[:5]}")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Tab")
    page.wait_for_function("() => new URLSearchParams(location.search).get('q')?.includes('in:')")
    assert query(page) == f"dog in:{FOLDER}"
    assert state(page)["focused"]
    type_in(page, "p00")
    page.keyboard.press("Tab")
    page.wait_for_selector("#suggestions", state="hidden")
    assert not state(page)["focused"]
    assert state(page)["value"] == "p00"


def test_escape_closes_the_list_and_keeps_the_text(page):
    type_in(page, "p00")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Escape")
    page.wait_for_selector("#suggestions", state="hidden")
    assert state(page)["value"] == "p00" and state(page)["expanded"] == "false"
    page.keyboard.press("Alt+ArrowDown")
    page.wait_for_selector(OPEN)
    page.keyboard.press("Alt+ArrowUp")
    page.wait_for_selector("#suggestions", state="hidden")
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.closest('.tile') !== null"), "to the pictures"


def test_a_click_chooses(page):
    type_in(page, "p00")
    page.locator(OPTION).nth(1).click()
    page.wait_for_function("() => new URLSearchParams(location.search).get('q')?.includes('name:')")
    assert re.fullmatch(r"name:p00\d\.(jpg|png)", query(page))


def test_the_name_of_a_filter_is_completed_and_its_values_follow(page):
    before = page.url
    type_in(page, "form")
    with page.expect_response(lambda response: asks_for(response.url) == "format:"):
        page.locator(OPTION, has_text="format:").click()
    page.wait_for_selector(f"{OPTION}:has-text('JPEG')")
    assert state(page)["value"] == "format:" and state(page)["focused"]
    assert "format" not in page.url.removeprefix(before), "nothing is searched for yet"
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_function("() => new URLSearchParams(location.search).get('q') === 'format:jpeg'")


def test_late_answers_are_dropped_and_old_lists_cannot_be_chosen(page):
    """The answer to "p" comes after that to "p00"; meanwhile nothing of it can be chosen."""
    slow = []

    def answer(route):
        if asks_for(route.request.url) == "p00":
            slow.append(route)
        else:
            route.continue_()

    page.route("**/api/suggest?*", answer)
    type_in(page, "p01")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Backspace")
    page.keyboard.type("1")
    assert state(page)["active"] is None
    page.keyboard.press("Backspace")
    page.keyboard.press("Backspace")
    page.keyboard.type("00")
    page.wait_for_timeout(150)  # it is asked for
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_function("() => new URLSearchParams(location.search).get('q') === 'p00'")
    for route in slow:
        route.continue_()
    page.wait_for_timeout(300)
    assert page.is_hidden("#suggestions"), "Enter has searched; a late answer changes nothing"
    assert state(page)["value"] == "p00"


def test_unfinished_characters_of_an_input_method_are_left_alone(page):
    asked = []
    page.on("request", lambda request: asked.append(asks_for(request.url)))
    page.fill(BOX, "")
    page.focus(BOX)
    page.wait_for_timeout(300)
    asked.clear()
    session = page.context.new_cdp_session(page)
    for text in ("j", "ju", "ju n"):
        session.send(
            "Input.imeSetComposition",
            {"text": text, "selectionStart": len(text), "selectionEnd": len(text)},
        )
        page.wait_for_timeout(150)
    assert state(page)["value"] == "ju n"
    assert [text for text in asked if text] == []
    with page.expect_response(lambda response: asks_for(response.url) == "去年"):
        session.send("Input.insertText", {"text": "去年"})
    assert state(page)["value"] == "去年"


def test_recent_queries_are_kept_by_the_browser_alone_and_can_be_cleared(page):
    page.fill(BOX, "sunset")
    page.keyboard.press("Enter")
    page.wait_for_url("**q=sunset")
    page.wait_for_function("() => localStorage.length > 0")
    page.goto(page.url.partition("?")[0])
    page.wait_for_selector(".tile")
    page.click(BOX)
    page.wait_for_selector(OPEN)
    recent = page.locator(OPTION).first
    assert recent.inner_text().split("\n") == ["Recent", "sunset"]
    recent.click()
    page.wait_for_url("**q=sunset")
    page.fill(BOX, "")
    page.focus(BOX)
    page.wait_for_timeout(300)
    page.click(BOX)
    page.wait_for_selector(OPEN)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.dataset.part") == "clear"
    page.keyboard.press("Enter")
    page.wait_for_function("() => localStorage.length === 0")
    page.wait_for_selector("#suggestions", state="hidden")
    assert state(page)["focused"]


def test_few_recent_queries_are_kept(page):
    page.evaluate(
        """() => {
            const known = Array.from({ length: 50 }, (_, number) => `dog ${number}`);
            localStorage.setItem("fovea.recent", JSON.stringify(known));
        }"""
    )
    page.fill(BOX, "is:portrait")
    page.keyboard.press("Enter")
    page.wait_for_function("() => JSON.parse(localStorage['fovea.recent'])[0] === 'is:portrait'")
    assert page.evaluate("JSON.parse(localStorage['fovea.recent']).length") == 20
    page.evaluate("localStorage.setItem('fovea.recent', '{broken')")
    type_in(page, "p00")
    assert page.locator(OPTION).count() >= 1


def test_hostile_labels_are_text(page):
    label = "<img src=x onerror=alert(1)>\u202egnp.exe"
    hostile = {
        "kind": "folder", "label": label, "detail": "<b>x</b>", "count": 1, "words": "",
        "filter": "in:x", "matched": [[0, 4], [2, 99]],
    }  # fmt: skip
    body = json.dumps({"suggestions": [hostile]})
    page.route(
        "**/api/suggest?*", lambda route: route.fulfill(body=body, content_type="application/json")
    )
    type_in(page, "img")
    shown = page.inner_text(".suggestion-label")
    assert shown == label.replace("\u202e", "\\u202e")
    assert page.locator("#suggestions img, #suggestions b").count() == 0


@pytest.mark.parametrize("language", ["en", "zh-Hans"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_in_the_list(browser, gallery, scheme, language):
    options = {"color_scheme": scheme, "reduced_motion": "reduce"}
    with visited(browser, f"{gallery}/?lang={language}", **options) as page:
        page.wait_for_selector(".tile img")
        for text in ("p00", "form", FOLDER[:4]):
            type_in(page, text)
            page.keyboard.press("ArrowDown")
            assert violations(page) == [], text
        page.fill(BOX, "海滩上的狗")
        page.keyboard.press("Enter")
        page.wait_for_selector("#hint:not([hidden])")
        assert violations(page) == []


def test_a_narrow_phone_shows_the_list_and_a_tap_chooses(browser, gallery):
    with visited(browser, gallery, reduced_motion="reduce", **NARROW) as page:
        page.wait_for_selector(".tile img")
        type_in(page, "p00")
        assert page.evaluate("document.scrollingElement.scrollWidth") <= 320
        for place in range(page.locator(OPTION).count()):
            box = page.locator(OPTION).nth(place).bounding_box()
            assert box["x"] >= 0 and box["x"] + box["width"] <= 320 and box["height"] >= 44
        assert violations(page) == []
        page.locator(OPTION).nth(1).tap()
        page.wait_for_function(
            "() => new URLSearchParams(location.search).get('q')?.includes('name:')"
        )


def test_a_language_that_the_model_does_not_read_is_told_in_one_quiet_line(browser, gallery):
    with visited(browser, f"{gallery}/?lang=zh-Hans&q=海滩上的狗") as page:
        page.wait_for_selector("#hint:not([hidden])")
        assert "fovea-small" in page.inner_text("#hint") and "中文" in page.inner_text("#hint")
    with visited(browser, f"{gallery}/?q=ein+hund+am+strand") as page:
        page.wait_for_selector("#hint:not([hidden])")
        assert "does not read German" in page.inner_text("#hint")
        assert "fovea models use" in page.inner_text("#hint code")
        for text in ("a dog on a beach", "name:海滩", ""):
            page.fill(BOX, text)
            page.keyboard.press("Enter")
            page.wait_for_selector("#hint", state="hidden")
