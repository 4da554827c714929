import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import fovea.indexer.scanning.scan
import fovea.indexer.walking.walk
from fovea.indexer.scanning.scan import ModelChanged
from fovea.indexer.scanning.verify import verify
from fovea.indexer.switching.switch import switch_model
from fovea.indexer.walking.walk import Found
from fovea.indexer.workers.pool import Outcome, Pool
from fovea.search.errors import FoveaError, LibraryBusy, LibraryError
from fovea.search.index.vector_index import VectorIndex
from fovea.search.index.view import snapshot_path
from fovea.search.library.library import Library
from fovea.search.query.likelihood import background_path
from scanner import Scanner, counts, many
from small_clips import write_signs
from toys import ColourEncoder, TolerantEncoder

INTERRUPTED = Path(__file__).with_name("interrupted.py")


def test_a_second_writer_is_told(scan, photos, library):
    with Library.open(library.folder) as other, other.writing():
        with pytest.raises(LibraryBusy, match=f"pid {os.getpid()}"):
            scan(photos)


def test_a_model_other_than_the_librarys_is_refused(scan, photos):
    scan(photos)
    (photos / "red.png").unlink()
    scan.model = scan.another("d1" * 32)
    with pytest.raises(ModelChanged, match="uses colour, not colour.*fovea models use colour"):
        scan(photos)
    assert scan.library.model().identity == "c0" * 32
    assert scan.files()[b"red.png"] == ("indexed", None)


def test_a_dry_run_counts_what_another_model_would_embed(scan, photos):
    scan(photos)
    scan.model = scan.another("d1" * 32)
    (photos / "copy.png").write_bytes((photos / "lime.png").read_bytes())
    report = scan(dry_run=True)
    # Of the two that show one content, the second to be read costs nothing.
    assert (report.found, report.embedded, report.moved + report.unchanged) == (9, 8, 1)
    assert scan.library.model().identity == "c0" * 32


def test_pictures_that_the_librarys_model_has_not_embedded_are_embedded(scan, photos, tmp_path):
    many(tmp_path / "disk", 3)
    scan(photos, tmp_path / "disk")
    (tmp_path / "disk").rename(tmp_path / "away")
    scan.model = scan.another("d1" * 32)
    switch_model(scan.library, model=scan.model, load_encoder=scan.load, incomplete=True)
    assert counts(scan()) == {"found": 8, "unchanged": 8}
    accounts = verify(scan.library)
    assert accounts.ok
    [reason] = {file.reason for file in accounts.files if file.state == "offline"}
    assert reason == "not searchable: colour has not embedded it yet"
    (tmp_path / "away").rename(tmp_path / "disk")
    assert counts(scan()) == {"found": 11, "embedded": 3, "unchanged": 8}
    assert {file.reason for file in verify(scan.library).files} == {None}


def test_a_model_that_was_never_measured_embeds_no_labels(scan, photos):
    scan.encoder = WordlessEncoder()
    scan(photos)
    [model] = scan.library.models()
    assert snapshot_path(scan.library, model.id).exists()
    assert not background_path(scan.library.folder, model.identity).exists()


class WordlessEncoder(TolerantEncoder):
    def encode_texts(self, texts):
        raise AssertionError("nobody needs it")


@pytest.fixture
def measured(scan, tmp_path):
    """``scan``, of a model whose line was measured."""
    scan.model.folder = tmp_path
    write_signs(tmp_path, scan.model.identity, scan.model.dim)
    return scan


def test_a_run_leaves_the_library_prepared_for_answers(measured, photos):
    scan = measured
    scan.encoder = TolerantEncoder()
    scan(photos, dry_run=True)
    assert scan.loads == 0
    scan(photos)
    [model] = scan.library.models()
    snapshot = snapshot_path(scan.library, model.id)
    background = background_path(scan.library.folder, model.identity)
    assert scan.loads == 1 and snapshot.exists() and background.exists()
    snapshot.write_bytes(b"damaged")
    background.unlink()
    scan()
    assert VectorIndex.open(scan.library, model.id).check() == []
    assert snapshot.stat().st_size > 100
    assert scan.loads == 2 and background.exists()
    scan()
    assert scan.loads == 2, "unchanged files cost no model"


def test_a_run_that_is_stopped_prepares_nothing(measured, photos):
    scan, stop = measured, threading.Event()

    class Stopping(TolerantEncoder):
        def encode_pixels(self, pixels):
            stop.set()
            return super().encode_pixels(pixels)

    scan.encoder = Stopping()
    assert scan(photos, stop=stop, batch_size=2).stopped
    assert not background_path(scan.library.folder, scan.model.identity).exists()


def test_what_cannot_be_prepared_is_a_line_in_the_log(measured, photos, caplog, monkeypatch):
    def refuse(*arguments):
        raise LibraryError("the disk is full")

    monkeypatch.setattr(VectorIndex, "save", refuse)
    assert counts(measured(photos)) == {"found": 8, "embedded": 8}
    told = [record.getMessage() for record in caplog.records]
    assert told[0] == "the index is not saved: the disk is full"
    assert told[1].startswith("likelihoods are not prepared: "), "it knows colours alone"


def test_stopping_keeps_what_is_done_and_the_next_run_goes_on(scan, tmp_path):
    many(tmp_path / "root", 60)
    stop = threading.Event()

    class Stopping(ColourEncoder):
        def encode_pixels(self, pixels):
            if self.encoded:
                stop.set()
            return super().encode_pixels(pixels)

    scan.encoder = Stopping()
    report = scan(tmp_path / "root", batch_size=4, stop=stop)
    assert report.stopped and 8 <= report.embedded < 60
    assert verify(scan.library).ok
    assert scan.library.counts().images == report.embedded
    report = scan()
    assert not report.stopped and report.unchanged + report.embedded == 60


@pytest.mark.parametrize("dry_run", [False, True])
def test_stopping_ends_a_walk_that_finds_nothing_new(scan, photos, monkeypatch, dry_run):
    scan(photos)
    stop, listed = threading.Event(), []

    class Endless:
        """A folder of names that are no pictures, and no end of them."""

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        def __iter__(self):
            return self

        def __next__(self):
            listed.append(1)
            if len(listed) == 1000:
                stop.set()
            return SimpleNamespace(name=b"notes.txt", is_dir=lambda **options: False)

    real, root = os.scandir, os.fsencode(photos)
    monkeypatch.setattr(os, "scandir", lambda path: Endless() if path == root else real(path))
    monkeypatch.setattr("fovea.indexer.scanning.changes.is_empty", lambda path: False)
    assert scan(stop=stop, dry_run=dry_run).stopped


def interrupted(library, root, after, times):
    """Index a folder in a process that gets Ctrl-C; return what came of it."""
    done = subprocess.run(
        [sys.executable, INTERRUPTED, library.folder, root, str(after), str(times)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_ctrl_c_ends_the_run_after_its_batch(scan, tmp_path):
    many(tmp_path / "root", 60)
    said = interrupted(scan.library, tmp_path / "root", after=0, times=1)
    assert said["stopped"] and 1 <= said["embedded"] <= 8
    assert said["is_as_before"] and said["is_sound"]
    assert scan.library.counts().images == said["images"] == said["embedded"]


def test_a_second_ctrl_c_ends_the_run_at_once(scan, tmp_path):
    many(tmp_path / "root", 20)
    said = interrupted(scan.library, tmp_path / "root", after=1, times=2)
    assert said["stopped"] is None and said["images"] >= 1
    assert said["is_as_before"] and said["is_sound"]
    assert "fovea-prefetch" not in said["threads"]
    report = scan()
    assert report.unchanged == said["images"] and report.unchanged + report.embedded == 20


def test_an_encoder_that_fails_leaves_the_library_whole(scan, photos):
    class Failing(ColourEncoder):
        def encode_pixels(self, pixels):
            if self.encoded:
                raise RuntimeError("out of memory")
            return super().encode_pixels(pixels)

    scan.encoder = Failing()
    with pytest.raises(RuntimeError, match="out of memory"):
        scan(photos, batch_size=2)
    assert scan.library.counts().images == 2
    assert verify(scan.library).ok
    scan.encoder = ColourEncoder()
    assert counts(scan()) == {"found": 8, "embedded": 6, "unchanged": 2}


class Unsound(ColourEncoder):
    """Has no number for red pictures, or for any."""

    def __init__(self, everything=False):
        super().__init__()
        self.everything = everything

    def encode_pixels(self, pixels):
        rows = super().encode_pixels(pixels)
        red = pixels[:, 0, 0] == (255, 0, 0)
        rows[red.all(axis=1) | self.everything] = np.nan
        return rows


def test_a_picture_that_the_model_cannot_embed_fails_alone(scan, photos):
    (photos / "copy.png").write_bytes((photos / "red.png").read_bytes())
    scan.encoder = Unsound()
    assert counts(scan(photos)) == {"found": 9, "embedded": 7, "failed": 2}
    reason = "not embedded: the model gave no unit vector for it"
    assert scan.files()[b"red.png"] == scan.files()[b"copy.png"] == ("failed", reason)
    assert verify(scan.library).ok
    scan.encoder = ColourEncoder()
    assert counts(scan()) == {"found": 9, "embedded": 1, "moved": 1, "unchanged": 7}


def test_a_model_that_embeds_nothing_is_one_clear_error(scan, photos):
    scan.encoder = Unsound(everything=True)
    with pytest.raises(FoveaError, match="no embedding for any of the first .* float32 as dtype"):
        scan(photos)
    assert scan.library.rows("SELECT * FROM files") == []


def test_failures_are_tried_again_by_other_decoders(scan, photos, monkeypatch):
    (photos / "broken.jpg").write_bytes(b"no picture")
    scan(photos)
    assert counts(scan()) == {"found": 9, "unchanged": 9}
    monkeypatch.setattr("fovea.indexer.scanning.changes.decoder_versions", lambda: "pillow 99")
    assert counts(scan()) == {"found": 9, "failed": 1, "unchanged": 8}
    assert counts(scan()) == {"found": 9, "unchanged": 9}


def test_failures_of_an_earlier_decoding_of_our_own_are_tried_again(scan, photos, monkeypatch):
    (photos / "broken.jpg").write_bytes(b"no picture")
    scan(photos)
    monkeypatch.setattr("fovea.indexer.scanning.changes.DECODING", 99)
    assert counts(scan()) == {"found": 9, "failed": 1, "unchanged": 8}


def test_a_disk_that_fails_costs_no_embedding(scan, photos, monkeypatch):
    scan(photos)
    Image.new("RGB", (9, 9), "pink").save(photos / "red.png")
    (photos / "lime.png").rename(photos / "green.png")
    monkeypatch.setattr("fovea.indexer.scanning.pipeline.Pool", Unreachable)
    report = scan()
    assert counts(report) == {"found": 8, "failed": 2, "unchanged": 6, "deleted": 1}
    assert scan.files()[b"red.png"] == ("indexed", "unreadable: Input/output error; kept as it was")
    assert scan.files()[b"green.png"] == ("failed", "unreadable: Input/output error")
    assert scan.library.counts().images == 8
    monkeypatch.undo()
    assert counts(scan()) == {"found": 8, "embedded": 1, "moved": 1, "unchanged": 6}
    assert scan.files()[b"red.png"] == ("indexed", None)


class Unreachable(Pool):
    """Workers whose disk has gone."""

    def outcomes(self, tasks):
        for task in tasks:
            if task is not None:
                yield Outcome(task, "unreachable", reason="unreadable: Input/output error")


def test_a_file_whose_status_is_unknown_keeps_its_embedding(scan, photos, monkeypatch):
    scan(photos)

    def failing(*arguments):
        for piece in fovea.indexer.walking.walk.pieces(*arguments):
            reason = "unreadable: Input/output error"
            yield [
                Found(path, -1, -1, reason) if path.endswith(b"red.png") else (path, *stamps)
                for path, *stamps in piece
            ]

    monkeypatch.setattr("fovea.indexer.scanning.changes.pieces", failing)
    report = scan()
    assert counts(report) == {"found": 8, "unchanged": 8}
    [problem] = report.problems
    assert problem.reason == "unreadable: Input/output error; kept as it was"
    assert scan.files()[b"red.png"] == ("indexed", None)


def test_a_disk_that_is_full_is_one_clear_error_and_leaves_the_library_whole(scan, tmp_path):
    many(tmp_path / "root", 120)
    [(pages,)] = scan.library.rows("PRAGMA page_count")
    scan.library.rows(f"PRAGMA max_page_count = {pages + 1}")
    with pytest.raises(LibraryError, match="the disk of .* is full .*; make room"):
        scan(tmp_path / "root", batch_size=4)
    assert verify(scan.library).ok
    before = scan.library.counts().images
    assert 4 <= before < 120
    scan.library.rows("PRAGMA max_page_count = 1000000")
    assert counts(scan()) == {"found": 120, "embedded": 120 - before, "unchanged": before}


def test_a_library_that_may_only_be_read_is_one_clear_error(library, photos, monkeypatch):
    monkeypatch.setattr("fovea.search.library.access.os.access", lambda path, mode: False)
    with Library.open(library.folder) as fixed:
        with pytest.raises(LibraryError, match="is read-only; check its permissions"):
            Scanner(fixed)(photos)


def test_hard_links_and_files_of_no_bytes_are_accounted_for(scan, photos):
    os.link(photos / "red.png", photos / "second.png")
    (photos / "empty.jpg").touch()
    assert counts(scan(photos)) == {"found": 10, "embedded": 8, "moved": 1, "failed": 1}
    assert scan.files()[b"empty.jpg"] == ("failed", "broken: the file is empty")
    assert scan.image_of(photos / "red.png") == scan.image_of(photos / "second.png")


def test_a_root_that_moved_costs_no_inference(scan, photos):
    scan(photos)
    images = scan.image_of(photos / "red.png")
    moved = photos.rename(photos.with_name("pictures"))
    assert counts(scan(moved)) == {"found": 8, "moved": 8}
    assert scan.image_of(moved / "red.png") == images
    former = next(root for root in scan.library.roots() if root.path == os.fsencode(photos))
    assert scan.library.remove_root(former.id) == 8
    assert scan.library.counts().images == 8


def test_removing_a_root_forgets_what_was_deleted_too(scan, photos):
    scan(photos)
    (photos / "red.png").unlink()
    scan()
    assert scan.library.counts().images == 8  # so that its return costs nothing
    scan.library.remove_root(scan.library.roots()[0].id)
    assert scan.library.counts().images == 0


def test_a_model_that_does_not_load_is_not_the_librarys(scan, photos):
    def fail():
        raise FoveaError("no weights")

    scan.load = fail
    with pytest.raises(FoveaError, match="no weights"):
        scan(photos)
    assert scan.library.model() is None


def test_a_content_whose_image_went_meanwhile_is_decoded_after_all(scan, photos):
    scan(photos)
    old = (photos / "red.png").read_bytes()
    Image.new("RGB", (9, 9), "orange").save(photos / "red.png")
    (photos / "old.png").write_bytes(old)
    report = scan(batch_size=1)
    assert counts(report) in (
        {"found": 9, "embedded": 1, "moved": 1, "unchanged": 7},
        {"found": 9, "embedded": 2, "unchanged": 7},
    )
    assert {state for state, _ in scan.files().values()} == {"indexed"}
    assert verify(scan.library).ok


def test_progress_counts_up_to_what_was_found(scan, photos):
    (photos / "broken.jpg").write_bytes(b"no picture")
    states = []
    scan(photos, progress=states.append)
    last = states[-1]
    assert (last.found, last.done, last.embedded, last.failed) == (9, 9, 8, 1)
    assert not last.walking
    assert [state.done for state in states] == sorted(state.done for state in states)


def test_exif_reaches_the_library(scan, tmp_path):
    exif = Image.Exif()
    exif[0x0110], exif[0x0112], exif[0x0132] = "Camera One", 8, "2022:02:03 04:05:06"
    root = tmp_path / "root"
    root.mkdir()
    Image.new("RGB", (40, 30)).save(root / "a.jpg", exif=exif)
    scan(root)
    rows = scan.library.rows(
        "SELECT width, height, format, orientation, taken_at, camera FROM images"
    )
    assert rows == [(30, 40, "JPEG", 8, "2022-02-03T04:05:06", "Camera One")]


def test_a_run_tells_what_it_has_in_hand(scan, photos):
    told = []
    scan(photos, in_hand=lambda doing, paths: told.append((doing, list(paths))))
    everything = {os.fsencode(path) for path in photos.iterdir()}
    for doing in ("decoding", "embedding", "storing"):
        paths = {path for what, some in told for path in some if what == doing}
        assert paths and paths <= everything
    assert {path for what, some in told for path in some if what == "embedding"} == everything
    assert told[-1] == ("", [])


def test_what_a_new_model_cannot_embed_keeps_its_image_and_its_former_embedding(scan, photos):
    scan(photos)
    scan.model = scan.another("b1" * 32)
    scan.library.set_model(scan.model.name, scan.model.identity, scan.model.dim, scan.model.source)
    scan.encoder = Unsound()
    assert counts(scan()) == {"found": 8, "embedded": 7, "failed": 1}
    reason = "not embedded: the model gave no unit vector for it; kept as it was"
    assert scan.files()[b"red.png"] == ("indexed", reason)
    assert scan.library.counts().images == 8
    [(kept,)] = scan.library.rows("SELECT count(*) FROM embeddings WHERE model_id = 1")
    assert kept == 8
    scan.encoder = ColourEncoder()
    assert counts(scan()) == {"found": 8, "embedded": 1, "unchanged": 7}
    assert scan.files()[b"red.png"] == ("indexed", None)


def test_an_encoder_may_measure_with_the_pictures_of_a_run(scan, photos, monkeypatch):
    asked = []
    monkeypatch.setattr(scan.encoder, "adapt", lambda: asked.append(1), raising=False)
    scan(photos)
    assert asked == [1]
