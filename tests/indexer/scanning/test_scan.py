"""A scan brings the library up to date, reads only what it must, and never loses a root."""

import hashlib
import os
import signal
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import fovea.indexer.scanning.scan
import fovea.indexer.walking.walk
from fovea.indexer.decoding.formats import RAW_REASON
from fovea.indexer.scanning.missing import DELETED_REASON, LINKED_REASON, MOVED_REASON, too_many
from fovea.indexer.scanning.scan import ModelChanged, Problem, index_folders
from fovea.indexer.scanning.verify import verify
from fovea.indexer.switching.switch import switch_model
from fovea.indexer.walking.walk import Found
from fovea.indexer.workers.pool import Outcome, Pool
from fovea.search.clip.preprocess import Preprocess
from fovea.search.errors import FoveaError, LibraryBusy, LibraryError
from fovea.search.index.vector_index import VectorIndex
from fovea.search.index.view import snapshot_path
from fovea.search.library.files import HELD_REASON
from fovea.search.library.library import Library
from fovea.search.query.likelihood import background_path
from toys import COLOURS, ColourEncoder, TolerantEncoder

COUNTS = ("found", "embedded", "unchanged", "moved", "deleted", "failed", "skipped")


class Scanner:
    """Index into one library with a toy encoder, and remember what it was asked."""

    def __init__(self, library):
        self.library, self.encoder, self.loads = library, ColourEncoder(), 0
        self.model = self.another("c0" * 32)

    def another(self, identity):
        return SimpleNamespace(
            name="colour", identity=identity, dim=3, preprocess=Preprocess(8), source="test"
        )

    def load(self):
        self.loads += 1
        return self.encoder

    def __call__(self, *folders, **options):
        options = {"model": self.model, "workers": 1} | options
        return index_folders(self.library, folders, load_encoder=self.load, **options)

    def files(self):
        """Path's last part -> (state, reason)."""
        return {
            os.path.basename(path): (state, reason)
            for path, state, reason in self.library.rows("SELECT path, state, reason FROM files")
        }

    def image_of(self, path):
        [(image_id,)] = self.library.rows(
            "SELECT image_id FROM files WHERE path = ?", (os.fsencode(path),)
        )
        return image_id


@pytest.fixture
def scan(library):
    return Scanner(library)


def counts(report):
    """What is not zero in a report; every file found must be accounted for once."""
    parts = (report.embedded, report.unchanged, report.moved, report.failed, report.skipped)
    assert report.found == sum(parts) or report.stopped, report
    return {name: getattr(report, name) for name in COUNTS if getattr(report, name)}


def many(folder, number, start=0):
    """Write distinct pictures, small ones."""
    folder.mkdir(exist_ok=True)
    for place in range(start, start + number):
        Image.new("RGB", (4, 4), (place, 255 - place, 9)).save(folder / f"{place:03d}.png")


def snapshot(folder):
    """Everything about a folder that a scan must not change."""
    return {
        path: (
            os.lstat(path).st_mtime_ns,
            os.lstat(path).st_mode,
            path.is_file() and path.read_bytes(),
        )
        for path in [folder, *folder.rglob("*")]
    }


def test_every_picture_is_embedded_once(scan, photos):
    before = snapshot(photos)
    assert counts(scan(photos)) == {"found": 8, "embedded": 8}
    assert snapshot(photos) == before
    assert scan.files() == {f"{colour}.png".encode(): ("indexed", None) for colour in COLOURS}
    hashes = {hashlib.sha256(path.read_bytes()).digest() for path in photos.iterdir()}
    stored = scan.library.rows("SELECT hash, width, height, format, orientation FROM images")
    assert {row[0] for row in stored} == hashes
    assert {row[1:] for row in stored} == {(32, 24, "PNG", 1)}
    assert scan.library.model().identity == "c0" * 32
    assert scan.library.counts().embeddings == 8


def test_unchanged_files_cost_no_read_and_no_model(scan, photos, monkeypatch):
    scan(photos)
    monkeypatch.setattr("fovea.indexer.scanning.pipeline.Pool", None)
    monkeypatch.setattr("fovea.indexer.scanning.changes.os.access", None)
    assert counts(scan()) == {"found": 8, "unchanged": 8}
    assert (scan.loads, scan.encoder.encoded) == (1, 8)


def test_a_changed_file_is_embedded_again(scan, photos):
    scan(photos)
    Image.new("RGB", (40, 24), "orange").save(photos / "red.png")
    assert counts(scan()) == {"found": 8, "embedded": 1, "unchanged": 7}
    assert scan.library.counts().images == 8  # the old content has gone


def test_a_touched_file_costs_no_inference(scan, photos):
    scan(photos)
    os.utime(photos / "red.png", ns=(1, 1))
    assert counts(scan()) == {"found": 8, "unchanged": 8}
    assert counts(scan()) == {"found": 8, "unchanged": 8}
    assert scan.encoder.encoded == 8


def test_moved_renamed_and_copied_files_keep_their_image(scan, photos):
    scan(photos)
    images = {name: scan.image_of(photos / f"{name}.png") for name in COLOURS}
    (photos / "deep").mkdir()
    os.rename(photos / "red.png", photos / "deep" / "red.png")
    os.rename(photos / "blue.png", photos / "azure.png")
    (photos / "copy.png").write_bytes((photos / "lime.png").read_bytes())
    assert counts(scan()) == {"found": 9, "moved": 3, "unchanged": 6}
    assert scan.encoder.encoded == 8
    assert scan.image_of(photos / "deep" / "red.png") == images["red"]
    assert scan.image_of(photos / "azure.png") == images["blue"]
    assert scan.image_of(photos / "copy.png") == images["lime"]
    assert scan.files()[b"blue.png"] == ("missing", MOVED_REASON)


def test_a_renamed_folder_is_no_deletion(scan, tmp_path):
    many(tmp_path / "root", 1)
    many(tmp_path / "root" / "a", 20, start=1)
    scan(tmp_path / "root")
    os.rename(tmp_path / "root" / "a", tmp_path / "root" / "b")
    report = scan()
    assert counts(report) == {"found": 21, "moved": 20, "unchanged": 1}
    assert report.held == 0


def test_the_same_content_twice_is_encoded_once(scan, photos):
    for place in range(5):
        (photos / f"copy{place}.png").write_bytes((photos / "red.png").read_bytes())
    assert counts(scan(photos, batch_size=4)) == {"found": 13, "embedded": 8, "moved": 5}
    assert scan.encoder.encoded == 8


def test_a_deleted_file_leaves_and_is_found_again(scan, photos):
    scan(photos)
    content, status = (photos / "red.png").read_bytes(), os.stat(photos / "red.png")
    (photos / "red.png").unlink()
    assert counts(scan()) == {"found": 7, "unchanged": 7, "deleted": 1}
    assert scan.files()[b"red.png"] == ("missing", DELETED_REASON)
    assert counts(scan()) == {"found": 7, "unchanged": 7}
    (photos / "red.png").write_bytes(content)
    os.utime(photos / "red.png", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert counts(scan()) == {"found": 8, "unchanged": 8}
    assert scan.files()[b"red.png"] == ("indexed", None)
    assert scan.encoder.encoded == 8


def test_a_root_that_is_missing_or_empty_loses_nothing(scan, photos):
    scan(photos)
    away = photos.rename(photos.with_name("away"))
    for _ in range(2):
        report = scan(confirm_deletions=True)
        assert counts(report) == {}
        assert [problem.path for problem in report.problems] == [os.fsencode(photos)]
        assert scan.library.roots()[0].state == "offline"
        assert {state for state, _ in scan.files().values()} == {"indexed"}
        photos.mkdir(exist_ok=True)  # an empty mount point, the second time
    photos.rmdir()
    away.rename(photos)
    assert counts(scan()) == {"found": 8, "unchanged": 8}
    assert scan.library.roots()[0].state == "online"


@pytest.mark.parametrize(
    "refused", ["os.scandir", "os.lstat", "fovea.indexer.decoding.reading.os.open"]
)
def test_a_root_that_cannot_be_read_is_offline_alone(scan, photos, tmp_path, monkeypatch, refused):
    many(tmp_path / "other", 2)
    (photos / ".foveaignore").write_text("*.gif\n")
    scan(photos, tmp_path / "other")
    many(tmp_path / "other", 1, start=2)
    name = refused.rpartition(".")[2]
    real = getattr(os, name)

    def refuse(path, *rest, **options):
        if os.fsencode(path).startswith(os.fsencode(photos)):
            raise OSError(5, "Input/output error")
        return real(path, *rest, **options)

    monkeypatch.setattr(refused, refuse)
    report = scan()
    monkeypatch.undo()
    assert counts(report) == {"found": 3, "embedded": 1, "unchanged": 2}
    [problem] = report.problems
    assert problem == Problem(os.fsencode(photos), "offline: Input/output error")
    assert [root.state for root in scan.library.roots()] == ["offline", "online"]
    assert {state for state, _ in scan.files().values()} == {"indexed"}


def test_a_root_that_became_a_file_loses_nothing(scan, photos):
    scan(photos)
    photos.rename(photos.with_name("away"))
    photos.write_text("a file")
    assert counts(scan()) == {}
    assert scan.library.roots()[0].state == "offline"


@pytest.mark.parametrize(
    ("vanished", "remaining", "answer"),
    [(5, 0, False), (6, 54, False), (6, 53, True), (100, 900, False), (101, 899, True)],
)
def test_more_than_a_handful_and_a_tenth_is_too_many(vanished, remaining, answer):
    assert too_many(vanished, remaining) is answer


def test_many_vanishing_at_once_stay_until_confirmed(scan, tmp_path):
    root = tmp_path / "root"
    many(root, 20)
    scan(root)
    for place in range(7):
        (root / f"{place:03d}.png").unlink()
    for _ in range(2):
        report = scan()
        assert counts(report) == {"found": 13, "unchanged": 13}
        assert report.held == 7
        assert scan.files()[b"000.png"] == ("indexed", HELD_REASON)
    many(root, 1)  # one of them is back
    assert scan().held == 6
    report = scan(confirm_deletions=True)
    assert (report.deleted, report.held) == (6, 0)
    assert scan.files()[b"001.png"] == ("missing", DELETED_REASON)
    assert scan.files()[b"000.png"] == ("indexed", None)


def test_only_pictures_that_leave_the_answers_are_held(scan, tmp_path):
    root = tmp_path / "root"
    many(root, 4)
    for place in range(8):
        (root / f"broken{place}.jpg").write_bytes(b"no picture")
        (root / f"._{place}.jpg").write_bytes(b"resource fork")
    scan(root)
    for path in [*root.glob("broken*"), *root.glob("._*")]:
        path.unlink()
    report = scan()
    assert (counts(report), report.held) == ({"found": 4, "unchanged": 4, "deleted": 16}, 0)


def test_files_moved_to_another_root_are_not_held(scan, tmp_path):
    many(tmp_path / "inbox", 12)
    many(tmp_path / "archive", 1, start=50)
    scan(tmp_path / "inbox", tmp_path / "archive")
    for path in (tmp_path / "inbox").iterdir():
        if path.name != "000.png":
            path.rename(tmp_path / "archive" / path.name)
    assert counts(scan(tmp_path / "archive")) == {"found": 12, "unchanged": 1, "moved": 11}
    report = scan(tmp_path / "inbox")
    assert (counts(report), report.held) == ({"found": 1, "unchanged": 1, "deleted": 11}, 0)


def test_a_root_that_goes_while_its_pictures_are_embedded_loses_nothing(scan, photos):
    scan(photos)
    (photos / "red.png").unlink()
    Image.new("RGB", (8, 8), "pink").save(photos / "new.png")

    class Unmounting(ColourEncoder):
        def encode_pixels(self, pixels):
            photos.rename(photos.with_name("away"))
            photos.mkdir()
            return super().encode_pixels(pixels)

    scan.encoder = Unmounting()
    report = scan()
    assert counts(report) == {"found": 8, "embedded": 1, "unchanged": 7}
    assert [problem.reason for problem in report.problems] == ["offline: the folder is empty"]
    assert scan.files()[b"red.png"] == ("indexed", None)
    assert scan.library.roots()[0].state == "offline"


def test_a_large_folder_that_became_a_link_stays_until_confirmed(scan, tmp_path):
    root = tmp_path / "root"
    many(root, 9)
    many(root / "sub", 40, start=9)
    scan(root)
    (root / "sub").rename(tmp_path / "elsewhere")
    (root / "sub").symlink_to(tmp_path / "elsewhere")
    for dry_run in (True, False, False):
        report = scan(dry_run=dry_run)
        assert (counts(report), report.held) == ({"found": 9, "unchanged": 9}, 40)
        [problem] = report.problems
        assert problem.path == os.fsencode(root)
        assert problem.reason.startswith("40 files are gone or behind links now")
    assert scan.files()[b"020.png"] == ("indexed", HELD_REASON)
    for dry_run in (True, False):
        report = scan(dry_run=dry_run, confirm_deletions=True)
        assert (report.held, report.passed_over, report.deleted) == (0, 40, 0)
    assert scan.files()[b"020.png"] == ("skipped", LINKED_REASON)
    assert scan().passed_over == 0  # said once
    (root / "sub").unlink()
    (tmp_path / "elsewhere").rename(root / "sub")
    assert counts(scan()) == {"found": 49, "unchanged": 49}
    assert scan.files()[b"020.png"] == ("indexed", None)
    assert scan.encoder.encoded == 49


def test_many_files_that_became_links_stay_until_confirmed(scan, tmp_path):
    root, store = tmp_path / "root", tmp_path / "store"
    many(root, 20)
    scan(root)
    store.mkdir()
    for place in range(8):
        (root / f"{place:03d}.png").rename(store / f"{place:03d}.png")
        (root / f"{place:03d}.png").symlink_to(store / f"{place:03d}.png")
    report = scan()
    assert (counts(report), report.held) == ({"found": 20, "unchanged": 20}, 8)
    report = scan(confirm_deletions=True)
    assert counts(report) == {"found": 20, "unchanged": 12, "skipped": 8}
    assert (report.held, report.passed_over) == (0, 8)
    assert counts(scan()) == {"found": 20, "unchanged": 20}
    for path in store.iterdir():
        os.replace(path, root / path.name)
    assert counts(scan()) == {"found": 20, "unchanged": 20}
    assert (scan.files()[b"000.png"], scan.encoder.encoded) == (("indexed", None), 20)


def test_a_pattern_is_believed_and_costs_nothing_when_it_is_taken_back(scan, tmp_path):
    root = tmp_path / "root"
    many(root, 2)
    many(root / "sub", 10, start=2)
    scan(root)
    (root / ".foveaignore").write_text("*\n")
    for dry_run in (True, False):
        report = scan(dry_run=dry_run)
        assert (counts(report), report.passed_over) == ({"found": 2, "skipped": 2}, 12)
    assert {state for state, _ in scan.files().values()} == {"skipped"}
    assert verify(scan.library).ok
    Image.new("RGB", (9, 9), "pink").save(root / "sub" / "005.png")  # changed meanwhile
    assert (counts(scan()), scan().passed_over) == ({"found": 2, "unchanged": 2}, 0)
    (root / ".foveaignore").unlink()
    assert counts(scan()) == {"found": 12, "unchanged": 11, "embedded": 1}
    assert {state for state, _ in scan.files().values()} == {"indexed"}
    assert scan.library.counts().images == 12


def test_a_folder_that_became_a_link_leaves_the_answers(scan, photos, tmp_path):
    for name in ("one", "two", "three"):
        (photos / name).mkdir()
    os.rename(photos / "red.png", photos / "one" / "red.png")
    os.rename(photos / "lime.png", photos / "two" / "lime.png")
    os.rename(photos / "blue.png", photos / "three" / "blue.png")
    scan(photos)
    (photos / "one").rename(tmp_path / "elsewhere")
    (photos / "one").symlink_to(tmp_path / "elsewhere")
    (photos / "two" / "lime.png").rename(tmp_path / "lime.png")
    (photos / "two").rmdir()
    (photos / "two").symlink_to("two")  # a loop
    (photos / "three" / "blue.png").unlink()
    (photos / "three" / "blue.png").mkdir()
    assert counts(scan()) == {"found": 5, "unchanged": 5, "deleted": 1}
    assert scan.files()[b"red.png"] == ("skipped", LINKED_REASON)
    assert scan.files()[b"lime.png"] == ("skipped", LINKED_REASON)
    assert scan.files()[b"blue.png"] == ("missing", DELETED_REASON)
    assert counts(scan()) == {"found": 5, "unchanged": 5}


def test_a_failure_is_remembered_until_the_file_changes(scan, photos):
    (photos / "broken.jpg").write_bytes(b"no picture")
    assert counts(scan(photos)) == {"found": 9, "embedded": 8, "failed": 1}
    state, reason = scan.files()[b"broken.jpg"]
    assert (state, reason.partition(":")[0]) == ("failed", "broken")
    assert counts(scan()) == {"found": 9, "unchanged": 9}
    Image.new("RGB", (9, 9), "pink").save(photos / "broken.jpg")
    assert counts(scan()) == {"found": 9, "embedded": 1, "unchanged": 8}


def test_a_file_that_breaks_leaves_the_answers(scan, photos):
    scan(photos)
    (photos / "red.png").write_bytes(b"no picture any more")
    assert counts(scan()) == {"found": 8, "failed": 1, "unchanged": 7}
    assert scan.library.counts().images == 7


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read any file")
def test_an_unreadable_file_is_tried_again_once_it_may_be_read(scan, photos):
    (photos / "red.png").chmod(0)
    assert counts(scan(photos)) == {"found": 8, "embedded": 7, "failed": 1}
    assert counts(scan()) == {"found": 8, "unchanged": 8}
    (photos / "red.png").chmod(0o600)
    assert counts(scan()) == {"found": 8, "embedded": 1, "unchanged": 7}


def test_a_folder_that_cannot_be_listed_keeps_its_files(scan, photos, monkeypatch):
    (photos / "closed").mkdir()
    os.rename(photos / "red.png", photos / "closed" / "red.png")
    scan(photos)
    real = os.scandir

    def closed(path):
        if os.fsdecode(path).endswith("closed"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr("fovea.indexer.walking.walk.os.scandir", closed)
    report = scan()
    assert counts(report) == {"found": 7, "unchanged": 7}
    [problem] = report.problems
    assert (problem.path, problem.reason) == (
        os.fsencode(photos / "closed"),
        "folder cannot be read: Permission denied",
    )
    assert scan.files()[b"red.png"] == ("indexed", None)


def test_what_is_no_longer_wanted_leaves_the_answers(scan, photos):
    (photos / "private").mkdir()
    os.rename(photos / "red.png", photos / "private" / "red.png")
    scan(photos)
    (photos / ".foveaignore").write_text("private/\nlime.png\n")
    assert counts(scan()) == {"found": 7, "unchanged": 6, "skipped": 1}
    assert scan.files()[b"red.png"][0] == scan.files()[b"lime.png"][0] == "skipped"
    assert counts(scan()) == {"found": 7, "unchanged": 7}
    (photos / ".foveaignore").unlink()
    assert counts(scan()) == {"found": 8, "unchanged": 8}
    assert scan.encoder.encoded == 8


def test_camera_raw_waits_for_its_extra(scan, photos, monkeypatch):
    (photos / "a.NEF").write_bytes(b"sensor data")
    monkeypatch.setattr("fovea.indexer.scanning.changes.raw_available", lambda: False)
    assert counts(scan(photos)) == {"found": 9, "embedded": 8, "skipped": 1}
    assert scan.files()[b"a.NEF"] == ("skipped", RAW_REASON)
    assert counts(scan()) == {"found": 9, "unchanged": 9}


def test_roots_may_overlap_and_no_path_is_indexed_twice(scan, photos):
    (photos / "inner").mkdir()
    os.rename(photos / "red.png", photos / "inner" / "red.png")
    assert counts(scan(photos, photos / "inner")) == {"found": 8, "embedded": 8}
    assert counts(scan()) == {"found": 8, "unchanged": 8}
    outer, inner = scan.library.roots()
    owners = dict(scan.library.rows("SELECT path, root_id FROM files"))
    assert owners[os.fsencode(photos / "inner" / "red.png")] == inner.id
    assert owners[os.fsencode(photos / "blue.png")] == outer.id
    away = (photos / "inner").rename(photos.with_name("away"))
    (photos / "inner").mkdir()
    assert counts(scan(photos)) == {"found": 7, "unchanged": 7}  # the inner one is offline alone
    assert [root.state for root in scan.library.roots()] == ["online", "offline"]
    assert scan.files()[b"red.png"] == ("indexed", None)
    assert away.exists()


def test_a_root_is_found_through_a_link_and_a_library_inside_is_left_out(tmp_path, photos):
    (tmp_path / "link").symlink_to(photos)
    with Library.open(photos / "library", create=True) as library:
        Image.new("RGB", (8, 8)).save(photos / "library" / "thumbnail.png")
        scan = Scanner(library)
        assert counts(scan(tmp_path / "link")) == {"found": 8, "embedded": 8}
        assert [root.path for root in library.roots()] == [os.fsencode(photos)]


def test_folders_that_are_none_are_named(scan, tmp_path):
    with pytest.raises(FoveaError, match="no folder has been indexed yet"):
        scan()
    with pytest.raises(FoveaError, match="no folder .*nowhere"):
        scan(tmp_path / "nowhere")
    (tmp_path / "file.jpg").touch()
    with pytest.raises(FoveaError, match="file.jpg is not a folder"):
        scan(tmp_path / "file.jpg")
    photos = tmp_path / "photos"
    photos.mkdir()
    with pytest.raises(FoveaError, match="no folder .*nowhere"):
        scan(photos, tmp_path / "nowhere")
    assert scan.library.roots() == []  # nor the one that is a folder


@pytest.mark.parametrize("place", [".", "thumbnails"])
def test_a_librarys_own_folder_is_no_root(scan, place):
    folder = scan.library.folder / place
    folder.mkdir(exist_ok=True)
    with pytest.raises(FoveaError, match="the library's own folder"):
        scan(folder)


def test_a_folder_that_cannot_be_listed_is_no_root(scan, photos, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("fovea.indexer.scanning.scan.os.scandir", refuse)
    with pytest.raises(FoveaError, match="cannot list .*photos: Permission denied"):
        scan(photos)
    assert scan.library.roots() == []


def test_a_root_can_be_named_in_any_way(scan, photos, monkeypatch):
    (photos.parent / "link").symlink_to(photos)
    monkeypatch.chdir(photos.parent)
    for name in ("photos", "photos/", "./photos/../photos//", b"photos", photos, "link/"):
        scan(name)
    assert [root.path for root in scan.library.roots()] == [os.fsencode(photos)]


def test_what_the_kernel_makes_up_is_left_out_of_roots_around_it(scan, photos, monkeypatch):
    (photos / "proc").mkdir()
    (photos / "red.png").rename(photos / "proc" / "red.png")
    kernel = frozenset({os.fsencode(photos / "proc")})
    assert {b"/proc", b"/sys", b"/dev"} <= fovea.indexer.scanning.scan.KERNEL
    monkeypatch.setattr("fovea.indexer.scanning.scan.KERNEL", kernel)
    assert counts(scan(photos)) == {"found": 7, "embedded": 7}


def test_a_dry_run_tells_and_writes_nothing(scan, photos):
    def everything():
        return "\n".join(scan.library.conn.iterdump())

    before = everything()
    assert counts(scan(photos, dry_run=True)) == {"found": 8, "embedded": 8}
    assert everything() == before
    scan(photos)
    os.rename(photos / "red.png", photos / "rouge.png")
    (photos / "blue.png").unlink()
    (photos / "copy.png").write_bytes((photos / "lime.png").read_bytes())
    Image.new("RGB", (8, 8), "pink").save(photos / "new.png")
    before, files = everything(), snapshot(photos)
    told = counts(scan(dry_run=True))
    assert told == {"found": 9, "embedded": 1, "moved": 2, "unchanged": 6, "deleted": 1}
    assert everything() == before and snapshot(photos) == files
    assert counts(scan()) == told


def test_a_dry_run_tells_copies_and_empty_files_among_the_new(scan, photos):
    for name in ("copy", "another"):
        (photos / f"{name}.png").write_bytes((photos / "lime.png").read_bytes())
    (photos / "empty.jpg").touch()
    (photos / "huge.jpg").touch()
    os.truncate(photos / "huge.jpg", 1 << 40)
    told = counts(scan(photos, dry_run=True))
    assert told == {"found": 12, "embedded": 8, "moved": 2, "failed": 2}
    assert counts(scan(photos)) == told


def test_a_dry_run_reads_only_files_of_the_same_size(scan, photos, monkeypatch):
    for number, path in enumerate(sorted(photos.iterdir())):
        os.truncate(path, 1000 + number)
    monkeypatch.setattr("fovea.indexer.scanning.dry_run.read_file", None)
    assert counts(scan(photos, dry_run=True)) == {"found": 8, "embedded": 8}


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


def test_a_run_leaves_the_library_prepared_for_answers(scan, photos):
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
    assert scan.loads == 1 and not background.exists(), "unchanged files cost no model"


def test_a_run_that_is_stopped_prepares_nothing(scan, photos):
    stop = threading.Event()

    class Stopping(TolerantEncoder):
        def encode_pixels(self, pixels):
            stop.set()
            return super().encode_pixels(pixels)

    scan.encoder = Stopping()
    assert scan(photos, stop=stop, batch_size=2).stopped
    assert not background_path(scan.library.folder, scan.model.identity).exists()


def test_what_cannot_be_prepared_is_a_line_in_the_log(scan, photos, caplog, monkeypatch):
    def refuse(*arguments):
        raise LibraryError("the disk is full")

    monkeypatch.setattr(VectorIndex, "save", refuse)
    assert counts(scan(photos)) == {"found": 8, "embedded": 8}
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

    monkeypatch.setattr("fovea.indexer.walking.walk.os.scandir", lambda path: Endless())
    monkeypatch.setattr("fovea.indexer.scanning.changes.is_empty", lambda path: False)
    assert scan(stop=stop, dry_run=dry_run).stopped


def test_ctrl_c_ends_the_run_after_its_batch(scan, tmp_path):
    many(tmp_path / "root", 60)
    before = signal.getsignal(signal.SIGINT)

    class Interrupted(ColourEncoder):
        def encode_pixels(self, pixels):
            os.kill(os.getpid(), signal.SIGINT)
            return super().encode_pixels(pixels)

    scan.encoder = Interrupted()
    report = scan(tmp_path / "root", batch_size=4)
    assert report.stopped and 1 <= report.embedded <= 8
    assert signal.getsignal(signal.SIGINT) is before
    assert verify(scan.library).ok
    assert scan.library.counts().images == report.embedded


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
    with pytest.raises(FoveaError, match="no embedding for any of the first .* --dtype float32"):
        scan(photos)
    assert scan.library.rows("SELECT * FROM files") == []


def test_failures_are_tried_again_by_other_decoders(scan, photos, monkeypatch):
    (photos / "broken.jpg").write_bytes(b"no picture")
    scan(photos)
    assert counts(scan()) == {"found": 9, "unchanged": 9}
    monkeypatch.setattr("fovea.indexer.scanning.changes.decoder_versions", lambda: "pillow 99")
    assert counts(scan()) == {"found": 9, "failed": 1, "unchanged": 8}
    assert counts(scan()) == {"found": 9, "unchanged": 9}


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
        for entry in fovea.indexer.walking.walk.walk(*arguments):
            is_red = entry.path.endswith(b"red.png")
            reason = "unreadable: Input/output error"
            yield Found(entry.path, -1, -1, reason) if is_red else entry

    monkeypatch.setattr("fovea.indexer.scanning.changes.walk", failing)
    report = scan()
    assert counts(report) == {"found": 8, "unchanged": 8}
    [problem] = report.problems
    assert problem.reason == "unreadable: Input/output error; kept as it was"
    assert scan.files()[b"red.png"] == ("indexed", None)


def test_a_disk_that_is_full_is_one_clear_error_and_leaves_the_library_whole(scan, tmp_path):
    many(tmp_path / "root", 120)
    [(pages,)] = scan.library.rows("PRAGMA page_count")
    scan.library.rows(f"PRAGMA max_page_count = {pages + 1}")
    with pytest.raises(LibraryError, match="the disk is full; make room"):
        scan(tmp_path / "root", batch_size=4)
    assert verify(scan.library).ok
    before = scan.library.counts().images
    assert 4 <= before < 120
    scan.library.rows("PRAGMA max_page_count = 1000000")
    assert counts(scan()) == {"found": 120, "embedded": 120 - before, "unchanged": before}


def test_a_library_that_may_only_be_read_is_one_clear_error(library, photos, monkeypatch):
    monkeypatch.setattr("fovea.search.library.connection.os.access", lambda path, mode: False)
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


@pytest.fixture
def interruptible():
    """Python's own answer to Ctrl-C: a shell has it ignored by what it starts in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_second_ctrl_c_ends_the_run_at_once(scan, tmp_path, interruptible):
    many(tmp_path / "root", 20)

    class Interrupted(ColourEncoder):
        def encode_pixels(self, pixels):
            if self.encoded:
                for _ in range(2):
                    signal.raise_signal(signal.SIGINT)  # to this thread: two do not become one
            return super().encode_pixels(pixels)

    scan.encoder = Interrupted()
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        scan(tmp_path / "root", batch_size=4)
    assert signal.getsignal(signal.SIGINT) is before
    assert "fovea-prefetch" not in {thread.name for thread in threading.enumerate()}
    assert verify(scan.library).ok
    scan.encoder = ColourEncoder()
    report = scan()
    assert report.unchanged >= 4 and report.unchanged + report.embedded == 20


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
