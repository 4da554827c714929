"""Favourites and hidden pictures in answers, against plain sets."""

import random

import numpy as np
import pytest
from PIL import Image

from fovea.search.library.library import Library
from fovea.search.library.marks import contents, mark
from fovea.search.query.language import parse
from fovea.search.query.run import Question, Searcher
from toys import ColourEncoder


@pytest.fixture
def searcher(colour_library, encoder):
    return Searcher.of(colour_library, colour_library.model(), encoder)


def names_of(searcher, query, k=100, *, question=None):
    answer = searcher.answer(question or Question.of(query), k)
    assert answer.total == len(answer.hits)
    return [hit.path.rpartition("/")[2].removesuffix(".png") for hit in answer.hits]


def ids_by_name(library):
    rows = library.rows("SELECT path, image_id FROM files")
    return {path.decode().rpartition("/")[2].removesuffix(".png"): key for path, key in rows}


def put(library, names, kind, on=True):
    ids = ids_by_name(library)
    hashes = contents(library, [ids[name] for name in names])
    mark(library, hashes.values(), kind, on)


QUERIES = (
    "", "red", "sort:name", "red sort:date", "in:photos", "red in:photos", "name:e", "red name:e",
    "red -blue", "like:1", "is:landscape sort:name", "-is:damaged",
)  # fmt: skip


def test_hidden_pictures_are_in_no_answer_but_their_own(colour_library, searcher):
    """Any marks: each answer is the one before without what is hidden, in the same order."""
    draw = random.Random(5)
    everything = {query: names_of(searcher, query) for query in QUERIES}
    known = sorted(ids_by_name(colour_library))
    for _ in range(12):
        hidden, loved = (set(draw.sample(known, draw.randint(0, len(known)))) for _ in "12")
        for kind, chosen in (("hidden", hidden), ("favourite", loved)):
            put(colour_library, known, kind, False)
            put(colour_library, chosen, kind)
        for query, whole in everything.items():
            expected = [name for name in whole if name not in hidden]
            assert names_of(searcher, query) == expected, (query, hidden)
            found = names_of(searcher, f"{query} is:favourite")
            assert set(found) == (loved - hidden) & set(whole), query
            assert (
                found == [name for name in whole if name in loved - hidden] or "sort" not in query
            )
            assert set(names_of(searcher, f"{query} -is:favourite")) == set(expected) - loved
            assert set(names_of(searcher, f"{query} is:hidden")) == hidden & set(whole)
            both = names_of(searcher, f"{query} is:hidden is:favorite")
            assert set(both) == hidden & loved & set(whole)
            assert set(names_of(searcher, f"{query} -is:hidden")) == set(expected)


def test_pictures_like_a_hidden_one_are_found(colour_library, searcher):
    ids = ids_by_name(colour_library)
    put(colour_library, ["red", "blue"], "hidden")
    found = names_of(searcher, "", question=Question.like(ids["red"]))
    assert "red" not in found and "blue" not in found
    assert len(found) == len(ids) - 2
    put(colour_library, ["red"], "hidden", False)
    assert len(names_of(searcher, "", question=Question.like(ids["red"]))) == len(ids) - 2


def test_hits_say_which_marks_they_have(colour_library, searcher):
    put(colour_library, ["red", "blue"], "favourite")
    put(colour_library, ["blue"], "hidden")
    loved = {
        hit.path.rpartition("/")[2]: (hit.favourite, hit.hidden)
        for hit in searcher.answer(Question.of(""), 100).hits
    }
    assert loved["red.png"] == (True, False)
    assert loved["lime.png"] == (False, False)
    assert "blue.png" not in loved
    [blue] = searcher.answer(Question.of("is:hidden"), 100).hits
    assert (blue.favourite, blue.hidden) == (True, True)


def test_what_is_hidden_meanwhile_is_left_out_of_later_pages(colour_library, searcher):
    listing = searcher.listing(Question.of("sort:name"))
    first = searcher.hits(listing, 0, 3)
    after = searcher.hits(listing, 3, 100)
    put(colour_library, [after[0].path.rpartition("/")[2].removesuffix(".png")], "hidden")
    assert searcher.hits(listing, 0, 3) == first
    assert searcher.hits(listing, 3, 100) == after[1:]


def test_names_of_hidden_pictures_push_no_others_out(library, tmp_path, add_file, encoder):
    """More hidden files have the word than names are merged in."""
    folder = tmp_path / "many"
    folder.mkdir()
    root = library.add_root(folder)
    for number in range(60):
        name = f"red {number}" if number else "red with the longest of all names"
        Image.new("RGB", (8, 8), (number, 0, 200)).save(folder / f"{name}.png")
        add_file(library, root.id, folder / f"{name}.png")
    put(library, [f"red {number}" for number in range(1, 60)], "hidden")
    searcher = Searcher.of(library, library.model(), encoder)
    [hit] = searcher.answer(Question.of("red"), 100).hits
    assert hit.by_name, "not the 24 shortest names, which are hidden"
    assert len(names_of(searcher, "is:hidden red")) == 59


@pytest.mark.parametrize("written", ["is:favourite", "IS:Favourite", "is:favorite", "is:FAVORITE"])
def test_both_spellings_are_one_filter(written):
    assert str(parse(written)) == "is:favourite"
    assert str(parse(f"-{written}")) == "-is:favourite"


def test_an_answer_is_refilled_past_many_hidden_ones(library, encoder):
    """The nearest are all hidden; the ``k`` asked for come from behind them."""
    from fovea.search.library.rows import FileWrite, ImageMetadata, NewImage, WriteBatch

    model = library.set_model(encoder.name, encoder.identity, encoder.dim, "test")
    root = library.add_root(b"/p")
    rng = np.random.default_rng(1)
    vectors = np.abs(rng.normal(size=(600, 3))).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    images, files = [], []
    for number, vector in enumerate(vectors):
        digest = number.to_bytes(32, "big")
        images.append(NewImage(digest, 1, ImageMetadata(4, 3, "PNG"), vector))
        files.append(FileWrite(f"/p/{number}".encode(), root.id, 1, number, digest))
    library.write_batch(WriteBatch(images, files, model.id))
    red = ColourEncoder().encode_texts(["red"])[0]
    order = np.argsort(-(vectors.astype(np.float16).astype(np.float32) @ red), kind="stable")
    mark(library, [int(n).to_bytes(32, "big") for n in order[:500]], "hidden", True)
    searcher = Searcher.of(library, model, encoder)
    answer = searcher.answer(Question.of("red"), 50)
    assert answer.total == 100
    assert [int(hit.path[3:]) for hit in answer.hits] == order[500:550].tolist()
    with Library.open(library.folder) as other:
        mark(other, [int(order[500]).to_bytes(32, "big")], "hidden", True)
    assert searcher.answer(Question.of("red"), 50).total == 99
