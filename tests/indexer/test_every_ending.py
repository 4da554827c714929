"""``format:`` knows each ending that indexing knows, and finds the pictures of its format."""

import os

import pytest
from PIL import Image

from fovea.indexer.decoding.formats import EXTENSIONS, RAW_EXTENSIONS, VIDEO_EXTENSIONS
from fovea.search.clip.formats import FORMATS
from fovea.search.errors import QueryError
from fovea.search.library.rows import FileWrite, ImageMetadata, NewImage, WriteBatch
from fovea.search.query.filters import allowed_images
from fovea.search.query.language import parse
from scanner import Scanner


def found(library, ending):
    ids = allowed_images(library, parse(f"format:{ending}").filters).tolist()
    rows = library.rows("SELECT path, image_id FROM files")
    return {os.path.basename(path).decode() for path, image_id in rows if image_id in ids}


def test_each_ending_finds_the_pictures_of_its_format(library, tmp_path):
    pytest.importorskip("pillow_heif").register_heif_opener()
    photos = tmp_path / "photos"
    photos.mkdir()
    undrawn = RAW_EXTENSIONS | VIDEO_EXTENSIONS
    endings = [ending.decode() for ending in sorted(EXTENSIONS - undrawn)]
    kinds = {suffix: entry.name for entry in FORMATS for suffix in entry.suffixes}
    for number, ending in enumerate(endings):
        colour = (number * 5, 255 - number * 5, 90)
        mode = "F" if ending == ".pfm" else "RGB"
        picture = Image.new("RGB", (24, 16), colour).convert(mode)
        picture.save(photos / f"x{ending.upper() if number % 2 else ending}", kinds[ending])
    scan = Scanner(library)
    report = scan(photos)
    assert (report.embedded, report.failed, report.found) == (len(endings), 0, len(endings))
    for number, ending in enumerate(map(bytes.decode, sorted(undrawn))):
        digest = bytes([number]) * 32
        new = NewImage(digest, 1, ImageMetadata(format=kinds.get(ending, "RAW")))
        [root] = library.roots()
        file = FileWrite(os.fsencode(photos / f"x{ending}"), root.id, 1, 1, digest)
        library.write_batch(WriteBatch([new], [file]))
    for entry in FORMATS:
        expected = {f"x{suffix}" for suffix in entry.suffixes}
        names = (entry.name, *entry.extensions.split(), *entry.suffixes)
        for name in (*names, *map(str.upper, names)):
            assert {file.lower() for file in found(library, name)} == expected, name


@pytest.mark.parametrize("ending", sorted(EXTENSIONS))
def test_each_ending_is_a_format(ending):
    query = parse(f"format:{ending.decode()} -format:{ending.decode().upper()[1:]}")
    assert parse(str(query)) == query


@pytest.mark.parametrize(
    ("typed", "near"),
    [
        ("jpgg", "jpg"),
        ("tifff", "tiff"),
        (".hiec", "heic"),
        ("GIFF", "gif"),
        ("qqq", None),
        ("-", None),
    ],
)
def test_an_unknown_format_is_answered_with_those_there_are(typed, near):
    with pytest.raises(QueryError) as caught:
        parse(f"format:{typed}")
    assert f"{typed!r} is not a format" in str(caught.value)
    assert "jpeg, png, webp" in str(caught.value) and "raw" in str(caught.value)
    assert caught.value.params.get("near") == near
