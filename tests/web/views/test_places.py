"""The place of a picture, and the places of a library, in the API."""

import pytest

from fovea.search.places.stored import Locality, NewLocality, NewPlace, replace_places

LISBON = NewLocality(
    "town", Locality("Lisbon", "里斯本", "2"), frozenset({"lisbon", "里斯本", "lisboa"})
)
BELEM = NewLocality("town", Locality("Belém", None, "4"), frozenset({"belem"}))
PORTUGAL = NewLocality(
    "country", Locality("Portugal", "葡萄牙", "PT"), frozenset({"portugal", "葡萄牙"})
)


@pytest.fixture
def placed(app, colour_library):
    with colour_library.transaction() as conn:
        conn.execute("UPDATE images SET latitude = 38.7, longitude = -9.2 WHERE id <= 2")
    places = [
        NewPlace((4, 2), BELEM, LISBON, None, PORTUGAL),
        NewPlace((2,), LISBON, None, None, PORTUGAL),
    ]
    replace_places(colour_library, "1", places, [(1, (4, 2)), (2, (2,))])
    return app.test_client()


def test_a_picture_says_its_place_in_fields_and_in_words(placed):
    assert placed.get("/api/images/1").json["place"] == {
        "town": "Belém",
        "city": "Lisbon",
        "region": None,
        "country": "Portugal",
        "country_code": "PT",
        "label": "Belém, Lisbon, Portugal",
        "label_zh": "葡萄牙里斯本 Belém",
    }
    assert placed.get("/api/images/2").json["place"]["label"] == "Lisbon, Portugal"
    assert placed.get("/api/images/3").json["place"] is None


def test_the_places_to_filter_by_are_counted(placed):
    listed = placed.get("/api/facets").json["places"]
    assert [(one["name"], one["query"], one["count"]) for one in listed] == [
        ("Lisbon, Portugal", "place:Lisbon", 2),
        ("Portugal", "place:Portugal", 2),
        ("Belém, Portugal", "place:Belém", 1),
    ]
    for one in listed:
        assert (
            placed.get("/api/search", query_string={"q": one["query"]}).json["total"]
            == one["count"]
        )


def test_a_place_that_is_none_is_a_problem_with_a_code(placed):
    answer = placed.get("/api/search", query_string={"q": "place:lisbin"})
    assert answer.status_code in (400, 422)
    assert answer.json["code"] == "query.unknown_place_near"
    assert answer.json["params"]["near"] == "Lisbon"
