"""What stamps tell and hide: far times, edits that keep size and time, and reading anew."""

import os
from pathlib import Path

import pytest
from PIL import Image

from fovea.indexer.scanning import changes, pipeline
from fovea.indexer.scanning.scan import check_request
from fovea.indexer.scanning.verify import verify
from fovea.search.errors import FoveaError
from fovea.search.library.facts import stamps
from fovea.search.library.library import Library
from fovea.search.maintenance.forget import THUMBNAILS, thumbnail_path
from scanner import Scanner, counts, many

YEAR = 31_556_952
FAR = {
    "1500": -470 * YEAR,
    "1677": -293 * YEAR,
    "zero": 0,
    "before": -1,
    "2263": 293 * YEAR,
    "2400": 430 * YEAR,
    "10001": 8031 * YEAR,
    "250000": 248_030 * YEAR,
}
SHARED_MEMORY = Path("/dev/shm")  # tmpfs has 64 bits for seconds; other file systems fewer


@pytest.fixture(params=["disk", "memory"])
def place(request, tmp_path):
    """A folder on each kind of file system that is at hand."""
    if request.param == "disk":
        yield tmp_path / "photos"
        return
    if not os.access(SHARED_MEMORY, os.W_OK):
        pytest.skip("there is no /dev/shm")
    folder = SHARED_MEMORY / f"fovea-test-{os.getpid()}"
    yield folder
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


def replaced(path, colour):
    """Replace a picture by another one of the same size and modification time."""
    status = os.stat(path)
    before = path.read_bytes()
    Image.new("RGB", (32, 24), colour).save(path)
    path.write_bytes(path.read_bytes().ljust(len(before), b"\0"))
    os.truncate(path, len(before))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    after = os.stat(path)
    assert (after.st_size, after.st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    assert path.read_bytes() != before


@pytest.fixture
def bitmaps(tmp_path):
    """Pictures whose files all have the same size, and whose times are a while ago."""
    folder = tmp_path / "bitmaps"
    folder.mkdir()
    for number, colour in enumerate(("red", "lime", "blue")):
        Image.new("RGB", (32, 24), colour).save(folder / f"{colour}.bmp")
        os.utime(folder / f"{colour}.bmp", ns=(10**18 + number, 10**18 + number))
    return folder


# Times out of range


def test_files_of_all_times_are_indexed_and_found_unchanged(library, place):
    many(place, len(FAR))
    for path, seconds in zip(sorted(place.iterdir()), FAR.values(), strict=True):
        os.utime(path, (seconds, seconds))
    scan = Scanner(library)
    assert counts(scan(place)) == {"found": len(FAR), "embedded": len(FAR)}
    assert counts(scan()) == {"found": len(FAR), "unchanged": len(FAR)}
    assert verify(library).ok
    [(shown,)] = library.rows("SELECT count(*) FROM shown")
    assert shown == len(FAR)
    times = [os.stat(path).st_mtime_ns for path in place.iterdir()]
    beyond = sum(not stamps.EARLIEST < time < stamps.LATEST for time in times)
    [(undated,)] = library.rows("SELECT count(*) FROM shown WHERE date IS NULL")
    assert undated == beyond > 0


def test_an_edit_of_a_file_beyond_all_times_is_noticed(scan, bitmaps):
    for seconds in (430 * YEAR, 440 * YEAR):  # both are stored as the last time that fits
        os.utime(bitmaps / "red.bmp", (seconds, seconds))
        scan(bitmaps)
    assert counts(scan()) == {"found": 3, "unchanged": 3}
    replaced(bitmaps / "red.bmp", "pink")
    assert counts(scan()) == {"found": 3, "embedded": 1, "unchanged": 2}


# The ctime


def test_an_edit_that_keeps_size_and_time_is_noticed(scan, bitmaps):
    scan(bitmaps)
    former = scan.image_of(bitmaps / "red.bmp")
    replaced(bitmaps / "red.bmp", "pink")
    assert counts(scan(dry_run=True)) == {"found": 3, "embedded": 1, "unchanged": 2}
    assert counts(scan()) == {"found": 3, "embedded": 1, "unchanged": 2}
    assert scan.image_of(bitmaps / "red.bmp") != former
    assert counts(scan()) == {"found": 3, "unchanged": 3}


@pytest.mark.parametrize("change", ["mode", "link", "back and forth", "owner"])
def test_a_change_of_the_inode_alone_costs_no_inference(scan, bitmaps, monkeypatch, change):
    scan(bitmaps)
    red, image = bitmaps / "red.bmp", scan.image_of(bitmaps / "red.bmp")
    if change == "mode":
        red.chmod(0o640)
    elif change == "link":
        os.link(red, bitmaps.parent / "link.bmp")
    elif change == "owner":
        os.chown(red, os.geteuid(), os.getegid())
    else:
        red.rename(bitmaps / "other.bmp").rename(red)
    status = os.stat(red)
    assert counts(scan()) == {"found": 3, "unchanged": 3}
    assert scan.image_of(red) == image and scan.encoder.encoded == 3
    counts(scan())  # where it was read within the tick of the change, it is once more
    monkeypatch.setattr(pipeline, "Pool", None)  # from now on nothing is read
    assert counts(scan()) == {"found": 3, "unchanged": 3}
    [(ctime_ns,)] = scan.library.rows(
        "SELECT ctime_ns FROM files WHERE path = ?", [os.fsencode(red)]
    )
    assert ctime_ns == status.st_ctime_ns


def test_a_moved_folder_costs_no_inference_and_is_unchanged_then(scan, bitmaps, monkeypatch):
    (bitmaps / "a").mkdir()
    for path in bitmaps.glob("*.bmp"):
        path.rename(bitmaps / "a" / path.name)
    scan(bitmaps)
    (bitmaps / "a").rename(bitmaps / "b")
    assert counts(scan()) == {"found": 3, "moved": 3}
    assert scan.encoder.encoded == 3
    assert counts(scan()) == {"found": 3, "unchanged": 3}


def test_rows_of_an_older_library_take_the_ctime_over_unread(scan, bitmaps, monkeypatch):
    scan(bitmaps)
    counts(scan())
    with scan.library.transaction() as conn:
        conn.execute("UPDATE files SET ctime_ns = NULL")
    with monkeypatch.context() as unread:
        unread.setattr(pipeline, "Pool", None)
        assert counts(scan()) == {"found": 3, "unchanged": 3}
    [(known,)] = scan.library.rows("SELECT count(ctime_ns) FROM files")
    assert known == 3
    replaced(bitmaps / "red.bmp", "pink")
    assert counts(scan()) == {"found": 3, "embedded": 1, "unchanged": 2}


def test_without_a_ctime_size_and_time_decide(scan, bitmaps, monkeypatch):
    monkeypatch.setattr(stamps, "HAS_CTIME", False)
    scan(bitmaps)
    (bitmaps / "red.bmp").chmod(0o640)
    monkeypatch.setattr(pipeline, "Pool", None)
    assert counts(scan()) == {"found": 3, "unchanged": 3}


def test_where_every_mount_gives_new_ctimes_files_are_only_read(scan, bitmaps, monkeypatch):
    scan(bitmaps)
    real = changes.pieces

    def remounted(*arguments):
        for piece in real(*arguments):
            yield [(*rest, ctime_ns + 10**12) for *rest, ctime_ns in piece]

    monkeypatch.setattr(changes, "pieces", remounted)
    assert counts(scan()) == {"found": 3, "unchanged": 3}
    assert scan.encoder.encoded == 3


# Reading anew


def without_ctimes(monkeypatch):
    monkeypatch.setattr(stamps, "HAS_CTIME", False)


def test_reading_anew_finds_what_no_stamp_tells(scan, bitmaps, monkeypatch):
    without_ctimes(monkeypatch)
    scan(bitmaps)
    replaced(bitmaps / "red.bmp", "pink")
    assert counts(scan()) == {"found": 3, "unchanged": 3}
    assert counts(scan(reread=True, dry_run=True))["found"] == 3
    assert counts(scan(reread=True)) == {"found": 3, "embedded": 1, "unchanged": 2}
    assert scan.encoder.encoded == 4


@pytest.mark.parametrize("named", ["red.bmp", "inner", "inner/lime.bmp", "."])
def test_only_what_is_named_is_read_anew(scan, bitmaps, monkeypatch, named):
    without_ctimes(monkeypatch)
    (bitmaps / "inner").mkdir()
    (bitmaps / "lime.bmp").rename(bitmaps / "inner" / "lime.bmp")
    scan(bitmaps)
    replaced(bitmaps / "red.bmp", "pink")
    replaced(bitmaps / "inner" / "lime.bmp", "orange")
    changed = {"red.bmp": 1, "inner": 1, "inner/lime.bmp": 1, ".": 2}[named]
    found = {"found": 3, "embedded": changed, "unchanged": 3 - changed}
    assert counts(scan(bitmaps / named, reread=True)) == found
    assert [root.path for root in scan.library.roots()] == [os.fsencode(bitmaps)]


def test_metadata_and_thumbnails_are_made_anew_and_nothing_is_embedded(scan, bitmaps):
    scan(bitmaps)
    with scan.library.transaction() as conn:
        conn.execute("UPDATE images SET width = 1, taken_at = '1999-01-01T00:00:00', damaged = 'x'")
    digests = [digest for (digest,) in scan.library.rows("SELECT hash FROM images")]
    kept = [thumbnail_path(scan.library.folder / THUMBNAILS, each, "256") for each in digests]
    for path in kept:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"as an older program drew it")
    assert counts(scan(reread=True)) == {"found": 3, "unchanged": 3}
    assert scan.encoder.encoded == 3
    assert not any(path.exists() for path in kept)
    rows = scan.library.rows("SELECT DISTINCT width, taken_at, damaged FROM images")
    assert rows == [(32, None, None)]
    dates = {date for (date,) in scan.library.rows("SELECT substr(date, 1, 7) FROM shown")}
    assert dates == {"2001-09"}


@pytest.mark.parametrize("known", [True, False])
def test_a_picture_that_cannot_be_decoded_this_time_stays(scan, bitmaps, monkeypatch, known):
    scan(bitmaps)
    counts(scan())
    real = pipeline.Pool.outcomes

    def failing(self, tasks):
        for outcome in real(self, tasks):
            if outcome is not None and outcome.task.path.endswith(b"red.bmp"):
                self.release(outcome.slot)
                digest = outcome.hash if known else None
                outcome = pipeline.Outcome(
                    outcome.task, "failed", hash=digest, reason="too slow: not today"
                )
            yield outcome

    with monkeypatch.context() as slow:
        slow.setattr(pipeline.Pool, "outcomes", failing)
        report = scan(reread=True)
    assert counts(report) == {"found": 3, "unchanged": 2, "failed": 1}
    assert scan.files()[b"red.bmp"] == ("indexed", "too slow: not today; kept as it was")
    assert scan.library.counts().images == 3
    assert counts(scan()) == {"found": 3, "unchanged": 3}
    assert scan.files()[b"red.bmp"] == ("indexed", None)


def test_a_content_that_is_broken_now_is_a_failure(scan, bitmaps, monkeypatch):
    without_ctimes(monkeypatch)
    scan(bitmaps)
    red = bitmaps / "red.bmp"
    status = os.stat(red)
    red.write_bytes(b"?" * status.st_size)
    os.utime(red, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert counts(scan()) == {"found": 3, "unchanged": 3}
    assert counts(scan(red, reread=True)) == {"found": 3, "unchanged": 2, "failed": 1}
    assert scan.files()[b"red.bmp"][0] == "failed"


def test_what_cannot_be_read_anew_is_refused(scan, bitmaps):
    scan(bitmaps)
    with pytest.raises(FoveaError, match="no file or folder .*gone.bmp"):
        check_request(scan.library, [bitmaps / "gone.bmp"], None, reread=True)
    (bitmaps.parent / "outside.bmp").touch()
    with pytest.raises(FoveaError, match="outside.bmp is not a folder"):
        check_request(scan.library, [bitmaps.parent / "outside.bmp"], None, reread=True)
    check_request(scan.library, [bitmaps / "red.bmp", bitmaps.parent], None, reread=True)


def test_folders_around_roots_are_none_when_they_are_read_anew(scan, bitmaps):
    scan(bitmaps)
    assert counts(scan(bitmaps.parent, reread=True)) == {"found": 3, "unchanged": 3}
    assert len(scan.library.roots()) == 1


def test_a_new_folder_is_indexed_as_usual(tmp_path, bitmaps):
    with Library.open(tmp_path / "new", create=True) as library:
        assert counts(Scanner(library)(bitmaps, reread=True)) == {"found": 3, "embedded": 3}
