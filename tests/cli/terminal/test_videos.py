"""Videos in the terminal: a path and a time, what the extra is for, and queries by a moment."""

import json
import os

import pytest
from click.testing import CliRunner

from films.drawn import film, needs_av
from fovea.cli import cli
from fovea.cli.terminal.thumbnails import Thumbnails
from fovea.indexer.scanning import changes
from fovea.search.clip.errors import FoveaError
from fovea.search.library.library import Library
from fovea.web.views.thumbnails import ThumbnailCache


@pytest.fixture
def folder(tmp_path):
    """A library's folder, and one with a video and a picture."""
    from PIL import Image

    films = tmp_path / "films"
    films.mkdir()
    Image.new("RGB", (64, 48), "blue").save(films / "b.png")
    return films


def fovea(tmp_path, *words):
    """Run a command on the library; return its output, and what it says beside it."""
    place = {"FOVEA_LIBRARY": str(tmp_path / "library"), "FOVEA_OFFLINE": "1"}
    done = CliRunner().invoke(cli, words, env=os.environ | place)
    assert done.exit_code == 0, done.output
    return done.stdout, done.stderr


def test_without_the_extra_one_line_says_how_many_and_how_to_get_it(tmp_path, folder, monkeypatch):
    (folder / "a.mp4").write_bytes(b"not looked at")
    (folder / "c.mov").write_bytes(b"not looked at either")
    monkeypatch.setattr(changes, "video_available", lambda: False)
    shown, said = fovea(tmp_path, "index", str(folder), "--model", "fovea-small")
    lines = [line for line in said.splitlines() if "video" in line]
    assert lines == ["fovea: 2 videos passed over; to search in them: pip install 'fovea[video]'"]
    assert "2 skipped" in shown
    status, _ = fovea(tmp_path, "status")
    assert "videos\t0 with 0 moments; 2 wait for pip install 'fovea[video]'" in status


@needs_av
def test_hits_have_their_time(tmp_path, folder):
    film(folder / "a.mp4", [("red", 3), ("blue", 3)])
    fovea(tmp_path, "index", str(folder), "--model", "fovea-small")
    shown, _ = fovea(tmp_path, "similar", str(folder / "b.png"), "-k", "1")
    score, path, time = shown.rstrip("\n").split("\t")
    assert path == str(folder / "a.mp4") and time == "0:03"
    paths, _ = fovea(tmp_path, "similar", str(folder / "b.png"), "--paths")
    assert paths == f"{folder / 'a.mp4'}\n"
    document, _ = fovea(tmp_path, "search", "is:video longer:5s", "--json")
    [hit] = json.loads(document)["hits"]
    assert "time" not in hit and hit["duration"] == pytest.approx(6, abs=0.2)
    document, _ = fovea(tmp_path, "similar", str(folder / "a.mp4"), "--at", "0:05", "--json")
    assert json.loads(document)["hits"][0]["path"] == str(folder / "b.png")
    status, _ = fovea(tmp_path, "status", "--json")
    counts = {"videos": 1, "moments": 2, "waiting": 0, "missing": None}
    assert json.loads(status)["videos"] == counts


@needs_av
def test_a_terminal_shows_the_poster_and_only_of_what_was_indexed(tmp_path, folder, monkeypatch):
    film(folder / "a.mp4", [("red", 2), ("blue", 4)])
    fovea(tmp_path, "index", str(folder), "--model", "fovea-small")
    monkeypatch.setattr(ThumbnailCache, "_keep", lambda *values: None)  # each is made anew
    with Library.open(tmp_path / "library") as library:
        sql = "SELECT id, hash FROM images WHERE poster_ms IS NOT NULL"
        [(number, content)] = library.rows(sql)
        with library.transaction() as conn:
            conn.execute("UPDATE images SET poster_ms = 3000 WHERE id = ?", (number,))
        thumbnails, paths = Thumbnails(library), [str(folder / "a.mp4")]
        try:
            for time, colour in ((None, "blue"), (0.0, "red")):
                shown = thumbnails.get(content, paths, time)
                red, _, blue = shown.getpixel((shown.width // 2, shown.height // 2))
                assert ("red" if red > blue else "blue") == colour
            film(folder / "a.mp4", [("lime", 3)])
            with pytest.raises(FoveaError, match="has changed since"):
                thumbnails.get(content, paths)
        finally:
            thumbnails.close()


def test_a_time_that_is_none_is_said(tmp_path, folder):
    done = CliRunner().invoke(cli, ["similar", str(folder / "b.png"), "--at", "noon"])
    assert done.exit_code == 2 and "'noon' is not a time; write it as 83, 1:23" in done.output
