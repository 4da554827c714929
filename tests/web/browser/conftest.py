"""Fixtures of these tests."""

import pytest

from browsing import visited


@pytest.fixture
def page(browser, gallery):
    """The gallery's first page with its pictures."""
    with visited(browser, gallery) as page:
        page.wait_for_selector(".tile img")
        yield page
