"""Pictures with file times that no date can show are listed, sorted, sent and exported."""

import io
import json
import os
import zipfile
from email.utils import parsedate_to_datetime

import pytest

from fovea.search.library.facts.stamps import EARLIEST, LATEST, stamps_of
from toys import COLOURS

YEAR = 31_556_952
TIMES = dict(zip(COLOURS, (-470 * YEAR, -1, 0, 200 * YEAR, 430 * YEAR), strict=False))  # seconds


@pytest.fixture
def far(colour_library, photos, monkeypatch):
    """Give five of the pictures such times, in the library and, as far as the page sees, on disk.

    Few file systems could hold them all.
    """
    inodes = {os.stat(photos / f"{name}.png").st_ino: TIMES[name] * 10**9 for name in TIMES}

    def far_stamps(status):
        found = stamps_of(status)
        time_ns = inodes.get(status.st_ino, found.mtime_ns)
        return found._replace(mtime_ns=min(max(time_ns, EARLIEST), LATEST))

    monkeypatch.setattr("fovea.web.views.sources.stamps_of", far_stamps)
    with colour_library.transaction() as conn:
        for path in photos.iterdir():
            found = far_stamps(os.stat(path))
            conn.execute(
                "UPDATE files SET mtime_ns = ?, ctime_ns = ? WHERE path = ?",
                (found.mtime_ns, found.ctime_ns, os.fsencode(path)),
            )
    return colour_library


@pytest.mark.parametrize("query", ["", "red", "sort:date", "sort:name", "red sort:date"])
def test_they_are_listed_and_sorted(far, client, query):
    response = client.get("/api/search", query_string={"q": query})
    assert response.status_code == 200
    names = [hit["name"] for hit in response.json["hits"]]
    assert len(set(names)) == 8


def test_those_without_a_date_come_last_and_have_none(far, client):
    hits = client.get("/api/search?q=sort:date").json["hits"]
    dates = [client.get(f"/api/images/{hit['image_id']}").json["changed_at"] for hit in hits]
    known = [date for date in dates if date]
    assert known == sorted(known, reverse=True) and dates == known + [None] * (8 - len(known))
    assert None in dates


@pytest.mark.parametrize("filter", ["before:1800", "after:2100", "on:1970", "in:/"])
def test_filters_of_dates_take_them(far, client, filter):
    assert client.get("/api/search", query_string={"q": filter}).status_code == 200


def test_thumbnails_and_originals_are_sent(far, client, app):
    for hit in client.get("/api/search?q=").json["hits"]:
        assert client.get(hit["thumbnail"]).status_code == 200
        with client.get(f"/api/images/{hit['image_id']}/original") as response:
            assert response.status_code == 200 and response.headers["ETag"]
        modified = response.headers.get("Last-Modified")
        if modified:
            assert parsedate_to_datetime(modified).year in range(1500, 2100)
        again = {"If-None-Match": response.headers["ETag"]}
        with client.get(f"/api/images/{hit['image_id']}/original", headers=again) as response:
            assert response.status_code == 304
    assert not app.extensions["fovea.changed_files"]._waiting


def test_a_time_to_come_or_out_of_range_is_not_sent(far, client):
    sent = {}
    for hit in client.get("/api/search?q=").json["hits"]:
        with client.get(f"/api/images/{hit['image_id']}/original") as response:
            sent[hit["name"].partition(".")[0]] = "Last-Modified" in response.headers
    assert [sent[name] for name in TIMES] == [False, True, True, False, False]


@pytest.mark.parametrize("kind", ["json", "csv", "paths", "zip"])
def test_they_are_exported(far, client, kind):
    ids = [hit["image_id"] for hit in client.get("/api/search?q=").json["hits"]]
    response = client.post("/api/exports", json={"ids": ids, "format": kind})
    assert response.status_code == 200
    if kind == "zip":
        with zipfile.ZipFile(io.BytesIO(response.data)) as archive:
            assert len(archive.namelist()) == 8 and archive.testzip() is None
    elif kind == "json":
        assert len(json.loads(response.data)) >= 1
