"""Open a picture to search with."""

import os
import warnings
from pathlib import Path
from typing import Protocol

from PIL import Image, UnidentifiedImageError

from .errors import LibraryError

__all__ = ["FORMATS", "Drafting", "open_image", "shown"]

# Not EPS, which runs another program, nor documents.
FORMATS = (
    "JPEG", "MPO", "PNG", "WEBP", "GIF", "TIFF", "BMP", "DIB", "AVIF", "JPEG2000", "PPM", "HEIF",
)  # fmt: skip


class Drafting(Protocol):
    """Preprocessing that knows how small a picture may be decoded."""

    def draft(self, image: Image.Image) -> None:
        """Ask an opened, not yet loaded image to decode at a reduced scale."""
        ...


def open_image(file: Path | str, preprocess: Drafting | None = None) -> Image.Image:
    """Open and decode a picture, at the scale that ``preprocess`` needs if it is given.

    Raise ``LibraryError`` if that fails.
    """
    _register_heif()
    with warnings.catch_warnings():
        # A large picture that somebody names is wanted; Pillow still refuses the absurd.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            image = Image.open(file, formats=FORMATS)
            if preprocess is not None:
                preprocess.draft(image)
            image.load()
        except UnidentifiedImageError as exc:
            raise LibraryError(f"{shown(file)} is not a picture that can be read") from exc
        except OSError as exc:
            raise LibraryError(f"cannot read {shown(file)}: {exc.strerror or exc}") from exc
        except Exception as exc:  # Pillow's decoders raise nearly every kind for a broken file
            raise LibraryError(f"cannot read {shown(file)}: {exc}") from exc
    return image


def shown(file: Path | str) -> str:
    """A file's name as one printable line: what is not UTF-8 or not printable is escaped."""
    text = os.fsencode(file).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _register_heif() -> None:
    """Let Pillow read HEIC where the package for it is installed."""
    if "HEIF" in Image.OPEN:
        return
    try:
        import pillow_heif
    except ImportError:
        return
    pillow_heif.register_heif_opener()
