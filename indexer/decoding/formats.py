"""Which files count as pictures, and which decoders may open them."""

from importlib.util import find_spec

from fovea.search.clip.formats import FORMATS

# Pillow's readers, whatever a file is called, and the modules that register them.
PILLOW_FORMATS = tuple(name for entry in FORMATS for name in entry.pillow.split())
PLUGINS = tuple(module for entry in FORMATS for module in entry.plugins.split())

RAW_EXTENSIONS = frozenset(
    suffix.encode() for entry in FORMATS if not entry.pillow for suffix in entry.suffixes
)
EXTENSIONS = frozenset(suffix.encode() for entry in FORMATS for suffix in entry.suffixes)

RAW_REASON = "camera RAW needs the optional extra: pip install 'fovea[raw]'"


def extension(name: bytes) -> bytes:
    """Return the lower-case extension of a file name with its dot, or ``b""``."""
    dot = name.rfind(b".")
    return name[dot:].lower() if dot > 0 else b""


def raw_available() -> bool:
    """Say whether the optional extra that develops camera RAW is installed (without loading it)."""
    return find_spec("rawpy") is not None
