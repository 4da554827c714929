"""The table of formats says what files are, and what browsers show."""

import pytest

from fovea.search.clip.formats import FORMATS, browser_media_type, format_named


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("jpeg", "JPEG"), ("JPG", "JPEG"), ("MPO", "JPEG"), ("heics", "HEIF"), ("apng", "PNG"),
        ("dib", "BMP"), ("jpc", "JPEG2000"), ("jpeg2000", "JPEG2000"), ("NEF", "RAW"),
        ("pdf", None), ("", None), ("jpg png", None),
    ],
)  # fmt: skip
def test_a_format_is_found_by_its_name_and_extensions(name, expected):
    found = format_named(name)
    assert (found and found.name) == expected


def test_no_two_formats_share_an_extension():
    extensions = [name for entry in FORMATS for name in entry.extensions.split()]
    assert sorted(set(extensions)) == sorted(extensions)


@pytest.mark.parametrize(
    ("beginning", "media_type"),
    [
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
        (b"\x89PNG\r\n\x1a\n\0\0", "image/png"),
        (b"GIF87a", "image/gif"),
        (b"GIF89a", "image/gif"),
        (b"RIFF\x0a\x00\x00\x00WEBPVP8 ", "image/webp"),
        (b"RIFF\x00\x00\x00\x00WAVE", None),
        (b"\x00\x00\x00\x1cftypavif", "image/avif"),
        (b"\x00\x00\x00\x0aftypavis", "image/avif"),
        (b"\x00\x00\x00\x1cftypheic", None),
        (b"<!doctype html>", None),
        (b"", None),
    ],
)
def test_what_browsers_show_is_told_by_the_first_bytes(beginning, media_type):
    assert browser_media_type(beginning) == media_type
