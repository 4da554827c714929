"""Inspect a file's bytes before decoding, for what would cost Pillow too much."""

import sys
import zlib

import numpy as np

from . import png
from .limits import Limits, Refused
from .rescue.jpeg import START, layout

STEP = 1 << 18  # pairs of bytes compared at a time, so that they stay in the cache


def screened(data: bytes, limits: Limits) -> bytes:
    """Return a file's bytes without parts that are expensive or damaged, and invisible.

    Raise ``Refused`` for a JPEG with more than ``limits.scans`` scans: each one walks every block
    of the picture, and even Pillow's draft mode pays for all of them.
    """
    if data.startswith(START):
        # Counting byte pairs first is quick, and never finds too few.
        if pairs(data, b"\xff\xda") > limits.scans and (count := jpeg_scans(data)) > limits.scans:
            raise Refused(f"too slow: a JPEG with {count:,} scans; the limit is {limits.scans:,}")
    elif data.startswith(png.START):
        return without_bad_chunks(data, limits)
    return data


def pairs(data: bytes, pair: bytes) -> int:
    """Count two different bytes in a row, at even places and at odd ones.

    ``bytes.count`` takes six times as long, which is 8 % of decoding a large photograph.
    """
    if len(data) < 3:
        return int(data == pair)
    number, found = int.from_bytes(pair, sys.byteorder), 0
    for first in (0, 1):
        words = np.frombuffer(data, np.uint16, max(0, len(data) - first) // 2, first)
        for start in range(0, len(words), STEP):
            found += int(np.count_nonzero(words[start : start + STEP] == number))
    return found


def jpeg_scans(data: bytes) -> int:
    """Count the scans of a JPEG (ITU-T T.81, annex B), up to its end or first invalid marker."""
    return len(layout(data).scans)


def without_bad_chunks(data: bytes, limits: Limits) -> bytes:
    """Drop a PNG's damaged chunks, if its picture can do without them, and bulky ones.

    That are ancillary chunks with a wrong checksum, and texts and colour profiles that are too
    large or too many. Pillow would refuse the whole picture for them.
    """
    found = list(png.chunks(data))
    texts = [chunk for chunk in found if chunk[0] in (b"tEXt", b"zTXt", b"iTXt", b"iCCP")]
    too_many = len(texts) > limits.text_chunks
    dropped = {
        (kind, start, end)
        for kind, start, end in texts
        if too_many or _inflated(kind, data[start + 8 : end - 4], limits.text) > limits.text
    }
    dropped |= {
        chunk
        for chunk in found
        if png.is_ancillary(chunk[0]) and not png.is_sound(data, *chunk[1:])
    }
    return png.without(data, [chunk for chunk in found if chunk in dropped])


def _inflated(kind: bytes, body: bytes, limit: int) -> int:
    """Return the size of a chunk's text, without inflating more than just past the limit."""
    if kind == b"tEXt" or len(body) > limit:
        return len(body)
    keyword, _, rest = body.partition(b"\0")
    if kind == b"iTXt":  # compression flag and method, language, translated keyword
        if rest[:1] != b"\1":
            return len(body)
        rest = rest[2:].partition(b"\0")[2].partition(b"\0")[2]
    else:
        rest = rest[1:]  # compression method
    try:
        return len(zlib.decompressobj().decompress(rest, limit + 1))
    except zlib.error:
        return limit + 1  # broken, so dropped
