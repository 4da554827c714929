"""Ten thousand pictures: only those near the window are in the page."""

import hashlib

import numpy as np
import pytest

from browsing import served, visited
from fovea.search.library.library import Library
from fovea.search.library.rows import FileWrite, ImageMetadata, NewImage, WriteBatch
from fovea.search.models.resolve import resolve_model

MANY = 10_000
MOST = 400  # tiles: some windows full of them


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A server whose library knows so many pictures; their files are gone."""
    place = tmp_path_factory.mktemp("many")
    (place / "pictures").mkdir()
    model = resolve_model("fovea-small")
    vectors = np.random.default_rng(0).standard_normal((MANY, model.dim), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    with Library.open(place / "library", create=True) as library:
        row = library.set_model(model.name, model.identity, model.dim, model.source)
        root = library.add_root(place / "pictures")
        images, files = [], []
        for number, vector in enumerate(vectors):
            path = bytes(place / "pictures" / f"{number:05}.jpg")
            digest = hashlib.sha256(path).digest()
            shape = ImageMetadata(400, 300 if number % 3 else 600, "JPEG")
            images.append(NewImage(digest, 1, shape, vector))
            files.append(FileWrite(path, root.id, 1, 10**18 + number, digest))
        library.write_batch(WriteBatch(images, files, row.id))
    with served(place / "library") as address:
        yield address


def test_scrolling_to_the_last_picture_keeps_the_page_small(browser, many):
    with visited(browser, many) as page:
        page.watch.expected.append("thumbnail")  # there is nothing to make them of
        session = page.context.new_cdp_session(page)
        session.send("Network.enable")
        session.send("Network.setBlockedURLs", {"urls": ["*/thumbnail*"]})
        page.wait_for_selector(".tile")
        last = -1
        while last < MANY - 1:
            page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
            page.wait_for_function(
                "last => Math.max(...[...document.querySelectorAll('.tile')]"
                ".map((tile) => +tile.dataset.index)) > last",
                arg=last,
            )
            indexes = page.eval_on_selector_all(
                ".tile", "tiles => tiles.map((tile) => +tile.dataset.index)"
            )
            assert len(indexes) < MOST
            last = max(indexes)
        assert last == MANY - 1
        page.keyboard.press("Home")
        page.evaluate("scrollTo(0, 0)")
        page.wait_for_selector(".tile[data-index='0']")


def test_a_reload_leads_back_to_a_place_deep_down(browser, many):
    with visited(browser, "about:blank") as page:
        page.watch.expected.append("thumbnail")
        page.route("**/thumbnail?*", lambda route: route.abort())
        page.goto(many)
        page.wait_for_selector(".tile")
        deep = 28 * MANY  # pixels: among the last thousand
        page.evaluate("y => history.replaceState({ y }, '')", deep)
        page.reload()
        page.wait_for_function("y => scrollY === y", arg=deep)
        assert page.locator(".tile").count() < MOST
