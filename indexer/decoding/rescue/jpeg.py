"""Where the data of a JPEG end, and what they lack of its picture (ITU-T T.81, annexes B and G)."""

import re
from dataclasses import dataclass, replace
from io import BytesIO

import numpy as np
from PIL import Image

__all__ = [
    "END",
    "START",
    "Layout",
    "Scan",
    "ended",
    "ends_in_grey",
    "has_all_bits",
    "is_coarse",
    "lacks_colours",
    "layout",
    "unread_rows",
    "without_last_scan",
]

START = b"\xff\xd8\xff"
END = b"\xff\xd9"

# The end of a scan's data: a marker that is neither a stuffed 0, a fill byte nor a restart.
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
# What may follow a scan: tables, restart intervals, further scans, applications' data, the end.
_AFTER_SCAN = frozenset((0xC4, 0xCC, 0xDA, 0xDB, 0xDC, 0xDD, 0xFE, 0xD9, *range(0xE0, 0xF0)))
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = (0xC2, 0xC6, 0xCA, 0xCE)
_PADDING = 16  # zeros at the end of a file that lacks its end: room that a copy never filled
_GREY = 128  # of a block that libjpeg has no data for, and this much off after conversions
_NEARLY = 2
_MOST = 50_000_000  # pixels of a progressive JPEG that may be decoded twice more
# Where the last pixel of each orientation lies upright (Exif 2.32, tag 274): right, low.
_LAST_PIXEL = dict(enumerate([(1, 1), (0, 1), (0, 0), (1, 0), (1, 1), (0, 1), (0, 0), (1, 0)], 1))


@dataclass(frozen=True, slots=True)
class Scan:
    """One scan: where its data are, whose components they are, and which coefficients' bits."""

    start: int
    end: int
    components: bytes = b""
    first: int = 0  # of the coefficients, 0 to 63
    last: int = 63
    low: int = 0  # the lowest bit that it gives; 0 is the last one
    refines: bool = False  # bits of coefficients that another scan has begun


@dataclass(frozen=True, slots=True)
class Layout:
    """The scans of a JPEG, and the end of what belongs to its picture."""

    scans: tuple[Scan, ...]
    end: int
    is_ended: bool  # by an end-of-image marker
    components: bytes = b""
    bits: int = 8  # of a sample
    is_progressive: bool = False


def layout(data: bytes) -> Layout:
    """Walk the markers of a JPEG, up to its end or to the first that has no place there."""
    scans: list[Scan] = []
    position, components, bits, is_progressive = 2, b"", 8, False
    is_ended = False
    while position + 4 <= len(data) + 2 and data[position : position + 1] == b"\xff":
        marker = data[position + 1] if position + 1 < len(data) else 0
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        if marker == 0xD9 or (scans and marker not in _AFTER_SCAN):
            is_ended = marker == 0xD9
            break
        if 0xD0 <= marker <= 0xD8 or marker == 0x01:  # markers without a length
            position += 2
            continue
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        body = data[position + 4 : position + 2 + length]
        if length < 2 or len(body) < length - 2:
            break
        position += 2 + length
        if marker in _FRAMES and len(body) >= 6:
            bits, is_progressive = body[0], marker in _PROGRESSIVE
            components = body[6::3]
        if marker == 0xDA:  # start of scan: its data last until the next marker
            following = _MARKER.search(data, position)
            end = following.start() if following else len(data)
            scans.append(_scan(body, position, end))
            position = end
    if scans and not is_ended:
        position = scans[-1].end  # the tables of a scan that does not follow may be cut
    return Layout(
        tuple(scans), min(position, len(data)), is_ended, components, bits, is_progressive
    )


def without_last_scan(found: Layout) -> Layout:
    """Return a layout that ends, without a marker, before its last scan; it has two at least."""
    *scans, _ = found.scans
    return replace(found, scans=tuple(scans), end=scans[-1].end, is_ended=False)


def _scan(body: bytes, start: int, end: int) -> Scan:
    count = body[0] if body else 0
    tail = body[1 + 2 * count : 4 + 2 * count]
    if len(tail) < 3:
        return Scan(start, end)
    named = body[1 : 1 + 2 * count : 2]
    return Scan(start, end, named, tail[0], tail[1], tail[2] & 15, bool(tail[2] >> 4))


def ended(data: bytes, found: Layout) -> bytes:
    """Return a JPEG that lacks its end with one, and without what follows its last scan."""
    if found.is_ended:
        return data
    body = data[: found.end]
    bare = body.rstrip(b"\0")
    if len(body) - len(bare) >= _PADDING:
        body = bare
    return body.rstrip(b"\xff") + END


def ends_in_grey(image: Image.Image, stored: int) -> bool:
    """Say whether the last pixel is as light as the grey that stands for missing data.

    ``image`` lies upright, and was stored in this orientation. Its colour may be its neighbours'.
    """
    width, height = image.size
    x, y = _LAST_PIXEL[stored]
    found = image.getpixel((x * (width - 1), y * (height - 1)))
    bands = found if isinstance(found, tuple) else (found,)
    if len(bands) == 3:  # ITU-R BT.601
        bands = (0.299 * bands[0] + 0.587 * bands[1] + 0.114 * bands[2],)
    return all(band is not None and abs(band - _GREY) <= _NEARLY for band in bands)


def unread_rows(data: bytes, found: Layout) -> tuple[int, int]:
    """Return how many rows lack data, and of how many, at an eighth of the picture's scale.

    A scan that stops early takes whatever follows for its data, one that is whole ignores it: the
    rows that other data would change are those that it lacks. Grey rows that were drawn have data.
    ``data`` is as ``ended`` returns it.
    """
    scan = found.scans[-1]
    if found.is_progressive and (scan.first > 0 or scan.refines):
        return 0, 1  # an earlier scan has given each block its mean colour
    end = _end(data, found)
    more = _other_data(data[scan.start : end])
    one = _small(data)
    other = _small(data[:end] + more + data[end:])
    changed = (one != other).reshape(len(one), -1).any(1).nonzero()[0]
    return (len(one) - int(changed[0]) if len(changed) else 0), len(one)


def lacks_colours(found: Layout) -> bool:
    """Say whether components have no scan at all."""
    given = {c for scan in found.scans if scan.first == 0 for c in scan.components}
    return bool(set(found.components) - given)


def has_all_bits(found: Layout) -> bool:
    """Say whether some scan gives the last bit of each coefficient, as far as headers tell."""
    if not found.is_progressive:
        return True
    lowest = {(c, k): 99 for c in found.components for k in range(64)}
    for scan in found.scans:
        for c in scan.components:
            for k in range(scan.first, min(scan.last, 63) + 1):
                lowest[c, k] = min(lowest.get((c, k), 99), scan.low)
    return not any(lowest.values())


def is_coarse(data: bytes, found: Layout) -> bool:
    """Say whether a progressive JPEG lacks coefficients or their last bits.

    ``data`` is as ``ended`` returns it, and its first scans are whole. Of a very large one, the
    last scan counts as cut off, since finding out takes two more decodes.
    """
    if not found.is_progressive:
        return False
    if not has_all_bits(found) or _pixels(data) > _MOST:
        return True
    end = _end(data, found)
    more = _other_data(data[found.scans[-1].start : end])
    return bool((_small(data, 2) != _small(data[:end] + more + END, 2)).any())


def _end(data: bytes, found: Layout) -> int:
    """Return where the last scan's data end, before any bytes that fill up to its marker."""
    end = found.scans[-1].end if found.is_ended else data.rindex(END)
    return len(data[:end].rstrip(b"\xff"))


def _other_data(scan: bytes) -> bytes:
    """Return data that a scan may go on with: the beginning of its own, after any restart."""
    piece = _RESTART.split(scan[: 1 << 16], maxsplit=1)[0][:4096].rstrip(b"\xff")
    piece += bytes(range(1, 255))
    if not _RESTART.search(scan):
        return piece
    return piece + b"".join(bytes([0xFF, 0xD0 + count % 8]) + piece for count in range(16))


def _pixels(data: bytes) -> int:
    with Image.open(BytesIO(data), formats=("JPEG",)) as image:
        return image.width * image.height


def _small(data: bytes, scale: int = 8) -> np.ndarray:
    """Decode a JPEG at a half or an eighth of its scale: uint8 (h, w) or (h, w, bands)."""
    with Image.open(BytesIO(data), formats=("JPEG",)) as image:
        image.draft(None, (max(1, image.width // scale), max(1, image.height // scale)))
        return np.array(image)
