"""Take the screenshots in docs/screenshots again: python docs/screenshots.py

The library contains the photographs of scikit-image, and parts of them, so that there is something
to scroll through; all of them may be shared. Needs Chromium, a Chinese font and the test extra.
"""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any

from PIL import Image, ImageEnhance

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(1, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))

from browsing import indexed, launched, served, visited
from fovea.data import demo_photographs

PLACE = Path(__file__).with_name("screenshots")
WIDE = {"viewport": {"width": 1280, "height": 800}, "device_scale_factor": 1.5}
PHONE = {
    "viewport": {"width": 390, "height": 844},
    "device_scale_factor": 2,
    "has_touch": True,
    "is_mobile": True,
}
QUALITY = 60  # of WebP
DAY = 24 * 3600  # seconds
NOON = 1_720_000_000  # a July day of 2024, in seconds since 1970

YEARS = 6  # of the library with a timeline
YEARLY = 27  # its pictures a year, three a day
DULL = ("brick", "grass", "gravel", "page")

FOLDERS = {
    "animals": ("chelsea",),
    "space": ("astronaut", "hubble_deep_field", "moon", "rocket"),
    "at home": ("coffee", "coins", "page"),
    "outside": ("brick", "camera", "grass", "gravel", "motorcycle_left"),
}
# Parts of a photograph, in hundredths of its width and height: left, top, right, bottom.
PARTS = {
    "chelsea": [(15, 0, 75, 100), (30, 10, 100, 70)],
    "astronaut": [(20, 0, 75, 60), (0, 20, 60, 100)],
    "hubble_deep_field": [(0, 0, 55, 60), (40, 35, 100, 100), (20, 30, 60, 90)],
    "rocket": [(0, 30, 60, 100), (30, 0, 70, 100)],
    "coffee": [(15, 5, 85, 100), (0, 0, 60, 75)],
    "camera": [(20, 5, 75, 100), (30, 10, 80, 50)],
    "motorcycle_left": [(0, 15, 60, 100), (35, 20, 100, 95)],
    "coins": [(0, 0, 60, 60)],
    "moon": [(10, 5, 90, 65)],
    "grass": [(0, 0, 100, 60)],
    "brick": [(0, 0, 65, 100)],
}


@dataclass(frozen=True)
class View:
    """One screenshot: how to reach the view, and on which screen."""

    name: str
    reach: Callable[[Any], None]
    screen: dict[str, Any]
    scheme: str = "light"
    locale: str = "en-GB"


def write_photographs(folder: Path) -> None:
    """Write the photographs and their parts into folders, those of each folder on one day."""
    originals = {path.stem: path for path in demo_photographs()}
    for age, (name, members) in enumerate(FOLDERS.items()):
        (folder / name).mkdir(parents=True)
        for member in members:
            with Image.open(originals[member]) as file:
                whole = file.convert("RGB")
            for number, picture in enumerate([whole, *_parts(whole, PARTS.get(member, []))]):
                path = folder / name / f"{member}{f'-{number}' if number else ''}.jpg"
                picture.save(path, quality=92)
                os.utime(path, (NOON - age * 3 * DAY - number * 60,) * 2)


def _parts(whole: Image.Image, boxes: list[tuple[int, int, int, int]]) -> Iterator[Image.Image]:
    for left, top, right, bottom in boxes:
        width, height = whole.width / 100, whole.height / 100
        yield whole.crop(
            (int(left * width), int(top * height), int(right * width), int(bottom * height))
        )


def write_years(folder: Path) -> None:
    """Write parts of the photographs, over some years: enough of them for a timeline."""
    folder.mkdir()
    originals = [path for path in demo_photographs() if path.stem not in DULL]
    for number in range(YEARLY * YEARS):
        path = originals[number * 5 % len(originals)]
        left, top = number * 7 % 30, number * 11 % 35
        with Image.open(path) as file:
            (picture,) = _parts(file.convert("RGB"), [(left, top, left + 70, top + 65)])
        name = folder / f"{path.stem}-{number}.jpg"
        picture.save(name, quality=92)
        when = NOON - (number // 3) * 3 * 365 * DAY // YEARLY - number % 3 * 60
        os.utime(name, (when, when))


def write_copies(folder: Path) -> None:
    """Write some of the photographs, and copies of them: smaller, cropped, recoloured, as WebP."""
    originals = {path.stem: path for path in demo_photographs()}
    for name in ("sent", "backup"):
        (folder / name).mkdir(parents=True)
    for age, name in enumerate(("chelsea", "coffee", "astronaut", "rocket", "camera")):
        with Image.open(originals[name]) as file:
            whole = file.convert("RGB")
        [cropped] = _parts(whole, [(4, 3, 98, 95)])
        half = whole.resize((whole.width // 2, whole.height // 2))
        colourful = ImageEnhance.Color(whole).enhance(0.6)
        whole.save(folder / f"{name}.jpg", quality=92)
        half.save(folder / "sent" / f"{name}-small.jpg", quality=80)
        if age < 3:
            cropped.save(folder / "sent" / f"{name}-cropped.webp", quality=60)
        if age < 2:
            colourful.save(folder / "backup" / f"{name}-edited.jpg", quality=90)
        if age == 0:
            shutil.copyfile(folder / f"{name}.jpg", folder / "backup" / f"{name}.jpg")


def browse(page: Any) -> None:
    """Stay on the first page: newest first, by day."""


def ask(page: Any, text: str) -> None:
    page.fill("input[name=q]", text)
    page.keyboard.press("Enter")  # which also closes the suggestions
    page.wait_for_url("**q=*")
    page.wait_for_timeout(800)


def search(page: Any) -> None:
    ask(page, "space")


def suggest(page: Any) -> None:
    page.focus("input[name=q]")
    page.keyboard.type("space")
    page.wait_for_selector("#suggestions:not([hidden]) [role=option]")
    page.keyboard.press("ArrowDown")
    page.wait_for_timeout(500)  # the answer to what is typed


def scroll(page: Any) -> None:
    page.wait_for_selector("#timeline.is-ready")
    page.hover("#timeline [data-part=slider]", position={"x": 20, "y": 250})
    page.mouse.down()
    page.mouse.move(1260, 380, steps=4)
    page.wait_for_timeout(500)


def detail(page: Any) -> None:
    ask(page, "name:coffee")
    page.click(".tile[data-index='0'] .tile-open")
    page.wait_for_selector("#detail[data-state=ready]")
    page.wait_for_selector(".detail-picture.is-sharp")
    if page.locator("[data-part=info]").is_hidden():
        page.click("[data-action=info]")


def select(page: Any) -> None:
    page.focus(".tile[data-index='1'] .tile-open")
    page.keyboard.press("x")
    page.click(".tile[data-index='4'] .tile-check", modifiers=["Shift"])


def review(page: Any) -> None:
    ask(page, "name:hubble")
    page.focus(".tile[data-index='0'] .tile-open")
    page.keyboard.press("Control+a")
    page.keyboard.press("t")
    page.keyboard.type("Space")
    page.keyboard.press("Enter")
    page.wait_for_selector("#teach:not([open])", state="attached")
    ask(page, "tag:space")
    page.click("#open-review")
    page.wait_for_selector("#review [data-part=picture]:visible")
    page.wait_for_function("() => !document.querySelector('#toasts').children.length")


def panel(page: Any) -> None:
    page.click("#open-library")
    page.wait_for_selector(".root")


def duplicates(page: Any) -> None:
    page.goto(page.url.rstrip("/") + "/duplicates")
    page.locator("[data-action=select-group]").first.click()
    page.evaluate("document.activeElement.blur()")


def help_(page: Any) -> None:
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("?")
    page.wait_for_selector("#help[open]")


def chart(page: Any) -> None:
    page.goto(page.url.rstrip("/") + "/map")
    page.wait_for_selector(".map[data-points]")
    page.wait_for_selector(".map-state", state="hidden")
    page.wait_for_timeout(1500)  # for the thumbnails


VIEWS = (
    View("browse-light", browse, WIDE),
    View("browse-phone", browse, PHONE),
    View("search-light", search, WIDE),
    View("search-dark", search, WIDE, "dark"),
    View("search-phone", search, PHONE, "dark"),
    View("search-chinese", search, WIDE, locale="zh-CN"),
    View("suggestions-light", suggest, WIDE),
    View("detail-light", detail, WIDE),
    View("detail-phone", detail, PHONE),
    View("selection-light", select, WIDE),
    View("library-dark", panel, WIDE, "dark"),
    View("help-light", help_, WIDE),
)
MAP = View("map-light", chart, WIDE)
REVIEW = View("review-light", review, WIDE)  # last, as it teaches
TIMELINE = View("timeline-dark", scroll, WIDE, "dark")
DUPLICATES = View("duplicates-light", duplicates, WIDE)


# Pictures below the window wait until somebody scrolls.
LOADED = """() => [...document.images].every((image) => image.complete || !image.checkVisibility()
    || image.getBoundingClientRect().top > innerHeight)"""


def take(browser: Any, address: str, view: View) -> None:
    """Bring a new page to the view, and take its screenshot."""
    options = {"color_scheme": view.scheme, "locale": view.locale, "reduced_motion": "reduce"}
    with visited(browser, address, **view.screen, **options) as page:
        page.wait_for_selector(".tile img")
        view.reach(page)
        page.wait_for_function(LOADED)
        page.wait_for_timeout(300)  # let transitions end
        with Image.open(BytesIO(page.screenshot())) as picture:
            picture.convert("RGB").save(PLACE / f"{view.name}.webp", quality=QUALITY, method=6)


@contextmanager
def gallery(write: Callable[[Path], None]) -> Iterator[str]:
    """Serve what ``write`` puts into a folder with a presentable name; yield the address."""
    with TemporaryDirectory() as place:
        folder = Path(gettempdir()) / "Pictures"
        try:
            write(folder)
            with served(indexed(Path(place) / "library", folder)) as address:
                yield address
        finally:
            shutil.rmtree(folder)


def main() -> None:
    PLACE.mkdir(exist_ok=True)
    with launched() as browser:
        for write, views in (
            (write_photographs, (*VIEWS, REVIEW)),
            (write_years, (TIMELINE, MAP)),
            (write_copies, (DUPLICATES,)),
        ):
            with gallery(write) as address:
                for view in views:
                    take(browser, address, view)
                    print(view.name)


if __name__ == "__main__":
    main()
