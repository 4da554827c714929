"""Where the tests find the checkout and their pictures.

Collections in ../shared are used where there are any; what is committed serves all others.
"""

from pathlib import Path

HELPERS = Path(__file__).resolve().parent
TESTS = HELPERS.parent
CHECKOUT = TESTS.parent
SHARED = (CHECKOUT.parent / "shared").resolve()
ODD = TESTS / "odd" / "files"  # described by odd/manifest.tsv
DRAWINGS = TESTS / "odd" / "drawings"
PHOTOS = SHARED / "photos" if (SHARED / "photos").is_dir() else DRAWINGS
HOSTILE = SHARED / "hostile"


def hostile_files(every: int) -> list[Path]:
    """All odd files, and every so many-th one of ../shared/hostile."""
    shared = sorted(path for path in HOSTILE.rglob("*") if path.is_file())
    return sorted(ODD.iterdir()) + shared[::every]
