"""``place:`` against a search by hand, in SQL and by columns; the places to choose from."""

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fovea.search.errors import QueryError, Unanswerable
from fovea.search.library.facts.places import place_words
from fovea.search.library.marks import contents, mark
from fovea.search.library.rows import FileWrite, ImageMetadata, NewImage, WriteBatch
from fovea.search.places.stored import (
    Locality,
    NewLocality,
    NewPlace,
    replace_places,
    switch,
    whereabouts,
)
from fovea.search.query.choosing import chosen
from fovea.search.query.columns import read_columns
from fovea.search.query.filters import allowed_images
from fovea.search.query.known_places import KnownPlace, check_places, known_places
from fovea.search.query.known_values import known_values
from fovea.search.query.language import parse
from fovea.search.query.rank import rank


def locality(kind, key, name, chinese=None, *also):
    names = {place_words(said) for said in (name, chinese or "", *also)} - {""}
    return NewLocality(kind, Locality(name, chinese, key), frozenset(names))


FRANCE = locality("country", "FR", "France", "法国", "Frankreich")
PORTUGAL = locality("country", "PT", "Portugal", "葡萄牙")
STATES = locality("country", "US", "United States", "美国", "USA")
TEXAS = locality("region", "US.TX", "Texas", None, "TX")
LISBON_REGION = locality("region", "PT.14", "Lisbon")
PARIS = locality("town", "1", "Paris", "巴黎", "Parigi")
LISBON = locality("town", "2", "Lisbon", "里斯本", "Lisboa", "Lissabon")
PARIS_TX = locality("town", "3", "Paris")
BELEM = locality("town", "4", "Belém", None)
SAINT_DENIS = locality("town", "5", "Saint-Denis")
QUARTER = locality("town", "6", "Paris 16 Passy")
PLACES = [
    NewPlace((1, 1), PARIS, None, None, FRANCE),
    NewPlace((6, 1, 5), QUARTER, PARIS, None, FRANCE, (SAINT_DENIS,)),
    NewPlace((4, 2), BELEM, LISBON, LISBON_REGION, PORTUGAL),
    NewPlace((3,), PARIS_TX, None, TEXAS, STATES),
    NewPlace((5,), SAINT_DENIS, None, None, FRANCE),
]
NAMES = (
    "paris", "PARIS", "parigi", "巴黎", "法国", "frankreich", "lisbon", "Lissabon", "里斯本",
    "belem",
    "BELÉM", "saint denis", "Saint-Denis", "saint–denis", "texas", "tx", "usa", "portugal",
    "paris, texas", "Paris，France", "passy", "paris 16 passy", "paris,lisbon", "united  states",
)  # fmt: skip


def names_of(place):
    parts = (place.town, place.city, place.region, place.country, *place.parts)
    return frozenset().union(*(part.names for part in parts if part))


@pytest.fixture
def placed(library):
    """A library of 60 pictures, some of them at places, and where each is."""
    rng, root = random.Random(7), library.add_root(b"/p")
    where = {number: rng.choice([*PLACES, None, "no coordinates"]) for number in range(1, 61)}
    images, files = [], []
    for number, place in where.items():
        spot = None if place == "no coordinates" else 1.0
        content = number.to_bytes(32, "big")
        facts = ImageMetadata(1, 1, "JPEG", latitude=spot, longitude=spot)
        images.append(NewImage(content, 1, facts))
        files.append(FileWrite(b"/p/%d.jpg" % number, root.id, 1, number, content))
    library.write_batch(WriteBatch(images, files))
    numbers = [(n, p and p.key) for n, p in where.items() if p != "no coordinates"]
    ids = ids_by_number(library)
    replace_places(library, "1", PLACES, [(ids[n], key) for n, key in numbers])
    return library, {n: p if isinstance(p, NewPlace) else None for n, p in where.items()}


def ids_by_number(library):
    return {int.from_bytes(key): n for n, key in library.rows("SELECT id, hash FROM images")}


def by_hand(where, value):
    wanted = {place_words(name) for name in value.replace("，", ",").split(",")}
    return {n for n, place in where.items() if place and wanted <= names_of(place)}


def numbers_of(library, ids):
    return {int.from_bytes(content) for content in contents(library, ids.tolist()).values()}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_finds_what_a_search_by_hand_does(placed, name):
    library, where = placed
    expected = by_hand(where, name)
    for text, right in (
        (f'place:"{name}"', expected),
        (f'-place:"{name}"', set(where) - expected),
    ):
        filters = parse(text).filters
        assert numbers_of(library, allowed_images(library, filters)) == right
        found = chosen(library, read_columns(library), filters)
        assert numbers_of(library, found.ids) == right
    assert expected or name in ("passy", "paris,lisbon")


def test_names_combine_with_each_other_and_with_other_filters(placed):
    library, where = placed
    both = parse("place:paris -place:france").filters
    assert numbers_of(library, allowed_images(library, both)) == by_hand(where, "texas")
    some = parse("place:portugal -name:1").filters
    left = {n for n in by_hand(where, "portugal") if "1" not in str(n)}
    assert numbers_of(library, allowed_images(library, some)) == left


@given(st.lists(st.sampled_from(NAMES), min_size=1, max_size=3))
def test_a_query_writes_itself_so_that_it_reads_the_same(names):
    query = parse(" ".join(f'place:"{name}"' for name in names))
    assert parse(str(query)) == query


@pytest.mark.parametrize("value", ["-", '"a,,b"', '","', '"a,"', "''", '" - "'])
def test_a_value_without_a_name_is_refused(value):
    with pytest.raises(QueryError, match="does not name a place; write it as in place:lisbon"):
        parse(f"place:{value}")


@given(st.text(max_size=40))
def test_any_text_is_a_name_or_refused_and_compared_the_same_way_twice(text):
    words = place_words(text)
    assert place_words(words) == words
    quoted = text.replace("\\", "\\\\").replace('"', '\\"')
    try:
        parse(f'place:"{quoted}"')
    except QueryError:
        pass


@pytest.mark.parametrize(
    ("asked", "code", "near"),
    [
        ("lisbn", "query.unknown_place_near", "Lisbon"),
        ("pariss", "query.unknown_place_near", "Paris"),
        ('"saint dennis"', "query.unknown_place_near", "Saint-Denis"),
        ("里斯", "query.unknown_place_near", "里斯本"),
        ("xyzzy", "query.unknown_place", None),
        ('"paris, lisbn"', "query.unknown_place_near", "Lisbon"),
    ],
)
def test_a_name_that_no_picture_is_from_is_said_with_those_that_are_near(placed, asked, code, near):
    library, _ = placed
    with pytest.raises(Unanswerable) as raised:
        rank(library, None, None, parse(f"place:{asked}"))
    assert raised.value.code == code
    if near:
        assert near in raised.value.params["near"].split(", ")
        assert f"Did you mean {near}" in str(raised.value)
    else:
        assert "Most are from: " in str(raised.value) and "Paris" in str(raised.value)
    assert "\n" not in str(raised.value)
    everything = rank(library, None, None, parse(f"-place:{asked}"))
    assert everything.total == 60


def test_a_library_without_places_says_what_to_do(library, placed):
    switch(library, False)
    for text in ("place:paris", "-place:paris"):
        with pytest.raises(Unanswerable, match="fovea index --places") as raised:
            check_places(library, parse(text).filters)
        assert raised.value.code == "query.places_off"
    switch(library, True)
    with pytest.raises(Unanswerable, match="run fovea index") as raised:
        check_places(library, parse("place:paris").filters)
    assert raised.value.code == "query.no_places"


def test_each_known_place_has_as_many_pictures_as_its_query_finds(placed):
    library, where = placed
    for chinese in (False, True):
        known = known_places(library, chinese=chinese)
        assert known and all(isinstance(one, KnownPlace) for one in known)
        assert [one.count for one in known] == sorted((o.count for o in known), reverse=True)
        assert len({one.query for one in known}) == len(known)
        for one in known:
            ids = allowed_images(library, parse(one.query).filters)
            assert len(ids) == one.count > 0, one
    labels = {one.label: one.query for one in known_places(library)}
    assert (
        labels["Lisbon, Portugal"] == "place:Lisbon"
    )  # one entry, although its region is called so
    assert labels["Paris, France"] == 'place:"Paris, France"'
    assert labels["Paris, United States"] == 'place:"Paris, United States"'
    assert labels["France"] == "place:France"
    assert "里斯本，葡萄牙" in {one.label for one in known_places(library, chinese=True)}


def test_hidden_pictures_are_not_counted(placed):
    library, where = placed
    hidden = min(by_hand(where, "portugal"))
    before = {one.query: one.count for one in known_places(library)}["place:Portugal"]
    mark(library, [hidden.to_bytes(32, "big")], "hidden", True)
    assert {one.query: one.count for one in known_places(library)}["place:Portugal"] == before - 1


def test_names_are_completed(placed):
    library, _ = placed
    assert known_values(Path(library.folder), "place", "Li") == ["Lisbon"]
    assert known_values(Path(library.folder), "place", "里") == ["里斯本"]


def test_where_a_picture_is_in_words(placed):
    library, where = placed
    ids = ids_by_number(library)
    found = whereabouts(library, ids.values())
    said = {n: found[i].label for n, i in ids.items() if i in found}
    assert set(said) == {n for n, place in where.items() if place}
    assert set(said.values()) == {
        "Paris, France", "Paris 16 Passy, Paris, France", "Belém, Lisbon, Portugal",
        "Paris, United States", "Saint-Denis, France",
    }  # fmt: skip
    chinese = {where.chinese for where in found.values()}
    assert chinese == {
        "法国巴黎", "法国巴黎 Paris 16 Passy", "葡萄牙里斯本 Belém", "美国 Paris",
        "法国 Saint-Denis",
    }  # fmt: skip
