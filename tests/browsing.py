"""Chromium for tests: a served library, and pages that are watched."""

import base64
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from places import CHECKOUT

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ARGUMENTS = (
    "--no-sandbox",  # a container's root has none
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
PATIENCE = 120.0  # seconds that a server has to answer, and a page to show something


def chromium() -> str:
    """The system's browser; skip the test where there is none, which CI does not let pass."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        reason = "no Chromium on this machine (apt-get install chromium)"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    return found


@contextmanager
def launched() -> Iterator:
    """A browser that reaches this machine alone."""
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


@contextmanager
def served(library: Path, *folders: Path, model: str | None = None) -> Iterator[str]:
    """``fovea serve`` as a process of its own on a free port; its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "fovea", "serve", *map(str, folders)]
    options = ["--library", str(library), "--port", str(port), "--no-browser"]
    options += ["--model", model] if model else []
    log = library.with_suffix(".log")
    with log.open("wb") as output:
        process = subprocess.Popen(
            command + options, cwd=CHECKOUT, stdout=output, stderr=output, stdin=subprocess.DEVNULL
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
    """What goes wrong in a page: errors, complaints, boxes, requests that leave the machine."""

    def __init__(self, page) -> None:
        self.problems: list[str] = []
        self.expected: list[str] = []  # parts of complaints that a test provokes
        page.on("console", self._said)
        page.on("pageerror", lambda error: self._note(f"script: {error}"))
        page.on("dialog", self._asked)
        page.on("request", self._requested)

    def _said(self, message) -> None:
        if message.type in ("error", "warning"):
            self._note(f"console: {message.text} ({message.location.get('url')})")

    def _asked(self, dialog) -> None:
        self._note(f"a box: {dialog.message}")
        dialog.dismiss()

    def _requested(self, request) -> None:
        if not request.url.startswith(("http://127.0.0.1:", "data:", "blob:http://127.0.0.1:")):
            self._note(f"asked {request.url}")

    def _note(self, problem: str) -> None:
        self.problems.append(problem)

    def unexpected(self) -> list[str]:
        """The problems that no test has announced."""
        return [
            problem
            for problem in self.problems
            if not any(part in problem for part in self.expected)
        ]


@contextmanager
def visited(browser, address: str, **options) -> Iterator:
    """A fresh page at ``address`` that must end without a problem; ``page.watch`` is its Watch."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}} | options)
    try:
        page = context.new_page()
        page.set_default_timeout(PATIENCE * 1000)
        page.watch = Watch(page)
        page.goto(address)
        yield page
        problems = page.watch.unexpected()
        assert not problems, problems
    finally:
        context.close()


def violations(page) -> list[str]:
    """What axe-core finds serious or critical in the page as it is now, a line each."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
    found = axe.Axe().run(page, options={"runOnly": {"type": "tag", "values": tags}}).response
    return [
        f"{rule['id']}: {node['target']}: {node.get('failureSummary', '')}"
        for rule in found["violations"]
        if rule["impact"] in ("serious", "critical")
        for node in rule["nodes"]
    ]


def answer(page, path: str) -> dict:
    """What the API says to the page."""
    return page.evaluate("path => fetch(path).then(answer => answer.json())", path)


def shown(page) -> list[int]:
    """The ids of the pictures in the page, in the order of the results."""
    tiles = "tiles => tiles.map(tile => [+tile.dataset.index, +tile.dataset.imageId])"
    return [image_id for _, image_id in sorted(page.eval_on_selector_all(".tile", tiles))]


def wait_for_first(page, image_id: int, among: int = 1) -> None:
    """Wait until a picture is among the first of the results."""
    page.wait_for_function(
        """([id, among]) => [...document.querySelectorAll(".tile")].some(
            (tile) => +tile.dataset.imageId === id && +tile.dataset.index < among)""",
        arg=[image_id, among],
    )


def names(page) -> dict[str, int]:
    """The name of every picture in the library, and its id."""
    found, cursor = {}, ""
    while cursor is not None:
        document = answer(page, f"/api/search?q=&limit=100&cursor={cursor}")
        found |= {hit["name"]: hit["image_id"] for hit in document["hits"]}
        cursor = document["cursor"]
    return found


def drop(page, *files: Path, place: str = "body") -> None:
    """Let go of files over the page, as a file manager's drag does."""
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
