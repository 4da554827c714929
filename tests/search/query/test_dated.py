"""Dates that are not exact in filters and in the order, and dates of files that are selected."""

from datetime import datetime

import pytest

from fovea.search.library.facts.dates import FILE_NAME, FILE_TIME
from fovea.search.library.rows import FileWrite, ImageMetadata, NewImage, WriteBatch
from fovea.search.query.filters import allowed_images
from fovea.search.query.hits import day_of
from fovea.search.query.language import parse
from fovea.search.query.run import Question, Searcher
from vectors import clustered

DIM = 8


class Words:
    """A toy encoder."""

    def encode_texts(self, texts):
        return clustered(len(texts), DIM, 7)


def filled(library, images):
    """Write an image for each date and its files, names to seconds."""
    model, root = library.set_model("toy", "a" * 64, DIM, "test"), library.add_root(b"/p")
    new, files = [], []
    for (day, names), vector in zip(images, clustered(len(images), DIM, 1), strict=True):
        dated_by = "DateTime" if day else None
        key = len(new).to_bytes(32, "big")
        new.append(NewImage(key, 1, ImageMetadata(taken_at=day, dated_by=dated_by), vector))
        for name, seconds in names.items():
            path = f"/p/{name}".encode()
            files.append(FileWrite(path, root.id, 1, seconds * 10**9, key))
    library.write_batch(WriteBatch(new, files, model.id))
    return library


def answered(library, query):
    searcher = Searcher.of(library, library.model(), Words())
    return searcher.answer(Question.of(query), 10).hits


@pytest.fixture
def partly_dated(library):
    """Five pictures, the first of which is the newest."""
    days = ["2019-08-01T00:00:00", "2019-07-14T10:15:00", "2019-07-14", "2019-07", "2019"]
    return filled(library, [(day, {f"{n}.jpg": 10**9}) for n, day in enumerate(days, 1)])


@pytest.mark.parametrize(
    ("query", "numbers"),
    [
        ("on:2019", [1, 2, 3, 4, 5]),
        ("on:2019-07", [2, 3, 4]),
        ("on:2019-07-14", [2, 3]),
        ("after:2019-07-13", [1, 2, 3]),
        ("after:2019-07", [1]),
        ("after:2018", [1, 2, 3, 4, 5]),
        ("before:2019-07-15", [2, 3]),  # July may be later
        ("before:2019-08", [2, 3, 4]),
        ("before:2020", [1, 2, 3, 4, 5]),
        ("-before:2019-07-14 -after:2019-07-14", [2, 3, 4, 5]),  # perhaps on that day
        ("-before:2019-07-15 name:1*", [1]),
        ("before:2019-07-15 in:p", [2, 3]),
        ("on:2019-07 name:4*", [4]),
    ],
)
def test_filters_select_what_is_surely_of_that_time(partly_dated, query, numbers):
    assert allowed_images(partly_dated, parse(query).filters).tolist() == numbers


@pytest.mark.parametrize("query", ["", "in:p", "sort:date", "dog sort:date", "dog in:p sort:date"])
def test_pictures_are_in_order_however_exact_their_dates_are(partly_dated, query):
    hits = answered(partly_dated, query)
    assert [hit.image_id for hit in hits] == [1, 2, 3, 4, 5]
    assert [hit.date_source for hit in hits] == ["DateTime"] * 5
    assert [day_of(hit) for hit in hits][1:] == ["2019-07-14", "2019-07-14", "2019-07", "2019"]


@pytest.mark.parametrize(
    ("query", "known"),
    [
        ("name:2020*", ("2020-01-01", FILE_NAME)),
        ("name:a*", (datetime.fromtimestamp(10**9).isoformat(), FILE_TIME)),
        ("name:*.jpg", ("2019-07-14", FILE_NAME)),
        ("", ("2019-07-14", FILE_NAME)),
    ],
)
def test_files_that_are_selected_give_the_date(library, query, known):
    files = {"a.jpg": 10**9, "20190714.jpg": 2 * 10**9, "20200101.jpg": 10**9}
    [hit] = answered(filled(library, [(None, files)]), query)
    assert (hit.date, hit.date_source) == known
    assert allowed_images(library, parse(f"{query} on:{known[0][:7]}").filters).tolist() == [1]
