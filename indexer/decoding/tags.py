"""The tags of an opened picture: Exif, XMP, IPTC and PNG, each parsed once, when it is asked for.

None of them can be trusted: whatever cannot be read is missing, and nothing here raises.
"""

import math
import struct
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from itertools import islice
from typing import Any
from xml.etree.ElementTree import Element, ParseError

from PIL import Image, IptcImagePlugin

__all__ = ["RDF", "Tags", "as_bytes", "finite", "get", "items_of", "xmp_tree"]

XMP_BYTES = 4 << 20  # a larger packet is not read
RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"

_ARRAYS = tuple(f"{RDF}{kind}" for kind in ("Bag", "Seq", "Alt"))

_EXIF_IFD, _GPS_IFD = 0x8769, 0x8825
_XMP = 0x02BC  # in TIFF, and in camera RAW
_CHUNKS = 100_000  # of a PNG; its time is not looked for behind more
_PNG = b"\x89PNG\r\n\x1a\n"


class Tags:
    """What a picture says about itself.

    ``exif`` are the tags of its main directory. ``image`` is the opened picture, for what else it
    carries, and ``data`` the bytes that it was opened from.
    """

    def __init__(
        self, exif: Image.Exif, image: Image.Image | None = None, data: bytes = b""
    ) -> None:
        self.main: Mapping[int, Any] = exif
        self._exif, self._image, self._data = exif, image, data

    @cached_property
    def details(self) -> Mapping[int, Any]:
        """The Exif directory."""
        return _or(lambda: self._exif.get_ifd(_EXIF_IFD), {})

    @cached_property
    def gps(self) -> Mapping[int, Any]:
        """The GPS directory."""
        return _or(lambda: self._exif.get_ifd(_GPS_IFD), {})

    @cached_property
    def xmp(self) -> dict[str, str]:
        """The simple XMP properties by name, ``{namespace}name``; of several the first."""
        return _or(self._read_xmp, {})

    @cached_property
    def iptc(self) -> dict[tuple[int, int], str]:
        """The IPTC-IIM data sets that are ASCII, by record and number; of several the first."""
        return _or(self._read_iptc, {})

    @cached_property
    def png(self) -> dict[str, str]:
        """The texts of a PNG by keyword in lower case, and ``time``, when it was last changed."""
        if not self._data.startswith(_PNG):
            return {}
        info: Mapping[Any, Any] = {} if self._image is None else self._image.info
        found = {
            key.lower(): str(value)
            for key, value in info.items()
            if isinstance(key, str) and isinstance(value, str)
        }
        changed = _png_time(self._data)
        return found | ({"time": changed} if changed else {})

    def _read_xmp(self) -> dict[str, str]:
        packet = None if self._image is None else self._image.info.get("xmp")
        packet = packet or get(self.main, _XMP)
        root = None if not packet else xmp_tree(as_bytes(packet))
        found: dict[str, str] = {}
        for node in () if root is None else root.iter(f"{RDF}Description"):
            for name, value in node.items():
                found.setdefault(name, value)
            for child in node:
                if isinstance(child.tag, str) and not len(child) and child.text:
                    found.setdefault(child.tag, child.text)
        return found

    def _read_iptc(self) -> dict[tuple[int, int], str]:
        image: Any = self._image
        found = {} if image is None else IptcImagePlugin.getiptcinfo(image) or {}
        texts = {}
        for place, value in found.items():
            first = value[0] if isinstance(value, list) else value
            text = bytes(first).decode("latin-1")
            if text.isascii():
                texts[place] = text
        return texts


def _or(read: Callable[[], Any], otherwise: Any) -> Any:
    try:
        return read()
    except Exception:  # Pillow raises many kinds for broken tags, which must not cost the picture
        return otherwise


def get(values: Mapping[int, Any], tag: int) -> Any:
    """Return the value of an Exif tag; None if it is missing, or broken: it is parsed only now."""
    return _or(lambda: values.get(tag), None)


def as_bytes(value: Any) -> bytes:
    """Return the bytes of a text or of a tuple of numbers; none of anything else."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace")
    if isinstance(value, bytes | bytearray | tuple):
        return bytes(_or(lambda: bytes(value), b""))
    return b""


def finite(value: Any) -> float | None:
    """Turn a number or a fraction into a finite float; None for what is not one."""
    if isinstance(value, tuple) and len(value) == 1:
        value = value[0]
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def xmp_tree(packet: bytes) -> Element | None:
    """Parse an XMP packet (ISO 16684-1); None for one that is broken or too large."""
    from defusedxml import DefusedXmlException, ElementTree

    if len(packet) > XMP_BYTES:
        return None
    try:
        root: Element = ElementTree.fromstring(packet.strip(b"\0 \r\n\t"))
    except (ParseError, DefusedXmlException, ValueError, LookupError):
        return None
    return root


def items_of(node: Element, most: int) -> list[Element]:
    """Return the first items of a property's arrays (ISO 16684-1, 7.7), and none deeper in it.

    So however properties are nested, each item is read once.
    """
    return list(islice(_items(node), most))


def _items(node: Element) -> Iterator[Element]:
    for array in node:
        if array.tag in _ARRAYS:
            yield from (item for item in array if item.tag == f"{RDF}li")


def _png_time(data: bytes) -> str | None:
    """Return the tIME chunk (PNG, third edition, 11.3.6) as Exif writes dates."""
    place = len(_PNG)
    for _ in range(_CHUNKS):
        if place + 8 > len(data):
            break
        length, kind = struct.unpack_from(">I4s", data, place)
        if kind == b"tIME" and length == 7 and place + 15 <= len(data):
            return "{:04}:{:02}:{:02} {:02}:{:02}:{:02}".format(
                *struct.unpack_from(">H5B", data, place + 8)
            )
        place += 12 + length
    return None
