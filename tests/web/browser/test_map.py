"""The map in Chromium: laid out at the first visit, moved, searched, selected from, and reached."""

import json
import re
import struct
from contextlib import contextmanager

import numpy as np
import pytest

from browsing import answer, violations, visited

pytest.importorskip("sklearn", reason="a map needs fovea[map]")

NARROW = {"viewport": {"width": 320, "height": 640}, "has_touch": True, "is_mobile": True}
SIDE, MARGIN = 65_535, 0.92  # of points; of the stage that the whole map takes
POINTS = """() => fetch("/api/map/points").then((found) => found.arrayBuffer())
    .then((buffer) => [...new Uint8Array(buffer)])"""


@contextmanager
def charted(browser, address, path="/map", **options):
    """The page with the map, once that is there."""
    with visited(browser, address + path, **({"reduced_motion": "reduce"} | options)) as page:
        page.wait_for_selector(".map[data-points]")
        page.wait_for_selector(".map-state", state="hidden")
        yield page


@pytest.fixture
def chart(browser, gallery):
    with charted(browser, gallery) as page:
        yield page


def spots(page):
    """Where on the screen each picture lies while the whole map is shown, by its id."""
    data = bytes(page.evaluate(POINTS))
    [count] = struct.unpack("<I", data[4:8])
    ids = np.frombuffer(data, "<u4", count, 8)
    places = np.frombuffer(data, "<u2", 2 * count, 8 + 8 * count).reshape(2, count).T / SIDE
    box = page.locator(".map-over").bounding_box()
    side = min(box["width"], box["height"]) * MARGIN
    middle = [box["x"] + box["width"] / 2, box["y"] + box["height"] / 2]
    return dict(zip(ids.tolist(), ((places - 0.5) * side + middle).tolist(), strict=True))


def lonely(found):
    """The picture furthest from all others, and its place on the screen."""
    places = np.array(list(found.values()))
    away = np.hypot(*(places[:, None] - places[None]).transpose(2, 0, 1))
    np.fill_diagonal(away, np.inf)
    at = int(away.min(axis=1).argmax())
    return list(found)[at], places[at]


def test_the_first_visit_lays_the_map_out(chart):
    count = answer(chart, "/api/search?q=&limit=1")["total"]
    assert chart.get_attribute(".map", "data-points") == str(count)
    assert f"Map of {count} pictures" == chart.get_attribute(".map-over", "aria-label")
    assert chart.title() == "Map – fovea"


def test_a_picture_on_the_map_opens_and_leads_to_those_around_it(chart):
    image, (x, y) = lonely(spots(chart))
    chart.mouse.click(x, y)
    chart.wait_for_selector("#detail[data-state=ready]")
    assert chart.evaluate("location.pathname + location.hash") == f"/map#image-{image}"
    chart.keyboard.press("ArrowRight")
    chart.wait_for_function(f"() => location.hash !== '#image-{image}'")
    assert re.fullmatch(r"#image-\d+", chart.evaluate("location.hash"))
    chart.keyboard.press("Escape")
    chart.wait_for_function("() => location.hash === ''")
    assert not chart.locator("#detail").is_visible()


def clusters(page):
    return page.locator(".map-cluster")


def test_clusters_are_links_that_lead_to_their_pictures(chart):
    found = answer(chart, "/api/map")["clusters"]
    coarse = [one for one in found if one["level"] == 0]
    assert clusters(chart).count() == len(coarse) > 1
    clusters(chart).first.focus()
    chart.keyboard.press("Enter")
    chart.wait_for_selector(".map-pictures a")
    assert chart.evaluate("location.hash") == f"#cluster-{coarse[0]['id']}"
    assert chart.evaluate("document.activeElement.id") == "map-panel-title"
    links = chart.locator(".map-pictures a")
    assert links.count() == min(60, coarse[0]["count"])
    assert links.first.locator("img").get_attribute("alt")
    links.first.focus()
    chart.keyboard.press("Enter")
    chart.wait_for_selector("#detail[data-state=ready]")
    position = chart.locator("#detail [data-part=position]").text_content()
    assert position == f"1 of {links.count()}"
    chart.keyboard.press("Escape")
    chart.wait_for_function(f"() => location.hash === '#cluster-{coarse[0]['id']}'")
    chart.go_back()
    chart.wait_for_function("() => location.hash === ''")
    assert clusters(chart).count() == len(coarse)
    assert chart.locator("#map-panel-title").text_content() == "Clusters"


def test_an_address_names_a_cluster(browser, gallery):
    with charted(browser, gallery, "/map#cluster-1") as page:
        page.wait_for_selector(".map-pictures a")
        page.click("[data-part=up]")
        page.wait_for_function("() => location.hash === ''")
        assert page.locator(".map-pictures a").count() == 0


def selected(page):
    return int(page.locator("#selection [data-part=count]").text_content().split()[0])


def drag(page, *places):
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=4)
    page.mouse.up()


def around(places, margin=25):
    low, high = np.min(places, axis=0) - margin, np.max(places, axis=0) + margin
    return [(low[0], low[1]), (high[0], low[1]), (high[0], high[1]), (low[0], high[1])]


def test_drawing_around_pictures_selects_them(chart):
    found = spots(chart)
    chart.keyboard.down("Shift")
    drag(chart, *around(list(found.values())))
    chart.keyboard.up("Shift")
    chart.wait_for_selector("#selection:not([hidden])")
    assert selected(chart) == len(found)
    image, place = lonely(found)
    chart.click("[data-action=lasso]")
    assert chart.get_attribute("[data-action=lasso]", "aria-pressed") == "true"
    chart.keyboard.down("Alt")
    drag(chart, *around([place], 5))
    chart.keyboard.up("Alt")
    assert selected(chart) == len(found) - 1
    chart.mouse.click(*place)  # one picture, while the lasso is on
    assert selected(chart) == len(found)
    chart.click("[data-action=lasso]")
    with chart.expect_download() as coming:
        chart.click("#selection [data-action=more]") if chart.locator(
            "#selection [data-action=more]"
        ).is_visible() else None
        chart.click("#selection [data-action=json]")
    exported = json.loads(coming.value.path().read_text("utf-8"))
    assert {one["image_id"] for one in exported} == set(found)
    chart.keyboard.press("Escape")
    assert chart.locator("#selection").is_hidden()


def test_a_cluster_can_be_selected_whole(chart):
    clusters(chart).nth(1).click()
    chart.click("[data-action=select-cluster]")
    chart.wait_for_selector("#selection:not([hidden])")
    coarse = [one for one in answer(chart, "/api/map")["clusters"] if one["level"] == 0]
    assert selected(chart) == coarse[1]["count"]


def test_a_search_marks_what_it_finds(chart):
    name = answer(chart, "/api/search?q=&limit=1")["hits"][0]["name"]
    chart.fill("input[name=q]", f"name:{name}")
    chart.wait_for_function(
        "() => /^1 \\/ |^0 \\/ /.test(document.querySelector('.map-cluster-count').textContent)"
    )
    counts = [
        text.split(" / ")[0] for text in chart.locator(".map-cluster-count").all_text_contents()
    ]
    assert sorted(map(int, counts))[-2:] == [0, 1]
    chart.keyboard.press("Enter")
    assert "/map?q=name" in chart.url
    found = spots(chart)
    chart.keyboard.down("Shift")
    drag(chart, *around(list(found.values())))
    chart.keyboard.up("Shift")
    chart.wait_for_selector("#selection:not([hidden])")
    assert selected(chart) == 1, "what is not found is not selected"
    chart.click("#other-view")
    chart.wait_for_selector(".tile img")
    assert re.search(r"/\?q=name", chart.url)
    assert chart.locator(".tile").count() == 1
    chart.click("#other-view")
    chart.wait_for_selector(".map[data-points]")
    assert "/map?q=name" in chart.url


def test_keys_move_the_map_and_say_where_it_is(chart):
    chart.focus(".map-over")
    said = chart.locator(".map [data-part=said]")
    chart.keyboard.press("+")
    chart.wait_for_function("() => document.querySelector('.map [data-part=said]').textContent")
    for _ in range(12):
        chart.keyboard.press("ArrowLeft")
    assert said.text_content() == "No pictures here"
    chart.keyboard.press("0")
    for _ in range(4):
        chart.keyboard.press("+")
    chart.keyboard.press("x")
    chart.wait_for_selector("#selection:not([hidden])")
    assert selected(chart) == 1
    chart.keyboard.press("Enter")
    chart.wait_for_selector("#detail[data-state=ready]")
    assert chart.get_attribute("#detail [data-part=select]", "aria-checked") == "true"
    chart.keyboard.press("Escape")


def test_buttons_and_the_wheel_zoom(chart):
    image, (x, y) = lonely(spots(chart))
    chart.mouse.move(x, y)
    for _ in range(8):
        chart.mouse.wheel(0, -400)  # what is under the pointer stays there
    chart.mouse.click(x, y)
    chart.wait_for_selector("#detail[data-state=ready]")
    assert chart.evaluate("location.hash") == f"#image-{image}"
    chart.keyboard.press("Escape")
    chart.click("[data-action=in]")
    chart.click("[data-action=out]")
    chart.click("[data-action=whole]")
    chart.wait_for_timeout(100)
    chart.mouse.click(x, y)
    chart.wait_for_function(f"() => location.hash === '#image-{image}'")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(browser, gallery, scheme):
    with charted(browser, gallery, color_scheme=scheme) as page:
        assert violations(page) == []
        clusters(page).first.click()
        page.wait_for_selector(".map-pictures img")
        assert violations(page) == []


@pytest.mark.parametrize("locale", ["en-GB", "zh-CN"])
def test_a_phone_shows_everything_without_scrolling_sideways(browser, gallery, locale):
    with charted(browser, gallery, locale=locale, **NARROW) as page:
        assert page.evaluate("document.scrollingElement.scrollWidth") <= 320
        top = page.locator("#language").bounding_box()["y"]
        assert abs(top - page.locator("#open-help").bounding_box()["y"]) < 8, "one row of buttons"
        title = {"en-GB": "Clusters", "zh-CN": "分组"}[locale]
        assert page.locator("#map-panel-title").text_content() == title
        assert violations(page) == []
        image, (x, y) = lonely(spots(page))
        page.touchscreen.tap(x, y)
        page.wait_for_selector("#detail[data-state=ready]")


def stated(page, gallery, **members):
    """Visit a map that is in another state."""
    state = answer(page, "/api/map") | {"state": "none", "clusters": [], "points": None} | members
    page.route("**/api/map", lambda route: route.fulfill(json=state))
    page.goto(f"{gallery}/map")
    page.wait_for_selector(".map-state:not([hidden])")
    return page.locator(".map-state")


def test_without_scikit_learn_the_page_says_what_to_install(browser, gallery):
    with visited(browser, gallery) as page:
        shown = stated(page, gallery, installed=False, advice="…")
        page.wait_for_function("() => document.querySelector('.map-state-title').textContent")
        assert 'pip install "fovea[map]"' in shown.text_content()
        assert not page.locator("[data-part=try]").is_visible()


def test_progress_and_failures_are_shown(browser, gallery):
    build = {"state": "running", "step": "placing", "done": 40, "total": 80, "message": None}
    with visited(browser, gallery) as page:
        shown = stated(page, gallery, build=build)
        page.wait_for_function("() => document.querySelector('.map-state progress').value === 0.5")
        assert "Placing pictures: 40 of 80" in shown.text_content()
        assert violations(page) == []
        page.unroute("**/api/map")
        stated(page, gallery, build=build | {"state": "failed", "message": "the disk is full"})
        page.wait_for_selector("[data-part=try]:not([hidden])")
        assert "the disk is full" in shown.text_content()
