"""Fixtures of these tests."""

import pytest

from vectors import DIM


@pytest.fixture
def model(library):
    return library.set_model("toy", "a" * 64, DIM, "test")
