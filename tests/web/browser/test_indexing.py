"""The page while pictures come in; the test speaks for the server's events."""

import json
import re
from contextlib import ExitStack, suppress

import pytest

from browsing import (
    BOX,
    answer,
    free_port,
    indexed,
    names,
    open_first,
    served,
    shown,
    visited,
    wait_for_first,
)
from coloured import encoded

STREAM = """window.EventSource = class extends EventTarget {
    constructor() { super(); window.stream = this; }
    close() {}
};"""
SCAN = {
    "id": 1,
    "state": "running",
    "found": 1200,
    "done": 30,
    **dict.fromkeys(("embedded", "failed", "skipped"), 0),
    "rate": 0.0,
    "seconds_left": None,
}


class Library:
    """What the server answers of a library with so many pictures, and what it says of changes."""

    def __init__(self, page) -> None:
        self.page, self.count, self.likely, self.kind = page, 0, None, "browse"
        self.day, self.named, self.order = lambda image_id: None, set(), None
        page.route("**/api/search?*", lambda route: route.fulfill(json=self.document()))

    def document(self) -> dict:
        hits = [
            hit(image_id, self.day(image_id)) | {"by_name": image_id in self.named}
            for image_id in range(self.count, 0, -1)
        ]  # newest first
        order = "date" if self.kind == "browse" else "nearest"
        rest = {
            "total": len(hits),
            "likely": self.likely,
            "order": self.order or order,
            "kind": self.kind,
            "cursor": None,
        }
        return {"hits": hits, **rest}

    def say(self, name: str, **data) -> None:
        self.page.evaluate(
            "([name, data]) => stream.dispatchEvent(new MessageEvent(name, { data }))",
            [name, json.dumps(data)],
        )

    def grow(self, count: int) -> None:
        self.count += count
        self.say("library", images=self.count, generation=self.count)


def hit(image_id: int, day: str | None) -> dict:
    name = f"{image_id}.jpg"
    return {
        "image_id": image_id,
        "name": name,
        "path": f"/pictures/{name}",
        "width": 400,
        "height": 300,
        "day": day,
        "thumbnail": f"/api/images/{image_id}/thumbnail?v=0",
    }


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    """The address of a server whose library holds nothing."""
    with served(tmp_path_factory.mktemp("empty") / "library", model="fovea-small") as address:
        yield address


@pytest.fixture
def page(browser, empty):
    with visited(browser, "about:blank") as page:
        page.watch.expected.append("thumbnail")  # there is nothing to make them of
        page.add_init_script(STREAM)
        page.library = Library(page)
        page.goto(empty)
        page.wait_for_selector("#empty:not([hidden])")
        yield page


def test_pictures_appear_while_more_come_in(page):
    for _ in range(12):  # more often than any pause would wait for
        page.library.grow(1)
        page.wait_for_timeout(300)
    assert len(shown(page)) > 3


def test_an_empty_page_tells_of_the_scan_that_fills_it(page):
    assert "Add a folder" in page.inner_text("#empty")
    page.library.say("scan", **SCAN)
    assert "Indexing your pictures" in page.inner_text("#empty")
    assert "30 of 1,200 files" in page.inner_text("#empty")
    page.library.say("scan", **SCAN | {"done": 31})
    assert "31 of 1,200 files" in page.inner_text("#empty")
    page.library.say("scan", **SCAN | {"state": "done"})
    assert "Add a folder" in page.inner_text("#empty")


def test_the_focus_stays_on_its_picture_while_others_come_in(page):
    page.library.grow(5)
    page.wait_for_selector(".tile")
    page.focus(".tile[data-image-id='4'] .tile-open")
    page.library.grow(2)
    page.wait_for_selector(".tile[data-image-id='7']")
    assert page.evaluate("document.activeElement.parentElement.dataset.imageId") == "4"
    assert page.get_attribute(".tile[data-image-id='4'] .tile-open", "tabindex") == "0"


def test_an_answer_that_is_the_same_leaves_the_tiles_alone(page):
    page.library.grow(5)
    page.wait_for_selector(".tile")
    page.evaluate("document.querySelector('.tile').isOld = true")
    with page.expect_response("**/api/search?*"):
        page.library.grow(0)
    page.wait_for_timeout(100)
    assert page.evaluate("document.querySelector('.tile').isOld")


def test_one_picture_is_said_to_be_one(page):
    page.library.grow(1)
    page.wait_for_selector(".tile")
    assert page.inner_text("#status") == "1 picture"
    page.library.grow(1)
    page.wait_for_function("() => document.querySelector('#status').textContent === '2 pictures'")


def test_an_answer_without_a_likely_match_says_so_once(page):
    page.library.grow(2)
    page.library.likely, page.library.kind = 0, "words"
    page.fill("input[name=q]", "red")
    page.wait_for_selector(".grid-line")
    assert page.inner_text(".grid-line") == "No likely matches; the nearest pictures come first"
    assert page.inner_text("#status") == "2 pictures, nearest first"


def test_the_line_is_there_wherever_in_a_row_the_likely_pictures_end(page):
    page.library.grow(24)
    for likely in range(1, 24):
        page.library.likely, page.library.kind = likely, "words"
        page.fill("input[name=q]", f"red {likely}")
        page.wait_for_selector(f"#status:has-text('Likely matches: {likely} of 24')")
        assert page.locator(".grid-mark, .grid-line").count() == 1, likely


def test_the_line_after_a_single_likely_picture_stands_in_its_row(page):
    page.library.grow(5)
    page.library.likely, page.library.kind = 1, "words"
    page.fill("input[name=q]", "red")
    page.wait_for_selector(".grid-mark")
    assert (
        page.inner_text(".grid-mark") == "Less likely" and page.locator(".grid-line").count() == 0
    )
    parts = page.eval_on_selector_all(
        "#grid :is(.tile, h2)",
        """parts => parts.slice(0, 3).map((part) => {
            const { left, right, top } = part.getBoundingClientRect();
            return [left, right, top];
        })""",
    )
    (_, first, one), (left, right, mark), (second, _, other) = parts
    assert first < left < right < second and one == mark == other
    assert page.inner_text("#status") == "Likely matches: 1 of 5"


def test_likely_matches_stand_under_their_days_then_the_line_and_the_others(page):
    days = {5: "2024-03-02", 4: "2024-03-01", 3: "2024-03-05", 2: "2024-03-01", 1: "2024-03-01"}
    page.library.day = days.get
    page.library.likely, page.library.kind, page.library.order = 2, "words", "date"
    page.library.grow(5)
    page.wait_for_selector(".grid-line")
    parts = page.eval_on_selector_all(
        "#grid :is(.tile, h2)",
        "parts => parts.map((part) => +part.dataset.imageId || part.textContent)",
    )
    line = "Less likely here; the nearest other pictures follow"
    assert parts == [
        "Mar 2, 2024", 5, "Mar 1, 2024", 4, line, "Mar 5, 2024", 3, "Mar 1, 2024", 2, 1
    ]  # fmt: skip
    page.library.likely = 0
    page.library.grow(0)
    page.wait_for_function("() => document.querySelector('.grid-line').innerText.startsWith('No')")
    assert page.inner_text(".grid-line") == "No likely matches; the nearest pictures follow"
    assert page.inner_text("#status") == "5 pictures"


def test_no_pictures_are_not_called_nearest(page):
    page.library.kind = "words"
    page.fill("input[name=q]", "red")
    page.wait_for_function("() => document.querySelector('#status').textContent !== ''")
    assert page.inner_text("#status") == "0 pictures"


def test_an_answer_without_a_line_says_nothing_of_matches(page):
    page.library.grow(2)
    page.library.kind = "words"
    page.fill("input[name=q]", "red")
    page.wait_for_function("() => document.querySelector('#status').textContent.includes('first')")
    assert page.inner_text("#status") == "2 pictures, nearest first"
    assert page.locator(".grid-line, .is-likelihood").count() == 0


def test_an_answer_with_names_that_match_is_not_called_nearest_first(page):
    page.library.grow(2)
    page.library.kind, page.library.named = "words", {1}
    page.fill("input[name=q]", "red")
    said = "2 pictures; names that match, and the nearest, first"
    page.wait_for_function(
        "said => document.querySelector('#status').textContent === said", arg=said
    )


def test_days_of_few_pictures_share_a_row(page):
    page.library.day = lambda image_id: f"2024-03-{min(image_id, 10):02}"
    page.library.grow(19)  # ten of one day, then one a day
    page.wait_for_selector(".tile[data-image-id='1']")  # the last of them
    parts = page.eval_on_selector_all(
        "#grid :is(.tile, h2)",
        """parts => parts.map((part) => [
            part.dataset.imageId ? +part.dataset.imageId : part.textContent,
            +part.style.transform.match(/, ([0-9]+)px/)[1]])""",
    )
    tops = {name: top for name, top in parts if isinstance(name, int)}
    assert len({tops[image_id] for image_id in range(19, 9, -1)}) > 1  # a day of several rows
    assert tops[9] == tops[8] == tops[7] > tops[10]
    assert len({tops[image_id] for image_id in range(1, 10)}) < 4
    order = [name for name, _ in parts]
    assert order[-4:] == ["Mar 2, 2024", 2, "Mar 1, 2024", 1]
    assert order.count("Mar 10, 2024") == 1
    page.focus(".tile[data-image-id='9'] .tile-open")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.parentElement.dataset.imageId") == "8"
    page.keyboard.press("ArrowDown")
    below = int(page.evaluate("document.activeElement.parentElement.dataset.imageId"))
    assert tops[below] > tops[8]


@pytest.mark.parametrize(
    ("locale", "at", "among"),
    [
        ("en-GB", "ended unexpectedly at /photos/slow.jpg;", "/photos/slow.jpg among them"),
        ("zh-CN", "索引进程在处理 /photos/slow.jpg 时意外结束", "其中有 /photos/slow.jpg"),
    ],
)
def test_the_page_names_the_files_at_which_indexing_ended(browser, empty, locale, at, among):
    with visited(browser, "about:blank", locale=locale) as page:
        page.add_init_script(STREAM)
        page.goto(empty)
        page.locator("#open-library").click()
        ended = SCAN | {"state": "failed", "code": "unexpected", "message": "in English only"}
        problem = page.locator("#library [data-part=scan-problem]")
        say = Library(page).say

        def told(shown, in_hand):  # again where the page asked for the state in between
            for _ in range(20):
                say("scan", **ended, in_hand=in_hand)
                with suppress(pytest.importorskip("playwright.sync_api").TimeoutError):
                    return shown.wait_for(timeout=3000)
            raise AssertionError(in_hand)

        say("scan", **SCAN)
        told(problem.filter(has_text=at), ["/photos/slow.jpg"])
        told(problem.filter(has_text=among), ["/photos/slow.jpg", "/photos/other.jpg"])
        told(problem.filter(has_not_text="slow").filter(has_text=re.compile(".")), [])
        say("scan", **SCAN | {"state": "done"})
        problem.filter(has_text=re.compile("^$")).wait_for(state="attached")


@pytest.mark.parametrize(
    ("doing", "said", "percent"),
    [
        ("starting", "Starting …", "…"),
        ("waiting", "Waiting until another program has finished indexing", "…"),
        ("downloading", "Downloading the model", "…"),
        ("counting", "Looking for pictures: 1,200 files", "…"),
        ("loading", "Loading the model; 1,200 files found", "3%"),
        ("indexing", "30 of 1,200 files", "3%"),
        ("finishing", "All 1,200 files are done; preparing the search", "3%"),
    ],
)
def test_the_page_says_what_a_scan_does(page, doing, said, percent):
    now = SCAN | {"doing": doing}
    page.route("**/api/scans", lambda route: route.fulfill(json={"scan": now}))
    page.click("#open-library")
    page.library.say("scan", **now)
    page.wait_for_selector(f"#library [data-part=counts]:text-is('{said}')")
    assert page.inner_text("#empty .empty-counts") == said
    assert page.inner_text("#library-progress") == percent
    page.library.say("scan", **SCAN | {"state": "done", "doing": None})


ROOT = {
    "path": "/photos",
    "state": "online",
    "added_at": "2024-01-01",
    "inside": None,
    "around": [],
}


def test_an_open_panel_counts_along_while_pictures_come_in(page):
    roots = [
        ROOT | {"id": 1, "images": 0, "scanned_at": None, "scan": "running"},
        ROOT | {"id": 2, "images": 3, "scanned_at": "2024-02-03", "scan": "waiting"},
    ]
    status = answer(page, "/api/status") | {"images": 3, "model": "m", "files": {"failed": 1}}
    page.route("**/api/roots", lambda route: route.fulfill(json={"roots": roots}))
    page.route("**/api/status", lambda route: route.fulfill(json=status))
    page.route("**/api/scans", lambda route: route.fulfill(json={"scan": SCAN}))
    page.click("#open-library")
    facts = page.locator(".root-facts")
    facts.first.filter(has_text="0 pictures · being indexed").wait_for()
    assert facts.nth(1).inner_text() == "3 pictures · waiting to be indexed"
    page.focus(".root:nth-child(2) [data-action=remove]")
    roots[0]["images"], status["images"] = 40, 43
    page.library.say("scan", **SCAN | {"done": 40})
    facts.first.filter(has_text="40 pictures · being indexed").wait_for()
    page.locator("[data-part=summary]").filter(has_text="43 pictures").wait_for()
    focus = "document.activeElement.dataset.action + document.activeElement.dataset.root"
    assert page.evaluate(focus) == "remove2"
    roots[0] |= {"scan": None, "scanned_at": "2024-05-06"}
    page.unroute("**/api/scans")
    page.route("**/api/scans", lambda route: route.fulfill(json={"scan": SCAN | {"state": "done"}}))
    page.library.say("scan", **SCAN | {"state": "done"})
    facts.first.filter(has_text="40 pictures · scanned").wait_for()


@pytest.fixture
def stopping(browser, tmp_path):
    """A page, and functions that stop its server and start it again at the same address."""
    (tmp_path / "pictures").mkdir()
    for name in ("red", "lime", "blue"):
        (tmp_path / "pictures" / f"{name}.png").write_bytes(encoded(name))
    library, port = indexed(tmp_path / "library", tmp_path / "pictures"), free_port()
    running = ExitStack()

    def start():
        return running.enter_context(served(library, port=port))

    with running, visited(browser, start()) as page:
        page.watch.expected += ["ERR_", "status of 4"]
        page.wait_for_selector(".tile img")
        yield page, running.close, start


def test_a_page_searches_again_by_itself_once_its_server_is_back(stopping):
    page, stop, start = stopping
    found = names(page)
    stop()
    page.fill(BOX, "name:blue")
    page.wait_for_selector("#problem:has-text('fovea does not respond. Is it still running?')")
    start()
    page.wait_for_selector("#problem", state="hidden")
    wait_for_first(page, found["blue.png"])
    assert len(shown(page)) == 1 and page.input_value(BOX) == "name:blue"
    assert page.locator("#grid.is-stale").count() == 0


def test_a_server_that_is_gone_is_not_told_as_a_file_that_is_gone(stopping):
    page, stop, start = stopping
    open_first(page)
    page.wait_for_selector(".detail-picture.is-sharp")
    stop()
    page.keyboard.press("ArrowRight")
    problem = "#detail [data-part=problem]:not([hidden])"
    page.wait_for_selector(f"{problem}:has-text('fovea does not respond')")
    assert "cannot be opened" not in page.inner_text("#detail")
    start()
    page.wait_for_selector("#detail[data-state=ready] .detail-picture.is-sharp")
    assert page.locator(problem).count() == 0


def test_a_file_that_is_gone_is_told_as_such(stopping, tmp_path):
    page, _, _ = stopping
    page.watch.expected += ["status of 410"]
    for file in (tmp_path / "pictures").iterdir():
        file.unlink()
    page.click(".tile[data-index='0'] .tile-open")
    page.wait_for_selector("#detail [data-part=problem]:has-text('The file cannot be opened')")


def test_a_scan_that_ended_with_its_server_is_not_shown_for_ever(page):
    page.click("#open-library")
    page.route("**/api/scans", lambda route: route.fulfill(json={"scan": SCAN}))
    page.library.say("server", run="one", generation=1)
    page.library.say("scan", **SCAN | {"doing": "indexing"})
    page.wait_for_selector("#library [data-part=scan]")
    connecting = "Object.assign(stream, { readyState: 0 }).dispatchEvent(new Event('error'))"
    page.evaluate(connecting)
    page.wait_for_selector("[data-part=counts]:has-text('fovea does not respond')")
    page.unroute("**/api/scans")
    page.route("**/api/scans", lambda route: route.fulfill(json={"scan": None}))
    page.library.say("server", run="two", generation=1)
    page.wait_for_selector(".toast:has-text('fovea was restarted while it was indexing')")
    page.wait_for_selector("#library [data-part=scan]", state="hidden")
    assert page.locator("#library-progress").is_hidden()


def test_a_stream_that_opens_again_tells_of_what_was_missed(page):
    page.library.say("server", run="one", generation=7)
    page.library.count = 2
    page.library.say("server", run="one", generation=8)
    page.wait_for_selector(".tile")
