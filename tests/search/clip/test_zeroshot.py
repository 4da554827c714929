import numpy as np
import pytest

from closeness import assert_close, assert_close_rows
from fovea.search.clip.zeroshot import class_embeddings, class_probabilities


class Letters:
    """A toy encoder: a text's embedding counts three letters."""

    def encode_texts(self, texts):
        rows = np.array([[text.count(letter) for letter in "abc"] for text in texts], np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_an_ensemble_is_the_normalised_mean_of_unit_prompts():
    rows = class_embeddings(Letters(), ["bb", "c"], ["a{}", "{}b", "c {} c"])
    prompts = {"bb": [(1, 2, 0), (0, 3, 0), (0, 2, 2)], "c": [(1, 0, 1), (0, 1, 1), (0, 0, 3)]}
    for row, counts in zip(rows, prompts.values(), strict=True):
        units = [np.array(c) / np.linalg.norm(c) for c in counts]
        mean = sum(units) / 3
        assert_close_rows(row, mean / np.linalg.norm(mean))
    assert rows.dtype == np.float32 and rows.shape == (2, 3)


def test_one_prompt_is_its_own_ensemble():
    rows = class_embeddings(Letters(), ["cab", "b"])
    assert_close_rows(rows, Letters().encode_texts(["a photo of a cab.", "a photo of a b."]))


def test_braces_in_a_label_are_kept():
    seen = []

    class Recorder:
        def encode_texts(self, texts):
            seen.extend(texts)
            return np.ones((len(texts), 1), np.float32)

    class_embeddings(Recorder(), ["{odd} {}"], ["a {}.", "{} and {}"])
    assert seen == ["a {odd} {}.", "{odd} {} and {odd} {}"]


def test_no_template_is_an_error():
    with pytest.raises(ValueError, match="template"):
        class_embeddings(Letters(), ["a"], [])


def test_probabilities_are_the_softmax_of_scaled_cosines():
    images = np.array([[1, 0], [0.6, 0.8]], np.float32)
    classes = np.array([[1, 0], [0, 1], [-1, 0]], np.float32)
    shares = class_probabilities(images, classes, 10.0)
    powers = np.exp(10 * np.array([[1, 0, -1], [0.6, 0.8, -0.6]]))
    assert_close(shares, powers / powers.sum(axis=1, keepdims=True))
    assert shares.dtype == np.float32


def test_a_large_scale_does_not_overflow():
    shares = class_probabilities(np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32), 1e4)
    assert shares == pytest.approx(np.eye(2))
