"""What one file may cost, and the exceptions that reject a file."""

from dataclasses import dataclass

MB = 1 << 20

VIDEO_BYTES_A_SECOND = 20 * MB  # at which a slow disk delivers a video
DECODING = 2  # of fovea's own part in decoding: raise it when files can be read that failed before


@dataclass(frozen=True, slots=True)
class Limits:
    """What one file may cost before it is recorded as failed."""

    seconds: float = 30.0  # from opening the file to its pixels
    memory: int = 1024 * MB  # bytes of a worker's address space, all in all
    file_bytes: int = 512 * MB  # a larger file is refused without reading it
    pixels: int = 210_000_000  # width x height as declared: a phone's 200 megapixels fit
    decoded: int = 640 * MB  # bytes of the decoded picture, after a JPEG's reduced scale
    scans: int = 100  # of a JPEG; each one walks every block. Ordinary ones have up to 20
    text: int = 1 * MB  # bytes of one PNG text or colour profile, inflated; larger ones are ignored
    text_chunks: int = 1000  # of a PNG; all are ignored where there are more
    video_seconds: float = 120.0  # for a video, and more by its length: see ``video_time``
    video_bytes: int = 32 << 30
    video_pixels: int = 36_000_000  # of a frame: 8K fits

    def video_time(self, size: int) -> float:
        """Return the seconds that a video of so many bytes may take, to be read and decoded."""
        return self.video_seconds + size / VIDEO_BYTES_A_SECOND


class Refused(Exception):
    """A file that cannot be embedded; the message is the reason to record, on one line."""


class Unreadable(Refused):
    """A file that the operating system does not let us read; a later attempt may succeed."""


class Unreachable(Unreadable):
    """A file that a disk or a network fails to deliver: nothing is known about it now."""


class Gone(Exception):
    """A file that disappeared between being listed and being opened."""


def one_line(text: str, length: int = 200) -> str:
    """Return text from a file without control characters, on one line and cut to ``length``."""
    printable = "".join(c if c.isprintable() else " " for c in text[: 4 * length])
    words = " ".join(printable.split())
    return words if len(words) <= length else words[: length - 1] + "…"


UNEXPECTED = "unexpected error: "  # how the reason begins where a step raised what it should not


def unexpected(exc: BaseException) -> str:
    """Return the reason to record for a file at which a step failed in an unforeseen way."""
    return UNEXPECTED + (one_line(f"{type(exc).__name__}: {exc}") or type(exc).__name__)


def megabytes(count: int) -> str:
    """Format a number of bytes: ``"512 MB"``."""
    return f"{count / MB:,.0f} MB" if count >= 10 * MB else f"{count / MB:,.1f} MB"
