"""A library of many pictures, of which the page holds a small part."""

import pytest

from browsing import invented, served
from fovea.search.library.rows import ImageMetadata

YEARS = range(2015, 2025)
A_MONTH = 40
MANY = A_MONTH * 12 * len(YEARS)


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """A library of 4,800 pictures of ten years, whose files are gone."""

    def described(number):
        month, within = divmod(number, A_MONTH)
        day = f"{YEARS[0] + month // 12}-{month % 12 + 1:02}-{within * 2 // 3 + 1:02}"
        shape = ImageMetadata(400, 300 if number % 3 else 600, "JPEG", 1, f"{day}T10:00:00")
        return f"{'abc'[number % 3]}{number:05}.jpg", shape

    return invented(tmp_path_factory.mktemp("years"), MANY, described)


@pytest.fixture(scope="module")
def years(library):
    with served(library) as address:
        yield address
