"""A scan brings the library up to date, reads only what it must, and never loses a root."""

import hashlib
import os

import pytest
from PIL import Image

from fovea.indexer.scanning.missing import DELETED_REASON, LINKED_REASON, MOVED_REASON, too_many
from fovea.indexer.scanning.scan import Problem
from fovea.indexer.scanning.verify import verify
from fovea.search.library.files import HELD_REASON
from scanner import counts, many, snapshot
from toys import COLOURS, ColourEncoder, TolerantEncoder


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


@pytest.mark.parametrize(("asked", "largest"), [(None, 50), (10, 10)])
def test_a_batch_is_what_the_encoder_takes_unless_asked_otherwise(scan, tmp_path, asked, largest):
    class Hungry(TolerantEncoder):
        batch_size, sizes = 50, []

        def encode_pixels(self, pixels):
            self.sizes.append(len(pixels))
            return super().encode_pixels(pixels)

    scan.encoder = Hungry()
    Hungry.sizes.clear()
    many(tmp_path / "root", 180)
    assert counts(scan(tmp_path / "root", batch_size=asked))["embedded"] == 180
    assert max(Hungry.sizes) == largest and sum(Hungry.sizes) == 180


def test_unchanged_files_cost_no_read_and_no_model(scan, photos, monkeypatch):
    scan.encoder = TolerantEncoder()
    scan(photos)
    monkeypatch.setattr("fovea.indexer.scanning.pipeline.Pool", None)
    monkeypatch.setattr("fovea.indexer.scanning.changes.Survey._compare", None)
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


# Only what is a root already


def test_a_folder_that_is_no_root_any_more_is_not_added_again(scan, photos, tmp_path):
    other = tmp_path / "other"
    many(other, 3)
    scan(photos, other)
    scan.library.remove_root(scan.library.roots()[1].id)
    many(photos, 2)
    assert counts(scan(other, only_roots=True)) == {}
    assert counts(scan(photos, other, only_roots=True)) == {
        "found": 10,
        "embedded": 2,
        "unchanged": 8,
    }
    assert counts(scan(tmp_path / "nowhere", only_roots=True)) == {}
    assert [root.path for root in scan.library.roots()] == [os.fsencode(photos)]
    many(photos, 3)
    assert counts(scan(only_roots=True)) == {"found": 11, "embedded": 1, "unchanged": 10}


def test_a_library_without_roots_stays_so(scan, photos):
    assert counts(scan(photos, only_roots=True)) == {}
    assert (scan.library.roots(), scan.library.counts().images) == ([], 0)


def test_a_root_that_has_become_a_link_stays_the_same_root(scan, photos, tmp_path):
    scan(photos)
    os.rename(photos, tmp_path / "moved")
    photos.symlink_to(tmp_path / "moved")
    assert counts(scan(photos, only_roots=True)) == {"found": 8, "unchanged": 8}
    assert [root.path for root in scan.library.roots()] == [os.fsencode(photos)]
