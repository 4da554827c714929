import math

import numpy as np
import pytest
from PIL import Image

from fovea.search.clip.patches import grid_of, packed, side_for, unpacked
from fovea.search.clip.preprocess import Preprocess

RNG = np.random.default_rng(3)


def noise(width, height):
    return Image.fromarray(RNG.integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize(("patch", "patches"), [(16, 256), (14, 256), (1, 1), (2, 3), (16, 729)])
def test_the_square_holds_all_patches_and_their_shape_and_no_more(patch, patches):
    needed = patches * patch * patch * 3 + 4
    side = side_for(patch, patches)
    assert side * side * 3 >= needed > (side - 1) ** 2 * 3


@pytest.mark.parametrize("size", [(640, 480), (480, 640), (32, 32), (1000, 10), (3, 700), (1, 1)])
def test_a_grid_fits_keeps_the_shape_and_leaves_no_room_for_more(size):
    rows, columns = grid_of(*size, 16, 64)
    assert 1 <= rows * columns <= 64
    width, height = size
    if min(size) > 30:
        assert abs(math.log((columns / rows) / (width / height))) < 0.35, "a patch's rounding"
        assert (rows + 1) * (columns + 1) > 64


def test_a_square_fills_a_square_grid():
    assert grid_of(500, 500, 16, 256) == (16, 16)
    assert grid_of(500, 500, 16, 255) == (15, 15)


def test_pictures_larger_than_the_smallest_scale_still_fit():
    rows, columns = grid_of(60_000_000, 2, 8, 16)
    assert rows * columns <= 16


def test_what_is_packed_comes_out_again_patch_by_patch():
    image = noise(50, 23)
    square = packed(image, 4, 30, Image.Resampling.BILINEAR)
    assert square.shape == (side_for(4, 30), side_for(4, 30), 3) and square.dtype == np.uint8
    patches, shapes = unpacked(np.stack([square, square]), 4, 30)
    rows, columns = grid_of(50, 23, 4, 30)
    assert shapes.tolist() == [[rows, columns]] * 2 and patches.shape == (2, 30, 48)
    whole = np.asarray(image.resize((columns * 4, rows * 4), Image.Resampling.BILINEAR))
    for number in range(rows * columns):
        row, column = divmod(number, columns)
        want = whole[row * 4 : row * 4 + 4, column * 4 : column * 4 + 4].reshape(-1)
        assert np.array_equal(patches[0, number], want)
    assert not patches[:, rows * columns :].any()


def test_preprocessing_packs_and_decodes_large_enough(tmp_path):
    preprocess = Preprocess(side_for(8, 20), fit="patches", patch=8, patches=20)
    assert preprocess.pixels(noise(90, 40)).shape == (preprocess.size, preprocess.size, 3)
    noise(4000, 500).save(tmp_path / "wide.jpg")
    with Image.open(tmp_path / "wide.jpg") as image:
        preprocess.draft(image)
        rows, columns = grid_of(*image.size, 8, 20)
        assert image.width >= columns * 8 and image.height >= rows * 8
