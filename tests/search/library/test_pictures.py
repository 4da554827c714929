"""A picture to search with is opened, or the reason is told."""

import os
import socket

import pytest
from PIL import Image

from fovea.search.errors import LibraryError
from fovea.search.library.pictures import file_bytes, open_image, shown
from toys import ColourPreprocess


@pytest.mark.parametrize("kind", ["png", "jpg", "webp", "gif", "tif", "bmp", "avif", "heic"])
def test_pictures_of_the_usual_formats_open(tmp_path, kind):
    if kind == "heic":
        pytest.importorskip("pillow_heif").register_heif_opener()
    Image.new("RGB", (40, 30), "red").save(tmp_path / f"a.{kind}")
    with open_image(tmp_path / f"a.{kind}") as image:
        assert image.size == (40, 30)


def test_a_jpeg_is_decoded_no_larger_than_needed(tmp_path):
    Image.new("RGB", (800, 600), "red").save(tmp_path / "a.jpg")
    with open_image(tmp_path / "a.jpg", ColourPreprocess(size=64)) as image:
        assert image.size == (100, 75)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "not a picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture"),  # runs Ghostscript
        (b"\xff\xd8\xff\xe0\0\x10JFIF", "a.jpg"),
    ],
)
def test_what_is_no_picture_is_refused_in_one_line(tmp_path, content, complaint):
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(LibraryError, match=complaint) as caught:
        open_image(tmp_path / "a.jpg")
    assert "\n" not in str(caught.value)


def test_a_truncated_picture_is_refused(tmp_path):
    Image.effect_noise((200, 200), 80).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(LibraryError, match="cannot read"):
        open_image(tmp_path / "a.png")


@pytest.mark.parametrize("name", ["absent.png", ".", "pipe.jpg", "socket.jpg", "endless.jpg"])
def test_a_path_that_cannot_be_opened_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)  # a socket's name is short
    os.mkfifo("pipe.jpg")
    os.symlink("/dev/zero", "endless.jpg")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket.jpg")
        for read in (open_image, file_bytes):
            with pytest.raises(LibraryError, match=f"cannot read .*{name}") as caught:
                read(tmp_path / name)
            assert "\n" not in str(caught.value)


def test_a_file_of_an_absurd_size_is_not_read(tmp_path):
    with (tmp_path / "a.jpg").open("wb") as file:
        file.truncate(8 << 30)  # nothing of it is on the disk
    with pytest.raises(LibraryError, match="a.jpg: it has more than 512 MB"):
        open_image(tmp_path / "a.jpg")


def test_a_link_to_a_picture_opens(tmp_path):
    Image.new("RGB", (4, 3), "red").save(tmp_path / "a.png")
    (tmp_path / "link.png").symlink_to("a.png")
    open_image(tmp_path / "link.png").close()


def test_a_picture_with_an_absurd_number_of_pixels_is_refused(tmp_path, monkeypatch):
    Image.new("L", (100, 100)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4000)
    with pytest.raises(LibraryError, match="exceeds limit"):
        open_image(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 6000)  # Pillow would warn
    open_image(tmp_path / "a.png").close()


def test_a_name_is_shown_as_one_printable_line():
    assert shown("/a b/é.png") == "/a b/é.png"
    assert shown("a\nb\x1b[31m") == "a\\nb\\x1b[31m"
    assert shown(os.fsdecode(b"caf\xe9")) == "caf\\xe9"
