import io

import numpy as np
import pytest
from PIL import Image

from fovea.indexer.workers.decode_pool import Crowded
from fovea.web.contract.problems import Problem
from fovea.web.views.uploads import embed_pictures
from places import hostile_files


@pytest.fixture
def embed(app):
    """Embed pictures as a request would."""

    def embedded(*files):
        with app.test_request_context():
            return embed_pictures(app.extensions["fovea"], files)

    return embedded


def picture(colour, kind="PNG", size=(40, 30)):
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG2000", "GIF"])
def test_pictures_of_all_kinds_become_unit_vectors_in_their_order(embed, kind):
    red, blue = embed(picture("red", kind), picture("blue", kind))
    assert red.dtype == np.float32 and np.linalg.norm(red) == pytest.approx(1, abs=1e-5)
    assert (red.argmax(), blue.argmax()) == (0, 2)


def test_no_picture_is_no_vector(embed):
    assert embed() == []


@pytest.mark.parametrize("data", [b"", b"<svg onload=alert(1)>", b"\xff\xd8\xff", b"GIF89a"])
def test_what_is_no_picture_is_named_by_its_place(embed, data):
    with pytest.raises(Problem, match="picture 2: ") as caught:
        embed(picture("red"), data)
    assert caught.value.status == 422
    assert (caught.value.code, caught.value.params) == ("picture", {"number": 2})


def test_hostile_pictures_are_embedded_or_refused_and_others_go_on(embed):
    taken = refused = 0
    for path in hostile_files(every=20):
        try:
            [vector] = embed(path.read_bytes())
        except Problem as exc:
            refused += 1
            assert exc.status == 422 and "\n" not in exc.detail
        else:
            taken += 1
            assert np.isfinite(vector).all()
    assert taken and refused
    assert len(embed(picture("red"))) == 1


def test_nothing_of_it_is_written(embed, app, tmp_path):
    before = {path for path in tmp_path.rglob("*")}
    embed(picture("red"), picture("blue", "TIFF"))
    new = {path for path in tmp_path.rglob("*")} - before
    assert not [path for path in new if not path.name.startswith("library.db")]


def test_where_too_many_wait_it_is_a_503(embed, app, monkeypatch):
    def busy(*asked):
        raise Crowded("too many pictures wait")

    monkeypatch.setattr(app.extensions["fovea.renderer"], "pixels", busy)
    with pytest.raises(Problem) as caught:
        embed(picture("red"))
    assert caught.value.status == 503 and caught.value.headers["Retry-After"]
