"""Pairs are proposed without comparing each with each; signatures are what they say."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fovea.search.duplicates.candidates import near_hashes, near_vectors, unlike_bits
from fovea.search.duplicates.signature import SIDE, grey_of, hashes, mirrored, signature_of

HASH = st.integers(0, 2**64 - 1)


@given(HASH, HASH)
def test_bits_are_counted_in_both_directions(one, two):
    a, b = np.array([one], np.uint64), np.array([two], np.uint64)
    plain, turned = (bin(one ^ int(other[0])).count("1") for other in (b, mirrored(b)))
    assert unlike_bits(a, b)[0] == unlike_bits(b, a)[0] == min(plain, turned)


def test_hashes_of_a_mirrored_picture_are_mirrored(scene):
    grey = np.asarray(scene(1).convert("L").resize((SIDE, SIDE)), np.uint8)
    [straight, turned] = hashes(np.stack([grey, grey[:, ::-1]]))
    assert bin(int(mirrored(np.array([straight]))[0]) ^ int(turned)).count("1") <= 2


@given(st.lists(HASH, max_size=30))
def test_equal_hashes_are_paired_and_pairs_are_ordered(found):
    made = np.array([*found, *found], np.uint64)
    pairs = [tuple(pair) for some in near_hashes(made) for pair in some.tolist()]
    assert all(one < two for one, two in pairs)
    if len(found) * 4 < 64:
        assert {(at, at + len(found)) for at in range(len(found))} <= set(pairs)


def test_many_equal_hashes_make_few_pairs():
    count = 2000
    pairs = sum(len(some) for some in near_hashes(np.zeros(count, np.uint64)))
    assert 0 < pairs < 100 * count


def test_near_vectors_are_paired():
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((40, 32)).astype(np.float32)
    vectors[30] = vectors[3] + 0.01
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found = {tuple(pair) for some in near_vectors(vectors) for pair in some.tolist()}
    assert found == {(3, 30)}
    assert not list(near_vectors(vectors[:1]))


def test_a_signature_keeps_the_picture_and_says_how_sharp_it_is(scene):
    sharp = signature_of(scene(1))
    soft = signature_of(scene(1).resize((60, 40)).resize((480, 320)))
    assert soft.sharpness < 0.8 * sharp.sharpness
    wanted = np.asarray(scene(1).convert("L").resize((SIDE, SIDE), Image.Resampling.BOX), np.int16)
    assert np.abs(grey_of(sharp.grey) - wanted).mean() < 8
    assert signature_of(Image.new("RGB", (1, 3000))).sharpness == 0
    assert grey_of(b"") is grey_of(b"RIFF") is None
