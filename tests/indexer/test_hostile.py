"""Hostile files and names: the process lives, and every file is accounted for."""

import os
import shutil
import stat
import subprocess
import sys
from types import SimpleNamespace

import pytest

from fovea.indexer.decoding.formats import EXTENSIONS, extension
from fovea.indexer.decoding.limits import MB, Limits
from fovea.indexer.scanning.scan import index_folders
from fovea.indexer.scanning.verify import verify
from fovea.search.clip.preprocess import Preprocess
from places import HOSTILE
from toys import ColourEncoder

pytestmark = pytest.mark.skipif(
    not (HOSTILE / "manifest.tsv").is_file(), reason="no ../shared/hostile beside the checkout"
)
MODEL = SimpleNamespace(
    name="colour", identity="c0" * 32, dim=3, preprocess=Preprocess(32), source="test"
)


def index(library, folder, **limits):
    """Index a folder, and return its report and path -> account."""
    report = index_folders(
        library, [folder], model=MODEL, load_encoder=ColourEncoder, limits=Limits(**limits)
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


def generated(script, folder):
    """Run one of the scripts that make hostile things; return what it prints."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", HOSTILE / script, folder],
        capture_output=True, text=True, check=True, cwd=folder.parent,
    )  # fmt: skip
    return done.stdout


def test_collected_files_go_through(library, capfd):
    report, accounts = index(library, HOSTILE, seconds=10)
    assert set(accounts) == pictures(HOSTILE)
    assert report.found == len(accounts) and report.problems == ()
    assert all(account.state in ("indexed", "failed") for account in accounts.values())
    assert all(account.reason for account in accounts.values() if account.state == "failed")
    assert report.embedded > 200
    assert capfd.readouterr() == ("", "")  # what decoders complain of stays with them
    again, _ = index(library, HOSTILE)
    assert (again.unchanged, again.embedded, again.failed) == (report.found, 0, 0)


def test_collected_files_go_through_as_whatever_they_are(library, tmp_path, capfd):
    """Most of them have no extension; here all have one, and so all are decoded."""
    sources = [path for path in HOSTILE.rglob("*") if path.is_file() and not path.is_symlink()]
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


def test_expensive_files_go_through(library, tmp_path):
    generated("gen_synthetic.py", tmp_path / "made")
    limits = {"pixels": 100_000_000, "decoded": 200 * MB, "memory": 512 * MB}
    report, accounts = index(library, tmp_path / "made", seconds=6, **limits)
    assert set(accounts) == pictures(tmp_path / "made")
    reasons = {
        os.path.basename(path).decode(): account.reason or ""
        for path, account in accounts.items()
        if account.state == "failed"
    }
    assert all(
        reasons[f"jpeg_progressive_{count}_scans.jpg"].startswith("too slow: a JPEG of")
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
    lines = generated("make_tree.py", tree).splitlines()
    expected = {bytes.fromhex(line.split("\t")[0]): line.split("\t")[1] for line in lines}
    report, accounts = index(library, tree)
    assert set(accounts) == pictures(tree)
    assert report.problems == ()
    root = os.fsencode(tree) + b"/"
    for name, expectation in expected.items():
        account = accounts.get(root + name)
        if expectation == "indexed":
            assert account.state == "indexed", name
        elif expectation.startswith("skip"):
            assert account is None or account.state == "skipped", name
    sparse = accounts[root + b"sparse 8G.jpg"]
    assert sparse.reason == "too large: the file has 8,192 MB; the limit is 512 MB"
    assert accounts[root + b"fifo.jpg"].reason == "not a file: a named pipe"
    assert accounts[root + b"hardlink.jpg"].state == "indexed"
    for place, folders, _ in os.walk(tree):  # so that pytest can clear them away
        for name in folders:
            os.chmod(os.path.join(place, name), stat.S_IRWXU)
