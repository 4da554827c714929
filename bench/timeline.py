"""Measure how soon any month of a large library is on the screen, in Chromium.

    python bench/timeline.py [--images 100000] [--library FOLDER] [--drags 40]

The library is bench/large.py's. Each drag moves the handle at the page's right edge over thirty
places to a month drawn by chance, and lets go; from there on the time counts until the screen
shows pictures of that month, painted. A jump is the same by the keys of the slider, a scroll by the
scrollbar. The files of that library do not exist, so tiles show names: how long thumbnails take is
bench/thumbnails.py's matter. Needs Chromium and the test extra.
"""

import argparse
import os
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(1, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))

from bench.large import large_library
from browsing import answer, launched, served

Way = tuple[int, int, float]  # the places of a month: from, to; and since when it is waited for
SLIDER = "[data-part=slider]"
SETTLED = """() => document.querySelectorAll(".grid-block:empty").length === 0"""
# When the window shows a picture of [first, end), painted, and what the page holds by then.
ARRIVED = """([first, end, since]) => new Promise((done) => {
    const look = () => {
        const isThere = [...document.querySelectorAll(".tile")].some((tile) => {
            const { top, bottom } = tile.getBoundingClientRect();
            const place = Number(tile.dataset.index);
            return bottom > 80 && top < innerHeight && place >= first && place < end;
        });
        if (!isThere) return requestAnimationFrame(look);
        const tiles = document.querySelectorAll(".tile").length;
        requestAnimationFrame(() => setTimeout(() => done([performance.now() - since, tiles])));
    };
    look();
})"""


def main() -> None:
    """Print one line for each way to a month."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--library", type=Path, help="where the library is kept, made if missing")
    parser.add_argument("--drags", type=int, default=40)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fovea-bench-") as place, launched() as browser:
        library = large_library(options.library or Path(place), options.images)
        print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
        with served(library) as address:
            measure(browser, address, options.drags)


def measure(browser: Any, address: str, drags: int) -> None:
    """Go to months in three ways."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    session = context.new_cdp_session(page)
    session.send("Network.enable")
    session.send("Network.setBlockedURLs", {"urls": ["*/thumbnail*"]})
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(address)
    page.wait_for_selector(".timeline.is-ready")
    tall = page.evaluate("document.documentElement.scrollHeight")
    months = ranges(answer(page, "/api/timeline"))
    print(f"{months[-1][1]:,} pictures of {len(months)} months; the page is {tall:,} pixels high")
    print(f"{'':24}{'median':>9}{'slowest':>9}{'tiles, at most':>17}{'requests each':>16}")
    rng = random.Random(1)
    for name, go in (("dragging", dragged), ("the slider's keys", typed), ("scrolling", scrolled)):
        found, before = [], len([url for url in requests if "/api/search" in url])
        for _ in range(drags):
            page.wait_for_function(SETTLED)
            first, end, since = go(page, rng, months)
            found.append(page.evaluate(ARRIVED, [first, end, since]))
        asked = len([url for url in requests if "/api/search" in url]) - before
        times, tiles = zip(*found, strict=True)
        line = f"{name:24}{np.median(times):>6.0f} ms{max(times):>6.0f} ms{max(tiles):>17}"
        print(f"{line}{asked / drags:>16.1f}", flush=True)
    used = page.evaluate("performance.memory.usedJSHeapSize") / 1e6
    print(f"memory of the page's script after that: {used:.0f} MB")
    print("target: any month within 1000 ms of letting go")
    context.close()


def ranges(timeline: dict[str, Any]) -> list[tuple[int, int]]:
    """Return the places of each month's pictures: from, to."""
    ends = np.cumsum([month["count"] for month in timeline["months"]] + [timeline["undated"]])
    starts = np.concatenate([[0], ends[:-1]])
    return [(int(a), int(b)) for a, b in zip(starts, ends, strict=True) if a < b]


def dragged(page: Any, rng: random.Random, months: list[tuple[int, int]]) -> Way:
    """Drag the handle; return the places of the month in the bubble, and when it was let go."""
    box = page.locator(SLIDER).bounding_box()
    x, top, tall = box["x"] + box["width"] / 2, box["y"] + 14, box["height"] - 28
    page.mouse.move(x, top + tall * rng.random())
    page.mouse.down()
    page.mouse.move(x, top + tall * rng.random(), steps=30)
    month = int(page.get_attribute(SLIDER, "aria-valuenow"))
    since = page.evaluate("performance.now()")
    page.mouse.up()
    return *months[month], since


def typed(page: Any, rng: random.Random, months: list[tuple[int, int]]) -> Way:
    """Press keys of the slider."""
    page.focus(SLIDER)
    for _ in range(rng.randrange(1, 12)):
        page.keyboard.press(rng.choice(("PageDown", "PageUp", "ArrowDown", "End", "Home")))
    since = page.evaluate("performance.now()")
    month = int(page.get_attribute(SLIDER, "aria-valuenow"))
    return *months[month], since


def scrolled(page: Any, rng: random.Random, months: list[tuple[int, int]]) -> Way:
    """Scroll anywhere, as the scrollbar does: any picture there will do."""
    since = page.evaluate(
        """(part) => {
            scrollTo(0, part * (document.documentElement.scrollHeight - innerHeight));
            return performance.now();
        }""",
        rng.random(),
    )
    return 0, months[-1][1], since


if __name__ == "__main__":
    main()
