import pytest

from browsing import BOX, answer, focused, names, open_first, shown, visited, wait_for_first


def test_pictures_beyond_the_window_wait_for_those_in_it_and_for_a_search(browser, gallery):
    with visited(browser, "about:blank") as page:
        page.watch.expected.append("FAILED")
        held = []
        page.route("**/thumbnail?*", lambda route: held.append(route))
        page.goto(gallery, wait_until="commit")
        page.wait_for_selector(".tile")
        page.wait_for_timeout(1000)
        lowest = "Math.max(...[...document.querySelectorAll('.tile')].map(tile => tile.offsetTop +"
        lowest += " tile.getBoundingClientRect().top))"
        assert page.evaluate(lowest) < 800 + 200
        first = len(held)
        for route in held[:first]:
            route.continue_()
        page.wait_for_function(f"() => {lowest} > 1400")
        searches = []
        page.route("**/api/search?*", lambda route: searches.append(route))
        page.keyboard.insert_text("red")  # at once: letters typed slowly are several searches
        page.wait_for_function("() => document.querySelector('.tile img:not([src])')")
        while not searches:
            page.wait_for_timeout(50)
        searches[0].abort()
        page.wait_for_selector("#problem:not([hidden])")
        assert page.locator(".tile img:not([src])").count() == 0


def test_who_types_is_not_interrupted(page):
    page.watch.expected.append("400")
    page.keyboard.type("size:")
    with page.expect_response("**/api/search?q=size*"):
        pass
    page.wait_for_timeout(300)
    assert page.is_hidden("#problem")
    page.keyboard.type(">1MP", delay=50)
    page.wait_for_url("**1MP")
    page.wait_for_timeout(1000)
    assert page.is_hidden("#problem")
    page.fill(BOX, "size:")
    page.wait_for_selector("#problem:not([hidden])")
    assert page.locator("#grid.is-stale").count() == 1
    page.fill(BOX, "")
    page.wait_for_selector("#problem", state="hidden")
    assert page.locator("#grid.is-stale").count() == 0
    page.fill(BOX, "is:")
    page.keyboard.press("Enter")  # it is meant as it stands
    page.wait_for_selector("#problem:not([hidden])", timeout=5000)


def test_a_menu_chooses_the_order(page):
    usual = page.locator("[name=sort] option").first
    assert usual.inner_text() == "Newest first"
    page.fill(BOX, "red")
    page.wait_for_selector(".tile-badge", state="attached")
    assert usual.inner_text() == "Best match"
    page.select_option("[name=sort]", "name")
    page.wait_for_url("**sort%3Aname")
    assert page.input_value(BOX) == "red"
    expected = [hit["image_id"] for hit in answer(page, "/api/search?q=red sort:name")["hits"]]
    wait_for_first(page, expected[0])
    assert shown(page)[:10] == expected[:10]
    page.select_option("[name=sort]", "")
    page.wait_for_url("**q=red")
    page.fill(BOX, "sort:date red")
    page.wait_for_function("() => document.querySelector('[name=sort]').value === 'date'")


def test_paths_are_copied(browser, gallery):
    allowed = ["clipboard-read", "clipboard-write"]
    with visited(browser, gallery, permissions=allowed) as page:
        page.wait_for_selector(".tile img")
        open_first(page)
        page.keyboard.press("c")
        page.wait_for_selector(".toast:not(:empty)")
        expected = answer(page, f"/api/images/{shown(page)[0]}")["path"]
        assert page.evaluate("navigator.clipboard.readText()") == expected


def test_the_name_leads_to_the_whole_library(page):
    page.fill(BOX, "name:p021.jpg")
    wait_for_first(page, names(page)["p021.jpg"])
    page.click(".brand a")
    page.wait_for_url(lambda url: "q=" not in url)
    page.wait_for_function("() => document.querySelectorAll('.tile').length > 5")
    assert page.input_value(BOX) == ""


def test_a_link_behind_the_box_skips_to_the_results(page):
    hits = answer(page, "/api/search?q=horse %2Bstripes -people")["hits"]
    page.fill(BOX, "horse +stripes -people")
    page.wait_for_selector(".chip >> nth=2")
    wait_for_first(page, hits[0]["image_id"])  # the focus stays on a picture that moves
    page.focus(BOX)
    page.keyboard.press("Tab")  # to the choice of a picture
    page.keyboard.press("Tab")  # to the star
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getBoundingClientRect().top") >= 0
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert focused(page) == 0
    assert page.input_value(BOX) == "horse +stripes -people"


def test_a_picture_without_a_thumbnail_shows_its_name(browser, gallery):
    with visited(browser, "about:blank") as page:
        page.watch.expected.append("thumbnail")
        page.route("**/thumbnail?*", lambda route: route.abort())
        page.goto(f"{gallery}/?q=name:p021.jpg")
        page.wait_for_selector(".tile-name")
        assert page.inner_text(".tile-name") == "p021.jpg"
        assert page.locator(".tile img").count() == 0
        open_first(page)
        page.wait_for_selector(".detail-small[hidden]", state="attached")


@pytest.mark.parametrize(("density", "size"), [(1, "256"), (2, "512")])
def test_thumbnails_are_as_large_as_the_screen_needs(browser, gallery, density, size):
    with visited(browser, f"{gallery}/?q=is:landscape", device_scale_factor=density) as page:
        page.wait_for_selector(".tile img")
        page.wait_for_function("() => document.querySelector('.tile img').currentSrc")
        asked = page.eval_on_selector_all(
            ".tile img",
            "pictures => pictures.map(({ currentSrc }) => currentSrc).filter(Boolean)"
            ".map((address) => new URL(address).searchParams.get('size'))",
        )
        assert set(asked) == {size}


@pytest.mark.parametrize("wide", [391, 1000, 1277])
def test_tiles_lie_on_whole_pixels_and_fill_their_rows(browser, gallery, wide):
    with visited(browser, gallery, viewport={"width": wide, "height": 800}) as page:
        page.wait_for_selector(".tile img")
        width = page.evaluate("document.querySelector('#grid').clientWidth")
        places = page.eval_on_selector_all(
            ".tile",
            """tiles => tiles.map((tile) => {
                const [left, top] = tile.style.transform.match(/[-0-9.]+/g).map(Number);
                const { width, height } = tile.style;
                return [top, left, parseFloat(width), parseFloat(height)];
            })""",
        )
        assert all(number == int(number) for place in places for number in place)
        ends = {}
        for top, left, wide, _ in sorted(places):
            assert top not in ends or left == ends[top] + 6
            ends[top] = left + wide
        assert all(end == width for end in list(ends.values())[:-1])


def test_help_opens_and_closes_by_keys(page):
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("?")
    page.wait_for_selector("#help[open]")
    page.keyboard.press("Escape")
    page.wait_for_selector("#help", state="hidden")


def test_the_page_answers_without_scripts(browser, gallery):
    with visited(browser, f"{gallery}/?q=name:p021.jpg", java_script_enabled=False) as page:
        assert page.locator("img[alt*='p021']").count() >= 1
