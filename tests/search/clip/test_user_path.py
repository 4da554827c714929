import os
import socket

import pytest

from fovea.search.clip.errors import FoveaError
from fovea.search.clip.user_path import read_path, typed_path

HOME = os.path.expanduser("~")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("/photos", "/photos"),
        ("  /photos \n", "/photos"),
        ("/photos\r\n", "/photos"),
        ("\u202a/photos\u202c", "/photos"),  # as copied from a dialog
        ('"/my photos"', "/my photos"),
        (" '/my photos' ", "/my photos"),
        ("“/my photos”", "/my photos"),
        ("「/照片」", "/照片"),
        ('" /photos "', "/photos"),
        ('/"quoted" name', '/"quoted" name'),
        ('"', '"'),
        ("file:///my%20photos", "/my photos"),
        ("FILE://localhost/photos", "/photos"),
        (f"file://{socket.gethostname()}/photos", "/photos"),
        ("file:/photos", "/photos"),
        ('"file:///photos"\n', "/photos"),
        ("file:///a%23b?c#d", "/a#b?c#d"),
        ("file:///caf%E9", os.fsdecode(b"/caf\xe9")),
        ("file:///%7E", "/~"),
        ("~", HOME),
        ("~/Pictures", f"{HOME}/Pictures"),
        ("'~/Pictures'", f"{HOME}/Pictures"),
        ("file:relative", "file:relative"),
        ("https://example.org/photos", "https://example.org/photos"),
    ],
)
def test_a_path_is_read_as_it_is_meant(typed, meant):
    assert read_path(typed) == meant
    assert typed_path(typed) == meant


@pytest.mark.parametrize("typed", ["", " \n", '""', "file:///a%00b", "/a\0b", "~nobody-here/x"])
def test_what_names_nothing_is_an_error(typed):
    with pytest.raises(FoveaError):
        typed_path(typed)


def test_the_address_of_another_computer_is_told_apart():
    with pytest.raises(FoveaError, match="nas is another computer"):
        read_path("file://nas/photos")


@pytest.mark.parametrize("name", ["trailing ", '"quoted"', "file:", " x", "~"])
def test_a_name_that_exists_as_it_stands_is_left_so(tmp_path, monkeypatch, name):
    (tmp_path / name).mkdir()
    assert typed_path(f"{tmp_path}/{name}") == f"{tmp_path}/{name}"
    monkeypatch.chdir(tmp_path)
    assert os.path.abspath(typed_path(name)) == f"{tmp_path}/{name}"
