"""Turn a file's bytes into the pixels that a model takes, within limits.

Runs in worker processes: Pillow and NumPy, never torch.
"""

import warnings
from dataclasses import replace
from importlib import import_module
from io import BytesIO
from typing import Any

from PIL import Image, UnidentifiedImageError

from fovea.search.clip.formats import format_named
from fovea.search.clip.preprocess import Preprocess, orientation

from .embedded_text import EmbeddedText, picture_words
from .exif import read_shot
from .formats import PILLOW_FORMATS, PLUGINS
from .limits import Limits, Refused, megabytes, one_line
from .picture import DecodedPicture, check_decoded, check_pixels
from .precheck import screened

# Errors whose messages decoders write for people; errors of other kinds are bugs in them.
_WITH_MESSAGE = (OSError, SyntaxError, ValueError, RuntimeError)


def prepare() -> None:
    """Set this process up for decoding: one thread each, no warnings, HEIC where it is installed.

    For worker processes alone, since it changes Pillow's settings.
    """
    warnings.simplefilter("ignore")
    Image.MAX_IMAGE_PIXELS = None  # ``check_pixels`` counts them, and Pillow only warns
    # Pillow imports these by itself only where all formats are accepted.
    for module in PLUGINS:
        import_module(module)
    avif: Any = import_module("PIL.AvifImagePlugin")
    avif.DEFAULT_MAX_THREADS = 1
    import_module("pillow_heif").options.DECODE_THREADS = 1


def decode(
    data: bytes, preprocess: Preprocess, limits: Limits, raw: bool = False, words: bool = False
) -> DecodedPicture:
    """Decode a file's bytes; ``raw`` says that they are camera RAW.

    ``words`` asks for the embedded text, too, except of camera RAW. Raise ``Refused`` with the
    reason for what cannot be decoded within the limits of pixels, memory and scans. The limit of
    seconds is the caller's to enforce: a thread cannot be stopped inside C code.
    """
    try:
        if raw:
            from .raw import decode_raw

            return decode_raw(data, preprocess, limits)
        return _decode(screened(data, limits), preprocess, limits, words)
    except Refused:
        raise
    except MemoryError as exc:
        limit = megabytes(limits.memory)
        raise Refused(f"too large: decoding needs more than {limit} of memory") from exc
    except Exception as exc:  # Pillow's decoders raise nearly every kind for a broken file
        raise Refused(f"broken: {_explain(exc, data)}") from exc


def _decode(data: bytes, preprocess: Preprocess, limits: Limits, words: bool) -> DecodedPicture:
    with Image.open(BytesIO(data), formats=PILLOW_FORMATS) as image:
        check_pixels(image.size, limits)
        turned, shot, size = orientation(image), read_shot(_exif(image), image, data), image.size
        found = format_named(image.format or "")  # Pillow may say MPO where the table says JPEG
        written = picture_words(image) if words else EmbeddedText()
        preprocess.draft(image)
        check_decoded(image, limits)
        pixels = preprocess.pixels(image)
    width, height = size[::-1] if turned >= 5 else size
    name = found.name if found else image.format or "unknown"
    metadata = replace(shot, width=width, height=height, format=name, orientation=turned)
    return DecodedPicture(pixels, metadata, written)


def _exif(image: Image.Image) -> Image.Exif:
    try:
        return image.getexif()
    except Exception:  # Pillow raises many kinds for broken EXIF, which must not cost the picture
        return Image.Exif()


def _explain(exc: Exception, data: bytes) -> str:
    if not data:
        return "the file is empty"
    if isinstance(exc, UnidentifiedImageError):
        return f"not a readable picture; its first bytes are {_beginning(data)}"
    text = one_line(str(exc)) if isinstance(exc, _WITH_MESSAGE) else ""
    return text or f"its decoder failed ({type(exc).__name__})"


def _beginning(data: bytes) -> str:
    """Return the first bytes of a file: as text if they are ASCII, else in hexadecimal."""
    text = data[:8].decode("ascii", "replace")
    return f'"{text}"' if text.isascii() and text.isprintable() else data[:8].hex(" ")
