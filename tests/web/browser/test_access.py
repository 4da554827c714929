"""Can everyone use the page: axe-core, both schemes, narrow screens, Chinese, the focus, motion."""

import re

import pytest

from browsing import answer, press, violations, visited

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
NARROW = PHONE | {"viewport": {"width": 320, "height": 640}}
CUT_OFF = """() => [...document.querySelectorAll("dialog[open] *, .tools *, .selection *")]
    .filter((one) => one.clientWidth && getComputedStyle(one).overflow === "visible")
    .filter((one) => one.scrollWidth > one.clientWidth + 1
        || one.getBoundingClientRect().right > innerWidth)
    .map((one) => one.outerHTML.slice(0, 100))"""
VIEWS = ("results", "browse", "detail", "selection", "library", "help", "filters", "problem")


def show(page, view):
    """Bring the page to one of its views, and wait until it is there."""
    if view in ("results", "problem"):
        page.fill("input[name=q]", "a keyboard" if view == "results" else "size:>tall")
        page.wait_for_url("**q=*")
        page.wait_for_selector(
            "#problem:not([hidden])" if view == "problem" else ".tile-badge", state="attached"
        )
        page.wait_for_timeout(300)
    elif view == "detail":
        page.click(".tile[data-index='1'] .tile-open")
        page.wait_for_selector("#detail[data-state=ready]")
        if page.locator("[data-part=info]").is_hidden():
            page.click("[data-action=info]")
    elif view == "selection":
        page.focus(".tile[data-index='1'] .tile-open")
        page.keyboard.press("x")
        page.wait_for_selector("#selection:not([hidden])")
    elif view == "library":
        page.click("#open-library")
        page.wait_for_selector(".root")
    elif view == "help":
        page.evaluate("document.activeElement.blur()")
        page.keyboard.press("?")
        page.wait_for_selector("#help[open]")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(browser, gallery, scheme):
    for view in VIEWS:
        options = {"color_scheme": scheme, "reduced_motion": "reduce"}
        with visited(browser, gallery, **options) as page:
            page.watch.expected.append("400")  # a query that is none
            page.wait_for_selector(".tile img")
            show(page, view)
            assert violations(page) == [], view


@pytest.mark.parametrize("view", ["results", "detail", "selection", "library", "help"])
def test_a_phone_shows_everything_without_scrolling_sideways(browser, gallery, view):
    with visited(browser, gallery, reduced_motion="reduce", **NARROW) as page:
        page.wait_for_selector(".tile img")
        show(page, view)
        width = page.evaluate("document.scrollingElement.scrollWidth")
        assert width <= NARROW["viewport"]["width"]
        assert page.evaluate(CUT_OFF) == []
        assert violations(page) == []


def test_a_phone_folds_the_filters_away_behind_a_button(browser, gallery):
    with visited(browser, gallery, reduced_motion="reduce", **PHONE) as page:
        page.wait_for_selector(".tile img")
        assert page.locator("#filters").is_hidden()
        page.click("#show-filters")
        assert page.get_attribute("#show-filters", "aria-expanded") == "true"
        page.select_option("#filters [name=shape]", "square")
        page.wait_for_function(
            "() => /[(]1[)]/.test(document.getElementById('show-filters').textContent)"
        )
        assert page.evaluate("document.scrollingElement.scrollWidth") <= PHONE["viewport"]["width"]
        assert page.evaluate("filters.scrollWidth <= filters.clientWidth")
        assert violations(page) == []


def test_a_finger_walks_along_the_pictures(browser, gallery):
    with visited(browser, gallery, **PHONE) as page:
        page.wait_for_selector(".tile img")
        page.click(".tile[data-index='0'] .tile-open")
        page.wait_for_selector("#detail[data-state=ready]")
        swipe(page, (300, 400), (90, 410))
        page.wait_for_function("() => history.state.index === 1")
        swipe(page, (90, 400), (300, 410))
        page.wait_for_function("() => history.state.index === 0")
        swipe(page, (200, 200), (205, 420))
        page.wait_for_selector("#detail", state="hidden")


def swipe(page, start, end):
    session = page.context.new_cdp_session(page)

    def touch(kind, *points):
        named = [{"x": x, "y": y, "id": place} for place, (x, y) in enumerate(points)]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": named})

    halfway = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2)
    touch("touchStart", start)
    touch("touchMove", halfway)
    touch("touchMove", end)
    touch("touchEnd")


def test_a_long_press_chooses_a_picture_and_opens_none(browser, gallery):
    with visited(browser, gallery, **PHONE) as page:
        page.wait_for_selector(".tile img")
        opacity = "element => getComputedStyle(element).opacity"
        assert page.eval_on_selector(".tile-check", opacity) == "0"
        press(page, ".tile[data-index='0']", 700)
        page.wait_for_selector(".tile[data-index='0'].is-selected")
        assert page.eval_on_selector(".tile[data-index='1'] .tile-check", opacity) == "1"
        press(page, ".tile[data-index='1'] .tile-check", 50)
        page.wait_for_selector(".tile[data-index='1'].is-selected")
        assert page.locator("#detail").is_hidden()
        page.click("#selection [data-action=clear]")
        press(page, ".tile[data-index='1'] .tile-check", 50)  # what is not seen is not pressed
        page.wait_for_selector("#detail[data-state=ready]")


def test_two_fingers_zoom(browser, gallery):
    with visited(browser, gallery, **PHONE) as page:
        page.wait_for_selector(".tile img")
        page.click(".tile[data-index='0'] .tile-open")
        page.wait_for_selector("#detail[data-state=ready]")
        session = page.context.new_cdp_session(page)
        for kind, apart in [("touchStart", 40), ("touchMove", 80), ("touchMove", 150)]:
            fingers = [{"x": 195 - apart, "y": 400, "id": 0}, {"x": 195 + apart, "y": 400, "id": 1}]
            session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": fingers})
        session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        page.wait_for_selector(".detail-stage.is-zoomed")


def test_the_language_of_the_browser_decides(browser, gallery):
    with visited(browser, gallery, locale="zh-CN") as page:
        page.wait_for_selector(".tile img")
        assert page.get_attribute("html", "lang").lower().startswith("zh")
        for view in ("detail", "help"):
            show(page, view)
            text = page.inner_text("dialog[open]")
            assert re.search("[\u4e00-\u9fff]", text)
            assert not re.search(r"\b[a-z]+\.[a-z]+_[a-z]+\b", text), "a key without a text"
            if view == "detail":
                shown = page.locator("[data-part=labels] a").all_inner_texts()
                assert shown and all(re.search("[\u4e00-\u9fff]", label) for label in shown)
            page.keyboard.press("Escape")
            page.wait_for_selector("dialog[open]", state="hidden")


def test_what_is_wrong_is_said_in_the_language_of_the_page(browser, gallery):
    with visited(browser, gallery, locale="zh-CN") as page:
        page.watch.expected.append("status of 4")
        page.wait_for_selector(".tile img")
        show(page, "problem")
        page.wait_for_selector("#problem:not([hidden])")
        said = "'>tall' 不是大小；请写成 >10MP、<=2MP、>5MB 或 <500kB 这样"
        assert said in page.inner_text("#problem")
        page.reload()  # drawn with the page itself
        assert said in page.inner_text("#problem")
        show(page, "library")
        page.fill("#add-path", "/no/such/folder")
        page.keyboard.press("Enter")
        page.wait_for_selector("#add-problem:not(:empty)")
        assert page.inner_text("#add-problem") == "文件夹 /no/such/folder 不存在"


def test_every_control_has_a_name_and_a_visible_focus(browser, gallery):
    with visited(browser, gallery, reduced_motion="reduce") as page:
        page.wait_for_selector(".tile img")
        for _ in range(12):
            page.keyboard.press("Tab")
            plain = page.evaluate(
                """() => {
                    const { activeElement } = document;
                    if (activeElement.type === "date") return null; // its parts show their own
                    const around = [activeElement, activeElement.parentElement];
                    const styles = around.map((element) => getComputedStyle(element));
                    const ringed = styles.some(
                        (style) => style.outlineStyle !== "none" || style.boxShadow !== "none");
                    return ringed ? null : activeElement.outerHTML;
                }"""
            )
            assert plain is None


def test_nothing_moves_where_motion_is_unwelcome(browser, gallery):
    with visited(browser, gallery, reduced_motion="reduce") as page:
        page.wait_for_selector(".tile img")
        for view in ("selection", "detail"):
            show(page, view)
        moving = "document.getAnimations().filter(a => a.effect.getTiming().duration > 0).length"
        assert page.evaluate(moving) == 0


def test_the_results_are_counted_for_who_cannot_see_them(browser, gallery):
    with visited(browser, gallery) as page:
        page.wait_for_selector(".tile img")
        total = answer(page, "/api/search?q=")["total"]
        live = "[role=status], [aria-live=polite]"
        page.wait_for_function(
            "([live, total]) => [...document.querySelectorAll(live)].some("
            "(region) => region.textContent.includes(total))",
            arg=[live, str(total)],
        )
