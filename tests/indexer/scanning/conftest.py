"""Fixtures of these tests."""

import pytest

from scanner import Scanner


@pytest.fixture
def scan(library):
    return Scanner(library)
