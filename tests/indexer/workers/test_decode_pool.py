import contextlib
import io
import os
import signal
import sys
import threading
import time

import numpy as np
import pytest
from PIL import Image, ImageCms

from fovea.indexer.decoding.limits import Limits, Refused
from fovea.indexer.workers import decode_pool, host
from fovea.indexer.workers.decode_pool import Crowded, Renderer
from fovea.indexer.workers.host import Process
from fovea.search.clip.preprocess import Preprocess
from places import hostile_files
from worker_programs import running_first


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


def test_colour_profiles_are_applied_unless_they_do_not_fit(renderer):
    lab = ImageCms.createProfile("LAB")  # not a profile of RGB pictures: ignored
    plain = encoded(Image.new("RGB", (20, 20), (200, 100, 50)))
    odd = encoded(Image.new("RGB", (20, 20), (200, 100, 50)),
                  icc_profile=ImageCms.ImageCmsProfile(lab).tobytes())  # fmt: skip
    first, second = (
        opened(renderer.preview(data, 64, raw=False)).getpixel((9, 9)) for data in (plain, odd)
    )
    assert np.allclose(first, second, atol=4) and np.allclose(first, (200, 100, 50), atol=6)


def test_a_whole_picture_has_all_its_pixels_upright_and_nothing_but_them(renderer):
    picture = gradient(3000, 2000)
    exif = Image.Exif()
    exif[0x0112] = 6
    exif.get_ifd(0x8825)[1] = "N"  # of a location
    # A profile in which the numbers of red stand for other colours than in sRGB.
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ"))
    for options in ({}, {"icc_profile": profile.tobytes()}):
        data = encoded(picture, "TIFF", exif=exif, **options)
        made = renderer.whole(data, 8192, raw=False)
        image = Image.open(io.BytesIO(made))
        assert (image.format, image.size) == ("JPEG", (2000, 3000))
        assert not image.getexif() and not {"icc_profile", "exif", "xmp"} & image.info.keys()
        turned = np.asarray(picture.transpose(Image.Transpose.ROTATE_270), int)
        assert np.abs(np.asarray(image, int) - turned).mean() < 3
    assert Image.open(io.BytesIO(renderer.whole(data, 1500, raw=False))).size == (1000, 1500)


def test_pixels_are_those_that_indexing_sees(renderer):
    picture = gradient(300, 200)
    found = renderer.pixels(encoded(picture), Preprocess(32))
    assert np.array_equal(found, Preprocess(32).pixels(picture))


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"", "empty|not a readable picture"), (b"nothing", "not a readable picture")],
)
def test_what_is_not_a_picture_is_refused_with_a_reason(renderer, data, reason):
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


@pytest.fixture
def started(monkeypatch):
    """The processes that are started from now on; ``hold`` keeps their requests back."""

    class Started(Process):
        all, hold, waiting = [], threading.Event(), threading.Semaphore(0)

        def __init__(self, *settings):
            super().__init__(*settings)
            self.all.append(self)

        def send(self, fields, data=b"", descriptor=None):
            self.waiting.release()
            assert self.hold.wait(30)
            super().send(fields, data, descriptor)

    Started.hold.set()
    monkeypatch.setattr(decode_pool, "Process", Started)
    return Started


@pytest.fixture
def made():
    """Makes renderers, and closes them."""
    with contextlib.ExitStack() as stack:

        def make(**settings):
            renderer = Renderer(**settings)
            stack.callback(renderer.close)
            return renderer

        yield make


@contextlib.contextmanager
def under_way(started, ask):
    """While a thread asks for something and has its turn."""
    started.hold.clear()
    thread = threading.Thread(target=ask)
    thread.start()
    assert started.waiting.acquire(timeout=30)
    try:
        yield
    finally:
        started.hold.set()
        thread.join()


def test_a_process_that_has_died_is_replaced_before_anybody_asks_it(started, made):
    renderer, good = made(processes=1), encoded(gradient(64, 64))
    renderer.preview(good, 32, raw=False)
    [first] = started.all
    os.kill(first.pid, signal.SIGKILL)
    while first.is_running:
        time.sleep(0.01)
    assert opened(renderer.preview(good, 32, raw=False)).size == (32, 32)
    assert len(started.all) == 2


def test_a_process_that_dies_at_work_costs_that_picture_alone(started, made):
    renderer, good, refusals = made(processes=1), encoded(gradient(8, 8)), []

    def ask():
        with pytest.raises(Refused, match="too slow or too large") as caught:
            renderer.preview(good, 32, raw=False)
        refusals.append(caught)

    with under_way(started, ask):
        started.all[0].kill()
    assert len(refusals) == 1
    assert opened(renderer.preview(good, 32, raw=False)).size == (8, 8)


def test_a_process_that_has_grown_is_replaced(started, made, monkeypatch):
    program = "import fovea.indexer.workers.host as host; host.GROWTH = -1"
    monkeypatch.setattr(host, "command", running_first(program))
    renderer = made(processes=1)
    for _ in range(3):
        assert opened(renderer.preview(encoded(gradient(8, 8)), 32, raw=False)).size == (8, 8)
    assert len(started.all) == 3
    assert not any(process.is_running for process in started.all)


def test_a_process_that_has_not_grown_is_used_again(started, made):
    renderer = made(processes=2)
    for _ in range(3):
        renderer.preview(encoded(gradient(8, 8)), 32, raw=False)
    assert len(started.all) == 1


def test_uploaded_pictures_leave_a_process_to_the_librarys_own(started, made):
    renderer, data, pixels = made(processes=2), encoded(gradient(8, 8)), []
    with under_way(started, lambda: pixels.append(renderer.pixels(data, Preprocess(4)))):
        second = threading.Thread(
            target=lambda: pixels.append(renderer.pixels(data, Preprocess(4)))
        )
        second.start()
        third = threading.Thread(target=lambda: renderer.preview(data, 32, raw=False))
        third.start()
        assert started.waiting.acquire(timeout=30)  # the library's own has its turn,
        assert not started.waiting.acquire(timeout=0.3)  # and the second upload has not
    second.join()
    third.join()
    assert len(pixels) == 2


def test_who_would_wait_too_long_is_told(started, made, monkeypatch):
    monkeypatch.setattr(decode_pool, "TURN_S", 0.05)
    renderer, data = made(processes=1), encoded(gradient(8, 8))
    with under_way(started, lambda: renderer.preview(data, 32, raw=False)):
        with pytest.raises(Crowded, match="try again"):
            renderer.preview(data, 32, raw=False)


@pytest.mark.parametrize("program", [None, "raise SystemExit('no such library')"])
def test_processes_that_cannot_be_started_are_told(made, monkeypatch, program):
    start = ["/no/such/python"] if program is None else [sys.executable, "-c", program]
    monkeypatch.setattr(host, "command", lambda *arguments: start)
    reason = "No such file or directory" if program is None else "no such library"
    with pytest.raises(Crowded, match=f"cannot start a process to decode it: {reason}"):
        made(processes=1).preview(b"", 32, raw=False)


def test_processes_can_be_started_ahead_and_end_with_it(started, made):
    renderer = made(processes=2)
    renderer.warm()
    assert [process.is_running for process in started.all] == [True, True]
    renderer.close()
    assert [process.is_running for process in started.all] == [False, False]
    renderer.warm()
    assert len(started.all) == 2


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
