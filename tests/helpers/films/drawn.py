"""Small videos that tests draw and encode themselves."""

import os
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageColor

from fovea.indexer.decoding.formats import video_available

needs_av = pytest.mark.skipif(
    not video_available(), reason="PyAV is not installed: pip install 'fovea[video]'"
)

SIZE = 64, 48  # pixels; every codec takes even ones
RATE = 10  # frames a second

Scene = tuple[str | np.ndarray, float]  # a colour or a picture, uint8 (h, w, 3), and its seconds


def frame_of(shown: str | np.ndarray, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Return the picture of a scene, uint8 (h, w, 3); a colour has a little texture at its edge.

    A change from one plain colour to another costs a codec nearly nothing.
    """
    if not isinstance(shown, str):
        return shown
    picture = np.array(Image.new("RGB", size, shown))
    if picture.any() and not picture.all():  # black and white stay blank
        noise = np.random.default_rng(sum(shown.encode())).integers(0, 255, picture[:6].shape)
        picture[:6] = picture[:6] // 2 + noise // 2
    return picture


def corners(size: tuple[int, int] = SIZE) -> np.ndarray:
    """Return a picture whose upper corners are red and lime, the lower ones blue and white."""
    picture, (width, height) = np.zeros((size[1], size[0], 3), np.uint8), size
    for row, column, colour in ((0, 0, "red"), (0, 1, "lime"), (1, 0, "blue"), (1, 1, "white")):
        part = slice(row * height // 2, None), slice(column * width // 2, None)
        picture[part] = ImageColor.getrgb(colour)
    return picture


def film(
    path: Path,
    scenes: Sequence[Scene],
    *,
    codec: str = "mpeg4",
    rate: int = RATE,
    size: tuple[int, int] = SIZE,
    muxer: str | None = None,
    tags: Mapping[str, str] | None = None,
    options: Mapping[str, str] | None = None,
    muxing: Mapping[str, str] | None = None,
    prepared: Callable[[object], None] = lambda stream: None,
    pixels: str = "yuv420p",
    marked: Callable[[object], object] = lambda frame: frame,
) -> Path:
    """Encode scenes, one after another; ``prepared`` is called with the stream.

    ``marked`` may change each frame before it is encoded. Tags go into the container.
    """
    import av

    with av.open(os.fspath(path), "w", format=muxer, options=dict(muxing or {})) as container:
        container.metadata.update(tags or {})
        stream = container.add_stream(codec, rate=rate, options=dict(options or {}))
        stream.width, stream.height, stream.pix_fmt = *size, pixels
        stream.bit_rate = 2_000_000
        prepared(stream)
        number = 0
        for shown, seconds in scenes:
            picture = frame_of(shown, size)
            for _ in range(round(seconds * rate)):
                frame = marked(av.VideoFrame.from_ndarray(picture, "rgb24"))
                frame.pts, frame.time_base = number, Fraction(1, rate)
                container.mux(stream.encode(frame))
                number += 1
        container.mux(stream.encode(None))
    return path


def sound(path: Path, seconds: float = 1.0) -> Path:
    """Encode silence, without any picture."""
    import av

    with av.open(os.fspath(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        for number in range(round(seconds * 8)):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            frame.sample_rate, frame.pts = 8000, number * 1024
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def cut(path: Path, to: Path, share: float) -> Path:
    """Write the first part of a file."""
    data = path.read_bytes()
    to.write_bytes(data[: int(len(data) * share)])
    return to
