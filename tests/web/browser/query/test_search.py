"""The page in Chromium: search by words and pictures, look closer, choose, all by keyboard."""

import base64
import csv
import io
import json
import re
import zipfile
from urllib.request import Request, urlopen

import pytest

from browsing import BOX, answer, drop, focused, names, open_first, shown, visited, wait_for_first
from fovea.web.views.pages import messages
from places import PHOTOS


def part(page, name: str) -> str:
    """The text of a part of the detail view."""
    return page.inner_text(f"#detail [data-part={name}]")


def test_the_library_is_there_before_anything_is_asked(page):
    assert page.evaluate("document.activeElement.name") == "q"
    expected = [hit["image_id"] for hit in answer(page, "/api/search?q=&limit=100")["hits"]]
    found = shown(page)
    assert len(found) > 5 and found == expected[: len(found)]


@pytest.mark.parametrize(
    ("words", "name"), [("computer keyboard", "p080.jpg"), ("moving van", "p052.jpg")]
)
def test_words_find_the_expected_picture(page, words, name):
    page.keyboard.type(words)
    page.wait_for_url(re.compile(r"\?.*q=" + re.escape(words).replace(r"\ ", "(%20|[+])")))
    wait_for_first(page, names(page)[name], among=8)


@pytest.mark.parametrize(
    ("language", "says"),
    [
        ("en", 'No folder of this library is called "nowhere".'),
        ("zh-Hans", "没有名为“nowhere”的文件夹"),
    ],
)
def test_an_empty_answer_says_which_filter_leaves_nothing(browser, gallery, language, says):
    with visited(browser, f"{gallery}/?lang={language}&q=in:nowhere") as page:
        page.wait_for_selector("#empty:not([hidden])")
        assert says in page.inner_text("#empty")
        page.click(".chip-remove")
        page.fill(BOX, "-is:landscape -is:portrait -is:square camera:nobody")
        page.wait_for_selector("#empty:has-text('nobody')")
        assert says not in page.inner_text("#empty")


def test_back_forward_and_a_shared_link_lead_to_the_same_results(page, browser):
    known = names(page)
    for name in ("p021.jpg", "p052.jpg"):
        page.fill(BOX, name)
        page.keyboard.press("Enter")  # a query of its own, not one that goes on
        wait_for_first(page, known[name])
    page.go_back()
    wait_for_first(page, known["p021.jpg"])
    assert page.input_value(BOX) == "p021.jpg"
    page.go_forward()
    wait_for_first(page, known["p052.jpg"])
    with visited(browser, page.url) as other:
        wait_for_first(other, known["p052.jpg"])
        assert other.input_value(BOX) == "p052.jpg"


def test_a_dropped_picture_finds_itself(page):
    drop(page, PHOTOS / "p021.jpg")
    wait_for_first(page, names(page)["p021.jpg"])


def test_several_chosen_pictures_are_searched_together(page, gallery):
    files = [PHOTOS / "p021.jpg", PHOTOS / "p052.jpg"]
    pictures = [{"data": base64.b64encode(file.read_bytes()).decode()} for file in files]
    body = json.dumps({"q": "", "pictures": pictures}).encode()
    headers = {"Content-Type": "application/json"}
    with urlopen(Request(f"{gallery}/api/search", body, headers), timeout=60) as asked:
        expected = [hit["image_id"] for hit in json.load(asked)["hits"]]
    page.set_input_files("#picture-file", files)
    page.wait_for_function("() => document.querySelectorAll('.chip').length === 2")
    wait_for_first(page, expected[0])
    assert shown(page)[:5] == expected[:5]


def test_back_leads_to_the_pictures_that_were_searched_by(page):
    drop(page, *(PHOTOS / f"p0{number}.jpg" for number in (21, 43, 52)))
    page.wait_for_function(CHIPS, arg=3)
    page.select_option(".chip:nth-child(1) .chip-weight", "4")
    page.focus(BOX)
    for text, count in (("red", 4), (" snow", 4)):
        page.keyboard.type(text)
        page.wait_for_function(CHIPS, arg=count)
        page.wait_for_url(re.compile(f".*{text.strip()}"))
        page.keyboard.press("Enter")
    assert page.input_value(BOX) == "red snow"
    page.go_back()
    page.wait_for_function(CHIPS, arg=4)
    assert page.input_value(BOX) == "red"
    page.go_back()
    page.wait_for_function(CHIPS, arg=3)
    assert page.input_value(".chip:nth-child(1) .chip-weight") == "4"
    page.go_back()
    page.wait_for_function("() => document.querySelector('.chip-weight').value === '1'")
    loaded = "pictures => pictures.every((picture) => picture.complete && picture.naturalWidth)"
    page.wait_for_timeout(200)
    assert page.eval_on_selector_all(".chip-picture", loaded)
    page.go_back()
    page.wait_for_function(CHIPS, arg=0)
    page.go_forward()
    page.wait_for_function(CHIPS, arg=3)


CHIPS = "count => document.querySelectorAll('.chip').length === count"


def test_a_pasted_picture_finds_itself(page):
    data = list((PHOTOS / "p043.jpg").read_bytes())
    page.evaluate(
        """(data) => {
            const clipboardData = new DataTransfer();
            const file = new File([new Uint8Array(data)], "image.jpg", { type: "image/jpeg" });
            clipboardData.items.add(file);
            const options = { bubbles: true, cancelable: true, clipboardData };
            document.activeElement.dispatchEvent(new ClipboardEvent("paste", options));
        }""",
        data,
    )
    wait_for_first(page, names(page)["p043.jpg"])


def test_what_is_no_picture_is_refused_with_its_name(page, tmp_path):
    letter = tmp_path / "<b>letter.txt"
    letter.write_text("no picture")
    page.evaluate(
        """(name) => {
            const dataTransfer = new DataTransfer();
            dataTransfer.items.add(new File(["no picture"], name, { type: "text/plain" }));
            const options = { bubbles: true, cancelable: true, dataTransfer };
            document.body.dispatchEvent(new DragEvent("drop", options));
        }""",
        letter.name,
    )
    page.wait_for_selector(".toast.is-error:not(:empty)")
    assert letter.name in page.inner_text(".toast.is-error")


def test_a_dropped_picture_that_cannot_be_read_is_named(page, tmp_path):
    page.watch.expected.append("status of 422")
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\x01\x02\x03")
    drop(page, PHOTOS / "p021.jpg", broken)
    page.wait_for_selector(".toast.is-error:not(:empty)")
    assert page.inner_text(".toast.is-error") == "broken.jpg cannot be read as a picture."
    page.wait_for_function(CHIPS, arg=1)  # the other one is searched by
    wait_for_first(page, names(page)["p021.jpg"])


def test_a_server_that_is_gone_is_missed_in_plain_words(page):
    page.watch.expected.append("Failed to load resource")
    page.route("**/api/search?*", lambda route: route.abort())
    page.fill(BOX, "keyboard")
    page.wait_for_selector("#problem:not([hidden])")
    assert "fovea does not respond. Is it still running?" in page.inner_text("#problem")
    page.unroute("**/api/search?*")
    page.click("#problem button")
    page.wait_for_selector("#problem", state="hidden")


def test_keys_lead_from_the_box_to_a_picture_and_back(page):
    page.keyboard.press("Escape")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.name") == "q"
    page.keyboard.press("ArrowDown")
    assert focused(page) == 0
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    assert focused(page) == 1
    page.keyboard.press("ArrowDown")
    below = focused(page)
    assert below > 1
    page.keyboard.press("Enter")
    page.wait_for_selector("#detail[data-state=ready]")
    page.keyboard.press("ArrowRight")
    page.wait_for_function("index => history.state.index === index", arg=below + 1)
    page.keyboard.press("Escape")
    page.wait_for_selector("#detail", state="hidden")
    assert focused(page) == below + 1
    page.wait_for_function("() => location.hash === ''")


def test_the_view_shows_a_picture_and_what_is_known_of_it(page):
    page.fill(BOX, "name:p021.jpg")
    wait_for_first(page, names(page)["p021.jpg"])
    open_first(page)
    assert part(page, "name") == "p021.jpg"
    assert part(page, "folder") == str(PHOTOS.resolve())
    assert "JPEG" in part(page, "facts") and "File changed" in part(page, "facts")
    known = answer(page, f"/api/images/{shown(page)[0]}")
    texts = messages("en")
    origins = {"file time": texts["dated.file"], "DateTimeOriginal": texts["dated.taken"]}
    assert origins[known["date_source"]] in part(page, "facts")
    found = page.locator("[data-part=labels] li").all_inner_texts()
    assert len(found) == len(known["labels"]) == 5
    assert all(
        text.startswith(label["label"]) for text, label in zip(found, known["labels"], strict=True)
    )
    assert page.locator("[data-part=similar] li").count() == 12
    page.wait_for_selector(".detail-picture.is-sharp")
    size = page.evaluate(
        "(({naturalWidth, naturalHeight}) => [naturalWidth, naturalHeight])"
        "(document.querySelector('.detail-large'))"
    )
    known = answer(page, f"/api/images/{shown(page)[0]}")
    assert size == [known["width"], known["height"]]


def test_marks_and_likelihoods_are_seen_without_pointing_at_a_picture(page, browser, gallery):
    opacity = "element => getComputedStyle(element).opacity"
    page.fill(BOX, "p021")
    wait_for_first(page, names(page)["p021.jpg"])
    assert page.inner_text(".tile[data-index='0'] .is-mark") == "name matches"
    assert page.eval_on_selector(".tile[data-index='0'] .is-mark", opacity) == "1"
    assert page.eval_on_selector(".tile[data-index='1'] .is-likelihood", opacity) == "0"
    likelihood = page.text_content(".tile[data-index='0'] .is-likelihood")
    open_first(page)
    assert f"Match\n{likelihood} · name matches" in part(page, "facts")
    touched = {"has_touch": True, "is_mobile": True, "viewport": {"width": 390, "height": 844}}
    with visited(browser, f"{gallery}/?q=keyboard", **touched) as phone:
        phone.wait_for_selector(".tile img")
        assert phone.eval_on_selector(".tile .is-likelihood", opacity) == "1"


def test_a_picture_that_cannot_be_had_leaves_a_message_alone(page):
    page.watch.expected.append("Failed to load resource")
    page.route(re.compile("/(thumbnail|preview|original)"), lambda route: route.abort())
    page.click(".tile[data-index='1'] .tile-open")
    page.wait_for_selector("[data-part=problem]:not([hidden])")
    assert "cannot be opened" in part(page, "problem")
    assert page.locator(".detail-small").is_hidden()


def test_the_view_zooms_by_keys_wheel_and_double_click(page):
    open_first(page)
    fitted = part(page, "percent")
    page.keyboard.press("+")
    assert part(page, "percent") != fitted
    page.keyboard.press("0")
    assert part(page, "percent") == fitted
    page.mouse.move(500, 400)
    page.mouse.wheel(0, -300)
    page.wait_for_selector(".detail-stage.is-zoomed")
    page.mouse.dblclick(500, 400)
    page.wait_for_selector(".detail-stage:not(.is-zoomed)")
    assert part(page, "percent") == fitted


def test_neighbours_are_followed_and_back_leads_through_them(page):
    open_first(page)
    first = part(page, "name")
    page.click("[data-part=similar] li:nth-child(2) a")
    page.wait_for_function(
        "name => document.querySelector('#detail-name').innerText !== name", arg=first
    )
    page.wait_for_selector("#detail[data-state=ready]")
    page.go_back()
    page.wait_for_function(
        "name => document.querySelector('#detail-name').innerText === name", arg=first
    )
    page.go_back()
    page.wait_for_selector("#detail", state="hidden")


def test_a_link_to_a_picture_opens_it(page, browser, gallery):
    wanted = names(page)["p052.jpg"]
    with visited(browser, f"{gallery}/#image-{wanted}") as other:
        other.wait_for_selector("#detail[data-state=ready]")
        assert part(other, "name") == "p052.jpg"


def test_the_focus_stays_in_an_open_view(page):
    open_first(page)
    outside = "!document.activeElement.closest('#detail, body') && document.activeElement.tagName"
    for _ in range(60):
        page.keyboard.press("Tab")
        assert not page.evaluate(outside)


def test_more_like_this_searches_by_the_picture(page):
    wanted = names(page)["p021.jpg"]
    page.fill(BOX, "name:p021.jpg")
    wait_for_first(page, wanted)
    open_first(page)
    page.fill(BOX, "", force=True)
    page.click("#detail [data-action=more-like]")
    page.wait_for_selector("#detail", state="hidden")
    page.wait_for_selector(".chip")
    wait_for_first(page, wanted)


@pytest.mark.parametrize(("weight", "key", "sign"), [(1, "m", ""), (-1, "l", "-")])
def test_a_tile_leads_to_more_or_less_like_it(page, weight, key, sign):
    first, second = shown(page)[:2]
    page.hover(".tile[data-index='1']")
    button = page.locator(f".tile[data-index='1'] [data-weight='{weight}']")
    assert button.get_attribute("aria-label").endswith(".jpg")
    button.click()
    page.wait_for_function(VALUE, arg=f"{sign}like:{second}")
    page.go_back()
    wait_for_first(page, first)
    page.focus(".tile[data-index='1'] .tile-open")
    page.keyboard.press(key)
    page.wait_for_function(VALUE, arg=f"{sign}like:{second}")
    page.wait_for_selector(".chip")
    assert focused(page) >= 0


VALUE = "text => document.querySelector('input[name=q]').value === text"


def test_a_selection_is_exported(page):
    page.focus(".tile[data-index='0'] .tile-open")
    page.keyboard.press("x")
    page.click(".tile[data-index='3'] .tile-check", modifiers=["Shift"])
    assert "4" in page.inner_text("#selection [data-part=count]")
    wanted = shown(page)[:4]
    paths = [answer(page, f"/api/images/{image_id}")["path"] for image_id in wanted]

    def downloaded(action):
        with page.expect_download() as expected:
            page.click(f"#selection [data-action={action}]")
        return expected.value.path().read_bytes()

    rows = list(csv.DictReader(io.StringIO(downloaded("csv").decode("utf-8-sig"))))
    assert [row["path"] for row in rows] == paths
    assert [row["path"] for row in json.loads(downloaded("json"))] == paths
    with zipfile.ZipFile(io.BytesIO(downloaded("zip"))) as archive:
        contents = sorted(archive.read(name) for name in archive.namelist())
    assert contents == sorted((PHOTOS / path.rsplit("/", 1)[1]).read_bytes() for path in paths)
    assert page.locator(".toast").count() == 2  # of the data once; of the originals with their size
    page.keyboard.press("Escape")
    page.wait_for_selector("#selection", state="hidden")


def test_all_loaded_pictures_are_selected_by_keys(page):
    page.focus(".tile[data-index='0'] .tile-open")
    page.keyboard.press("Control+a")
    total = answer(page, "/api/search?q=")["total"]
    count = int(page.inner_text("#selection [data-part=count]").split()[0])
    assert min(60, total) <= count <= total
    assert page.evaluate("String(getSelection())") == ""
    page.focus(BOX)
    page.keyboard.type("red")
    page.keyboard.press("Control+a")  # in the box, its text
    page.keyboard.press("Backspace")
    assert page.input_value(BOX) == ""
