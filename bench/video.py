"""Whether moments of videos are found where they are, and how long that takes.

    python bench/video.py [--minutes 5] [--model NAME]

First it draws a film of scenes of 3 to 9 seconds, with things that move, encodes it in several
containers, codecs and distances of keyframes, indexes it, and asks for every scene by its words and
by a still that was drawn anew. A moment is right if it lies in the scene; it is also counted how
often it lies at most 2 seconds after the scene's beginning. Then it indexes videos of 1080p at 30
frames a second, and prints how many minutes of them are done in a minute: by one process that only
decodes, and by ``fovea index`` as a whole.
"""

import argparse
import io
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import av
import numpy as np
from PIL import Image, ImageDraw

import fovea
from fovea.indexer.decoding.limits import Limits
from fovea.indexer.decoding.video.decode import decode_video
from fovea.search.clip.preprocess import Preprocess

SIZE, RATE = (640, 360), 24  # frames a second; each picture is shown twice
RIGHT_S = 2.0
GRAIN = np.random.default_rng(0).normal(0, 5, (SIZE[1], SIZE[0], 1)).astype(np.float32)
Draw = Callable[[ImageDraw.ImageDraw, float, random.Random], None]


@dataclass(frozen=True, slots=True)
class Scene:
    """What is drawn, the words for it, and its ground, from top to bottom."""

    words: str
    above: str
    below: str
    draw: Draw


def sun(pen: ImageDraw.ImageDraw, at: float, rng: random.Random) -> None:
    """A sun that sets over the sea."""
    y = 120 + 10 * at
    pen.ellipse((270, y, 370, y + 100), fill="#fff3b0")
    pen.rectangle((0, 240, 640, 360), fill="#27496d")
    for line in range(8):
        pen.line((300 - 12 * line, 250 + 13 * line, 340 + 12 * line, 250 + 13 * line), "#ffd166", 4)


def mountain(pen: ImageDraw.ImageDraw, at: float, rng: random.Random) -> None:
    """Mountains with snow, from a train."""
    for base, height in ((0, 220), (260, 260), (480, 190)):
        x = base - 12 * at
        pen.polygon([(x, 340), (x + 170, 340 - height), (x + 340, 340)], fill="#5c677d")
        top = 340 - height
        pen.polygon([(x + 170, top), (x + 130, top + 62), (x + 210, top + 62)], fill="white")


def trees(pen: ImageDraw.ImageDraw, at: float, rng: random.Random) -> None:
    """A wood."""
    for number in range(12):
        x, y = number * 62 - 20 - 6 * at, 60 + 17 * (number % 4)
        pen.rectangle((x + 22, y + 120, x + 36, 330), fill="#5b3a1e")
        for step in range(3):
            wide = 26 + 9 * step
            points = [(x + 29, y + 30 * step), (x + 29 - wide, y + 70 + 30 * step)]
            pen.polygon([*points, (x + 29 + wide, y + 70 + 30 * step)], fill="#1b5e20")


def houses(pen: ImageDraw.ImageDraw, at: float, rng: random.Random) -> None:
    """A city at night."""
    for number in range(11):
        x, top = number * 66 - 5 * at, 90 + 41 * (number * 7 % 5)
        pen.rectangle((x, top, x + 56, 360), fill="#20242c")
        for row in range(int((340 - top) / 22)):
            for column in range(3):
                if (row * 3 + column + number) % 3:
                    left, high = x + 7 + 16 * column, top + 8 + 22 * row
                    pen.rectangle((left, high, left + 10, high + 12), fill="#ffd54f")


def flower(pen: ImageDraw.ImageDraw, at: float, rng: random.Random) -> None:
    """A flower."""
    x, y = 320 + 9 * np.sin(at), 170
    pen.line((x, y, 320, 360), fill="#2e7d32", width=14)
    for petal in range(9):
        angle = petal * 0.698 + 0.05 * at
        a, b = x + 78 * np.cos(angle), y + 78 * np.sin(angle)
        pen.ellipse((a - 44, b - 44, a + 44, b + 44), fill="#ec407a")
    pen.ellipse((x - 46, y - 46, x + 46, y + 46), fill="#fdd835")


def car(pen: ImageDraw.ImageDraw, at: float, rng: random.Random) -> None:
    """A red car on a road."""
    x = 90 + 22 * at
    for mark in range(9):
        pen.rectangle((mark * 90 - 20, 318, mark * 90 + 30, 326), fill="white")
    pen.rounded_rectangle((x, 190, x + 300, 262), 22, fill="#d32f2f")
    pen.polygon([(x + 60, 192), (x + 105, 132), (x + 210, 132), (x + 250, 192)], fill="#b71c1c")
    pen.polygon([(x + 76, 188), (x + 112, 142), (x + 150, 142), (x + 150, 188)], fill="#b3e5fc")
    for wheel in (60, 230):
        pen.ellipse((x + wheel - 34, 226, x + wheel + 34, 294), fill="#111")
        pen.ellipse((x + wheel - 14, 246, x + wheel + 14, 274), fill="#bbb")


def page(pen: ImageDraw.ImageDraw, at: float, rng: random.Random) -> None:
    """A page of writing."""
    pen.rectangle((150, 14, 490, 350), fill="#fdfdf8")
    for line in range(20):
        words, x = random.Random(line), 172
        while x < 450:
            wide = words.randint(12, 46)
            pen.rectangle((x, 34 + 15 * line, min(x + wide, 468), 40 + 15 * line), fill="#333")
            x += wide + 9


def balloons(pen: ImageDraw.ImageDraw, at: float, rng: random.Random) -> None:
    """Balloons of many colours."""
    for number, colour in enumerate(("#e53935", "#fdd835", "#43a047", "#1e88e5", "#8e24aa")):
        x, y = 40 + 118 * number, 60 + 38 * (number % 3) - 6 * at
        pen.line((x + 46, y + 110, x + 40, y + 260), fill="#777", width=3)
        pen.ellipse((x, y, x + 92, y + 116), fill=colour)


def board(pen: ImageDraw.ImageDraw, at: float, rng: random.Random) -> None:
    """A chess board."""
    for row in range(8):
        for column in range(8):
            x, y = 140 + 45 * column, 45 * row
            pen.rectangle(
                (x, y, x + 44, y + 44), fill="#f5deb3" if (row + column) % 2 else "#6b3e1c"
            )
    x = 162 + 45 * int(at)
    pen.ellipse((x - 16, 140, x + 16, 172), fill="black")


def clock_face(pen: ImageDraw.ImageDraw, at: float, rng: random.Random) -> None:
    """A clock on a wall."""
    pen.ellipse((170, 30, 470, 330), fill="white", outline="#222", width=12)
    for hour in range(12):
        a, b = np.cos(hour * np.pi / 6), np.sin(hour * np.pi / 6)
        ends = (320 + 118 * a, 180 + 118 * b, 320 + 134 * a, 180 + 134 * b)
        pen.line(ends, fill="#222", width=7)
    for length, turn in ((70, 0.3), (105, 0.9 + at / 3)):
        ends = (320, 180, 320 + length * np.cos(turn), 180 + length * np.sin(turn))
        pen.line(ends, fill="#c62828" if length > 80 else "#222", width=9)


SCENES = (
    Scene("a sunset over the sea", "#ff9e6d", "#ff7043", sun),
    Scene("a city at night", "#0b132b", "#1c2541", houses),
    Scene("snowy mountains", "#cfe8ff", "#9bb7d4", mountain),
    Scene("a pink flower", "#c5e1a5", "#7cb342", flower),
    Scene("a red car on a road", "#b0bec5", "#616161", car),
    Scene("a page of text", "#8d6e63", "#6d4c41", page),
    Scene("a forest", "#b2dfdb", "#4caf50", trees),
    Scene("balloons", "#e1f5fe", "#b3e5fc", balloons),
    Scene("a chess board", "#3e2723", "#1b0f0b", board),
    Scene("a clock", "#bcaaa4", "#a1887f", clock_face),
)
FILMS: dict[str, dict[str, object]] = {
    "h264 mp4, keyframes as x264 likes": {"file": "a.mp4", "codec": "libx264"},
    "h264 mp4, one each second": {"file": "b.mp4", "codec": "libx264", "g": "24"},
    "h264 mkv, none but the first": {"file": "c.mkv", "codec": "libx264", "g": "9999"},
    "vp9 webm": {"file": "d.webm", "codec": "libvpx-vp9"},
    "mpeg4 mov": {"file": "e.mov", "codec": "mpeg4"},
    "mpeg2 mts": {"file": "f.mts", "codec": "mpeg2video"},
}


def drawn(scene: Scene, at: float, seed: int) -> Image.Image:
    """Draw a scene as it is ``at`` seconds after its beginning."""
    column = np.linspace(0, 1, SIZE[1], dtype=np.float32)[:, None]
    ends = [np.array(Image.new("RGB", (1, 1), one))[0, 0] for one in (scene.above, scene.below)]
    ground = ends[0] * (1 - column) + ends[1] * column
    grain = np.roll(GRAIN, seed * 7919, axis=(0, 1))
    picture = np.clip(ground[:, None] + grain, 0, 255).astype(np.uint8)
    image = Image.fromarray(picture)
    scene.draw(ImageDraw.Draw(image), at, random.Random(seed))
    return image


def encode(
    path: Path, codec: str, options: dict[str, str], plan: list[tuple[Scene, float]]
) -> None:
    """Encode scenes of so many seconds, one after another."""
    muxer = "mpegts" if path.suffix == ".mts" else None
    with av.open(str(path), "w", format=muxer) as container:
        stream: Any = container.add_stream(codec, rate=RATE, options=options)
        stream.width, stream.height = SIZE
        stream.pix_fmt, stream.bit_rate = "yuv420p", 1_500_000
        number = 0
        for scene, seconds in plan:
            for step in range(round(seconds * RATE)):
                if step % 2 == 0:  # as films are drawn
                    picture = drawn(scene, step / RATE, number)
                frame = av.VideoFrame.from_image(picture)
                frame.pts, frame.time_base = number, Fraction(1, RATE)
                container.mux(stream.encode(frame))
                number += 1
        container.mux(stream.encode(None))


def moments(folder: Path, model: str) -> None:
    """Print which share of the scenes is found at the right moment, film by film."""
    print(f"{'':36}  {'':6}  {'':7}  in the scene      at most 2 s in")
    print(f"{'film':36}  scenes  moments  words   a still   words   a still")
    for name, made in FILMS.items():
        rng = random.Random(name)
        scenes = list(SCENES)
        rng.shuffle(scenes)
        plan = [(scene, rng.uniform(3, 9)) for scene in scenes]
        options = {"preset": "veryfast"} if made["codec"] == "libx264" else {}
        if made["codec"] == "libvpx-vp9":
            options = {"deadline": "realtime", "cpu-used": "8"}
        if "g" in made:
            options |= {"g": str(made["g"])}
        if made.get("g") == "9999":
            options |= {"sc_threshold": "0"}
        place = folder / str(made["file"]).partition(".")[0]
        place.mkdir()
        encode(place / str(made["file"]), str(made["codec"]), options, plan)
        with fovea.Library.open(place / "library", create=True) as library:
            library.index(place, model=model, places=False)
            found = [_asked(library, scene) for scene, _ in plan]
            [(count,)] = library._store.rows("SELECT sum(length(times) / 8) FROM moments")
        begins = np.cumsum([0.0, *(seconds for _, seconds in plan)])[:-1]
        late = np.array(found) - begins[:, None]
        lengths = np.array([seconds for _, seconds in plan])[:, None]
        inside = (late > -0.05) & (late < lengths)
        right = inside & (late <= RIGHT_S)
        shares = [*inside.sum(axis=0), *right.sum(axis=0)]
        said = "  ".join(f"{count:>2} of {len(plan)}" for count in shares)
        print(f"{name:36}  {len(plan):6}  {count:7}  {said}", flush=True)
        for (scene, _), one, at in zip(plan, inside, found, strict=True):
            if not one[1]:
                print(f"  {scene.words}: a still led to {at[1]:.1f} s", flush=True)


def _asked(library: fovea.Library, scene: Scene) -> tuple[float, float]:
    """Return the times found by words and by a still."""
    file = io.BytesIO()
    drawn(scene, 1.0, 12345).save(file, "JPEG", quality=85)
    answers = library.search(scene.words, k=1), library.search(image=Image.open(file), k=1)
    return answers[0].hits[0].time or 0.0, answers[1].hits[0].time or 0.0


def long_film(path: Path, minutes: float, gop: int) -> None:
    """Encode 20 seconds of 1080p, five scenes with a moving camera, as often as it takes."""
    rng = np.random.default_rng(0)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        options = {"preset": "ultrafast", "g": str(gop), "bf": "0", "crf": "21"}
        stream = container.add_stream("libx264", rate=30, options=options)
        stream.width, stream.height, stream.pix_fmt = 1920, 1080, "yuv420p"
        for _ in range(5):
            coarse = Image.fromarray(rng.integers(0, 255, (40, 70, 3), dtype=np.uint8))
            fine = Image.fromarray(rng.integers(90, 160, (1240, 2170, 3), dtype=np.uint8))
            base = Image.blend(coarse.resize((2170, 1240), Image.Resampling.BICUBIC), fine, 0.25)
            for step in range(120):
                view = base.crop((2 * step, step, 2 * step + 1920, step + 1080))
                container.mux(stream.encode(av.VideoFrame.from_image(view)))
        container.mux(stream.encode(None))
    buffer.seek(0)
    source: Any
    with av.open(buffer) as source, av.open(str(path), "w") as target:
        stream = source.streams.video[0]
        packets = [packet for packet in source.demux(stream) if packet.dts is not None]
        copy = target.add_stream_from_template(stream)
        span = round(20 / stream.time_base)
        times = [(packet.pts, packet.dts) for packet in packets]
        for turn in range(max(1, round(minutes * 3))):
            for packet, (pts, dts) in zip(packets, times, strict=True):
                packet.stream, packet.pts, packet.dts = copy, pts + turn * span, dts + turn * span
                packet.time_base = stream.time_base
                target.mux(packet)


def speed(folder: Path, minutes: float, model: str) -> None:
    """Print minutes of 1080p done in a minute."""
    print(
        "\n1080p at 30 frames/s, H.264       MB/min  moments/min  decoding, 1 process  fovea index"
    )
    for name, gop in (("a keyframe each second", 30), ("one in 8 seconds", 250)):
        place = folder / f"speed-{gop}"
        place.mkdir()
        long_film(place / "a.mp4", minutes, gop)
        size = (place / "a.mp4").stat().st_size
        if minutes >= 1:  # two files, so that two workers have something to do
            long_film(place / "b.mp4", minutes, gop)
            with (place / "b.mp4").open("ab") as file:
                file.write(b"\0\0\0\x08free")  # another content
        started = time.perf_counter()
        with (place / "a.mp4").open("rb") as file:
            video = decode_video(file, Preprocess(256), Limits(), 3600)
        alone = time.perf_counter() - started
        started = time.perf_counter()
        with fovea.Library.open(place / "library", create=True) as library:
            library.index(place, model=model, places=False)
        whole = time.perf_counter() - started
        files = len(list(place.glob("*.mp4")))
        print(
            f"{name:32}  {size / minutes / 1e6:7.0f}  {len(video.times) / minutes:11.1f}"
            f"  {minutes / (alone / 60):19.0f}  {files * minutes / (whole / 60):11.0f}"
        )


def main() -> None:
    """Draw, index, ask, and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--model", default="fovea-small")
    parser.add_argument("--only", choices=("moments", "speed"))
    options = parser.parse_args()
    os.environ |= {"FOVEA_OFFLINE": "1", "FOVEA_ANALYSES": ""}
    with tempfile.TemporaryDirectory(prefix="fovea-bench-") as folder:
        if options.only != "speed":
            moments(Path(folder), options.model)
        if options.only != "moments":
            speed(Path(folder), options.minutes, options.model)


if __name__ == "__main__":
    main()
