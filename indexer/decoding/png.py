"""The chunks of a PNG: drop or mend damaged ones (PNG specification, third edition, section 5)."""

import re
import struct
import zlib
from collections.abc import Iterator
from itertools import islice, pairwise

from .limits import Refused

__all__ = [
    "START",
    "Chunk",
    "chunks",
    "has_all_frames",
    "is_ancillary",
    "is_sound",
    "mended",
    "without",
]

START = b"\x89PNG\r\n\x1a\n"

Chunk = tuple[bytes, int, int]  # its type, and where it starts and ends

_BANDS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of a colour type
# Of each pass of an interlaced picture: first column and row, then the steps between them.
_PASSES = (
    (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
    (0, 1, 1, 2),
)  # fmt: skip
_PIECE = 1 << 16
_NEEDED = re.compile(rb"PLTE|tRNS|IDAT")
_NAMES = 20  # of those, where a chunk's length is wrong; further ones are not looked at


def chunks(data: bytes) -> Iterator[Chunk]:
    """Yield the type, start and end of each complete chunk."""
    position = len(START)
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if end > len(data):
            return
        yield kind, position, end
        position = end


def is_sound(data: bytes, start: int, end: int) -> bool:
    """Say whether a chunk's checksum is right."""
    return zlib.crc32(data[start + 4 : end - 4]) == int.from_bytes(data[end - 4 : end], "big")


def is_ancillary(kind: bytes) -> bool:
    """Say whether a picture can be drawn without chunks of this type."""
    return bool(kind[0] & 0x20)


def without(data: bytes, dropped: list[Chunk]) -> bytes:
    """Return a PNG without these chunks."""
    if not dropped:
        return data
    cuts = [0, *(edge for _, start, end in dropped for edge in (start, end)), len(data)]
    return b"".join(data[start:end] for start, end in list(pairwise(cuts))[::2])


def mended(data: bytes) -> tuple[bytes, bool] | None:
    """Return a PNG with right checksums and only what its picture needs.

    Also say whether its palette was damaged. None where there is nothing to mend. Raise ``Refused``
    for a damaged header that does not describe the data.
    """
    original, data = data, _joined(data)
    found = list(chunks(data))
    kinds = {kind: (start, end) for kind, start, end in reversed(found)}
    if not found or found[0][0] != b"IHDR" or b"IDAT" not in data:
        return None
    wrong = {
        kind for kind in (b"IHDR", b"PLTE") if kind in kinds and not is_sound(data, *kinds[kind])
    }
    if b"IHDR" in wrong and not _describes(data, found):
        raise Refused("broken: its header is damaged: it does not describe the picture's data")
    made = data
    for kind in wrong:
        start, end = kinds[kind]
        made = (
            made[: end - 4] + zlib.crc32(data[start + 4 : end - 4]).to_bytes(4, "big") + made[end:]
        )
    needed = (b"tRNS", b"eXIf")
    made = without(
        made, [chunk for chunk in found if is_ancillary(chunk[0]) and chunk[0] not in needed]
    )
    return (made, b"PLTE" in wrong) if made != original else None


def _joined(data: bytes) -> bytes:
    """Return a PNG without a chunk before its pixels whose length leads beyond the file.

    The next chunk that is needed is found by its name, and by its checksum or how data begin.
    """
    position = len(START)
    for kind, _, end in chunks(data):
        if kind == b"IDAT":
            return data
        position = end
    for name in islice(_NEEDED.finditer(data, position + 8), _NAMES):
        start = name.start() - 4
        end = start + 12 + int.from_bytes(data[start : start + 4], "big")
        is_whole = end <= len(data) and is_sound(data, start, end)
        head = data[start + 8 : start + 10]  # RFC 1950, section 2.2
        begins = name[0] == b"IDAT" and len(head) == 2 and head[0] & 15 == 8
        if is_whole or (begins and int.from_bytes(head, "big") % 31 == 0):
            return data[:position] + data[start:]
    return data


def has_all_frames(data: bytes) -> bool:
    """Say whether a PNG holds as many frames as it promises, if it is animated."""
    promised, frames = 0, 0
    for kind, start, _ in chunks(data):
        if kind == b"acTL":
            promised = int.from_bytes(data[start + 8 : start + 12], "big")
        elif kind == b"IEND":
            return True
        elif not promised and kind == b"IDAT":
            return True
        frames += kind == b"fcTL"
    return not promised or frames > promised


def _describes(data: bytes, found: list[Chunk]) -> bool:
    """Say whether the data inflate to just as many bytes as the header asks for."""
    start, end = found[0][1:]
    if end - start != 25:
        return False
    width, height, bits, colour, *_, interlaced = struct.unpack(
        ">IIBBBBB", data[start + 8 : end - 4]
    )
    if colour not in _BANDS or bits not in (1, 2, 4, 8, 16) or not width or not height:
        return False
    passes = _PASSES if interlaced else ((0, 0, 1, 1),)
    expected = 0
    for x, y, across, down in passes:
        columns, rows = -(-(width - x) // across), -(-(height - y) // down)
        if columns > 0 and rows > 0:
            expected += rows * (1 + -(-columns * bits * _BANDS[colour] // 8))
    return _inflated(data, found, expected + 1) == expected


def _inflated(data: bytes, found: list[Chunk], most: int) -> int:
    """Return the length of the inflated data, or ``most`` if that is less."""
    inflater, length = zlib.decompressobj(), 0
    for kind, start, end in found:
        rest = data[start + 8 : end - 4] if kind == b"IDAT" else b""
        while rest and length < most:
            try:
                length += len(inflater.decompress(rest, min(_PIECE, most - length)))
            except zlib.error:
                return length
            rest = inflater.unconsumed_tail
    return length
