"""Which files count as pictures, and which decoders may open them."""

from importlib.util import find_spec

# What Pillow may try, whatever a file is called. Formats that run other programs (EPS), that are
# documents (PDF) or that no camera or editor of photographs writes are left out on purpose.
PILLOW_FORMATS = (
    "JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "DIB", "AVIF", "JPEG2000", "PPM", "HEIF",
)  # fmt: skip

_PICTURES = (
    "jpg jpeg jpe jfif mpo png apng webp gif tif tiff bmp dib avif avifs "
    "jp2 j2k j2c jpc jpf jpx ppm pgm pbm pnm pfm heic heics heif heifs hif"
)
_RAW = "3fr arw cr2 cr3 dcr dng erf iiq k25 kdc mef mos mrw nef nrw orf pef raf rw2 rwl srf srw x3f"

RAW_EXTENSIONS = frozenset(b"." + name.encode() for name in _RAW.split())
EXTENSIONS = frozenset(b"." + name.encode() for name in _PICTURES.split()) | RAW_EXTENSIONS

RAW_REASON = "camera RAW needs the optional extra: pip install 'fovea[raw]'"


def extension(name: bytes) -> bytes:
    """Return the lower-case extension of a file name with its dot, or ``b""``."""
    dot = name.rfind(b".")
    return name[dot:].lower() if dot > 0 else b""


def raw_available() -> bool:
    """Say whether the optional extra that develops camera RAW is installed (without loading it)."""
    return find_spec("rawpy") is not None
