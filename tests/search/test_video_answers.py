"""Videos in answers: one hit each, with its time; filters about them; moments to search by."""

import numpy as np
import pytest

from fovea.search.errors import QueryError, Unanswerable
from fovea.search.index.vector_index import VectorIndex
from fovea.search.library.facts.moments import clock, read_length, read_time
from fovea.search.library.rows import FileWrite, ImageMetadata, Moments, NewImage, WriteBatch
from fovea.search.query.choosing import chosen
from fovea.search.query.columns import read_columns
from fovea.search.query.filters import allowed_images
from fovea.search.query.language import Query, Term, parse
from fovea.search.query.likelihood import Background, likelihoods
from fovea.search.query.rank import rank
from fovea.search.query.run import Question, Searcher
from toys import TolerantEncoder

LENGTHS = {"short": 5_000, "long": 90_000}


@pytest.fixture
def encoder():
    return TolerantEncoder()


@pytest.fixture
def films(colour_library, encoder):
    """The eight pictures and two videos: red, then lime at 2 s; lime, then blue at 40 s."""
    library, [root] = colour_library, colour_library.roots()
    images, files = [], []
    for number, (name, colours, times) in enumerate(
        (("short", ("red", "lime"), (0, 2_000)), ("long", ("lime", "blue"), (0, 40_000)))
    ):
        vectors = encoder.encode_texts(colours)
        digest = bytes([number + 1]) * 32
        metadata = ImageMetadata(64, 48, "MP4", duration_ms=LENGTHS[name], poster_ms=0)
        moments = Moments(np.array(times), vectors)
        images.append(NewImage(digest, 1000, metadata, vectors[0], moments=moments))
        path = root.path + f"/{name}.mp4".encode()
        files.append(FileWrite(path, root.id, 1000, 10**18, digest))
    library.write_batch(WriteBatch(images, files))
    return library


@pytest.fixture
def searcher(films, encoder):
    return Searcher(films, VectorIndex.open(films, films.model().id), encoder, None)


def names(answer):
    return [hit.path.rpartition("/")[2].partition(".")[0] for hit in answer.hits]


def number(library, name):
    rows = library.rows("SELECT path, image_id FROM files")
    return next(
        key for path, key in rows if path.rpartition(b"/")[2].startswith(f"{name}.".encode())
    )


@pytest.mark.parametrize(
    ("words", "first", "time"),
    [("red", {"red", "maroon", "short"}, 0.0), ("lime", {"lime", "short", "long"}, 2.0)],
)
def test_a_video_is_one_hit_at_its_best_moment(searcher, words, first, time):
    answer = searcher.answer(Question.of(words), 20)
    assert len(answer.hits) == 10 and set(names(answer)[: len(first)]) == first
    short = next(hit for hit in answer.hits if hit.path.endswith("short.mp4"))
    assert (short.time, short.duration) == (time, 5.0)
    assert short.score == pytest.approx(1, abs=1e-2)
    picture = next(hit for hit in answer.hits if hit.path.endswith("red.png"))
    assert (picture.time, picture.duration) == (None, None)


def test_a_moment_late_in_a_video_is_found(searcher):
    answer = searcher.answer(Question.of("blue"), 2)
    assert set(names(answer)) == {"blue", "long"}
    assert {hit.time for hit in answer.hits} == {None, 40.0}


def test_browsing_has_lengths_and_no_times(searcher):
    hits = searcher.answer(Question.of("is:video"), 20).hits
    assert {(hit.duration, hit.time) for hit in hits} == {(5.0, None), (90.0, None)}


def test_the_time_is_there_in_every_order_and_page(searcher):
    for query in ("lime sort:name", "lime sort:date"):
        found = {hit.path[-9:]: hit.time for hit in searcher.answer(Question.of(query), 20).hits}
        assert found["short.mp4"] == 2.0 and found["/long.mp4"] == 0.0
    whole = searcher.listing(Question.of("lime"))
    assert len(searcher.hits(whole, 3, 5)) == 2


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("is:video", {"short", "long"}),
        ("longer:1m", {"long"}),
        ("longer:5s", {"long"}),
        ("longer:4.9s", {"short", "long"}),
        ("longer:2h", set()),
        ("is:video -longer:0:30", {"short"}),
        ("format:mp4 IS:Video", {"short", "long"}),
    ],
)
def test_filters_select_videos(films, query, expected):
    def stems(ids):
        rows = films.rows("SELECT image_id, path FROM files")
        known = {image_id: path.rpartition(b"/")[2].decode() for image_id, path in rows}
        return {known[image_id].partition(".")[0] for image_id in ids.tolist()}

    filters = parse(query).filters
    assert stems(allowed_images(films, filters)) == expected
    by_columns = chosen(films, read_columns(films), filters)
    assert by_columns is not None and stems(by_columns.ids) == expected


def test_a_picture_is_no_video_and_not_longer(films):
    for query in ("-is:video", "-longer:1s -is:video"):
        assert len(allowed_images(films, parse(query).filters)) == 8


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("longer:60", "longer:1m"),
        ("longer:1:30", "longer:1m30s"),
        ("longer:90s", "longer:1m30s"),
        ("longer:1h", "longer:1h"),
        ("longer:0", "longer:0s"),
        ("longer:1.5s", "longer:1.5s"),
        ("like:12@1:23", "like:12@1:23"),
        ("like:12@83.48", "like:12@1:23.48"),
        ("-2:like:12@1h", "-2:like:12@1:00:00"),
        ("is:movie", "is:video"),
    ],
)
def test_times_are_written_in_one_way(text, written):
    assert str(parse(text)) == written and parse(written) == parse(text)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("longer:long", "query.seconds"),
        ("longer:-5", "query.seconds"),
        ("longer:1:99", "query.seconds"),
        ("like:12@", "query.moment"),
        ("like:12@noon", "query.moment"),
        ("like:@1:00", "query.image"),
    ],
)
def test_what_is_no_time_is_said(text, code):
    with pytest.raises(QueryError) as raised:
        parse(text)
    assert raised.value.code == code


def test_a_moment_is_what_a_query_is_near(searcher, films):
    film = number(films, "long")
    answer = searcher.answer(Question.of(f"like:{film}@0:41"), 2)
    assert set(names(answer)) == {"blue", "long"}
    answer = searcher.answer(Question.of(f"like:{film}@0:39"), 3)
    assert set(names(answer)) == {"lime", "short", "long"}
    beside = searcher.answer(Question.like(film, 41_000), 1)
    assert names(beside) == ["blue"]
    assert Question.like(3, 500).query == Query((Term("like", 3, 1.0, 500),))


def test_a_picture_has_no_moments_to_be_near_to(searcher, films):
    picture = number(films, "red")
    with pytest.raises(Unanswerable, match="is not a video") as raised:
        searcher.answer(Question.of(f"like:{picture}@1:00"))
    assert raised.value.code == "query.no_video"


def test_a_video_is_judged_by_the_moment_that_it_is_shown_by(films, encoder):
    """The likelihood of a late moment is that of a picture that looks the same."""
    from fovea.search.query.measured import Measured, Signs, Worth

    words = Signs((5.0, 1.0, 1.0), -5.0, 0.1, Worth(0.9, 0.5, 400))
    signs = Measured(encoder.identity, (0.0,) * 3, words, words, None)
    labels = encoder.encode_texts(["red", "lime", "blue", "grey"])
    background = Background(encoder.identity, labels, 100.0, signs)
    index = VectorIndex.open(films, films.model().id)
    ranking = rank(films, index, encoder, parse("blue"))
    chances = likelihoods(films, index, background, ranking)
    found = dict(zip(ranking.ids.tolist(), chances.tolist(), strict=True))
    film, picture = number(films, "long"), number(films, "blue")
    assert found[film] == pytest.approx(found[picture], abs=0.02)


def test_times_are_read_and_written():
    assert [read_time(text) for text in ("83", "1:23", "1:02:03", "1m23s", "2h", "1.5s", "0")] == [
        83_000, 83_000, 3_723_000, 83_000, 7_200_000, 1_500, 0,
    ]  # fmt: skip
    for text in ("", "x", "1:60", "1::2", "-1", "1:2:3:4", "1e3", "٣", "9" * 30):
        assert read_time(text) is None and read_length(text) is None
    assert [clock(ms) for ms in (0, 999, 83_480, 3_723_000)] == ["0:00", "0:00", "1:23", "1:02:03"]
    assert clock(83_480, exact=True) == "1:23.48" and clock(83_000, exact=True) == "1:23"
