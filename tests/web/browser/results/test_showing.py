"""The slideshow, and what is printed."""

import re

import pytest

from browsing import answer, focused, open_first, shown, violations, visited
from fovea.web.views.pages import messages

TEXTS = messages("en")
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
SPOKEN = "#slideshow [data-part=spoken]"


def count(page):
    return answer(page, f"/api/search?{page.url.partition('?')[2]}")["total"]


def wait_for_slide(page, number):
    page.wait_for_function(
        "start => document.querySelector('#slideshow [data-part=caption]').textContent"
        ".startsWith(start)",
        arg=f"{number} of ",
    )
    page.wait_for_function("() => document.querySelectorAll('.slide:not(.is-gone)').length === 1")


def wait_for_words(page, key):
    page.wait_for_function(
        "text => document.querySelector('#slideshow [data-part=spoken]').textContent === text",
        arg=TEXTS[key],
    )


def press_until_slide(page, key, number):
    page.keyboard.press(key)
    wait_for_slide(page, number)


@pytest.fixture
def few(browser, gallery):
    """Some nine pictures by name."""
    with visited(browser, f"{gallery}/?q=name:p00*+sort:name", reduced_motion="reduce") as page:
        page.wait_for_selector(".tile img")
        yield page


def test_keys_start_steer_and_end_a_slideshow(few):
    few.focus(".tile[data-index='1'] .tile-open")
    few.keyboard.press("s")
    wait_for_slide(few, 2)
    assert few.evaluate("document.fullscreenElement === slideshow.firstElementChild")
    names = [hit["name"] for hit in answer(few, "/api/search?q=name:p00*+sort:name")["hits"]]
    assert few.get_attribute(".slide", "alt") == names[1]
    few.keyboard.press(" ")
    wait_for_words(few, "slideshow.paused")
    press_until_slide(few, "ArrowRight", 3)
    assert few.inner_text(SPOKEN) == f"{names[2]}, 3 of {len(names)}"
    press_until_slide(few, "ArrowLeft", 2)
    press_until_slide(few, "ArrowLeft", 1)
    few.keyboard.press("ArrowLeft")  # the first one stays
    few.keyboard.press("+")
    assert few.input_value("#slideshow [data-part=pace]") == "10"
    few.keyboard.press("-")
    few.keyboard.press("-")
    assert few.input_value("#slideshow [data-part=pace]") == "3"
    wait_for_slide(few, 1)
    press_until_slide(few, "ArrowRight", 2)
    press_until_slide(few, "ArrowRight", 3)
    few.keyboard.press("s")
    few.wait_for_selector("#slideshow", state="hidden")
    few.wait_for_function("() => document.activeElement.closest('.tile')?.dataset.index === '2'")
    assert not few.evaluate("document.fullscreenElement")


def test_pictures_follow_each_other_until_the_end_or_again(few):
    few.evaluate("localStorage.setItem('slideshow-pace', '3')")
    few.reload()
    few.wait_for_selector(".tile img")
    last = count(few)
    few.focus(f".tile[data-index='{last - 2}'] .tile-open")
    few.keyboard.press("s")
    wait_for_slide(few, last - 1)
    wait_for_slide(few, last)  # by itself
    wait_for_words(few, "slideshow.end")
    assert (
        few.get_attribute("#slideshow [data-part=toggle]", "aria-label")
        == (TEXTS["slideshow.play"])
    )
    few.keyboard.press("ArrowRight")
    wait_for_slide(few, last)
    few.keyboard.press("r")
    assert few.get_attribute("#slideshow [data-part=loop]", "aria-pressed") == "true"
    press_until_slide(few, "ArrowRight", 1)
    press_until_slide(few, "ArrowLeft", last)
    few.keyboard.press("r")
    press_until_slide(few, " ", 1)  # begins anew
    wait_for_slide(few, 2)


def test_the_picture_view_goes_on_where_the_slideshow_ends(few):
    open_first(few)
    first = few.inner_text("#detail-name")
    few.click("#detail [data-action=slideshow]")
    wait_for_slide(few, 1)
    press_until_slide(few, "ArrowRight", 2)
    press_until_slide(few, "ArrowRight", 3)
    few.click("#slideshow [data-action=close]")
    few.wait_for_selector("#slideshow", state="hidden")
    few.wait_for_function("() => history.state.index === 2")
    few.wait_for_selector("#detail[data-state=ready]")
    assert few.inner_text("#detail-name") != first
    assert int(few.url.rpartition("-")[2]) == shown(few)[2]
    few.go_back()
    few.wait_for_selector("#detail", state="hidden")


def test_going_back_ends_it(few):
    open_first(few)
    few.keyboard.press("s")
    wait_for_slide(few, 1)
    few.go_back()
    few.wait_for_selector("#slideshow", state="hidden")
    few.wait_for_selector("#detail", state="hidden")
    assert "#" not in few.url


def test_the_next_picture_is_loaded_while_one_is_shown(few):
    third = shown(few)[2]
    few.focus(".tile[data-index='1'] .tile-open")
    with few.expect_request(re.compile(f"/api/images/{third}/(original|preview)")):
        few.keyboard.press("s")
    assert few.inner_text("#slideshow [data-part=caption]")[:1] in ("", "2")


def test_a_file_out_of_reach_is_its_thumbnail_or_its_name(few):
    few.watch.expected.append("Failed to load resource")
    few.route(re.compile("/(original|preview)$"), lambda route: route.abort())
    few.focus(".tile[data-index='0'] .tile-open")
    few.keyboard.press("s")
    wait_for_slide(few, 1)
    assert "thumbnail" in few.get_attribute(".slide", "src")
    few.route(re.compile("size=512$"), lambda route: route.abort())
    few.keyboard.press("ArrowRight")
    press_until_slide(few, "ArrowRight", 3)
    assert few.eval_on_selector(".slide:not(.is-gone)", "one => one.tagName") == "P"
    assert few.inner_text(".slide:not(.is-gone)").endswith(".jpg")


def test_without_pictures_or_while_somebody_types_none_begins(browser, gallery):
    with visited(browser, f"{gallery}/?q=name:nothing-is-called-so") as page:
        page.wait_for_selector("#empty:not([hidden])")
        assert page.locator("#open-slideshow").is_hidden()
        page.evaluate("document.activeElement.blur()")
        page.keyboard.press("s")
        page.click("#filters [type=reset]")
        page.wait_for_selector(".tile img")
        page.locator("#open-slideshow").wait_for()
        page.focus("input[name=q]")
        page.keyboard.press("s")
        assert page.input_value("input[name=q]") == "s"
        assert page.locator("#slideshow").is_hidden()


@pytest.mark.parametrize("motion", ["reduce", "no-preference"])
def test_pictures_fade_only_where_motion_is_welcome(browser, gallery, motion):
    with visited(browser, gallery, reduced_motion=motion) as page:
        page.wait_for_selector(".tile img")
        page.click("#open-slideshow")
        page.wait_for_selector("img.slide")
        style = page.eval_on_selector(".slide", "one => getComputedStyle(one).animationName")
        assert style == ("none" if motion == "reduce" else "slide-in")


def test_fingers_steer_and_end_it(browser, gallery):
    with visited(browser, gallery, **PHONE) as page:
        page.wait_for_selector(".tile img")
        page.tap("#open-slideshow")
        wait_for_slide(page, 1)
        page.tap("#slideshow [data-action=toggle]")
        wait_for_words(page, "slideshow.paused")
        assert violations(page) == []
        swipe(page, (300, 300), (80, 310))
        wait_for_slide(page, 2)
        swipe(page, (80, 300), (300, 310))
        wait_for_slide(page, 1)
        swipe(page, (200, 200), (205, 420))
        page.wait_for_selector("#slideshow", state="hidden")


def swipe(page, start, end):
    session = page.context.new_cdp_session(page)
    for kind, place in (("touchStart", start), ("touchMove", end), ("touchEnd", None)):
        points = [{"x": place[0], "y": place[1]}] if place else []
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_in_a_slideshow(browser, gallery, scheme):
    options = {"color_scheme": scheme, "reduced_motion": "reduce", "locale": "zh-CN"}
    with visited(browser, gallery, **options) as page:
        page.wait_for_selector(".tile img")
        page.keyboard.press("Escape")
        page.click("#open-slideshow")
        page.wait_for_selector("img.slide")
        assert violations(page) == []


def test_the_focus_stays_in_a_slideshow(few):
    few.keyboard.press("s") if focused(few) >= 0 else few.click("#open-slideshow")
    few.wait_for_selector("img.slide")
    for _ in range(10):
        few.keyboard.press("Tab")
        assert few.evaluate("!!document.activeElement.closest('#slideshow, body')")
        assert not few.evaluate("!!document.activeElement.closest('#grid, .top')")


# Print

SEEN = """() => [...document.querySelectorAll("body *")]
    .filter((one) => one.checkVisibility() && one.getBoundingClientRect().height > 0)
    .filter((one) => one.matches("button, input, select, a, dialog, figure, h1, img"))
    .map((one) => one.tagName)"""


def printed(page):
    """What is seen on paper: the tags of elements, in the order of the page."""
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    found = page.evaluate(SEEN)
    assert page.pdf()[:5] == b"%PDF-"
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    page.emulate_media(media="screen")
    assert page.locator("#sheet").count() == 0
    return found


def wait_for_thumbnails(page):
    page.wait_for_function(
        "() => [...document.querySelectorAll('.tile img')].every((one) => one.complete)"
    )


def test_pictures_and_captions_are_printed_and_nothing_else(few):
    wait_for_thumbnails(few)
    total = count(few)
    assert printed(few) == ["H1", *["FIGURE", "IMG"] * total]
    few.evaluate("dispatchEvent(new Event('beforeprint'))")
    captions = few.locator("figcaption").all_text_contents()
    names = [hit["name"] for hit in answer(few, "/api/search?q=name:p00*+sort:name")["hits"]]
    assert [text[: len(name)] for text, name in zip(captions, names, strict=True)] == names


def test_the_picture_in_the_view_is_printed_alone(few):
    open_first(few)
    few.wait_for_selector(".detail-picture.is-sharp")
    assert printed(few) == ["FIGURE", "IMG"]
    few.keyboard.press("Escape")
    few.wait_for_selector("#detail", state="hidden")
    wait_for_thumbnails(few)
    assert len(printed(few)) > 2


def test_the_keys_to_print_wait_for_every_loaded_picture(browser, gallery):
    with visited(browser, gallery) as page:
        page.wait_for_selector(".tile img")
        script = """() => { window.print = () => {
            const pictures = [...document.querySelectorAll("#sheet img")];
            window.printed = pictures.map((one) => one.complete && one.naturalWidth > 0);
        }; }"""
        page.evaluate(script)
        wait_for_thumbnails(page)
        tiles = page.locator(".tile").count()
        page.keyboard.press("Control+p")
        page.wait_for_function("() => window.printed")
        found = page.evaluate("window.printed")
        assert all(found) and len(found) >= tiles
        page.evaluate("dispatchEvent(new Event('afterprint'))")
        assert page.locator("#sheet").count() == 0
