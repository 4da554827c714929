"""Fixtures of these tests."""

import pytest


@pytest.fixture
def nothing_is_unreachable(monkeypatch):
    """The roots of these tests are on no disk."""
    monkeypatch.setattr("fovea.search.library.library.unreachable", lambda paths: frozenset())
