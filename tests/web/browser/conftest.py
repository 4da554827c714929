"""Fixtures of these tests."""

from pathlib import Path

import pytest
from PIL import Image

from browsing import chromium, indexed, served, visited
from places import PHOTOS

HERE = Path(__file__).parent
CAMERAS = ("iPhone 12", "Canon EOS R6", "Pixel 7")
FOLDERS = ("holidays/2019 Portugal", "holidays/2020 Norway/Bergen", "family/Portugal", "work")


def pytest_collection_modifyitems(items):
    """Run a test here once more if it fails: on busy cores Chromium can take longer than it waits.

    The summary names each that did.
    """
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.flaky(reruns=1))


@pytest.fixture
def page(browser, gallery):
    """The gallery's first page with its pictures."""
    with visited(browser, gallery) as page:
        page.wait_for_selector(".tile img")
        yield page


@pytest.fixture(scope="session")
def albums(tmp_path_factory):
    """The address of a server, and its folder: pictures of four years in four folders."""
    chromium()  # skips before indexing
    home = tmp_path_factory.mktemp("albums")
    for number, photo in enumerate(sorted(PHOTOS.glob("*.jpg"))[:12]):
        folder = home / "Photos" / FOLDERS[number % 4]
        folder.mkdir(parents=True, exist_ok=True)
        with Image.open(photo) as picture:
            exif = picture.getexif()
            exif[0x110] = CAMERAS[number % 3]
            exif.get_ifd(0x8769)[0x9003] = f"{2018 + number % 4}:07:{1 + number:02} 12:00:00"
            picture.save(folder / f"a{number:02}.jpg", exif=exif)
    library = indexed(home / "library", home / "Photos")
    with served(library) as address:
        yield address, home / "Photos"
