"""Words, pictures and both lead to the images that show them."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fovea.search.errors import LibraryError
from fovea.search.index.vector_index import VectorIndex
from fovea.search.query.likelihood import Background
from fovea.search.query.run import search, similar
from toys import COLOURS, TolerantEncoder


@pytest.fixture
def index(colour_library):
    return VectorIndex.open(colour_library, colour_library.model().id)


def stems(hits):
    return [Path(hit.path).stem for hit in hits]


@pytest.mark.parametrize("colour", COLOURS)
def test_a_colours_name_finds_its_photo(colour_library, index, encoder, colour):
    hits = search(colour_library, index, encoder, text=f"something {colour}", k=3)
    assert len(hits) == 3
    # Maroon points where red does: the encoder sees directions.
    assert {stems(hits)[0]} <= ({"red", "maroon"} if colour in ("red", "maroon") else {colour})
    assert hits[0].score == pytest.approx(1, abs=2e-3) and hits[0].score <= 1
    assert [hit.rank for hit in hits] == [1, 2, 3]
    assert hits[0].score >= hits[1].score >= hits[2].score


@pytest.mark.parametrize("colour", ["lime", "blue", "cyan"])
def test_a_picture_finds_its_like(colour_library, index, encoder, colour):
    [hit] = search(colour_library, index, encoder, image=Image.new("RGB", (9, 5), colour), k=1)
    assert stems([hit]) == [colour]
    assert (hit.paths, hit.offline) == ((hit.path,), False)


def test_words_and_a_picture_are_searched_together(colour_library, index, encoder):
    picture = Image.new("RGB", (8, 8), "red")
    hits = search(colour_library, index, encoder, text="lime", image=picture, k=1)
    assert stems(hits) == ["yellow"]
    vector = encoder.encode_texts(["lime"])[0] + encoder.encode_images([picture])[0]
    vector /= np.linalg.norm(vector)
    yellow = encoder.encode_texts(["yellow"])[0]
    assert hits[0].score == pytest.approx(float(vector @ yellow), abs=1e-3)


def test_a_query_of_nothing_is_refused(colour_library, index, encoder):
    with pytest.raises(ValueError, match="for both"):
        search(colour_library, index, encoder)


def test_an_encoder_of_another_model_is_refused(colour_library, index, encoder):
    encoder.name, encoder.identity = "other", "d" * 64
    with pytest.raises(
        LibraryError, match="answers by colour, not by other.*fovea models use other"
    ):
        search(colour_library, index, encoder, text="red")


def test_more_hits_than_images_are_all_of_them(colour_library, index, encoder):
    assert len(search(colour_library, index, encoder, text="red", k=50)) == 8


def test_an_empty_library_has_no_hits(library, encoder):
    model = library.set_model(encoder.name, encoder.identity, 3, "test")
    assert search(library, VectorIndex.open(library, model.id), encoder, text="red") == []


def test_a_query_is_in_the_query_language(colour_library, index, encoder):
    hits = search(colour_library, index, encoder, text="red -name:red", k=8)
    assert len(hits) == 7 and stems(hits)[0] == "maroon"
    [named] = [hit for hit in search(colour_library, index, encoder, text="lime") if hit.by_name]
    assert stems([named]) == ["lime"]


def test_a_query_that_cancels_itself_out_is_refused(colour_library, index, encoder):
    with pytest.raises(LibraryError, match="cancel each other out"):
        search(colour_library, index, encoder, text="-red", image=Image.new("RGB", (8, 8), "red"))


def test_hits_say_how_likely_they_are_once_that_is_known(colour_library, index, encoder, photos):
    def likelihoods():
        by_words = search(colour_library, index, encoder, text="something blue")
        by_file = similar(colour_library, index, encoder, photos / "blue.png")
        return [hit.likelihood for hit in (*by_words, *by_file)]

    assert set(likelihoods()) == {None}
    background = Background.of(encoder.identity, TolerantEncoder())
    background.save(colour_library.folder)
    assert all(0 <= likelihood <= 1 for likelihood in likelihoods())


# Files that come and go


def test_a_missing_file_makes_no_answer_shorter(colour_library, index, encoder, photos):
    gone = [os.fsencode(photos / f"{name}.png") for name in ("red", "maroon", "yellow")]
    colour_library.mark_missing(gone)
    hits = search(colour_library, index, encoder, text="red", k=2)
    assert len(hits) == 2
    assert not {"red", "maroon", "yellow"} & set(stems(hits))
    assert [hit.rank for hit in hits] == [1, 2]
    assert len(search(colour_library, index, encoder, text="red", k=8)) == 5
    colour_library.mark_present(gone)
    assert stems(search(colour_library, index, encoder, text="yellow", k=1)) == ["yellow"]


def test_an_offline_root_stays_in_answers_marked(colour_library, index, encoder):
    colour_library.set_root_state(1, "offline")
    hits = search(colour_library, index, encoder, text="blue", k=8)
    assert len(hits) == 8 and all(hit.offline for hit in hits)


def test_a_new_file_is_found_without_opening_the_index_again(
    colour_library, index, encoder, photos, add_file
):
    Image.new("RGB", (4, 4), "orange").save(photos / "orange.png")
    add_file(colour_library, 1, photos / "orange.png")
    assert stems(search(colour_library, index, encoder, text="orange", k=1)) == ["orange"]


def test_copies_are_one_hit_with_several_paths(colour_library, index, encoder, photos, add_file):
    (photos / "a.png").write_bytes((photos / "blue.png").read_bytes())
    add_file(colour_library, 1, photos / "a.png")
    hits = search(colour_library, index, encoder, text="blue", k=3)
    assert hits[0].paths == (f"{photos}/a.png", f"{photos}/blue.png")
    assert len({hit.image_id for hit in hits}) == 3


# Similar


def test_a_file_of_the_library_is_not_its_own_answer(colour_library, index, encoder, photos):
    encoder.encoded = 0
    hits = similar(colour_library, index, encoder, photos / "blue.png", k=8)
    assert "blue" not in stems(hits) and len(hits) == 7
    assert encoder.encoded == 0  # its stored embedding served


def test_a_copy_elsewhere_is_the_same_picture(colour_library, index, encoder, photos, tmp_path):
    copy = tmp_path / "elsewhere.png"
    copy.write_bytes((photos / "blue.png").read_bytes())
    assert "blue" not in stems(similar(colour_library, index, encoder, copy))


def test_a_file_need_not_be_in_the_library(colour_library, index, encoder, tmp_path):
    Image.new("RGB", (5, 5), (0, 0, 250)).save(tmp_path / "navy.png")
    hits = similar(colour_library, index, encoder, tmp_path / "navy.png", k=1)
    assert stems(hits) == ["blue"]


def test_a_known_image_without_an_embedding_is_encoded(colour_library, index, encoder, photos):
    colour_library.conn.execute("DELETE FROM embeddings WHERE image_id = 2")
    path = Path(os.fsdecode(colour_library.rows("SELECT path FROM files WHERE image_id = 2")[0][0]))
    encoder.encoded = 0
    hits = similar(colour_library, index, encoder, path, k=8)
    assert encoder.encoded == 1 and len(hits) == 7


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("absent.png", None, "cannot read .*absent.png: No such file"),
        ("text.png", b"hello", "text.png is not a picture"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(
    colour_library, index, encoder, tmp_path, name, content, complaint
):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(LibraryError, match=complaint):
        similar(colour_library, index, encoder, tmp_path / name)


def test_a_pipe_is_refused_at_once(colour_library, index, encoder, tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(LibraryError, match="pipe.jpg: it is no file"):
        similar(colour_library, index, encoder, tmp_path / "pipe.jpg")
