"""Years and months at the edge of a long list: any of them is near, and little is in the page."""

import pytest

from browsing import answer, focused, looking, shown, violations
from fovea.search.library.library import Library

YEARS = range(2015, 2025)
MANY = 40 * 12 * len(YEARS)
MOST = 400  # tiles: some windows full of them
SLIDER = "[data-part=slider]"
IN_VIEW = """() => [...document.querySelectorAll(".tile")].map((tile) => ({
        index: +tile.dataset.index, id: +tile.dataset.imageId,
        top: tile.getBoundingClientRect().top,
    })).filter(({ top }) => top > 60 && top < innerHeight)
    .sort((one, other) => one.index - other.index)"""
HEADINGS = """() => [...document.querySelectorAll(".grid-day")]
    .map((day) => [day.getBoundingClientRect().top, day.textContent])
    .filter(([top]) => top > 40 && top < innerHeight).sort(([one], [other]) => one - other)
    .map(([, text]) => text)"""
GRID = "import(document.querySelector('script[type=module]').src.replace('main.js', '{}'))"


@pytest.fixture
def page(browser, years):
    with looking(browser, years) as page:
        page.wait_for_selector(".timeline.is-ready")
        yield page


def wait_for_view(page, test, arg=None):
    """Wait until the first picture of the window is so."""
    page.wait_for_function(f"arg => (({test})(({IN_VIEW})()[0] ?? {{}}, arg))", arg=arg)


def wait_for_focus(page, index):
    page.wait_for_function(
        "index => +document.activeElement.closest('.tile')?.dataset.index === index", arg=index
    )


def wait_for_year(page, year):
    """Wait until the window begins with pictures of a year; those before it may share the row."""
    page.wait_for_function(
        f"year => ({HEADINGS})().slice(0, 4).some((day) => day.endsWith(year)) && "
        f"({IN_VIEW})().length > 3",
        arg=str(year),
    )


def order(page, query=""):
    """All ids of an answer, as the server has them."""
    found = []
    while len(found) < MANY:
        document = answer(page, f"/api/search?q={query}&limit=200&offset={len(found)}")
        found += [hit["image_id"] for hit in document["hits"]]
        if not document["hits"]:
            break
    return found


def fits(page, ids):
    """Whether all tiles show the pictures that stand at their places."""
    tiles = "tiles => tiles.map((tile) => [+tile.dataset.index, +tile.dataset.imageId])"
    return all(ids[index] == key for index, key in page.eval_on_selector_all(".tile", tiles))


def test_the_page_has_its_whole_height_and_few_tiles(page):
    tall = page.evaluate("document.documentElement.scrollHeight")
    assert MANY * 20 < tall < MANY * 200
    assert int(page.get_attribute(SLIDER, "aria-valuemax")) == 12 * len(YEARS) - 1
    ids = order(page)
    for part in (0.5, 0.95, 0.2, 1):
        page.evaluate(
            "part => scrollTo(0, part * (document.documentElement.scrollHeight - innerHeight))",
            part,
        )
        wait_for_view(page, f"(one, part) => Math.abs(one.index / {MANY} - part) < 0.05", part)
        assert page.locator(".tile").count() < MOST and fits(page, ids)
        now = page.evaluate("document.documentElement.scrollHeight")
        assert abs(now - tall) < 0.1 * tall
    assert page.evaluate(f"Math.max(...({IN_VIEW})().map((one) => one.index))") == MANY - 1


def test_few_hits_are_kept(page):
    for part in range(30):
        page.evaluate("y => scrollTo(0, y * document.documentElement.scrollHeight)", part / 30)
        wait_for_view(page, f"(one, part) => Math.abs(one.index / {MANY} - part) < 0.06", part / 30)
    kept = page.evaluate(
        f"""async () => {{
            const grid = await {GRID.format("results/grid.js")};
            let kept = 0;
            for (let place = 0; place < grid.count(); place += 1) kept += grid.hitAt(place) ? 1 : 0;
            return kept;
        }}"""
    )
    assert 0 < kept < 43 * 62


def test_dragging_leads_to_the_month_in_the_bubble(page):
    box = page.locator(SLIDER).bounding_box()
    x = box["x"] + box["width"] / 2
    page.mouse.move(x, box["y"] + 14)
    assert page.inner_text("[data-part=bubble]") == "December 2024"
    page.mouse.down()
    page.mouse.move(x, box["y"] + box["height"] * 0.4, steps=5)
    month = page.inner_text("[data-part=bubble]")
    assert page.get_attribute(SLIDER, "aria-valuetext") == f"{month}, 40 pictures"
    page.mouse.up()
    name, year = month.split()
    assert 2018 <= int(year) <= 2021
    page.wait_for_function(
        f"([name, year]) => ({HEADINGS})().some((day) => day.includes(name) && day.includes(year))",
        arg=[name[:3], year],
    )
    page.mouse.move(600, 400)
    assert page.is_hidden("[data-part=bubble]")
    assert page.get_attribute(SLIDER, "aria-valuetext") == f"{month}, 40 pictures"


def test_years_are_named_at_the_edge_and_months_marked_between_them(page):
    marks = page.eval_on_selector_all(
        "[data-part=labels] > *",
        "marks => marks.map(({ className, textContent, style }) =>"
        " [parseInt(style.top), className, textContent])",
    )
    named = [text for _, kind, text in sorted(marks) if kind == "timeline-year"]
    assert named == [str(year) for year in reversed(YEARS)]
    kinds = [kind for _, kind, _ in sorted(marks)]
    places = [place for place, kind in enumerate(kinds) if kind == "timeline-year"]
    assert all(later - place > 2 for place, later in zip(places, places[1:], strict=False))
    tops = sorted(top for top, _, _ in marks)
    assert min(later - top for top, later in zip(tops, tops[1:], strict=False)) >= 7, "apart"
    assert len(marks) <= 12 * len(YEARS)


def test_keys_lead_to_months_and_years(page):
    page.focus(SLIDER)
    for key, month in (
        ("ArrowDown", "November 2024"),
        ("ArrowRight", "October 2024"),
        ("ArrowUp", "November 2024"),
        ("PageDown", "December 2023"),
        ("PageDown", "December 2022"),
        ("PageUp", "December 2023"),
        ("End", "January 2015"),
        ("Home", "December 2024"),
    ):
        page.keyboard.press(key)
        assert page.get_attribute(SLIDER, "aria-valuetext") == f"{month}, 40 pictures"
        name, year = month.split()
        page.wait_for_function(
            f"([name, year]) => ({HEADINGS})().slice(0, 5).some((day) => "
            "day.startsWith(name) && day.endsWith(year))",
            arg=[name[:3], year],
        )
    page.keyboard.type("2017")
    page.wait_for_function(f"() => ({HEADINGS})().includes('Dec 27, 2017')")
    assert page.get_attribute(SLIDER, "role") == "slider"


def test_a_menu_jumps_to_a_year(page):
    options = page.locator("#jump-year option").all_inner_texts()
    assert options == ["Jump to a year", *map(str, reversed(YEARS))]
    page.select_option("#jump-year", "2019")
    wait_for_year(page, 2019)
    place = page.evaluate(f"({IN_VIEW})()[0].index")
    assert place == answer(page, "/api/timeline?q=after:2019")["total"]


def test_the_view_stays_while_pictures_above_come_in(page):
    page.select_option("#jump-year", "2020")
    wait_for_year(page, 2020)
    page.wait_for_timeout(500)
    page.mouse.move(500, 500)
    for _ in range(8):
        before = page.evaluate(IN_VIEW)[0]
        page.mouse.wheel(0, -450)
        page.wait_for_function(
            """([index, top]) => {
                const tile = document.querySelector(`.tile[data-index="${index}"]`);
                return Math.abs(tile.getBoundingClientRect().top - top) <= 3;
            }""",
            arg=[before["index"], before["top"] + 450],
        )
        page.wait_for_timeout(150)
        tile = page.locator(f".tile[data-index='{before['index']}']")
        top = tile.evaluate("tile => tile.getBoundingClientRect().top")
        assert abs(top - before["top"] - 450) <= 3


def test_requests_for_places_that_were_passed_are_aborted(page):
    held, failed = [], []
    page.route("**/api/search?cursor=*", lambda route: held.append(route))
    page.on(
        "requestfailed", lambda request: "cursor=" in request.url and failed.append(request.url)
    )
    page.select_option("#jump-year", "2021")
    while not held:
        page.wait_for_timeout(20)
    first = held[0].request.url
    page.select_option("#jump-year", "2016")
    while first not in failed:
        page.wait_for_timeout(20)
    page.unroute("**/api/search?cursor=*")
    page.select_option("#jump-year", "2018")
    wait_for_year(page, 2018)


def test_what_cannot_be_loaded_is_said_and_tried_again(page):
    page.watch.expected += ["503", "500"]
    page.route(
        "**/api/search?cursor=*",
        lambda route: route.fulfill(status=503, json={"detail": "too busy"}),
    )
    page.select_option("#jump-year", "2017")
    page.wait_for_selector("#grid-trouble:not([hidden])")
    said = page.inner_text("#grid-trouble")
    assert said.startswith("More pictures could not be loaded") and "Try again" in said
    assert violations(page) == []
    page.unroute("**/api/search?cursor=*")
    page.click("#grid-trouble button")
    wait_for_year(page, 2017)
    assert page.is_hidden("#grid-trouble")


def test_an_answer_that_the_server_forgot_is_asked_for_again_at_its_place(page):
    page.watch.expected.append("410")
    gone = []

    def forget(route):
        gone.append(route)
        route.fulfill(status=410, json={"detail": "expired"}) if len(
            gone
        ) == 1 else route.continue_()

    page.route("**/api/search?cursor=*", forget)
    page.select_option("#jump-year", "2017")
    wait_for_year(page, 2017)
    assert page.is_hidden("#grid-trouble")


def test_the_detail_view_goes_on_where_nothing_was_loaded(page):
    ids = order(page)
    page.focus(".tile[data-index='0'] .tile-open")
    page.keyboard.press("End")
    wait_for_focus(page, MANY - 1)
    page.keyboard.press("Enter")
    page.watch.expected.append("/api/images/")
    page.wait_for_selector("#detail[open]")
    position = "#detail [data-part=position]"
    assert page.inner_text(position) == f"{MANY:,} of {MANY:,}"
    for step in range(1, 71):  # further than the block that was near
        page.keyboard.press("ArrowLeft")
        page.wait_for_function(
            "([at, text]) => document.querySelector(at).textContent === text",
            arg=[position, f"{MANY - step:,} of {MANY:,}"],
        )
    assert page.evaluate("location.hash") == f"#image-{ids[MANY - 71]}"
    page.keyboard.press("Escape")
    page.wait_for_selector("#detail", state="hidden")
    wait_for_focus(page, MANY - 71)
    page.keyboard.press("ArrowUp")
    assert focused(page) < MANY - 71
    page.keyboard.press("x")
    assert page.inner_text("#selection [data-part=count]") == "1 selected"


def test_hiding_deep_in_the_list_moves_the_others_up(page):
    ids = order(page)
    page.select_option("#jump-year", "2019")
    wait_for_year(page, 2019)
    page.wait_for_timeout(300)
    first = page.evaluate(IN_VIEW)[0]
    place = first["index"] + 1
    page.focus(f".tile[data-index='{place}'] .tile-open")
    page.keyboard.press("h")
    page.wait_for_selector(f".tile[data-image-id='{ids[place]}']", state="detached")
    left = ids[:place] + ids[place + 1 :]
    assert page.inner_text("#status") == f"{MANY - 1:,} pictures" and focused(page) == place
    now = page.evaluate(IN_VIEW)[0]
    assert (now["index"], now["id"]) == (first["index"], first["id"])
    assert abs(now["top"] - first["top"]) <= 3 and fits(page, left)
    page.select_option("#jump-year", "2016")
    wait_for_year(page, 2016)
    assert fits(page, left)
    page.keyboard.press("Control+z")
    page.wait_for_function(
        "text => document.querySelector('#status').textContent === text", arg=f"{MANY:,} pictures"
    )
    assert fits(page, ids)


def test_going_back_leads_to_the_same_pictures(page):
    page.select_option("#jump-year", "2018")
    wait_for_year(page, 2018)
    page.wait_for_function("() => history.state?.at?.place > 100")
    before = page.evaluate(IN_VIEW)[0]
    page.fill("input[name=q]", "on:2015")
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.querySelector('#status').textContent === '480 pictures'")
    page.go_back()
    wait_for_view(page, "(one, id) => one.id === id", before["id"])
    page.go_forward()
    page.wait_for_function("() => document.querySelector('#status').textContent === '480 pictures'")
    assert page.evaluate("scrollY") == 0


@pytest.mark.parametrize("query", ["", "sort:date", "on:2019 sort:date", "sort:date is:landscape"])
def test_days_stand_over_pictures_wherever_the_order_is_by_date(browser, years, query):
    with looking(browser, f"{years}/?q={query}") as page:
        page.wait_for_selector(".grid-day")
        assert "20" in page.inner_text(".grid-day >> nth=0")
        page.wait_for_selector(".timeline.is-ready")


def test_letters_stand_over_pictures_ordered_by_name(browser, years):
    with looking(browser, f"{years}/?q=sort:name name:0001") as page:
        assert page.locator(".grid-day").all_inner_texts() == ["A", "B", "C"]
        page.goto(f"{years}/?q=sort:name")
        page.wait_for_function(
            f"() => document.querySelector('#status').textContent[0] === '{MANY}'[0]"
        )
        page.evaluate("scrollTo(0, document.documentElement.scrollHeight / 2)")
        wait_for_view(page, "(one) => one.index > 1000")
        assert page.is_hidden("#timeline")


def test_a_short_list_and_a_search_have_no_timeline(page):
    page.fill("input[name=q]", "name:a0000")
    page.wait_for_selector("#timeline", state="hidden")
    page.fill("input[name=q]", "")
    page.wait_for_selector(".timeline.is-ready")
    page.fill("input[name=q]", "red")
    page.wait_for_selector("#timeline", state="hidden")
    assert page.is_hidden("#jump")


def test_what_others_remove_leaves_no_gap(page, library):
    ids = order(page)
    gone = ids[3000:3010]
    page.evaluate("scrollTo(0, 2000)")  # so that the page does not search again by itself
    with Library.open(library) as opened:
        rows = opened.rows("SELECT path, image_id FROM files")
        paths = [path for path, image_id in rows if image_id in gone]
        opened.mark_missing(paths)
    try:
        page.evaluate(f"scrollTo(0, 3005 / {MANY} * document.documentElement.scrollHeight)")
        wait_for_view(page, "(one) => one.index > 2900")
        page.wait_for_function(
            "text => document.querySelector('#status').textContent === text",
            arg=f"{MANY - 10:,} pictures",
        )
        left = [image_id for image_id in ids if image_id not in gone]
        assert fits(page, left) and not set(shown(page)) & set(gone)
    finally:
        with Library.open(library) as opened:
            opened.mark_present(paths)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("wide", [1280, 320])
def test_it_is_accessible(browser, years, scheme, wide):
    size = {"width": wide, "height": 800}
    with looking(browser, years, viewport=size, color_scheme=scheme) as page:
        page.wait_for_selector(".timeline.is-ready")
        page.focus(SLIDER)
        page.keyboard.press("ArrowDown")
        page.wait_for_timeout(400)
        assert violations(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") == wide


def test_a_finger_drags_the_handle(browser, years):
    phone = {"viewport": {"width": 375, "height": 700}, "has_touch": True, "is_mobile": True}
    with looking(browser, years, **phone) as page:
        page.wait_for_selector(".timeline.is-ready")
        page.evaluate("scrollTo(0, 3000)")
        page.wait_for_selector(".timeline.is-awake")
        box = page.locator("[data-part=thumb]").bounding_box()
        assert box["width"] >= 40 and box["height"] >= 44
        session = page.context.new_cdp_session(page)
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

        def touch(kind, *points):
            found = [{"x": across, "y": down} for across, down in points]
            session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": found})

        touch("touchStart", (x, y))
        for step in range(1, 6):
            touch("touchMove", (x, y + 50 * step))
        page.wait_for_selector("[data-part=bubble]")
        touch("touchEnd")
        page.wait_for_selector("[data-part=bubble]", state="hidden")
        year = page.get_attribute(SLIDER, "aria-valuetext").split(",")[0].split()[1]
        assert int(year) < 2023
        page.wait_for_function(
            f"year => ({HEADINGS})().some((day) => day.endsWith(year))", arg=year
        )
