"""The library's panel: folders come, are indexed before one's eyes, and go."""

import shutil
from pathlib import Path

import pytest
from PIL import Image

from browsing import answer, indexed, names, served, shown, visited, wait_for_first
from places import PHOTOS


@pytest.fixture
def pictures(tmp_path):
    """A folder of three photographs and a file that is none."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("p021.jpg", "p052.jpg", "p080.jpg"):
        shutil.copy(PHOTOS / name, folder)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff not a picture")
    return folder


@pytest.fixture(scope="module")
def turned(tmp_path_factory):
    """A server for a JPEG that lies on its side, and a TIFF: red over blue once it is upright."""
    place = tmp_path_factory.mktemp("turned")
    upright = Image.new("RGB", (120, 200), "red")
    upright.paste("blue", (0, 100, 120, 200))
    orientation = Image.Exif()
    orientation[0x0112] = 6  # to be turned a quarter clockwise
    folder = place / "pictures"
    folder.mkdir()
    lying = upright.transpose(Image.Transpose.ROTATE_90)
    lying.save(folder / "lying.jpg", exif=orientation, quality=95)
    upright.save(folder / "scan.tiff")
    with served(indexed(place / "library", folder)) as address:
        yield address


@pytest.mark.parametrize("name", ["lying.jpg", "scan.tiff"])
def test_pictures_of_all_kinds_are_shown_upright(browser, turned, name):
    with visited(browser, f"{turned}/?q=name:{name}") as page:
        wait_for_first(page, names(page)[name])
        page.click(".tile[data-index='0'] .tile-open")
        page.wait_for_selector(".detail-picture.is-sharp")
        for picture in (".tile img", ".detail-large"):
            width, height, top, bottom = page.eval_on_selector(picture, PIXELS)
            assert height > width
            assert top[0] > 180 > 80 > top[2] and bottom[2] > 180 > 80 > bottom[0]


def test_a_scan_names_the_folder_that_cannot_be_reached(browser, turned):
    with visited(browser, turned) as page:
        folder = Path(answer(page, "/api/roots")["roots"][0]["path"])
        elsewhere = folder.rename(folder.with_name("elsewhere"))
        try:
            page.click("#open-library")
            page.click("[data-action=rescan]")
            page.wait_for_selector(".toast.is-error:not(:empty)")
            assert str(folder) in page.inner_text(".toast")
        finally:
            elsewhere.rename(folder)


PIXELS = """(picture) => {
    const canvas = document.createElement("canvas");
    const { naturalWidth: width, naturalHeight: height } = picture;
    Object.assign(canvas, { width, height });
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(picture, 0, 0);
    const at = (part) => [...context.getImageData(width / 2, height * part, 1, 1).data];
    return [width, height, at(0.25), at(0.75)];
}"""


@pytest.fixture
def page(browser, tmp_path):
    """The page of an empty library, its panel open."""
    with served(tmp_path / "library", model="fovea-small") as address:
        with visited(browser, address) as page:
            page.click("#open-library")
            page.wait_for_selector("#library[open]")
            yield page


def add(page, folder):
    page.fill("#add-path", str(folder))
    page.keyboard.press("Enter")


def test_an_empty_library_offers_no_empty_menu_and_a_box_for_a_folder(page):
    page.keyboard.press("Escape")
    menus = page.locator("#filters select")
    page.wait_for_selector("#filters [name=folder]", state="hidden")
    assert [menu.get_attribute("name") for menu in menus.all() if menu.is_visible()] == [
        "shape",
        "sort",
    ]
    page.click("#empty button")
    page.wait_for_selector("#library[open]")
    assert page.evaluate("document.activeElement.id") == "add-path"


def test_a_folder_is_added_indexed_rescanned_and_removed(page, pictures):
    add(page, pictures)
    page.wait_for_selector(".root")
    assert page.inner_text(".root-path") == str(pictures)
    page.wait_for_selector(".toast:not(:empty)")  # indexing is done
    page.wait_for_selector(".tile img", state="attached")  # without a reload
    assert len(shown(page)) == 3

    page.click(".failures[data-state=failed] summary")
    page.wait_for_selector(".failures li")
    assert "broken.jpg" in page.inner_text(".failures[data-state=failed] ul")
    assert page.locator(".failures[data-state=skipped]").is_hidden()

    shutil.copy(PHOTOS / "p043.jpg", pictures)
    page.click("[data-action=rescan]")
    page.wait_for_function("() => document.querySelectorAll('.tile').length === 4")
    page.keyboard.press("Escape")
    page.fill("input[name=q]", "name:p043")
    wait_for_first(page, names(page)["p043.jpg"])

    page.click("#open-library")
    page.click("[data-action=remove]")
    page.wait_for_selector("#confirm-remove[open]")
    assert str(pictures) in page.inner_text("#confirm-remove")
    page.keyboard.press("Escape")  # after all not
    assert len(answer(page, "/api/roots")["roots"]) == 1
    page.click("[data-action=remove]")
    page.click("#confirm-remove [value=remove]")
    page.wait_for_selector(".root", state="detached")
    assert answer(page, "/api/roots")["roots"] == []
    assert sorted(path.name for path in pictures.iterdir()) == [
        "broken.jpg", "p021.jpg", "p043.jpg", "p052.jpg", "p080.jpg"
    ]  # fmt: skip


def test_what_failed_and_what_was_passed_over_are_counted_and_listed_apart(page, pictures):
    for name in ("one.jpg", "two.jpg"):
        (pictures / name).symlink_to("p021.jpg")
    add(page, pictures)
    page.wait_for_selector(".failures[data-state=skipped]")
    for state, names_ in (("failed", ["broken.jpg"]), ("skipped", ["one.jpg", "two.jpg"])):
        section = f".failures[data-state={state}]"
        assert page.inner_text(f"{section} summary").endswith(f": {len(names_)}")
        page.click(f"{section} summary")
        page.wait_for_selector(f"{section} li")
        paths = page.locator(f"{section} .failure-path").all_inner_texts()
        assert paths == [str(pictures / name) for name in names_]


@pytest.mark.parametrize("path", ["/", "/nowhere/at/all"])
def test_what_is_no_folder_of_pictures_is_refused_beside_the_box(page, path):
    page.watch.expected.append("status of 4")
    add(page, path)
    page.wait_for_selector("#add-problem:not(:empty)")
    assert page.get_attribute("#add-path", "aria-invalid") == "true"
    assert page.evaluate("document.activeElement.id") == "add-path"
