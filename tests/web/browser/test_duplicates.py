"""Groups of copies in the page: shown side by side, selected, copied, and written into a script."""

import json
import re
import subprocess
from datetime import datetime, timedelta

import pytest
from PIL import Image

from browsing import chromium, indexed, served, violations, visited
from places import PHOTOS

PHONE = {"viewport": {"width": 320, "height": 640}, "has_touch": True, "is_mobile": True}
COUNT = "#selection [data-part=count]"


@pytest.fixture(scope="module")
def copies(tmp_path_factory):
    """A server of two groups of copies and a burst, among other pictures."""
    chromium()  # skips before indexing
    home = tmp_path_factory.mktemp("copies")
    folder = home / "Photos"
    folder.mkdir()
    for number, photo in enumerate(sorted(PHOTOS.glob("*.jpg"))[:6]):
        with Image.open(photo) as picture:
            image = picture.convert("RGB")
        image.thumbnail((900, 900))
        if number < 5:
            image.save(folder / f"p{number}.jpg", quality=92)
        if number < 2:
            image.resize((image.width // 2, image.height // 2)).save(
                folder / f"p{number}-small.png"
            )
            image.save(folder / f"p{number}-again.webp", quality=40)
        if number == 0:
            (folder / "p0-twin.jpg").write_bytes((folder / "p0.jpg").read_bytes())
        if number == 5:
            for shot in range(3):
                exif = Image.Exif()
                exif[0x110] = "Toy 1"
                when = datetime(2024, 7, 1, 12) + timedelta(seconds=shot)
                exif.get_ifd(0x8769)[0x9003] = f"{when:%Y:%m:%d %H:%M:%S}"
                moved = image.crop((shot * 8, 0, image.width - 16 + shot * 8, image.height))
                moved.save(folder / f"burst{shot}.jpg", exif=exif, quality=92)
    library = indexed(home / "library", folder)
    with served(library) as address:
        yield address + "/duplicates"


@pytest.fixture
def page(browser, copies):
    with visited(browser, copies) as page:
        page.wait_for_selector(".copies-group")
        yield page


def names(page, group=0):
    return page.locator(".copies-group").nth(group).locator(".copy-open + * .copy-name")


def test_a_group_shows_its_pictures_and_what_the_others_lack(page):
    assert page.locator(".copies-group").count() == 2
    group = page.locator(".copies-group").filter(has_text="p0.jpg")
    assert "4 files of one picture" in group.locator("h3").inner_text()
    pictures = group.locator(".copy")
    assert pictures.count() == 3  # equal files are one
    best = pictures.nth(0)
    assert best.locator("strong").inner_text() == "Best"
    assert "most pixels" in best.locator(".copy-why").inner_text()
    assert best.locator("details").count() == 1
    small = group.locator(".copy", has_text="p0-small.png")
    assert "fewer pixels" in small.locator(".copy-why").inner_text()
    assert group.locator("strong").count() == 1
    said = page.inner_text("#copies [data-part=status]")
    assert re.match(
        r"2 groups of copies among \d+ pictures; all but the best take .+\s[kM]B\.$", said
    )
    page.wait_for_function(
        "() => [...document.querySelectorAll('.copy img')].every(i => i.naturalWidth)"
    )


def test_bursts_are_a_kind_of_their_own(page):
    page.click("[data-kind=bursts]")
    page.wait_for_selector(".copies-group")
    assert page.get_attribute("[data-kind=bursts]", "aria-current") == "page"
    assert page.locator(".copy").count() == 3
    assert "3 pictures of a burst" in page.inner_text(".copies-group h3")


def test_all_but_the_best_are_selected_in_one_group_or_in_all(page):
    group = page.locator(".copies-group").filter(has_text="p0.jpg")
    button = group.locator("[data-action=select-group]")
    button.click()
    assert page.inner_text(COUNT) == "2 selected"
    assert button.get_attribute("aria-pressed") == "true"
    boxes = group.locator("input[type=checkbox]")
    assert [boxes.nth(at).is_checked() for at in range(3)] == [False, True, True]
    boxes.nth(0).check()
    assert page.inner_text(COUNT) == "3 selected"
    button.click()
    assert page.inner_text(COUNT) == "1 selected"
    page.click("[data-action=select-others]")
    page.wait_for_function(f"() => document.querySelector('{COUNT}').textContent === '4 selected'")
    assert page.locator(".copy.is-selected").count() == 4
    assert page.locator(".copy.is-best.is-selected").count() == 0
    page.click("#selection [data-action=clear]")
    assert page.locator(".copy.is-selected").count() == 0


def test_the_script_of_a_selection_names_what_is_selected_alone(page, tmp_path):
    page.locator(".copies-group").filter(has_text="p1.jpg").locator(
        "[data-action=select-group]"
    ).click()
    with page.expect_download() as coming:
        page.click("#selection [data-action=script]")
    lines = spared(coming.value, tmp_path)
    assert len(lines) == 2 and all(b"p1-" in line for line in lines)
    with page.expect_download() as coming:
        page.click("#copies [data-action=script-others]")
    assert len(spared(coming.value, tmp_path)) == 5
    with page.expect_download() as coming:
        page.click("#copies [data-action=script-same]")
    [line] = spared(coming.value, tmp_path)
    assert b"p0-twin.jpg" in line and b"p0.jpg" in line


def spared(download, folder):
    path = folder / download.suggested_filename
    download.save_as(path)
    said = subprocess.run(["sh", path], capture_output=True)
    assert said.returncode == 0 and b"would go" in said.stderr
    return [line for line in path.read_bytes().split(b"\n") if line.startswith(b"spare ")]


def test_paths_are_copied(page):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.click("#copies [data-action=copy-others]")
    page.wait_for_selector(".toast")
    text = page.evaluate("navigator.clipboard.readText()")
    assert len(text.split("\n")) == 5
    page.locator("[data-action=select-group]").first.click()
    page.click("#selection [data-action=copy-chosen]")
    page.wait_for_function(
        "async () => (await navigator.clipboard.readText()).split('\\n').length === 2"
    )


def test_the_keyboard_reaches_everything(page):
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("ArrowDown")
    at = "document.activeElement.closest('.copy')?.querySelector('.copy-name').textContent"
    first = page.evaluate(at)
    page.keyboard.press("ArrowRight")
    assert page.evaluate(at) != first
    page.keyboard.press("x")
    assert page.inner_text(COUNT) == "1 selected"
    page.keyboard.press("x")
    page.keyboard.press("a")
    assert page.inner_text(COUNT) == "2 selected"
    page.keyboard.press("ArrowDown")
    assert page.evaluate("[...document.querySelectorAll('.copies-group')].indexOf("
                         "document.activeElement.closest('.copies-group'))") == 1  # fmt: skip
    page.keyboard.press("Control+a")
    page.wait_for_function(f"() => document.querySelector('{COUNT}').textContent === '4 selected'")
    page.keyboard.press("Enter")
    page.wait_for_selector("#detail[data-state=ready]")
    page.keyboard.press("ArrowRight")
    page.wait_for_function("() => history.state.index === 2")
    page.keyboard.press("Escape")
    page.wait_for_selector("#detail", state="hidden")
    page.keyboard.press("Escape")
    assert page.locator("#selection").is_hidden()


def test_a_search_leads_to_the_grid_and_the_library_leads_back(page, copies):
    page.fill("input[name=q]", "a keyboard")
    page.wait_for_timeout(600)
    assert page.url == copies
    page.keyboard.press("Enter")
    page.wait_for_url("**/?q=a+keyboard")
    page.wait_for_selector("html[data-ready] .tile", state="attached")
    page.click("#open-library")
    page.click("#library .drawer-link")
    page.wait_for_url("**/duplicates")
    page.wait_for_selector(".copies-group")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("screen", [{}, PHONE], ids=["wide", "phone"])
def test_everyone_can_use_it(browser, copies, scheme, screen):
    options = {"color_scheme": scheme, "reduced_motion": "reduce", **screen}
    with visited(browser, copies, **options) as page:
        page.wait_for_selector(".copies-group")
        assert violations(page) == []
        page.locator("[data-action=select-group]").first.click()
        page.wait_for_selector("#selection:not([hidden])")
        assert violations(page) == []
        assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")


def test_it_is_there_in_chinese(browser, copies):
    with visited(browser, copies, locale="zh-CN") as page:
        page.wait_for_selector(".copies-group")
        text = page.inner_text("#copies")
        assert "最佳" in text and "像素较少" in text
        assert not re.search(r"\bcopies\.[a-z]", text), "a key without a text"


def invented(count, first, limit):
    def file(image_id, name):
        return {
            "image_id": image_id, "name": name, "path": f"/p/{name}", "thumbnail": "/icon",
            "offline": False, "width": 30, "height": 20, "format": "PNG", "bytes": 1000,
            "taken_at": None, "sharpness": 1.0, "lacks": [],
        }  # fmt: skip

    groups = [
        {
            "kind": "copies", "best": file(3 * at + 1, f"b{at}.png"), "count": 1,
            "others": [file(3 * at + 2, f"o{at}.png")],
        }
        for at in range(first, min(first + limit, count))
    ]  # fmt: skip
    counted = {"groups": count, "files": count, "bytes": 1000 * count, "same": 0}
    return {
        "ready": True, "progress": 1, "state": 7, "pictures": 9, "waiting": 3, "total": count,
        "counts": {"copies": counted, "bursts": counted | {"groups": 0}}, "groups": groups,
    }  # fmt: skip


def test_thousands_of_groups_come_as_they_are_scrolled_to(browser, copies):
    asked = []

    def answer(route):
        values = dict(pair.split("=") for pair in route.request.url.split("?")[1].split("&"))
        asked.append(int(values["offset"]))
        document = invented(3000, int(values["offset"]), int(values["limit"]))
        if len(asked) == 1:
            document |= {"ready": False, "progress": 0.3, "state": 0, "groups": []}
        if len(asked) == 4:
            return route.fulfill(status=500, json={"title": "no", "status": 500, "detail": "Busy"})
        return route.fulfill(json=document)

    with visited(browser, "about:blank") as page:
        page.watch.expected += ["icon", "500"]
        page.route("**/api/duplicates?*", answer)
        page.goto(copies)
        page.wait_for_selector("#copies progress")
        assert page.eval_on_selector("#copies progress", "bar => bar.value") == 0.3
        page.wait_for_selector(".copies-group")
        page.wait_for_timeout(500)
        assert asked[:2] == [0, 0] and len(asked) < 8
        assert page.locator(".copies-group").count() < 300
        assert "3 pictures were compared by content alone" in page.inner_text("#copies")
        page.wait_for_function(
            "() => (scrollTo(0, 1e9), !document.querySelector('#copies .problem').hidden)"
        )
        before = page.locator(".copies-group").count()
        page.click("#copies [data-action=retry]")
        page.wait_for_function(
            "before => document.querySelectorAll('.copies-group').length > before", arg=before
        )
        offsets = [at for at in asked[1:]]
        assert offsets == sorted(offsets)
        assert (
            json.dumps(page.eval_on_selector(".copies-group", "one => one.ariaSetSize")) == '"3000"'
        )


def test_keys_work_at_once_and_the_help_has_them(page):
    page.keyboard.press("?")
    page.wait_for_selector("#help[open] #help-copies")
    page.keyboard.press("Escape")
    page.wait_for_selector("#help:not([open])", state="attached")
    page.keyboard.press("ArrowDown")
    assert page.locator(".copies-group .copy-open:focus").count() == 1
    page.keyboard.press("/")
    assert page.locator("input[name=q]:focus").count() == 1
