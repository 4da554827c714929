"""Places are kept as far as they are sure, and what is none is none."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from fovea.indexer.decoding.exif import read_shot

GPS = 0x8825
NONE = IFDRational(0, 0)
PARIS = (48.8583333, 2.2941667)  # 48° 51' 30" N, 2° 17' 39" E
XMP = """<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF
 xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description
 xmlns:exif="http://ns.adobe.com/exif/1.0/" %s/></rdf:RDF></x:xmpmeta>"""


def place(tags, packet=None):
    """Return where a picture with these GPS tags was taken."""
    exif = Image.Exif()
    exif.get_ifd(GPS).update(tags)
    image = Image.new("RGB", (8, 8))
    image.info["xmp"] = packet
    shot = read_shot(exif, image)
    return shot.latitude, shot.longitude


def angles(latitude, longitude, north="N", east="E", **more):
    tags = {1: north, 2: latitude, 3: east, 4: longitude}
    return {tag: value for tag, value in tags.items() if value is not None}


NORTH, EAST = (48.0, 51.0, 30.0), (2.0, 17.0, 39.0)


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        (angles(NORTH, EAST), PARIS),
        # seconds and minutes that are not known
        (angles((48.0, 51.0, NONE), (2.0, 17.0, 39.0)), (48.85, PARIS[1])),
        (angles((48.0, 51.5, NONE), (2.0, 17.65, NONE)), PARIS),
        (angles((48.0, 51.0, 3000.0), EAST), (48.85, PARIS[1])),
        (angles((48.0, 51.0, 60.0), EAST), (48.8666667, PARIS[1])),
        (angles((48.0, NONE, NONE), EAST), None),  # up to 111 km off
        (angles((48.0, 75.0, 0.0), EAST), None),
        # fewer numbers
        (angles((48.0, 51.5), (2.0, 17.65)), PARIS),
        (angles((48.8583333,), (2.2941667,)), PARIS),
        (angles(48.8583333, IFDRational(22941667, 10**7)), PARIS),
        (angles((48.8583333, NONE, NONE), (2.2941667, NONE, NONE)), PARIS),
        # references
        (angles(NORTH, EAST, "S", "W"), (-PARIS[0], -PARIS[1])),
        (angles(NORTH, EAST, "n\0", " w "), (PARIS[0], -PARIS[1])),
        (angles(NORTH, EAST, "South", b"West\0"), (-PARIS[0], -PARIS[1])),
        (angles(NORTH, EAST, "E", "N"), None),
        (angles(NORTH, EAST, "Q"), None),
        (angles(NORTH, EAST, None, None), None),  # which of four places?
        (angles(NORTH, EAST, "\0", "E"), None),
        (angles(-48.8583333, -2.2941667, None, None), (-PARIS[0], -PARIS[1])),
        (angles((-48.0, 51.0, 30.0), EAST, None, None), (-PARIS[0], PARIS[1])),
        (angles(NORTH, (-2.0, -17.0, -39.0), None, None), (PARIS[0], -PARIS[1])),
        (angles(NORTH, (-2.0, -17.0, -39.0), None, "W"), (PARIS[0], -PARIS[1])),
        (angles(NORTH, (-2.0, -17.0, -39.0), None, "E"), None),
        (angles((-0.0, 30.0, 0.0), EAST, None, None), (-0.5, PARIS[1])),
        (angles(-48.8583333, EAST, "S"), (-PARIS[0], PARIS[1])),
        (angles(-48.8583333, EAST, "N"), None),
        (angles((48.0, -51.0, 30.0), EAST), None),
        # beyond the ends
        (angles(90.0000001, EAST), (90.0, PARIS[1])),
        (angles((89.0, 59.0, 60.0), EAST), (90.0, PARIS[1])),
        (angles((90.0, 0.0, 1.0), EAST, "S"), (-90.0, PARIS[1])),
        (angles(NORTH, 180.00001, "N", "W"), (PARIS[0], -180.0)),
        (angles(91.0, EAST), None),
        (angles(NORTH, 181.0), None),
        # nowhere
        (angles(0.0, 0.0), None),
        (angles((0.0, 0.0, 0.0), (0.0, 0.0, 0.0)), None),
        (angles(0.0, EAST), (0.0, PARIS[1])),
        (angles(NORTH, EAST) | {9: "V"}, None),
        (angles(NORTH, EAST) | {9: b"v\0"}, None),
        (angles(NORTH, EAST) | {9: "A"}, PARIS),
        (angles(float("nan"), EAST), None),
        (angles((float("inf"), 0.0, 0.0), EAST), None),
        (angles((), EAST), None),
        (angles(NORTH, None), None),
        # the altitude does not matter
        (angles(NORTH, EAST) | {5: b"\x07", 6: NONE}, PARIS),
        (angles(NORTH, EAST) | {6: "high"}, PARIS),
        # texts
        (angles("48,51.5N", "2,17.65E", None, None), PARIS),
        (angles("48/1, 51/1, 30/1", "2/1, 17/1, 39/1"), PARIS),
        (angles("48 51 30 S", "W 2.2941667", None, None), (-PARIS[0], -PARIS[1])),
        (angles("48°51'30\" north", "2 deg 17' 39.0\" east", None, None), PARIS),
        (angles("-48.8583333", "2.2941667", None, None), (-PARIS[0], PARIS[1])),
        (angles("somewhere", "else"), None),
        (angles("1 2 3 4 5", "2"), None),
    ],
)
def test_what_is_sure_of_a_place_is_kept(tags, expected):
    assert place(tags) == (pytest.approx(expected, abs=1e-6) if expected else (None, None))


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ('exif:GPSLatitude="48,51.5N" exif:GPSLongitude="2,17,39W"', (PARIS[0], -PARIS[1])),
        ('exif:GPSLatitude="48,51.5N" exif:GPSLongitude="2,17,39W" exif:GPSStatus="V"', None),
        ('exif:GPSLatitude="48.8583" exif:GPSLongitude="2.2942"', None),
        ('exif:GPSLatitude="48,51.5N"', None),
    ],
)
def test_xmp_stands_in_for_exif(attributes, expected):
    packet = (XMP % attributes).encode()
    known = pytest.approx(expected, abs=1e-6) if expected else (None, None)
    assert place({}, packet) == known
    assert place(angles(NORTH, EAST, None, None), packet) == known
    assert place(angles((10.0,), (20.0,)), packet) == (10.0, 20.0)
    assert place(angles((10.0,), (20.0,)) | {9: "V"}, packet) == (None, None)


def test_the_place_of_a_file_is_read_as_it_was_written():
    exif = Image.Exif()
    exif.get_ifd(GPS).update(angles((IFDRational(48), IFDRational(51), NONE), EAST))
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG", exif=exif)
    with Image.open(file) as image:
        shot = read_shot(image.getexif(), image, file.getvalue())
    assert (shot.latitude, shot.longitude) == pytest.approx((48.85, PARIS[1]))


@pytest.mark.parametrize(
    ("tags", "metres"),
    [
        ({6: 12.5}, 12.5),
        ({6: 12.5, 5: b"\x01"}, -12.5),
        ({6: 12.5, 5: 1}, -12.5),
        ({6: -12.5}, -12.5),
        ({6: -12.5, 5: b"\x01"}, -12.5),
        ({6: 12.5, 5: b""}, 12.5),
        ({6: NONE}, None),
        ({6: 1e9}, None),
    ],
)
def test_altitudes_below_the_sea_are_negative(tags, metres):
    exif = Image.Exif()
    exif.get_ifd(GPS).update(tags)
    assert read_shot(exif).altitude == metres


@given(st.floats(-90, 90), st.floats(-180, 180), st.integers(1, 3), st.booleans())
def test_every_way_to_write_a_place_means_the_same(latitude, longitude, count, is_text):
    def written(degrees):
        degrees, minutes = abs(degrees), abs(degrees) % 1 * 60
        parts = [
            (degrees,),
            (degrees // 1, minutes),
            (degrees // 1, minutes // 1, minutes % 1 * 60),
        ]
        parts = parts[count - 1]
        return ",".join(f"{part:.9f}" for part in parts) if is_text else parts

    north, east = "NS"[latitude < 0], "EW"[longitude < 0]
    found = place(angles(written(latitude), written(longitude), north, east))
    if max(abs(latitude), abs(longitude)) < 1e-5:
        assert found == (None, None) or found == pytest.approx((latitude, longitude), abs=1e-5)
    else:
        assert found == pytest.approx((latitude, longitude), abs=1e-6)
