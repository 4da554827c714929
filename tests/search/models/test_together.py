import threading

import numpy as np
import pytest

from fovea.search.models import together as together_module
from fovea.search.models.together import MOST, Together
from toys import TolerantEncoder, lazily

PATIENCE_S = 60


def rows(texts):
    return np.array([[len(text), sum(map(ord, text))] for text in texts], np.float32)


class Interrupted(BaseException):
    """What ends a thread, as KeyboardInterrupt does the main one."""


class Slow:
    """Embeds texts, but only when it may; notes each pass."""

    def __init__(self):
        self.passes, self.began, self.may = [], threading.Semaphore(0), threading.Semaphore(0)

    def __call__(self, texts):
        self.passes.append(list(texts))
        self.began.release()
        assert self.may.acquire(timeout=PATIENCE_S)
        if "bad" in texts:
            raise ValueError("bad")
        if "dying" in texts:
            raise Interrupted
        return rows(texts)

    def wait(self):
        assert self.began.acquire(timeout=PATIENCE_S)


@pytest.fixture
def slow():
    return Slow()


@pytest.fixture
def asked():
    """A function that asks for a text in a thread; its list gets the row or the error."""
    threads = []

    def start(together, text):
        found = []

        def ask():
            try:
                found.extend(together.embed([text]))
            except ValueError as exc:
                found.append(exc)

        threads.append(threading.Thread(target=ask, daemon=True))
        threads[-1].start()
        return found

    def joined():
        for thread in threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive()

    start.joined = joined
    return start


def wait_for(together, count):
    """Wait until so many texts wait for the next pass."""
    for _ in range(PATIENCE_S * 100):
        if len(together._waiting) == count:
            return
        threading.Event().wait(0.01)
    raise AssertionError(f"{len(together._waiting)} texts wait, not {count}")


def test_a_lone_text_is_embedded_at_once():
    passes = []

    def encode(texts):
        passes.append(list(texts))
        return rows(texts)

    together = Together(encode, 1)
    for text in ("one", "two"):
        assert together.embed([text]).tolist() == rows([text]).tolist()
    assert passes == [["one"], ["two"]]


def test_what_comes_meanwhile_is_embedded_in_one_pass(slow, asked):
    together = Together(slow, 1)
    texts = ["first", *(f"text {number}" for number in range(5)), "text 0"]
    found = [asked(together, texts[0])]
    slow.wait()
    for number, text in enumerate(texts[1:], 1):
        found.append(asked(together, text))
        wait_for(together, number)
    slow.may.release(2)
    asked.joined()
    assert slow.passes == [["first"], texts[1:-1]], "the same text once"
    for text, [row] in zip(texts, found, strict=True):
        assert row.tolist() == rows([text])[0].tolist()
    slow.may.release()
    together.embed(["later"])
    assert slow.passes[2:] == [["later"]], "nothing is left over"


def test_a_pass_is_not_too_long(slow, asked):
    together = Together(slow, 1)
    found = [asked(together, "first")]
    slow.wait()
    for number in range(MOST + 3):
        found.append(asked(together, str(number)))
        wait_for(together, number + 1)
    slow.may.release(3)
    asked.joined()
    assert [len(texts) for texts in slow.passes] == [1, MOST, 3]
    assert all(len(row) == 1 for row in found)


def test_the_texts_of_one_thread_are_embedded_in_one_pass(slow):
    together, texts = Together(slow, 1), ["one", "two", "one", "three"]
    slow.may.release(3)
    assert together.embed(texts).tolist() == rows(texts).tolist()
    assert slow.passes == [["one", "two", "three"]]
    many = [str(number) for number in range(MOST + 3)]
    assert together.embed(many).tolist() == rows(many).tolist()
    assert [len(texts) for texts in slow.passes[1:]] == [MOST, 3]


def test_a_pass_has_no_part_of_what_a_thread_wants(slow, asked):
    together = Together(slow, 1)
    asked(together, "first")
    slow.wait()
    asked(together, "second")
    wait_for(together, 1)
    many = [f"of {MOST}: {number}" for number in range(MOST)]
    found = []
    thread = threading.Thread(target=lambda: found.append(together.embed(many)), daemon=True)
    thread.start()
    wait_for(together, 2)
    asked(together, "last")
    wait_for(together, 3)
    slow.may.release(4)
    asked.joined()
    thread.join(PATIENCE_S)
    assert slow.passes == [["first"], ["second"], many, ["last"]]
    assert found[0].tolist() == rows(many).tolist()


def test_a_text_that_fails_hinders_no_other(slow, asked):
    together = Together(slow, 1)
    asked(together, "first")
    slow.wait()
    found = {}
    for number, text in enumerate(("good", "bad", "fine"), 1):
        found[text] = asked(together, text)
        wait_for(together, number)
    slow.may.release(5)  # the first, the batch, and each of it alone
    asked.joined()
    assert slow.passes == [["first"], ["good", "bad", "fine"], ["good"], ["bad"], ["fine"]]
    assert isinstance(found["bad"][0], ValueError)
    for text in ("good", "fine"):
        assert found[text][0].tolist() == rows([text])[0].tolist()


def test_a_lone_text_that_fails_leaves_the_place_to_others(slow):
    together = Together(slow, 1)
    slow.may.release(2)
    with pytest.raises(ValueError, match="bad"):
        together.embed(["bad"])
    assert together.embed(["good"]).tolist() == rows(["good"]).tolist()


def test_no_more_than_so_many_passes_run_at_a_time(slow, asked):
    together = Together(slow, 2)
    for text in ("one", "two"):
        asked(together, text)
        slow.wait()
    asked(together, "three")
    wait_for(together, 1)
    assert slow.passes == [["one"], ["two"]]
    slow.may.release(3)
    asked.joined()
    assert slow.passes[2:] == [["three"]]


@pytest.mark.parametrize("passes", [1, 3])
def test_many_threads_get_their_own_rows(passes):
    together, wrong = Together(rows, passes), []

    def ask(start):
        for number in range(200):
            text = f"{start} and {number}"
            if together.embed([text]).tolist() != rows([text]).tolist():
                wrong.append(text)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
    assert not wrong
    assert together._free == passes, "all may run at once again"


def test_two_passes_that_end_at_once_are_followed_by_two(slow, asked, monkeypatch):
    may = threading.Event()

    class Unhurried(threading.Event):
        def wait(self, timeout=None):
            return super().wait(timeout) and may.wait(PATIENCE_S)

    together = Together(slow, 2)
    for text in ("one", "two"):
        asked(together, text)
        slow.wait()
    waiting_on(Unhurried, monkeypatch)
    found = []
    for number, text in enumerate(("three", "four"), 1):
        found.append(asked(together, text))
        wait_for(together, number)
    slow.may.release(2)
    wait_for(together, 0)  # each of the two is to make a pass of its own
    may.set()
    for _ in range(2):
        slow.wait()
    assert sorted(slow.passes[2:]) == [["four"], ["three"]]
    slow.may.release(2)
    asked.joined()
    for text, [row] in zip(("three", "four"), found, strict=True):
        assert row.tolist() == rows([text])[0].tolist()
    assert together._free == 2


def waiting_on(event, monkeypatch):
    """Let whoever comes from now on wait for an event of this class."""

    class Wanted(together_module._Wanted):
        def __init__(self, text):
            super().__init__(text)
            self.woken = event()

    monkeypatch.setattr(together_module, "_Wanted", Wanted)


def test_whoever_waits_goes_on_after_the_thread_that_embeds_has_died(slow, asked):
    together = Together(slow, 1)
    leading = threading.Event()

    def interrupted():
        with pytest.raises(Interrupted):
            together.embed(["dying"])
        leading.set()

    asked(together, "first")
    slow.wait()
    thread = threading.Thread(target=interrupted, daemon=True)
    thread.start()
    wait_for(together, 1)
    found = []
    for number, text in enumerate(("good", "fine"), 2):
        found.append(asked(together, text))
        wait_for(together, number)
    slow.may.release(3)
    assert leading.wait(PATIENCE_S)
    asked.joined()
    assert slow.passes == [["first"], ["dying", "good", "fine"], ["good", "fine"]]
    for text, [row] in zip(("good", "fine"), found, strict=True):
        assert row.tolist() == rows([text])[0].tolist()
    assert together._free == 1


def test_whoever_gives_up_leaves_the_next_pass_to_others(slow, asked, monkeypatch):
    together = Together(slow, 1)
    asked(together, "first")
    slow.wait()
    gone = []

    class GivingUp(threading.Event):
        def wait(self, timeout=None):
            super().wait(timeout)
            raise Interrupted

    def give_up():
        with pytest.raises(Interrupted):
            together.embed(["given up"])
        gone.append(True)

    with monkeypatch.context() as patch:
        waiting_on(GivingUp, patch)
        thread = threading.Thread(target=give_up, daemon=True)
        thread.start()
        wait_for(together, 1)
    found = asked(together, "next")
    wait_for(together, 2)
    slow.may.release(2)
    asked.joined()
    thread.join(PATIENCE_S)
    assert gone and slow.passes == [["first"], ["next"]]
    assert found[0].tolist() == rows(["next"])[0].tolist()
    assert together._free == 1


def test_a_remembered_text_is_not_changed_by_who_gets_it():
    encoder = lazily(TolerantEncoder())
    [first] = encoder.encode_texts(["red"])
    kept = first.copy()
    first[:] = 0
    assert encoder.encode_texts(["red"])[0].tolist() == kept.tolist()


def test_only_texts_that_are_not_remembered_are_embedded():
    class Noting(TolerantEncoder):
        passes = []

        def encode_texts(self, texts):
            self.passes.append(list(texts))
            return super().encode_texts(texts)

    encoder = lazily(Noting())
    texts = ["red", "blue", "red", "lime"]
    first = encoder.encode_texts(texts[:2])
    found = encoder.encode_texts(texts)
    assert Noting.passes == [["red", "blue"], ["lime"]]
    assert found[:2].tolist() == first.tolist() and found[2].tolist() == found[0].tolist()
    assert found.tolist() == TolerantEncoder().encode_texts(texts).tolist()
