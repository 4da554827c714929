import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, ImageCms

from fovea.search.clip.config import PUBLISHED_MEAN, PUBLISHED_STD
from fovea.search.clip.preprocess import Preprocess, orientation, to_rgb
from places import CHECKOUT

SIZE = 32
RNG = np.random.default_rng(7)


def picture(width: int, height: int) -> Image.Image:
    """A smooth picture in which every corner differs."""
    y, x = np.mgrid[0:height, 0:width]
    red, green = x * 255 // max(width - 1, 1), y * 255 // max(height - 1, 1)
    return Image.fromarray(np.stack([red, green, (red + green) // 2], axis=-1).astype(np.uint8))


def reference(image: Image.Image, size: int = SIZE) -> np.ndarray:
    """What torchvision's Resize(size, BICUBIC) and CenterCrop(size) do, by their definition."""
    w, h = image.size
    if w <= h:
        image = image.resize((size, int(size * h / w)), Image.Resampling.BICUBIC)
    else:
        image = image.resize((int(size * w / h), size), Image.Resampling.BICUBIC)
    left = int(round((image.width - size) / 2.0))
    top = int(round((image.height - size) / 2.0))
    return np.asarray(image.crop((left, top, left + size, top + size)))


@pytest.mark.parametrize(
    "shape", [(64, 48), (48, 64), (33, 32), (32, 32), (97, 31), (8, 8), (7, 5)]
)
def test_pixels_are_those_of_the_reference(shape):
    noise = Image.fromarray(RNG.integers(0, 256, (*shape[::-1], 3), dtype=np.uint8))
    assert np.array_equal(Preprocess(SIZE).pixels(noise), reference(noise))


@pytest.mark.parametrize("shape", [(500, 40), (40, 500)])
def test_a_panorama_gives_the_reference_pixels_within_rounding(shape):
    smooth = picture(*shape)
    got, want = Preprocess(SIZE).pixels(smooth).astype(int), reference(smooth).astype(int)
    assert abs(got - want).max() <= 1


@pytest.mark.parametrize("shape", [(200_000, 1), (1, 200_000), (1, 1)])
def test_any_shape_becomes_a_square(shape):
    pixels = Preprocess(SIZE).pixels(Image.new("RGB", shape, (10, 200, 30)))
    assert pixels.shape == (SIZE, SIZE, 3) and pixels.dtype == np.uint8
    assert (pixels == (10, 200, 30)).all()


def test_normalised_pixels_have_the_published_mean_and_deviation():
    pixels = RNG.integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)
    values = Preprocess(4).normalise(pixels)
    assert values.shape == (2, 3, 4, 4) and values.dtype == np.float32
    want = (pixels[1, 2, 3, 0] / 255 - 0.48145466) / 0.26862954
    assert values[1, 0, 2, 3] == pytest.approx(want, abs=1e-6)
    assert PUBLISHED_MEAN == (0.48145466, 0.4578275, 0.40821073)
    assert PUBLISHED_STD == (0.26862954, 0.26130258, 0.27577711)


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I"])
def test_a_16_bit_grey_keeps_its_high_bytes(mode):
    levels = np.array([[0, 257 * 10, 257 * 128, 65535]], dtype=np.uint16)
    if mode == "I":
        image = Image.fromarray(levels.astype(np.int32))
    else:
        raw = levels.astype(">u2" if mode.endswith("B") else "<u2").tobytes()
        image = Image.frombytes(mode, (4, 1), raw)
    assert image.mode == mode
    grey = np.asarray(to_rgb(image))
    assert grey[0].tolist() == [[0] * 3, [10] * 3, [128] * 3, [255] * 3]


def test_a_16_bit_png_and_tiff_from_disk_keep_their_high_bytes(tmp_path):
    levels = (np.arange(64, dtype=np.uint16) * 1040).reshape(8, 8)
    for name in ("grey.png", "grey.tif"):
        Image.fromarray(levels).save(tmp_path / name)
        with Image.open(tmp_path / name) as image:
            got = np.asarray(to_rgb(image))[..., 0].astype(int)
        assert abs(got - levels / 257).max() <= 0.5


@pytest.mark.parametrize(
    ("values", "want"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 100.0, 255.0], [0, 100, 255]),
        ([-1.0, 0.0, 1.0], [0, 128, 255]),
        ([0.0, float("nan"), 1.0], [0, 0, 255]),
    ],
)
def test_float_greys_are_scaled_by_the_range_they_lie_in(values, want):
    image = Image.fromarray(np.array([values], dtype=np.float32))
    assert abs(np.asarray(to_rgb(image))[0, :, 0].astype(int) - want).max() <= 1


def test_cmyk_becomes_rgb(tmp_path):
    colours = {(255, 0, 0): (0, 255, 255, 0), (0, 0, 255): (255, 255, 0, 0)}
    for rgb, cmyk in colours.items():
        Image.new("CMYK", (16, 16), cmyk).save(tmp_path / "cmyk.jpg", quality=100)
        with Image.open(tmp_path / "cmyk.jpg") as image:
            assert image.mode == "CMYK"
            got = np.asarray(to_rgb(image)).astype(int)
        assert abs(got - rgb).max() <= 3


def test_a_palette_shows_its_colours_and_its_transparent_entry_white():
    image = Image.new("P", (2, 1))
    image.putpalette([200, 10, 20, 1, 2, 3])
    image.putdata([0, 1])
    assert np.asarray(to_rgb(image)).tolist() == [[[200, 10, 20], [1, 2, 3]]]
    image.info["transparency"] = 1
    assert np.asarray(to_rgb(image)).tolist() == [[[200, 10, 20], [255, 255, 255]]]


@pytest.mark.parametrize(("mode", "value", "want"), [("L", 77, 77), ("1", 1, 255), ("1", 0, 0)])
def test_greys_have_three_equal_channels(mode, value, want):
    assert (np.asarray(to_rgb(Image.new(mode, (3, 2), value))) == want).all()


@pytest.mark.parametrize(
    ("mode", "colour", "want"),
    [
        ("RGBA", (255, 0, 0, 255), (255, 0, 0)),
        ("RGBA", (255, 0, 0, 0), (255, 255, 255)),
        ("RGBA", (255, 0, 0, 128), (255, 127, 127)),
        ("LA", (0, 0), (255, 255, 255)),
        ("LA", (40, 255), (40, 40, 40)),
        ("PA", (0, 0), (255, 255, 255)),
    ],
)
def test_transparency_shows_white(mode, colour, want):
    image = Image.new(mode, (2, 2), colour)
    assert abs(np.asarray(to_rgb(image)).astype(int) - want).max() <= 1


def test_the_first_frame_of_an_animation_is_taken(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    for name in ("moving.gif", "moving.png", "moving.webp", "pages.tif"):
        lossless = {"lossless": True} if name.endswith("webp") else {}
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **lossless)
        with Image.open(tmp_path / name) as image:
            image.seek(2)
            assert (np.asarray(to_rgb(image)) == (255, 0, 0)).all(), name


TURNED = {  # what undoes each EXIF orientation, by the standard's table
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.webp"])
@pytest.mark.parametrize("value", TURNED)
def test_exif_orientation_is_applied(tmp_path, name, value):
    image = picture(24, 16)
    exif = Image.Exif()
    exif[0x0112] = value
    image.save(tmp_path / name, exif=exif, **({"lossless": True} if "webp" in name else {}))
    with Image.open(tmp_path / name) as stored:
        upright = np.asarray(to_rgb(stored))
    assert np.array_equal(upright, TURNED[value](np.asarray(image)))


def test_broken_exif_leaves_the_picture_as_it_is():
    class Broken(Image.Image):
        def getexif(self):
            raise SyntaxError("not a TIFF file")

    assert orientation(Broken()) == 1


@pytest.mark.parametrize("value", [0, 9, "6", None])
def test_an_orientation_that_does_not_exist_is_none(value):
    image = Image.new("RGB", (2, 1))
    image.getexif()[0x0112] = value
    assert orientation(image) == 1


def test_lab_becomes_rgb():
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    image = picture(16, 16)
    lab = ImageCms.profileToProfile(image, *profiles, outputMode="LAB")
    assert abs(np.asarray(to_rgb(lab)).astype(int) - np.asarray(image)).mean() < 2


def test_draft_decodes_a_jpeg_at_a_scale_that_suffices(tmp_path):
    picture(800, 600).save(tmp_path / "large.jpg", quality=95)
    preprocess = Preprocess(64)
    with Image.open(tmp_path / "large.jpg") as image:
        whole = preprocess.pixels(image).astype(int)
    with Image.open(tmp_path / "large.jpg") as image:
        preprocess.draft(image)
        assert image.size == (100, 75)
        drafted = preprocess.pixels(image).astype(int)
    assert abs(drafted - whole).mean() < 2


def test_workers_need_no_torch():
    code = "import sys, fovea.search.clip.preprocess; assert 'torch' not in sys.modules"
    folder = CHECKOUT
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True)


def test_squashed_pixels_are_the_whole_picture():
    noise = Image.fromarray(RNG.integers(0, 256, (50, 90, 3), dtype=np.uint8))
    got = Preprocess(SIZE, fit="squash", resampling="BILINEAR").pixels(noise)
    assert np.array_equal(got, np.asarray(noise.resize((SIZE, SIZE), Image.Resampling.BILINEAR)))


@pytest.mark.parametrize("shape", [(64, 48), (48, 65), (33, 37), (90, 41)])
def test_a_crop_may_be_smaller_than_what_it_is_cut_from(shape):
    noise = Image.fromarray(RNG.integers(0, 256, (*shape[::-1], 3), dtype=np.uint8))
    got = Preprocess(SIZE, resize=39, rounds_down=True).pixels(noise)
    short = min(shape)
    width, height = (int(39 * side / short) for side in shape)
    left, top = (width - SIZE) // 2, (height - SIZE) // 2
    whole = np.asarray(noise.resize((width, height), Image.Resampling.BICUBIC))
    assert np.array_equal(got, whole[top : top + SIZE, left : left + SIZE])
    assert Preprocess(SIZE, resize=39).draft_size == (39, 39)


def test_a_panorama_is_cut_from_a_resized_one_too():
    smooth = picture(500, 40)
    got = Preprocess(SIZE, resize=40, rounds_down=True).pixels(smooth).astype(int)
    want = np.asarray(smooth)[4:36, 234:266].astype(int)
    assert abs(got - want).max() <= 1
