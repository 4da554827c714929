"""Searches by picture that an address keeps, and what is dropped on the page."""

import re
from contextlib import ExitStack

import pytest

from browsing import (
    BOX,
    drop,
    free_port,
    indexed,
    names,
    served,
    violations,
    visited,
    wait_for_first,
)
from coloured import encoded
from places import PHOTOS

CHIPS = "count => document.querySelectorAll('.chip').length === count"
TOAST = ".toast.is-error:not(:empty)"


def searched(page, *files, chips=1):
    drop(page, *files)
    page.wait_for_function(CHIPS, arg=chips)


def test_a_reload_and_another_tab_find_the_same(page):
    first = names(page)["p021.jpg"]
    searched(page, PHOTOS / "p021.jpg")
    wait_for_first(page, first)
    assert re.search(r"\?pictures=[0-9a-f]{64}$", page.url)
    page.reload()
    wait_for_first(page, first)
    page.wait_for_function(CHIPS, arg=1)
    assert page.inner_text(".chip-name") == "p021.jpg"
    loaded = "picture => picture.decode().then(() => picture.naturalWidth > 0)"
    assert page.eval_on_selector(".chip-picture", loaded)
    assert violations(page) == []
    other = page.context.new_page()
    other.goto(page.url)
    wait_for_first(other, first)
    other.wait_for_function(CHIPS, arg=1)  # of which this tab knows no name
    assert other.inner_text(".chip-name") == "your picture"


def test_sign_weight_and_words_stand_in_the_address(page):
    searched(page, PHOTOS / "p021.jpg", PHOTOS / "p052.jpg", chips=2)
    page.click(".chip:nth-child(1) .chip-sign")
    page.select_option(".chip:nth-child(2) .chip-weight", "2")
    page.fill(BOX, "dog in:nowhere")
    page.wait_for_url(re.compile(r"\?q=dog.*&pictures=-[0-9a-f]{64},2:[0-9a-f]{64}$"))
    page.reload()
    page.wait_for_function(CHIPS, arg=4)  # the words, two pictures, and the folder
    assert page.input_value(".chip:nth-child(3) .chip-weight") == "2"
    assert page.get_attribute(".chip:nth-child(2) .chip-sign", "aria-pressed") == "true"
    assert page.input_value(BOX) == "dog"


def test_an_address_with_a_picture_that_is_gone_says_so_and_what_to_do(page, gallery):
    page.watch.expected += ["status of 404", "status of 410"]
    page.goto(f"{gallery}/?pictures={'0' * 64}")
    said = "fovea no longer keeps your picture. Drop or choose it again, or remove it"
    page.wait_for_selector(f"#problem:has-text('{said}')")
    assert page.locator("#problem button").count() == 0
    page.click(".chip-remove")
    page.wait_for_selector(".tile")
    assert page.url == f"{gallery}/"


def test_a_saved_search_leaves_the_pictures_behind(page):
    searched(page, PHOTOS / "p021.jpg")
    page.click("#open-saved")
    assert "kept for a while only" in page.inner_text("#saved")
    page.click("[data-query='is:favourite']")
    page.wait_for_selector(".chip.is-filter:has-text('favourite')")
    assert page.locator(".chip").count() == 1
    assert "pictures=" not in page.url


def test_a_page_sends_its_pictures_again_to_a_server_that_was_restarted(browser, tmp_path):
    (tmp_path / "pictures").mkdir()
    for name in ("red", "lime", "blue"):
        (tmp_path / "pictures" / f"{name}.png").write_bytes(encoded(name))
    library, port = indexed(tmp_path / "library", tmp_path / "pictures"), free_port()
    with ExitStack() as first, ExitStack() as second:
        address = first.enter_context(served(library, port=port))
        with visited(browser, address) as page:
            page.watch.expected += ["ERR_", "status of 410"]
            found = names(page)
            searched(page, tmp_path / "pictures" / "blue.png")
            wait_for_first(page, found["blue.png"])
            first.close()
            second.enter_context(served(library, port=port))
            page.fill(BOX, "name:blue")
            page.wait_for_url(re.compile("blue"))
            wait_for_first(page, found["blue.png"])
            page.wait_for_function("() => document.querySelectorAll('.tile').length === 1")
            assert page.locator("#problem").is_hidden()


# What is dropped


def dropped(page, data, folder=None, place="body"):
    """Drop data of these types; return whether the page took the event for itself."""
    return page.evaluate(
        """([data, folder, place]) => {
            const dataTransfer = new DataTransfer();
            for (const [type, text] of Object.entries(data)) dataTransfer.setData(type, text);
            if (folder) {
                dataTransfer.items.add(new File([""], folder));
                DataTransferItem.prototype.webkitGetAsEntry = () =>
                    ({ isDirectory: true, name: folder });
            }
            const options = { bubbles: true, cancelable: true, dataTransfer };
            const target = document.querySelector(place);
            const send = (name) => !target.dispatchEvent(new DragEvent(name, options));
            return ["dragenter", "dragover", "drop"].map(send).at(-1);
        }""",
        [data, folder, place],
    )


PICTURE = {
    "text/uri-list": "https://example.org/cat.php?id=3",
    "text/html": '<meta charset="utf-8"><img src="https://example.org/cat.php?id=3">',
}


@pytest.mark.parametrize("place", ["body", BOX])
def test_a_picture_of_another_page_is_refused_with_what_to_do(page, place):
    before = page.url
    assert dropped(page, PICTURE, place=place)
    page.wait_for_selector(TOAST)
    assert "Save the picture first, or copy it there and paste it here" in page.inner_text(TOAST)
    assert (page.url, page.input_value(BOX)) == (before, "")


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("https://example.org/cat.jpg?size=large", "fovea opens no other pages"),
        ("https://example.org/", "This is a link, not a picture"),
        ("file:///home/me/cat.jpg", "The browser does not hand over this file"),
    ],
)
def test_an_address_is_refused_with_the_reason(page, address, said):
    assert dropped(page, {"text/uri-list": address})
    page.wait_for_selector(TOAST)
    assert said in page.inner_text(TOAST)


def test_text_and_a_link_into_the_box_are_left_to_the_browser(page):
    assert not dropped(page, {"text/plain": "a dog"})
    assert not dropped(page, {"text/uri-list": "https://example.org/"}, place=BOX)
    assert page.locator(TOAST).count() == 0


def test_a_folder_is_told_from_a_picture(page):
    assert dropped(page, {}, folder="Holidays")
    page.wait_for_selector(TOAST)
    assert page.inner_text(TOAST).startswith("Holidays is a folder.")


def test_several_files_that_are_no_pictures_are_told_in_one_line(page):
    page.evaluate(
        """() => {
            const dataTransfer = new DataTransfer();
            for (const name of ["a.txt", "b.txt"]) dataTransfer.items.add(new File(["x"], name));
            const options = { bubbles: true, cancelable: true, dataTransfer };
            document.body.dispatchEvent(new DragEvent("drop", options));
        }"""
    )
    page.wait_for_selector(TOAST)
    assert page.inner_text(TOAST) == "2 files are not pictures, a.txt among them."


def test_more_pictures_than_a_query_takes_are_said_to_be_left_out(page):
    searched(page, *sorted(PHOTOS.glob("*.jpg"))[:6], chips=6)
    drop(page, *sorted(PHOTOS.glob("*.jpg"))[6:12])
    page.wait_for_selector(TOAST)
    assert page.inner_text(TOAST) == "Only the first 8 pictures are used."
    page.wait_for_function(CHIPS, arg=8)
