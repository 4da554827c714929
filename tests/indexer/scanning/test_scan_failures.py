import os

import pytest
from PIL import Image

import fovea.indexer.scanning.scan
import fovea.indexer.walking.walk
from fovea.indexer.decoding.formats import RAW_REASON
from fovea.indexer.walking.ignore import Ignore
from fovea.search.errors import FoveaError
from fovea.search.library.library import Library
from scanner import Scanner, counts, snapshot


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


@pytest.mark.parametrize("content", [b"geheim\xe9/", b"!\n", bytes(10), None])
def test_nothing_is_taken_or_removed_where_what_to_ignore_is_unknown(
    scan, photos, tmp_path, content
):
    other = tmp_path / "other"
    other.mkdir()
    os.rename(photos / "blue.png", other / "blue.png")
    scan(photos, other)
    before = scan.files()
    rule = photos / ".foveaignore"
    rule.mkdir() if content is None else rule.write_bytes(content)
    os.rename(photos / "red.png", photos / "new.png")
    os.rename(other / "blue.png", other / "moved.png")
    report = scan()
    assert report.barred == 1
    [problem] = report.problems
    assert problem.path == os.fsencode(rule) and "until then nothing" in problem.reason
    assert (report.found, report.moved, report.deleted, report.held) == (1, 1, 0, 0)
    assert {name: row for name, row in scan.files().items() if b"blue" not in name} == {
        name: row
        for name, row in (before | {b"moved.png": ("indexed", None)}).items()
        if b"blue" not in name
    }
    assert [root.state for root in scan.library.roots()] == ["online", "online"]
    rule.rmdir() if content is None else rule.write_bytes(b"lime.png\r\n")
    report = scan()
    assert not report.barred and not report.problems
    assert scan.files()[b"new.png"] == ("indexed", None)
    assert (scan.files()[b"lime.png"][0] == "skipped") == (content is not None)
    assert scan.encoder.encoded == 8


def test_an_ignore_file_that_breaks_during_a_run_bars_what_follows(scan, photos, monkeypatch):
    scan(photos)
    (photos / "red.png").unlink()
    read = Ignore.for_root
    looks = []

    def breaking(root, patterns=()):
        looks.append(root)
        if len(looks) > 1:
            (photos / ".foveaignore").write_bytes(b"\xff")
        return read(root, patterns)

    monkeypatch.setattr(Ignore, "for_root", breaking)
    report = scan()
    assert (report.barred, report.deleted) == (1, 0)
    assert scan.files()[b"red.png"] == ("indexed", None)


def test_a_folder_whose_own_ignore_file_cannot_be_used_is_left_as_it_is(scan, photos):
    inner = photos / "inner"
    inner.mkdir()
    for name in ("red.png", "blue.png"):
        os.rename(photos / name, inner / name)
    scan(photos)
    (inner / ".foveaignore").write_bytes(b"caf\xe9")
    (inner / "red.png").unlink()
    (photos / "lime.png").unlink()
    report = scan()
    assert (report.barred, report.found, report.deleted) == (1, 5, 1)
    [problem] = report.problems
    assert problem.path == os.fsencode(inner / ".foveaignore")
    assert scan.files()[b"red.png"] == scan.files()[b"blue.png"] == ("indexed", None)
    (inner / ".foveaignore").write_text("blue.png")
    report = scan()
    assert (report.barred, report.deleted, report.passed_over) == (0, 1, 1)
    assert scan.files()[b"blue.png"][0] == "skipped"


def test_a_pattern_of_the_run_itself_ends_it(scan, photos):
    with pytest.raises(FoveaError, match="invalid ignore pattern"):
        scan(photos, ignore=["private\\"])
    assert scan.files() == {}


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
    monkeypatch.setattr("fovea.indexer.scanning.dry_run.open_file", None)
    assert counts(scan(photos, dry_run=True)) == {"found": 8, "embedded": 8}
