"""One XMP sidecar: keywords, the hierarchies they stand in, and a rating.

Adobe, XMP Specification Part 1 (ISO 16684-1) and Part 2. ``lr:hierarchicalSubject`` is Lightroom's,
with a bar between levels, ``digiKam:TagsList`` is digiKam's, with a slash: so a slash in a tag's
name begins a level. ``dc:subject`` has the last level, as both programs write it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from xml.sax.saxutils import escape

from fovea.indexer.decoding.tags import items_of, xmp_tree

__all__ = ["BEST", "Sidecar", "is_ours", "keyword", "parse_sidecar", "sidecar_bytes"]

BEST = 5  # the rating of a favourite
MOST = 1_000  # keywords that are read of a file
LONGEST = 60  # characters of a keyword that is read

_DC = "{http://purl.org/dc/elements/1.1/}"
_LR = "{http://ns.adobe.com/lightroom/1.0/}"
_DIGIKAM = "{http://www.digikam.org/ns/1.0/}"
_XMP = "{http://ns.adobe.com/xap/1.0/}"


@dataclass(frozen=True, slots=True)
class Sidecar:
    """What a sidecar says of a picture."""

    keywords: tuple[str, ...] = ()
    rating: int | None = None  # -1 (rejected) to 5


def sidecar_bytes(sidecar: Sidecar) -> bytes:
    """Return an XMP file, UTF-8."""
    paths = list(dict.fromkeys(filter(None, map(_levels, sidecar.keywords))))
    parts = []
    if paths:
        last = _items(dict.fromkeys(path[-1] for path in paths))
        parts.append(f"<dc:subject><rdf:Bag>{last}</rdf:Bag></dc:subject>")
        bars = _items("|".join(path) for path in paths)
        parts.append(f"<lr:hierarchicalSubject><rdf:Bag>{bars}</rdf:Bag></lr:hierarchicalSubject>")
        slashes = _items("/".join(path) for path in paths)
        parts.append(f"<digiKam:TagsList><rdf:Seq>{slashes}</rdf:Seq></digiKam:TagsList>")
    if sidecar.rating is not None:
        parts.append(f"<xmp:Rating>{sidecar.rating}</xmp:Rating>")
    body = "\n   ".join(parts)
    return f"""<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="fovea">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about=""
    xmlns:dc="http://purl.org/dc/elements/1.1/"
    xmlns:digiKam="http://www.digikam.org/ns/1.0/"
    xmlns:lr="http://ns.adobe.com/lightroom/1.0/"
    xmlns:xmp="http://ns.adobe.com/xap/1.0/">
   {body}
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>
""".encode()


def is_ours(data: bytes) -> bool:
    """Whether fovea wrote a file and nobody has changed it since, not even by a space."""
    said = parse_sidecar(data)
    return said is not None and data == sidecar_bytes(said)


def _levels(word: str) -> tuple[str, ...]:
    """Return the levels of a name, without what XML does not take."""
    clean = "".join(c for c in word if c.isprintable()).replace("|", "/")
    return tuple(filter(None, (" ".join(level.split()) for level in clean.split("/"))))


def keyword(name: str) -> str:
    """Return a tag's name as it is read from a sidecar in which it was written."""
    return "/".join(_levels(name))


def _items(words: Iterable[str]) -> str:
    return "".join(f"<rdf:li>{escape(word)}</rdf:li>" for word in words)


def parse_sidecar(data: bytes) -> Sidecar | None:
    """Read what a sidecar says; None for what is not XMP. Entities are never expanded.

    Lightroom lists the levels above a name as well, and both programs each name once more as a
    keyword: these are no tags of their own.
    """
    root = xmp_tree(data)
    if root is None:
        return None
    words: dict[str, list[str]] = {name: [] for name in _LISTS}
    rating = None
    for node in root.iter():
        if node.tag in words:
            some = words[node.tag]
            some += (item.text or "" for item in items_of(node, MOST - len(some)))
        found = node.text if node.tag == f"{_XMP}Rating" else node.get(f"{_XMP}Rating")
        if rating is None and found is not None:
            rating = _rating(found)
    listed, hierarchies, flat = ([*filter(_is_usable, map(_levels, w))] for w in words.values())
    above = {path[:end] for path in hierarchies for end in range(1, len(path))}
    paths = dict.fromkeys(listed)
    paths |= dict.fromkeys(path for path in hierarchies if path not in above)
    known = {level for path in paths for level in path}
    paths |= dict.fromkeys(path for path in flat if "/".join(path) not in known)
    return Sidecar(tuple("/".join(path) for path in paths)[:MOST], rating)


def _is_usable(path: tuple[str, ...]) -> bool:
    word = "/".join(path)
    return 0 < len(word) <= LONGEST and word.isprintable()


_LISTS = (f"{_DIGIKAM}TagsList", f"{_LR}hierarchicalSubject", f"{_DC}subject")


def _rating(text: str) -> int | None:
    try:
        value = round(float(text[:20]))
    except (ValueError, OverflowError):
        return None
    return value if -1 <= value <= BEST else None
