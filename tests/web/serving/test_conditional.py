"""Conditional requests and ranges, by the sections of RFC 9110 (2022)."""

import os
from datetime import UTC, datetime, timedelta

import pytest
from werkzeug.http import http_date

from fovea.web.serving.conditional import MOST_RANGES, Conditional, _satisfiable

MODIFIED = 1_700_000_000  # seconds since 1970
NOW, BEFORE, AFTER = (
    "Tue, 14 Nov 2023 22:13:20 GMT",
    "Tue, 14 Nov 2023 22:13:19 GMT",
    "Tue, 14 Nov 2023 22:13:21 GMT",
)
KINDS = ("original", "thumbnail", "static", "asset")


@pytest.fixture(params=KINDS)
def place(request, client, photos):
    """The path of an original, a thumbnail and two static files."""
    for path in photos.iterdir():
        os.utime(path, (MODIFIED, MODIFIED))
    [hit, *_] = client.get("/api/search?q=red").json["hits"]
    return {
        "original": f"/api/images/{hit['image_id']}/original",
        "thumbnail": f"/api/images/{hit['image_id']}/thumbnail",
        "static": "/static/css/docs.css",
        "asset": "/assets/0/js/main.js",
    }[request.param]


@pytest.fixture
def ask(client, place):
    """A function that asks for it with headers."""

    def answer(method="GET", **headers):
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return client.open(place, method=method, headers=names, buffered=True)

    return answer


def whole(ask):
    answer = ask()
    assert answer.status_code == 200
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert int(answer.headers["Content-Length"]) == len(answer.data) > 20
    return answer


# Ranges: section 14


@pytest.mark.parametrize(
    "wanted",
    [
        "pages=1-2",
        "bytes",
        "bytes=",
        "bytes=,",
        "bytes=-",
        "bytes=abc",
        "bytes=5-2",
        "bytes=1-2-3",
        "bytes=--5",
        "bytes=+1-2",
        "bytes=1.5-2",
        "bytes=0-1, 5-2",
        "bytes=٣-٤".encode().decode("latin-1"),
        "bytes 0-4",
        "0-4",
        "none",
        "bytes=0-1,4-5",
        "bytes=0-,0-,0-",
        "bytes=-5,0-3",
        "bytes=" + "0-," * (MOST_RANGES + 1),
        "bytes=" + ",".join(f"{n}-{n}" for n in range(5000)),
    ],
)
def test_what_is_no_single_range_of_bytes_is_ignored(ask, wanted):
    expected = whole(ask)
    answer = ask(Range=wanted)
    assert (answer.status_code, answer.data) == (200, expected.data)
    assert "Content-Range" not in answer.headers


@pytest.mark.parametrize(
    "wanted, part",
    [
        ("bytes=0-0", slice(0, 1)),
        ("bytes=3-7", slice(3, 8)),
        ("bytes=3-", slice(3, None)),
        ("bytes=-4", slice(-4, None)),
        ("bytes=-99999999", slice(None)),
        ("bytes=0-99999999", slice(None)),
        ("bytes=0-" + "9" * 5000, slice(None)),
        ("bytes=-" + "9" * 5000, slice(None)),
        ("bytes=" + "0" * 5000 + "3-7", slice(3, 8)),
        ("Bytes=3-7", slice(3, 8)),
        (" bytes= 3-7 ,", slice(3, 8)),
        ("bytes=,3-7", slice(3, 8)),
        ("bytes=3-7,99999999-", slice(3, 8)),
    ],
)
def test_one_range_is_that_part(ask, wanted, part):
    expected = whole(ask)
    answer = ask(Range=wanted)
    assert (answer.status_code, answer.data) == (206, expected.data[part])
    start, stop, _ = part.indices(len(expected.data))
    assert answer.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{len(expected.data)}"
    assert int(answer.headers["Content-Length"]) == stop - start
    assert answer.headers["ETag"] == expected.headers["ETag"]
    assert answer.headers["Content-Type"] == expected.headers["Content-Type"]


@pytest.mark.parametrize(
    "wanted", ["bytes=99999999-", "bytes=-0", "bytes=99999999-,-0", "bytes=" + "9" * 5000 + "-"]
)
def test_a_range_beyond_the_end_cannot_be_satisfied(ask, wanted):
    size = len(whole(ask).data)
    for more in ({}, {"If_Range": whole(ask).headers["ETag"]}):
        answer = ask(Range=wanted, **more)
        assert answer.status_code == 416
        assert answer.headers["Content-Range"] == f"bytes */{size}"
        assert answer.content_type == "application/problem+json"


@pytest.mark.parametrize(
    "wanted, expected",
    [("bytes=0-", []), ("bytes=-1", [(0, 0)]), ("bytes=-0", []), ("pages=0-", None)],
)
def test_an_empty_file_has_only_a_last_part(wanted, expected):
    assert _satisfiable(wanted, 0) == expected


@pytest.mark.parametrize(
    "wanted", [None, "bytes=0-3", "bytes=99999999-", "pages=1", "bytes=0-1,3-4"]
)
def test_head_equals_get_without_ranges(ask, wanted):
    expected = whole(ask)
    answer = ask("HEAD", **({"Range": wanted} if wanted else {}))
    assert (answer.status_code, answer.data) == (200, b"")
    varying = {"Date"}
    assert {k: v for k, v in answer.headers.items() if k not in varying} == {
        k: v for k, v in expected.headers.items() if k not in varying
    }


# Conditions: section 13


def test_if_range_must_name_exactly_what_is_there(ask):
    expected = whole(ask)
    tag, date = expected.headers["ETag"], expected.headers.get("Last-Modified")
    weak = f"W/{tag}"
    for condition, status in [(tag, 206), (weak, 200), ('"other"', 200), (tag.strip('"'), 200)]:
        assert ask(Range="bytes=0-3", If_Range=condition).status_code == status, condition
    for condition in ("Tue, 14 Nov 2023 22:13:20", "yesterday", "", "*"):
        answer = ask(Range="bytes=0-3", If_Range=condition)
        assert answer.status_code == (206 if date == NOW and "2023" in condition else 200)
    if date == NOW:
        for condition, status in [(NOW, 206), (BEFORE, 200), (AFTER, 200)]:
            assert ask(Range="bytes=0-3", If_Range=condition).status_code == status
    assert ask(If_Range='"other"').status_code == 200


@pytest.mark.parametrize("age, status", [(3600, 206), (2, 206), (-1, 200)])
def test_a_date_of_this_very_second_does_not_join_two_parts(age, status):
    modified = (datetime.now(UTC) - timedelta(seconds=age)).replace(microsecond=0)
    asked = {
        "REQUEST_METHOD": "GET",
        "HTTP_RANGE": "bytes=0-3",
        "HTTP_IF_RANGE": http_date(modified),
    }
    answer = Conditional(b"0123456789", headers={"Last-Modified": http_date(modified)})
    assert answer.make_conditional(asked, True, 10).status_code == status


def test_conditions_are_checked_in_order(ask):
    expected = whole(ask)
    tag, is_dated = expected.headers["ETag"], expected.headers.get("Last-Modified") == NOW
    weak, other = f"W/{tag}", '"other"'
    cases = [
        # 1. If-Match, by strong comparison
        ({"If_Match": tag}, 200),
        ({"If_Match": "*"}, 200),
        ({"If_Match": f'{other}, {tag}, "x"'}, 200),
        ({"If_Match": other}, 412),
        ({"If_Match": weak}, 412),
        ({"If_Match": other, "If_None_Match": tag}, 412),
        ({"If_Match": other, "Range": "bytes=0-3"}, 412),
        ({"If_Match": tag, "Range": "bytes=0-3"}, 206),
        ({"If_Match": tag, "Range": "bytes=99999999-"}, 416),
        # 2. else If-Unmodified-Since
        ({"If_Unmodified_Since": BEFORE}, 412 if is_dated else None),
        ({"If_Unmodified_Since": NOW}, 200 if is_dated else None),
        ({"If_Unmodified_Since": AFTER}, 200 if is_dated else None),
        ({"If_Unmodified_Since": "whenever"}, 200),
        ({"If_Match": tag, "If_Unmodified_Since": BEFORE}, 200),
        ({"If_Unmodified_Since": BEFORE, "If_None_Match": tag}, 412 if is_dated else None),
        # 3. If-None-Match, by weak comparison
        ({"If_None_Match": tag}, 304),
        ({"If_None_Match": weak}, 304),
        ({"If_None_Match": "*"}, 304),
        ({"If_None_Match": f"{other}, {weak}"}, 304),
        ({"If_None_Match": other}, 200),
        ({"If_Match": tag, "If_None_Match": tag}, 304),
        ({"If_None_Match": tag, "Range": "bytes=0-3"}, 304),
        ({"If_None_Match": tag, "Range": "bytes=0-3", "If_Range": tag}, 304),
        ({"If_None_Match": other, "Range": "bytes=0-3"}, 206),
        # 4. else If-Modified-Since
        ({"If_Modified_Since": BEFORE}, 200),
        ({"If_Modified_Since": NOW}, 304 if is_dated else None),
        ({"If_Modified_Since": AFTER}, 304 if is_dated else None),
        ({"If_Modified_Since": "whenever"}, 200),
        ({"If_None_Match": other, "If_Modified_Since": AFTER}, 200),
        ({"If_Modified_Since": AFTER, "Range": "bytes=0-3"}, 304 if is_dated else None),
    ]
    for headers, status in cases:
        if status is None:
            continue  # a thumbnail has no date
        for method in ("GET", "HEAD"):
            answer = ask(method, **headers)
            ranged = status in (206, 416) and method == "HEAD"
            assert answer.status_code == (200 if ranged else status), (method, headers)
            if status == 304:
                assert answer.data == b"" and answer.headers["ETag"] == tag
            if status == 412 and method == "GET":
                assert answer.json["status"] == 412


def test_a_thumbnail_that_is_known_is_not_made(client, monkeypatch):
    [hit, *_] = client.get("/api/search?q=red").json["hits"]
    place = f"/api/images/{hit['image_id']}/preview"
    cache = client.application.extensions["fovea.thumbnails"]
    monkeypatch.setattr(cache, "get", None)
    digest = hit["thumbnail"].partition("?v=")[2]
    library = client.application.extensions["fovea"].library
    [(full,)] = library.rows("SELECT hex(hash) FROM images WHERE id = ?", (hit["image_id"],))
    assert full.lower().startswith(digest)
    tag = f'"{full.lower()[:32]}-preview"'
    assert client.get(place, headers={"If-None-Match": tag}).status_code == 304
    assert client.get(place, headers={"If-Match": '"other"'}).status_code == 412
