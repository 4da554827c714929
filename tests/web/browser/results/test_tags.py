"""Tags on the page: taught by the selection, improved by answers, shown and corrected."""

import pytest

from browsing import PATIENCE, indexed, served, violations, visited
from coloured import COLOURS, encoded

PHONE = {"viewport": {"width": 320, "height": 640}, "has_touch": True, "is_mobile": True}
PER_COLOUR = 5


@pytest.fixture
def address(tmp_path):
    """A server of pictures of eight colours, five of each."""
    (tmp_path / "pictures").mkdir()
    for colour in COLOURS:
        for number in range(PER_COLOUR):
            place = tmp_path / "pictures" / f"{colour}{number}.png"
            place.write_bytes(encoded(colour, number))
    library = indexed(tmp_path / "library", tmp_path / "pictures")
    with served(library) as address:
        yield address


@pytest.fixture
def page(browser, address):
    with visited(browser, f"{address}/?q=name:red*") as page:
        page.wait_for_selector(".tile")
        yield page


def tags(page):
    found = page.evaluate("fetch('/api/tags').then((answer) => answer.json())")["tags"]
    return {tag["name"]: (tag["yes"], tag["no"], tag["answers"]) for tag in found}


def wait_for_tags(page, expected):
    page.wait_for_function(
        """([name, said]) => fetch("/api/tags").then((answer) => answer.json()).then(({tags}) =>
        tags.some((tag) => tag.name === name && `${[tag.yes, tag.no, tag.answers]}` === `${said}`))
        """,
        arg=expected,
        timeout=PATIENCE * 1000,
    )


def teach(page, name, button="They show it"):
    page.keyboard.press("t")
    page.wait_for_selector("#teach[open]")
    page.get_by_label("Name of the tag").fill(name)
    page.get_by_role("button", name=button).click()


def taught(page):
    """Select all that are shown, teach them as red, and search for the tag."""
    page.locator(".tile-check").first.click(force=True)
    page.keyboard.press("Control+a")
    teach(page, "Red")
    page.wait_for_selector("#teach:not([open])", state="attached")
    wait_for_tags(page, ["Red", [PER_COLOUR, 0, 0]])
    page.goto(f"{page.url.partition('?')[0]}?q=tag:red")
    page.wait_for_selector("#open-review:visible")
    page.locator(".is-filter .chip-name", has_text="tag: red").wait_for()


def test_the_selection_teaches_a_tag_and_undo_takes_it_back(page):
    page.locator(".tile-check").first.click(force=True)
    teach(page, " ")
    assert page.locator("#teach-problem").text_content() == "Name the tag first."
    page.get_by_label("Name of the tag").fill("Red")
    assert violations(page) == []
    page.keyboard.press("Enter")
    page.get_by_text("Told that 1 picture shows “Red”.").wait_for()
    assert tags(page) == {"Red": (1, 0, 0)}
    page.keyboard.press("Control+z")
    wait_for_tags(page, ["Red", [0, 0, 0]])


def say(page, name, query, *said):
    """Say one thing of each of the first pictures of a query, without the page."""
    ids = page.evaluate(
        "(q) => fetch(`/api/search?q=${q}`).then((answer) => answer.json())"
        ".then(({ hits }) => hits.map((hit) => hit.image_id))",
        query,
    )
    lesson = {key: [one for one, what in zip(ids, said, strict=False) if what == key]
              for key in said}  # fmt: skip
    page.evaluate(
        """(body) => fetch("/api/tags", { method: "POST", body: JSON.stringify(body),
        headers: { "Content-Type": "application/json" } })""",
        {"name": name, **lesson},
    )


def test_undo_says_again_what_was_said_before(page):
    say(page, "Red", "name:red*", "yes", "no", "no")
    assert tags(page) == {"Red": (1, 2, 0)}
    page.locator(".tile-check").first.click(force=True)
    page.keyboard.press("Control+a")
    teach(page, "Red")
    wait_for_tags(page, ["Red", [PER_COLOUR, 0, 0]])
    page.get_by_text("Told that 4 pictures show “Red”.").wait_for()
    page.keyboard.press("Control+z")
    wait_for_tags(page, ["Red", [1, 2, 0]])


def test_pictures_that_do_not_show_it_are_told_too(page):
    taught(page)
    page.goto(f"{page.url.partition('?')[0]}?q=name:blue*")
    page.wait_for_selector(".tile")
    page.locator("#selection button[data-action=teach]").wait_for(state="attached")
    page.locator(".tile-open").first.focus()
    teach(page, "red", "They do not")
    wait_for_tags(page, ["Red", [PER_COLOUR, 1, 0]])


def test_answers_by_keys_improve_a_tag_at_once(page):
    taught(page)
    page.click("#open-review")
    picture = page.locator("#review [data-part=picture]")
    picture.wait_for()
    assert "Unproven: 10 more answers" in page.locator("#review [data-part=state]").text_content()
    assert violations(page) == []
    seen = set()
    for number in range(10):
        name = picture.get_attribute("alt")
        assert name and not name.startswith("red") and name not in seen, "nobody spoke about it"
        seen.add(name)
        page.keyboard.press("n")
        wait_for_tags(page, ["Red", [PER_COLOUR, number + 1, number + 1]])
        page.wait_for_function(
            "(name) => document.querySelector('#review [data-part=picture]').alt !== name", arg=name
        )
    page.get_by_text("No other picture is likely enough.").wait_for()
    page.keyboard.press("u")
    wait_for_tags(page, ["Red", [PER_COLOUR, 9, 9]])
    assert picture.get_attribute("alt") == name, "the last one is asked about again"
    page.keyboard.press(" ")  # skips it
    page.keyboard.press("Escape")
    page.wait_for_selector("#review:not([open])", state="attached")
    assert tags(page) == {"Red": (PER_COLOUR, 9, 9)}


def test_answers_on_their_way_arrive_though_another_tag_is_opened(page):
    say(page, "Blue", "name:blue*", "yes", "yes", "yes")
    taught(page)
    held = []

    def hold(route):
        if route.request.method == "POST" and not held:
            held.append(route)
        else:
            route.continue_()

    page.route("**/api/tags", hold)
    picture = page.locator("#review [data-part=picture]")
    page.click("#open-review")
    picture.wait_for()
    name = picture.get_attribute("alt")
    with page.expect_request(lambda request: request.method == "POST"):
        page.keyboard.press("n")
    page.wait_for_function(
        "(name) => document.querySelector('#review [data-part=picture]').alt !== name", arg=name
    )
    page.keyboard.press("n")
    page.keyboard.press("Escape")
    page.evaluate(
        "history.pushState(null, '', '?q=tag:blue'); dispatchEvent(new PopStateEvent('popstate'))"
    )
    page.locator("#open-review[data-name=Blue]").click()
    picture.wait_for()
    page.keyboard.press("n")
    wait_for_tags(page, ["Blue", [3, 1, 1]])
    assert tags(page)["Red"] == (PER_COLOUR, 0, 0)
    held[0].continue_()
    wait_for_tags(page, ["Red", [PER_COLOUR, 2, 2]])
    assert "Blue" in page.locator("#review [data-part=title]").text_content()


def test_fingers_answer_by_swipes_on_a_small_phone(browser, address, page):
    taught(page)
    with visited(browser, f"{address}/?q=tag:red", **PHONE) as phone:
        phone.locator("#open-review").tap()
        phone.locator("#review [data-part=picture]").wait_for()
        width = "document.querySelector('#review').scrollWidth"
        assert phone.evaluate(width) <= phone.evaluate(
            "document.querySelector('#review').clientWidth"
        )
        assert violations(phone) == []
        box = phone.locator("#review [data-part=stage]").bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        for kind, at in (("pointerdown", x), ("pointerup", x - 90)):
            phone.dispatch_event(
                "#review [data-part=stage]",
                kind,
                {"clientX": at, "clientY": y, "pointerType": "touch", "bubbles": True},
            )
        wait_for_tags(phone, ["Red", [PER_COLOUR, 1, 1]])
        phone.get_by_role("button", name="Yes").tap()
        wait_for_tags(phone, ["Red", [PER_COLOUR + 1, 1, 2]])


def test_an_answer_that_does_not_arrive_is_asked_again(page):
    taught(page)
    page.click("#open-review")
    picture = page.locator("#review [data-part=picture]")
    picture.wait_for()
    name = picture.get_attribute("alt")
    page.watch.expected += ["/api/", "Failed to load resource"]
    page.context.set_offline(True)
    page.keyboard.press("n")
    page.wait_for_selector(".toast.is-error")
    assert picture.get_attribute("alt") == name
    page.context.set_offline(False)
    page.keyboard.press("n")
    wait_for_tags(page, ["Red", [PER_COLOUR, 1, 1]])


def test_the_picture_view_shows_corrects_and_adds_tags(page):
    page.locator(".tile-open").first.click()
    page.get_by_label("Name of a tag that this picture has").fill("Scarlet")
    page.get_by_role("button", name="Add tag").click()
    page.get_by_role("button", name="This is Scarlet").wait_for()
    assert tags(page) == {"Scarlet": (1, 0, 0)}
    page.get_by_role("button", name="This is not Scarlet").click()
    wait_for_tags(page, ["Scarlet", [0, 1, 0]])
    assert violations(page) == []


def test_tags_are_completed_with_their_counts(page):
    taught(page)
    page.goto(page.url.partition("?")[0])
    box = page.locator("input[name=q]")
    box.fill("re")
    option = page.locator(".suggestion", has_text="Tag")
    option.wait_for()
    assert option.locator(".suggestion-label").text_content() == "Red"
    assert int(option.locator(".suggestion-count").text_content()) >= PER_COLOUR
    option.click()
    page.locator(".chip", has_text="tag: Red").wait_for()
