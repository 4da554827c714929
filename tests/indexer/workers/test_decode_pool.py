import io
import os
import signal
import sys
import threading

import numpy as np
import pytest
from PIL import Image, ImageCms

from fovea.indexer.decoding.limits import Limits, Refused
from fovea.indexer.workers import decode_pool as rendering
from fovea.indexer.workers.decode_pool import Crowded, Renderer
from fovea.search.clip.preprocess import Preprocess
from places import hostile_files


@pytest.fixture(scope="module")
def renderer():
    made = Renderer(Limits(seconds=6.0), processes=2)
    yield made
    made.close()


def encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def gradient(width, height):
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.dstack([x, y, 255 - x]).astype(np.uint8))


def opened(data):
    image = Image.open(io.BytesIO(data))
    assert image.format == "WEBP"
    return image.convert("RGB")


def test_thumbnails_fit_their_short_side_and_look_the_same(renderer):
    original = gradient(1200, 800)
    found = renderer.thumbnails(encoded(original), (256, 512), raw=False)
    assert {size: opened(data).size for size, data in found.items()} == {
        256: (384, 256),
        512: (768, 512),
    }
    same = np.asarray(original.resize((384, 256)), int)
    assert np.abs(np.asarray(opened(found[256]), int) - same).mean() < 3


def test_small_pictures_keep_their_size_and_long_ones_are_cut(renderer):
    small = renderer.thumbnails(encoded(gradient(40, 30)), (256,), raw=False)
    assert opened(small[256]).size == (40, 30)
    long = renderer.thumbnails(encoded(gradient(6000, 300)), (256,), raw=False)
    assert opened(long[256]).size == (1024, 256)


def test_a_preview_fits_its_long_side(renderer):
    assert opened(renderer.preview(encoded(gradient(900, 3000)), 1000, raw=False)).size == (
        300,
        1000,
    )


def test_pictures_are_upright(renderer):
    picture = Image.new("RGB", (60, 30), "blue")
    picture.paste("red", (0, 0, 30, 30))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise: what is left comes to the top
    found = opened(
        renderer.preview(encoded(picture, "JPEG", exif=exif, quality=95), 100, raw=False)
    )
    assert found.size == (30, 60)
    top, bottom = found.getpixel((15, 10)), found.getpixel((15, 50))
    assert top[0] > 200 > 80 > top[2] and bottom[2] > 200 > 80 > bottom[0]


def test_colour_profiles_are_heeded(renderer):
    lab = ImageCms.createProfile("LAB")  # no profile of RGB pictures: passed over
    plain = encoded(Image.new("RGB", (20, 20), (200, 100, 50)))
    odd = encoded(Image.new("RGB", (20, 20), (200, 100, 50)),
                  icc_profile=ImageCms.ImageCmsProfile(lab).tobytes())  # fmt: skip
    first, second = (
        opened(renderer.preview(data, 64, raw=False)).getpixel((9, 9)) for data in (plain, odd)
    )
    assert np.allclose(first, second, atol=4) and np.allclose(first, (200, 100, 50), atol=6)


def test_pixels_are_those_that_indexing_sees(renderer):
    picture = gradient(300, 200)
    found = renderer.pixels(encoded(picture), Preprocess(32))
    assert np.array_equal(found, Preprocess(32).pixels(picture))


@pytest.mark.parametrize(
    ("data", "reason"), [(b"", "empty|no picture"), (b"nothing", "no picture|broken")]
)
def test_what_is_no_picture_is_refused_with_a_reason(renderer, data, reason):
    for ask in (
        lambda: renderer.thumbnails(data, (256,), raw=False),
        lambda: renderer.pixels(data, Preprocess(32)),
    ):
        with pytest.raises(Refused, match=reason):
            ask()


def test_a_picture_beyond_the_limits_is_refused():
    made = Renderer(Limits(pixels=10_000), processes=1)
    try:
        with pytest.raises(Refused, match="megapixels"):
            made.preview(encoded(gradient(200, 200)), 64, raw=False)
        assert opened(made.preview(encoded(gradient(90, 90)), 64, raw=False)).size == (64, 64)
    finally:
        made.close()


def test_a_process_that_has_fallen_is_replaced_before_anybody_asks_it(renderer):
    good = encoded(gradient(64, 64))
    renderer.preview(good, 32, raw=False)
    assert renderer._idle
    for process in renderer._idle:
        os.kill(process.process.pid, signal.SIGKILL)
        process.process.wait()
    assert opened(renderer.preview(good, 32, raw=False)).size == (32, 32)


def test_a_process_that_falls_at_work_costs_that_picture_alone(renderer, monkeypatch):
    true_ask = rendering._Process.ask

    def fall(process, request, data):
        process.process.kill()
        return true_ask(process, request, data)

    good = encoded(gradient(8, 8))
    with monkeypatch.context() as falling:
        falling.setattr(rendering._Process, "ask", fall)
        with pytest.raises(Refused, match="too slow or too large"):
            renderer.preview(good, 32, raw=False)
    assert opened(renderer.preview(good, 32, raw=False)).size == (8, 8)


def test_a_process_that_has_grown_is_put_away(monkeypatch):
    made = Renderer(processes=1)
    try:
        made.preview(encoded(gradient(8, 8)), 32, raw=False)
        [first] = made._idle
        first.is_tired = True
        made.preview(encoded(gradient(8, 8)), 32, raw=False)
        [second] = made._idle
        assert second is not first and first.process.poll() is not None
    finally:
        made.close()


def test_sent_pictures_leave_a_process_to_the_librarys_own():
    made = Renderer(processes=2)
    made._sent.acquire()  # one picture that was sent is being decoded
    try:
        assert opened(made.preview(encoded(gradient(8, 8)), 32, raw=False)).size == (8, 8)
        assert not made._sent.acquire(blocking=False)
    finally:
        made.close()


def test_who_would_wait_too_long_is_told(monkeypatch):
    monkeypatch.setattr(rendering, "TURN_S", 0.05)
    made = Renderer(processes=1)
    made._turns.acquire()
    with pytest.raises(Crowded, match="try again"):
        made.preview(b"", 32, raw=False)
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    made._turns.release()
    with pytest.raises(Crowded, match="started"):
        made.preview(b"", 32, raw=False)
    made.close()


def test_processes_can_be_started_ahead_and_end_with_it():
    made = Renderer(processes=2)
    made.warm()
    started = [process.process for process in made._idle]
    assert len(started) == 2
    made.close()
    assert all(process.poll() is not None for process in started)
    made.warm()
    assert made._idle == []


def test_nothing_of_a_files_data_is_in_its_thumbnail(renderer):
    exif = Image.Exif()
    exif[0x010F], exif.get_ifd(0x8825)[1] = "Some Camera", "N"
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = encoded(gradient(64, 64), "JPEG", exif=exif, icc_profile=srgb, comment=b"secret")
    made = renderer.thumbnails(data, (32,), raw=False)[32]
    assert b"EXIF" not in made and b"ICCP" not in made and b"secret" not in made


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_a_profile_of_another_kind_of_picture_changes_nothing(renderer, mode):
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    picture = gradient(64, 48).convert(mode)
    same = [
        np.asarray(opened(renderer.preview(encoded(picture, "JPEG", **options), 64, raw=False)))
        for options in ({}, {"icc_profile": srgb})
    ]
    assert np.array_equal(*same)


def test_a_turned_picture_with_a_profile_is_upright(renderer):
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(gradient(60, 30), "JPEG", exif=exif, icc_profile=srgb)
    assert opened(renderer.preview(data, 100, raw=False)).size == (30, 60)


def test_many_threads_take_turns(renderer):
    data, sizes = encoded(gradient(400, 300)), []

    def ask():
        sizes.append(opened(renderer.preview(data, 64, raw=False)).size)

    threads = [threading.Thread(target=ask) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sizes == [(64, 48)] * 12


def test_hostile_files_are_shown_or_refused_and_nothing_worse(renderer):
    shown = refused = 0
    for path in hostile_files(every=12):
        try:
            data = renderer.thumbnails(path.read_bytes(), (256,), raw=False)[256]
        except Refused as exc:
            refused += 1
            assert str(exc) and "\n" not in str(exc)
        else:
            shown += 1
            assert max(opened(data).size) <= 1024
    assert shown and refused
