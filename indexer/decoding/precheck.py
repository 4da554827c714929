"""Inspect a file's bytes before decoding, for what would cost Pillow too much."""

import re
import struct
import zlib
from collections.abc import Iterator

from .limits import Limits, Refused

_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"

# The end of a JPEG scan: a marker that is neither a stuffed 0, a fill byte nor a restart.
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")


def screened(data: bytes, limits: Limits) -> bytes:
    """Return a file's bytes without parts that are expensive and invisible.

    Raise ``Refused`` for a JPEG with more than ``limits.scans`` scans: each one walks every block
    of the picture, and even Pillow's draft mode pays for all of them.
    """
    if data.startswith(_JPEG):
        # Counting byte pairs first is quick, and never finds too few.
        if data.count(b"\xff\xda") > limits.scans and (count := jpeg_scans(data)) > limits.scans:
            raise Refused(f"too slow: a JPEG with {count:,} scans; the limit is {limits.scans:,}")
    elif data.startswith(_PNG):
        return without_bulky_text(data, limits)
    return data


def jpeg_scans(data: bytes) -> int:
    """Count the scans of a JPEG (ITU-T T.81, annex B), up to its end or first invalid marker."""
    count, position = 0, 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        if marker == 0xD9:  # end of image
            break
        if 0xD0 <= marker <= 0xD8 or marker == 0x01:  # markers without a length
            position += 2
            continue
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        if marker == 0xDA:  # start of scan: its data lasts until the next marker
            count += 1
            following = _MARKER.search(data, position)
            if following is None:
                break
            position = following.start()
    return count


def without_bulky_text(data: bytes, limits: Limits) -> bytes:
    """Drop a PNG's texts and colour profiles if they are too large or too many.

    Pillow would refuse the whole picture for them, and embedding does not need them.
    """
    chunks = list(_png_chunks(data))
    texts = [chunk for chunk in chunks if chunk[0] in (b"tEXt", b"zTXt", b"iTXt", b"iCCP")]
    too_many = len(texts) > limits.text_chunks
    bulky = [
        (start, end)
        for kind, start, end in texts
        if too_many or _inflated(kind, data[start + 8 : end - 4], limits.text) > limits.text
    ]
    if not bulky:
        return data
    kept, position = bytearray(), 0
    for start, end in bulky:
        kept += data[position:start]
        position = end
    return bytes(kept + data[position:])


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield the type, start and end of each complete chunk."""
    position = len(_PNG)
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if end > len(data):
            return
        yield kind, position, end
        position = end


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
