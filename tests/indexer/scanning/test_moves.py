"""What became of vanished files is judged by whether a file that is there still shows the image."""

import hashlib
import os
import shutil
import tempfile
import threading
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import fovea.indexer.scanning.pipeline
import fovea.search.library.reachable
from fovea.indexer.scanning.missing import DELETED_REASON, MOVED_REASON
from fovea.indexer.scanning.scan import index_folders
from fovea.indexer.scanning.verify import verify
from fovea.indexer.workers.pool import Outcome
from fovea.search.clip.preprocess import Preprocess
from fovea.search.library.files import HELD_REASON
from fovea.search.library.library import Library
from scanner import OneProcess, counts, many
from toys import ColourEncoder


class Killed(BaseException):
    """A run that ends between two statements."""


def interrupted(after, how, stop):
    """A pool that ends its run after so many files."""

    class Pool(OneProcess):
        def outcomes(self, tasks):
            for number, outcome in enumerate(super().outcomes(tasks), 1):
                yield outcome
                if number == after:
                    if how == "kill":
                        raise Killed
                    stop.set()

    return Pool


@pytest.fixture(autouse=True)
def promptly(monkeypatch):
    """Rows are written two at a time, in this process; a root is looked at each time."""
    monkeypatch.setattr(fovea.indexer.scanning.pipeline, "Pool", OneProcess)
    monkeypatch.setattr(fovea.indexer.scanning.pipeline, "SETTLED", 2)
    monkeypatch.setattr(fovea.search.library.reachable, "KEPT_S", -1.0)


def cut_short(scan, *folders, after, how="stop", **options):
    """Begin a run that ends after so many files."""
    stop = threading.Event()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fovea.indexer.scanning.pipeline, "Pool", interrupted(after, how, stop))
        if how == "kill":
            with pytest.raises(Killed):
                scan(*folders, stop=stop, **options)
        else:
            assert scan(*folders, stop=stop, **options).stopped


def dead(scan):
    """The paths that answers show and that are not there."""
    rows = scan.library.rows("SELECT path FROM files WHERE state = 'indexed'")
    return [path for (path,) in rows if not os.path.lexists(path)]


@pytest.mark.parametrize("how", ["stop", "kill"])
@pytest.mark.parametrize("runs", [1, 3])
def test_a_move_that_an_interrupted_run_has_seen_is_no_deletion(scan, tmp_path, how, runs):
    root = tmp_path / "root"
    many(root, 1)
    many(root / "holiday", 40, start=1)
    scan(root)
    (root / "holiday").rename(root / "2019")
    for _ in range(runs):
        cut_short(scan, after=40 // runs, how=how)
    many(root / "new", 9, start=60)
    told, report = scan(dry_run=True), scan()
    for seen in (told, report):
        assert (seen.held, seen.deleted, seen.problems) == (0, 0, ())
    assert not dead(scan)
    assert scan.library.rows("SELECT DISTINCT reason FROM files WHERE state = 'missing'") == [
        (MOVED_REASON,)
    ]
    assert scan.encoder.encoded == 50


def test_deleted_copies_are_deleted_where_the_originals_are_there(scan, tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    many(root / "originals", 12)
    shutil.copytree(root / "originals", root / "copies")
    scan(root)
    shutil.rmtree(root / "copies")
    for dry_run in (True, False):
        report = scan(dry_run=dry_run)
        assert (counts(report), report.held) == (
            {"found": 12, "unchanged": 12, "deleted": 12},
            0,
        )
    assert not dead(scan)


def test_copies_that_change_or_vanish_too_prove_nothing(scan, tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    many(root / "a", 24)
    shutil.copytree(root / "a", root / "b")
    scan(root)
    shutil.rmtree(root / "a")
    for path in sorted((root / "b").iterdir())[:8]:
        path.write_bytes(b"edited " + path.name.encode())
    for path in sorted((root / "b").iterdir())[8:16]:
        path.unlink()
    for dry_run in (True, False):
        report = scan(dry_run=dry_run)
        assert (report.held, report.deleted) == (8 + 2 * 8, 8)
    assert len(dead(scan)) == 24
    assert scan(confirm_deletions=True).deleted == 24
    assert not dead(scan)


@pytest.mark.parametrize("fate", ["there", "away", "gone", "edited", "offline before"])
def test_a_root_that_is_not_walked_proves_what_is_there_now(scan, tmp_path, fate):
    inbox, archive = tmp_path / "inbox", tmp_path / "archive"
    many(inbox, 12)
    many(archive, 12)
    many(archive, 1, start=50)
    (inbox / "note.txt").touch()
    scan(inbox, archive)
    for path in inbox.glob("*.png"):
        path.unlink()
    if fate == "away":
        archive.rename(tmp_path / "away")
    elif fate == "offline before":
        archive.rename(tmp_path / "away")
        scan(archive, confirm_deletions=True)
        (tmp_path / "away").rename(archive)
    else:
        for path in archive.glob("00*.png"):
            {"there": Path.touch, "gone": Path.unlink, "edited": edit}[fate](path)
    many(inbox, 1, start=70)
    if fate == "there":  # touched: its content may have changed until it is read
        scan(archive)
    for dry_run in (True, False):
        report = scan(inbox, dry_run=dry_run)
        held = 0 if fate == "there" else 12
        if fate in ("gone", "edited"):  # 010 and 011 are there
            held = 10
        assert (report.held, report.deleted) == (held, 12 - held)


def edit(path):
    path.write_bytes(b"edited " + path.name.encode())


@pytest.mark.parametrize("barred", ["archive", "archive/in"])
def test_copies_below_a_bad_ignore_file_are_there(scan, tmp_path, barred):
    inbox, archive = tmp_path / "inbox", tmp_path / "archive"
    many(inbox, 12)
    archive.mkdir()
    many(archive / "in", 12)
    many(inbox, 1, start=50)
    scan(inbox, archive)
    for path in inbox.glob("00*.png"):
        path.unlink()
    edit(archive / "in" / "003.png")
    (tmp_path / barred / ".foveaignore").write_bytes(b"\xff\xff")
    report = scan()
    assert (report.deleted, report.held) == (10, 0)
    assert scan.library.counts().images == 13


def test_a_run_elsewhere_does_not_settle_what_was_interrupted(scan, tmp_path):
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    here.mkdir()
    many(here / "holiday", 20)
    many(elsewhere, 1, start=90)
    scan(here, elsewhere)
    (here / "holiday").rename(here / "2019")
    cut_short(scan, here, after=20)
    scan(elsewhere)
    assert scan(here).deleted == 0
    reasons = scan.library.rows("SELECT DISTINCT reason FROM files WHERE state = 'missing'")
    assert reasons == [(MOVED_REASON,)]


def test_a_copy_that_vanishes_once_it_is_written_proves_nothing(scan, tmp_path, monkeypatch):
    root = tmp_path / "root"
    root.mkdir()
    many(root / "a", 12)
    many(root, 1, start=90)
    scan(root)
    (root / "a").rename(root / "b")

    class Vanishing(OneProcess):
        def outcomes(self, tasks):
            yield from super().outcomes(tasks)
            shutil.rmtree(root / "b", ignore_errors=True)

    monkeypatch.setattr(fovea.indexer.scanning.pipeline, "Pool", Vanishing)
    report = scan(batch_size=1)
    assert (report.moved, report.held, report.deleted) == (12, 12, 0)
    assert scan().held == 24 == len(dead(scan))


def test_a_copy_that_cannot_be_read_proves_nothing(scan, tmp_path, monkeypatch):
    root = tmp_path / "root"
    root.mkdir()
    many(root / "a", 12)
    shutil.copytree(root / "a", root / "b")
    scan(root)
    shutil.rmtree(root / "a")
    for path in (root / "b").iterdir():
        os.utime(path)

    class Unreachable(OneProcess):
        def _outcome(self, task):
            return Outcome(task, "unreachable", reason="unreadable: Input/output error")

    monkeypatch.setattr(fovea.indexer.scanning.pipeline, "Pool", Unreachable)
    report = scan()
    assert (report.failed, report.held, report.deleted) == (12, 12, 0)
    monkeypatch.setattr(fovea.indexer.scanning.pipeline, "Pool", OneProcess)
    report = scan()
    assert (report.unchanged, report.held, report.deleted) == (12, 0, 12)


def test_copies_that_come_back_show_their_images(scan, tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    many(root / "a", 12)
    shutil.copytree(root / "a", root / "b")
    scan(root)
    (root / "b").rename(tmp_path / "b")
    scan()
    (root / "a").rename(tmp_path / "a")
    (tmp_path / "b").rename(root / "b")
    for dry_run in (True, False):
        report = scan(dry_run=dry_run)
        assert (report.unchanged, report.held, report.deleted) == (12, 0, 12)


# Any history of two folders, against a simple model of what must be so

FOLDERS = ("A/x", "A/y", "A/z/z", "B/x", "B/y")
SIZES = (2, 7, 12)

step = st.one_of(
    st.tuples(st.just("write"), st.sampled_from(FOLDERS), st.sampled_from(SIZES)),
    st.tuples(st.just("move"), st.sampled_from(FOLDERS), st.sampled_from(FOLDERS)),
    st.tuples(st.just("copy"), st.sampled_from(FOLDERS), st.sampled_from(FOLDERS)),
    st.tuples(st.just("delete"), st.sampled_from(FOLDERS), st.sampled_from(SIZES)),
    st.tuples(st.just("edit"), st.sampled_from(FOLDERS), st.sampled_from(SIZES)),
    st.tuples(st.just("away or back"), st.sampled_from("AB"), st.none()),
    st.tuples(st.just("stop"), st.sampled_from(("A", "B", "AB")), st.integers(1, 20)),
    st.tuples(st.just("kill"), st.sampled_from(("A", "B", "AB")), st.integers(1, 20)),
    st.tuples(st.just("scan"), st.sampled_from(("A", "B", "AB")), st.booleans()),
)


class Disk:
    """Two roots on a real disk; every content is written at a time of its own."""

    def __init__(self, place):
        self.place, self.written = place, 0
        for name in "AB":
            (place / name).mkdir(parents=True)
            (place / name / "notes.txt").touch()

    def apply(self, verb, first, second):
        if verb == "away or back":
            here, away = self.place / first, self.place / f"{first} away"
            here.rename(away) if here.exists() else away.rename(here)
            return
        folder = self.place / first
        if not (self.place / first[0]).exists():
            return
        if verb == "write":
            folder.mkdir(parents=True, exist_ok=True)
            for number in range(second):
                self.write(folder / f"{number}.bmp")
        files = sorted(folder.glob("*.bmp")) if folder.is_dir() else []
        if verb == "edit":
            for path in files[:second]:
                self.write(path)
        elif verb == "delete":
            for path in files[:second]:
                path.unlink()
        elif verb in ("move", "copy") and first != second and (self.place / second[0]).exists():
            (self.place / second).mkdir(parents=True, exist_ok=True)
            for path in files:
                act = {"move": os.replace, "copy": shutil.copy2}[verb]
                act(path, self.place / second / path.name)

    def write(self, path):
        self.written += 1
        low, high = self.written % 256, self.written // 256
        Image.new("RGB", (4, 4), (low, high, 9)).save(path)
        os.utime(path, (10**9 + self.written,) * 2)

    def contents(self):
        """Path -> SHA-256, of what is there now."""
        return {
            os.fsencode(path): hashlib.sha256(path.read_bytes()).digest()
            for name in "AB"
            for path in (self.place / name).rglob("*.bmp")
        }


class Story:
    """A library, its disk, and what each run must make of them."""

    def __init__(self, library, disk):
        self.library, self.disk, self.known = library, disk, set()

    def run(self, names, **options):
        folders = [self.disk.place / name for name in names]
        model = SimpleNamespace(
            name="colour", identity="c0" * 32, dim=3, preprocess=Preprocess(4), source="test",
            folder=Path("no"),
        )  # fmt: skip
        return index_folders(
            self.library, folders, model=model, load_encoder=ColourEncoder, workers=1,
            batch_size=2, **options,
        )  # fmt: skip

    def rows(self):
        """Path -> (state, reason, SHA-256)."""
        found = self.library.rows(
            "SELECT path, state, reason, hash FROM files LEFT JOIN images ON images.id = image_id"
        )
        return {path: tuple(rest) for path, *rest in found}

    def root_of(self, path):
        return os.fsdecode(path)[len(str(self.disk.place)) + 1]

    def begin(self, names):
        """Which of the roots may be asked for: new ones must be there."""
        return "".join(n for n in names if n in self.known or (self.disk.place / n).exists())

    def interrupt(self, names, how, after):
        """Cut a run short; nothing leaves the answers but what was overwritten."""
        if not (names := self.begin(names)):
            return
        before, there, stop = self.rows(), self.disk.contents(), threading.Event()
        self.known |= set(names)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(fovea.indexer.scanning.pipeline, "Pool", interrupted(after, how, stop))
            try:
                report = self.run(names, stop=stop)
            except Killed:
                report = None
        if report is not None and not report.stopped:
            return  # there was less to do than that
        after = self.rows()
        for path, (state, _, content) in before.items():
            if state == "indexed" and there.get(path, content) == content:
                assert after[path][0::2] == (state, content)
        assert verify(self.library).ok

    def complete(self, names, confirm):
        """Run to the end, and compare with the model."""
        if not (names := self.begin(names)):
            return
        marked = {
            self.root_of(root.path) for root in self.library.roots() if root.state != "online"
        }
        before, there = self.rows(), self.disk.contents()
        told = self.run(names, dry_run=True, confirm_deletions=confirm)
        report = self.run(names, confirm_deletions=confirm)
        self.known |= set(names)
        online = {name for name in names if (self.disk.place / name).exists()}
        held = set() if confirm else self.to_be_held(before, there, online, set(names) | marked)
        after = self.rows()
        for path, row in after.items():
            if self.root_of(path) not in online:
                assert row == before[path]
            elif path in there:
                assert row == ("indexed", None, there[path])
            elif path in held:
                assert row == ("indexed", HELD_REASON, before[path][2])
            else:
                assert row[0] == "missing"
        assert {path for path in there if self.root_of(path) in online} <= set(after)
        gone = {
            path: row[1]
            for path, row in after.items()
            if row[0] == "missing" and before[path][0] != "missing"
        }
        deleted = {path for path, reason in gone.items() if reason == DELETED_REASON}
        assert set(gone.values()) <= {DELETED_REASON, MOVED_REASON}
        assert (report.held, report.deleted) == (len(held), len(deleted))
        assert (told.held, told.deleted, told.found) == (
            report.held, report.deleted, report.found,
        )  # fmt: skip
        overwritten = {
            content
            for path, (state, _, content) in before.items()
            if state == "indexed" and there.get(path, content) != content
        }
        left = shown(before) - shown(after)
        assert left <= overwritten | {before[path][2] for path in deleted}
        assert verify(self.library).ok

    def to_be_held(self, before, there, online, not_proving):
        """Which paths a run over the online roots must keep though they are gone."""
        kept = {content for path, content in there.items() if self.root_of(path) in online}
        kept |= {
            row[2]
            for path, row in before.items()
            if self.root_of(path) not in not_proving | online
            and row[:2] == ("indexed", None)
            and there.get(path) == row[2]
        }
        lost = defaultdict(set)
        for path, (state, _, content) in before.items():
            root = self.root_of(path)
            if root in online and state == "indexed" and path not in there and content not in kept:
                lost[root].add(path)
        held = set()
        for root, paths in lost.items():
            remaining = sum(self.root_of(path) == root for path in there)
            if len(paths) > 5 and len(paths) > (len(paths) + remaining) / 10:
                held |= paths
        return held


def shown(rows):
    return {content for state, _, content in rows.values() if state == "indexed"}


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(step, max_size=30))
def test_no_history_leaves_dead_paths_or_loses_an_image_uncounted(steps):
    with tempfile.TemporaryDirectory() as place:
        disk = Disk(Path(place).resolve() / "disk")
        with Library.open(Path(place) / "library", create=True) as library:
            story = Story(library, disk)
            disk.apply("write", "A/x", 12)
            story.complete("AB", False)
            for verb, first, second in steps:
                if verb == "scan":
                    story.complete(first, second)
                elif verb in ("stop", "kill"):
                    story.interrupt(first, verb, second)
                else:
                    disk.apply(verb, first, second)
            story.complete("AB", False)
            story.complete("AB", True)
