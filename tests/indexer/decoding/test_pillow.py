"""Bytes become a model's pixels, or one line that says why not."""

import io

import numpy as np
import pytest
from PIL import Image

from fovea.indexer.decoding import pillow as decoding
from fovea.indexer.decoding.limits import MB, Limits, Refused
from fovea.indexer.decoding.pillow import decode
from fovea.search.clip.preprocess import Preprocess

PREPROCESS = Preprocess(32)

# Workers ignore warnings; here pytest sets its own filters for each test.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("prepared")]


def encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def gradient(width=90, height=60):
    """An image without symmetry: red grows to the right, green downwards."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0] = np.linspace(0, 255, width)
    pixels[..., 1] = np.linspace(0, 255, height)[:, None]
    return Image.fromarray(pixels)


@pytest.mark.parametrize(
    "kind",
    ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "JPEG2000", "PPM", "HEIF"],
)
def test_every_format_becomes_the_same_pixels(kind):
    lossless = {"WEBP": {"lossless": True}, "JPEG": {"quality": 98}, "HEIF": {"quality": 95}}
    picture = decode(encoded(gradient(), kind, **lossless.get(kind, {})), PREPROCESS, Limits())
    shown = picture.metadata
    assert (shown.width, shown.height, shown.format) == (90, 60, kind)
    assert picture.pixels.shape == (32, 32, 3) and picture.pixels.dtype == np.uint8
    expected = PREPROCESS.pixels(gradient()).astype(int)
    assert abs(picture.pixels - expected).mean() < 6


def test_orientation_turns_pixels_and_size():
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    picture = decode(encoded(gradient(), "JPEG", exif=exif, quality=98), PREPROCESS, Limits())
    shown = picture.metadata
    assert (shown.width, shown.height, shown.orientation) == (60, 90, 6)
    upright = PREPROCESS.pixels(gradient().transpose(Image.Transpose.ROTATE_270)).astype(int)
    assert abs(picture.pixels - upright).mean() < 4


def test_a_large_jpeg_is_decoded_at_the_scale_that_suffices(monkeypatch):
    sizes = []
    check = decoding.check_decoded
    monkeypatch.setattr(
        decoding,
        "check_decoded",
        lambda image, limits: (sizes.append(image.size), check(image, limits)),
    )
    picture = decode(encoded(gradient(1200, 800), "JPEG"), PREPROCESS, Limits())
    shown = picture.metadata
    assert (shown.width, shown.height) == (1200, 800)
    assert sizes == [(150, 100)]  # an eighth, the least there is


@pytest.mark.parametrize("size", [(1, 4000), (4000, 1), (1, 1)])
def test_strips_and_dots_have_pixels_too(size):
    picture = decode(encoded(Image.new("RGB", size, "red")), PREPROCESS, Limits())
    assert picture.pixels.reshape(-1, 3).tolist() == [[255, 0, 0]] * 32 * 32


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "broken: the file is empty"),
        (b"<html><script>", 'broken: not a readable picture; its first bytes are "<html><s"'),
        (b"\x01\x02\xff", "broken: not a readable picture; its first bytes are 01 02 ff"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "broken: not a readable picture"),
        (b"%PDF-1.7\n", "broken: not a readable picture"),
        (encoded(gradient(), "JPEG")[:600], "broken: the file ends before the first row"),
        (encoded(gradient())[:50], "broken: "),
        (encoded(gradient(), "TIFF")[:300], "broken: "),
    ],
)
def test_what_cannot_be_decoded_is_refused_in_one_line(data, reason):
    with pytest.raises(Refused) as refused:
        decode(data, PREPROCESS, Limits())
    assert str(refused.value).startswith(reason)
    assert str(refused.value).isprintable() and len(str(refused.value)) < 250


def test_more_pixels_than_the_limit_are_refused_before_decoding():
    data = encoded(Image.new("1", (3000, 2000)))
    reason = "too large: 3,000 x 2,000 pixels are 6 megapixels; the limit is 5"
    with pytest.raises(Refused, match=reason):
        decode(data, PREPROCESS, Limits(pixels=5_000_000))


def test_the_decoded_size_is_held_where_pillow_says_nothing():
    image = Image.new("RGB", (2000, 2000))
    limits = Limits(decoded=8 * MB)
    with pytest.raises(Refused, match="2,000 x 2,000 pixels take 15 MB; the limit is 8.0 MB"):
        decode(encoded(image), PREPROCESS, limits)
    decode(encoded(image, "JPEG"), PREPROCESS, limits)  # decoded at an eighth


def test_running_out_of_memory_is_a_reason(monkeypatch):
    def exhausted(self, image):
        raise MemoryError

    monkeypatch.setattr(Preprocess, "pixels", exhausted)
    with pytest.raises(Refused, match="too large: decoding needs more than 1,024 MB of memory"):
        decode(encoded(gradient()), PREPROCESS, Limits())


def test_the_first_frame_of_an_animation_counts():
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("blue", "red", "lime")]
    for kind in ("GIF", "WEBP", "PNG", "TIFF"):
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
        picture = decode(data, PREPROCESS, Limits())
        assert picture.pixels.mean(axis=(0, 1)) == pytest.approx([0, 0, 255], abs=4), kind


def test_a_jpeg_with_a_second_picture_behind_it_is_a_jpeg():
    data = encoded(gradient(), "MPO", save_all=True, append_images=[gradient(30, 20)])
    picture = decode(data, PREPROCESS, Limits())
    shown = picture.metadata
    assert (shown.format, shown.width, shown.height) == ("JPEG", 90, 60)


def test_a_broken_exif_does_not_cost_the_picture():
    data = encoded(gradient(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    picture = decode(data, PREPROCESS, Limits())
    shown = picture.metadata
    assert (shown.orientation, shown.taken_at) == (1, None)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError("image file is truncated"), "broken: image file is truncated"),
        (AssertionError(), "broken: its decoder failed (AssertionError)"),
        (TypeError("takes at most 3 arguments"), "broken: its decoder failed (TypeError)"),
        (OSError(), "broken: its decoder failed (OSError)"),
    ],
)
def test_a_decoders_own_mistake_is_told_in_plain_words(monkeypatch, error, reason):
    def fail(data, limits):
        raise error

    monkeypatch.setattr("fovea.indexer.decoding.pillow.screened", fail)
    with pytest.raises(Refused) as caught:
        decode(b"data", Preprocess(8), Limits())
    assert str(caught.value) == reason
