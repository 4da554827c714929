import io

import pytest
from PIL import Image

from fovea.indexer.decoding.embedded_text import (
    EmbeddedText,
    parse_xmp,
    picture_words,
    sidecar_words,
)
from fovea.indexer.decoding.limits import Limits

XMP = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/"
 xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/" photoshop:Headline="Regatta">
<dc:description><rdf:Alt><rdf:li xml:lang="de">Ein Boot</rdf:li>
<rdf:li xml:lang="x-default">A boat &amp; its crew</rdf:li></rdf:Alt></dc:description>
<dc:subject><rdf:Bag><rdf:li>sailing</rdf:li><rdf:li>Places|Norway|Bergen</rdf:li>
<rdf:li>sailing</rdf:li><rdf:li>2019</rdf:li></rdf:Bag></dc:subject>
</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>""".encode()
SAID = EmbeddedText(("Regatta", "A boat & its crew"), ("sailing", "Bergen"))


def test_a_packet_gives_its_descriptions_and_keywords():
    assert parse_xmp(XMP) == SAID
    assert parse_xmp(b"\0" + XMP + b"\0 \n") == SAID
    assert SAID.captions() == (
        "Regatta", "A boat & its crew", "sailing, Bergen", "sailing", "Bergen",
    )  # fmt: skip


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"not xml",
        XMP[:300],
        XMP.replace(b'?xpacket begin="\xef\xbb\xbf"', b'?xml version="1.0" encoding="klingon"'),
        b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><x>&b;</x>',
        b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><x>&a;</x>',
        b"<x/>" + b" " * (5 << 20),
    ],
)
def test_a_broken_or_hostile_packet_says_nothing(packet):
    assert parse_xmp(packet) == EmbeddedText()


def opened(kind, **options):
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, kind, **options)
    return Image.open(file)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "TIFF", "AVIF"])
def test_formats_carry_a_packet(kind):
    options = {"tiffinfo": {700: XMP}} if kind == "TIFF" else {"xmp": XMP}
    with opened(kind, **options) as image:
        assert picture_words(image) == SAID


def iim(*sets):
    """IPTC-IIM data sets in the resource block of Photoshop that a JPEG holds them in."""
    data = b"".join(
        bytes([0x1C, *place]) + len(value).to_bytes(2, "big") + value for place, value in sets
    )
    block = b"8BIM\x04\x04\x00\x00" + len(data).to_bytes(4, "big") + data + b"\0" * (len(data) % 2)
    body = b"Photoshop 3.0\0" + block
    return b"\xff\xed" + (len(body) + 2).to_bytes(2, "big") + body


@pytest.mark.parametrize(
    ("mark", "coding"), [([((1, 90), b"\x1b%G")], "utf-8"), ([], "utf-8"), ([], "latin-1")]
)
def test_a_jpegs_iptc_is_read_in_its_character_set(mark, coding):
    sets = [
        *mark,
        ((2, 120), "Ein Café am Meer".encode(coding)),
        ((2, 25), "Küste".encode(coding)),
        ((2, 25), b"sea"),
    ]
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG")
    data = file.getvalue()
    with Image.open(io.BytesIO(data[:2] + iim(*sets) + data[2:])) as image:
        assert picture_words(image) == EmbeddedText(("Ein Café am Meer",), ("Küste", "sea"))


def test_exif_descriptions_are_read():
    exif = Image.Exif()
    exif[0x010E] = "A boat\0"
    exif[0x9C9B] = "Hafen\0".encode("utf-16-le")
    exif[0x9C9E] = "sea;boat;\0".encode("utf-16-le")
    with opened("JPEG", exif=exif) as image:
        assert picture_words(image) == EmbeddedText(("A boat", "Hafen"), ("sea", "boat"))


@pytest.mark.parametrize(
    "text",
    ["OLYMPUS DIGITAL CAMERA", "SONY DSC", "Exif_JPEG_PICTURE", "edf", "   ", "12-34", "Untitled"],
)
def test_what_cameras_write_is_no_description(text):
    exif = Image.Exif()
    exif[0x010E] = text
    with opened("JPEG", exif=exif) as image:
        assert picture_words(image) == EmbeddedText()


def test_a_sidecar_is_found_by_either_name(tmp_path):
    path = bytes(tmp_path / "a.jpg")
    assert sidecar_words(path, Limits()) == EmbeddedText()
    (tmp_path / "a.xmp").write_bytes(XMP.replace(b"sailing", b"rowing"))
    assert sidecar_words(path, Limits()).keywords == ("rowing", "Bergen")
    (tmp_path / "a.jpg.xmp").write_bytes(XMP)
    assert sidecar_words(path, Limits()) == SAID


def test_a_text_is_one_line_of_bounded_length():
    packet = XMP.replace(b"Regatta", b"word " * 1000).replace(b"sailing", b"a\tb")
    words = parse_xmp(packet)
    assert len(words.descriptions[0]) <= 400 and words.keywords[0] == "a b"
