"""Pictures that a query names are decoded in a process of their own, within limits."""

import hashlib
import os
import socket

import numpy as np
import pytest
from PIL import Image

from fovea.indexer.decoding.limits import Limits
from fovea.indexer.workers.query_image import QueryImageDecoder, content_hash
from fovea.search.clip.preprocess import Preprocess
from fovea.search.errors import LibraryError


@pytest.fixture(scope="module")
def decoder():
    with QueryImageDecoder(Preprocess(16), Limits(pixels=10_000, seconds=20.0)) as started:
        yield started


def test_pixels_are_those_that_the_model_takes(decoder, tmp_path):
    Image.effect_noise((40, 30), 80).convert("RGB").save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert np.array_equal(decoder.pixels(tmp_path / "a.png"), Preprocess(16).pixels(image))


def test_pixels_stay_as_they_are_when_others_follow(decoder, tmp_path):
    colours = ("red", "lime", "blue", "white") * 3
    for number, colour in enumerate(colours):
        Image.new("RGB", (8, 8), colour).save(tmp_path / f"{number}.png")
    found = [decoder.pixels(tmp_path / f"{number}.png") for number in range(len(colours))]
    assert [tuple(pixels[0, 0]) for pixels in found[:3]] == [
        (255, 0, 0),
        (0, 255, 0),
        (0, 0, 255),
    ]


def test_links_are_followed(decoder, tmp_path):
    Image.new("RGB", (8, 8), "red").save(tmp_path / "a.png")
    (tmp_path / "link.png").symlink_to("a.png")
    assert (decoder.pixels(tmp_path / "link.png") == (255, 0, 0)).all()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("absent.jpg", "No such file or directory"),
        ("empty.jpg", "broken: the file is empty"),
        ("folder.jpg", "not a file but a folder"),
        ("large.png", "too large: 200 x 200 pixels"),
        ("pipe.jpg", "not a file but a named pipe"),
    ],
)
def test_what_cannot_be_decoded_is_named_with_its_reason(decoder, tmp_path, name, reason):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "folder.jpg").mkdir()
    Image.new("L", (200, 200)).save(tmp_path / "large.png")
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(LibraryError) as caught:
        decoder.pixels(tmp_path / name)
    assert str(caught.value).startswith(f"cannot read {tmp_path / name}: {reason}")


def test_a_content_is_known_by_its_hash(tmp_path):
    (tmp_path / "a.png").write_bytes(b"content")
    (tmp_path / "link.png").symlink_to("a.png")
    for name in ("a.png", "link.png"):
        assert content_hash(tmp_path / name) == hashlib.sha256(b"content").digest()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("absent.png", "No such file or directory"),
        (".", "not a file but a folder"),
        ("pipe.jpg", "not a file but a named pipe"),
        ("socket.jpg", "not a file but a socket"),
        ("endless.jpg", "not a file but a device"),
        ("huge.jpg", "too large: the file has 8,192 MB; the limit is 512 MB"),
        ("a\nb.jpg", "No such file or directory"),
    ],
)
def test_what_is_not_a_file_to_read_is_named_with_its_reason(tmp_path, monkeypatch, name, reason):
    monkeypatch.chdir(tmp_path)  # a socket's name is short
    os.mkfifo("pipe.jpg")
    os.symlink("/dev/zero", "endless.jpg")
    with open("huge.jpg", "wb") as file:
        file.truncate(8 << 30)  # nothing of it is on the disk
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket.jpg")
        with pytest.raises(LibraryError) as caught:
            content_hash(name)
    shown = name.replace("\n", "\\n")
    assert str(caught.value) == f"cannot read {shown}: {reason}"
