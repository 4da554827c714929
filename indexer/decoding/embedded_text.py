"""Text embedded in pictures: titles, descriptions and keywords that people have written.

Read from XMP (ISO 16684-1), IPTC-IIM 4.2 and Exif, and from the XMP file that a photo editor has
put beside a picture. None of it can be trusted, so nothing here raises.
"""

import logging
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from xml.etree.ElementTree import Element

from PIL import Image, IptcImagePlugin

from .limits import Gone, Limits, Refused, one_line
from .reading import read_file
from .tags import RDF, items_of, xmp_tree

log = logging.getLogger(__name__)

TEXT = 400  # characters kept of a description
KEYWORDS = 50  # of a picture, each up to so many characters:
KEYWORD = 60

_DC = "{http://purl.org/dc/elements/1.1/}"
_HEADLINE = "{http://ns.adobe.com/photoshop/1.0/}Headline"
_ALT_TEXT = "{http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/}AltTextAccessibility"
_DESCRIPTIONS = (f"{_DC}title", f"{_DC}description", _HEADLINE, _ALT_TEXT)
_ITEMS = 1_000  # of one property
_LANGUAGE = "{http://www.w3.org/XML/1998/namespace}lang"

# IPTC-IIM 4.2, chapter 6: records and data sets
_CHARACTER_SET, _TITLE, _KEYWORD, _IIM_HEADLINE, _CAPTION = (
    (1, 90),
    (2, 5),
    (2, 25),
    (2, 105),
    (2, 120),
)
_UTF8 = b"\x1b%G"

# Exif 2.32, and the tags that Windows adds
_DESCRIPTION, _XP_TITLE, _XP_COMMENT, _XP_KEYWORDS = 0x010E, 0x9C9B, 0x9C9C, 0x9C9E

# What cameras and programs write by themselves.
_MADE = re.compile(
    r"digital (?:still )?camera|^sony dsc$|exif.?jpeg|^dcim|created (?:with|by)|^screenshot$"
    r"|^(?:untitled|default|image|photo|picture)$"
    r"|^(?:bty|cof|cut|dav|edf|hdr|mde|oznor|rbt|sdr|vhdr)$|^[\W\d_]*$",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class EmbeddedText:
    """The descriptions and keywords of a picture."""

    descriptions: tuple[str, ...] = ()
    keywords: tuple[str, ...] = ()

    def captions(self) -> tuple[str, ...]:
        """Return each description, all keywords as one text, and each keyword alone."""
        together = (", ".join(self.keywords),) if len(self.keywords) > 1 else ()
        return tuple(dict.fromkeys((*self.descriptions, *together, *self.keywords)))

    def __add__(self, other: "EmbeddedText") -> "EmbeddedText":
        return sound_words(
            (*self.descriptions, *other.descriptions), (*self.keywords, *other.keywords)
        )


def sound_words(descriptions: Iterable[str], keywords: Iterable[str]) -> EmbeddedText:
    """Return words without repetitions, empty ones, and what cameras write by themselves."""
    texts = (one_line(text, TEXT) for text in descriptions)
    last = (re.split(r"[|/\\]", keyword)[-1] for keyword in keywords)  # of "Places|Norway|Oslo"
    names = (one_line(text, KEYWORD) for text in last)
    return EmbeddedText(
        tuple(dict.fromkeys(text for text in texts if not _MADE.search(text))),
        tuple(dict.fromkeys(name for name in names if not _MADE.search(name)))[:KEYWORDS],
    )


def picture_words(image: Image.Image) -> EmbeddedText:
    """Return the text embedded in an opened image."""
    words = EmbeddedText()
    for read in (_xmp, _iptc, _exif):
        try:
            words += read(image)
        except Exception as exc:  # broken metadata raises anything, and must not cost the picture
            log.debug("%s of a picture: %r", read.__name__, exc)
    return words


def sidecar_words(path: bytes, limits: Limits) -> EmbeddedText:
    """Return the text in the XMP file beside a picture: ``a.jpg.xmp``, else ``a.xmp``."""
    for beside in (path + b".xmp", os.path.splitext(path)[0] + b".xmp"):
        try:
            contents = read_file(beside, limits)
        except (Gone, Refused):
            continue
        return parse_xmp(contents.data)
    return EmbeddedText()


def parse_xmp(packet: bytes) -> EmbeddedText:
    """Return the titles, descriptions and keywords of an XMP packet; a broken one has none."""
    root = xmp_tree(packet)
    if root is None:
        return EmbeddedText()
    descriptions: list[str] = []
    keywords: list[str] = []
    for node in root.iter(f"{RDF}Description"):
        descriptions += (node.get(_HEADLINE) or "",)
        for tag in _DESCRIPTIONS:
            descriptions += (_best(found) for found in node.findall(tag))
        for found in node.findall(f"{_DC}subject"):
            keywords += (item.text or "" for item in items_of(found, _ITEMS))
    return sound_words(descriptions, keywords)


def _best(node: Element) -> str:
    """Return the text of a property: of several languages the default, else the first."""
    items = items_of(node, _ITEMS)
    default = [item for item in items if item.get(_LANGUAGE) == "x-default"]
    return (default or items or [node])[0].text or ""


def _xmp(image: Image.Image) -> EmbeddedText:
    packet = image.info.get("xmp")
    if isinstance(packet, str):
        packet = packet.encode("utf-8", "replace")
    return parse_xmp(packet) if isinstance(packet, bytes) else EmbeddedText()


def _iptc(image: Image.Image) -> EmbeddedText:
    found: dict[tuple[int, int], Any] = IptcImagePlugin.getiptcinfo(image) or {}  # type: ignore[arg-type]
    utf8 = found.get(_CHARACTER_SET) == _UTF8

    def texts(place: tuple[int, int]) -> Iterator[str]:
        values = found.get(place, [])
        for value in values if isinstance(values, list) else [values]:
            yield _decoded(bytes(value), utf8)

    described = (text for place in (_TITLE, _IIM_HEADLINE, _CAPTION) for text in texts(place))
    return sound_words(described, texts(_KEYWORD))


def _decoded(value: bytes, utf8: bool) -> str:
    """Decode a text; one that does not name its encoding is UTF-8 if it can be."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("utf-8", "replace") if utf8 else value.decode("latin-1")


def _exif(image: Image.Image) -> EmbeddedText:
    exif = image.getexif()
    described = [_plain(exif.get(_DESCRIPTION))]
    described += [_wide(exif.get(tag)) for tag in (_XP_TITLE, _XP_COMMENT)]
    return sound_words(described, _wide(exif.get(_XP_KEYWORDS)).split(";"))


def _plain(value: Any) -> str:
    if isinstance(value, bytes):
        return _decoded(value.partition(b"\0")[0], False)
    return value.partition("\0")[0] if isinstance(value, str) else ""


def _wide(value: Any) -> str:
    """Return a text of Windows's own tags: UTF-16 as bytes or as a tuple of them."""
    try:
        data = bytes(value) if isinstance(value, bytes | tuple) else b""
    except (ValueError, TypeError):
        return ""
    return data.decode("utf-16-le", "replace").partition("\0")[0]
