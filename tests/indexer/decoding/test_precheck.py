"""What a decoder would pay for in silence is found beforehand."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from fovea.indexer.decoding.limits import Limits, Refused
from fovea.indexer.decoding.precheck import STEP, jpeg_scans, pairs, screened


def encoded(kind, size=(64, 48), **options):
    file = io.BytesIO()
    Image.new("RGB", size, "teal").save(file, kind, **options)
    return file.getvalue()


def with_scans(count):
    """A progressive JPEG whose last scan is repeated."""
    data = encoded("JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * count + b"\xff\xd9"


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_with(*chunks):
    """A small PNG with these chunks after its header."""
    data = encoded("PNG")
    end = 8 + 12 + 13
    return data[:end] + b"".join(chunks) + data[end:]


def test_scans_are_counted():
    assert jpeg_scans(encoded("JPEG")) == 1
    progressive = jpeg_scans(encoded("JPEG", progressive=True))
    assert progressive > 1
    assert jpeg_scans(with_scans(7)) == progressive + 7


def test_a_thumbnail_s_scans_and_the_bytes_after_the_end_do_not_count():
    data = encoded("JPEG")
    body = b"\xff\xda" * 3000
    segment = b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body
    data = data[:2] + segment + data[2:] + b"\xff\xda" * 3000
    assert jpeg_scans(data) == 1
    assert screened(data, Limits()) == data


@pytest.mark.parametrize("length", [0, 1, 2, 3, 4, 5, 1000, 4 * STEP - 1, 4 * STEP + 3])
def test_pairs_are_counted_as_bytes_count_them_wherever_they_lie(length):
    data = np.random.default_rng(length).choice(np.array([0, 0xFF, 0xDA], np.uint8), length)
    for found in (data.tobytes(), b"\xff\xda" * (length // 2), b"\xda\xff" * (length // 2)):
        assert pairs(found, b"\xff\xda") == found.count(b"\xff\xda")


def test_too_many_scans_are_refused():
    assert screened(with_scans(50), Limits())
    with pytest.raises(Refused, match="too slow: a JPEG with .* scans; the limit is 100"):
        screened(with_scans(200), Limits())


@pytest.mark.parametrize("junk", [b"", b"\xff", b"\xff\xda" * 500, b"\xff\xff" * 5000, b"\0" * 9])
def test_nonsense_after_a_jpeg_s_first_bytes_ends_the_count(junk):
    assert jpeg_scans(b"\xff\xd8\xff" + junk) <= 501


@pytest.mark.parametrize("kind", [b"zTXt", b"iCCP", b"iTXt"])
def test_a_bomb_of_text_is_dropped_and_the_picture_kept(kind):
    flags = b"\1\0\0\0" if kind == b"iTXt" else b"\0"
    bomb = chunk(kind, b"k\0" + flags + zlib.compress(bytes(60 << 20), 9))
    small = chunk(b"tEXt", b"Title\0words")
    assert screened(png_with(bomb, small, bomb), Limits()) == png_with(small)


def test_ordinary_text_stays():
    info = PngImagePlugin.PngInfo()
    info.add_text("Title", "words" * 100, zip=True)
    info.add_itxt("Title", "words")
    data = encoded("PNG", pnginfo=info, icc_profile=bytes(3000))
    assert screened(data, Limits()) is data


def test_very_many_texts_are_dropped():
    data = png_with(*[chunk(b"tEXt", b"k\0v")] * 1001)
    assert screened(data, Limits()) == encoded("PNG")


@pytest.mark.parametrize("cut", [8, 20, 33, 40, 60])
def test_a_truncated_png_passes_to_the_decoder(cut):
    data = encoded("PNG")[:cut]
    assert screened(data, Limits()) == data
