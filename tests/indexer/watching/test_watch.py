"""What changes below the roots is handed over, with the system's own events."""

import errno
import os
import shutil
import sys
import threading
import time

import pytest

from coloured import encoded
from fovea.indexer.watching import watch as module
from fovea.indexer.watching.pending import Work
from fovea.indexer.watching.watch import Watch
from fovea.search.library import reachable

PATIENCE_S = 30


class Watching:
    """A watch in a thread; what it hands over is kept."""

    def __init__(self, own, *roots, **options):
        self.roots, self.work, self.error = [os.fsencode(root) for root in roots], [], None
        self.told = []  # all that was handed over, taken or not
        self._stop, self._news = threading.Event(), threading.Condition()
        self.watch = Watch(lambda: list(self.roots), os.fsencode(own), self._take, **options)
        self._thread = threading.Thread(target=self._run)

    def _run(self):
        try:
            self.watch.run(self._stop)
        except Exception as exc:
            self.error = exc

    def _take(self, work):
        with self._news:
            self.work.append(work)
            self.told += [*work.roots, *work.files]
            self._news.notify_all()

    def take(self):
        """Wait for the next piece of work."""
        with self._news:
            assert self._news.wait_for(lambda: self.work, PATIENCE_S)
            return self.work.pop(0)

    def until(self, wanted):
        """Wait for a root or file to be handed over."""
        while True:
            work = self.take()
            if os.fsencode(wanted) in (*work.roots, *work.files):
                return work

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._stop.set()
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()
        if self.error is not None:
            raise self.error


@pytest.fixture(autouse=True)
def _fast(monkeypatch):
    monkeypatch.setattr(module, "LOOK_S", 0.1)
    monkeypatch.setattr(reachable, "KEPT_S", 0.0)


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "photos"
    (folder / "2020").mkdir(parents=True)
    (folder / "first.png").write_bytes(encoded("red", 1))
    return folder


def test_all_roots_come_first_then_what_is_written(root, tmp_path):
    with Watching(tmp_path / "library", root) as watching:
        assert watching.take() == Work((os.fsencode(root),), ())
        assert watching.watch.watched == {os.fsencode(root)}
        with open(root / "2020" / "new.png", "wb") as file:
            file.write(encoded("blue", 2))
        assert watching.take() == Work((), (os.fsencode(root / "2020" / "new.png"),))
        (root / "2020" / "notes.txt").write_text("no picture")
        (root / "download.part").write_bytes(encoded("lime", 3))
        os.rename(root / "download.part", root / "done.PNG")
        assert watching.take() == Work((), (os.fsencode(root / "done.PNG"),))


@pytest.mark.parametrize("change", ["delete", "rename", "new folder", "remove folder", "ignore"])
def test_what_says_less_has_its_root_scanned(root, tmp_path, change):
    (root / "2020" / "old.png").write_bytes(encoded("blue", 4))
    with Watching(tmp_path / "library", root) as watching:
        watching.until(root)
        if change == "delete":
            (root / "first.png").unlink()
        elif change == "rename":
            os.rename(root / "first.png", root / "2020" / "first.png")
        elif change == "new folder":
            (root / "2021" / "may").mkdir(parents=True)
            (root / "2021" / "may" / "a.png").write_bytes(encoded("blue", 5))
        elif change == "remove folder":
            shutil.rmtree(root / "2020")
        else:
            (root / ".foveaignore").write_text("*.gif\n")
        assert watching.until(root).roots == (os.fsencode(root),)


@pytest.mark.skipif(sys.platform == "darwin", reason="names are UTF-8 there")
def test_a_name_of_any_bytes_is_told(root, tmp_path):
    path = os.fsencode(root) + b"/caf\xe9\n.png"
    with Watching(tmp_path / "library", root) as watching:
        watching.until(root)
        with open(path, "wb") as file:
            file.write(encoded("blue", 6))
        assert watching.take() == Work((), (path,))


def test_links_are_not_followed_and_the_library_is_left_out(root, tmp_path):
    (tmp_path / "outside").mkdir()
    (root / "link").symlink_to(tmp_path / "outside")
    own = root / "library"
    own.mkdir()
    with Watching(own, root) as watching:
        watching.until(root)
        (tmp_path / "outside" / "a.png").write_bytes(encoded("blue", 7))
        (own / "thumbnail.png").write_bytes(encoded("blue", 8))
        (root / "last.png").write_bytes(encoded("blue", 9))
        assert watching.take() == Work((), (os.fsencode(root / "last.png"),))


def test_a_root_inside_another_has_its_own_events(root, tmp_path):
    inner = root / "2020"
    (inner / "old.png").write_bytes(encoded("blue", 15))  # an empty one counts as not mounted
    with Watching(tmp_path / "library", root, inner) as watching:
        watching.until(inner)
        (inner / "a.png").write_bytes(encoded("blue", 10))
        assert watching.until(inner / "a.png").files == (os.fsencode(inner / "a.png"),)
        (inner / "a.png").unlink()
        assert watching.until(inner).roots == (os.fsencode(inner),)


def test_a_folder_that_vanishes_is_scanned_and_watched_again_when_it_is_back(root, tmp_path):
    with Watching(tmp_path / "library", root) as watching:
        watching.until(root)
        os.rename(root, tmp_path / "aside")
        watching.until(root)
        _eventually(lambda: not watching.watch.watched)
        os.rename(tmp_path / "aside", root)
        watching.until(root)
        (root / "again.png").write_bytes(encoded("blue", 11))
        watching.until(root / "again.png")


def test_a_folder_put_in_anothers_place_is_watched(root, tmp_path, monkeypatch):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "x.png").write_bytes(encoded("blue", 12))
    with Watching(tmp_path / "library", root) as watching:
        watching.until(root)
        os.rename(root, tmp_path / "aside")
        os.rename(tmp_path / "other", root)
        watching.until(root)
        _eventually(lambda: watching.watch._is_watched_still(os.fsencode(root)))
        (root / "y.png").write_bytes(encoded("blue", 13))
        watching.until(root / "y.png")


def test_roots_are_added_and_removed_meanwhile(root, tmp_path):
    new = tmp_path / "new"
    new.mkdir()
    (new / "a.png").write_bytes(encoded("blue", 14))
    with Watching(tmp_path / "library", root) as watching:
        watching.until(root)
        watching.roots = [os.fsencode(new)]
        watching.until(new)
        _eventually(lambda: watching.watch.watched == {os.fsencode(new)})


@pytest.mark.parametrize("look_s", [0.1, 1e9], ids=["noticed", "not noticed yet"])
@pytest.mark.parametrize("way", ["watched", "polled"])
def test_nothing_of_a_folder_that_has_left_the_library_is_handed_over(
    root, tmp_path, monkeypatch, look_s, way
):
    left = tmp_path / "left"
    left.mkdir()
    (left / "a.png").write_bytes(encoded("blue", 16))
    if way == "polled":
        monkeypatch.setattr(
            module, "remote_kind", lambda folder: "nfs4" if folder == str(left) else None
        )
    with Watching(tmp_path / "library", root, left, poll_s=0.2) as watching:
        watching.until(root)  # and the other one, which has been watched for as long
        monkeypatch.setattr(module, "LOOK_S", look_s)
        _eventually(lambda: os.fsencode(left) in watching.told)
        (left / "b.png").write_bytes(encoded("blue", 17))
        (left / "a.png").unlink()  # has the folder scanned, once that is quiet
        watching.roots = [os.fsencode(root)]
        watching.told.clear()
        (left / "c.png").write_bytes(encoded("blue", 18))
        (root / "d.png").write_bytes(encoded("blue", 19))
        watching.until(root / "d.png")
        (root / "e.png").write_bytes(encoded("blue", 20))  # by when the others would have settled
        watching.until(root / "e.png")
    assert watching.told == [os.fsencode(root / "d.png"), os.fsencode(root / "e.png")]


def test_what_changed_in_a_root_that_was_inside_another_is_the_others(root, tmp_path):
    inner = root / "2020"
    (inner / "old.png").write_bytes(encoded("blue", 21))
    with Watching(tmp_path / "library", root, inner) as watching:
        watching.until(inner)
        (inner / "old.png").unlink()
        watching.roots = [os.fsencode(root)]
        assert watching.until(root) == Work((os.fsencode(root),), ())
        (inner / "new.png").write_bytes(encoded("blue", 22))
        watching.until(inner / "new.png")


def test_a_root_that_vanishes_while_it_is_looked_at_does_not_end_the_watch(
    root, tmp_path, monkeypatch
):
    looked = threading.Event()

    def too_early(roots):
        looked.set()
        return set()

    with Watching(tmp_path / "library", root) as watching:
        watching.until(root)
        monkeypatch.setattr(module, "unreachable", too_early)
        os.rename(root, tmp_path / "aside")
        _eventually(lambda: not watching.watch.watched)
        looked.clear()
        assert looked.wait(PATIENCE_S) and watching.error is None
        os.rename(tmp_path / "aside", root)
        _eventually(lambda: watching.watch.watched == {os.fsencode(root)})
        watching.until(root)


def test_a_root_that_was_moved_and_left_a_link_is_scanned_at_intervals(root, tmp_path):
    os.rename(root, tmp_path / "moved")
    root.symlink_to(tmp_path / "moved")
    with Watching(tmp_path / "library", root, poll_s=0.2) as watching:
        for _ in range(3):
            assert watching.take() == Work((os.fsencode(root),), ())
        assert watching.watch.polled == {os.fsencode(root)}


def test_a_folder_on_a_network_is_scanned_at_intervals(root, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(module, "remote_kind", lambda folder: "nfs4")
    caplog.set_level("INFO", "fovea.indexer.watching")
    with Watching(tmp_path / "library", root, poll_s=0.2) as watching:
        for _ in range(3):
            assert watching.take() == Work((os.fsencode(root),), ())
        assert (watching.watch.watched, watching.watch.polled) == (set(), {os.fsencode(root)})
    assert "is on a network (nfs4); it is scanned every 0.2 s instead" in caplog.text


def test_what_the_system_refuses_to_watch_is_scanned_at_intervals(
    root, tmp_path, monkeypatch, caplog
):
    from watchdog.observers import Observer

    def full(*args, **options):
        raise OSError(errno.ENOSPC, "inotify watch limit reached")

    monkeypatch.setattr(Observer, "schedule", full)
    caplog.set_level("INFO", "fovea.indexer.watching")
    with Watching(tmp_path / "library", root, poll_s=0.2) as watching:
        for _ in range(3):
            watching.until(root)
    assert "cannot be watched: inotify watch limit reached" in caplog.text


def test_an_error_of_indexing_ends_the_watch(root, tmp_path):
    watching = Watching(tmp_path / "library", root)

    def fail(work):
        raise RuntimeError("no")

    watching.watch._index = fail
    with pytest.raises(RuntimeError, match="^no$"), watching:
        _eventually(lambda: watching.error)


def _eventually(is_so):
    end = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.02)
