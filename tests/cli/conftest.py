"""Fixtures of these tests."""

import os
import shutil
import sys

import pytest

from coloured import COLOURS, encoded
from commands import ODD, run, settle
from small_clips import write_model


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    """A folder with a model, pictures of one colour each, and a library of them."""
    folder = tmp_path_factory.mktemp("home")
    write_model(folder / "model")
    write_model(folder / "other", seed=1)
    photos = folder / "photos"
    photos.mkdir()
    for number, colour in enumerate(COLOURS):
        (photos / f"{colour}.png").write_bytes(encoded(colour, number))
    if sys.platform != "darwin":
        shutil.copyfile(photos / "red.png", os.path.join(os.fsencode(photos), ODD))
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    with pytest.MonkeyPatch.context() as patch:
        settle(patch, folder)
        first = run(
            "index", photos, "--model", folder / "model", "--workers", 1, "--dtype", "float32",
            "--json",
        )  # fmt: skip
    assert first.code == 0, first.err
    (folder / "first.json").write_text(first.out)
    return folder


@pytest.fixture
def used(home, monkeypatch):
    """The library of ``home``, to be read."""
    settle(monkeypatch, home)
    return home


@pytest.fixture
def own(home, tmp_path, monkeypatch):
    """A copy of ``home``, to be changed; its library still covers the photos of ``home``."""
    settle(monkeypatch, home)
    monkeypatch.setenv("FOVEA_LIBRARY", str(tmp_path / "library"))
    shutil.copytree(home / "library", tmp_path / "library")
    return home
