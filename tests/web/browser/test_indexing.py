"""The page while pictures come in; the test speaks for the server's events."""

import json
import re
from contextlib import suppress

import pytest

from browsing import served, shown, visited

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
        self.day, self.named = lambda image_id: None, set()
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
            "order": order,
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
        "#grid > *",
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
