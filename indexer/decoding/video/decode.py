"""Turn a video into its moments, as a model takes them, and into single frames to look at.

Only keyframes are decoded where they are close enough. Between two that are far apart, all frames
are, if one in between is so large that a scene may begin there, or if there would be no moment for
too long.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from fovea.indexer.decoding.limits import Limits, Refused
from fovea.search.clip.preprocess import Preprocess
from fovea.search.library.rows import ImageMetadata

from .colours import orientation_of, picture_of, shown_size, small_of
from .container import Video, opened
from .facts import facts_of
from .scenes import EVERY_S, Scenes

__all__ = ["ENDS_EARLY", "UNREAD", "DecodedVideo", "decode_video", "still"]

LOOK_S = 2.0  # between keyframes: more is looked into, where a scene may begin
STEP_S = 0.4  # the least time between two frames that are looked at
MOST_LOOKED = 2400  # frames that are looked at, about: of a long video, fewer a second
PIECE_S, PIECE_BYTES = 12.0, 64 << 20  # of the frames that wait until the next keyframe
PIECE_FRAMES = 8192  # of them; 12 s at 680 a second, so that only odd files have as many
SPIKE = 2.0  # times the size of large frames: a frame where a scene may begin
FILLING = 0.5  # share of the time in which frames between keyframes may be decoded
ENOUGH = 0.9  # share after which nothing more is decoded
SHORT_S, SHORT = 2.0, 0.05  # seconds, and share of its length, that a whole video may lack
LONGEST_S = 900_000.0  # later frames are a damaged clock's

ENDS_EARLY = "its end is missing"
UNREAD = "its end could not be read in time"


@dataclass(frozen=True, slots=True)
class DecodedVideo:
    """A video's moments, in the order of their times."""

    pixels: np.ndarray  # uint8 (n, size, size, 3)
    times: list[int]  # milliseconds
    poster: int  # the one that stands for the video
    metadata: ImageMetadata


def decode_video(
    file: BinaryIO, preprocess: Preprocess, limits: Limits, seconds: float
) -> DecodedVideo:
    """Decode a video's moments within ``seconds``.

    A damaged or overlong one keeps those so far, and says what it lacks. Raise ``Refused`` with the
    reason for one without any.
    """
    with opened(file, limits) as video:
        reader = _Reader(video, time.monotonic(), seconds)
        scenes: Scenes[np.ndarray] = Scenes(reader.length)
        short, last = min(preprocess.draft_size), -1.0
        first: tuple[float, Any] | None = None
        shape = None
        for at, frame in reader.frames():
            if at <= last:
                continue
            last, small = at, small_of(frame)
            if shape is None:
                shape, stored = shown_size(frame, video.stream), orientation_of(frame)
            if scenes.is_wanted(at, small):
                scenes.keep(at, small, preprocess.pixels(picture_of(frame, video.stream, short)))
            elif first is None:
                first = at, (small, preprocess.pixels(picture_of(frame, video.stream, short)))
        times, pixels = scenes.moments()
        if not times and first is not None:  # all of it shows nothing
            scenes.keep(first[0], *first[1])
            times, pixels = scenes.moments()
        if shape is None or not times:
            raise Refused("broken: none of its frames can be decoded")
        width, height = shape[::-1] if stored >= 5 else shape
        poster = scenes.poster()
        milliseconds = [round(1000 * at) for at in times]
        metadata = replace(
            facts_of(video.container.metadata, video.stream.metadata),
            width=width,
            height=height,
            orientation=stored,
            format=video.format.name,
            damaged=reader.lacks,
            duration_ms=max(round(1000 * reader.played), milliseconds[-1]),
            poster_ms=milliseconds[poster],
        )
        return DecodedVideo(np.stack(pixels), milliseconds, poster, metadata)


def still(file: BinaryIO, at_ms: int, short: int, limits: Limits) -> Image.Image:
    """Return the frame at a time, or the last one before it, upright, in sRGB.

    Its short side has ``short`` pixels, or as many as there are. Raise ``Refused`` where there is
    none.
    """
    wanted = at_ms / 1000
    with opened(file, limits) as video:
        found = None
        for begins in (True, False):  # again from the beginning, if seeking leads nowhere
            if begins and at_ms:
                _seek(video, wanted)
            elif begins:
                continue
            else:
                _seek(video, 0.0)
            for at, frame in _decoded(video):
                if found is not None and at > wanted + 0.0006:
                    break
                found = frame
                if at >= wanted - 0.0006:
                    break
            if found is not None:
                break
        if found is None:
            raise Refused("broken: there is no frame at that time")
        return picture_of(found, video.stream, short)


def _seek(video: Video, seconds: float) -> None:
    av = __import__("av")
    offset = int((seconds + video.start) / video.stream.time_base)
    try:
        video.container.seek(offset, stream=video.stream, backward=True)
    except av.error.FFmpegError:
        return  # what follows is decoded from here on


def _decoded(video: Video) -> Iterator[tuple[float, Any]]:
    """Yield all frames from here on that can be decoded, with their times."""
    av = __import__("av")
    packets = video.container.demux(video.stream)
    while True:
        try:
            packet = next(packets, None)
        except av.error.FFmpegError:
            return
        if packet is None:
            return
        try:
            frames = packet.decode()
        except av.error.FFmpegError:
            continue
        yield from ((video.time(one.pts), one) for one in frames if one.pts is not None)


@dataclass(slots=True)
class _Waiting:
    """Packets from a keyframe on, summed up as they come: there may be thousands."""

    packets: list[Any] = field(default_factory=list)
    bytes: int = 0
    first: int | None = None  # the least time stamp, in units of the stream; None without any
    last: int | None = None  # the largest

    def add(self, packet: Any) -> None:
        self.packets.append(packet)
        self.bytes += packet.size
        stamp = packet.pts
        if stamp is not None:
            self.first = stamp if self.first is None else min(self.first, stamp)
            self.last = stamp if self.last is None else max(self.last, stamp)

    def span(self, video: Video) -> float:
        """Return the seconds between the first and the last of them."""
        if self.first is None or self.last is None:
            return 0.0
        return video.time(self.last) - video.time(self.first)

    def is_long(self, video: Video) -> bool:
        return (
            len(self.packets) >= PIECE_FRAMES
            or self.bytes > PIECE_BYTES
            or self.span(video) > PIECE_S
        )


@dataclass(slots=True)
class _Reader:
    """Reads a video once from its beginning, and decodes the frames that are to be looked at."""

    video: Video
    began: float  # by ``time.monotonic``
    seconds: float
    played: float = 0.0  # seconds of it that there are, as far as it was read
    lacks: str | None = None  # what is missing of it
    _looked: float = -1e9
    _filled: float = 0.0  # seconds spent between keyframes
    _is_going_on: bool = False  # the decoder has decoded all that comes before
    _waits: _Waiting = field(default_factory=_Waiting)

    @property
    def length(self) -> float | None:
        """The length that the video declares, if it can be true."""
        declared = self.video.declared
        return declared if declared is not None and 0 < declared < LONGEST_S else None

    @property
    def _step(self) -> float:
        return max(STEP_S, (self.length or 0.0) / MOST_LOOKED)

    def _spent(self) -> float:
        return (time.monotonic() - self.began) / self.seconds

    def frames(self) -> Iterator[tuple[float, Any]]:
        """Yield frames to look at, with their times in seconds."""
        av = __import__("av")
        packets = self.video.container.demux(self.video.stream)
        is_whole = False
        while True:
            try:
                packet = next(packets, None)
            except av.error.FFmpegError:
                break
            if packet is None or (packet.dts is None and packet.pts is None and not packet.size):
                is_whole = True
                break
            if self._spent() > ENOUGH:
                self.lacks = UNREAD
                break
            yield from self._take(packet)
        yield from self._look(goes_on=False)
        length = self.length
        if self.lacks is None and length is not None:
            missing = length - self.played
            if missing > max(SHORT_S, SHORT * length) or not is_whole:
                self.lacks = ENDS_EARLY
        elif self.lacks is None and not is_whole:
            self.lacks = ENDS_EARLY

    def _take(self, packet: Any) -> Iterator[tuple[float, Any]]:
        stamp = packet.pts if packet.pts is not None else packet.dts
        at = None if stamp is None else self.video.time(stamp)
        if at is not None and at < LONGEST_S:
            lasts = packet.duration or 0
            self.played = max(self.played, at + float(lasts * self.video.stream.time_base))
        if self._waits.packets and packet.is_keyframe:
            yield from self._look(goes_on=False)
        elif self._waits.is_long(self.video):
            yield from self._look(goes_on=True)
        self._waits.add(packet)

    def _look(self, goes_on: bool) -> Iterator[tuple[float, Any]]:
        """Decode what waits: all of it, or only its keyframe, or nothing."""
        waits, self._waits = self._waits, _Waiting()
        packets, span = waits.packets, waits.span(self.video)
        if not packets:
            return
        is_key = packets[0].is_keyframe
        follows, self._is_going_on = self._is_going_on, False
        if is_key:
            self._flush()
        elif not follows and self._looked > -1:
            return  # nothing is known of what it follows
        if self._wants_all(packets, span, goes_on or not is_key):
            started = time.monotonic()
            for packet in packets:
                yield from self._due(self._decode(packet))
                if self._spent() > ENOUGH:
                    return
            if goes_on:
                self._is_going_on = True
            else:
                yield from self._due(self._decode(None))
            self._filled += time.monotonic() - started
            return
        stamp, step = packets[0].pts, self._step
        if span > step:
            step = 0.0  # nothing else is looked at for a while
        if stamp is None or self.video.time(stamp) >= self._looked + step:
            yield from self._due(self._decode(packets[0]) + self._decode(None), step)

    def _wants_all(self, packets: list[Any], span: float, is_long: bool) -> bool:
        if self._filled > FILLING * self.seconds:
            return False
        if is_long or span > EVERY_S:
            return True
        if span <= LOOK_S:
            return False
        sizes = [one.size for one in packets[1:]]
        return max(sizes) > SPIKE * float(np.percentile(sizes, 90))

    def _due(self, frames: list[Any], step: float | None = None) -> Iterator[tuple[float, Any]]:
        step = self._step if step is None else step
        for frame in frames:
            if frame.pts is None:
                continue
            at = self.video.time(frame.pts)
            if self._looked + step <= at < LONGEST_S:
                self._looked = at
                yield at, frame

    def _decode(self, packet: Any) -> list[Any]:
        """Decode a packet, or with None what the decoder still has; nothing where it cannot."""
        av = __import__("av")
        try:
            found: list[Any] = self.video.stream.codec_context.decode(packet)
        except (av.error.FFmpegError, EOFError):
            return []
        return found

    def _flush(self) -> None:
        context = self.video.stream.codec_context
        if context.is_open:
            context.flush_buffers()
