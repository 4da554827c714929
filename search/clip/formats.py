"""The formats that fovea reads: one table, from which all other lists are derived.

To add a format that Pillow or one of its plugins can open, add a row. Formats that run other
programs (EPS), documents (PDF) and formats that neither cameras nor photo editors write are left
out on purpose.
"""

import re
from dataclasses import dataclass

__all__ = ["FORMATS", "Format", "browser_media_type", "format_named", "video_format"]


@dataclass(frozen=True, slots=True)
class Format:
    """A format of pictures or videos; several names in one field are separated by spaces.

    ``pillow`` are its names in Pillow, and ``plugins`` the modules that register them when they
    are imported; both are empty for camera RAW and videos. ``media_type`` is set for formats that
    browsers show, and ``signature``, a pattern of a file's first bytes, for these and for videos,
    for which ``video`` is the name of FFmpeg's reader.
    """

    name: str  # as the library stores it
    extensions: str  # lower case, without dots; ``format:`` understands them too
    pillow: str = ""
    plugins: str = ""
    media_type: str = ""
    signature: bytes = b""
    video: str = ""

    @property
    def suffixes(self) -> tuple[str, ...]:
        """The extensions with their dots."""
        return tuple(f".{extension}" for extension in self.extensions.split())


FORMATS = (
    # To Pillow, a JPEG with a preview behind it is an MPO.
    Format("JPEG", "jpg jpeg jpe jfif mpo", "JPEG", "PIL.JpegImagePlugin PIL.MpoImagePlugin",
           "image/jpeg", rb"\xff\xd8\xff"),
    Format("PNG", "png apng", "PNG", "PIL.PngImagePlugin", "image/png", rb"\x89PNG\r\n\x1a\n"),
    Format("WEBP", "webp", "WEBP", "PIL.WebPImagePlugin", "image/webp", rb"RIFF.{4}WEBP"),
    Format("GIF", "gif", "GIF", "PIL.GifImagePlugin", "image/gif", rb"GIF8[79]a"),
    Format("TIFF", "tif tiff", "TIFF", "PIL.TiffImagePlugin"),
    Format("BMP", "bmp dib", "BMP DIB", "PIL.BmpImagePlugin", "image/bmp", rb"BM"),
    Format("AVIF", "avif avifs", "AVIF", "PIL.AvifImagePlugin", "image/avif", rb".{4}ftypavi[fs]"),
    Format("JPEG2000", "jp2 j2k j2c jpc jpf jpx", "JPEG2000", "PIL.Jpeg2KImagePlugin"),
    Format("PPM", "ppm pgm pbm pnm pfm", "PPM", "PIL.PpmImagePlugin"),
    Format("HEIF", "heic heics heif heifs hif", "HEIF", "pillow_heif.HeifImagePlugin"),
    Format("RAW", "3fr arw cr2 cr3 dcr dng erf iiq k25 kdc mef mos mrw nef nrw orf pef raf rw2 rwl "
           "srf srw x3f"),
    Format("MP4", "mp4 m4v", media_type="video/mp4", video="mov", signature=
           rb".{4}ftyp(?!qt|3g|he[iv]|mi[af]|msf|avi|crx|jp)"),
    Format("MOV", "mov qt", media_type="video/quicktime", video="mov", signature=
           rb".{4}(?:ftypqt|moov|mdat|wide|free|skip)"),
    Format("3GP", "3gp 3g2", media_type="video/3gpp", video="mov", signature=rb".{4}ftyp3g"),
    Format("WEBM", "webm", media_type="video/webm", video="matroska", signature=
           rb"\x1aE\xdf\xa3.{0,28}webm"),
    Format("MKV", "mkv", media_type="video/x-matroska", video="matroska", signature=
           rb"\x1aE\xdf\xa3"),
    Format("OGV", "ogv", media_type="video/ogg", video="ogg", signature=rb"OggS"),
    Format("AVI", "avi", video="avi", signature=rb"RIFF.{4}AVI "),
    Format("MTS", "mts m2ts m2t", video="mpegts", signature=rb"(?:.{4})?G.{187}(?:.{4})?G"),
    Format("MPEG", "mpg mpeg", video="mpeg", signature=rb"\0\0\x01\xba"),
    Format("WMV", "wmv asf", video="asf", signature=rb"0&\xb2u\x8ef\xcf\x11"),
    Format("FLV", "flv", video="flv", signature=rb"FLV\x01"),
)  # fmt: skip


def format_named(name: str) -> Format | None:
    """The format that has this name or extension, in upper or lower case; None if none has."""
    wanted = name.lower()
    for entry in FORMATS:
        if wanted == entry.name.lower() or wanted in entry.extensions.split():
            return entry
    return None


def browser_media_type(beginning: bytes) -> str | None:
    """The media type of a file that browsers show, by its first bytes; None for others."""
    for entry in FORMATS:
        if entry.media_type and re.match(entry.signature, beginning, re.DOTALL):
            return entry.media_type
    return None


def video_format(beginning: bytes) -> Format | None:
    """The format of a video, by the first 512 bytes of its file; None for anything else."""
    for entry in FORMATS:
        if entry.video and re.match(entry.signature, beginning, re.DOTALL):
            return entry
    return None
