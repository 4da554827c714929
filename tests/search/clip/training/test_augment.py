import numpy as np
import pytest
import torch
from PIL import Image

from closeness import assert_close
from fovea.search.clip.errors import ModelError
from fovea.search.clip.training.augment import (
    Augmentation,
    draw_colours,
    drop_words,
    random_crop,
    vary_colour,
)

PLAIN = Augmentation(area=(1, 1), aspect=(1, 1), flip=0, colour=0, grey=0)


def gradient(width=40, height=40):
    x = np.linspace(0, 255, width).astype(np.uint8)
    return Image.fromarray(np.repeat(np.tile(x, (height, 1))[:, :, None], 3, axis=2))


def test_without_variation_the_whole_image_is_kept():
    image = gradient()
    pixels = random_crop(image, 40, PLAIN, np.random.default_rng(0))
    assert np.array_equal(pixels, np.asarray(image))


def test_a_flip_mirrors_left_and_right():
    how = Augmentation(area=(1, 1), aspect=(1, 1), flip=1, colour=0, grey=0)
    pixels = random_crop(gradient(), 40, how, np.random.default_rng(0))
    assert np.array_equal(pixels, np.asarray(gradient())[:, ::-1])


@pytest.mark.parametrize("seed", range(5))
def test_a_crop_has_the_size_asked_for_and_repeats_with_its_seed(seed):
    image = gradient(90, 30)
    one, two = (
        random_crop(image, 24, Augmentation(), np.random.default_rng(seed)) for _ in range(2)
    )
    assert one.shape == (24, 24, 3) and one.dtype == np.uint8
    assert np.array_equal(one, two)


def test_a_crop_shows_less_than_the_whole():
    how = Augmentation(area=(0.3, 0.5), aspect=(1, 1), flip=0)
    pixels = random_crop(gradient(), 40, how, np.random.default_rng(1))
    assert int(pixels.max()) - int(pixels.min()) < 220


def varied(images, seed=0, **how):
    factors = draw_colours(len(images), Augmentation(**how), np.random.default_rng(seed))
    return vary_colour(images, factors)


def test_colours_stay_when_nothing_may_vary():
    images = torch.rand(3, 3, 8, 8)
    assert_close(varied(images, colour=0, grey=0), images)


def test_colours_vary_by_image_and_stay_in_range():
    images = torch.rand(1, 3, 8, 8).expand(4, 3, 8, 8)
    out = varied(images, colour=0.5, grey=0)
    assert out.min() >= 0 and out.max() <= 1
    assert not torch.allclose(out[0], out[1])


def test_detail_is_taken_out_or_added_and_flat_areas_stay():
    edge = torch.full((1, 3, 8, 8), 0.25)
    edge[..., 4:] = 0.75
    images = edge.expand(64, 3, 8, 8)
    out = varied(images, colour=0, grey=0, sharpness=1)
    steps = (out[:, 0, 4, 4] - out[:, 0, 4, 3]) / 0.5  # of what was between the neighbours
    # a blur of 1 : 2 : 1 leaves half of a step between neighbours, and the rest is detail
    assert steps.min() >= 0.5 + 0.5 / 4 - 1e-5 and steps.min() < 0.8
    assert steps.max() > 1.5
    assert_close(out[..., 0], images[..., 0])
    assert_close(out[..., 7], images[..., 7])


def test_without_sharpness_the_same_colours_are_drawn_as_with_it():
    plain, sharp = (
        draw_colours(5, Augmentation(sharpness=s), np.random.default_rng(3)) for s in (0, 1)
    )
    assert np.array_equal(plain[:, :3], sharp[:, :3])
    assert (plain[:, 3] == 1).all() and (sharp[:, 3] != 1).all()


def test_words_drop_out_at_their_rate_and_one_stays():
    rng = np.random.default_rng(0)
    text = " ".join(map(str, range(1000)))
    kept = drop_words(text, 0.3, rng).split()
    assert 620 < len(kept) < 780 and kept == sorted(kept, key=int)
    assert drop_words("one two three", 1.0, rng) in ("one", "two", "three")
    assert drop_words("  as   it is ", 0.0, rng) == "  as   it is "
    assert drop_words("", 0.5, rng) == ""


def test_grey_takes_the_colour_out():
    images = torch.rand(2, 3, 8, 8)
    out = varied(images, colour=0, grey=1)
    assert_close(out[:, 0], out[:, 1])
    luma = images[:, 0] * 0.299 + images[:, 1] * 0.587 + images[:, 2] * 0.114
    assert_close(out[:, 0], luma)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("area", (0, 1)),
        ("aspect", (2, 1)),
        ("flip", 1.5),
        ("colour", -0.1),
        ("sharpness", 2),
        ("words", -1),
    ],
)
def test_what_cannot_be_drawn_from_is_refused(field, value):
    with pytest.raises(ModelError, match=field):
        Augmentation(**{field: value})
