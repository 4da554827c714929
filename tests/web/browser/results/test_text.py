"""Text in pictures on the page: marks on tiles, lines to read and copy, and where they are."""

import io

import numpy as np
import pytest
from PIL import Image

from browsing import indexed, names, served, violations, visited
from fovea.search.analyses.stored import Done, store
from fovea.search.analyses.texts import Line, store_lines
from fovea.search.library.library import Library
from fovea.web.views.pages import messages

EN, ZH = messages("en"), messages("zh_Hans")
BOX = (0.25, 0.5, 0.75, 0.625)  # left, top, right and bottom of the line, upright
HOSTILE = "<img src=x onerror=alert(1)> \u202egnp.exe"
MANY = [f"Line {number} of very many in a long page" for number in range(60)]
SHAPES = {"upright.jpg": 1, "turned.jpg": 6, "mirrored.jpg": 4}  # EXIF orientations
STORED = {6: Image.Transpose.ROTATE_90, 4: Image.Transpose.FLIP_TOP_BOTTOM}
PHONES = [(375, "light", "en"), (320, "dark", "zh-CN")]


def drawn(path, orientation):
    """A picture of 800 × 600 upright, whose line is a red block, stored in some orientation."""
    image = Image.new("RGB", (800, 600), "navy")
    left, top, right, bottom = BOX
    image.paste("red", (int(800 * left), int(600 * top), int(800 * right), int(600 * bottom)))
    if orientation in STORED:
        image = image.transpose(STORED[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(path, exif=exif, quality=95)


def corners(left, top, right, bottom):
    return left, top, right, top, right, bottom, left, bottom


@pytest.fixture(scope="module")
def signs(tmp_path_factory):
    """The address of a server of pictures with text, as an engine would have read it."""
    place = tmp_path_factory.mktemp("signs")
    (place / "photos").mkdir()
    for name, orientation in SHAPES.items():
        drawn(place / "photos" / name, orientation)
    Image.new("RGB", (700, 900), "white").save(place / "photos" / "page.png")
    Image.new("RGB", (300, 300), "olive").save(place / "photos" / "plain.png")
    lines = {name: [Line("Boarding pass", 0.98, corners(*BOX))] for name in SHAPES}
    lines["upright.jpg"].append(Line(HOSTILE, 0.9, corners(0, 0, 1, 0.1)))
    lines["upright.jpg"].append(Line("登机牌", 0.9, corners(0, 0.9, 1, 1)))
    lines["page.png"] = [
        Line(line, 0.9, corners(0.1, n / 60, 0.9, (n + 1) / 60)) for n, line in enumerate(MANY)
    ]
    with Library.open(indexed(place / "library", place / "photos")) as library:
        rows = library.rows("SELECT path, image_id FROM files")
        known = {path.rpartition(b"/")[2].decode(): image_id for path, image_id in rows}
        done = [Done(known[name], found) for name, found in lines.items()]
        store(library, "text", "1", done, store_lines)
    with served(place / "library") as address:
        yield address


def show(page, name):
    page.evaluate("hash => { location.hash = hash }", f"#image-{names(page)[name]}")
    page.wait_for_selector("#detail[data-state=ready]")
    page.wait_for_function(
        "name => document.getElementById('detail-name').textContent === name", arg=name
    )
    if page.locator("[data-part=info]").is_hidden():
        page.click("[data-action=info]")


def red_box(page):
    """Left, top, right and bottom of what is red in the large picture, CSS pixels."""
    stage = page.locator("#detail [data-part=stage]").bounding_box()
    image = Image.open(io.BytesIO(page.screenshot(clip=stage))).convert("RGB")
    red, green, blue = np.moveaxis(np.asarray(image), 2, 0)
    rows, columns = np.nonzero((red > 180) & (green < 90) & (blue < 90))
    left, top = columns.min() + stage["x"], rows.min() + stage["y"]
    return [left, top, columns.max() + 1 + stage["x"], rows.max() + 1 + stage["y"]]


def mark_box(page, at=0):
    return page.eval_on_selector_all(
        ".detail-marks polygon",
        """(all, at) => {
            const { left, top, right, bottom } = all[at].getBoundingClientRect();
            return [left, top, right, bottom];
        }""",
        at,
    )


def lines(page):
    return page.locator(".detail-lines li").all_inner_texts()


def test_tiles_and_the_view_say_that_text_matches(browser, signs):
    with visited(browser, f"{signs}/?q=boarding+pass") as page:
        page.wait_for_selector(".tile img")
        marked = page.locator(".tile:has(.is-by-text)")
        assert marked.count() == len(SHAPES)
        assert page.locator(".tile-badge.is-by-text").first.inner_text() == EN["hits.by_text"]
        for label in marked.locator(".tile-open").all():
            assert EN["hits.by_text"] in label.get_attribute("aria-label")
        marked.first.locator(".tile-open").click()
        page.wait_for_selector("#detail[data-state=ready]")
        assert EN["hits.by_text"] in page.inner_text("#detail .facts")


def test_lines_are_read_and_copied_and_nothing_more(browser, signs):
    with visited(browser, signs, reduced_motion="reduce") as page:
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        page.wait_for_selector(".tile img")
        show(page, "upright.jpg")
        assert lines(page)[0] == "Boarding pass" and lines(page)[2] == "登机牌"
        assert "<img src=x" in lines(page)[1] and "\u202e" not in lines(page)[1]
        assert page.locator(".detail-lines img").count() == 0
        page.click(f"text={EN['detail.text_copy']}")
        page.wait_for_selector(f".toast >> text={EN['detail.text_copied']}")
        copied = page.evaluate("navigator.clipboard.readText()")
        assert copied == f"Boarding pass\n{HOSTILE}\n登机牌"
        assert violations(page) == []
        show(page, "plain.png")
        assert page.locator("#detail-text").is_hidden()
        assert page.locator(".detail-marks").count() == 0


@pytest.mark.parametrize("width", [1280, 375, 320])
@pytest.mark.parametrize("name", SHAPES)
def test_marks_lie_on_their_lines_at_every_size_and_turn(browser, signs, name, width):
    options = {"viewport": {"width": width, "height": 800}, "reduced_motion": "reduce"}
    with visited(browser, signs, **options) as page:
        page.wait_for_selector(".tile img")
        show(page, name)
        page.wait_for_function(
            "() => { const one = document.querySelector('.detail-large'); "
            "return one.complete && one.naturalWidth }"
        )
        page.evaluate("document.querySelector('.detail-bar').hidden = true")
        assert mark_box(page) == pytest.approx(red_box(page), abs=2.5)
        for _ in range(2):
            page.keyboard.press("+")
        page.wait_for_timeout(300)
        left, top, right, bottom = red_box(page)
        stage = page.locator("#detail [data-part=stage]").bounding_box()
        box = mark_box(page)
        box[0], box[2] = max(box[0], stage["x"]), min(box[2], stage["x"] + stage["width"])
        box[1], box[3] = max(box[1], stage["y"]), min(box[3], stage["y"] + stage["height"])
        assert box == pytest.approx([left, top, right, bottom], abs=2.5)


def test_marks_are_switched_on_by_the_keyboard_and_stay_for_the_next_picture(browser, signs):
    with visited(browser, signs, reduced_motion="reduce") as page:
        page.wait_for_selector(".tile img")
        show(page, "upright.jpg")
        stroke = "one => getComputedStyle(one).stroke"
        polygon = ".detail-marks polygon"
        assert page.eval_on_selector(polygon, stroke) == "none"
        button = page.locator("#detail button[aria-pressed]", has_text=EN["detail.text_mark"])
        button.focus()
        page.keyboard.press("Enter")
        assert button.get_attribute("aria-pressed") == "true"
        assert page.eval_on_selector(polygon, stroke) != "none"
        assert violations(page) == []
        show(page, "turned.jpg")
        assert page.eval_on_selector(polygon, stroke) != "none"
        assert page.locator(polygon).count() == 1
        button.click()
        assert page.eval_on_selector(polygon, stroke) == "none"


def test_a_line_that_is_pointed_at_stands_out(browser, signs):
    with visited(browser, signs, reduced_motion="reduce") as page:
        page.wait_for_selector(".tile img")
        show(page, "upright.jpg")
        page.hover(".detail-lines li:nth-child(3)")
        assert page.eval_on_selector_all(
            ".detail-marks polygon", "all => all.map((one) => one.classList.contains('is-pointed'))"
        ) == [False, False, True]
        page.hover("#detail-name")
        assert page.locator(".detail-marks .is-pointed").count() == 0


@pytest.mark.parametrize(("width", "scheme", "locale"), PHONES)
def test_a_long_text_scrolls_by_itself_on_a_phone(browser, signs, width, scheme, locale):
    options = {"viewport": {"width": width, "height": 700}, "has_touch": True, "is_mobile": True}
    options |= {"color_scheme": scheme, "locale": locale, "reduced_motion": "reduce"}
    said = ZH if locale == "zh-CN" else EN
    with visited(browser, signs, **options) as page:
        page.wait_for_selector(".tile img")
        show(page, "page.png")
        assert page.inner_text("#detail-text") == said["detail.text"]
        assert len(lines(page)) == len(MANY)
        part = ".detail-lines"
        assert page.eval_on_selector(part, "one => one.scrollHeight > one.clientHeight + 100")
        assert page.eval_on_selector(part, "one => one.getBoundingClientRect().height <= 320")
        assert page.eval_on_selector(part, "one => one.scrollWidth <= one.clientWidth")
        assert page.evaluate("document.scrollingElement.scrollWidth") <= width
        assert violations(page) == []


def test_the_filter_is_suggested_from_the_text_of_pictures(browser, signs):
    with visited(browser, signs) as page:
        page.wait_for_selector(".tile img")
        page.click("input[name=q]")
        page.keyboard.type("boarding pa")
        option = page.locator(".suggestion", has_text=EN["suggest.text"])
        option.wait_for()
        assert option.locator(".suggestion-label").inner_text() == "boarding pass"
        assert option.locator(".suggestion-count").inner_text() == "3"
        option.click()
        page.wait_for_selector(".chip.is-filter")
        assert page.inner_text(".chip.is-filter .chip-name") == "showing “boarding pass”"
        page.wait_for_function("() => document.querySelectorAll('.tile').length === 3")
