"""Where the tests find the checkout, and what lies beside it."""

from pathlib import Path

TESTS = Path(__file__).resolve().parent
CHECKOUT = TESTS.parent
SHARED = CHECKOUT.parent / "shared"
PHOTOS = SHARED / "photos"
HOSTILE = SHARED / "hostile"
