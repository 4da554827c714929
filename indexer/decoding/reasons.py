"""Say in a reader's terms why a file cannot be decoded."""

import re
from typing import Literal

from PIL import UnidentifiedImageError

from .limits import one_line
from .rescue.frames import is_webp

__all__ = ["explain"]

# Errors whose messages decoders write for people; errors of other kinds are bugs in them.
_WITH_MESSAGE = (OSError, SyntaxError, ValueError, RuntimeError)

_KNOWN = (  # a file's first bytes, and what it claims to be
    (rb"\xff\xd8\xff", "a JPEG"),
    (rb"\x89PNG\r\n\x1a\n", "a PNG"),
    (rb"RIFF.{4}WEBP", "a WebP"),
    (rb"GIF8[79]a", "a GIF"),
    (rb"II[*+]\0|MM\0[*+]", "a TIFF"),
    (rb".{4}ftyp(?:avif|avis)", "an AVIF"),
    (rb".{4}ftyp(?:hei|hev|mif1|msf1)", "a HEIF"),
    (rb"BM", "a BMP"),
)

_ENDS = "the file ends before its picture does"
_WRONG = "the data of its picture are damaged"
_PLAIN = (  # what Pillow and its decoders say, and what that means
    (r"image file is truncated \(", _ENDS),
    (
        r"unexpected end of file|truncated file read|not enough data|buffer is not large enough",
        _ENDS,
    ),
    (r"broken data stream|decoder error -2|decoding error|decoder error -\d", _WRONG),
    (r"failed to read next frame|could not create decoder object", _WRONG),
    (r"unrecognized data stream|image buffer overrun|unknown error when reading", _WRONG),
    (r"bad configuration", "it is of a kind that cannot be decoded"),
    (r"cannot load this image|unknown data organization", "it holds no picture data"),
)


def explain(exc: Exception, data: bytes) -> str:
    """Return why a decoder failed on a file's bytes, on one line."""
    if not data:
        return "the file is empty"
    text = one_line(str(exc)) if isinstance(exc, _WITH_MESSAGE) else ""
    if isinstance(exc, UnidentifiedImageError):
        if _ends_early(data):
            return _ENDS
        claimed = next((name for start, name in _KNOWN if re.match(start, data, re.DOTALL)), None)
        if claimed is not None:
            return f"{claimed} whose beginning is damaged or of a kind that cannot be decoded"
        return f"not a readable picture; its first bytes are {_beginning(data)}"
    for pattern, meaning in _PLAIN:
        if meaning is _WRONG and _ends_early(data):
            return _ENDS
        if re.search(pattern, text, re.IGNORECASE):
            return meaning
    return text or f"its decoder failed ({type(exc).__name__})"


def _ends_early(data: bytes) -> bool:
    """Say whether a file is shorter than its own first fields say."""
    if re.match(rb"II\*\0|MM\0\*", data):
        order: Literal["little", "big"] = "little" if data[:1] == b"I" else "big"
        return int.from_bytes(data[4:8], order) >= len(data)
    if is_webp(data):
        return int.from_bytes(data[4:8], "little") + 7 > len(data)
    if data[4:8] != b"ftyp":
        return False
    position = 0
    while position + 8 <= len(data):  # boxes of ISO/IEC 14496-12, section 4.2
        length = int.from_bytes(data[position : position + 4], "big")
        if length == 1:
            length = int.from_bytes(data[position + 8 : position + 16], "big")
        if length < 8:
            return False
        position += length
    return position > len(data)


def _beginning(data: bytes) -> str:
    """Return the first bytes of a file: as text if they are ASCII, else in hexadecimal."""
    text = data[:8].decode("ascii", "replace")
    return f'"{text}"' if text.isascii() and text.isprintable() else data[:8].hex(" ")
