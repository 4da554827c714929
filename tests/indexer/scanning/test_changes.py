"""Whatever happens to files between two scans, the library then says what is on the disk."""

import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import fovea.indexer.scanning.pipeline
from fovea.indexer.scanning.scan import index_folders
from fovea.indexer.scanning.verify import verify
from fovea.search.clip.preprocess import Preprocess
from fovea.search.library.library import Library
from scanner import OneProcess
from toys import ColourEncoder

MODEL = SimpleNamespace(
    name="colour",
    identity="c0" * 32,
    dim=3,
    preprocess=Preprocess(4),
    source="test",
    folder=Path("no"),
)
NAMES = ("a.bmp", "b.bmp", "x/a.bmp", "x/y/c.bmp", "X/a.bmp", "z.bmp")
COLOURS = ("red", "lime", "blue", None)  # None is no picture; all have the same size

step = st.one_of(
    st.tuples(st.just("write"), st.sampled_from(NAMES), st.sampled_from(COLOURS)),
    st.tuples(st.just("move"), st.sampled_from(NAMES), st.sampled_from(NAMES)),
    st.tuples(st.just("copy"), st.sampled_from(NAMES), st.sampled_from(NAMES)),
    st.tuples(st.just("delete"), st.sampled_from(NAMES), st.none()),
    st.tuples(st.just("touch"), st.sampled_from(NAMES), st.none()),
    st.tuples(st.just("scan"), st.sampled_from((1, 3)), st.none()),
)


def apply(root, verb, first, second):
    """Do one thing to a file; nothing where it is not there."""
    path = root / str(first)
    if verb == "write":
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), second or "red").save(path)
        if second is None:
            path.write_bytes(b"?" * path.stat().st_size)
    elif not path.is_file():
        return
    elif verb in ("move", "copy"):
        (root / second).parent.mkdir(parents=True, exist_ok=True)
        if first != second:
            {"move": os.replace, "copy": shutil.copy2}[verb](path, root / second)
    elif verb == "delete":
        path.unlink()
    elif verb == "touch":
        os.utime(path)


def scan(library, root, encoder, batch_size=2, **options):
    return index_folders(
        library,
        [root],
        model=MODEL,
        load_encoder=lambda: encoder,
        workers=1,
        batch_size=batch_size,
        confirm_deletions=True,
        **options,
    )


def check(library, root, report):
    """Compare every row with the disk, and the counts with each other."""
    on_disk = {os.fsencode(path): path.read_bytes() for path in root.rglob("*.bmp")}
    rows = library.rows(
        "SELECT path, state, hash FROM files LEFT JOIN images ON images.id = image_id"
    )
    found = {path: (state, hash) for path, state, hash in rows if state != "missing"}
    assert found == {
        path: ("indexed", hashlib.sha256(content).digest())
        if content.startswith(b"BM")
        else ("failed", None)
        for path, content in on_disk.items()
    }
    assert report.found == len(on_disk)
    assert report.found == sum(
        (report.embedded, report.unchanged, report.moved, report.failed, report.skipped)
    )
    assert verify(library).ok


@pytest.fixture(scope="module", autouse=True)
def one_process():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fovea.indexer.scanning.pipeline, "Pool", OneProcess)
        yield


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(step, max_size=24))
def test_a_scan_always_ends_with_what_is_on_the_disk(steps):
    with tempfile.TemporaryDirectory() as place:
        root, encoder = Path(place).resolve() / "photos", ColourEncoder()
        root.mkdir()
        (root / "notes.txt").touch()  # an empty root would be offline
        with Library.open(Path(place) / "library", create=True) as library:
            for verb, first, second in steps:
                if verb == "scan":
                    check(library, root, scan(library, root, encoder, batch_size=first))
                else:
                    apply(root, verb, first, second)
            told = scan(library, root, encoder, dry_run=True)
            report = scan(library, root, encoder)
            check(library, root, report)
            assert (told.found, told.deleted) == (report.found, report.deleted)
            again = scan(library, root, encoder)
            check(library, root, again)
            # What failed a moment after it was written may have changed since: it is read again.
            assert again.unchanged + again.failed == again.found and not again.deleted


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_file_replaced_around_its_reading_is_remembered_as_it_was_read(
    library, photos, encoder, monkeypatch, when
):
    def replace():
        Image.new("RGB", (9, 9), "pink").save(photos / "new.png")
        os.replace(photos / "new.png", photos / "red.png")

    class Replacing(OneProcess):
        def _outcome(self, task):
            here = task.path.endswith(b"red.png")
            if here and when == "before":
                replace()
            outcome = super()._outcome(task)
            if here and when == "after":
                replace()
            return outcome

    former = hashlib.sha256((photos / "red.png").read_bytes()).digest()
    monkeypatch.setattr(fovea.indexer.scanning.pipeline, "Pool", Replacing)
    assert scan(library, photos, encoder).embedded == 8
    pink = hashlib.sha256((photos / "red.png").read_bytes()).digest()
    [(digest,)] = library.rows(
        "SELECT hash FROM images JOIN files ON image_id = images.id WHERE path = ?",
        (os.fsencode(photos / "red.png"),),
    )
    assert digest == {"before": pink, "after": former}[when]
    monkeypatch.setattr(fovea.indexer.scanning.pipeline, "Pool", OneProcess)
    assert scan(library, photos, encoder).embedded == (when == "after")
    assert library.image_by_hash([pink]) and not library.image_by_hash([former])
