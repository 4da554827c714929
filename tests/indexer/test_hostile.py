"""Hostile files and names: the process lives, and every file is accounted for."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from fovea.indexer.decoding.formats import EXTENSIONS, extension, raw_available
from fovea.indexer.decoding.limits import MB, Limits
from fovea.indexer.scanning.scan import index_folders
from fovea.indexer.scanning.verify import verify
from fovea.search.clip.preprocess import Preprocess
from odd import generate
from odd.names import make_names
from places import HOSTILE, ODD
from toys import ColourEncoder

shared = pytest.mark.skipif(not HOSTILE.is_dir(), reason="no ../shared/hostile beside the checkout")
collections = pytest.mark.parametrize(
    ("folder", "least"),
    [pytest.param(ODD, 40, id="odd"), pytest.param(HOSTILE, 200, id="shared", marks=shared)],
)
MODEL = SimpleNamespace(
    name="colour",
    identity="c0" * 32,
    dim=3,
    preprocess=Preprocess(32),
    source="test",
    folder=Path("no"),
)


class CornerEncoder(ColourEncoder):
    """A toy encoder that sees the upper left quarter of a picture, and so how it is turned."""

    def encode_pixels(self, pixels):
        half = pixels.shape[1] // 2
        return super().encode_pixels(pixels[:, :half, :half])


def index(library, folder, encoder=ColourEncoder, **limits):
    """Index a folder, and return its report and path -> account."""
    report = index_folders(
        library, [folder], model=MODEL, load_encoder=encoder, limits=Limits(**limits)
    )
    accounts = verify(library)
    assert accounts.ok, accounts.problems
    return report, {os.fsencode(file.path): file for file in accounts.files}


def pictures(folder):
    """Every path below a folder with a picture's extension that is not a folder."""
    root = os.fsencode(folder)
    return {
        os.path.join(place, name)
        for place, _, names in os.walk(root)
        for name in names
        if extension(name) in EXTENSIONS
    }


def manifest():
    """name -> (outcome, size) of every odd file."""
    lines = generate.MANIFEST.read_text().splitlines()
    return {name: (outcome, size) for name, outcome, size in (line.split("\t") for line in lines)}


def test_the_odd_files_are_those_that_the_script_makes_and_few(tmp_path, monkeypatch):
    committed, expected = {path.name for path in ODD.iterdir()}, manifest()
    monkeypatch.setattr(generate, "FILES", tmp_path / "files")
    monkeypatch.setattr(generate, "MANIFEST", tmp_path / "manifest.tsv")
    generate.main()
    assert committed == set(expected) == {path.name for path in (tmp_path / "files").iterdir()}
    assert manifest() == expected
    assert sum(path.stat().st_size for path in ODD.iterdir()) < 500_000


def test_odd_files_come_out_as_the_manifest_says(library, capfd):
    _, accounts = index(library, ODD, seconds=10)
    query = "SELECT path, width, height FROM files JOIN images ON images.id = image_id"
    sizes = {path: f"{width}x{height}" for path, width, height in library.rows(query)}
    found = {}
    for path, account in accounts.items():
        kind = account.state if account.state != "failed" else account.reason.partition(":")[0]
        found[os.path.basename(path).decode()] = kind, sizes.get(path, "")
    expected = manifest()
    for name in ("noise-as-raw.cr2", "noise-as-raw.nef"):
        assert found[name][0] == ("broken" if raw_available() else "skipped")
        del found[name], expected[name]
    assert found == expected
    assert capfd.readouterr() == ("", "")  # what decoders complain of stays with them


def test_pictures_are_seen_upright(library):
    index(library, ODD, encoder=CornerEncoder, seconds=10)
    query = "SELECT path, vector FROM files JOIN embeddings USING (image_id)"
    vectors = {
        os.path.basename(path).decode(): np.frombuffer(vector, "<f2").astype(float)
        for path, vector in library.rows(query)
    }
    upright = vectors["orientation-1.jpg"]
    for orientation in range(2, 9):
        assert vectors[f"orientation-{orientation}.jpg"] == pytest.approx(upright, abs=0.03)
    assert upright[2] > 0.8  # its upper left corner is blue, and no other


@collections
def test_collected_files_go_through(library, capfd, folder, least):
    report, accounts = index(library, folder, seconds=10)
    assert set(accounts) == pictures(folder)
    assert report.found == len(accounts) and report.problems == ()
    assert all(account.state in ("indexed", "failed") for account in accounts.values())
    assert all(account.reason for account in accounts.values() if account.state == "failed")
    assert report.embedded > least
    assert capfd.readouterr() == ("", "")
    again, _ = index(library, folder)
    assert (again.unchanged, again.embedded, again.failed) == (report.found, 0, 0)


@collections
def test_collected_files_go_through_as_whatever_they_are(library, tmp_path, capfd, folder, least):
    """Most of them have no extension; here all have one, and so all are decoded."""
    sources = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    root = tmp_path / "pictures"
    root.mkdir()
    for number, source in enumerate(sources):
        shutil.copyfile(source, root / f"{number:04d} {source.name[:100]}.jpg")
    report, accounts = index(library, root, seconds=10)
    assert report.found == len(accounts) == len(sources) and report.problems == ()
    assert {account.state for account in accounts.values()} == {"indexed", "failed"}
    reasons = [account.reason for account in accounts.values() if account.state == "failed"]
    kinds = ("broken: ", "too large: ", "too slow: ")
    assert all(reason and reason.startswith(kinds) for reason in reasons)
    assert not any(word in reason for reason in reasons for word in ("argument", ": Assertion"))
    assert capfd.readouterr() == ("", "")


@shared
def test_expensive_files_go_through(library, tmp_path):
    command = [sys.executable, "-W", "ignore", HOSTILE / "gen_synthetic.py", tmp_path / "made"]
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)
    limits = {"pixels": 100_000_000, "decoded": 200 * MB, "memory": 512 * MB}
    report, accounts = index(library, tmp_path / "made", seconds=6, **limits)
    assert set(accounts) == pictures(tmp_path / "made")
    reasons = {
        os.path.basename(path).decode(): account.reason or ""
        for path, account in accounts.items()
        if account.state == "failed"
    }
    assert all(
        reasons[f"jpeg_progressive_{count}_scans.jpg"].startswith("too slow: a JPEG with")
        for count in (100, 1000, 5000)
    )
    for name in ("px_900M_1bit_error_band.png", "px_4G_1bit_header_only.png"):
        assert reasons[name].startswith("too large: ") and "megapixels" in reasons[name]
    for name in ("empty.jpg", "one_byte.png", "html_named.jpg", "svg_named.png", "eps_as.jpg"):
        assert reasons[name].startswith("broken: ")
    harmless = {
        "ztxt_60MB.png", "ztxt_60MB_x5.png", "iccp_60MB.png", "text_100k_chunks.png",
        "gif_100k_frames.gif", "tiff_20k_ifds.tif", "jpeg_named.png", "exif_script_and_junk.jpg",
        "jpeg_plus_html.jpg", "png_text_script.png", "strip_65500x1.png", "strip_1x65500.png",
    }  # fmt: skip
    assert not harmless & set(reasons)
    cameras = library.rows("SELECT camera FROM images WHERE camera IS NOT NULL")
    assert all(camera.isprintable() and len(camera) <= 100 for (camera,) in cameras)


def test_hostile_names_and_objects_go_through(library, tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    expected = make_names(tree)
    report, accounts = index(library, tree)
    assert set(accounts) == pictures(tree)
    assert report.problems == ()
    root = os.fsencode(tree) + b"/"
    for name, outcome in expected.items():
        account = accounts.get(root + name)
        # what is not a picture by its name is not even listed
        assert (account.state if account else "skipped") == outcome, name
    sparse = accounts[root + b"sparse.jpg"]
    assert sparse.reason == "too large: the file has 8,192 MB; the limit is 512 MB"
    assert accounts[root + b"fifo.jpg"].reason == "not a file but a named pipe"
