"""Videos become moments: where scenes begin, upright, in the right colours, within limits."""

import io
import os
import struct
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from films.drawn import SIZE, corners, cut, film, frame_of, needs_av, sound
from fovea.indexer.decoding.limits import Limits, Refused
from fovea.search.clip.preprocess import Preprocess

pytestmark = needs_av
THREE = (("red", 4), ("lime", 4), ("blue", 4))


def decoded(path, seconds=60.0, size=32, **limits):
    from fovea.indexer.decoding.video.decode import decode_video

    with open(path, "rb") as file:
        return decode_video(file, Preprocess(size), Limits(**limits), seconds)


def still(path, at_ms, short=48):
    from fovea.indexer.decoding.video.decode import still

    with open(path, "rb") as file:
        return still(file, at_ms, short, Limits())


def refusal(path, **limits):
    with pytest.raises(Refused) as raised:
        decoded(path, **limits)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def colour(pixels):
    """The middle of a picture, rounded to what colours have."""
    height, width = pixels.shape[:2]
    return tuple(int(value > 80) for value in pixels[height // 2, width // 2])


RGB = {"red": (1, 0, 0), "lime": (0, 1, 0), "blue": (0, 0, 1)}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mp4", {"codec": "libx264"}),
        ("a.mov", {}),
        ("a.avi", {}),
        ("a.mkv", {"codec": "libx264", "options": {"g": "1000", "sc_threshold": "0"}}),
        ("a.webm", {"codec": "libvpx", "options": {"deadline": "realtime", "cpu-used": "8"}}),
        ("a.mts", {"codec": "mpeg2video", "muxer": "mpegts", "rate": 25}),
        ("a.mpg", {"codec": "mpeg2video", "muxer": "vob", "rate": 25}),
        ("a.wmv", {"codec": "wmv2", "muxer": "asf"}),
        ("a.flv", {"codec": "flv"}),
        ("a.3gp", {"codec": "mpeg4", "muxer": "3gp"}),
    ],
)
def test_every_container_has_a_moment_for_each_scene(tmp_path, name, options):
    found = decoded(film(tmp_path / name, THREE, **options))
    assert [colour(pixels) for pixels in found.pixels] == list(RGB.values())
    assert found.times == pytest.approx([0, 4000, 8000], abs=900)
    facts = found.metadata
    assert (facts.width, facts.height, facts.damaged) == (*SIZE, None)
    assert facts.duration_ms == pytest.approx(12_000, abs=300)
    assert facts.poster_ms == found.times[found.poster]
    assert facts.format == name.partition(".")[2].upper().replace("MPG", "MPEG")


def test_a_still_is_the_frame_that_was_embedded(tmp_path):
    path = film(tmp_path / "a.mp4", THREE, codec="libx264", options={"g": "1000"})
    found = decoded(path, size=48)
    for time, pixels in zip(found.times, found.pixels, strict=True):
        again = Preprocess(48).pixels(still(path, time))
        assert np.abs(again.astype(int) - pixels).max() <= 2
    assert colour(np.asarray(still(path, 99_000))) == RGB["blue"]  # beyond the end: the last frame


def test_a_scene_that_does_not_change_has_a_moment_every_ten_seconds(tmp_path):
    found = decoded(film(tmp_path / "a.mp4", [("red", 45)], rate=5))
    assert np.diff(found.times).max() <= 10_000 and found.times[0] == 0
    assert found.times[-1] >= 35_000 and len(found.times) <= 7


def test_a_single_keyframe_hides_no_scene(tmp_path):
    options = {"g": "100000", "sc_threshold": "0", "bf": "0"}
    scenes = [("red", 15), ("lime", 15), ("blue", 15)]
    found = decoded(film(tmp_path / "a.mp4", scenes, codec="libx264", options=options))
    for begin, expected in zip((0, 15_000, 30_000), RGB.values(), strict=True):
        at = next(place for place, time in enumerate(found.times) if time >= begin)
        assert found.times[at] - begin < 1000 and colour(found.pixels[at]) == expected


def test_black_and_blank_frames_are_no_moments_unless_there_is_nothing_else(tmp_path):
    found = decoded(film(tmp_path / "a.mp4", [("black", 2), ("white", 2), ("red", 3)]))
    assert [colour(pixels) for pixels in found.pixels] == [RGB["red"]]
    assert found.times[0] == pytest.approx(4000, abs=900)
    assert len(decoded(film(tmp_path / "b.mp4", [("black", 3)])).times) == 1


@pytest.mark.parametrize(
    ("degrees", "flips", "orientation", "upper_left"),
    [
        (0, {}, 1, (1, 0, 0)),
        (90, {}, 8, (0, 1, 0)),  # anticlockwise: what was at the upper right
        (180, {}, 3, (1, 1, 1)),
        (-90, {}, 6, (0, 0, 1)),
        (0, {"hflip": True}, 2, (0, 1, 0)),
        (0, {"vflip": True}, 4, (0, 0, 1)),
    ],
)
def test_the_display_matrix_turns_a_video(tmp_path, degrees, flips, orientation, upper_left):
    def turned(stream):
        stream.set_display_rotation(degrees, **flips)

    path = film(tmp_path / "a.mp4", [(corners(), 2)], prepared=turned)
    facts = decoded(path).metadata
    image = still(path, 0)
    assert facts.orientation == orientation
    assert (facts.width, facts.height) == image.size == (SIZE[::-1] if degrees % 180 else SIZE)
    assert tuple(int(value > 80) for value in image.getpixel((6, 6))) == upper_left


def test_oblong_pixels_are_shown_square(tmp_path):
    def oblong(stream):
        stream.codec_context.sample_aspect_ratio = 2

    path = film(tmp_path / "a.mp4", [("red", 2)], prepared=oblong)
    facts = decoded(path).metadata
    assert (facts.width, facts.height) == (2 * SIZE[0], SIZE[1])


@pytest.mark.parametrize(("transfer", "signal"), [(16, 0.58), (18, 0.75)])
def test_hdr_becomes_ordinary(transfer, signal):
    """White of HDR (203 cd/m2) is nearly white; ten times as bright is not darker, nor is black."""
    from fovea.indexer.decoding.video.colours import _ordinary

    steps = np.linspace(0, 1, 33)
    ramp = np.repeat((steps * 65535).astype(np.uint16)[None, :, None], 3, axis=2)
    made = _ordinary(ramp, transfer, True)[0].astype(int)
    assert (np.diff(made, axis=0) >= 0).all() and made[0].max() == 0 and made[-1].min() >= 250
    white = _ordinary(np.full((1, 1, 3), signal * 65535, np.uint16), transfer, True)[0, 0]
    assert 215 <= white.min() and white.max() <= 240 and np.ptp(white.astype(int)) <= 4


def test_hdr_is_told_by_the_file(tmp_path):
    def marked(frame):
        frame = frame.reformat(format="yuv420p10le", dst_colorspace="BT2020")
        frame.color_trc, frame.color_primaries, frame.colorspace = 16, 9, 9
        return frame

    def declared(stream):
        context = stream.codec_context
        context.color_trc, context.color_primaries, context.colorspace = 16, 9, 9

    plain = {"codec": "ffv1", "pixels": "yuv420p10le"}
    grey = np.full((48, 64, 3), 148, np.uint8)  # 203 cd/m2 in PQ
    grey[:24] = 40
    hdr = film(tmp_path / "a.mkv", [(grey, 1)], prepared=declared, marked=marked, **plain)
    sdr = film(tmp_path / "b.mkv", [(grey, 1)], **plain)
    bright, usual = (np.asarray(still(path, 0))[40, 32].mean() for path in (hdr, sdr))
    assert bright > 200 and usual == pytest.approx(148, abs=3)


def test_the_container_tells_when_where_and_by_what(tmp_path, monkeypatch):
    apple = "com.apple.quicktime."
    tags = {
        "creation_time": "2019-07-14T08:15:00.000000Z",
        f"{apple}creationdate": "2019-07-14T10:15:00+0200",
        f"{apple}location.ISO6709": "+38.6970-009.2063+012.5/",
        f"{apple}make": "Apple",
        f"{apple}model": "iPhone 12",
    }
    muxing = {"movflags": "use_metadata_tags"}
    facts = decoded(film(tmp_path / "a.mov", [("red", 1)], tags=tags, muxing=muxing)).metadata
    assert (facts.taken_at, facts.dated_by) == ("2019-07-14T10:15:00", "creationdate")
    assert (facts.latitude, facts.longitude, facts.altitude) == (38.697, -9.2063, 12.5)
    assert facts.camera == "Apple iPhone 12"


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"creation_time": "2019-07-14T08:15:00Z"}, ("2019-07-14T10:15:00", None, None)),
        ({"date": "2019-07-14 08:15:00"}, ("2019-07-14T08:15:00", None, None)),
        ({"creation_time": "1970-01-01T00:00:00Z"}, (None, None, None)),
        ({"creation_time": "2219-07-14T08:15:00Z"}, (None, None, None)),
        ({"creation_time": "2019-02-31T08:15:00Z"}, (None, None, None)),
        ({"date": "2019"}, (None, None, None)),
        ({"location": "+48.2082+016.3738/"}, (None, 48.2082, 16.3738)),
        ({"location": "+4812.5+01622.5/"}, (None, 48.20833, 16.375)),
        ({"location": "-335130+1511230/"}, (None, -33.85833, 151.20833)),
        ({"location": "+00.0000+000.0000/"}, (None, None, None)),
        ({"location": "+95.0+016.0/"}, (None, None, None)),
        ({"location": "near home"}, (None, None, None)),
    ],
)  # fmt: skip
def test_tags_are_read_as_far_as_they_are_sure(monkeypatch, tags, expected):
    import time

    from fovea.indexer.decoding.video.facts import facts_of

    monkeypatch.setenv("TZ", "Europe/Vienna")
    time.tzset()
    try:
        facts = facts_of(tags, {})
    finally:
        monkeypatch.undo()
        time.tzset()
    where = [facts.latitude and round(facts.latitude, 5), facts.longitude]
    where[1] = where[1] and round(where[1], 5)
    assert (facts.taken_at, *where) == expected


# What is damaged or hostile


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mkv", {}),
        ("a.mp4", {"muxing": {"movflags": "faststart"}}),
    ],
)
def test_a_truncated_video_keeps_its_moments(tmp_path, name, options):
    whole = film(tmp_path / f"whole-{name}", [(c, 8) for c in RGB], **options)
    found = decoded(cut(whole, tmp_path / name, 0.6))
    assert found.metadata.damaged == "its end is missing"
    assert {colour(pixels) for pixels in found.pixels} == {RGB["red"], RGB["lime"]}
    assert 8_000 < found.metadata.duration_ms < 20_000


def test_a_video_that_takes_too_long_keeps_what_was_read(tmp_path, monkeypatch):
    from fovea.indexer.decoding.video import decode

    path, clock = film(tmp_path / "a.mp4", [(c, 8) for c in RGB]), iter(range(10**6))
    monkeypatch.setattr(decode.time, "monotonic", lambda: next(clock) / 10)
    found = decoded(path, seconds=6.0)
    assert found.metadata.damaged == "its end could not be read in time"
    assert 1 <= len(found.times) < 3


class Packet:
    """A packet of two bytes that counts how often it is looked at."""

    looks = 0
    dts, duration = 0, 0

    def __init__(self, pts, is_keyframe):
        self._pts, self.is_keyframe = pts, is_keyframe

    @property
    def pts(self):
        Packet.looks += 1
        return self._pts

    @property
    def size(self):
        Packet.looks += 1
        return 2


def read_of(packets, monkeypatch):
    """Read packets as those of a video; return the looks at them, and the most that ever wait."""
    from fovea.indexer.decoding.video import container, decode

    handed, decoded_at, waiting = [], [0], []

    def demux(stream):
        for number, packet in enumerate(packets):
            handed.append(packet)
            waiting.append(number - decoded_at[-1])
            yield packet

    def nothing(packet):
        decoded_at.append(len(handed))
        return []

    codec = SimpleNamespace(decode=nothing, is_open=False)
    stream = SimpleNamespace(
        start_time=0, time_base=Fraction(1, 1000), duration=None, codec_context=codec
    )
    medium = SimpleNamespace(demux=demux, duration=None)
    monkeypatch.setattr(Packet, "looks", 0)
    reader = decode._Reader(container.Video(medium, stream, None), 0.0, 1e9)
    assert list(reader.frames()) == [] and len(handed) == len(packets)
    return Packet.looks, max(waiting)


def test_each_packet_is_looked_at_a_few_times_however_far_apart_keyframes_are(monkeypatch):
    for gap in (60, 600):  # a second, and ten
        packets = [Packet(at * 1000 // 60, at % gap == 0) for at in range(6000)]
        looks, waiting = read_of(packets, monkeypatch)
        assert looks <= 8 * len(packets) and waiting <= gap


@pytest.mark.parametrize("stamp", [None, 7])
def test_packets_that_tell_no_time_do_not_wait_without_end(monkeypatch, stamp):
    from fovea.indexer.decoding.video import decode

    monkeypatch.setattr(decode, "PIECE_FRAMES", 500)
    packets = [Packet(stamp, at == 0) for at in range(2000)]
    looks, waiting = read_of(packets, monkeypatch)
    assert looks <= 8 * len(packets) and waiting <= 500


def test_what_is_no_video_is_refused_in_one_line(tmp_path):
    whole = film(tmp_path / "a.mp4", [("red", 2)])
    cases = {
        "empty.mp4": b"",
        "text.avi": b"hello world",
        "jpeg.mp4": b"\xff\xd8\xff\xe0" + bytes(600),
        "no-index.mp4": whole.read_bytes()[: whole.stat().st_size // 2],
        "junk.mkv": b"\x1aE\xdf\xa3" + bytes(range(256)) * 8,
        "junk.mts": b"G" + bytes(187) + b"G" + bytes(187) + os.urandom(4000),
        "junk.mp4": struct.pack(">I4s4sI", 16, b"ftyp", b"isom", 0) + os.urandom(4000),
        "riff.avi": b"RIFF\xff\xff\xff\xffAVI LIST" + bytes(400),
        "big-box.mp4": struct.pack(">I4s4sI", 16, b"ftyp", b"isom", 0)
        + struct.pack(">I4sQ", 1, b"moov", 2**62) + bytes(64),
    }  # fmt: skip
    for name, data in cases.items():
        (tmp_path / name).write_bytes(data)
        assert refusal(tmp_path / name).startswith(("broken: ", "no moving picture")), name


def test_sound_and_covers_are_no_moving_pictures(tmp_path):
    import av

    assert refusal(sound(tmp_path / "a.mp4")) == "no moving picture in it, only sound"
    cover = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(cover, "JPEG")
    path = os.fspath(tmp_path / "b.mp4")
    with av.open(path, "w") as container:
        stream = container.add_stream("mjpeg", rate=1)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuvj420p"
        stream.disposition = av.stream.Disposition.attached_pic
        container.start_encoding()
        packet = av.Packet(cover.getvalue())
        packet.stream, packet.pts, packet.dts = stream, 0, 0
        container.mux(packet)
    assert "no moving picture in it" in refusal(path) or "broken: " in refusal(path)


def test_a_header_that_declares_too_many_pixels_is_refused(tmp_path):
    # A codec whose frames do not say their own size.
    path = film(tmp_path / "a.avi", [("red", 1)], codec="huffyuv", pixels="yuv422p")
    data = bytearray(path.read_bytes())
    at = data.index(b"strf") + 8  # BITMAPINFOHEADER: its size, then width and height
    struct.pack_into("<ii", data, at + 4, 15_000, 15_000)
    path.write_bytes(data)
    assert refusal(path).startswith("too large: frames of 15,000 x 15,000 pixels")
    assert refusal(film(tmp_path / "b.mp4", [("red", 1)]), video_pixels=1000).startswith(
        "too large"
    )


def test_a_duration_without_end_is_not_believed(tmp_path):
    path = film(tmp_path / "a.mp4", [("red", 3)])
    data = bytearray(path.read_bytes())
    for box in (b"mvhd", b"mdhd"):
        struct.pack_into(">I", data, data.index(box) + 20, 0x7FFFFFFF)
    path.write_bytes(data)
    assert decoded(path).metadata.duration_ms == pytest.approx(3000, abs=200)


def test_thousands_of_streams_are_refused_soon(tmp_path):
    """A Matroska of 5,000 tracks; FFmpeg stops at the number that it is given."""
    entry = bytes([0xAE, 0x8A]) + bytes.fromhex("d78101") + bytes.fromhex("73c58101") + bytes(3)
    tracks = entry * 5000
    body = bytes.fromhex("1654ae6b01") + len(tracks).to_bytes(7, "big") + tracks
    head = bytes.fromhex(
        "1a45dfa3a34286810142f7810142f2810442f381084282886d6174726f736b6142878104428581021853806701"
    )
    head += b"\xff" * 7  # a segment of unknown length
    path = tmp_path / "a.mkv"
    path.write_bytes(head + body)
    assert refusal(path)


def test_a_video_opens_no_other_file(tmp_path, monkeypatch):
    """What names other files is not read at all, or reads nothing but itself."""
    from fovea.indexer.decoding.video import container

    asked = []
    monkeypatch.setattr(container, "_refuse", lambda url, *rest: asked.append(url))
    film(tmp_path / "other.mp4", [("red", 1)])
    for name, text in {
        "list.mp4": "ffconcat version 1.0\nfile other.mp4\n",
        "list.mkv": "#EXTM3U\n#EXTINF:1,\nother.mp4\n#EXT-X-ENDLIST\n",
        "list.avi": "v=0\no=- 0 0 IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
    }.items():
        (tmp_path / name).write_text(text)
        assert refusal(tmp_path / name) == "broken: not a video that fovea can read"
    assert asked == []


# Which frames are moments


def shown(scenes, length, step, picture):
    for number in range(int(length / step)):
        at = number * step
        small = picture(at)
        if scenes.is_wanted(at, small):
            scenes.keep(at, small, at)
    return scenes.moments()[0]


def grey(level, hue=0.0):
    small = np.full((18, 32, 3), 128.0, np.float32)
    small[..., 0], small[:9, :, 1] = level, 128 + hue
    small[::2, ::2, 0] += 60  # not blank
    return small


def test_there_are_at_most_300_moments_and_they_are_spread_over_all_of_it():
    from fovea.indexer.decoding.video.scenes import MOST, Scenes

    rng = np.random.default_rng(0)
    levels = rng.uniform(40, 180, 5000)
    times = shown(Scenes(5000.0), 5000, 1.5, lambda at: grey(levels[int(at / 3) % 5000]))
    assert len(times) <= MOST and np.diff(times).max() < 60 and times[-1] > 4900
    quiet = shown(Scenes(20_000.0), 20_000, 4.0, lambda at: grey(100))
    assert 200 <= len(quiet) <= MOST and np.diff(quiet).max() < 120


def test_a_moving_camera_is_no_row_of_scenes_but_a_cut_in_it_is_one():
    from fovea.indexer.decoding.video.scenes import Scenes

    def moving(at):
        level = 60 + 30 * (int(at / 0.5) % 2)  # every frame differs as much from the last
        return grey(level, 110 if at >= 20 else -110)

    times = shown(Scenes(40.0), 40, 0.5, moving)
    assert any(abs(time - 20) < 0.6 for time in times) and len(times) <= 10


def test_a_slow_dissolve_ends_in_a_new_moment():
    from fovea.indexer.decoding.video.scenes import Scenes

    times = shown(Scenes(9.0), 9, 0.5, lambda at: grey(60 + min(100, max(0, (at - 2) * 25))))
    assert len(times) >= 2


def test_frames_and_colours_can_be_drawn():
    assert frame_of("red").shape == (48, 64, 3)
