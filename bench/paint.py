"""Measure how soon the page shows the first fifty results, in Chromium.

    python bench/paint.py [FOLDER] [--rounds 5] [--query "a dog on the grass"]

FOLDER contains the pictures, by default ../shared/photos. Each round opens a link with a query in
it, with an empty browser cache. Cold: no thumbnail exists yet (each round has a new library). Warm:
all exist. The baseline, in the same run, is a static HTML page of the same fifty thumbnails, served
by Python's http.server. Needs Chromium and the test extra.
"""

import argparse
import os
import shutil
import statistics
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote_plus
from urllib.request import urlopen

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(1, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))

from browsing import answer, indexed, launched, served

QUERY = "a dog on the grass"
PAGE = 50
SCREEN = {"viewport": {"width": 1280, "height": 800}}
PAINTED = """() => new Promise((done) => {
    new PerformanceObserver((list) => done(list.getEntries().at(-1).startTime)).observe({
        type: "largest-contentful-paint",
        buffered: true,
    });
})"""
COMPLETE = """() => {
    const pictures = [...document.querySelectorAll("img")].filter((picture) => {
        const box = picture.getBoundingClientRect();
        return box.width > 0 && box.bottom > 0 && box.top < innerHeight;
    });
    return pictures.length > 5 && pictures.every((picture) => picture.complete);
}"""
NOW = "() => performance.now()"


def main() -> None:
    """Print one line for each kind of visit."""
    photos = Path(__file__).resolve().parents[2] / "shared" / "photos"
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=photos)
    parser.add_argument("--rounds", type=int, default=5, help="visits of each kind")
    parser.add_argument("--query", default=QUERY, help="what the link asks for; empty: the newest")
    options = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, medians of {options.rounds}")
    print(f"{'':40}{'largest paint':>15}{'all in view':>15}")
    with TemporaryDirectory(prefix="fovea-bench-") as place, launched() as browser:
        folder = Path(place)
        fresh = indexed(folder / "fresh", options.folder.resolve())
        cold = []
        for number in range(options.rounds):
            copy = shutil.copytree(fresh, folder / f"copy-{number}")
            with served(copy) as address:
                urlopen(f"{address}/api/search?q=warm").read()  # noqa: S310
                cold.append(visit(browser, asking(address, options.query)))
        show("fovea, cold", cold)
        with served(copy) as address:
            visit(browser, asking(address, options.query))
            show("fovea, warm", [visit(browser, asking(address, options.query)) for _ in cold])
            write_plain(browser, address, options.query, folder / "plain")
        with plainly_served(folder / "plain") as address:
            show("HTML without a script", [visit(browser, address) for _ in cold])
    print("target on an idle machine: largest paint < 1000 ms")


def asking(address: str, query: str) -> str:
    """Return the URL of the page with a query."""
    return f"{address}/?q={quote_plus(query)}"


def visit(browser: Any, address: str) -> tuple[float, float]:
    """Return when the largest element was painted and all pictures in view were loaded, in ms."""
    context = browser.new_context(**SCREEN)
    try:
        page = context.new_page()
        page.goto(address)
        page.wait_for_function(COMPLETE, polling=10)
        whole = page.evaluate(NOW)
        return page.evaluate(PAINTED), whole
    finally:
        context.close()


def show(title: str, visits: list[tuple[float, float]]) -> None:
    """Print a row of the table."""
    painted, whole = (statistics.median(times) for times in zip(*visits, strict=True))
    print(f"{title:40}{painted:12.0f} ms{whole:12.0f} ms", flush=True)


def write_plain(browser: Any, address: str, query: str, folder: Path) -> None:
    """Write the thumbnails of the results into a folder, and a page that shows them."""
    folder.mkdir()
    context = browser.new_context()
    page = context.new_page()
    page.goto(address)
    found = answer(page, f"/api/search?q={quote_plus(query)}&limit={PAGE}")
    context.close()
    tags = []
    for number, hit in enumerate(found["hits"]):
        with urlopen(f"{address}/api/images/{hit['image_id']}/thumbnail") as file:  # noqa: S310
            (folder / f"{number}.webp").write_bytes(file.read())
        tags.append(f'<img src="{number}.webp" height="220" alt="">')
    (folder / "index.html").write_text(f"<!doctype html><title>Pictures</title>{''.join(tags)}")


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        """Log nothing."""


@contextmanager
def plainly_served(folder: Path) -> Iterator[str]:
    """Serve a folder's files until the block ends; yield the URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/index.html"
    finally:
        server.shutdown()
        server.server_close()


if __name__ == "__main__":
    main()
