"""Terminal, Python, API, page and clip-retrieval's protocol all give the same answer."""

import json
import re

import pytest

import fovea
from coloured import COLOURS, encoded
from commands import run, settle
from fovea.web.app import create_app
from small_clips import write_line, write_model

QUERIES = (
    "the dog",
    "the dog -cat",
    "red",
    "red in:photos",
    "like:2",
    "2:lime sort:date",
    "sort:name",
)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a model, pictures of a single colour each, and a library of them."""
    folder = tmp_path_factory.mktemp("home")
    write_model(folder / "model")
    (folder / "photos").mkdir()
    for number, colour in enumerate([*COLOURS] * 3):
        (folder / "photos" / f"{colour}{number}.png").write_bytes(encoded(colour, number))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FOVEA_LIBRARY", str(folder / "library"))
        patch.setenv("FOVEA_MODELS", str(folder / "models"))
        patch.setenv("FOVEA_OFFLINE", "1")
        with fovea.Library.open(create=True, device="cpu", dtype="float32") as library:
            report = library.index(folder / "photos", model=str(folder / "model"), workers=1)
        assert report.embedded == 3 * len(COLOURS)
        yield folder


@pytest.fixture(scope="module")
def client(home):
    app = create_app(home / "library", testing=True)
    assert app.extensions["fovea"].background() is not None, "the background is saved"
    yield app.test_client()
    app.extensions["fovea"].close()


def rows(hits):
    """Return the members of hits that every surface has, to be compared.

    Scores may differ in their last digits: a text's embedding does, alone or with others in a pass.
    """
    return [
        (hit["image_id"], None if hit["score"] is None else Near(hit["score"]), hit["path"])
        for hit in hits
    ]


class Near(float):
    """A score that equals those within float32's rounding of it."""

    def __eq__(self, other):
        return abs(float(self) - float(other)) < 1e-6

    __hash__ = None


def chances(hits):
    return [hit.get("likelihood") for hit in hits]


def in_python(library, query, k):
    answer = library.search(query, k=k)
    hits = [
        {name: getattr(hit, name) for name in ("image_id", "score", "path", "likelihood")}
        for hit in answer.hits
    ]
    return hits, answer.likely, answer.total


def by_cursor(client, query, limit):
    """Read an answer page by page, ``limit`` hits each."""
    place = {"q": query}
    page = client.get("/api/search", query_string=place | {"limit": limit}).json
    hits, likely, total = page["hits"], page["likely"], page["total"]
    while page["cursor"]:
        page = client.get(
            "/api/search", query_string={"cursor": page["cursor"], "limit": limit}
        ).json
        assert (page["likely"], page["total"]) == (likely, total)
        hits += page["hits"]
    return hits, likely, total


@pytest.mark.parametrize("query", QUERIES)
def test_all_surfaces_give_the_same_answer(home, client, query):
    with fovea.Library.open(device="cpu") as library:
        whole, likely, total = in_python(library, query, 1000)
        assert len(whole) == total
        few, *counts = in_python(library, query, 4)
        assert (rows(few), counts) == (rows(whole[:4]), [likely, total])
        assert chances(few) == pytest.approx(chances(whole[:4]), abs=1e-5, nan_ok=True)
    for limit in (3, 50):
        hits, *counts = by_cursor(client, query, limit)
        assert (rows(hits), counts) == (rows(whole), [likely, total])
        assert chances(hits) == pytest.approx(chances(whole), abs=1e-5, nan_ok=True)
    said = run("search", query, "--json", "-k", 5).json
    assert (rows(said["hits"]), said["likely"], said["total"]) == (rows(whole[:5]), likely, total)
    first = client.get("/api/search", query_string={"q": query}).json
    order = {"date": "date", "name": "name"}.get(query.rpartition("sort:")[2], "nearest")
    assert said["order"] == first["order"] == order
    page = client.get("/", query_string={"q": query}).get_data(as_text=True)
    first = json.loads(
        re.search(r'<script[^>]*application/json[^>]*id="first"[^>]*>(.*?)</script>', page, re.S)[1]
    )
    assert (rows(first["hits"]), first["likely"], first["total"]) == (rows(whole), likely, total)


@pytest.mark.parametrize("words", ["the dog", "red"])
def test_clip_retrieval_gives_the_same_answer(home, client, words):
    asked = {"text": words, "num_images": 100, "deduplicate": False}
    found = client.post("/knn-service", json=asked).json
    with fovea.Library.open(device="cpu") as library:
        hits, *_ = in_python(library, words, 1000)
    assert [(hit["id"], hit["image_path"]) for hit in found] == [
        (hit["image_id"], hit["path"]) for hit in hits
    ]


def test_similar_is_the_same_by_file_by_id_and_over_http(home, client):
    file = home / "photos" / f"red{[*COLOURS].index('red')}.png"
    with fovea.Library.open(device="cpu") as library:
        known = library.find(file)
        by_file = [hit.image_id for hit in library.similar(file, k=50).hits]
        assert by_file == [hit.image_id for hit in library.similar(known, k=50).hits]
    page = client.get(f"/api/images/{known}/similar?limit=50").json
    assert [hit["image_id"] for hit in page["hits"]] == by_file
    said = run("similar", file, "-k", 50, "--json").json
    assert [hit["image_id"] for hit in said["hits"]] == by_file and known not in by_file


@pytest.mark.parametrize("told", [None, 0.5, 0.9])
def test_where_the_line_is_worth_nothing_no_surface_speaks_of_matches(tmp_path, monkeypatch, told):
    """None: the model was never measured. What is measured later counts from the next index run."""
    settle(monkeypatch, tmp_path)
    write_model(tmp_path / "model", with_line=False)
    (tmp_path / "photos").mkdir()
    for number, colour in enumerate(COLOURS):
        (tmp_path / "photos" / f"{number}.png").write_bytes(encoded(colour, number))
    options = ("--model", tmp_path / "model", "--workers", 1)
    assert run("index", tmp_path / "photos", *options).code == 0
    if told is not None:
        write_line(tmp_path / "model", told)
        assert run("index").code == 0
    is_drawn = told == 0.9
    for query in ("the dog", "like:1", "the dog like:1"):
        done = run("search", query, "-k", 3)
        assert ("nearest first" in done.err) != is_drawn
        assert ("match" in done.err) == is_drawn or not done.err, query
        said = run("search", query, "-k", 3, "--json").json
        with fovea.Library.open(device="cpu") as library:
            answer = library.search(query, k=3)
        app = create_app(tmp_path / "library", testing=True)
        page = app.test_client().get("/api/search", query_string={"q": query, "limit": 3}).json
        app.extensions["fovea"].close()
        assert (answer.order, said["order"], page["order"]) == ("nearest",) * 3
        rated = [answer.likely, said["likely"], page["likely"]]
        rated += [*chances(said["hits"]), *chances(page["hits"])]
        rated += [hit.likelihood for hit in answer.hits]
        assert all((value is not None) == is_drawn for value in rated), (query, rated)


def test_names_that_match_are_not_called_nearest(tmp_path, monkeypatch):
    settle(monkeypatch, tmp_path)
    write_model(tmp_path / "model", with_line=False)
    (tmp_path / "photos").mkdir()
    for number, colour in enumerate(COLOURS):
        (tmp_path / "photos" / f"{colour}.png").write_bytes(encoded(colour, number))
    options = ("--model", tmp_path / "model", "--workers", 1)
    assert run("index", tmp_path / "photos", *options).code == 0
    assert run("search", "white").err == "fovea: names that match, and the nearest, first\n"
    assert run("search", "the dog").err == "fovea: nearest first\n"


def test_a_list_by_date_or_name_is_not_called_nearest_first(home):
    for query in ("2:lime sort:date", "sort:name", "in:photos"):
        assert "nearest first" not in run("search", query).err
