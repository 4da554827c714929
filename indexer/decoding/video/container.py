"""Open a video's container: by the reader that its first bytes ask for, and nothing but that file.

FFmpeg reads through an open file of ours. Whatever else a container names (another file, a list to
play, an address on a network) is refused.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

from fovea.indexer.decoding.limits import Limits, Refused, megabytes, one_line
from fovea.search.clip.formats import Format, video_format

__all__ = ["Video", "opened"]

BEGINNING = 512  # bytes that tell a format
STREAMS = 64  # more are not looked at
PROBED = 5_000_000  # bytes, and microseconds, that may be read to learn about the streams
LONGEST_SIDE = 16_384  # pixels

# What cameras, phones and people's programs write; FFmpeg has some 200 more, for old games.
CODECS = frozenset(
    "h264 hevc av1 libdav1d vp8 vp9 libvpx libvpx-vp9 mpeg4 mpeg1video mpeg2video h263 h263i h263p "
    "mjpeg mjpegb prores dnxhd cfhd theora vp3 vp6 vp6f vp6a flv wmv1 wmv2 wmv3 vc1 msmpeg4 "
    "msmpeg4v1 msmpeg4v2 msmpeg4v3 dvvideo ffv1 huffyuv ffvhuff utvideo magicyuv rawvideo v210 "
    "cinepak indeo3 indeo4 indeo5 svq1 svq3 qtrle rpza png jpeg2000 vvc".split()
)
# By their names in FFmpeg's own list, in which these may be opened while a container is examined.
OPENED = ",".join(sorted(CODECS))


@dataclass(frozen=True, slots=True)
class Video:
    """An open container, its stream of moving pictures, and the format of its file."""

    container: Any  # av.container.InputContainer
    stream: Any  # av.video.stream.VideoStream
    format: Format

    @property
    def start(self) -> float:
        """The time of its first frame in seconds, from which times are counted."""
        began = self.stream.start_time
        return 0.0 if began is None else float(began * self.stream.time_base)

    @property
    def declared(self) -> float | None:
        """Its length in seconds, as the container says."""
        if self.stream.duration:
            return float(self.stream.duration * self.stream.time_base)
        return self.container.duration / 1e6 if self.container.duration else None

    def time(self, timestamp: int) -> float:
        """Return the seconds since the beginning for a timestamp of the stream."""
        return max(0.0, float(timestamp * self.stream.time_base) - self.start)


@contextmanager
def opened(file: BinaryIO, limits: Limits) -> Iterator[Video]:
    """Open the video in a file and choose its stream.

    Raise ``Refused`` with the reason for what is not a video, has no moving pictures, or is too
    large; and for whatever FFmpeg raises until the caller is done.
    """
    beginning = file.read(BEGINNING)
    file.seek(0)
    form = video_format(beginning)
    if form is None:
        said = "the file is empty" if not beginning else "not a video that fovea can read"
        raise Refused(f"broken: {said}")
    import av

    options = {
        "codec_whitelist": OPENED,
        "max_streams": str(STREAMS),
        "probesize": str(PROBED),
        "analyzeduration": str(PROBED),
        "protocol_whitelist": "",
    }
    try:
        with av.open(
            file,
            mode="r",
            format=form.video,
            options=options,
            metadata_errors="replace",
            io_open=_refuse,
        ) as container:
            stream = _chosen(container, limits)
            stream.codec_context.thread_count = 1
            stream.codec_context.options = {"max_pixels": str(limits.video_pixels)}
            for other in container.streams:
                if other.index != stream.index:
                    other.discard = av.stream.Discard.all
            yield Video(container, stream, form)
    except Refused:
        raise
    except MemoryError as exc:
        limit = megabytes(limits.memory)
        raise Refused(f"too large: decoding needs more than {limit} of memory") from exc
    except av.error.FFmpegError as exc:
        raise Refused(f"broken: {_in_words(exc)}") from exc
    except Exception as exc:  # of nearly every kind, for a broken file
        raise Refused(f"broken: {one_line(str(exc)) or type(exc).__name__}") from exc


def _refuse(url: str, flags: int, options: dict[str, str]) -> Any:
    raise PermissionError("a video may not name other files")


def _chosen(container: Any, limits: Limits) -> Any:
    """Choose the stream to look at: the default one, or the largest; not a cover picture."""
    av = __import__("av")
    aside = av.stream.Disposition.attached_pic | av.stream.Disposition.timed_thumbnails
    moving = [one for one in container.streams.video if not one.disposition & aside]
    if not moving:
        raise Refused("no moving picture in it" + (", only sound" if _sounds(container) else ""))
    known = [one for one in moving if one.codec_context is not None]
    known = [one for one in known if one.codec_context.codec.name in CODECS]
    if not known:
        raise Refused(f"broken: its codec is not supported: {_codec_of(moving[0])}")

    def rank(one: Any) -> tuple[bool, int]:
        return bool(one.disposition & av.stream.Disposition.default), one.width * one.height

    stream = max(known, key=rank)
    width, height = stream.width, stream.height
    if width * height > limits.video_pixels or max(width, height) > LONGEST_SIDE:
        raise Refused(
            f"too large: frames of {width:,} x {height:,} pixels; the limit is "
            f"{limits.video_pixels / 1e6:,.0f} megapixels and {LONGEST_SIDE:,} pixels a side"
        )
    if not (width and height):
        raise Refused("broken: the size of its frames is not known")
    return stream


def _sounds(container: Any) -> bool:
    return len(container.streams.audio) > 0


def _codec_of(stream: Any) -> str:
    context = stream.codec_context
    name = context.codec.name if context is not None else getattr(stream, "codec_tag", "") or ""
    return one_line(name.strip("\0 "), 20) or "unknown"


_PLAIN = {  # what FFmpeg says, and what that means
    "Invalid data found when processing input": "its data are damaged, or its end is missing",
    "End of file": "the file ends before its first frame",
    "Cannot allocate memory": "decoding needs too much memory",
}


def _in_words(exc: Any) -> str:
    said = getattr(exc, "strerror", None) or str(exc)
    return _PLAIN.get(said, one_line(said)) or type(exc).__name__
