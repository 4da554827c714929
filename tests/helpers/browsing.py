"""Chromium for tests: a served library, and pages whose problems are recorded."""

import base64
import hashlib
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs, urlparse

import numpy as np
import pytest

from fovea.search.library.library import Library
from fovea.search.library.rows import FileWrite, ImageMetadata, NewImage, WriteBatch
from fovea.search.models.resolve import resolve_model
from fovea.search.query.likelihood import Background
from fovea.search.query.measured import LabelSigns, Measured, Signs, Worth
from places import CHECKOUT

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ARGUMENTS = (
    "--no-sandbox",  # a container's root has none
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--host-resolver-rules=MAP photos.example.org 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
BOX = "input[name=q]"
PATIENCE = 120.0  # seconds to wait for a server or a page


def chromium() -> str:
    """Return the path of the system's browser; without one skip the test, or fail it in CI."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        reason = "no Chromium on this machine (apt-get install chromium)"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    return found


@contextmanager
def launched() -> Iterator:
    """Start a browser that can reach this machine only."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    path = chromium()
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


def indexed(library: Path, *folders: Path) -> Path:
    """Index the folders with the bundled model; return the library's folder."""
    command = [sys.executable, "-m", "fovea", "index", *map(str, folders)]
    options = ["--library", str(library), "--model", "fovea-small", "--workers", "1"]
    done = subprocess.run(command + options, cwd=CHECKOUT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return library


def invented(
    place: Path, count: int, described: Callable[[int], tuple[str, ImageMetadata]]
) -> Path:
    """Make a library of pictures without files, by name and metadata; return its folder.

    Whoever wants files writes them into ``place / "pictures"``.
    """
    pictures = place / "pictures"
    pictures.mkdir(exist_ok=True)
    model = resolve_model("fovea-small")
    vectors = np.random.default_rng(0).standard_normal((count, model.dim), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    with Library.open(place / "library", create=True) as library:
        row = library.set_model(model.name, model.identity, model.dim, model.source)
        root = library.add_root(pictures)
        images, files = [], []
        for number, vector in enumerate(vectors):
            name, metadata = described(number)
            path = bytes(pictures / name)
            digest = hashlib.sha256(path).digest()
            images.append(NewImage(digest, 1_000_000, metadata, vector))
            files.append(FileWrite(path, root.id, 1, 10**18 + number, digest))
        library.write_batch(WriteBatch(images, files, row.id))
    return place / "library"


def draw_line(folder: Path) -> None:
    """Let a library draw its line and show labels, whatever its model was measured to be worth."""
    with Library.open(folder) as library:
        model = library.model()
        assert model is not None
        background = Background.load(folder, model.identity)
        assert background is not None
        words = Signs((5.0, 1.0, 0.0), -5.0, 0.1, Worth(0.9, 0.5, 400))
        centre, labels = (0.0,) * model.dim, LabelSigns(0.0, 0.9, 1.0)
        signs = Measured(model.identity, centre, words, words, labels)
        replace(background, signs=signs).save(folder)


def free_port() -> int:
    """Return the number of a port that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextmanager
def served(
    library: Path,
    *folders: Path,
    model: str | None = None,
    offline: bool = True,
    port: int | None = None,
) -> Iterator[str]:
    """Run ``fovea serve`` on a port, by default a free one; yield its address.

    Where it is not ``offline``, its page may offer a better model.
    """
    port = free_port() if port is None else port
    command = [sys.executable, "-m", "fovea", "serve", *map(str, folders)]
    options = ["--library", str(library), "--port", str(port), "--no-browser"]
    options += ["--model", model] if model else []
    log = library.with_suffix(".log")
    with log.open("wb") as output:
        process = subprocess.Popen(
            command + options,
            cwd=CHECKOUT,
            env=os.environ | ({"FOVEA_OFFLINE": "1"} if offline else {}),
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
        )
        try:
            address = f"http://127.0.0.1:{port}"
            _wait_for(f"{address}/health", process, log)
            yield address
        finally:
            process.terminate()
            process.wait(timeout=30)


def _wait_for(address: str, process: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        assert process.poll() is None, f"the server ended: {log.read_text(errors='replace')}"
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            time.sleep(0.1)
    raise AssertionError(f"no answer from {address}: {log.read_text(errors='replace')}")


class Watch:
    """Records a page's errors, warnings, dialogs and requests to other machines."""

    def __init__(self, page) -> None:
        self.problems: list[str] = []
        self.expected: list[str] = []  # parts of problems that a test provokes
        page.on("console", self._said)
        page.on("pageerror", lambda error: self._note(f"script: {error}"))
        page.on("dialog", self._asked)
        page.on("request", self._requested)

    def _said(self, message) -> None:
        if message.type in ("error", "warning"):
            self._note(f"console: {message.text} ({message.location.get('url')})")

    def _asked(self, dialog) -> None:
        self._note(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _requested(self, request) -> None:
        if not request.url.startswith(("http://127.0.0.1:", "data:", "blob:http://127.0.0.1:")):
            self._note(f"request to {request.url}")

    def _note(self, problem: str) -> None:
        self.problems.append(problem)

    def unexpected(self) -> list[str]:
        """Return the problems that the test does not expect."""
        return [
            problem
            for problem in self.problems
            if not any(part in problem for part in self.expected)
        ]


@contextmanager
def visited(browser, address: str, **options) -> Iterator:
    """Open ``address`` in a new context; fail on unexpected problems in ``page.watch``."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}} | options)
    try:
        page = context.new_page()
        page.set_default_timeout(PATIENCE * 1000)
        page.watch = Watch(page)
        page.goto_at_once = page.goto
        if options.get("java_script_enabled", True):
            page.goto, page.reload = _whole(page, page.goto), _whole(page, page.reload)
        page.goto(address)
        yield page
        problems = page.watch.unexpected()
        assert not problems, problems
    finally:
        context.close()


@contextmanager
def looking(browser, address, **options):
    """Visit without thumbnails: there is nothing to make them of."""
    with visited(browser, "about:blank", **options) as page:
        page.watch.expected.append("thumbnail")
        session = page.context.new_cdp_session(page)
        session.send("Network.enable")
        session.send("Network.setBlockedURLs", {"urls": ["*/thumbnail*"]})
        page.goto(address)
        page.wait_for_selector(".tile")
        yield page


def _whole(page, load):
    """Return what loads a page and waits for the parts that its first view does without."""

    def loaded(*args, **options):
        response = load(*args, **options)
        is_early = options.get("wait_until") == "commit"
        if not is_early and page.locator("script[src$='/js/main.js']").count():
            page.wait_for_selector("html[data-ready]", state="attached")
        return response

    return loaded


def press(page, where: str, time: float) -> None:
    """Put a finger on the middle of an element for so many milliseconds."""
    box = page.locator(where).bounding_box()
    point = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2, "id": 0}
    session = page.context.new_cdp_session(page)
    session.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [point]})
    page.wait_for_timeout(time)
    session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


def violations(page) -> list[str]:
    """Return what axe-core finds serious or critical in the page now, one line each."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
    options = {"runOnly": {"type": "tag", "values": tags}, "resultTypes": ["violations"]}
    found = axe.Axe().run(page, options=options).response
    return [
        f"{rule['id']}: {node['target']}: {node.get('failureSummary', '')}"
        for rule in found["violations"]
        if rule["impact"] in ("serious", "critical")
        for node in rule["nodes"]
    ]


def answer(page, path: str) -> dict:
    """Fetch JSON from the API inside the page."""
    return page.evaluate("path => fetch(path).then(answer => answer.json())", path)


def shown(page) -> list[int]:
    """Return the ids of the pictures in the page, in the order of the results."""
    tiles = "tiles => tiles.map(tile => [+tile.dataset.index, +tile.dataset.imageId])"
    return [image_id for _, image_id in sorted(page.eval_on_selector_all(".tile", tiles))]


def wait_for_first(page, image_id: int, among: int = 1) -> None:
    """Wait until a picture is among the first results."""
    page.wait_for_function(
        """([id, among]) => [...document.querySelectorAll(".tile")].some(
            (tile) => +tile.dataset.imageId === id && +tile.dataset.index < among)""",
        arg=[image_id, among],
    )


def names(page) -> dict[str, int]:
    """Return name -> id of every picture in the library."""
    found, cursor = {}, ""
    while cursor is not None:
        document = answer(page, f"/api/search?q=&limit=100&cursor={cursor}")
        found |= {hit["name"]: hit["image_id"] for hit in document["hits"]}
        cursor = document["cursor"]
    return found


def drop(page, *files: Path, place: str = "body") -> None:
    """Drop files on the page, as a drag from a file manager does."""
    contents = [
        {"name": file.name, "data": base64.b64encode(file.read_bytes()).decode()} for file in files
    ]
    page.evaluate(
        """([contents, place]) => {
            const dataTransfer = new DataTransfer();
            for (const { name, data } of contents) {
                const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
                dataTransfer.items.add(new File([bytes], name, { type: "image/jpeg" }));
            }
            const options = { bubbles: true, cancelable: true, dataTransfer };
            for (const name of ["dragenter", "dragover", "drop"])
                document.querySelector(place).dispatchEvent(new DragEvent(name, options));
        }""",
        [contents, place],
    )


def focused(page) -> int:
    """The index of the picture that has the focus, -1 for none."""
    return page.evaluate("+(document.activeElement.closest('.tile')?.dataset.index ?? -1)")


def open_first(page) -> None:
    page.click(".tile[data-index='0'] .tile-open")
    page.wait_for_selector("#detail[data-state=ready]")


def type_in(page, text: str) -> None:
    """Type into an empty search box, and wait for the suggestions for just that."""
    page.fill(BOX, "")
    page.focus(BOX)
    page.wait_for_selector("#suggestions", state="hidden")
    with page.expect_response(lambda response: asks_for(response.url) == text):
        page.keyboard.type(text)
    page.wait_for_selector("#suggestions:not([hidden]) [role=listbox]:not([aria-busy])")


def asks_for(url: str) -> str | None:
    """Return the text that a request for suggestions is about; None for other requests."""
    address = urlparse(url)
    return parse_qs(address.query).get("q", [""])[0] if address.path == "/api/suggest" else None
