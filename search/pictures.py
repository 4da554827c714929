"""Open a picture to search with."""

import contextlib
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
    formats = _formats()
    with warnings.catch_warnings():
        # A large picture that somebody names is wanted; Pillow still refuses the absurd.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            with contextlib.ExitStack() as failing:
                image = failing.enter_context(Image.open(file, formats=formats))
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
