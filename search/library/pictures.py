"""Open a picture to search with."""

import contextlib
import os
import stat
import warnings
from io import BytesIO
from pathlib import Path
from typing import Protocol

from PIL import Image, UnidentifiedImageError

from fovea.search.errors import LibraryError

__all__ = ["FORMATS", "Drafting", "file_bytes", "open_image", "shown"]

# Not EPS, which runs another program, nor documents.
FORMATS = (
    "JPEG", "MPO", "PNG", "WEBP", "GIF", "TIFF", "BMP", "DIB", "AVIF", "JPEG2000", "PPM", "HEIF",
)  # fmt: skip


LARGEST = 512 << 20  # bytes of a file that is read


class Drafting(Protocol):
    """Preprocessing that knows how small a picture may be decoded."""

    def draft(self, image: Image.Image) -> None:
        """Ask an opened, not yet loaded image to decode at a reduced scale."""
        ...


def open_image(file: Path | str, preprocess: Drafting | None = None) -> Image.Image:
    """Open and decode a picture, at the scale that ``preprocess`` needs if it is given.

    It is decoded in this process, which waits as long as that takes. Raise ``LibraryError`` for
    what is no picture, no file, or too large.
    """
    data, formats = file_bytes(file), _formats()
    with warnings.catch_warnings():
        # A large picture that somebody names is wanted; Pillow still refuses the absurd.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            with contextlib.ExitStack() as failing:
                image = failing.enter_context(Image.open(BytesIO(data), formats=formats))
                if preprocess is not None:
                    preprocess.draft(image)
                image.load()
                failing.pop_all()
        except UnidentifiedImageError as exc:
            raise LibraryError(f"{shown(file)} is not a picture that can be read") from exc
        except OSError as exc:
            raise LibraryError(f"cannot read {shown(file)}: {exc.strerror or exc}") from exc
        except Exception as exc:  # Pillow's decoders raise nearly every kind for a broken file
            raise LibraryError(f"cannot read {shown(file)}: {exc}") from exc
    return image


def file_bytes(file: Path | str) -> bytes:
    """The bytes of a regular file; whatever else has a name might never end, or never begin.

    Raise ``LibraryError`` for what is none, is too large, or cannot be read.
    """
    try:
        with open(file, "rb", opener=_open_at_once) as opened:
            status = os.fstat(opened.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise LibraryError(f"cannot read {shown(file)}: it is no file; name a picture")
            data = opened.read(LARGEST + 1) if status.st_size <= LARGEST else None
    except OSError as exc:
        raise LibraryError(f"cannot read {shown(file)}: {exc.strerror or exc}") from exc
    if data is None or len(data) > LARGEST:
        raise LibraryError(
            f"cannot read {shown(file)}: it has more than {LARGEST >> 20} MB; name a smaller one"
        )
    return data


def _open_at_once(path: str, flags: int) -> int:
    """Open without waiting for whoever would write to a named pipe."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def shown(file: Path | str) -> str:
    """A file's name as one printable line: what is not UTF-8 or not printable is escaped."""
    text = os.fsencode(file).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _formats() -> list[str]:
    """Those of the formats that can be read here: HEIC only where its package is installed."""
    Image.init()  # Pillow loads most of its readers on first use, and refuses names before that
    if "HEIF" not in Image.OPEN:
        with contextlib.suppress(ImportError):
            import pillow_heif

            pillow_heif.register_heif_opener()
    return [name for name in FORMATS if name in Image.OPEN]
