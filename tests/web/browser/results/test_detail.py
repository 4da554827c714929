"""The picture view: what its facts lead to, what it does with a file, formats of all kinds."""

import os
import shutil
from urllib.parse import parse_qs, urlsplit

import pytest
from PIL import Image

from browsing import answer, indexed, names, open_first, served, violations, visited
from fovea.web.views.pages import messages

TEXTS = messages("en")
PORTUGAL = "2019 Portugal"
SIZE = (2400, 1600)
LINK = "#detail a[data-query^='{}:']"


def exif(day, orientation=1):
    made = Image.Exif()
    made[0x010F], made[0x0110], made[0x0112] = "Canon", "Canon EOS R6", orientation
    inner = made.get_ifd(0x8769)
    inner |= {0x9003: f"2019:10:{day:02d} 15:04:05", 0xA434: "RF50mm F1.8 STM"}
    inner |= {0x829A: 0.004, 0x829D: 2.8, 0x8827: 100, 0x920A: 50.0}
    made.get_ifd(0x8825).update({1: "N", 2: (38.0, 42.0, 50.4), 3: "W", 4: (9.0, 8.0, 21.0)})
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four pictures of a journey, of which browsers show two, and one without metadata."""
    place = tmp_path_factory.mktemp("detail") / "photos"
    (place / PORTUGAL).mkdir(parents=True)
    picture = Image.linear_gradient("L").resize(SIZE).convert("RGB")
    picture.paste("red", (0, 0, 300, 300))
    picture.save(place / PORTUGAL / "b.tif", exif=exif(2, orientation=6), compression="tiff_lzw")
    picture.resize((600, 400)).save(place / PORTUGAL / "c.jpg", exif=exif(3))
    Image.new("RGB", (300, 600), "teal").save(place / PORTUGAL / 'it\'s; 100% "d".png')
    pytest.importorskip("pillow_heif").register_heif_opener()
    picture.rotate(180).save(place / PORTUGAL / "a.heic", exif=exif(1), quality=60)
    Image.new("RGB", (300, 300), "olive").save(place / "plain.png")
    return place


@pytest.fixture(scope="module")
def journey(folder, tmp_path_factory):
    """The address of a server of these, at a desktop whose file manager notes what it is shown."""
    place = tmp_path_factory.mktemp("desktop")
    program = place / "bin" / "gdbus"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\nprintf '%s\\n' \"$@\" >> '{place / 'noted'}'\n")
    program.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
        patch.setenv("DISPLAY", ":9")
        with served(indexed(place / "library", folder)) as address:
            yield address, place / "noted"


@pytest.fixture
def page(browser, journey):
    with visited(browser, journey[0], reduced_motion="reduce") as page:
        page.wait_for_selector(".tile img")
        yield page


def show(page, name):
    page.evaluate("hash => { location.hash = hash }", f"#image-{names(page)[name]}")
    page.wait_for_selector("#detail[data-state=ready]")
    page.wait_for_function(
        "name => document.getElementById('detail-name').textContent === name", arg=name
    )


def query(href):
    [text] = parse_qs(urlsplit(href).query)["q"]
    return text


# What the facts lead to


@pytest.mark.parametrize(
    ("key", "written", "found"),
    [
        ("in", 'in:"{folder}/2019 Portugal"', 4),
        ("on", "on:2019-10-03", 1),
        ("camera", 'camera:"Canon EOS R6"', 3),
        ("lens", 'lens:"RF50mm F1.8 STM"', 2),
        ("near", "near:38.71400,-9.13917,1km", 2),
    ],
)
def test_a_fact_is_a_link_to_all_pictures_that_share_it(page, folder, key, written, found):
    written = written.format(folder=folder)
    show(page, "c.jpg")
    link = page.locator(LINK.format(key)).first
    assert query(link.get_attribute("href")) == written
    assert answer(page, f"/api/search?{urlsplit(link.get_attribute('href')).query}")["total"] == (
        found + (key in ("lens", "near")) * has_tiff_facts(page)
    )
    link.click()
    page.wait_for_selector("#detail", state="hidden")
    page.wait_for_function(
        "text => new URLSearchParams(location.search).get('q') === text && !location.hash",
        arg=written,
    )
    page.go_back()
    page.wait_for_function("() => !location.search")


def has_tiff_facts(page):
    """Whether the lens and place of the TIFF are known: not every Pillow writes them."""
    return answer(page, f"/api/images/{names(page)['b.tif']}")["lens"] is not None


def test_such_a_link_opens_in_a_tab_of_its_own(page):
    show(page, "c.jpg")
    with page.context.expect_page() as opened:
        page.locator(LINK.format("camera")).click(modifiers=["Control"])
    opened.value.wait_for_selector(".tile img")
    assert query(opened.value.url) == 'camera:"Canon EOS R6"'
    assert page.locator("#detail").is_visible()


def test_a_picture_without_metadata_has_links_only_to_what_is_known(page, folder):
    show(page, "plain.png")
    keys = page.eval_on_selector_all(
        "#detail a[data-query]", "links => links.map(link => link.dataset.query.split(':')[0])"
    )
    assert [key for key in keys if key != "on"] == ["in"] and keys.count("on") == 2


def test_a_picture_is_viewed_in_the_timeline(page):
    show(page, "c.jpg")
    link = page.locator("#detail a[data-date]")
    assert link.inner_text() == TEXTS["detail.timeline"]
    assert link.get_attribute("data-date") == "2019-10-03"
    page.keyboard.press("t")
    page.wait_for_selector("#detail", state="hidden")
    page.wait_for_function("() => !location.search && !location.hash")
    page.wait_for_selector(f".tile[data-image-id='{names(page)['c.jpg']}']")


def test_numbers_stay_with_their_units(browser, journey):
    with visited(browser, journey[0], locale="en-US") as page:
        page.wait_for_selector(".tile img")
        show(page, "c.jpg")
        facts = page.text_content("[data-part=facts]")
        for together in ("3:04 PM", "October 3", "ISO 100", "50 mm", "1/250 s", "600 × 400",
                         "RF50mm F1.8 STM", "38.71400° N"):  # fmt: skip
            assert together.replace(" ", "\u00a0") in facts, together
        assert "\u00a0kB" in facts and " at 3" in facts


# What one does with a file


def test_a_file_is_shown_in_its_folder_with_whatever_name(page, journey, folder):
    name = 'it\'s; 100% "d".png'
    show(page, name)
    page.click("#detail [data-action=show]")
    page.wait_for_selector(f".toast >> text={TEXTS['detail.shown']}")
    said = journey[1].read_text().splitlines()[-2:]
    address = "it%27s%3B%20100%25%20%22d%22.png"
    assert said == [f"['{(folder / PORTUGAL).as_uri()}/{address}']", "''"]


def test_a_failing_file_manager_is_told(page):
    page.watch.expected.append("501")
    page.route("**/show", lambda route: route.fulfill(
        status=501, content_type="application/problem+json", body='{"detail": "No desktop"}'
    ))  # fmt: skip
    show(page, "c.jpg")
    page.click("#detail [data-action=show]")
    page.wait_for_selector(".toast.is-error >> text=No desktop")


@pytest.mark.skipif(shutil.which("gdbus") is None, reason="no D-Bus on this machine")
def test_without_a_desktop_or_from_elsewhere_it_is_not_offered(browser, folder, tmp_path):
    library = indexed(tmp_path / "library", folder)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("DISPLAY", "WAYLAND_DISPLAY"):
            patch.delenv(name, raising=False)
        with served(library) as address, visited(browser, address) as page:
            page.wait_for_selector(".tile img")
            open_first(page)
            assert page.locator("#detail [data-action=show]").count() == 0
            assert page.locator("#detail [data-action=copy-path]").is_visible()


def test_the_original_is_opened_and_downloaded(page, folder):
    show(page, "c.jpg")
    original = f"/api/images/{names(page)['c.jpg']}/original"
    assert page.get_attribute("#detail [data-part=open]", "href") == original
    assert page.inner_text("#detail [data-part=open]") == TEXTS["detail.open_original"]
    with page.context.expect_page() as opened:
        page.keyboard.press("o")
    opened.value.wait_for_load_state()
    assert urlsplit(opened.value.url).path == original
    with page.expect_download() as expected:
        page.keyboard.press("d")
    assert expected.value.suggested_filename == "c.jpg"
    assert expected.value.path().read_bytes() == (folder / PORTUGAL / "c.jpg").read_bytes()


@pytest.mark.parametrize(("name", "size"), [("a.heic", SIZE), ("b.tif", SIZE[::-1])])
def test_what_browsers_do_not_show_is_opened_and_zoomed_as_jpeg(page, folder, name, size):
    show(page, name)
    page.wait_for_selector(".detail-picture.is-sharp")
    long = "Math.max(...(({naturalWidth, naturalHeight}) => [naturalWidth, naturalHeight])(large))"
    large = f"(() => {{ const large = document.querySelector('.detail-large'); return {long} }})()"
    assert page.evaluate(large) == 2048
    assert page.inner_text("#detail [data-part=open]") == TEXTS["detail.open_jpeg"]
    address = page.get_attribute("#detail [data-part=open]", "href")
    with page.context.expect_page() as opened:
        page.keyboard.press("o")
    opened.value.wait_for_load_state()
    image = "(({naturalWidth, naturalHeight}) => [naturalWidth, naturalHeight])(document.images[0])"
    assert opened.value.evaluate(image) == list(size)
    opened.value.close()
    with page.expect_request(f"**{address}"):
        for _ in range(4):
            page.keyboard.press("+")
    page.wait_for_function("() => document.querySelector('.detail-large').src.includes('/picture')")
    page.wait_for_function("() => document.querySelector('.detail-large').naturalWidth > 1500")
    assert page.evaluate(large) == max(SIZE)
    with page.expect_download() as expected:
        page.keyboard.press("d")
    assert expected.value.path().read_bytes() == (folder / PORTUGAL / name).read_bytes()


def test_a_file_that_the_browser_fails_to_show_is_opened_as_jpeg_too(page):
    page.watch.expected.append("Failed to load resource")
    page.route("**/original", lambda route: route.abort())
    show(page, "c.jpg")
    page.wait_for_function(
        "() => document.querySelector('#detail [data-part=open]').href.includes('/picture')"
    )
    page.wait_for_selector(".detail-picture.is-sharp")


@pytest.mark.parametrize(("name", "size"), [("c.jpg", (600, 400)), ("b.tif", SIZE[::-1])])
def test_a_picture_is_copied_as_png(page, name, size):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    show(page, name)
    page.click("#detail [data-action=copy-image]")
    page.wait_for_selector(f".toast >> text={TEXTS['copy.image_copied']}")
    copied = page.evaluate(
        """async () => {
            const [item] = await navigator.clipboard.read();
            const { width, height } = await createImageBitmap(await item.getType("image/png"));
            return [width, height];
        }"""
    )
    assert copied == list(size)


@pytest.mark.parametrize(
    ("lack", "said"),
    [
        ("Object.defineProperty(navigator, 'clipboard', { value: undefined })", "copy.no_images"),
        ("navigator.clipboard.write = async () => { throw new Error() }", "copy.refused"),
    ],
)
def test_a_browser_that_copies_no_pictures_says_so(page, lack, said):
    show(page, "c.jpg")
    page.evaluate(f"() => {{ {lack} }}")
    page.click("#detail [data-action=copy-image]")
    page.wait_for_selector(f".toast.is-error >> text={TEXTS[said][:30]}")


def test_a_picture_out_of_reach_is_not_copied(page):
    page.watch.expected.append("Failed to load resource")
    show(page, "c.jpg")
    for shape in ("original", "picture*"):
        page.route(f"**/{shape}", lambda route: route.abort())
    page.click("#detail [data-action=copy-image]")
    page.wait_for_selector(f".toast.is-error >> text={TEXTS['detail.unreachable']}")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_in_a_view_with_all_facts(browser, journey, scheme):
    options = {"color_scheme": scheme, "reduced_motion": "reduce"}
    with visited(browser, journey[0], **options) as page:
        page.wait_for_selector(".tile img")
        show(page, "c.jpg")
        assert violations(page) == []
