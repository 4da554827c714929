"""Folders level by level and by name, and what the answer says of a query's filters."""

import os

import pytest

from fovea.search.library.rows import FileWrite, WriteBatch
from fovea.search.query.filters import FILTERS
from fovea.search.query.language import parse
from fovea.web.engine.folders import name_within


@pytest.fixture
def root(app):
    """The root of the library, with copies of one picture in folders below it."""
    library = app.extensions["fovea"].library
    [root] = library.roots()
    red = library.rows("SELECT hash FROM images ORDER BY id LIMIT 1")[0][0]
    places = (
        "holidays/2019 Portugal/Porto", "holidays/2020 Norway", "backup/holidays/2020 Norway",
        "family/Portugal", "Café",
    )  # fmt: skip
    paths = [root.path + f"/{place}/red.png".encode() for place in places]
    library.write_batch(WriteBatch(files=[FileWrite(path, root.id, 1, 1, red) for path in paths]))
    return os.fsdecode(root.path)


def listed(client, **wanted):
    answer = client.get("/api/folders", query_string=wanted)
    assert answer.status_code == 200, answer.json
    return [(one["name"], one["count"], one["folders"]) for one in answer.json["folders"]]


def test_folders_are_listed_level_by_level(client, root):
    assert listed(client) == [("photos", 8, 4)]
    assert listed(client, parent=root) == [
        ("photos/Café", 1, 0),
        ("photos/backup", 1, 1),
        ("photos/family", 1, 1),
        ("photos/holidays", 1, 2),
    ]
    assert listed(client, parent=f"{root}/holidays") == [
        ("photos/holidays/2019 Portugal", 1, 1),
        ("photos/holidays/2020 Norway", 1, 0),
    ]
    assert listed(client, parent=f"{root}/nowhere") == []
    assert listed(client, parent="relative") == []


def test_folders_are_found_by_the_words_of_their_names(client, root):
    found = [name for name, *_ in listed(client, q="PORTU")]
    assert found == ["photos/family/Portugal", "photos/holidays/2019 Portugal"]
    assert [name for name, *_ in listed(client, q="holidays norw")] == [
        "photos/backup/holidays/2020 Norway",
        "photos/holidays/2020 Norway",
    ]
    assert [name for name, *_ in listed(client, q="cafe")] == ["photos/Café"]
    assert listed(client, q="holidays cafe") == []
    answer = client.get("/api/folders?q=o&limit=2").json
    assert (len(answer["folders"]), answer["left_out"]) == (2, 6)


def test_a_folder_is_written_as_short_as_it_can_be(client, root):
    def short(place):
        return client.get("/api/folders", query_string={"path": f"{root}/{place}"}).json["folders"]

    assert [one["short"] for one in short("family/Portugal")] == ["Portugal"]
    assert [one["short"] for one in short("holidays/2020 Norway")] == [
        "photos/holidays/2020 Norway"
    ]
    assert [one["short"] for one in short("backup/holidays")] == ["backup/holidays"]
    assert short("nowhere") == []
    for place in ("family/Portugal", "holidays/2020 Norway", "backup/holidays", "holidays"):
        [one] = short(place)
        texts = (f'in:"{one["short"]}"', f'in:"{root}/{place}"')
        whole = [client.get("/api/search", query_string={"q": text}).json for text in texts]
        assert [hit["paths"][0] for hit in whole[0]["hits"]] == [
            hit["paths"][0] for hit in whole[1]["hits"]
        ], place


def test_folders_are_asked_for_in_one_way(client, root):
    answer = client.get("/api/folders", query_string={"q": "x", "parent": root})
    assert answer.status_code == 400 and "send one of them" in answer.json["detail"]
    assert client.get("/api/folders?limit=1001").status_code == 400
    assert client.get("/api/folders", query_string={"q": "x" * 201}).status_code == 400


def test_folders_that_no_query_can_name_have_no_place_in_the_tree(client, app):
    library = app.extensions["fovea"].library
    [root] = library.roots()
    red = library.rows("SELECT hash FROM images ORDER BY id LIMIT 1")[0][0]
    names = (b"caf\xe9", b"two\nlines")
    paths = [root.path + b"/" + name + b"/red.png" for name in names]
    library.write_batch(WriteBatch(files=[FileWrite(path, root.id, 1, 1, red) for path in paths]))
    assert listed(client, parent=os.fsdecode(root.path)) == []
    assert listed(client, q="two") == []


def understood(client, text):
    return client.get("/api/search", query_string={"q": text}).json["filters"]


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("on:2019", "2019-01-01", "2019-12-31"),
        ("on:2020-02", "2020-02-01", "2020-02-29"),
        ("on:2020-02-03", "2020-02-03", "2020-02-03"),
        ("-on:2019", None, None),
        ("after:2019", "2020-01-01", None),
        ("-after:2020-05", None, "2020-05-31"),
        ("before:2020-05", None, "2020-04-30"),
        ("-before:2020-05-06", "2020-05-06", None),
        ("after:9999", None, None),
        ("before:0001", None, None),
        ("is:square", None, None),
    ],
)
def test_a_date_is_said_as_the_days_from_and_to(client, text, first, last):
    [found] = understood(client, f"red {text}")
    assert (found["first"], found["last"]) == (first, last)
    assert (found["text"], found["negated"]) == (text, text.startswith("-"))


def test_each_filter_is_said_in_its_order(client, root):
    examples = [  # but of places and tags, of which this library knows none
        example
        for kind, entry in FILTERS.items()
        if kind not in ("place", "tag")
        for example in entry.examples
    ]
    query = " ".join(examples)
    found = understood(client, f"red {query} -in:{root}/family format:JPG")
    expected = parse(f"red {query} -in:{root}/family format:JPG").filters
    assert [(one["key"], one["value"], one["negated"]) for one in found] == [
        (one.kind, one.value, one.negated) for one in expected
    ]
    assert [one["name"] for one in found[-2:]] == ["photos/family", "JPEG"]
    assert understood(client, "red") == []


def test_pictures_that_are_terms_have_names(client):
    hits = client.get("/api/search?q=red&limit=2").json["hits"]
    ids = [hit["image_id"] for hit in hits]
    found = client.get("/api/search", query_string={"q": f"-like:{ids[0]} like:{ids[1]}"}).json
    expected = [{"image_id": hit["image_id"], "name": hit["name"]} for hit in hits]
    assert found["likes"] == sorted(expected, key=lambda one: one["image_id"])


@pytest.mark.parametrize(
    ("path", "roots", "name"),
    [
        ("/home/me/Photos/a/b", [b"/home/me/Photos"], "Photos/a/b"),
        ("/home/me/Photos/a", [b"/home/me/Photos/a", b"/home/me/Photos"], "Photos/a"),
        ("/home/me/Photos2", [b"/home/me/Photos"], "Photos2"),
        ("/home", [b"/home/me/Photos"], "home"),
        ("/a/b", [b"/"], "a/b"),
        ("/", [b"/"], "/"),
        ("/data", [b"/data"], "data"),
        ("/x/cafe\u0301/y", ["/x/caf\u00e9".encode()], "cafe\u0301/y"),
    ],
)
def test_a_folder_is_called_from_the_indexed_one_on(path, roots, name):
    assert name_within(path, roots) == name
