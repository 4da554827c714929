"""Where the tests find the checkout and their pictures; and folders that cannot be written.

Collections in ../shared are used where there are any; what is committed serves all others.
"""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

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


@contextmanager
def read_only(folder: Path) -> Iterator[Path]:
    """Make a folder and all in it read-only, as a mount does, and check that nothing changes.

    A user other than root takes away the permissions; root mounts the folder onto itself, or skips
    the test where that is not allowed.
    """
    before = contents(folder)
    with _mounted(folder) if os.geteuid() == 0 else _without_permission(folder):
        yield folder
    assert contents(folder) == before, "something was written into a read-only folder"


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    """Map every file below a folder to its size and the time of its last change."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.stat()
        found[str(path.relative_to(folder))] = (status.st_size, status.st_mtime_ns)
    return found


@contextmanager
def _mounted(folder: Path) -> Iterator[None]:
    commands = (["mount", "--bind", folder, folder], ["mount", "-o", "remount,ro,bind", folder])
    try:
        for command in commands:
            subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        subprocess.run(["umount", folder], capture_output=True)
        pytest.skip("root may not mount here, and permissions do not bind root")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True, capture_output=True)


@contextmanager
def _without_permission(folder: Path) -> Iterator[None]:
    places = [folder, *folder.rglob("*")]
    modes = {place: place.stat().st_mode for place in places}
    for place in reversed(places):
        place.chmod(modes[place] & ~0o222)
    try:
        yield
    finally:
        for place in places:
            place.chmod(modes[place])
