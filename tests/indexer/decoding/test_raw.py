"""Camera RAW is read where the optional extra is installed."""

import io
import struct
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from fovea.indexer.decoding import raw
from fovea.indexer.decoding.limits import Limits, Refused
from fovea.indexer.decoding.pillow import decode
from fovea.indexer.workers import decode_worker
from fovea.search.clip.preprocess import Preprocess

rawpy = pytest.importorskip("rawpy", reason="the optional extra 'raw' is not installed")
PREPROCESS = Preprocess(32)


def dng(width=256, height=192, orientation=1):
    """A linear gradient as the simplest DNG: one uncompressed 16-bit Bayer plane."""
    plane = np.tile(np.linspace(500, 60000, width), (height, 1)).astype("<u2")
    words = {
        254: (4, [0]), 256: (4, [width]), 257: (4, [height]), 258: (3, [16]), 259: (3, [1]),
        262: (3, [32803]), 271: (2, b"Maker\0"), 272: (2, b"Model\0"), 274: (3, [orientation]),
        277: (3, [1]), 278: (4, [height]), 279: (4, [plane.nbytes]), 284: (3, [1]),
        306: (2, b"2021:02:03 04:05:06\0"), 33421: (3, [2, 2]), 33422: (1, b"\0\1\1\2"),
        50706: (1, b"\1\4\0\0"), 50708: (2, b"Maker Model\0"), 50717: (3, [65535]),
        50721: (10, [(1, 1) if place % 4 == 0 else (0, 1) for place in range(9)]),
        50728: (5, [(1, 1)] * 3), 50778: (3, [21]),
    }  # fmt: skip
    words[273] = (4, [0])
    sizes = {1: "B", 2: "s", 3: "H", 4: "I", 5: "II", 10: "ii"}
    start = 8 + 2 + 12 * len(words) + 4
    extra, entries = b"", []
    for tag in sorted(words):
        kind, values = words[tag]
        if isinstance(values, bytes):
            body = values
        elif kind in (5, 10):
            body = b"".join(struct.pack("<" + sizes[kind], *pair) for pair in values)
        else:
            body = b"".join(struct.pack("<" + sizes[kind], value) for value in values)
        if len(body) > 4:
            field, extra = (
                struct.pack("<I", start + len(extra)),
                extra + body + b"\0" * (len(body) % 2),
            )
        else:
            field = body.ljust(4, b"\0")
        entries.append((tag, kind, len(values), field))
    data_start = start + len(extra)
    directory = b"".join(
        struct.pack("<HHI", tag, kind, count)
        + (struct.pack("<I", data_start) if tag == 273 else field)
        for tag, kind, count, field in entries
    )
    head = b"II*\0" + struct.pack("<IH", 8, len(entries)) + directory + bytes(4)
    return head + extra + plane.tobytes()


def test_sensor_data_is_developed():
    picture = decode(dng(), PREPROCESS, Limits(), raw=True)
    shown = picture.metadata
    assert (shown.width, shown.height, shown.format) == (256, 192, "RAW")
    assert (shown.camera, shown.taken_at) == ("Maker Model", "2021-02-03T04:05:06")
    columns = picture.pixels.mean(axis=(0, 2))
    assert columns[0] < columns[15] < columns[31]  # brighter to the right


def test_sensor_data_is_turned_upright():
    picture = decode(dng(orientation=6), PREPROCESS, Limits(), raw=True)
    shown = picture.metadata
    assert (shown.width, shown.height, shown.orientation) == (192, 256, 6)
    rows = picture.pixels.mean(axis=(1, 2))
    assert rows[0] < rows[15] < rows[31]


def test_too_many_pixels_are_refused():
    with pytest.raises(Refused, match="too large: 256 x 192"):
        decode(dng(), PREPROCESS, Limits(pixels=1000), raw=True)


def test_what_is_no_raw_is_refused():
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG")
    for data in (b"", b"II*\0junk", file.getvalue()):
        with pytest.raises(Refused, match="broken: "):
            decode(data, PREPROCESS, Limits(), raw=True)


class Camera:
    """A RAW file whose sensor has 400 x 200 pixels, with a JPEG preview of some width in it."""

    def __init__(self, width, turned=0, **options):
        file = io.BytesIO()
        Image.new("RGB", (width, width // 2), (200, 100, 50)).save(file, "JPEG", **options)
        self.data = file.getvalue()
        self.sizes = SimpleNamespace(width=400, height=200, flip=turned)

    def extract_thumb(self):
        return SimpleNamespace(format=rawpy.ThumbFormat.JPEG, data=self.data)

    def postprocess(self, **options):
        return np.zeros((100, 200, 3), np.uint8)


@pytest.mark.parametrize(
    ("width", "turned", "size", "expected"),
    [
        (400, 0, 8192, (400, 200)),  # all that the camera has made of it
        (200, 0, 8192, (200, 100)),  # as large as what development gives
        (196, 0, 8192, None),
        (196, 0, 90, (196, 98)),
        (400, 6, 8192, (200, 400)),
    ],
)
def test_the_camera_s_preview_is_shown_unless_development_gives_more(
    monkeypatch, width, turned, size, expected
):
    camera = Camera(width, turned)
    monkeypatch.setattr(raw, "_opened", lambda data, limits: nullcontext(camera))
    shown = raw.developed(b"", size, Limits())
    assert shown.size == (expected or (200, 100))
    assert (shown.getpixel((5, 5)) == (0, 0, 0)) == (expected is None)


def test_a_preview_s_colours_are_those_of_its_profile(monkeypatch):
    swapped = b"a profile that swaps red and blue"
    monkeypatch.setattr(raw, "_opened", lambda *_: nullcontext(Camera(400, icc_profile=swapped)))
    assert raw.developed(b"", 8192, Limits()).info == {"icc_profile": swapped}

    def in_srgb(image, profile):
        return Image.merge("RGB", image.split()[::-1]) if profile == swapped else image

    monkeypatch.setattr(decode_worker, "_as_srgb", in_srgb)
    request = {"make": "whole", "sizes": [8192], "raw": True}
    _, made = decode_worker.answer(request, b"", limits=Limits())
    red, _, blue = Image.open(io.BytesIO(made)).getpixel((9, 9))
    assert red < 60 and blue > 190
