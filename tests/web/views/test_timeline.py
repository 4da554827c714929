import os

import pytest

from fovea.search.library.rows import FileWrite, ImageMetadata, NewImage, WriteBatch
from fovea.web.views import facets

DAYS = [
    "2024-07-14T10:00:00", "2024-07-14T09:00:00", "2024-07", "2024-06-30", "2024", "2019-01-01",
]  # fmt: skip
MONTHS = [
    {"month": "2024-07", "count": 3}, {"month": "2024-06", "count": 1},
    {"month": "2024", "count": 1}, {"month": "2019-01", "count": 1},
]  # fmt: skip


@pytest.fixture
def dated(app, photos):
    """Pictures of known dates in a folder beside the eight whose dates are those of their files."""
    library = app.extensions["fovea"].library
    [root] = library.roots()
    images, files = [], []
    for number, day in enumerate(DAYS):
        key = bytes([number]) * 32
        images.append(NewImage(key, 1, ImageMetadata(4, 3, "JPEG", 1, day)))
        path = os.fsencode(photos / "dated" / f"{number}.jpg")
        files.append(FileWrite(path, root.id, 1, 1, key))
    library.write_batch(WriteBatch(images, files))
    return library


def test_pictures_are_counted_by_month_newest_first(client, dated):
    found = client.get("/api/timeline?q=in:dated").json
    assert found == {"total": 6, "months": MONTHS, "undated": 0}
    everything = client.get("/api/timeline").json
    assert everything["total"] == 14
    assert sum(month["count"] for month in everything["months"]) == 14
    assert client.get("/api/timeline?q=in:dated after:2024-06").json["total"] == 3
    assert client.get("/api/timeline?q=in:nowhere").json == {
        "total": 0,
        "months": [],
        "undated": 0,
    }


def test_words_and_orders_leave_out_none(client, dated):
    expected = client.get("/api/timeline?q=in:dated").json
    for query in ("red in:dated", "in:dated sort:date", "in:dated sort:name -blue"):
        assert client.get("/api/timeline", query_string={"q": query}).json == expected


def test_a_malformed_query_is_a_problem(client):
    response = client.get("/api/timeline?q=on:then")
    assert (response.status_code, response.json["code"]) == (400, "query.date")


def test_hidden_pictures_and_changes_count_at_once(client, dated):
    before = client.get("/api/timeline?q=in:dated").json
    [first, *_] = client.get("/api/search?q=in:dated").json["hits"]
    client.put(f"/api/images/{first['image_id']}/hidden")
    after = client.get("/api/timeline?q=in:dated").json
    assert after["total"] == before["total"] - 1
    assert after["months"] == [{"month": "2024-07", "count": 2}, *MONTHS[1:]]
    assert client.get("/api/timeline?q=is:hidden").json["months"] == [
        {"month": "2024-07", "count": 1}
    ]


def test_few_timelines_are_kept(client, dated, monkeypatch):
    monkeypatch.setattr(facets, "TIMELINES", 3)
    engine = client.application.extensions["fovea"]
    for number in range(10):
        client.get(f"/api/timeline?q=name:{number}")
    assert len(engine.remembered("timelines", dict)) == 3


def test_a_month_begins_at_the_sum_of_the_counts_before_it(client, dated):
    offset = 0
    whole = client.get("/api/search?q=in:dated").json["hits"]
    for month in MONTHS:
        page = client.get(f"/api/search?q=in:dated&limit=1&offset={offset}").json
        assert page["hits"] == whole[offset : offset + 1]
        assert page["hits"][0]["day"][:7] == month["month"]
        assert page["hits"][0]["rank"] == offset + 1
        offset += month["count"]
    beyond = client.get(f"/api/search?q=in:dated&offset={offset}").json
    assert (beyond["hits"], beyond["total"], beyond["cursor"]) == ([], 6, None)


def test_an_offset_moves_within_the_answer_of_a_cursor(client, dated):
    first = client.get("/api/search?q=in:dated&limit=2").json
    client.put(f"/api/images/{first['hits'][0]['image_id']}/hidden")  # the answer stays as it is
    page = client.get(f"/api/search?cursor={first['cursor']}&offset=4&limit=1").json
    assert [hit["rank"] for hit in page["hits"]] == [5]
    again = client.get(f"/api/search?cursor={first['cursor']}&offset=0&limit=2").json
    assert [hit["rank"] for hit in again["hits"]] == [2]  # the first one is hidden
    near = client.get("/api/search?q=red&offset=3&limit=2").json
    assert [hit["rank"] for hit in near["hits"]] == [4, 5]


def test_a_page_begins_at_a_picture_wherever_it_stands_by_date(client, dated):
    whole = client.get("/api/search?q=in:dated&limit=200").json["hits"]
    for query in ("q=in:dated", "q=in:dated sort:name", "q=red in:dated sort:date"):
        listed = client.get(f"/api/search?{query}").json["hits"]
        for hit in listed:
            page = client.get(f"/api/search?{query}&image={hit['image_id']}&limit=2").json
            assert [one["rank"] for one in page["hits"][:1]] == [hit["rank"]]
            assert page["hits"] == listed[hit["rank"] - 1 : hit["rank"] + 1]
    cursor = client.get("/api/search?q=in:dated&limit=1").json["cursor"]
    page = client.get(f"/api/search?cursor={cursor}&image={whole[4]['image_id']}&limit=1").json
    assert page["hits"] == whole[4:5]


def test_a_picture_far_down_is_found_in_its_list(client, dated, monkeypatch):
    everything = client.get("/api/search?limit=200").json["hits"]
    monkeypatch.setattr("fovea.search.query.run.DEPTHS", (2, 2_000, 10_000))
    last = client.get(f"/api/search?q=name:.&image={everything[-1]['image_id']}").json
    assert last["hits"][0]["rank"] == last["total"] == len(everything)


@pytest.mark.parametrize("image", ["999999", "0", "-1", "x", ""])
def test_a_picture_that_is_not_in_the_list_is_said(client, dated, image):
    response = client.get(f"/api/search?q=in:dated&image={image}")
    assert response.status_code == (404 if image in ("999999", "0") else 400)
    hidden = client.get("/api/search?q=in:dated").json["hits"][0]["image_id"]
    client.put(f"/api/images/{hidden}/hidden")
    assert client.get(f"/api/search?image={hidden}").status_code == 404


@pytest.mark.parametrize("part", ["likely_only=2", "fields=x", "image=x", "offset=x", "limit=x"])
def test_what_is_malformed_is_said_before_what_is_gone(client, part):
    assert client.get(f"/api/search?pictures={'0' * 64}&{part}").status_code == 400


@pytest.mark.parametrize("offset", ["-1", "x", "1e3", "", "9999999999"])
def test_an_offset_that_cannot_be_is_refused(client, offset):
    assert client.get(f"/api/search?offset={offset}").status_code == 400
