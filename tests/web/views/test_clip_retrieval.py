"""The protocol of clip-retrieval, as its client speaks it: JSON without a Content-Type."""

import base64
import io
import json
import os

import numpy as np
import pytest
from PIL import Image

from toys import COLOURS


def ask(client, path="/knn-service", **fields):
    """Post as ``requests.post(url, data=json.dumps(…))`` does, with all that ClipClient sends."""
    body = {
        "text": None,
        "image": None,
        "image_url": None,
        "embedding_input": None,
        "deduplicate": False,
        "use_safety_model": True,
        "use_violence_detector": True,
        "indice_name": "laion5B",
        "use_mclip": False,
        "aesthetic_score": 9,
        "aesthetic_weight": 0.5,
        "modality": "image",
        "num_images": 40,
        "num_result_ids": 40,
        "verbose": False,
    }
    return client.post(path, data=json.dumps(body | fields))


def captions(response):
    assert response.status_code == 200, response.json
    return [hit["caption"] for hit in response.json]


def is_refused(response):
    assert 400 <= response.status_code < 500, response.get_data(as_text=True)
    assert response.content_type == "application/problem+json"
    return response.json["detail"]


def picture(colour):
    file = io.BytesIO()
    Image.new("RGB", (16, 16), colour).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def test_there_is_one_index(client):
    response = client.get("/indices-list")
    assert (response.status_code, response.json) == (200, ["fovea"])


@pytest.mark.parametrize("colour", ["yellow", "lime", "blue"])
def test_a_text_finds_images_with_all_that_a_client_reads(client, encoder, photos, colour):
    response = ask(client, text=colour)
    assert captions(response)[0] == f"{colour}.png"
    hit = response.json[0]
    assert set(hit) == {"id", "similarity", "image_path", "url", "caption"}
    assert hit["image_path"] == str(photos / f"{colour}.png")
    assert hit["url"] == f"http://localhost/api/images/{hit['id']}/original"
    query = encoder.encode_texts([colour])[0]
    expected = sorted((encoder.encode_texts(COLOURS) @ query).tolist(), reverse=True)
    assert [hit["similarity"] for hit in response.json] == pytest.approx(expected, abs=2e-3)


def test_a_text_is_no_query(client):
    assert captions(ask(client, text="-is:square like:3 yellow"))[0] == "yellow.png"


@pytest.mark.parametrize("colour", ["lime", "blue"])
def test_a_picture_in_base64_finds_its_like(client, colour):
    assert captions(ask(client, image=picture(colour)))[0] == f"{colour}.png"


def test_an_embedding_finds_its_like_whatever_its_length(client, encoder):
    vector = encoder.encode_texts(["blue"])[0]
    near = ask(client, embedding_input=vector.tolist()).json
    far = ask(client, embedding_input=(vector * 1000).tolist()).json
    assert near[0]["caption"] == "blue.png"
    assert [hit["id"] for hit in near] == [hit["id"] for hit in far]
    assert near[0]["similarity"] == pytest.approx(1, abs=1e-3)
    assert ask(client, embedding_input=[0, 0, 7]).status_code == 200


def test_ids_beyond_the_shown_images_come_alone(client):
    found = ask(client, text="red", num_images=2, num_result_ids=5).json
    assert len(found) == 5
    assert all("image_path" in hit for hit in found[:2])
    assert all(set(hit) == {"id", "similarity"} for hit in found[2:])
    assert len(ask(client, text="red", num_images=3, num_result_ids=1).json) == 3


def test_duplicates_are_left_out_where_that_is_asked_for(client, app, photos, add_file):
    library = app.extensions["fovea"].library
    Image.new("RGB", (9, 9), "blue").save(photos / "bluer.png")
    add_file(library, library.roots()[0].id, photos / "bluer.png")
    blue = {"blue.png", "bluer.png"}
    assert set(captions(ask(client, text="blue"))[:2]) == blue
    distinct = captions(ask(client, text="blue", deduplicate=True))
    assert len(blue & set(distinct)) == 1
    assert distinct[0] in blue
    # By the definition: no two that are left are alike, and each that went is like one left.
    assert len(distinct) < 9


def test_an_image_without_a_file_is_no_hit(client, app, photos):
    app.extensions["fovea"].library.mark_missing([os.fsencode(photos / "blue.png")])
    found = captions(ask(client, text="blue", num_images=7, num_result_ids=7))
    assert "blue.png" not in found
    assert len(found) == 7


def test_an_address_is_refused_with_a_reason(client):
    detail = is_refused(ask(client, image_url="http://127.0.0.1:1/secret.png"))
    assert "image_url" in detail and "base64" in detail


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"text": ""},
        {"text": 3},
        {"text": "a" * 2001},
        {"text": "\ud800"},
        {"text": "a\0"},
        {"image": 3},
        {"image": "%%%"},
        {"image": "aGVsbG8="},
        {"embedding_input": []},
        {"embedding_input": [1, 2]},
        {"embedding_input": [0, 0, 0]},
        {"embedding_input": [1, "2", 3]},
        {"embedding_input": [1, None, 3]},
        {"embedding_input": [True, 1, 1]},
        {"embedding_input": [[1], [2], [3]]},
        {"embedding_input": [1e308, 1e308, 1e308]},
        {"embedding_input": [float("nan"), 1, 1]},
        {"embedding_input": [float("inf"), 1, 1]},
        {"embedding_input": "1,2,3"},
        {"embedding_input": {"0": 1}},
        {"text": "red", "modality": "text"},
        {"text": "red", "num_images": 0},
        {"text": "red", "num_images": -1},
        {"text": "red", "num_images": 3001},
        {"text": "red", "num_images": 2.5},
        {"text": "red", "num_images": True},
        {"text": "red", "num_result_ids": 10**30},
        {"text": "red", "deduplicate": 0},
    ],
)
def test_what_cannot_be_asked_is_refused(client, fields):
    is_refused(ask(client, **fields))


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"null", b"[" * 100_000, b"\xff\xfe", b"text=red"]
)
def test_what_is_no_json_object_is_refused(client, data):
    is_refused(client.post("/knn-service", data=data))
    is_refused(client.post("/metadata", data=data))


def test_metadata_says_where_images_lie(client):
    found = ask(client, text="red").json
    ids = [hit["id"] for hit in found]
    response = client.post("/metadata", data=json.dumps({"ids": ids[:3], "indice_name": "x"}))
    assert response.status_code == 200
    assert [entry["id"] for entry in response.json] == ids[:3]
    for entry, hit in zip(response.json, found, strict=False):
        assert entry["metadata"] == {name: hit[name] for name in ("image_path", "url", "caption")}


@pytest.mark.parametrize("ids", [[], [10**9], [-1], [0], [2**62]])
def test_ids_that_are_not_there_are_left_out(client, ids):
    response = client.post("/metadata", json={"ids": ids})
    assert (response.status_code, response.json) == (200, [])


@pytest.mark.parametrize(
    "body",
    [{}, {"ids": 3}, {"ids": ["1"]}, {"ids": [1.0]}, {"ids": [True]}, {"ids": [10**30]}]
    + [{"ids": [1] * 3001}, {"ids": None}],
)
def test_metadata_of_what_is_no_list_of_ids_is_refused(client, body):
    is_refused(client.post("/metadata", json=body))


def test_what_other_clients_send_besides_is_ignored(client):
    assert ask(client, text="red", unheard_of=1).json == ask(client, text="red").json
    assert client.post("/knn-service?v=2", json={"text": "red"}).status_code == 200
    assert client.post("/metadata", json={"ids": [], "more": 1}).json == []
    assert client.get("/indices-list?x=1").status_code == 200


def test_an_empty_library_has_no_neighbours(tmp_path):
    from fovea.web.app import create_app

    app = create_app(tmp_path / "empty", testing=True)
    client = app.test_client()
    for fields in ({"text": "red"}, {"embedding_input": [1, 2]}):
        response = ask(client, **fields)
        assert (response.status_code, response.json) == (200, [])
    app.extensions["fovea"].close()


def test_a_vector_of_many_kinds_of_numbers_is_read(client):
    values = [np.float64(1).item(), 2, 0.5]
    assert ask(client, embedding_input=values).status_code == 200
