"""The field for a folder's path: completion, paths as people paste them, folders in folders."""

import pytest

from browsing import answer, served, violations, visited
from coloured import encoded

FIELD = "#add-path"
OPTIONS = "#add-folders:not([hidden]) [role=option]"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder of folders, one of them with a picture."""
    folder = tmp_path_factory.mktemp("places")
    for name in ("my photos/2019/Café", "my other", "music"):
        (folder / name).mkdir(parents=True)
    (folder / "link").symlink_to(folder / "my photos")
    (folder / "my photos" / "2019" / "red.png").write_bytes(encoded("red"))
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with served(tmp_path_factory.mktemp("adding") / "library", model="fovea-small") as address:
        yield address


@pytest.fixture
def page(browser, server):
    with visited(browser, server) as page:
        page.click("#open-library")
        page.focus(FIELD)
        yield page


def offered(page, text, count):
    """Type a path; return the last names of the folders that are offered once there are so many."""
    page.fill(FIELD, text)
    page.wait_for_function(
        "([options, count]) => document.querySelectorAll(options).length === count",
        arg=[OPTIONS, count],
    )
    return [name.rpartition("/")[2] for name in page.locator(f"{OPTIONS} bdi").all_inner_texts()]


def test_arrow_keys_choose_a_folder_and_go_on_in_it(page, place):
    assert offered(page, f"{place}/MY", 2) == ["my other", "my photos"]
    page.keyboard.press("ArrowUp")  # from the text to the last one
    active = page.get_attribute(FIELD, "aria-activedescendant")
    assert page.get_attribute(f"#{active}", "aria-selected") == "true"
    assert violations(page) == []
    page.keyboard.press("Enter")
    assert page.input_value(FIELD) == f"{place}/my photos/"
    page.wait_for_selector(f"{OPTIONS}:has-text('2019')")
    assert page.get_attribute(FIELD, "aria-expanded") == "true"
    page.keyboard.press("Escape")  # closes the list, not the panel
    page.wait_for_selector("#add-folders", state="hidden")
    assert page.locator("#library[open]").count() == 1
    assert answer(page, "/api/roots")["roots"] == []  # nothing was added on the way


def test_tab_completes_what_is_certain_and_then_goes_on(page, place):
    offered(page, f"{place}/m", 3)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Add"  # nothing was certain
    page.focus(FIELD)
    offered(page, f"{place}/my", 2)
    page.keyboard.press("Tab")
    assert page.input_value(FIELD) == f"{place}/my "
    offered(page, f"{place}/my p", 1)
    page.keyboard.press("Tab")
    assert page.input_value(FIELD) == f"{place}/my photos/"
    page.wait_for_selector(f"{OPTIONS}:has-text('2019')")
    page.keyboard.press("Tab")  # after a slash: out of the field
    assert page.evaluate("document.activeElement.textContent") == "Add"
    page.keyboard.press("Shift+Tab")
    assert page.evaluate("document.activeElement.id") == "add-path"


def test_enter_means_the_text_once_it_was_typed_on(page, place):
    page.watch.expected.append("status of 422")
    offered(page, f"{place}/my", 2)
    page.keyboard.press("ArrowDown")
    page.keyboard.type("stery")
    page.keyboard.press("Enter")
    page.wait_for_selector(f"#add-problem:has-text('{place}/mystery')")
    assert page.input_value(FIELD) == f"{place}/mystery"


def test_a_click_chooses_and_a_link_says_where_it_leads(page, place):
    offered(page, f"{place}/li", 1)
    assert f"→ {place}/my photos" in page.inner_text(OPTIONS)
    page.click(OPTIONS)
    assert page.input_value(FIELD) == f"{place}/link/"
    assert page.evaluate("document.activeElement.id") == "add-path"


def test_what_has_no_folders_says_so(page, place):
    page.fill(FIELD, f"{place}/nothing")
    page.wait_for_selector("[data-part=add-hint]:has-text('No folder begins like this.')")
    page.fill(FIELD, "photos")
    page.wait_for_selector("[data-part=add-hint]:has-text('Begin with /')")
    page.fill(FIELD, "")
    page.wait_for_selector(OPTIONS)  # where to begin


def test_a_folder_that_cannot_be_listed_says_why(page):
    said = {"folders": [], "has_more": False, "reason": "forbidden"}
    page.route("**/api/disk/folders?*", lambda route: route.fulfill(json=said))
    page.fill(FIELD, "/srv/x")
    page.wait_for_selector("[data-part=add-hint]:has-text('permission denied')")


def test_an_error_stays_until_something_is_typed(page, place):
    page.watch.expected.append("status of 422")
    page.fill(FIELD, "file://nas/photos")
    page.click("#library [data-part=add] button[type=submit]")
    page.wait_for_selector("#add-problem:has-text('on another computer')")
    page.wait_for_timeout(400)
    assert "on another computer" in page.inner_text("#add-problem")
    assert page.get_attribute(FIELD, "aria-invalid") == "true"
    page.fill(FIELD, "/")
    page.wait_for_selector("#add-problem:has-text('computer')", state="hidden")


def test_pasted_paths_are_read_and_folders_in_folders_are_told(page, place):
    note = "[data-part=add-note]"
    page.fill(FIELD, f' "file://{place}/my%20photos/2019" ')
    page.keyboard.press("Enter")
    page.wait_for_selector(f".root-path:text-is('{place}/my photos/2019')")
    assert page.inner_text(note) == ""
    page.fill(FIELD, f"'{place}/link'")
    page.keyboard.press("Enter")
    page.wait_for_selector(f"{note}:has-text('which is in the library too')")
    said = f"{place}/my photos contains {place}/my photos/2019, which"
    assert page.inner_text(note).startswith(said)
    page.fill(FIELD, f"{place}/my photos/2019/Café")
    page.keyboard.press("Enter")
    page.wait_for_selector(f"{note}:has-text('lies in {place}/my photos/2019')")
    page.fill(FIELD, f"{place}/link/2019")
    page.keyboard.press("Enter")
    page.wait_for_selector(f"{note}:has-text('is in the library already')")
    assert page.locator(".root").count() == 3
    assert page.locator(f".root-facts:has-text('in {place}')").count() == 2
    assert violations(page) == []
    page.wait_for_function(
        "() => fetch('/api/status').then(a => a.json()).then(s => s.images === 1)"
    )
    page.wait_for_selector(".root-facts:has-text('1 picture')")  # without opening the panel anew


def test_what_is_in_the_library_is_marked(page, place):
    offered(page, f"{place}/my", 2)
    marked = page.locator(f"{OPTIONS}:has-text('in the library')")
    assert marked.count() == 1 and "my photos" in marked.inner_text()
