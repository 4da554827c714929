"""Selecting pictures: ranges, days, all of an answer, by keys, pointer and fingers."""

from contextlib import contextmanager

import pytest

from browsing import (
    answer,
    focused,
    invented,
    press,
    served,
    shown,
    violations,
    visited,
    wait_for_first,
)
from coloured import COLOURS, encoded
from fovea.search.library.library import Library
from fovea.search.library.rows import ImageMetadata

MANY = 1200  # pictures; a page of an answer has 100
DAY = 700  # of one day, the newest
PHONE = {"viewport": {"width": 375, "height": 740}, "has_touch": True, "is_mobile": True}
NARROW = PHONE | {"viewport": {"width": 320, "height": 640}}
COUNT = "#selection [data-part=count]"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The folder of a library of many pictures, most of them of a few days; few have files."""
    place = tmp_path_factory.mktemp("selection")
    (place / "pictures").mkdir()

    def described(number):
        name = f"{number:05}.png"
        if number >= MANY - 12:
            colour = [*COLOURS][number % len(COLOURS)]
            (place / "pictures" / name).write_bytes(encoded(colour, number))
        day = 28 if number >= MANY - DAY else 1 + number % 3
        taken = f"2024-05-{day:02}T10:00:{number % 60:02}"
        return name, ImageMetadata(400, 300 if number % 3 else 1000, "PNG", taken_at=taken)

    invented(place, MANY, described)
    return place


@pytest.fixture(scope="module")
def many(place):
    with served(place / "library") as address:
        yield address


@pytest.fixture
def page(browser, many, place):
    """The page of a library without marks."""
    with Library.open(place / "library") as library, library.transaction() as conn:
        conn.execute("DELETE FROM marks")
    with opened(browser, many) as page:
        yield page


@contextmanager
def opened(browser, address, **options):
    """A page whose thumbnails are not loaded: there is nothing to make them of."""
    with visited(browser, "about:blank", **options) as page:
        page.watch.expected += ["thumbnail", "410"]  # most files are gone
        page.route("**/thumbnail?*", lambda route: route.abort())
        page.goto(address)
        page.wait_for_selector(".tile")
        yield page


def tile(index, part=""):
    return f".tile[data-index='{index}'] {part}".strip()


def selected(page):
    tiles = "tiles => tiles.map((tile) => +tile.dataset.index)"
    return sorted(page.eval_on_selector_all(".tile.is-selected", tiles))


def wait_for_count(page, count):
    text = f"{count:,} selected"
    page.wait_for_function(
        "([where, text]) => document.querySelector(where).textContent === text", arg=[COUNT, text]
    )


def choose(page, index):
    page.focus(tile(index, ".tile-open"))
    page.keyboard.press("x")


def favourites(page):
    return answer(page, "/api/search?q=is:favourite")["total"]


# Ranges


def test_a_range_by_keys_grows_and_shrinks_to_both_sides_of_its_anchor(page):
    page.focus(tile(3, ".tile-open"))
    for key, wanted in [
        ("ArrowRight", [3, 4]), ("ArrowRight", [3, 4, 5]), ("ArrowLeft", [3, 4]),
        ("ArrowLeft", [3]), ("ArrowLeft", [2, 3]), ("ArrowRight", [3]),
    ]:  # fmt: skip
        page.keyboard.press(f"Shift+{key}")
        wait_for_count(page, len(wanted))
        assert selected(page) == wanted
    assert focused(page) == 3
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowRight")  # another range, from where the focus is
    wait_for_count(page, 3)
    assert selected(page) == [3, 5, 6]


def test_a_range_by_clicks_shrinks_and_gives_back_what_was_chosen_before(page):
    choose(page, 5)
    page.click(tile(1, ".tile-check"))
    page.click(tile(6), modifiers=["Shift"])
    wait_for_count(page, 6)
    page.click(tile(3), modifiers=["Shift"])
    wait_for_count(page, 4)
    assert selected(page) == [1, 2, 3, 5]
    page.click(tile(0), modifiers=["Shift"])
    wait_for_count(page, 3)
    assert selected(page) == [0, 1, 5]
    assert page.locator("#detail").is_hidden()


# All


def test_select_all_means_all_and_not_what_is_loaded(page):
    choose(page, 0)
    assert page.inner_text("#selection [data-action=all]") == f"Select all {MANY:,}"
    page.click("#selection [data-action=all]")
    wait_for_count(page, MANY)
    assert page.inner_text("#selection-said") == f"{MANY:,} selected"
    assert page.is_hidden("#selection [data-action=all]")
    assert len(selected(page)) == page.locator(".tile").count()
    page.click(tile(2, ".tile-check"))  # an exception
    wait_for_count(page, MANY - 1)
    left_out = shown(page)[2]
    page.click("#selection [data-action=favourite]")
    page.wait_for_selector(".toast:has-text('1,199 pictures added to the favourites')")
    assert favourites(page) == MANY - 1
    assert answer(page, f"/api/images/{left_out}")["favourite"] is False
    assert page.get_attribute(tile(0, ".tile-heart"), "aria-pressed") == "true"
    page.click(".toast-action")
    page.wait_for_function(
        "() => fetch('/api/search?q=is:favourite').then((found) => found.json())"
        ".then((found) => found.total === 0)"
    )
    assert violations(page) == []


def test_all_are_hidden_and_brought_back(page):
    first = shown(page)[0]
    page.focus(tile(0, ".tile-open"))
    page.keyboard.press("Control+a")
    wait_for_count(page, MANY)
    page.click(tile(0, ".tile-check"))
    page.click("#selection [data-action=hide]")
    page.wait_for_selector(".toast:has-text('1,199 pictures hidden')")
    page.wait_for_function("() => document.querySelectorAll('.tile').length === 1")
    assert shown(page) == [first] and page.is_hidden("#selection")
    page.wait_for_function("() => document.getElementById('status').textContent === '1 picture'")
    page.click(".toast-action")
    page.wait_for_function("n => document.querySelectorAll('.tile').length > n", arg=20)
    assert answer(page, "/api/search?q=")["total"] == MANY


def test_what_is_done_is_done_to_what_the_query_finds_then(page, place):
    choose(page, 0)
    page.keyboard.press("Control+a")
    wait_for_count(page, MANY)
    gone = shown(page)[3]
    page.evaluate("id => fetch(`/api/images/${id}/hidden`, { method: 'PUT' })", gone)
    page.wait_for_function(
        "n => fetch('/api/search?q=').then((found) => found.json()).then((a) => a.total === n)",
        arg=MANY - 1,
    )
    page.click("#selection [data-action=favourite]")
    page.wait_for_selector(".toast:has-text('1,199 pictures added to the favourites')")


def test_all_of_an_answer_stay_selected_when_another_search_follows(page):
    page.focus(tile(0, ".tile-open"))
    page.keyboard.press("Control+a")
    page.click(tile(1, ".tile-check"))
    wait_for_count(page, MANY - 1)
    left_out = shown(page)[1]
    page.fill("input[name=q]", "on:2024-05-28")
    page.wait_for_function(
        "n => document.getElementById('status').textContent.startsWith(n)", arg=str(DAY)
    )
    page.wait_for_selector(".tile.is-selected")  # once the server has listed them
    assert len(selected(page)) == page.locator(".tile").count() - 1
    assert page.locator(f".tile[data-image-id='{left_out}']:not(.is-selected)").count() == 1
    page.click(f".tile[data-image-id='{left_out}'] .tile-check")
    wait_for_count(page, MANY)
    page.click("#selection [data-action=favourite]")
    page.wait_for_selector(".toast:has-text('1,200 pictures added')")


def test_escape_clears_and_keys_reach_all_from_the_bar(page):
    choose(page, 0)
    page.focus("#selection [data-action=favourite]")
    page.keyboard.press("Control+a")
    wait_for_count(page, MANY)
    page.keyboard.press("Escape")
    page.wait_for_selector("#selection", state="hidden")
    assert selected(page) == [] and page.inner_text("#selection-said") == "0 selected"


# Days


def test_a_day_is_selected_whole_though_it_is_loaded_in_part(page):
    check = ".grid-day .day-check >> nth=0"
    assert page.get_attribute(check, "aria-label") == "Select May 28, 2024"
    page.hover(".grid-day >> nth=0")
    page.click(check)
    wait_for_count(page, DAY)
    page.wait_for_selector(".day-check[aria-checked=true]")
    page.click(tile(1, ".tile-check"))
    wait_for_count(page, DAY - 1)
    page.wait_for_selector(".day-check[aria-checked=mixed]")
    assert violations(page) == []
    page.focus(tile(4, ".tile-open"))
    page.keyboard.press("d")
    wait_for_count(page, DAY)
    page.keyboard.press("d")
    page.wait_for_selector("#selection", state="hidden")
    page.wait_for_selector(".day-check[aria-checked=false]")


def test_a_day_is_taken_out_of_all(page):
    page.focus(tile(0, ".tile-open"))
    page.keyboard.press("Control+a")
    page.keyboard.press("d")
    wait_for_count(page, MANY - DAY)


# Exports


def test_all_are_exported_and_their_size_is_told_before(page):
    choose(page, 0)
    page.click("#selection [data-action=all]")
    page.click(tile(0, ".tile-check"))
    wait_for_count(page, MANY - 1)
    with page.expect_download() as expected:
        page.click("#selection [data-action=csv]")
    assert len(expected.value.path().read_text().splitlines()) == MANY
    page.click("#selection [data-action=zip]")
    page.wait_for_selector("#download[open]")
    assert (
        page.inner_text("#download [data-part=size]")
        == "1,199 pictures, 1.2\u00a0GB, in a zip file."
    )
    assert violations(page) == []
    page.keyboard.press("Escape")
    page.wait_for_selector("#download", state="hidden")
    assert page.is_visible("#selection")
    page.click("#selection [data-action=zip]")
    with page.expect_download() as expected:
        page.click("#download [data-action=start]")
    assert expected.value.suggested_filename.endswith(".zip")
    expected.value.cancel()


def test_paths_that_the_page_does_not_have_are_copied(browser, many):
    with opened(browser, many, permissions=["clipboard-read", "clipboard-write"]) as page:
        choose(page, 0)
        page.click("#selection [data-action=all]")
        page.click("#selection [data-action=copy-paths]")
        page.wait_for_selector(".toast:has-text('Paths copied: 1,200')")
        lines = page.evaluate("navigator.clipboard.readText()").split("\n")
        assert len(lines) == MANY and all(line.endswith(".png") for line in lines)


def test_a_refusal_is_told_and_nothing_leaves_the_page(page):
    page.watch.expected.append("503")
    choose(page, 0)
    page.click("#selection [data-action=all]")
    page.route("**/api/selections", lambda route: route.fulfill(status=503, body="{}"))
    page.click("#selection [data-action=json]")
    page.wait_for_selector(".toast.is-error:not(:empty)")
    assert page.locator(".tile").count() > 0


# A library that has changed, other searches


def test_a_search_by_a_picture_is_selected_by_its_answer(page, tmp_path):
    file = tmp_path / "red.png"
    file.write_bytes(encoded("red", 7))
    page.set_input_files("#picture-file", file)
    page.wait_for_selector(".chip-picture")
    page.wait_for_function("() => !document.querySelector('.grid-day')")
    choose(page, 0)
    page.click("#selection [data-action=all]")
    wait_for_count(page, MANY)
    page.click("#selection [data-action=favourite]")
    page.wait_for_selector(".toast:has-text('1,200 pictures added')")


@pytest.mark.parametrize("likely", [5, 600])  # among the loaded ones, and beyond
def test_the_likely_ones_are_offered_where_there_is_a_line(browser, many, likely):
    ids, asked = [], []

    def drawn(route):
        response = route.fetch()
        found = response.json() | {"likely": likely}
        route.fulfill(response=response, json=found)

    def listed(route):
        asked.append(route.request.post_data_json)
        route.fulfill(json={"count": likely, "bytes": 0, "ids": ids[:likely]})

    with opened(browser, many) as page:
        page.route("**/api/search?q=red*", drawn)
        page.route("**/api/selections", listed)
        page.fill("input[name=q]", "red")
        page.wait_for_function(
            "n => document.getElementById('status').textContent.includes(n)", arg=str(likely)
        )
        ids += [hit["image_id"] for hit in answer(page, "/api/search?q=red&limit=200")["hits"]]
        ids += range(10**6, 10**6 + 400)  # of hits that are not in the page
        choose(page, 7)
        button = page.locator("#selection [data-action=likely]")
        assert button.inner_text() == f"Select the {likely} likely"
        button.click()
        wait_for_count(page, likely)
        assert button.is_hidden() and selected(page)[:5] == [0, 1, 2, 3, 4]
        assert page.locator(".tile[data-index='5'].is-selected").count() == (likely > 5)
        assert asked == ([] if likely == 5 else [{"query": "red", "likely_only": True}])
        page.click("#selection [data-action=all]")
        wait_for_count(page, MANY)
        assert button.is_visible()


# Fingers


def test_a_tap_toggles_once_one_is_chosen(browser, many):
    with opened(browser, many, **PHONE) as page:
        press(page, tile(0), 700)
        wait_for_count(page, 1)
        page.tap(tile(2))
        page.tap(tile(3))
        wait_for_count(page, 3)
        page.tap(tile(2))
        wait_for_count(page, 2)
        assert selected(page) == [0, 3] and page.locator("#detail").is_hidden()
        page.tap(tile(0))
        page.tap(tile(3))
        page.wait_for_selector("#selection", state="hidden")
        page.tap(tile(3))
        page.wait_for_selector("#detail[open]")


def test_a_mouse_beside_a_finger_opens_pictures(page):
    choose(page, 0)
    page.click(tile(2, ".tile-open"), position={"x": 60, "y": 60})
    page.wait_for_selector("#detail[open]")


def test_hearts_are_put_by_fingers(browser, many, place):
    with Library.open(place / "library") as library, library.transaction() as conn:
        conn.execute("DELETE FROM marks")
    with opened(browser, many, **PHONE) as page:
        wide = page.evaluate(
            "() => [...document.querySelectorAll('.tile')]"
            ".find((tile) => tile.offsetWidth > 100).dataset.index"
        )
        heart = tile(wide, ".tile-heart")
        assert page.locator(heart).bounding_box()["width"] >= 44
        page.tap(heart)
        page.wait_for_selector(f"{heart}[aria-pressed=true]")
        assert page.locator("#detail").is_hidden()
        page.tap(heart)
        page.wait_for_selector(f"{heart}[aria-pressed=false]")


INSIDE = """() => [...document.querySelectorAll(".tile")].flatMap((tile) => {
    const around = tile.getBoundingClientRect();
    return [...tile.querySelectorAll("button, .tile-badge")]
        .filter((one) => one.checkVisibility({ opacityProperty: true }))
        .filter((one) => {
            const box = one.getBoundingClientRect();
            return box.left < around.left - 1 || box.right > around.right + 1
                || one.scrollWidth > one.clientWidth + 1;
        })
        .map((one) => one.outerHTML);
})"""


@pytest.mark.parametrize("options", [NARROW, {"viewport": {"width": 320, "height": 640}}])
def test_nothing_on_a_narrow_tile_is_cut_or_beside_it(browser, gallery, options):
    with visited(browser, f"{gallery}/?q=a+keyboard", **options) as page:
        page.wait_for_selector(".tile")
        for index in range(4):
            page.hover(tile(index))
            assert page.evaluate(INSIDE) == []
        assert page.evaluate("document.scrollingElement.scrollWidth") <= 320


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("locale", ["en", "zh-CN"])
def test_a_phone_reaches_every_action(browser, many, scheme, locale):
    options = {"color_scheme": scheme, "locale": locale, "reduced_motion": "reduce"}
    with opened(browser, many, **(NARROW | options)) as page:
        press(page, tile(0), 700)
        page.wait_for_selector("#selection:not([hidden])")
        assert page.is_hidden("#selection [data-action=csv]")
        page.tap("#selection [data-action=more]")
        assert page.get_attribute("#selection [data-action=more]", "aria-expanded") == "true"
        buttons = "#selection button:not([hidden])"
        boxes = [one.bounding_box() for one in page.locator(buttons).all()]
        assert len(boxes) == 10 and None not in boxes
        assert all(box["x"] >= 0 and box["x"] + box["width"] <= 320 for box in boxes)
        assert all(box["height"] >= 44 for box in boxes)
        count = page.locator(COUNT).bounding_box()
        for name in ("all", "clear"):  # beside the number, in one line
            part = page.locator(f"#selection [data-action={name}]").bounding_box()
            assert part["y"] < count["y"] + count["height"] and part["x"] > count["x"]
        assert violations(page) == []
        page.keyboard.press("Escape")  # closes the menu alone
        assert page.is_hidden("#selection [data-action=csv]") and page.is_visible("#selection")
        page.tap("#selection [data-action=all]")
        page.tap("#selection [data-action=favourite]")
        toast = page.wait_for_selector(".toast .toast-action").bounding_box()
        bar = page.locator("#selection").bounding_box()
        assert toast["y"] + toast["height"] <= bar["y"]


def test_the_bar_is_never_over_the_last_row(browser, gallery):
    with visited(browser, gallery, **PHONE) as page:
        page.wait_for_selector(".tile img")
        press(page, tile(0), 700)
        page.wait_for_selector("#selection:not([hidden])")
        total = answer(page, "/api/search?q=")["total"]
        last = tile(total - 1)
        page.wait_for_function(
            """last => { scrollTo(0, document.documentElement.scrollHeight);
                return document.querySelector(last)
                    && scrollY + innerHeight >= document.documentElement.scrollHeight - 1; }""",
            arg=last,
        )
        end = page.locator(last).bounding_box()
        assert end["y"] + end["height"] <= page.locator("#selection").bounding_box()["y"]


def test_an_unselected_picture_carries_an_empty_ring(page):
    tick = "check => getComputedStyle(check, '::after').visibility"
    choose(page, 0)
    assert page.eval_on_selector(tile(0, ".tile-check"), tick) == "visible"
    assert page.eval_on_selector(tile(2, ".tile-check"), tick) == "hidden"
    page.hover(tile(2, ".tile-check"))
    assert page.eval_on_selector(tile(2, ".tile-check"), tick) == "visible"


def test_a_refresh_keeps_all_selected(page):
    choose(page, 0)
    page.keyboard.press("Control+a")
    wait_for_count(page, MANY)
    first, second = shown(page)[:2]
    page.evaluate("id => fetch(`/api/images/${id}/hidden`, { method: 'PUT' })", first)
    wait_for_first(page, second)
    page.wait_for_selector(f".tile[data-image-id='{first}']", state="detached")
    wait_for_count(page, MANY - 1)


def test_a_mark_that_every_tile_would_carry_waits_for_the_pointer(browser, many):
    with opened(browser, f"{many}/?q=png", viewport={"width": 1280, "height": 800}) as page:
        assert sum(hit["by_name"] for hit in answer(page, "/api/search?q=png")["hits"]) > 6
        wide = page.evaluate(
            "() => [...document.querySelectorAll('.tile:has(.is-by-name)')]"
            ".find((tile) => tile.offsetWidth > 200).dataset.index"
        )
        opacity = "badge => getComputedStyle(badge).opacity"
        assert page.eval_on_selector(tile(wide, ".is-by-name"), opacity) == "0"
        page.hover(tile(wide))
        assert page.eval_on_selector(tile(wide, ".is-by-name"), opacity) == "1"
