"""What the library says of a picture is what its thumbnail and its embedding show."""

import io
import struct
import zlib

import numpy as np
import pillow_heif
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, TiffImagePlugin

from fovea.indexer.decoding.limits import Limits, Refused
from fovea.indexer.decoding.pillow import decode
from fovea.indexer.workers.decode_worker import answer
from fovea.search.clip.preprocess import Preprocess, as_rgb, turned

RED, GREEN, BLUE, YELLOW = (220, 20, 20), (20, 200, 20), (20, 20, 220), (230, 220, 20)
SQUASHED = Preprocess(32, fit="squash")
BACK = {6: 8, 8: 6}  # the turn that undoes another; all others undo themselves
COMPRESSIONS = (
    None, "tiff_lzw", "packbits", "tiff_adobe_deflate", "tiff_deflate", "jpeg", "lzma", "zstd",
)  # fmt: skip
XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-'
    'syntax-ns#"><rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" {}</rdf:RDF>'
    "</x:xmpmeta>"
)
XMPS = ('tiff:Orientation="{}"/>', "tiff:Orientation = '{}' />",
        "><tiff:Orientation>{}</tiff:Orientation></rdf:Description>")  # fmt: skip

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("prepared")]


def quadrants(width=208, height=160):
    made = Image.new("RGB", (width, height), YELLOW)
    x, y = width // 2, height // 2
    for colour, box in ((RED, (0, 0, x, y)), (GREEN, (x, 0, width, y)), (BLUE, (0, y, x, height))):
        made.paste(colour, box)
    return made


def encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def stored(orientation, **size):
    """The quadrants as a file holds them that is to be shown by this orientation."""
    return turned(quadrants(**size), BACK.get(orientation, orientation))


def corners(image):
    pixels = np.asarray(image.convert("RGB")).astype(int)
    height, width = pixels.shape[:2]
    return [pixels[y, x] for y in (height // 8, -height // 8) for x in (width // 8, -width // 8)]


def thumbnail(data, size=64):
    fields, made = answer(
        {"make": "thumbnails", "sizes": [size], "raw": False}, data, limits=Limits()
    )
    assert "refused" not in fields, fields
    return Image.open(io.BytesIO(made))


def assert_shown(data, size=(208, 160), orientation=None, colours=(RED, GREEN, BLUE, YELLOW)):
    """Both ways of decoding show the quadrants where they belong, and the numbers agree."""
    picture = decode(data, SQUASHED, Limits())
    about, small = picture.metadata, thumbnail(data)
    assert (about.width, about.height) == size
    assert (small.width > small.height) == (about.width > about.height)
    assert small.width / small.height == pytest.approx(about.width / about.height, rel=0.05)
    if orientation is not None:
        assert about.orientation == orientation
    for shown in (Image.fromarray(picture.pixels), small):
        for found, expected in zip(corners(shown), colours, strict=True):
            assert np.abs(found - expected).max() < 40, (found, expected)
    return about


def written(kind, orientation, compression=None, **size):
    """A file of this format whose EXIF, or whose container, says how it is turned."""
    image = stored(orientation, **size)
    if kind == "TIFF":
        return encoded(image, kind, tiffinfo={274: orientation}, compression=compression)
    if kind == "MPO":
        more = {"save_all": True, "append_images": [Image.new("RGB", (30, 40))]}
    else:
        more = {"WEBP": {"lossless": True}, "JPEG": {"progressive": True}}.get(kind, {})
    exif = Image.Exif()
    exif[274] = orientation
    return encoded(image, kind, exif=exif.tobytes(), **more)


@settings(deadline=None, max_examples=150, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF", "MPO"]),
    st.integers(1, 8),
    st.sampled_from(COMPRESSIONS),
    st.sampled_from([(208, 160), (160, 208), (1000, 999), (520, 400)]),
)
def test_the_library_says_what_is_shown(kind, orientation, compression, size):
    width, height = size
    data = written(kind, orientation, compression, width=width, height=height)
    about = assert_shown_at(data, size)
    assert about.orientation == (1 if kind == "HEIF" else orientation)


def assert_shown_at(data, size):
    if size == (1000, 999):  # nearly square: the thumbnail's sides may be equal
        about = decode(data, SQUASHED, Limits()).metadata
        assert (about.width, about.height) == size
        return about
    return assert_shown(data, size)


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_tiffs_of_every_compression_and_orientation(compression, orientation):
    assert_shown(written("TIFF", orientation, compression), orientation=orientation)


@pytest.mark.parametrize("kind", ["BMP", "GIF", "PPM", "JPEG2000"])
def test_formats_that_know_no_orientation(kind):
    assert_shown(encoded(quadrants(), kind), orientation=1)


@pytest.mark.parametrize("form", XMPS)
@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "TIFF", "TIFF-LZW"])
def test_an_orientation_that_only_xmp_knows(kind, form):
    for orientation in (2, 3, 6, 7):
        packet, image = XMP.format(form.format(orientation)).encode(), stored(orientation)
        if kind.startswith("TIFF"):
            compression = "tiff_lzw" if "-" in kind else None
            data = encoded(image, "TIFF", tiffinfo={700: packet}, compression=compression)
        else:
            data = encoded(image, kind, xmp=packet)
        assert_shown(data, orientation=orientation)


@pytest.mark.parametrize("form", XMPS)
@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_exif_and_xmp_that_agree_turn_a_picture_once_and_exif_wins(kind, form):
    for said in (6, 3):
        packet, image = XMP.format(form.format(said)).encode(), stored(6)
        exif = Image.Exif()
        exif[274] = 6
        more = {"tiffinfo": {274: 6, 700: packet}} if kind == "TIFF" else {}
        data = encoded(image, kind, **(more or {"exif": exif.tobytes(), "xmp": packet}))
        assert_shown(data, orientation=6)


def test_what_avif_says_besides_its_own_turn_is_void():
    packet = XMP.format(XMPS[0].format(6)).encode()
    assert_shown(encoded(quadrants(), "AVIF", xmp=packet), orientation=1)


def entry_of(kind, values):
    """A JPEG whose EXIF has an orientation of this TIFF type."""
    sizes = {1: "B", 2: "B", 3: "H", 4: "I", 5: "II", 9: "i", 11: "f", 12: "d"}
    raw = b"".join(struct.pack("<" + sizes[kind], *np.atleast_1d(value)) for value in values)
    place = raw.ljust(4, b"\0") if len(raw) <= 4 else struct.pack("<I", 26)
    ifd = struct.pack("<HHHI", 1, 274, kind, len(values)) + place + bytes(4)
    return b"Exif\0\0II*\0\x08\0\0\0" + ifd + (raw if len(raw) > 4 else b"")


@pytest.mark.parametrize(
    ("kind", "values", "orientation"),
    [
        (3, [0], 1), (3, [9], 1), (3, [65535], 1), (4, [6], 6), (1, [6], 6), (9, [6], 6),
        (9, [-6], 1), (5, [(6, 1)], 6), (5, [(6, 0)], 1), (11, [6.0], 6), (11, [6.5], 1),
        (12, [float("nan")], 1), (3, [6, 1], 6), (2, [ord("6"), 0], 1), (2, [0], 1),
    ],
)  # fmt: skip
def test_odd_values_of_an_orientation(kind, values, orientation):
    image = stored(orientation)
    assert_shown(encoded(image, "JPEG", exif=entry_of(kind, values)), orientation=orientation)


@pytest.mark.parametrize("value", [0, 9, 99])
def test_an_invalid_orientation_leaves_the_word_to_xmp(value):
    exif = Image.Exif()
    exif[274] = value
    packet = XMP.format(XMPS[0].format(8)).encode()
    assert_shown(encoded(stored(8), "JPEG", exif=exif.tobytes(), xmp=packet), orientation=8)
    assert_shown(encoded(quadrants(), "TIFF", tiffinfo={274: value}), orientation=1)


def test_the_primary_item_of_a_heic_is_the_picture():
    others = [quadrants(), Image.new("RGB", (96, 96), BLUE)]
    first = Image.new("RGB", (150, 200), RED)
    for primary in (0, 1, 2):
        data = encoded(first, "HEIF", save_all=True, append_images=others, primary_index=primary)
        about = decode(data, SQUASHED, Limits()).metadata
        assert (about.width, about.height) == [(150, 200), (208, 160), (96, 96)][primary]
        if primary == 1:
            assert_shown(data)


def test_a_heic_is_turned_by_its_container_and_not_by_its_exif():
    exif = Image.Exif()
    exif[274] = 6
    turned_by_itself = encoded(
        stored(6), "HEIF", exif=exif.tobytes()
    )  # Pillow's plugin writes irot
    assert_shown(turned_by_itself)
    said = entry_of(3, [1])
    data = encoded(quadrants(), "HEIF", exif=said)
    start = data.index(said[6:])
    wrong = data[:start] + entry_of(3, [6])[6:] + data[start + len(said) - 6 :]
    assert_shown(wrong)


@pytest.mark.parametrize("size", [64, 128])
def test_a_heic_of_tiles(size):
    buffer = io.BytesIO()
    pillow_heif.from_pillow(quadrants(400, 304)).save(buffer, tile_size=size)
    assert_shown(buffer.getvalue(), (400, 304))


def chunk(kind, body, wrong=0):
    check = zlib.crc32(kind + body) ^ wrong
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", check)


def test_a_png_whose_exif_follows_its_pixels():
    data = encoded(stored(6), "PNG")
    end = data.rindex(b"IEND") - 4
    assert_shown(data[:end] + chunk(b"eXIf", entry_of(3, [6])[6:]) + data[end:], orientation=6)


def tiff(width, height, tags, strips, order="<"):
    """An uncompressed TIFF of these tags ({tag: [shorts]}) and strips (bytes)."""
    body, offsets = b"".join(strips), []
    for count in range(len(strips)):
        offsets.append(8 + sum(map(len, strips[:count])))
    values = {256: [width], 257: [height], 278: [height]} | tags
    fields = [(tag, 3, value) for tag, value in values.items()]
    fields += [(273, 4, offsets), (279, 4, [len(strip) for strip in strips])]
    ifd, extra = struct.pack(order + "H", len(fields)), b""
    start = 8 + len(body)
    after = start + 2 + 12 * len(fields) + 4
    for tag, kind, value in sorted(fields):
        raw = struct.pack(f"{order}{len(value)}{'H' if kind == 3 else 'I'}", *value)
        field = raw.ljust(4, b"\0")
        if len(raw) > 4:
            field, extra = struct.pack(order + "I", after + len(extra)), extra + raw
        ifd += struct.pack(order + "HHI", tag, kind, len(value)) + field
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", start)
    return head + body + ifd + bytes(4) + extra


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("planar", [False, True])
def test_deep_and_planar_tiffs(order, bits, alpha, planar):
    wide = np.asarray(quadrants()).astype(np.uint16)
    if alpha:
        wide = np.dstack([wide, np.full(wide.shape[:2], 255, np.uint16)])
    bands = wide.shape[2]
    wide = (wide * 257).astype(order + "u2") if bits == 16 else wide.astype(np.uint8)
    strips = [wide[..., band].tobytes() for band in range(bands)] if planar else [wide.tobytes()]
    tags = {258: [bits] * bands, 259: [1], 262: [2], 277: [bands], 284: [2 if planar else 1]}
    assert_shown(tiff(208, 160, tags | ({338: [2]} if alpha else {}), strips, order))


def greys(data):
    return [
        int(colour[0])
        for colour in corners(Image.fromarray(decode(data, SQUASHED, Limits()).pixels))
    ]


GREY = np.asarray(quadrants())[..., 0]  # 220, 20, 20, 230


@pytest.mark.parametrize(
    ("bits", "sample", "values"),
    [
        (16, 1, (GREY.astype(np.uint16) * 257).astype("<u2")),
        (32, 1, (GREY.astype(np.uint32) * 16843009).astype("<u4")),
        (32, 3, (GREY / 255).astype("<f4")),
        (32, 3, GREY.astype("<f4")),
    ],
)
def test_greys_of_many_bits(bits, sample, values):
    tags = {258: [bits], 259: [1], 262: [1], 277: [1], 339: [sample]}
    assert greys(tiff(208, 160, tags, [values.tobytes()])) == pytest.approx(
        [220, 20, 20, 230], abs=2
    )


def test_twelve_bits_are_not_taken_for_sixteen_and_white_may_be_zero():
    twelve = (GREY.astype(int) * 4095 // 255).reshape(-1, 2)
    packed = np.stack(
        [twelve[:, 0] >> 4, (twelve[:, 0] & 15) << 4 | twelve[:, 1] >> 8, twelve[:, 1] & 255], 1
    ).astype(np.uint8)
    tags = {258: [12], 259: [1], 262: [1], 277: [1]}
    assert greys(tiff(208, 160, tags, [packed.tobytes()])) == pytest.approx(
        [220, 20, 20, 230], abs=2
    )
    deep = (GREY.astype(np.uint16) * 257).astype("<u2")
    tags = {258: [16], 259: [1], 262: [0], 277: [1]}
    assert greys(tiff(208, 160, tags, [deep.tobytes()])) == pytest.approx([35, 235, 235, 25], abs=2)


def test_a_premultiplied_grey_tiff_is_read():
    pair = np.dstack([GREY // 2, np.full_like(GREY, 128)])
    tags = {258: [8, 8], 259: [1], 262: [1], 277: [2], 338: [1]}
    data = tiff(208, 160, tags, [pair.astype(np.uint8).tobytes()])
    assert Image.open(io.BytesIO(data)).mode == "La"
    assert greys(data) == pytest.approx([237, 137, 137, 242], abs=3)  # half of it over white


@pytest.mark.parametrize(
    "mode", sorted({*Image.MODES, "La", "RGBa", "I;16L", "I;16B", "PA", "LAB"})
)
def test_every_mode_becomes_rgb(mode):
    assert as_rgb(Image.new(mode, (4, 3))).mode == "RGB"


def bmp(pixels):
    """A BMP of 32 bits whose header names its alpha: uint8 (h, w, 4), from the top."""
    height, width = pixels.shape[:2]
    masks = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    header = struct.pack("<IiiHHIIiiII", 108, width, height, 1, 32, 3, 0, 2835, 2835, 0, 0)
    header += struct.pack("<4I", *masks) + b"BGRs" + bytes(48)
    body = pixels[::-1, :, [2, 1, 0, 3]].tobytes()
    return struct.pack("<2sIHHI", b"BM", 14 + len(header) + len(body), 0, 0, 122) + header + body


def test_a_bmp_that_is_transparent_everywhere_is_opaque():
    pixels = np.dstack([np.asarray(quadrants()), np.zeros((160, 208), np.uint8)])
    assert Image.open(io.BytesIO(bmp(pixels))).mode == "RGBA"
    assert_shown(bmp(pixels))
    pixels[80, 104, 3] = 255  # its fourth byte means something
    assert decode(bmp(pixels), SQUASHED, Limits()).pixels[2, 2].tolist() == [255, 255, 255]


def test_libtiff_is_asked_only_for_one_file():
    tags = {258: [16] * 3, 259: [1], 262: [2], 277: [3], 284: [2]}
    plane = np.zeros((160, 208), "<u2").tobytes()
    with pytest.raises(Refused):
        decode(tiff(208, 160, tags, [plane, plane, plane])[:50_000], SQUASHED, Limits())
    assert TiffImagePlugin.READ_LIBTIFF is False
