"""Changes are joined, and wait until files are whole."""

import pytest

from fovea.indexer.watching import pending as module
from fovea.indexer.watching.pending import Pending, Work

ROOT, OTHER = b"/photos", b"/scans"
QUIET = module.SETTLED_S + 0.01


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def pending(clock):
    return Pending(clock)


def test_a_closed_file_is_taken_once_it_is_quiet(pending, clock):
    assert pending.take() is None
    pending.written(ROOT, b"/photos/a.jpg", is_closed=True)
    assert pending.take() is None
    clock.now += QUIET
    assert pending.take() == Work((), (b"/photos/a.jpg",))
    assert pending.take() is None


def test_a_file_that_is_written_to_is_left_alone(pending, clock):
    for _ in range(20):
        pending.written(ROOT, b"/photos/a.jpg", is_closed=False)
        clock.now += module.UNCLOSED_S - 0.1
        assert pending.take() is None
    pending.written(ROOT, b"/photos/b.jpg", is_closed=True)
    clock.now += QUIET  # the other one need not wait for it, nor it for the other
    assert pending.take() == Work((), (b"/photos/a.jpg", b"/photos/b.jpg"))


def test_an_unclear_root_is_scanned_once_it_is_quiet_and_reads_its_files(pending, clock):
    pending.unclear(ROOT)
    pending.written(ROOT, b"/photos/a.jpg", is_closed=True)
    pending.written(OTHER, b"/scans/b.jpg", is_closed=True)
    clock.now += QUIET / 2
    pending.unclear(ROOT)
    clock.now += QUIET / 2
    assert pending.take() == Work((), (b"/scans/b.jpg",))
    clock.now += QUIET / 2
    assert pending.take() == Work((ROOT,), ())
    assert pending.take() is None


def test_a_root_waits_for_a_file_that_is_written_but_not_for_ever(pending, clock):
    pending.unclear(ROOT)
    started = clock.now
    while (work := pending.take()) is None:
        pending.written(ROOT, b"/photos/a.jpg", is_closed=False)
        clock.now += 1
    assert work == Work((ROOT,), ())
    assert clock.now - started == module.PATIENCE_S
    assert pending.take() is None  # and what is being written is read when it is whole
    clock.now += module.UNCLOSED_S
    assert pending.take() == Work((), (b"/photos/a.jpg",))


def test_many_files_become_one_scan(pending, clock):
    for number in range(module.MOST_FILES + 50):
        pending.written(ROOT, b"/photos/%d.jpg" % number, is_closed=True)
    clock.now += QUIET
    assert pending.take() == Work((ROOT,), ())
    clock.now += module.LONGEST_PAUSE_S
    assert pending.take() is None


def test_a_file_that_has_gone_is_not_waited_for(pending, clock):
    pending.written(ROOT, b"/photos/a.jpg", is_closed=False)
    pending.unclear(ROOT)
    pending.forget(b"/photos/a.jpg")
    clock.now += QUIET
    assert pending.take() == Work((ROOT,), ())


def test_of_a_folder_that_has_left_the_library_nothing_is_taken(pending, clock):
    for root, path in ((ROOT, b"/photos/a.jpg"), (OTHER, b"/scans/b.jpg")):
        pending.written(root, path, is_closed=True)
    pending.unclear(ROOT)
    pending.drop(ROOT)
    pending.drop(b"/unknown")
    clock.now += QUIET
    assert pending.take() == Work((), (b"/scans/b.jpg",))
    assert pending.take() is None


def test_a_file_that_keeps_changing_is_read_less_and_less_often(pending, clock):
    reads = []
    for second in range(2000):
        pending.written(ROOT, b"/photos/still.jpg", is_closed=True)
        clock.now += 1
        if pending.take():
            reads.append(second)
    pauses = [later - earlier for earlier, later in zip(reads, reads[1:], strict=False)]
    assert len(reads) < 20
    assert pauses == sorted(pauses) and pauses[-1] == module.LONGEST_PAUSE_S
    clock.now += 5 * module.LONGEST_PAUSE_S  # then it has rested
    pending.take()
    clock.now += 5 * module.LONGEST_PAUSE_S
    pending.written(ROOT, b"/photos/still.jpg", is_closed=True)
    clock.now += QUIET
    assert pending.take() == Work((), (b"/photos/still.jpg",))


def test_what_is_remembered_is_bounded(pending, clock):
    for number in range(3 * module.MOST_REMEMBERED):
        pending.written(ROOT, b"/photos/%d.jpg" % number, is_closed=True)
        clock.now += QUIET
        assert pending.take()
    assert len(pending._read) == module.MOST_REMEMBERED


@pytest.mark.parametrize("closed", [0, 2])
def test_each_of_many_files_is_looked_at_a_few_times(pending, clock, monkeypatch, closed):
    """Such as hard links, which nobody closes; or of two files, one is closed."""

    class Watched(module._File):
        looks = 0

        def __getattribute__(self, name):
            Watched.looks += 1
            return super().__getattribute__(name)

    monkeypatch.setattr(module, "_File", Watched)
    paths = [b"/photos/%d.jpg" % number for number in range(3000)]
    for number, path in enumerate(paths):
        pending.written(ROOT, path, is_closed=bool(closed) and number % closed == 0)
    assert Watched.looks <= 5 * len(paths)
    clock.now += module.UNCLOSED_S
    work = pending.take()
    assert work.roots == ((ROOT,) if closed else ())
    assert work.files == (() if closed else tuple(paths))
