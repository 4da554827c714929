"""Turn a file's bytes into an upright picture and into what a model takes, within limits.

A picture's size, orientation and pixels come from one decode, and whoever embeds, shows or
describes it takes it from here, so that all see the same. A damaged one is decoded as far as it is
certain, and says what it lacks. Runs in worker processes: Pillow and NumPy, never torch.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib import import_module
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image, TiffImagePlugin

from fovea.search.clip.formats import format_named
from fovea.search.clip.preprocess import Preprocess, as_rgb, upright
from fovea.search.duplicates.signature import signature_of
from fovea.search.library.rows import ImageMetadata

from . import png
from .embedded_text import EmbeddedText, picture_words
from .exif import read_shot
from .formats import PILLOW_FORMATS, PLUGINS
from .limits import Limits, Refused, megabytes
from .picture import DecodedPicture, check_decoded, check_pixels
from .precheck import screened
from .reasons import explain
from .rescue import jpeg
from .rescue.damage import COARSE, COLOURS, LATER_FRAMES, LATER_PAGES, PALETTE, in_words
from .rescue.frames import (
    gif_lacks_frames,
    is_animated_webp,
    is_webp,
    mended_webp,
    tiff_lacks_pages,
)
from .rescue.lenient import Partial, differing, partly, turned_mask

__all__ = ["Draft", "Picture", "decode", "explained", "open_picture", "plain", "prepare"]

Size = tuple[int, int]  # width and height in pixels
Draft = Callable[[Image.Image], object]  # has an opened image decode at a smaller scale

_NO_ROW = "broken: the file ends before the first row of its picture"
_ALL_OR_NOTHING = ("AVIF", "HEIF")
_PLANAR, _PLANES, _BITS, _PHOTOMETRIC, _YCBCR = 284, 2, 258, 262, 6  # TIFF 6.0


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
    with explained(data, limits):
        if raw:
            from .raw import decode_raw

            return decode_raw(data, preprocess, limits)
        found = open_picture(data, limits, preprocess.draft, words=words)
        image = plain(found.image)
        return DecodedPicture(
            preprocess.pixels(image), found.metadata, found.words, signature_of(image)
        )


def plain(image: Image.Image) -> Image.Image:
    """Return an upright image as RGB or L, without metadata, which may say otherwise.

    Very large pictures are not copied without need.
    """
    if image.mode == "1" and not image.has_transparency_data:
        made = image.convert("L")
    elif image.mode in ("RGB", "L") and not image.has_transparency_data:
        made = image._new(image.im)  # as ``copy`` does, but of the same pixels
    else:
        made = as_rgb(image)
    made.info = {}
    return made


@contextmanager
def explained(data: bytes, limits: Limits) -> Iterator[None]:
    """Turn whatever decoders raise for a file's bytes into ``Refused``, with the reason."""
    try:
        yield
    except Refused:
        raise
    except MemoryError as exc:
        limit = megabytes(limits.memory)
        raise Refused(f"too large: decoding needs more than {limit} of memory") from exc
    except Exception as exc:  # Pillow's decoders raise nearly every kind for a broken file
        raise Refused(f"broken: {explain(exc, data)}") from exc


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded picture: upright, in its own mode, at a JPEG's reduced scale if one was asked for.

    The metadata's width, height and orientation are the whole picture's, and of the same decode.
    What ``image.info`` says of an orientation is void.
    """

    image: Image.Image
    metadata: ImageMetadata
    words: EmbeddedText = EmbeddedText()


def open_picture(data: bytes, limits: Limits, draft: Draft, *, words: bool = False) -> Picture:
    """Decode a file's bytes, except camera RAW.

    ``draft`` is given the opened image, and may have it decode at a smaller scale. A damaged
    picture is decoded as far as it is certain, grey for the rest. Raise ``Refused``, or what
    decoders raise for a file that holds no certain row of its picture.
    """
    return _Opener(limits, draft, words).picture(screened(data, limits))


@dataclass(frozen=True, slots=True)
class _Opener:
    limits: Limits
    draft: Draft
    wants_words: bool

    def picture(self, data: bytes) -> Picture:
        if data.startswith(jpeg.START):
            return self._jpeg(data)
        found, error = self._tried(data)
        if found is None:
            assert error is not None
            return self._rescued(data, error)
        kind = found.metadata.format
        if kind == "TIFF":
            return _marked(found, LATER_PAGES if tiff_lacks_pages(data) else None)
        is_short = (kind == "GIF" and gif_lacks_frames(data)) or (
            kind == "PNG" and not png.has_all_frames(data)
        )
        return _marked(found, LATER_FRAMES if is_short else None)

    def _opened(self, data: bytes) -> Image.Image:
        image = _by_the_right_decoder(Image.open(BytesIO(data), formats=PILLOW_FORMATS), data)
        check_pixels(image.size, self.limits)
        return image

    def _whole(self, data: bytes) -> Image.Image:
        image = self._opened(data)
        check_decoded(image, self.limits)
        return image

    def _sound(self, data: bytes) -> Picture:
        """Decode a picture all of which is there; raise what the decoder raises for another."""
        image = self._opened(data)
        whole = image.size
        self.draft(image)
        check_decoded(image, self.limits)
        reduced = image.size
        if image.format == "PNG":
            image.load()  # its EXIF may follow its pixels
        picture = self._described(image, data)
        shown, stored = upright(image)
        return _sized(picture, shown, whole, reduced, stored)

    def _described(self, image: Image.Image, data: bytes) -> Picture:
        """Read the metadata of an image opened from ``data``, but not its size."""
        found = format_named(image.format or "")  # Pillow may say MPO where the table says JPEG
        name = found.name if found else image.format or "unknown"
        words = picture_words(image) if self.wants_words else EmbeddedText()
        return Picture(image, replace(read_shot(_exif(image), image, data), format=name), words)

    def _jpeg(self, data: bytes) -> Picture:
        """Decode a JPEG; libjpeg fills with grey what a file that ends too early lacks."""
        walked = None if data.endswith(jpeg.END) else jpeg.layout(data)
        if walked and walked.scans and not walked.is_ended and walked.end == len(data):
            found, error = None, None  # Pillow would decode it all, and then say that it is short
        else:
            found, error = self._tried(data)
        is_grey = found is not None and jpeg.ends_in_grey(found.image, _stored(found))
        is_progressive = found is not None and bool(found.image.info.get("progressive"))
        if found is not None and not (is_grey or is_progressive) and data.endswith(jpeg.END):
            return found
        walked = walked or jpeg.layout(data)
        if walked.bits > 8:
            raise Refused(f"broken: a JPEG of {walked.bits} bits a sample, which is not supported")
        is_certain = walked.is_ended and not is_grey and jpeg.has_all_bits(walked)
        if found is not None and (not walked.scans or is_certain):
            return found  # libjpeg skips what has no place there, or something follows its end
        if not walked.scans:
            raise Refused(_NO_ROW) from error
        if walked.is_ended and found is None:  # a lossless one has no other scale
            found, error = replace(self, draft=_as_it_is)._tried(data)
            if found is not None:
                return found
        ended = jpeg.ended(data, walked)
        if found is None:
            found, error = self._tried(ended)
            if found is None and len(walked.scans) > 1:  # its header is cut
                walked = jpeg.without_last_scan(walked)
                ended = jpeg.ended(data, walked)
            elif found is None:
                raise error or Refused(_NO_ROW)
        lost, rows = jpeg.unread_rows(ended, walked)
        if lost == rows:
            raise Refused(_NO_ROW) from error
        if found is None or lost:
            found = self._sound(ended)
        if lost:
            missing = np.zeros((rows, rows), bool)
            missing[rows - lost :] = True
            return _marked(found, in_words(turned_mask(missing, _stored(found))))
        if jpeg.lacks_colours(walked):
            return _marked(found, COLOURS)
        return _marked(found, COARSE if jpeg.is_coarse(ended, walked) else None)

    def _rescued(self, data: bytes, error: Exception) -> Picture:
        """Decode what is certain of a damaged picture; raise ``error`` where nothing is."""
        remark = None
        if data.startswith(png.START) and (mended := png.mended(data)) is not None:
            data, is_recoloured = mended
            remark = PALETTE if is_recoloured else None
            found, again = self._tried(data)
            if found is not None:
                return _marked(found, remark)
            error = again or error
        part = self._webp(data) if is_webp(data) else self._partly(data)
        if part is None:
            raise error
        size = part.shown.size
        damaged = in_words(part.missing) or (COARSE if part.is_coarse else part.remark or remark)
        described = self._described(part.image, data)
        return _marked(_sized(described, part.shown, size, size, part.stored), damaged)

    def _tried(self, data: bytes) -> tuple[Picture | None, Exception | None]:
        try:
            return self._sound(data), None
        except (Refused, MemoryError):
            raise
        except Exception as exc:  # of nearly every kind, for a broken file
            return None, exc

    def _partly(self, data: bytes) -> Partial | None:
        try:
            if self._whole(data).format in _ALL_OR_NOTHING:
                return None
            return partly(lambda: self._whole(data))
        except (Refused, MemoryError):
            raise
        except Exception:  # of nearly every kind: what was raised before says more
            return None

    def _webp(self, data: bytes) -> Partial | None:
        """Decode the whole frames of a WebP, or those rows that missing data cannot change."""
        decoded: list[Image.Image] = []
        for made in mended_webp(data):
            with suppress(OSError):  # one that its decoder rejects
                image = self._whole(made)
                image.load()
                decoded.append(image)
            if len(decoded) == 2:
                break
        else:
            return None
        image, other = decoded
        changed = differing(image, other).any(1)
        missing = np.zeros((image.height, image.width), bool)
        if changed.any():
            first = int(changed.argmax())
            missing[first:] = True
            image.paste("grey", (0, first, image.width, image.height))
        shown, stored = upright(image)
        missing = turned_mask(missing, stored)
        if missing.all():
            return None
        remark = LATER_FRAMES if is_animated_webp(data) else None
        return Partial(image, shown, stored, missing, remark=remark)


def _as_it_is(image: Image.Image) -> None:
    """Have an image decode at its own scale."""


def _stored(picture: Picture) -> int:
    return picture.metadata.orientation or 1


def _marked(picture: Picture, damaged: str | None) -> Picture:
    if damaged is None:
        return picture
    return replace(picture, metadata=replace(picture.metadata, damaged=damaged))


def _sized(
    picture: Picture, shown: Image.Image, whole: Size, reduced: Size, stored: int
) -> Picture:
    """Add a picture's upright pixels and its size.

    ``whole`` and ``reduced`` are its size as it was opened and as it was asked to decode. Its
    pixels say whether it has been turned: a TIFF gives its size turned or not, depending on where
    its orientation is written.
    """
    is_turned = stored >= 5 if reduced[0] == reduced[1] else shown.size == reduced[::-1]
    if shown.size not in (reduced, reduced[::-1]):  # its decoder has corrected what it declares
        whole, is_turned = shown.size, False
    width, height = whole[::-1] if is_turned else whole
    if (
        picture.metadata.format == "BMP"
        and shown.mode == "RGBA"
        and not any(shown.getchannel("A").getextrema())
    ):
        shown = shown.convert("RGB")  # wholly transparent: its fourth byte is mere padding
    metadata = replace(picture.metadata, width=width, height=height, orientation=stored)
    return replace(picture, image=shown, metadata=metadata)


def _by_the_right_decoder(image: Image.Image, data: bytes) -> Image.Image:
    """Open a TIFF again, by libtiff, whose uncompressed planes or YCbCr Pillow mistakes."""
    if image.format != "TIFF" or getattr(image, "use_load_libtiff", True):
        return image
    tags = image.tag_v2  # type: ignore[attr-defined]
    is_deep = any(bits > 8 for bits in tags.get(_BITS, ()))
    if not (tags.get(_PLANAR) == _PLANES and is_deep) and tags.get(_PHOTOMETRIC) != _YCBCR:
        return image
    module: Any = TiffImagePlugin
    before, module.READ_LIBTIFF = module.READ_LIBTIFF, True
    try:
        return Image.open(BytesIO(data), formats=("TIFF",))
    finally:
        module.READ_LIBTIFF = before


def _exif(image: Image.Image) -> Image.Exif:
    try:
        return image.getexif()
    except Exception:  # Pillow raises many kinds for broken EXIF, which must not cost the picture
        return Image.Exif()
