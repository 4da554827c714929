"""The API of labels: shipped ones and a user's own, in the background, and switched off."""

import threading

import numpy as np
import pytest

from fovea.search.maintenance.labelling import MOST
from fovea.search.query.likelihood import Background, default_labels
from fovea.search.query.measured import LabelSigns, Measured
from fovea.web.jobs import tasks
from fovea.web.views.tagging import labels as module
from worker_programs import until

DIM = 3


@pytest.fixture
def measured(app, monkeypatch):
    """Let the toy's labels be right 70 % of the time, and 90 % from a probability of 0.9."""
    engine = app.extensions["fovea"]
    identity = engine.library.model().identity
    vectors = np.tile(np.full(DIM, -(DIM**-0.5), np.float32), (len(default_labels()), 1))
    for name, axis in (("dog", 0), ("cat", 2)):  # what is red, and what is blue
        vectors[default_labels().index(name)] = np.eye(DIM)[axis]
    signs = LabelSigns(0.5, 0.7, 0.5, stricter=((0.9, 0.9),))
    made = Background(identity, vectors, 100.0, Measured(identity, (0.0,) * DIM, labels=signs))
    monkeypatch.setattr(engine, "background", lambda: made)
    return engine


def found(client, query):
    hits = client.get("/api/search", query_string={"q": query, "limit": 100}).json["hits"]
    return {hit["name"].removesuffix(".png") for hit in hits}


def put(client, **body):
    return client.put("/api/labels", json=body)


def test_pictures_get_no_labels_at_first(client, measured):
    assert client.get("/api/labels").json == {
        "labels": None, "right": None, "available": True, "working": False, "problem": None,
    }  # fmt: skip


def test_shipped_labels_are_given_and_switched_off(client, measured):
    answer = put(client, labels="shipped")
    assert (answer.status_code, answer.json["labels"], answer.json["right"]) == (
        200, "shipped", None,
    )  # fmt: skip
    assert "red" in found(client, "tag:dog") and "blue" not in found(client, "tag:dog")
    assert client.get("/api/status").json["tags"]["pictures"] >= 1
    assert client.delete("/api/labels").status_code == 204
    assert client.get("/api/labels").json["labels"] is None
    assert client.get("/api/tags").json == {"tags": []}


def test_own_labels_have_prompts_and_stand_beside_those_that_ship(client, measured):
    own = [{"name": "Leaf", "prompts": ["lime", "green"]}, {"name": "teapot"}]
    answer = put(client, labels=own, right=0.8)
    assert answer.status_code == 200 and answer.json["right"] == 0.8
    assert answer.json["labels"] == [
        {"name": "Leaf", "prompts": ["lime", "green"]},
        {"name": "teapot", "prompts": ["a photo of a teapot."]},
    ]
    assert "lime" in found(client, "tag:leaf") and "red" not in found(client, "tag:leaf")
    assert "red" in found(client, "tag:dog")


def test_labels_that_are_not_right_so_often_are_refused(client, measured, monkeypatch):
    refused = put(client, labels="shipped", right=0.95)
    assert refused.status_code == 400 and "90%" in refused.json["detail"]
    assert "90%" in client.get("/api/labels").json["problem"]
    monkeypatch.setattr(measured, "background", lambda: None)
    assert client.get("/api/labels").json["available"] is False
    refused = put(client, labels="shipped")
    assert refused.status_code == 400 and "gives no labels" in refused.json["detail"]


def test_a_large_library_is_labelled_after_the_answer(client, measured, monkeypatch):
    go_on, real = threading.Event(), module.label_pictures

    def slow(*arguments, **options):
        assert go_on.wait(60)
        return real(*arguments, **options)

    monkeypatch.setattr(module, "label_pictures", slow)
    monkeypatch.setattr(tasks, "PATIENCE_S", 0.01)
    first = put(client, labels="shipped")
    assert (first.status_code, first.json["working"], first.json["labels"]) == (200, True, None)
    for again in (put(client, labels="shipped"), client.delete("/api/labels")):
        assert (again.status_code, again.json["code"]) == (409, "busy")
    go_on.set()
    assert until(lambda: not client.get("/api/labels").json["working"])
    done = client.get("/api/labels").json
    assert (done["labels"], done["problem"]) == ("shipped", None)


@pytest.mark.parametrize(
    "body",
    [
        {}, {"right": 0.7}, {"labels": None}, {"labels": "all"}, {"labels": []},
        {"labels": "/etc/passwd"}, {"labels": ["dog"]}, {"labels": [{}]},
        {"labels": [{"name": ""}]}, {"labels": [{"name": "x" * 61}]}, {"labels": [{"name": 1}]},
        {"labels": [{"name": "x", "file": "y"}]}, {"labels": [{"name": "x", "prompts": []}]},
        {"labels": [{"name": "x", "prompts": [" "]}]}, {"labels": [{"name": "x", "prompts": "y"}]},
        {"labels": [{"name": "x", "prompts": ["y" * 201]}]},
        {"labels": [{"name": f"x{number}"} for number in range(MOST + 1)]},
        {"labels": "shipped", "right": 0}, {"labels": "shipped", "right": 1.1},
        {"labels": "shipped", "right": True}, {"labels": "shipped", "right": "0.7"},
    ],
)  # fmt: skip
def test_other_labels_are_refused(client, measured, body):
    answer = client.put("/api/labels", json=body)
    assert answer.status_code == 400 and answer.json["detail"]
    assert client.get("/api/labels").json["labels"] is None
