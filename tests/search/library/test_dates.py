"""The date in a file's name, and which date a picture is shown under."""

import unicodedata
from datetime import date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fovea.search.library import schema
from fovea.search.library.facts import dates
from fovea.search.library.facts.dates import (
    FILE_NAME,
    FILE_TIME,
    day_first,
    is_plausible,
    named_date,
)
from fovea.search.library.library import Library
from fovea.search.library.rows import FileWrite, ImageMetadata, NewImage, WriteBatch

MOMENT = "2019-07-14T10:15:00"
DAY = "2019-07-14"


@pytest.mark.parametrize(
    ("name", "known"),
    [
        # cameras and phones
        ("IMG_20190714_101500.jpg", MOMENT),
        ("IMG_20190714_101500_1.jpg", MOMENT),
        ("IMG20190714101500.jpg", MOMENT),
        ("MVIMG_20190714_101500(0).jpg", MOMENT),
        ("PXL_20190714_101500123.MP.jpg", MOMENT),
        ("00100lrPORTRAIT_00100_BURST20190714101500123_COVER.jpg", MOMENT),
        ("IMG-20190714-WA0001.jpg", DAY),
        ("20190714.jpg", DAY),
        ("20190714T101500Z.heic", MOMENT),
        ("DSC_20190714_0007.jpg", DAY),
        # programs
        ("2019-07-14 10.15.00.png", MOMENT),
        ("2019-07-14_10-15-00.png", MOMENT),
        ("2019-07-14T10:15:00.png", MOMENT),
        ("Screenshot_2019-07-14-10-15-00-123_com.example.png", MOMENT),
        ("Screenshot_20190714-101500.png", MOMENT),
        ("Screen Shot 2019-07-14 at 10.15.00 AM.png", MOMENT),
        ("Screen Shot 2019-07-14 at 10.15.00\u202fPM.png", "2019-07-14T22:15:00"),
        ("Skärmavbild 2019-07-14 kl. 10.15.00.png", MOMENT),
        ("Capture d’écran 2019-07-14 à 10.15.00.png", MOMENT),
        ("20190714 10.15.00.png", MOMENT),
        ("DJI_20190714101500_0001_D.JPG", MOMENT),
        ("WhatsApp Image 2019-07-14 at 10.15.00.jpeg", MOMENT),
        ("signal-2019-07-14-101500.jpg", MOMENT),
        ("photo_2019-07-14_10-15-00 (2).jpg", MOMENT),
        ("微信图片_20190714101500.jpg", MOMENT),
        ("2019年7月14日.jpg", DAY),
        (unicodedata.normalize("NFD", "2019년 7월 14일.jpg"), DAY),
        # people
        ("2019-07-14 at the lake.jpg", DAY),
        ("2019.07.14_Lake.jpg", DAY),
        ("2019_07_14.jpg", DAY),
        ("20190714b.jpg", DAY),
        ("lake 14-07-2019.jpg", DAY),
        ("lake 07-14-2019.jpg", DAY),
        ("07.07.2019.jpg", "2019-07-07"),
        ("lake 05-07-2019.jpg", None),  # in May or in July?
        # times that are none cost the time, or show that it is no date
        ("IMG_20190714_241500.jpg", DAY),
        ("2019-07-14 10.75.00.jpg", DAY),
        ("20190714991500.jpg", None),
        # no dates
        ("IMG_20191399.jpg", None),
        ("2019-02-30.jpg", None),
        ("2019-7.jpg", None),
        ("201907141015.jpg", None),
        ("120190714.jpg", None),
        ("2019071412345.jpg", None),
        ("FB_IMG_1563099300000.jpg", None),
        ("3f2a20190714bc9d.jpg", None),
        ("20190714-1015-4a3b-9c2d-123456789abc.jpg", None),
        ("1.2019.07.14.jpg", None),
        ("18001231.jpg", None),
        ("2999-01-01.jpg", None),
        ("2019-07-14 to 2019-07-20.jpg", None),
        ("2019-07-14/lake.jpg", None),  # of the folder
        ("lake.jpg", None),
        ("", None),
    ],
)
def test_the_date_in_a_name_is_read_if_it_is_sure(name, known):
    assert named_date(name) == known
    assert named_date(b"/p/\xff/" + name.encode()) == known


@given(st.dates(date(1900, 1, 1), date(2025, 12, 31)), st.sampled_from(["%Y%m%d", "%Y-%m-%d"]))
def test_every_day_is_read(day, form):
    text = day.strftime(form).zfill(len("20190714"))
    assert named_date(f"IMG_{text}.jpg") == day.isoformat()
    assert named_date(f"IMG_{text}7.jpg") is None


@given(st.one_of(st.text(), st.binary()))
def test_no_name_raises(name):
    found = named_date(name)
    assert found is None or datetime.fromisoformat(found)


def test_a_clock_that_is_behind_the_program_does_not_make_dates_futures(monkeypatch):
    class Behind(date):
        @classmethod
        def today(cls):
            return cls(1970, 1, 1)

    monkeypatch.setattr(dates, "date", Behind)
    assert is_plausible("2020-01-01T00:00:00") and is_plausible("2020")
    assert not is_plausible("2999") and not is_plausible("1700-01-01")


def test_tomorrow_is_no_future():
    for days, known in ((1, True), (400, False)):
        day = (date.today() + timedelta(days=days)).isoformat()
        assert is_plausible(day) == known
        assert is_plausible(day[:4]) == (day[:4] <= max(f"{date.today() + timedelta(1)}", "2026"))


def test_a_day_is_sure_in_either_order_or_not():
    assert day_first(14, 7, 2019) == day_first(7, 14, 2019) == DAY
    assert day_first(7, 7, 2019) == "2019-07-07"
    assert day_first(5, 7, 2019) is day_first(14, 15, 2019) is None


# What is shown


def stored(library, files, metadata=None):
    """Write one image with these files, names to seconds; return its date and where from."""
    root = library.add_root(b"/p")
    batch = WriteBatch(
        [NewImage(b"h" * 32, 1, metadata or ImageMetadata())],
        [
            FileWrite(b"/p/" + name.encode(), root.id, 1, seconds * 10**9, b"h" * 32)
            for name, seconds in files.items()
        ],
    )
    library.write_batch(batch)
    return shown(library)


def shown(library):
    [row] = library.rows("SELECT date, date_source FROM shown")
    return row


@pytest.mark.parametrize(
    ("taken_at", "files", "expected"),
    [
        (None, {"a.jpg": 10**9}, (datetime.fromtimestamp(10**9).isoformat(), FILE_TIME)),
        (None, {"IMG_20190714.jpg": 10**9}, (DAY, FILE_NAME)),
        (MOMENT, {"IMG_20200101.jpg": 10**9}, (MOMENT, "DateTimeOriginal")),
        (DAY, {"IMG_20200101_101500.jpg": 10**9}, (DAY, "DateTimeOriginal")),
        (DAY, {"IMG_20190714.jpg": 10**9}, (DAY, "DateTimeOriginal")),
        (DAY, {"IMG_20190714_101500.jpg": 10**9}, (MOMENT, FILE_NAME)),
        ("2019-07", {"IMG_20190714.jpg": 10**9}, (DAY, FILE_NAME)),
        ("2019", {"IMG_20200714.jpg": 10**9}, ("2019", "DateTimeOriginal")),
        # of several names the earliest day, and a time of it
        (None, {"20200101_000000.jpg": 1, "20190714.jpg": 2, "a.jpg": 3}, (DAY, FILE_NAME)),
        (None, {"20190714.jpg": 1, "20190714_101500.jpg": 2}, (MOMENT, FILE_NAME)),
    ],
)
def test_the_surest_date_is_shown_and_says_where_it_is_from(library, taken_at, files, expected):
    metadata = ImageMetadata(taken_at=taken_at, dated_by="DateTimeOriginal" if taken_at else None)
    assert stored(library, files, metadata) == expected


def test_the_date_follows_the_files(library):
    stored(library, {"a.jpg": 10**9})
    assert stored(library, {"20190714_101500.jpg": 2 * 10**9}) == (MOMENT, FILE_NAME)
    library.mark_missing([b"/p/20190714_101500.jpg"])
    assert shown(library)[1] == FILE_TIME
    library.mark_present([b"/p/20190714_101500.jpg"])
    assert shown(library) == (MOMENT, FILE_NAME)
    with library.transaction() as conn:
        conn.execute("UPDATE files SET named_at = '2018-01-01' WHERE named_at IS NOT NULL")
    assert shown(library) == ("2018-01-01", FILE_NAME)
    with library.transaction() as conn:
        conn.execute(f"UPDATE images SET taken_at = '{MOMENT}'")
    assert shown(library) == (MOMENT, "Exif")  # read before tags were recorded
    with library.transaction() as conn:
        conn.execute("UPDATE images SET dated_by = 'DateTime'")
    assert shown(library) == (MOMENT, "DateTime")


def test_a_library_from_before_reads_the_names_that_it_has(tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        before = schema.MIGRATIONS.index(schema.DATES)
        patched.setattr(schema, "MIGRATIONS", schema.MIGRATIONS[:before])
        patched.setattr(schema, "VERSION", before)
        with Library.open(tmp_path, create=True) as library:
            root = library.add_root(b"/p")
            with library.transaction() as conn:
                conn.execute("INSERT INTO images (hash, bytes) VALUES ('a', 1), ('b', 1)")
                conn.executemany(
                    "INSERT INTO files (path, root_id, size, mtime_ns, image_id, state) "
                    "VALUES (?, ?, 1, 0, ?, 'indexed')",
                    [(b"/p/IMG_20190714_101500.jpg", root.id, 1), (b"/p/\xff.jpg", root.id, 2)],
                )
    with Library.open(tmp_path) as library:
        rows = library.rows("SELECT date, date_source FROM shown ORDER BY image_id")
        assert rows[0] == (MOMENT, FILE_NAME) and rows[1][1] == FILE_TIME
