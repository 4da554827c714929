"""A library with a bit of everything that suggestions are made of."""

import os
from collections.abc import Callable

import pytest

from fovea.search.analyses.stored import Done, store
from fovea.search.analyses.texts import Line, store_lines
from fovea.search.library.library import Library
from fovea.search.library.marks import mark
from fovea.search.library.rows import FileWrite, ImageMetadata, NewImage, WriteBatch
from fovea.search.query.saved import save_search

# Path, date, camera, format, width, height, latitude.
PICTURES = (
    ("/photos/holidays/2019 Portugal/IMG_0001.jpg", "2019-07-03T10:00:00", "Apple iPhone 6"),
    ("/photos/holidays/2019 Portugal/IMG_0002.jpg", "2019-07-04T10:00:00", "Apple iPhone 6"),
    ("/photos/holidays/2019 Portugal/IMG_0003.heic", "2019-08-01T10:00:00", "Apple iPhone 13"),
    ("/photos/holidays/2018/Île de Ré/beach party.jpg", "2018-07-10T10:00:00", "NIKON D90"),
    ("/photos/holidays/2018/Île de Ré/b*ach.png", "2018-07-11", None),
    ("/photos/葡萄牙旅行/海滩.jpg", "2025-12-25T12:00:00", "Canon EOS 6D"),
    ("/photos/quo\"te \\ back/-minus on:2019.jpg", "2025-11", "Canon EOS 6D"),
    ("/photos/Portugal/in:trap.jpg", "2026-11-25T10:00:00", 'He said "hi"'),
    ("/phone/DCIM/Camera/IMG_0001.jpg", "2026-06-30T10:00:00", "Apple iPhone 13"),
    ("/phone/DCIM/Camera/IMG_0009.jpg", "2026-10-01T10:00:00", "Apple iPhone 13"),
    ("/phone/hidden things/secret.gif", "2020-12-25T10:00:00", "Secret Cam"),
    ("/phone/odd\udcff/\udcfe.jpg", None, "a\x1b[31m\nb"),
)  # fmt: skip
TEXTS = {
    1: ["BOARDING PASS", "Zürich 登机牌"],
    2: ["Boarding pass, gate 3"],
    3: ["boarding party"],
    11: ["boarding secrets"],
}
FORMATS = {"jpg": "JPEG", "heic": "HEIF", "png": "PNG", "gif": "GIF"}


def write(library: Library, pictures, start: int = 1) -> None:
    """Write pictures whose files need not exist."""
    owners = {root.path: root.id for root in library.roots()}
    new, files = [], []
    for number, (path, taken, camera) in enumerate(pictures, start):
        key = number.to_bytes(32, "big")
        sides = (400, 300) if number % 3 else (300, 400)
        metadata = ImageMetadata(
            *sides, FORMATS[path.rpartition(".")[2]], 1, taken, camera, latitude=40.0, longitude=1.0
        )
        new.append(NewImage(key, 10**6 * number, metadata))
        place = os.fsencode(path)
        [owner] = [owners[root] for root in owners if place.startswith(root + b"/")]
        files.append(FileWrite(place, owner, 1, 10**18, key))
    library.write_batch(WriteBatch(new, files))


@pytest.fixture
def odd_library(library: Library) -> Library:
    """The library of ``PICTURES``, one of them hidden, two favourites, and two saved searches."""
    for root in (b"/photos", b"/phone"):
        library.add_root(root)
    write(library, PICTURES)
    mark(library, [(11).to_bytes(32, "big")], "hidden", True)
    mark(library, [(1).to_bytes(32, "big"), (6).to_bytes(32, "big")], "favourite", True)
    images = library.image_by_hash([number.to_bytes(32, "big") for number in TEXTS])
    for number, lines in TEXTS.items():
        shown = [Line(line, 1.0, (0.0,) * 8) for line in lines]
        done = [Done(images[number.to_bytes(32, "big")], shown)]
        store(library, "text", "1", done, store_lines)
    save_search(library, "Beach days", "beach -people after:2018")
    save_search(library, "Portugal at night", 'night in:"2019 Portugal"')
    return library


@pytest.fixture
def written() -> Callable[..., None]:
    return write
