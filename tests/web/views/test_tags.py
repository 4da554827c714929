"""The API of tags."""

import pytest


@pytest.fixture
def ids(client):
    """Name -> id of the eight pictures."""
    hits = client.get("/api/search?q=&limit=100").json["hits"]
    return {hit["name"].removesuffix(".png"): hit["image_id"] for hit in hits}


def found(client, query):
    hits = client.get("/api/search", query_string={"q": query, "limit": 100}).json["hits"]
    return {hit["name"].removesuffix(".png") for hit in hits}


def teach(client, **said):
    return client.post("/api/tags", json={"name": "Reds", **said})


def test_a_tag_is_taught_found_and_corrected(client, ids):
    answer = teach(client, yes=[ids["red"], ids["maroon"], 999], no=[ids["blue"]])
    tag = answer.json["tag"]
    assert (answer.status_code, tag["yes"], tag["no"], tag["taught"]) == (200, 2, 1, False)
    assert set(answer.json["changed"]) == {ids["red"], ids["maroon"], ids["blue"]}
    assert found(client, "tag:reds") == {"red", "maroon"}
    assert teach(client, yes=[ids["magenta"]]).json["tag"]["taught"] is True
    assert found(client, "tag:reds") >= {"red", "maroon", "magenta"}
    assert "blue" not in found(client, "tag:reds")
    [shown] = client.get(f"/api/images/{ids['red']}").json["tags"]
    told = {"probability": 1.0, "said": True, "proven": True}
    assert shown == {"name": "Reds", "name_zh": "Reds", **told}
    found_ones = found(client, "tag:reds") - {"red", "maroon", "magenta"}
    for name in found_ones:
        [unsaid] = client.get(f"/api/images/{ids[name]}").json["tags"]
        assert (unsaid["said"], unsaid["proven"]) == (None, False)
    assert client.get(f"/api/images/{ids['blue']}").json["tags"][0]["said"] is False
    assert teach(client, neither=[ids["blue"]]).json["changed"] == [ids["blue"]]
    assert client.get("/api/tags").json["tags"][0]["no"] == 0


def test_what_was_said_before_undoes_a_lesson(client, ids):
    red, blue, lime, white = (ids[name] for name in ("red", "blue", "lime", "white"))

    def state():
        about = {one: client.get(f"/api/images/{one}").json["tags"] for one in ids.values()}
        tag = client.get("/api/tags").json["tags"][0]
        said = {one: [tag["said"] for tag in tags] for one, tags in about.items()}
        return said, tag["yes"], tag["no"], tag["answers"]

    first = teach(client, yes=[red], no=[blue])
    assert first.json["before"] == [
        {"yes": [], "no": [], "neither": [red, blue], "suggested": False}
    ]
    teach(client, no=[lime], suggested=True)
    before = state()
    assert before[1:] == (1, 2, 1)
    changed = teach(client, yes=[red, blue, lime, white]).json
    assert sorted(changed["changed"]) == sorted([blue, lime, white])
    assert state()[1:] == (4, 0, 0)
    assert changed["before"] == [
        {"yes": [], "no": [blue], "neither": [white], "suggested": False},
        {"yes": [], "no": [lime], "neither": [], "suggested": True},
    ]
    for lesson in changed["before"]:
        assert teach(client, **lesson).status_code == 200
    assert state() == before


def test_suggestions_are_what_nobody_spoke_about(client, ids):
    tag = teach(client, yes=[ids["red"], ids["maroon"], ids["magenta"]]).json["tag"]
    made = client.get(f"/api/tags/{tag['id']}/suggestions?limit=3").json
    proposed = [one["image_id"] for one in made["likely"] + made["uncertain"]]
    assert proposed and len(set(proposed)) == len(proposed)
    assert not {ids["red"], ids["maroon"], ids["magenta"]} & set(proposed)
    assert all(one["thumbnail"] for one in made["likely"] + made["uncertain"])
    assert {one["name"] for one in made["likely"]} <= {f"{name}.png" for name in ids}
    answered = teach(client, no=proposed[:2], suggested=True).json["tag"]
    assert (answered["answers"], answered["no"], answered["right"]) == (2, 2, None)
    assert teach(client, no=proposed[:1], suggested="yes").status_code == 400


def test_a_tag_is_renamed_and_forgotten(client, ids):
    tag = teach(client, yes=[ids["red"]]).json["tag"]
    client.post("/api/tags", json={"name": "other", "yes": [ids["red"]]})
    place = f"/api/tags/{tag['id']}"
    taken = client.put(place, json={"name": "OTHER"})
    assert (taken.status_code, taken.json["code"]) == (409, "tag.taken")
    assert client.put(place, json={"name": "Scarlet"}).json["name"] == "Scarlet"
    assert client.delete(place).status_code == 204
    assert client.delete(place).status_code == 404
    assert [one["name"] for one in client.get("/api/tags").json["tags"]] == ["other"]
    gone = client.get("/api/search?q=tag:scarlet").json
    assert gone["code"] == "query.unknown_tag"


@pytest.mark.parametrize(
    "body",
    [
        {}, {"name": "x"}, {"name": "x", "yes": 1}, {"name": "x", "yes": ["1"]},
        {"name": "x", "yes": [0]}, {"name": "x", "yes": [True]}, {"name": 3, "yes": [1]},
        {"name": "", "yes": [1]}, {"name": "x" * 61, "yes": [1]},
        {"name": "x", "yes": [1], "maybe": [2]},
    ],
)  # fmt: skip
def test_other_lessons_are_refused(client, body):
    answer = client.post("/api/tags", json=body)
    assert answer.status_code == 400 and answer.json["detail"]
    assert client.get("/api/tags").json == {"tags": []}


def test_a_no_alone_teaches_nothing(client, ids):
    answer = teach(client, no=[ids["red"]])
    assert (answer.status_code, answer.json["code"]) == (404, "tag.unknown")
