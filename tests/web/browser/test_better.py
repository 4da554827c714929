"""The notice of a better model, its button, and what they do, against a hub of this machine."""

import json
import shutil

import pytest

from browsing import BOX, answer, indexed, served, violations, visited
from coloured import COLOURS, encoded
from loopback import lead_here, serving
from shipped_models import RESOLVED, WEIGHTS, serving_recommended

OFFER = {"name": "ViT-B-32-256", "bytes": 605_000_000}
STATE = {"model": "fovea-small", "bundled": None, "better": OFFER, "change": None}
CHANGE = {
    "id": 1, "model": "ViT-B-32-256", "state": "downloading", "bytes": 0, "total_bytes": None,
    "images": 0, "embedded": 0, "rate": 0.0, "seconds_left": None, "left_out": 0, "code": None,
    "message": None, "started_at": "2026-01-02T03:04:05+00:00",
}  # fmt: skip
TITLE, DETAIL = "#better-title", "#better [data-part=detail]"
START, DISMISS, CANCEL = (f"#better [data-part={part}]" for part in ("start", "dismiss", "cancel"))
SHOWN, HIDDEN = "#better:not([hidden])", "#better[hidden]"
STREAM = """window.EventSource = class extends EventTarget {
    constructor() { super(); window.stream = this; }
    close() {}
};"""


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """A small library with the bundled model."""
    folder = tmp_path_factory.mktemp("better")
    (folder / "photos").mkdir()
    for number, colour in enumerate(COLOURS):
        (folder / "photos" / f"{colour}.png").write_bytes(encoded(colour, number))
    return indexed(folder / "library", folder / "photos")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with serving_recommended(tmp_path, monkeypatch) as found:
        yield found


@pytest.fixture
def place(browser, library, tmp_path, hub):
    """The address of a server for a copy of the library."""
    shutil.copytree(library, tmp_path / "library")
    with served(tmp_path / "library", offline=False) as address:
        yield address


@pytest.fixture
def told(browser, gallery):
    """A page to which the test speaks for the server's events."""
    with visited(browser, "about:blank") as page:
        page.add_init_script(STREAM)
        page.goto(gallery)
        page.tell = lambda **state: page.evaluate(
            "data => stream.dispatchEvent(new MessageEvent('model', { data }))",
            json.dumps(STATE | state),
        )
        page.change = lambda **change: page.tell(change=CHANGE | change)
        yield page


def searched(page):
    page.fill(BOX, "red")
    page.wait_for_function("() => document.querySelectorAll('.tile').length > 0")
    return answer(page, "/api/search?q=red")["model"]


def toasted(page, said):
    """Wait for a message, whose text comes a frame later than itself."""
    same = "said => document.querySelector('#toasts').textContent === said"
    page.wait_for_function(same, arg=said)


def test_the_first_minute_connects_to_nothing_and_offers_a_better_model(
    browser, library, tmp_path, monkeypatch
):
    """From nothing: a folder is named, and its pictures are there at once."""
    monkeypatch.setenv("FOVEA_MODELS", str(tmp_path / "models"))
    photos = library.parent / "photos"
    with serving() as watching:
        lead_here(monkeypatch, watching)
        with (
            served(tmp_path / "library", photos, offline=False) as address,
            visited(browser, address) as page,
        ):
            page.wait_for_selector(SHOWN)
            page.wait_for_function("n => document.querySelectorAll('.tile').length === n",
                                   arg=len(COLOURS))  # fmt: skip
            assert searched(page) == "fovea-small"
            assert page.inner_text(TITLE) == "A better model is available: ViT-B-32-256"
            assert "A download of about 605\N{NO-BREAK SPACE}MB" in page.inner_text(DETAIL)
        assert (watching.asked, watching.heads) == ([], 0)
    log = (tmp_path / "library.log").read_text()
    assert "a download of about 605 MB: fovea models use ViT-B-32-256 --library" in log


def test_the_button_fetches_embeds_and_activates_while_searches_go_on(browser, place, hub):
    size = len(hub.files[WEIGHTS])
    hub.stall_after, hub.stalls = size // 2, 1
    with visited(browser, place) as page:
        page.click(START)
        page.wait_for_selector(CANCEL)
        assert page.evaluate("document.activeElement.dataset.part") == "cancel"
        page.wait_for_function("() => document.querySelector('#better progress').value > 1000")
        assert page.inner_text(TITLE) == "Downloading ViT-B-32-256"
        assert page.inner_text(DETAIL).endswith(f" of {size / 1e6:.1f}\N{NO-BREAK SPACE}MB")
        assert searched(page) == "fovea-small"
        hub.released.set()  # the connection breaks
        page.wait_for_selector(HIDDEN, state="attached")
        page.wait_for_selector(".toast >> text=Searches now use ViT-B-32-256")
        assert searched(page) == "ViT-B-32-256"
        page.reload()
        page.wait_for_selector(".tile")
        page.wait_for_timeout(1500)
        assert page.is_hidden("#better")


def test_what_goes_wrong_is_one_line_and_can_be_tried_again(browser, place, hub):
    hub.meant[RESOLVED], sound = hub.files[WEIGHTS], hub.files[WEIGHTS]
    hub.files[WEIGHTS] = sound[:-1] + bytes([sound[-1] ^ 1])
    with visited(browser, place) as page:
        page.click(START)
        page.wait_for_selector("#better.is-failed")
        assert page.inner_text(TITLE) == "ViT-B-32-256 is not in use yet"
        assert page.inner_text(DETAIL) == "The download was damaged and has been deleted."
        assert page.inner_text(START) == "Try again"
        assert violations(page) == []
        hub.files[WEIGHTS] = sound
        page.click(START)
        page.wait_for_selector(".toast >> text=Searches now use ViT-B-32-256")


def test_a_download_can_be_cancelled(browser, place, hub):
    hub.stall_after, hub.stalls = 1000, 9
    with visited(browser, place) as page:
        page.click(START)
        page.wait_for_function("() => document.querySelector('#better progress').value > 1")
        page.click(CANCEL)
        page.wait_for_selector(START)
        assert page.inner_text(TITLE) == "A better model is available: ViT-B-32-256"
        assert answer(page, "/api/model")["change"]["state"] == "stopped"
        assert searched(page) == "fovea-small"


# What the page makes of the server's events


def test_the_notice_is_dismissed_for_good_and_can_be_brought_back(told):
    told.tell()
    told.wait_for_selector(SHOWN)
    assert violations(told) == []
    told.click(DISMISS)
    told.wait_for_selector(HIDDEN, state="attached")
    assert told.evaluate("document.activeElement.name") == "q"
    told.reload()
    told.wait_for_selector(".tile")
    told.tell()
    assert told.is_hidden("#better")
    told.click("#open-library")
    told.click("#show-better")
    told.wait_for_selector(SHOWN)
    assert told.evaluate("document.activeElement.dataset.part") == "start"
    told.reload()
    told.wait_for_selector(".tile")
    told.tell()
    assert told.is_visible("#better") and told.is_hidden("#show-better")


def test_another_offer_is_shown_though_one_was_dismissed(told):
    told.tell()
    told.click(DISMISS)
    told.tell(better={"name": "ViT-L/14", "bytes": 0})
    told.wait_for_selector(SHOWN)
    assert told.inner_text(START) == "Use it"
    assert "is on this computer already" in told.inner_text(DETAIL)
    told.click(DISMISS)
    told.wait_for_selector(HIDDEN, state="attached")
    told.tell(model="fovea-small-1", better={"name": "ViT-L/14", "bytes": 0})
    told.wait_for_selector(SHOWN)  # for another model in use it has not been dismissed


def test_a_former_bundled_model_is_told_of_the_present_one(told):
    told.tell(bundled="fovea-small", better={"name": "fovea-small", "bytes": 0})
    told.wait_for_selector(SHOWN)
    assert told.inner_text(DETAIL).startswith("It comes with fovea, and finds more")
    told.tell(bundled="fovea-small", better={"name": "ViT-L/14", "bytes": 0})
    assert "the bundled model is better now, too" in told.inner_text(DETAIL)


@pytest.mark.parametrize("state", [{"better": None}, {"model": None}])
def test_without_an_offer_or_pictures_there_is_no_notice(told, state):
    told.tell(**state)
    assert told.is_hidden("#better")


def test_progress_is_shown_in_megabytes_and_then_in_pictures(told):
    told.change(state="starting")
    assert told.inner_text(TITLE) == "Preparing ViT-B-32-256"
    assert told.text_content(DETAIL) == "" and told.is_visible(CANCEL)
    told.change()
    assert told.inner_text(DETAIL) == "Connecting…"
    told.change(bytes=120_340_000, total_bytes=605_219_000)
    assert told.inner_text(DETAIL) == "120.3\N{NO-BREAK SPACE}MB of 605.2\N{NO-BREAK SPACE}MB"
    assert told.evaluate("document.querySelector('#better progress').value") == 120_340_000
    told.change(state="embedding", images=1200, embedded=300, seconds_left=90.0)
    assert told.inner_text(TITLE) == "Indexing your pictures with ViT-B-32-256"
    assert told.inner_text(DETAIL) == "300 of 1,200 pictures · 2 min left"
    assert violations(told) == []
    told.change(state="embedding", images=1200, embedded=1200, message="another fovea is indexing")
    assert "waiting for the indexing of folders" in told.inner_text(DETAIL)
    told.change(state="stopped")
    toasted(told, "Cancelled; the model stays as it is")
    assert told.inner_text(START) == "Download and use"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"state": "done"}, "Searches now use ViT-B-32-256"),
        ({"state": "done", "left_out": 1},
         "Searches now use ViT-B-32-256. 1 picture has changed or cannot be read; "
         "it is being indexed again"),
        ({"state": "done", "left_out": 3},
         "Searches now use ViT-B-32-256. 3 pictures have changed or cannot be read; "
         "they are being indexed again"),
        ({"state": "stopped", "code": "superseded"},
         "Another change of model was started meanwhile; this one has ended"),
    ],
)  # fmt: skip
def test_the_end_of_a_change_is_told(told, change, said):
    told.change(state="embedding")
    told.change(**change)
    toasted(told, said)


def test_a_failure_without_a_name_is_told_in_the_servers_words(told):
    told.change()
    told.change(state="failed", message="it is odd; try again")
    assert told.inner_text(DETAIL) == "it is odd; try again"
    told.click(DISMISS)
    told.change(state="failed", message="it is odd; try again")
    assert told.is_hidden("#better")
    told.change(state="failed", message="after a restart", started_at="2026-01-03T00:00:00+00:00")
    assert told.inner_text(DETAIL) == "after a restart"
    told.change(id=2, state="failed", code="space", message="no room")
    assert told.inner_text(DETAIL) == (
        "There is not enough room on the disk. Make room, and try again."
    )


def test_a_narrow_chinese_page_has_room_for_it(browser, gallery):
    options = {"viewport": {"width": 320, "height": 640}, "locale": "zh-CN"}
    with visited(browser, "about:blank", **options) as page:
        page.add_init_script(STREAM)
        page.goto(gallery)
        for change in (None, CHANGE | {"state": "failed", "code": "offline"}, CHANGE):
            page.evaluate(
                "data => stream.dispatchEvent(new MessageEvent('model', { data }))",
                json.dumps(STATE | {"change": change}),
            )
            page.wait_for_selector(SHOWN)
            assert page.evaluate("document.documentElement.scrollWidth") <= 320
        assert page.inner_text(TITLE) == "正在下载 ViT-B-32-256"
        assert page.inner_text(CANCEL) == "取消"
