"""Dates are kept as far as they are sure, whichever way they are written."""

import io
import subprocess
import sys
from datetime import date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from fovea.indexer.decoding.dates import parse_date
from fovea.indexer.decoding.exif import read_shot
from fovea.indexer.decoding.limits import Limits
from fovea.indexer.decoding.pillow import decode
from fovea.search.clip.preprocess import Preprocess
from places import SHARED

EXIF, GPS = 0x8769, 0x8825
MODIFIED, TAKEN, DIGITISED = 0x0132, 0x9003, 0x9004
XMP = """<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF
 xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description
 xmlns:exif="http://ns.adobe.com/exif/1.0/" xmlns:xmp="http://ns.adobe.com/xap/1.0/"
 xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/" %s>%s</rdf:Description></rdf:RDF>
</x:xmpmeta>"""


def picture(kind="JPEG", main=(), details=(), place=(), **options):
    """Encode a picture with these tags."""
    exif = Image.Exif()
    exif.update(main)
    exif.get_ifd(EXIF).update(details)
    exif.get_ifd(GPS).update(place)
    file = io.BytesIO()
    options |= {"exif": exif} if any((main, details, place)) else {}
    Image.new("RGB", (8, 8)).save(file, kind, **options)
    return file.getvalue()


def read(data):
    """Return the date of a picture and its source, as indexing does."""
    found = decode(data, Preprocess(8), Limits()).metadata
    return found.taken_at, found.dated_by


@pytest.mark.parametrize(
    ("written", "known"),
    [
        # times that do not exist cost the time, not the day
        ("2017:03:05 24:00:00", "2017-03-05"),
        ("2017:03:05 25:61:61", "2017-03-05"),
        ("2017:03:05 12:60:00", "2017-03-05"),
        ("2016:12:31 23:59:60", "2016-12-31T23:59:59"),
        ("2017:03:05 07:08:99", "2017-03-05T07:08:00"),
        ("2017:03:05 07:08:  ", "2017-03-05T07:08:00"),
        ("2017:03:05 07:  :  ", "2017-03-05"),
        ("2017:03:05   :  :  ", "2017-03-05"),
        ("2017:03:05", "2017-03-05"),
        ("2017-03-05-07:00", "2017-03-05"),
        ("2017-03-05+02:00", "2017-03-05"),
        # a minus sign before the hour
        ("2017:03:05 -1:00:00", "2017-03-05"),
        ("2017:03:05 -07:08:09", "2017-03-05"),
        ("2017:03:05:-7:08:09", "2017-03-05"),
        ("20170305 -070809", "2017-03-05"),
        ("2017-03-05 - 07:08:09", "2017-03-05T07:08:09"),
        ("2017-03-05-07:08:09", "2017-03-05T07:08:09"),
        # halves of the day
        ("2017:03:05 12:08:09 AM", "2017-03-05T00:08:09"),
        ("2017:03:05 12:08:09 p.m.", "2017-03-05T12:08:09"),
        ("2017:03:05 07:08:09 p.\u00a0m.", "2017-03-05T19:08:09"),
        ("2017:03:05 下午07:08:09", "2017-03-05T19:08:09"),
        ("2017:03:05 下午07:08:09".encode(), "2017-03-05T19:08:09"),
        ("2017:03:05 上午07:08:09".encode("gb18030"), "2017-03-05T07:08:09"),
        ("2017:03:05 오후 7:08:09", "2017-03-05T19:08:09"),
        ("2017:03:05 19:08:09 PM", "2017-03-05T19:08:09"),
        ("2017:03:05 19:08:09 AM", "2017-03-05"),
        ("2017:03:05 Nachmittag 07:08:09", "2017-03-05"),
        ("2017:03:05 07:08:09 ಅಪರಾಹ್ನ", "2017-03-05"),
        # spellings
        ("2017: 3: 5  7: 8: 9", "2017-03-05T07:08:09"),
        ("2017:03:05\x0007:08:09\0\0", "2017-03-05T07:08:09"),
        ("\0 2017:03:05 07:08:09 and so on", "2017-03-05T07:08:09"),
        ("2017:03:05 07:08:09\xff\xfe", "2017-03-05T07:08:09"),
        ("2017:03:05 07:08:09".encode("utf-16-le"), "2017-03-05T07:08:09"),
        ("2017:03:05 07:08:09".encode("utf-16-be"), "2017-03-05T07:08:09"),
        ("\0\0\0 2017:03:05 07:08:09", "2017-03-05T07:08:09"),
        ("2017:03:0507:08:09", "2017-03-05T07:08:09"),
        ("2017:03:05:07:08:09", "2017-03-05T07:08:09"),
        ("2017: 3: 5:07:08:09", "2017-03-05T07:08:09"),
        ("20170305 070809+0100", "2017-03-05T07:08:09"),
        ("20170305070809", "2017-03-05T07:08:09"),
        ("٢٠١٧:٠٣:٠٥ ٠٧:٠٨:٠٩", "2017-03-05T07:08:09"),
        ("2017年3月5日 7時8分9秒", "2017-03-05T07:08:09"),
        ("Sun Mar  5 07:08:09 2017", "2017-03-05T07:08:09"),
        ("Sun, 05 Mar 2017 07:08:09 GMT", "2017-03-05T07:08:09"),
        ("March 5th, 2017 7:08:09 PM", "2017-03-05T19:08:09"),
        ("25/12/2016 07:08", "2016-12-25T07:08:00"),
        ("12/25/2016 07:08", "2016-12-25T07:08:00"),
        ("05.03.2017 07:08", "2017-03-05T07:08:00"),
        # the month or the year alone
        ("2017:03:00 00:00:00", "2017-03"),
        ("2017:03:   07:08:09", "2017-03"),
        ("2017:03: 07:08:09", "2017-03"),
        ("2017:00:00 00:00:00", "2017"),
        ("2017:  :  ", "2017"),
        ("2017:  :05 07:08:09", "2017"),
        ("2017", "2017"),
        ("2017-03", "2017-03"),
        ("20170300", "2017-03"),
        ("2017:04:31 10:00:00", "2017-04"),
        ("2017:03:45 10:00:00", "2017-03"),
        ("2017:13:05 10:00:00", "2017"),
        ("05/03/2017 07:08", "2017"),  # 5 March or 3 May
        ("31/04/2017 07:08", "2017"),
        ("0/0/0000 07:08", None),
        # nothing
        ("0000:00:00 00:00:00", None),
        ("0000:03:05 10:00:00", None),
        ("    :  :     :  :  ", None),
        ("20171305 100000", None),
        ("20170345", None),
        ("201703051", None),
        ("2017 was warm", None),
        ("", None),
        (None, None),
        (2017, None),
    ],
)
def test_what_is_sure_of_a_date_is_kept(written, known):
    assert parse_date(written) == known


MOMENTS = st.datetimes(datetime(1830, 1, 1), datetime(2025, 12, 31, 23, 59, 59))


@given(
    MOMENTS,
    st.sampled_from(["{:04}{s}{:02}{s}{:02}", "{:04}{s}{:}{s}{:}", "{:04}{s}{:2}{s}{:2}"]),
    st.sampled_from([*":-/._"]),
    st.sampled_from([" ", "T", "  ", "\0", ":", ", "]),
    st.sampled_from(["{:02}:{:02}:{:02}", "{:}:{:}:{:}", "{:02}.{:02}.{:02}", "{:2}:{:2}:{:2}"]),
    st.sampled_from(["", "Z", "+02:00", "-0730", ".25", ".123456+05:30", " UTC", "\0", " \0junk"]),
)
def test_every_spelling_means_the_same_moment(moment, day, sign, between, time, zone):
    written = day.format(moment.year, moment.month, moment.day, s=sign)
    written += between + time.format(moment.hour, moment.minute, moment.second) + zone
    assert parse_date(written) == moment.isoformat(timespec="seconds")
    assert parse_date(f" {written}".encode()) == parse_date(written)


@given(MOMENTS, st.text(max_size=20))
def test_whatever_follows_the_day_the_day_stays(moment, junk):
    found = parse_date(f"{moment:%Y:%m:%d} {junk}".replace(f"{moment.year}", f"{moment.year:04}"))
    assert found is not None and found[:10] == moment.date().isoformat()


@given(st.one_of(st.text(max_size=40), st.binary(max_size=40), st.integers(), st.floats()))
def test_nothing_written_raises(written):
    found = parse_date(written)
    assert found is None or found[:4].isdecimal()


# The choice among several tags


@pytest.mark.parametrize(
    ("main", "details", "place", "chosen"),
    [
        (
            {MODIFIED: "2019:01:01 00:00:00"},
            {TAKEN: "2017:03:05 24:15:30", DIGITISED: "2018:01:01 00:00:00"},
            {},
            ("2017-03-05", "DateTimeOriginal"),
        ),
        (
            {MODIFIED: "2019:01:01 00:00:00"},
            {TAKEN: "0000:00:00 00:00:00", DIGITISED: "2018:02:03 04:05:06"},
            {},
            ("2018-02-03T04:05:06", "DateTimeDigitized"),
        ),
        ({MODIFIED: "2019:01:02"}, {TAKEN: "    :  :  "}, {}, ("2019-01-02", "DateTime")),
        # a tag without a day is completed by one that agrees, and else kept
        (
            {},
            {TAKEN: "2017:03:00", DIGITISED: "2017:03:05 07:08:09"},
            {},
            ("2017-03-05T07:08:09", "DateTimeDigitized"),
        ),
        (
            {MODIFIED: "1985:06:07 00:00:00"},
            {TAKEN: "1985:00:00 00:00:00", DIGITISED: "2018:02:03 04:05:06"},
            {},
            ("1985", "DateTimeOriginal"),
        ),
        # a day that does not exist is worth less than any other tag
        (
            {MODIFIED: "2019:01:02"},
            {TAKEN: "2017:04:31 10:00:00"},
            {},
            ("2019-01-02", "DateTime"),
        ),
        ({}, {TAKEN: "2017:04:31 10:00:00"}, {}, ("2017-04", "DateTimeOriginal")),
        ({}, {TAKEN: "4/5/2017 10:00"}, {}, ("2017", "DateTimeOriginal")),
        ({MODIFIED: "2019:01:02"}, {TAKEN: "2017:14:07"}, {}, ("2019-01-02", "DateTime")),
        # in the wrong directory
        ({TAKEN: "2017:03:05"}, {MODIFIED: "2019:01:02"}, {}, ("2017-03-05", "DateTimeOriginal")),
        ({}, {MODIFIED: "2019:01:02"}, {}, ("2019-01-02", "DateTime")),
        # years that cannot be
        ({}, {TAKEN: "1601:01:01 00:00:00"}, {}, (None, None)),
        ({MODIFIED: "2019:01:02"}, {TAKEN: "9999:12:31 00:00:00"}, {}, ("2019-01-02", "DateTime")),
        # satellites, in UTC, or in local time if a tag says how much they differ
        (
            {},
            {},
            {29: "2017:03:05", 7: (23.0, 30.0, 15.5)},
            ("2017-03-05T23:30:15", "GPSDateStamp"),
        ),
        (
            {},
            {0x9011: "+02:00"},
            {29: "2017:03:05", 7: (23.0, 30.0, 15.0)},
            ("2017-03-06T01:30:15", "GPSDateStamp"),
        ),
        ({}, {}, {29: "2017:03:05", 7: (24.0, 0.0, 0.0)}, ("2017-03-05", "GPSDateStamp")),
        ({}, {}, {29: "2017:03:05"}, ("2017-03-05", "GPSDateStamp")),
        ({}, {}, {7: (7.0, 8.0, 9.0)}, (None, None)),
        ({}, {}, {29: "1980:01:06", 7: (0.0, 0.0, 9.0)}, (None, None)),
    ],
)
def test_the_best_tag_that_says_a_date_is_taken(main, details, place, chosen):
    assert read(picture(main=main, details=details, place=place)) == chosen


def test_a_date_in_the_future_is_not_when_a_picture_was_taken():
    for days, known in ((0, True), (1, True), (400, False)):
        written = (date.today() + timedelta(days=days)).isoformat()
        assert read(picture(details={TAKEN: written})) == (
            (written, "DateTimeOriginal") if known else (None, None)
        )


@pytest.mark.parametrize(
    ("attributes", "elements", "chosen"),
    [
        ('exif:DateTimeOriginal="2017-03-05T07:08:09.5+02:00"', "", "XMP DateTimeOriginal"),
        (
            "",
            "<photoshop:DateCreated>2017-03-05T07:08:09</photoshop:DateCreated>",
            "XMP DateCreated",
        ),
        ('xmp:CreateDate="2017-03-05T07:08:09Z" xmp:ModifyDate="2018-01-01"', "", "XMP CreateDate"),
        ('xmp:ModifyDate="2017-03-05T07:08:09"', "", "XMP ModifyDate"),
    ],
)
@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "TIFF"])
def test_xmp_stands_in_for_exif(kind, attributes, elements, chosen):
    packet = (XMP % (attributes, elements)).encode()
    options = {"tiffinfo": {700: packet}} if kind == "TIFF" else {"xmp": packet}
    assert read(picture(kind, **options)) == ("2017-03-05T07:08:09", chosen)


def test_a_broken_xmp_packet_costs_nothing():
    data = picture(details={DIGITISED: "2017:03:05 07:08:09"}, xmp=b"<x:xmpmeta><broken")
    assert read(data) == ("2017-03-05T07:08:09", "DateTimeDigitized")


def test_an_iptc_date_stands_in_for_exif():
    sets = b"\x1c\x02\x37\x00\x0820170305" + b"\x1c\x02\x3c\x00\x0b070809+0200"
    block = b"8BIM\x04\x04\0\0" + len(sets).to_bytes(4, "big") + sets + b"\0" * (len(sets) % 2)
    segment = b"Photoshop 3.0\0" + block
    data = picture()
    segment = b"\xff\xed" + (len(segment) + 2).to_bytes(2, "big") + segment
    assert read(data[:2] + segment + data[2:]) == ("2017-03-05T07:08:09", "IPTC DateCreated")


@pytest.mark.parametrize(
    ("keyword", "written", "chosen"),
    [
        ("Creation Time", "Sun, 05 Mar 2017 07:08:09 GMT", "PNG Creation Time"),
        ("Creation Time", "2017:03:05 07:08:09", "PNG Creation Time"),
        ("date:create", "2017-03-05T07:08:09+00:00", "PNG date"),
    ],
)
def test_a_png_says_when_it_was_made(keyword, written, chosen):
    text = PngImagePlugin.PngInfo()
    text.add_text(keyword, written)
    assert read(picture("PNG", pnginfo=text)) == ("2017-03-05T07:08:09", chosen)


def test_a_png_says_when_it_was_changed():
    text = PngImagePlugin.PngInfo()
    text.add(b"tIME", bytes([2017 >> 8, 2017 & 255, 3, 5, 7, 8, 9]))
    data = picture("PNG", pnginfo=text)
    assert read(data) == ("2017-03-05T07:08:09", "PNG tIME")
    assert read_shot(Image.Exif(), None, data[: data.index(b"tIME") + 8]).taken_at is None


TAGS = st.sampled_from([MODIFIED, TAKEN, DIGITISED, 0x9011, 1, 2, 3, 4, 5, 6, 7, 9, 29, 700])
VALUES = st.recursive(
    st.one_of(
        st.text(max_size=30),
        st.binary(max_size=30),
        st.integers(),
        st.floats(),
        st.none(),
        st.fractions(),
    ),
    lambda inner: st.lists(inner, max_size=4).map(tuple),
    max_leaves=5,
)


@given(st.dictionaries(TAGS, VALUES), st.dictionaries(TAGS, VALUES), st.dictionaries(TAGS, VALUES))
def test_no_values_whatever_make_it_raise(main, details, place):
    exif = Image.Exif()
    exif.update(main)
    exif.get_ifd(EXIF).update(details)
    exif.get_ifd(GPS).update(place)
    shot = read_shot(exif)
    assert (shot.taken_at is None) == (shot.dated_by is None)
    assert (shot.latitude is None) == (shot.longitude is None)
    assert shot.latitude is None or (-90 <= shot.latitude <= 90 and -180 <= shot.longitude <= 180)


@pytest.mark.skipif(
    not (SHARED / "cases").is_dir(), reason="no ../shared/cases beside the checkout"
)
def test_the_collected_cases_keep_their_day(tmp_path):
    subprocess.run([sys.executable, SHARED / "cases" / "make.py", tmp_path], check=True)
    found = {
        path.stem: read(path.read_bytes())[0] for path in sorted((tmp_path / "dates").iterdir())
    }
    assert found == {"hour24": "2017-03-05", "date_only": "2015-08-09"}
