import re

import numpy as np
import pytest

from fovea.web.engine import kept_pictures as module
from fovea.web.engine.kept_pictures import PATTERN, KeptPicture, KeptPictures, Named, named_in

A, B = "a" * 64, "b" * 64


def picture(sha256, small=b""):
    return KeptPicture(sha256, "model", np.zeros(4, np.float32), small)


@pytest.fixture
def clock():
    return [0.0]


@pytest.fixture
def kept(clock):
    return KeptPictures(now=lambda: clock[0])


def test_a_picture_is_kept_for_a_while_after_its_last_use(kept, clock):
    kept.keep(picture(A))
    clock[0] = module.KEPT_S - 1
    assert kept.get(A).sha256 == A
    clock[0] += module.KEPT_S - 1
    assert kept.get(A) is not None
    clock[0] += module.KEPT_S
    assert kept.get(A) is None
    assert kept.get(B) is None


def test_the_one_unused_for_longest_goes_first(kept, monkeypatch):
    monkeypatch.setattr(module, "MOST", 2)
    for name in "abc":
        kept.keep(picture(name * 64))
        kept.get(A)
    assert [kept.get(name * 64) is not None for name in "abc"] == [True, False, True]


def test_many_bytes_are_not_kept(kept, monkeypatch):
    monkeypatch.setattr(module, "MOST_BYTES", 100)
    kept.keep(picture(A, b"x" * 60))
    kept.keep(picture(B, b"x" * 60))
    assert kept.get(A) is None and kept.get(B) is not None


def test_an_address_names_pictures_with_signs_and_weights():
    text = f"{A},-{B},0.5:{A},-2:{B}"
    assert re.fullmatch(PATTERN, text)
    assert named_in(text) == [Named(A, 1), Named(B, -1), Named(A, 0.5), Named(B, -2)]
    assert named_in("") == []


@pytest.mark.parametrize(
    "text", [A[1:], A.upper(), f"{A},", f"{A} {A}", f"+{A}", f"1e3:{A}", ",".join([A] * 9)]
)
def test_other_texts_name_none(text):
    assert not re.fullmatch(PATTERN, text)
