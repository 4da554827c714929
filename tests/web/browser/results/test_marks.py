"""Hearts, hiding with Undo, and saved searches, in the page."""

import json

import pytest

from browsing import (
    BOX,
    answer,
    focused,
    indexed,
    open_first,
    served,
    shown,
    violations,
    visited,
    wait_for_first,
)
from coloured import COLOURS, encoded
from fovea.search.library.library import Library
from fovea.search.library.marks import contents, mark

HEART = ".tile[data-index='{}'] .tile-heart"


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A server of 24 small pictures, and its library's folder."""
    place = tmp_path_factory.mktemp("kept")
    (place / "pictures").mkdir()
    for number in range(24):
        colour = [*COLOURS][number % len(COLOURS)]
        (place / "pictures" / f"{colour} {number:02}.png").write_bytes(encoded(colour, number))
    library = indexed(place / "library", place / "pictures")
    with served(library) as address:
        yield address, library


@pytest.fixture
def page(browser, kept):
    """The page of a library without marks and searches."""
    address, folder = kept
    with Library.open(folder) as library, library.transaction() as conn:
        conn.execute("DELETE FROM marks")
        conn.execute("DELETE FROM searches")
    with visited(browser, address) as page:
        page.wait_for_selector(".tile img")
        yield page


def pressed(page, index):
    return page.get_attribute(HEART.format(index), "aria-pressed")


def favourites(page):
    found = answer(page, "/api/search?q=is:favourite&limit=100")["hits"]
    return {hit["image_id"] for hit in found}


def wait_for_marks(page, kind, count):
    page.wait_for_function(
        """([kind, count]) => fetch(`/api/search?q=is:${kind}`).then((found) => found.json())
            .then((found) => found.total === count)""",
        arg=[kind, count],
    )


def test_a_heart_is_put_by_pointer_and_by_key_and_stays(page):
    ids = shown(page)
    page.hover(".tile[data-index='0']")
    page.click(HEART.format(0))
    assert pressed(page, 0) == "true"
    page.focus(".tile[data-index='1'] .tile-open")
    page.keyboard.press("f")
    assert pressed(page, 1) == "true"
    assert page.inner_text("#marks-said") == "Added to the favourites"
    wait_for_marks(page, "favourite", 2)
    assert favourites(page) == set(ids[:2])
    page.reload()
    page.wait_for_selector(".tile img")
    assert [pressed(page, place) for place in range(3)] == ["true", "true", "false"]
    page.focus(".tile[data-index='1'] .tile-open")
    page.keyboard.press("f")
    wait_for_marks(page, "favourite", 1)
    assert pressed(page, 1) == "false" and focused(page) == 1


def test_own_hearts_bring_no_new_search(page):
    searches = []
    page.on("request", lambda request: "/api/search?q=&" in request.url and searches.append(1))
    page.focus(".tile[data-index='2'] .tile-open")
    page.keyboard.press("f")
    wait_for_marks(page, "favourite", 1)
    page.wait_for_timeout(4000)
    assert searches == []


def test_what_others_mark_shows_by_itself(page, kept):
    first = shown(page)[0]
    with Library.open(kept[1]) as library:
        mark(library, contents(library, [first]).values(), "favourite", True)
    page.wait_for_selector(f"{HEART.format(0)}[aria-pressed=true]")
    with Library.open(kept[1]) as library:
        mark(library, contents(library, [first]).values(), "hidden", True)
    page.wait_for_selector(f".tile[data-image-id='{first}']", state="detached")


def test_a_refused_heart_is_taken_back(page):
    page.watch.expected.append("503")
    page.route("**/api/marks", lambda route: route.fulfill(status=503, body="{}"))
    page.focus(".tile[data-index='0'] .tile-open")
    page.keyboard.press("f")
    page.wait_for_selector(".toast.is-error:not(:empty)")
    assert pressed(page, 0) == "false"


def test_hiding_can_be_undone(page):
    ids = shown(page)
    page.focus(".tile[data-index='1'] .tile-open")
    page.keyboard.press("h")
    page.wait_for_selector(f".tile[data-image-id='{ids[1]}']", state="detached")
    assert shown(page)[:2] == [ids[0], ids[2]] and focused(page) == 1
    assert page.inner_text("#status").startswith("23")
    page.wait_for_selector(".toast:has-text('1 picture hidden Undo')")
    assert violations(page) == []
    page.click(".toast-action")
    page.wait_for_selector(f".tile[data-image-id='{ids[1]}'][data-index='1']")
    assert shown(page) == ids
    wait_for_marks(page, "hidden", 0)
    page.focus(".tile[data-index='0'] .tile-open")
    page.keyboard.press("h")
    wait_for_first(page, ids[1])
    page.keyboard.press("Control+z")
    wait_for_first(page, ids[0])
    assert shown(page) == ids


def test_hidden_pictures_are_listed_and_shown_again(page):
    ids = shown(page)
    page.focus(".tile[data-index='0'] .tile-open")
    page.keyboard.press("h")
    wait_for_marks(page, "hidden", 1)
    page.fill(BOX, "is:hidden")
    page.wait_for_function("() => document.querySelectorAll('.tile').length === 1")
    assert shown(page) == ids[:1]
    assert page.input_value("[name=shape]") == ""
    page.focus(".tile[data-index='0'] .tile-open")
    page.keyboard.press("h")
    page.wait_for_selector("#empty:not([hidden])")
    wait_for_marks(page, "hidden", 0)
    page.click(".chip-remove")
    wait_for_first(page, ids[0])


def test_the_selection_is_marked_and_hidden_at_once(page):
    ids = shown(page)
    for place in (0, 2, 3):
        page.focus(f".tile[data-index='{place}'] .tile-open")
        page.keyboard.press("x")
    page.click("#selection [data-action=favourite]")
    page.wait_for_selector(".toast:has-text('3 pictures added to the favourites')")
    assert favourites(page) == {ids[0], ids[2], ids[3]}
    page.keyboard.press("f")  # on one of them: all are favourites already
    page.wait_for_selector(".toast:has-text('3 pictures removed')")
    assert favourites(page) == set()
    page.click("#selection [data-action=hide]")
    page.wait_for_function("id => !document.querySelector(`[data-image-id='${id}']`)", arg=ids[0])
    assert shown(page)[:2] == [ids[1], ids[4]]
    assert page.is_hidden("#selection")
    page.click(".toast:has-text('3 pictures hidden') .toast-action")
    wait_for_first(page, ids[0])
    assert shown(page) == ids


def test_the_picture_view_marks_and_hides(page):
    ids = shown(page)
    open_first(page)
    page.keyboard.press("f")
    page.wait_for_selector("#detail [data-part=heart][aria-pressed=true]")
    wait_for_marks(page, "favourite", 1)
    assert violations(page) == []
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("#detail [data-part=heart][aria-pressed=false]")
    page.wait_for_url(f"**#image-{ids[1]}")
    page.keyboard.press("h")
    page.wait_for_url(f"**#image-{ids[2]}")
    page.wait_for_selector("#detail[data-state=ready]")
    assert page.inner_text("[data-part=position]") == "2 of 23"
    page.keyboard.press("Control+z")
    page.wait_for_function(
        "() => document.querySelector('[data-part=position]').textContent === '3 of 24'"
    )
    page.keyboard.press("Escape")
    wait_for_marks(page, "hidden", 0)
    assert shown(page) == ids and pressed(page, 0) == "true"


# Saved searches


def entries(page):
    return page.eval_on_selector_all(
        ".saved-link",
        "links => links.map((link) => [link.innerText.split('\\n')[0].trim(), "
        "link.dataset.query]).slice(2)",
    )


def save(page, query, name):
    page.fill(BOX, query)
    page.click("#open-saved")
    page.fill("#saved-name", name)
    page.keyboard.press("Enter")
    page.wait_for_selector(f".saved-name:has-text('{name}')")


def test_a_search_is_saved_under_a_name_and_opened(page):
    save(page, "red -is:square", "Red ones")
    assert entries(page) == [["Red ones", "red -is:square"]]
    assert page.is_hidden("#saved [data-part=new]")
    assert violations(page) == []
    page.keyboard.press("Escape")
    assert page.get_attribute("#open-saved", "aria-label") == "Saved as Red ones"
    page.fill(BOX, "blue")
    page.wait_for_url("**q=blue+-is*square")  # filters stay
    assert page.locator("#open-saved.is-saved").count() == 0
    page.click("#open-saved")
    page.click(".saved-link:has-text('Red ones')")
    page.wait_for_url("**q=red*")
    assert page.input_value(BOX) == "red"
    assert page.inner_text(".chip-name") == "not square"
    page.click("#open-saved")
    page.click(".saved-link:has-text('Favourites')")
    page.wait_for_url("**q=is*favourite")
    page.wait_for_selector("#empty:not([hidden])")


def test_a_name_that_is_taken_is_told(page):
    page.watch.expected.append("409")
    save(page, "red", "Colour")
    page.keyboard.press("Escape")
    page.fill(BOX, "blue")
    page.click("#open-saved")
    page.fill("#saved-name", "COLOUR")
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.querySelector('#saved-problem').textContent")
    assert "'Colour' already" in page.inner_text("#saved-problem")
    assert page.evaluate("document.activeElement.id") == "saved-name"
    assert page.get_attribute("#saved-name", "aria-invalid") == "true"


def test_searches_are_edited_ordered_deleted_and_brought_back(page):
    page.watch.expected.append("400")
    for number, name in enumerate(("One", "Two", "Three")):
        save(page, f"red {number}", name)
        page.keyboard.press("Escape")
    page.click("#open-saved")
    page.click("[aria-label='Edit Three']")
    page.fill(".saved-form [name=query]", "size:")
    page.keyboard.press("Enter")
    page.wait_for_selector(".saved-form .field-problem:not(:empty)")
    assert violations(page) == []
    page.fill(".saved-form [name=name]", "Third")
    page.fill(".saved-form [name=query]", "green")
    page.keyboard.press("Enter")
    page.wait_for_selector(".saved-name:has-text('Third')")
    assert entries(page) == [["One", "red 0"], ["Two", "red 1"], ["Third", "green"]]
    assert page.evaluate("document.activeElement.ariaLabel") == "Edit Third"
    page.keyboard.press("Enter")
    page.click(".saved-form [data-action=up]")
    page.wait_for_function(
        "() => document.querySelectorAll('.saved-item')[3].querySelector('form')"
    )
    page.click(".saved-form [data-action=cancel]")
    page.wait_for_selector(".saved-form", state="detached")
    assert [name for name, _ in entries(page)] == ["One", "Third", "Two"]
    page.click("[aria-label='Delete One']")
    page.wait_for_selector("[aria-label='Delete One']", state="detached")
    page.click(".toast:has-text('Deleted: One') .toast-action")
    page.wait_for_selector("[aria-label='Delete One']")
    assert [name for name, _ in entries(page)] == ["One", "Third", "Two"]


def test_all_is_exported_and_imported(page, tmp_path):
    save(page, "red", "Reds")
    with page.expect_download() as download:
        page.click("#saved a[download]")
    document = json.loads(download.value.path().read_text())
    assert [search["name"] for search in document["searches"]] == ["Reds"]
    document["searches"].append({"name": "Blues", "query": "blue"})
    file = tmp_path / "marks.json"
    file.write_text(json.dumps(document))
    page.set_input_files("#saved [data-part=file]", file)
    page.wait_for_selector(".saved-name:has-text('Blues')")
    page.wait_for_selector(".toast:has-text('Added: 0 favourites, 0 hidden, 1 searches')")


def test_a_search_with_pictures_from_elsewhere_is_not_saved(page, tmp_path):
    file = tmp_path / "red.png"
    file.write_bytes(encoded("red", 7))
    page.set_input_files("#picture-file", file)
    page.wait_for_selector(".chip-picture")
    page.click("#open-saved")
    assert page.is_hidden("#saved [data-part=new]")
    assert "kept for a while only" in page.inner_text("#saved [data-part=note]")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_in_chinese(browser, kept, scheme):
    address, folder = kept
    options = {
        "viewport": {"width": 360, "height": 720}, "has_touch": True, "is_mobile": True,
        "color_scheme": scheme, "locale": "zh-CN",
    }  # fmt: skip
    with Library.open(folder) as library:
        [(content,)] = library.rows("SELECT hash FROM images ORDER BY id LIMIT 1")
        mark(library, [content], "favourite", True)
    with visited(browser, f"{address}/?q=red", **options) as page:
        page.wait_for_selector(".tile img")
        assert violations(page) == []
        page.tap("#open-saved")
        page.wait_for_selector(".saved-item")
        assert page.inner_text("#saved-title") == "已保存的搜索"
        assert violations(page) == []
        sizes = page.eval_on_selector_all(
            "#saved button:not([hidden]), #saved .saved-link, #saved .saved-foot .button, "
            "#open-saved, #choose-picture",
            "found => found.filter((one) => one.checkVisibility()).map((one) => "
            "[one.className, one.getBoundingClientRect().height])",
        )
        assert [one for one in sizes if one[1] < 44] == []
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
