"""What the tests of decoding share."""

import warnings

import pytest
from PIL import Image

from fovea.indexer.decoding.pillow import prepare


@pytest.fixture(scope="module")
def prepared():
    """Set up decoding, and leave Pillow and the warnings as they were."""
    limit = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        prepare()
        yield
    Image.MAX_IMAGE_PIXELS = limit
