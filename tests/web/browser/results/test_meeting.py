"""Selection, picture view and slideshow in a list of which the page holds a small part."""

import pytest

from browsing import answer, focused, looking, shown

MANY = 4800  # pictures, see conftest.py
COUNT = "#selection [data-part=count]"
POSITION = "#detail [data-part=position]"


@pytest.fixture
def page(browser, years):
    with looking(browser, years) as page:
        page.watch.expected += ["410", "/api/images/"]  # the files are gone
        page.wait_for_selector(".timeline.is-ready")
        yield page


def tile(index, part=""):
    return f".tile[data-index='{index}'] {part}".strip()


def at(page, offset):
    """The picture at a place of the list of all, as the server has it."""
    return answer(page, f"/api/search?q=&limit=1&offset={offset}")["hits"][0]


def wait_for_focus(page, index):
    page.wait_for_function(
        "index => +document.activeElement.closest('.tile')?.dataset.index === index", arg=index
    )


def wait_for_text(page, where, text):
    page.wait_for_function(
        "([where, text]) => document.querySelector(where).textContent === text", arg=[where, text]
    )


def jump(page, year):
    """Go to December of a year."""
    page.select_option("#jump-year", str(year))
    first = answer(page, f"/api/timeline?q=after:{year}")["total"]
    page.wait_for_selector(tile(first))
    return first


def in_view(page, index):
    """Whether a tile is in the window, between the search box and the bar of the selection."""
    return page.eval_on_selector(
        tile(index),
        """tile => {
            const { top, bottom } = tile.getBoundingClientRect();
            const bar = document.getElementById("selection");
            const low = bar.hidden ? innerHeight : bar.offsetTop;
            return top >= document.querySelector(".top").offsetHeight - 1 && bottom <= low;
        }""",
    )


# The place of a picture


def test_view_in_timeline_leads_to_the_place_of_the_picture_among_all(page):
    wanted = at(page, 2777)
    page.fill("input[name=q]", f"name:{wanted['name']}")
    page.wait_for_selector(".tile:only-of-type", state="attached")
    wait_for_text(page, "#status", "1 picture")
    page.click(tile(0, ".tile-open"))
    page.wait_for_selector("#detail[data-state=ready]")
    page.keyboard.press("t")
    page.wait_for_selector("#detail", state="hidden")
    wait_for_focus(page, 2777)
    assert page.get_attribute(tile(2777), "data-image-id") == str(wanted["image_id"])
    assert in_view(page, 2777) and page.input_value("input[name=q]") == ""
    wait_for_text(page, "#status", f"{MANY:,} pictures")
    page.go_back()
    wait_for_text(page, "#status", "1 picture")


def test_view_in_timeline_works_from_the_list_itself_and_for_hidden_pictures(page):
    first = jump(page, 2018)
    page.click(tile(first + 3, ".tile-open"))
    page.wait_for_selector("#detail[data-state=ready]")
    page.click("#detail a[data-date]")
    wait_for_focus(page, first + 3)
    hidden = at(page, 30)["image_id"]
    page.evaluate("id => fetch(`/api/images/${id}/hidden`, { method: 'PUT' })", hidden)
    try:
        page.goto(page.url.split("?")[0].split("#")[0] + f"?q=is:hidden#image-{hidden}")
        page.wait_for_selector("#detail[data-state=ready]")
        page.keyboard.press("t")
        wait_for_text(page, "#status", "1 picture")
        wait_for_focus(page, 0)
        assert shown(page) == [hidden]
    finally:
        page.evaluate("id => fetch(`/api/images/${id}/hidden`, { method: 'DELETE' })", hidden)


def test_a_reload_keeps_the_place_of_the_picture_view_deep_down(page):
    first = jump(page, 2017)
    page.click(tile(first + 2, ".tile-open"))
    page.wait_for_selector("#detail[data-state=ready]")
    page.reload()
    wait_for_text(page, POSITION, f"{first + 3:,} of {MANY:,}")
    page.keyboard.press("ArrowRight")
    wait_for_text(page, POSITION, f"{first + 4:,} of {MANY:,}")
    assert page.evaluate("location.hash") == f"#image-{at(page, first + 3)['image_id']}"


def test_the_focus_stays_deep_down_when_the_answer_is_asked_for_again(page):
    first = jump(page, 2019)
    page.focus(tile(first + 4, ".tile-open"))
    page.wait_for_timeout(300)
    page.evaluate("""async () => {
        const main = document.querySelector("script[type=module]").src;
        (await import(main.replace("main.js", "page/store.js"))).emit("again");
    }""")
    page.wait_for_timeout(500)
    wait_for_focus(page, first + 4)
    page.keyboard.press("ArrowRight")
    wait_for_focus(page, first + 5)


# Keys faster than the server


def test_no_arrow_is_lost_in_the_picture_view_while_hits_are_loading(page):
    page.focus(tile(0, ".tile-open"))
    page.keyboard.press("End")
    wait_for_focus(page, MANY - 1)
    page.keyboard.press("Enter")
    page.wait_for_selector("#detail[open]")
    held = []
    page.route("**/api/search?cursor=*", lambda route: held.append(route))
    page.evaluate("""() => { for (let number = 0; number < 200; number += 1)
        document.querySelector("#detail").dispatchEvent(
            new KeyboardEvent("keydown", { key: "ArrowLeft", bubbles: true })); }""")
    page.wait_for_timeout(300)
    assert held
    page.unroute("**/api/search?cursor=*")  # lets those go that were held
    wait_for_text(page, POSITION, f"{MANY - 200:,} of {MANY:,}")


def test_keys_go_on_from_where_they_lead_though_nothing_is_there_yet(page):
    held = []
    page.focus(tile(0, ".tile-open"))
    page.wait_for_timeout(500)
    page.route("**/api/search?cursor=*", lambda route: held.append(route))
    page.keyboard.press("End")
    page.keyboard.press("Shift+ArrowLeft")
    page.keyboard.press("Shift+ArrowLeft")
    page.wait_for_timeout(300)
    assert held
    page.unroute("**/api/search?cursor=*")  # lets those go that were held
    wait_for_focus(page, MANY - 3)
    wait_for_text(page, COUNT, "3 selected")


def test_what_comes_late_does_not_take_the_focus_from_the_box(page):
    held = []
    page.focus(tile(0, ".tile-open"))
    page.route("**/api/search?cursor=*", lambda route: held.append(route))
    page.keyboard.press("End")
    page.wait_for_timeout(200)
    page.keyboard.press("/")
    assert held
    page.unroute("**/api/search?cursor=*")  # lets those go that were held
    page.wait_for_selector(tile(MANY - 1))
    page.wait_for_timeout(200)
    assert page.evaluate("document.activeElement.name") == "q"


# Selection


def test_a_day_is_selected_whole_from_its_middle_though_its_beginning_is_not_loaded(page):
    page.route("**/api/search?q=*", lambda route: route.fulfill(json=as_one_day(route)))
    page.route("**/api/search?cursor=*", lambda route: route.fulfill(json=as_one_day(route)))
    page.fill("input[name=q]", "name:a")
    wait_for_text(page, "#status", f"{MANY // 3:,} pictures")
    page.focus(tile(0, ".tile-open"))
    page.keyboard.press("End")
    wait_for_focus(page, MANY // 3 - 1)
    listed = []
    page.route("**/api/selections", lambda route: listed.append(route) or route.abort())
    page.watch.expected.append("selections")
    page.keyboard.press("d")
    page.wait_for_selector(".toast.is-error:not(:empty)")  # and not a part of the day
    assert "on:2020-01-01" in listed[0].request.post_data and page.is_hidden("#selection")


def as_one_day(route):
    document = route.fetch().json()
    for hit in document["hits"]:
        hit["day"] = "2020-01-01"
    return document


def test_a_range_reaches_over_places_that_were_never_loaded_and_shrinks(page):
    page.click(tile(2, ".tile-check"), force=True)
    first = jump(page, 2022)
    page.click(tile(first), modifiers=["Shift"])
    wait_for_text(page, COUNT, f"{first - 1:,} selected")
    page.evaluate("scrollTo(0, 0)")
    page.wait_for_selector(tile(4))
    page.click(tile(4), modifiers=["Shift"])
    wait_for_text(page, COUNT, "3 selected")


def test_a_range_that_cannot_be_loaded_selects_nothing_more_and_asks_little(page):
    page.watch.expected.append("503")
    page.click(tile(2, ".tile-check"), force=True)
    first = jump(page, 2020)
    asked = []

    def refuse(route):
        asked.append(route.request.url)
        route.fulfill(status=503, json={"detail": "too busy"})

    page.route("**/api/search?cursor=*", refuse)
    page.click(tile(first), modifiers=["Shift"])
    page.wait_for_selector("#grid-trouble:not([hidden])")
    page.wait_for_timeout(500)
    assert len(asked) < 5 and page.inner_text(COUNT) == "1 selected"


def test_another_search_ends_the_loading_of_a_range(page):
    page.click(tile(2, ".tile-check"), force=True)
    first = jump(page, 2016)
    asked = []
    page.on("request", lambda request: "cursor=" in request.url and asked.append(request.url))
    page.click(tile(first), modifiers=["Shift"])
    page.fill("input[name=q]", "on:2015")
    page.keyboard.press("Enter")
    wait_for_text(page, "#status", "480 pictures")
    page.wait_for_timeout(500)
    before = len(asked)
    page.wait_for_timeout(500)
    assert len(asked) == before < 70


def test_all_that_are_selected_are_so_wherever_one_scrolls(page):
    page.focus(tile(0, ".tile-open"))
    page.keyboard.press("Control+a")
    wait_for_text(page, COUNT, f"{MANY:,} selected")
    first = jump(page, 2018)
    page.wait_for_timeout(300)
    tiles = page.locator(".tile").count()
    assert tiles == page.locator(".tile.is-selected").count() > 10
    assert page.locator(".day-check[aria-checked=false]").count() == 0
    page.click(tile(first, ".tile-check"))
    wait_for_text(page, COUNT, f"{MANY - 1:,} selected")
    jump(page, 2016)
    jump(page, 2018)
    assert page.get_attribute(tile(first, ".tile-check"), "aria-checked") == "false"


def test_the_focus_is_never_under_the_bar_of_the_selection(page):
    page.focus(tile(0, ".tile-open"))
    last = -1
    while last < 0:  # a tile at the lower edge of the window
        page.keyboard.press("ArrowDown")
        if page.evaluate("scrollY") > 0:
            last = focused(page)
    page.keyboard.press("x")
    page.wait_for_selector("#selection:not([hidden])")
    assert in_view(page, last)
    for _ in range(4):
        page.keyboard.press("ArrowDown")
        assert in_view(page, focused(page))


# Slideshow and paper


def test_a_slideshow_goes_on_once_the_server_answers_again(page):
    page.watch.expected.append("503")
    page.evaluate("localStorage.setItem('slideshow-pace', 3)")
    page.reload()
    first = jump(page, 2019)
    page.wait_for_timeout(500)
    page.focus(tile(first, ".tile-open"))
    page.keyboard.press("s")
    caption = "#slideshow [data-part=caption]"
    page.wait_for_function(
        "where => document.querySelector(where).textContent.includes(' of ')", arg=caption
    )
    page.route("**/api/search?cursor=*", lambda route: route.fulfill(status=503, json={}))
    said = page.inner_text(caption)
    while True:  # up to the last one that is loaded
        page.keyboard.press("ArrowRight")
        page.wait_for_timeout(150)
        now = page.inner_text(caption)
        if now == said:
            break
        said = now
    assert page.locator("#slideshow.is-playing").count() == 1
    place = int(said.split(" of ")[0].replace(",", ""))
    page.unroute("**/api/search?cursor=*")
    page.wait_for_function(
        "([where, text]) => document.querySelector(where).textContent.startsWith(text)",
        arg=[caption, f"{place + 1:,} of"],
    )


def test_what_is_printed_is_what_is_seen(page):
    first = jump(page, 2016)
    page.wait_for_timeout(500)
    names = page.evaluate("""async () => {
        const main = document.querySelector("script[type=module]").src;
        window.print = () => {};
        const keys = new KeyboardEvent("keydown", { key: "p", ctrlKey: true, bubbles: true });
        document.body.dispatchEvent(keys);
        return [...document.querySelectorAll("#sheet bdi")].map((one) => one.textContent);
    }""")
    hits = answer(page, f"/api/search?q=&limit=200&offset={first - 100}")["hits"]
    wanted = [hit["name"] for hit in hits]
    assert names[0] in wanted and at(page, first)["name"] in names
    start = wanted.index(names[0])
    both = min(len(names), len(wanted) - start)
    assert names[:both] == wanted[start : start + both]


def test_another_list_does_not_keep_the_months_of_the_one_before(page):
    page.route("**/api/timeline?*", lambda route: route.abort())
    page.watch.expected.append("timeline")
    page.fill("input[name=q]", "name:a")
    wait_for_text(page, "#status", f"{MANY // 3:,} pictures")
    page.wait_for_function("() => !document.querySelector('.timeline.is-ready')")
    assert page.is_hidden("#jump")


def test_all_parts_of_the_page_stand_in_one_line(page):
    page.evaluate("document.getElementById('better').hidden = false")
    left, right = page.evaluate("""() => ["#better", "#filters", "#grid"].map((part) => {
        const one = document.querySelector(part);
        const { left, right } = one.getBoundingClientRect();
        return [left, right];
    }).reduce(([left, right], [from, to]) => [[...left, from], [...right, to]], [[], []])""")
    assert max(left) - min(left) <= 1 and max(right) - min(right) <= 1
    edge = page.locator("#timeline").bounding_box()["x"]
    assert max(right) <= edge + 1
