"""Names of files and folders are text in every view, whatever they hold."""

import pytest

from browsing import answer, indexed, names, served, shown, visited
from odd.names import HIDDEN_CHARACTERS, MARKUP, make_names


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A server whose library holds a folder of hostile names."""
    place = tmp_path_factory.mktemp("hostile")
    folder = place / "<b onmouseover=alert(2)>photos"
    folder.mkdir()
    make_names(folder)
    with served(indexed(place / "library", folder)) as address:
        yield address


@pytest.fixture
def page(browser, hostile):
    with visited(browser, hostile) as page:
        page.wait_for_selector(".tile img")
        yield page
        injected = "img[src='x'], b[onmouseover], [onerror], script:not([src]):not([type*=json])"
        assert page.locator(injected).count() == 0


def test_every_name_is_shown_as_text(page):
    known = names(page)
    assert MARKUP in known and len(known) > 60
    seen = set(shown(page))
    while len(seen) < len(known):
        before = page.evaluate("scrollY")
        page.mouse.wheel(0, 500)
        page.wait_for_function("before => scrollY > before", arg=before)  # there is more below
        seen |= set(shown(page))
    assert seen == set(known.values())


@pytest.mark.parametrize(
    "name", [MARKUP, "{{7*7}}.jpg", "' onmouseover='alert(1).jpg", "javascript:alert(1).jpg"]
)
def test_a_hostile_name_is_shown_as_it_is(page, name):
    image_id = names(page)[name]
    page.goto(f"{page.url.split('#')[0]}#image-{image_id}")
    page.reload()
    page.wait_for_selector("#detail[data-state=ready]")
    assert page.inner_text("#detail-name") == name
    assert "<b onmouseover=alert(2)>photos" in page.inner_text("[data-part=folder]")


def test_characters_that_hide_are_shown(page):
    image_id = names(page)[HIDDEN_CHARACTERS]
    page.goto(f"{page.url.split('#')[0]}#image-{image_id}")
    page.reload()
    page.wait_for_selector("#detail[data-state=ready]")
    assert page.inner_text("#detail-name") == "\\u202egpj.exe.jpg"


@pytest.mark.parametrize("text", ["<script>alert(1)</script>", "'\"><img src=x onerror=alert(1)>"])
def test_a_query_is_no_markup(page, hostile, text):
    page.watch.expected.append("400")  # where the text is no query
    page.fill("input[name=q]", text)
    page.wait_for_url("**q=*")
    page.wait_for_timeout(300)
    page.goto(page.url)  # drawn by the server
    page.wait_for_timeout(300)
    assert page.input_value("input[name=q]") == text


def test_the_panel_shows_hostile_folders_and_failures(page):
    page.click("#open-library")
    page.wait_for_selector(".root")
    assert "<b onmouseover=alert(2)>photos" in page.inner_text(".root-path")
    if answer(page, "/api/failures")["failures"]:
        page.click(".failures[data-state=failed] summary")
        page.wait_for_selector(".failures li")


@pytest.mark.parametrize(("pick", "says"), [(1, "Paths copied: 1"), (0, "Some have a line break")])
def test_copied_paths_that_line_breaks_split_are_told_of(browser, hostile, pick, says):
    rights = ["clipboard-read", "clipboard-write"]
    with visited(browser, f"{hostile}/?q=name:*.jpg", permissions=rights) as page:
        page.wait_for_selector(".tile img")
        page.focus(".tile a")
        page.keyboard.press("x" if pick else "Control+a")
        page.click("#selection [data-action=copy-paths]")
        page.wait_for_selector(f".toast:has-text('{says}')")
        assert page.locator(".toast:has-text('line break')").count() == (not pick)
