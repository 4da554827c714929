"""Pictures that somebody searches by are decoded in a process of their own, within limits."""

import os

import numpy as np
import pytest
from PIL import Image

from fovea.indexer.decoding.limits import Limits
from fovea.indexer.workers.query_image import Asked
from fovea.search.clip.preprocess import Preprocess
from fovea.search.errors import LibraryError


@pytest.fixture(scope="module")
def asked():
    with Asked(Preprocess(16), Limits(pixels=10_000, seconds=20.0)) as started:
        yield started


def test_pixels_are_those_that_the_model_takes(asked, tmp_path):
    Image.effect_noise((40, 30), 80).convert("RGB").save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert np.array_equal(asked.pixels(tmp_path / "a.png"), Preprocess(16).pixels(image))


def test_pixels_stay_as_they_are_when_others_follow(asked, tmp_path):
    colours = ("red", "lime", "blue", "white") * 3
    for number, colour in enumerate(colours):
        Image.new("RGB", (8, 8), colour).save(tmp_path / f"{number}.png")
    found = [asked.pixels(tmp_path / f"{number}.png") for number in range(len(colours))]
    assert [tuple(pixels[0, 0]) for pixels in found[:3]] == [
        (255, 0, 0),
        (0, 255, 0),
        (0, 0, 255),
    ]


def test_links_are_followed(asked, tmp_path):
    Image.new("RGB", (8, 8), "red").save(tmp_path / "a.png")
    (tmp_path / "link.png").symlink_to("a.png")
    assert (asked.pixels(tmp_path / "link.png") == (255, 0, 0)).all()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("absent.jpg", "no such file"),
        ("empty.jpg", "broken: the file is empty"),
        ("folder.jpg", "not a file: a folder"),
        ("large.png", "too large: 200 x 200 pixels"),
        ("pipe.jpg", "not a file: a named pipe"),
    ],
)
def test_what_cannot_be_decoded_is_named_with_its_reason(asked, tmp_path, name, reason):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "folder.jpg").mkdir()
    Image.new("L", (200, 200)).save(tmp_path / "large.png")
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(LibraryError) as caught:
        asked.pixels(tmp_path / name)
    assert str(caught.value).startswith(f"cannot read {tmp_path / name}: {reason}")
