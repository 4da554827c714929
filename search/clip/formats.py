"""The picture formats that fovea reads: one table, from which all other lists are derived.

To add a format that Pillow or one of its plugins can open, add a row. Formats that run other
programs (EPS), documents (PDF) and formats that neither cameras nor photo editors write are left
out on purpose.
"""

import re
from dataclasses import dataclass

__all__ = ["FORMATS", "Format", "browser_media_type", "format_named"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """A picture format.

    ``pillow`` are its names in Pillow, and ``plugins`` the modules that register them when they
    are imported; both are empty for camera RAW. ``media_type`` and ``signature``, a pattern of a
    file's first bytes, are set for formats that browsers show.
    """

    name: str  # as the library stores it
    extensions: str  # lower case, without dots; ``format:`` understands them too
    pillow: tuple[str, ...] = ()
    plugins: tuple[str, ...] = ()
    media_type: str = ""
    signature: bytes = b""

    @property
    def suffixes(self) -> tuple[str, ...]:
        """The extensions with their dots."""
        return tuple(f".{extension}" for extension in self.extensions.split())


FORMATS = (
    Format(
        name="JPEG",
        extensions="jpg jpeg jpe jfif mpo",  # an MPO is a JPEG with a preview behind it
        pillow=("JPEG",),
        plugins=("PIL.JpegImagePlugin", "PIL.MpoImagePlugin"),
        media_type="image/jpeg",
        signature=rb"\xff\xd8\xff",
    ),
    Format(
        name="PNG",
        extensions="png apng",
        pillow=("PNG",),
        plugins=("PIL.PngImagePlugin",),
        media_type="image/png",
        signature=rb"\x89PNG\r\n\x1a\n",
    ),
    Format(
        name="WEBP",
        extensions="webp",
        pillow=("WEBP",),
        plugins=("PIL.WebPImagePlugin",),
        media_type="image/webp",
        signature=rb"RIFF.{4}WEBP",
    ),
    Format(
        name="GIF",
        extensions="gif",
        pillow=("GIF",),
        plugins=("PIL.GifImagePlugin",),
        media_type="image/gif",
        signature=rb"GIF8[79]a",
    ),
    Format(
        name="TIFF",
        extensions="tif tiff",
        pillow=("TIFF",),
        plugins=("PIL.TiffImagePlugin",),
    ),
    Format(
        name="BMP",
        extensions="bmp dib",
        pillow=("BMP", "DIB"),
        plugins=("PIL.BmpImagePlugin",),
        media_type="image/bmp",
        signature=rb"BM",
    ),
    Format(
        name="AVIF",
        extensions="avif avifs",
        pillow=("AVIF",),
        plugins=("PIL.AvifImagePlugin",),
        media_type="image/avif",
        signature=rb".{4}ftypavi[fs]",
    ),
    Format(
        name="JPEG2000",
        extensions="jp2 j2k j2c jpc jpf jpx",
        pillow=("JPEG2000",),
        plugins=("PIL.Jpeg2KImagePlugin",),
    ),
    Format(
        name="PPM",
        extensions="ppm pgm pbm pnm pfm",
        pillow=("PPM",),
        plugins=("PIL.PpmImagePlugin",),
    ),
    Format(
        name="HEIF",
        extensions="heic heics heif heifs hif",
        pillow=("HEIF",),
        plugins=("pillow_heif.HeifImagePlugin",),
    ),
    Format(
        name="RAW",
        extensions="3fr arw cr2 cr3 dcr dng erf iiq k25 kdc mef mos mrw nef nrw orf pef raf rw2 "
        "rwl srf srw x3f",
    ),
)


def format_named(name: str) -> Format | None:
    """The format that has this name or extension, in upper or lower case; None if none has."""
    wanted = name.lower()
    for entry in FORMATS:
        if wanted == entry.name.lower() or wanted in entry.extensions.split():
            return entry
    return None


def browser_media_type(beginning: bytes) -> str | None:
    """The media type of a picture that browsers show, by its first bytes; None for others."""
    for entry in FORMATS:
        if entry.signature and re.match(entry.signature, beginning, re.DOTALL):
            return entry.media_type
    return None
