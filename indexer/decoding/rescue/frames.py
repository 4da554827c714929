"""What truncated files of several frames still hold.

WebP: the WebP Container Specification, RFC 9649. GIF: the GIF89a specification, appendix A.
"""

import struct
from collections.abc import Iterator
from itertools import islice

__all__ = ["gif_lacks_frames", "is_animated_webp", "is_webp", "mended_webp", "tiff_lacks_pages"]

# What stands for missing data, and for how many bytes before them: a decoder may reject some. It
# seldom rejects zeros, which do not differ from other zeros, though.
FILLS = (
    *((fill, 0) for fill in (0, 0x80, 0x10, 0x01, 0x11, 0xAA, 0x55, 0x40, 0xFF)),
    *((fill, before) for before in (1, 4, 8, 32, 64, 128) for fill in (0x80, 0x10, 0x01, 0x40)),
)
_IS_ANIMATED = 0x02  # a flag of the extended header
_EXIF, _XMP = 0x08, 0x04  # flags of the extended header
_EXTENSION, _IMAGE, _GRAPHIC_CONTROL = 0x21, 0x2C, 0xF9  # a GIF's blocks
_MOST = 64 << 20  # bytes that a frame may declare to be filled up
_CHUNKS = 10_000  # of a WebP, where each frame is one; further ones are not looked at
_KEPT = (b"VP8X", b"ALPH", b"VP8 ", b"VP8L", b"ANIM", b"ANMF", b"ICCP", b"EXIF", b"XMP ")
_PAGES = 1000  # of a TIFF; further ones are not looked for


def is_webp(data: bytes) -> bool:
    """Say whether a file's first bytes are a WebP's."""
    return data[:4] == b"RIFF" and data[8:12] == b"WEBP"


def is_animated_webp(data: bytes) -> bool:
    """Say whether a WebP announces several frames."""
    return data[12:16] == b"VP8X" and bool(data[20:21] and data[20] & _IS_ANIMATED)


def mended_webp(data: bytes) -> Iterator[bytes]:
    """Yield a WebP of the whole frames, or, of a still picture, one for each of ``FILLS``.

    Of the latter, each has its fill for the missing data. Yield nothing where not even a first
    frame has begun.
    """
    parts: list[tuple[bytes, bytes]] = []
    lacks = 0  # bytes of the last part
    for kind, body, length in islice(_chunks(data), _CHUNKS):
        if len(body) < length:
            if kind in (b"VP8 ", b"VP8L") and body and length <= _MOST:
                parts.append((kind, body))
                lacks = length - len(body)
            break
        if kind in _KEPT:
            parts.append((kind, body))
    kinds = {kind for kind, _ in parts}
    if not kinds & {b"VP8 ", b"VP8L", b"ANMF"}:
        return
    for fill, before in FILLS:
        made = [b"WEBP"]
        for number, (kind, body) in enumerate(parts, 1):
            if kind == b"VP8X" and body:
                flags = body[0]
                flags &= ~_EXIF if b"EXIF" not in kinds else 0xFF
                flags &= ~_XMP if b"XMP " not in kinds else 0xFF
                body = bytes([flags]) + body[1:]
            elif number == len(parts):
                before = min(before, len(body) // 2) if lacks else 0
                body = body[: len(body) - before] + bytes([fill]) * (before + lacks)
            made += [kind, struct.pack("<I", len(body)), body, b"\0" * (len(body) % 2)]
        yield b"RIFF" + struct.pack("<I", sum(map(len, made))) + b"".join(made)


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes, int]]:
    """Yield the type, body and declared length of each chunk; the last may be incomplete."""
    position = 12
    while position + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, position)
        yield kind, data[position + 8 : position + 8 + length], length
        position += 8 + length + length % 2


def gif_lacks_frames(data: bytes) -> bool:
    """Say whether a GIF ends inside a frame that is not its first."""
    position, frames = 13 + _table(data[10:11]), 0
    while position < len(data) and data[position] in (_EXTENSION, _IMAGE):
        is_image = data[position] == _IMAGE
        is_frames = is_image or data[position + 1 : position + 2] == bytes([_GRAPHIC_CONTROL])
        if is_image:
            position += 11 + _table(data[position + 9 : position + 10])
        else:
            position += 2
        while position < len(data) and data[position]:
            position += 1 + data[position]
        if position >= len(data):
            return is_frames and frames > 0
        position += 1
        frames += is_image
    return False


def tiff_lacks_pages(data: bytes) -> bool:
    """Say whether a TIFF names a further page that lies beyond its end (TIFF 6.0, section 2)."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4])
    if order is None:
        return False
    seen: set[int] = set()
    position = struct.unpack_from(order + "I", data, 4)[0] if len(data) >= 8 else 0
    while position and position not in seen and len(seen) < _PAGES:
        if position + 2 > len(data):
            return bool(seen)
        seen.add(position)
        position += 2 + 12 * struct.unpack_from(order + "H", data, position)[0]
        if position + 4 > len(data):
            return len(seen) > 1
        position = struct.unpack_from(order + "I", data, position)[0]
    return False


def _table(flags: bytes) -> int:
    """Return the length of the colour table that these flags announce."""
    return 3 << ((flags[0] & 7) + 1) if flags and flags[0] & 0x80 else 0
