"""Items are prefetched in another thread, and none is lost."""

import threading
import time

import pytest

from fovea.indexer.walking.prefetch import CHUNK, Prefetch


def drawn(ahead):
    return [item for item in ahead if item is not None]


def test_all_items_come_out_in_order():
    with Prefetch(iter(range(5000)), 10_000, threading.Event()) as ahead:
        assert drawn(ahead) == list(range(5000))
        assert not ahead.is_active


def test_what_the_source_raises_is_raised_here_after_its_items():
    def source():
        yield from range(3)
        raise OSError("disk")

    with Prefetch(source(), 1000, threading.Event()) as ahead:
        found = []
        with pytest.raises(OSError, match="disk"):
            for item in ahead:
                found.append(item)
    assert [item for item in found if item is not None] == [0, 1, 2]


def test_no_more_wait_than_the_limit():
    taken = 0

    def source():
        nonlocal taken
        while True:
            taken += 1
            yield taken

    with Prefetch(source(), 4 * CHUNK, threading.Event()) as ahead:
        time.sleep(0.3)
        assert taken <= 6 * CHUNK
        assert next(item for item in ahead if item is not None) == 1
    assert "fovea-prefetch" not in {thread.name for thread in threading.enumerate()}


def test_a_slow_source_gives_turns():
    turn = threading.Event()

    def source():
        yield 1
        assert turn.wait(30)
        yield 2

    found = []
    with Prefetch(source(), 10, threading.Event()) as ahead:
        for item in ahead:
            found.append(item)
            if item is None:
                turn.set()
    assert [item for item in found if item is not None] == [1, 2]


def test_a_source_without_items_can_be_told_to_end():
    halt = threading.Event()

    def source():
        yield 1
        while not halt.wait(0.01):
            pass

    with Prefetch(source(), 10, halt) as ahead:
        assert next(item for item in ahead if item is not None) == 1
    assert not ahead.is_active
