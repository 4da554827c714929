"""Which files count as pictures or videos, and which decoders may open them."""

import os
from importlib.util import find_spec

from fovea.search.clip.formats import FORMATS

# Pillow's readers, whatever a file is called, and the modules that register them.
PILLOW_FORMATS = tuple(name for entry in FORMATS for name in entry.pillow.split())
PLUGINS = tuple(module for entry in FORMATS for module in entry.plugins.split())

VIDEO_EXTENSIONS = frozenset(
    suffix.encode() for entry in FORMATS if entry.video for suffix in entry.suffixes
)
RAW_EXTENSIONS = frozenset(
    suffix.encode()
    for entry in FORMATS
    if not (entry.pillow or entry.video)
    for suffix in entry.suffixes
)
EXTENSIONS = frozenset(suffix.encode() for entry in FORMATS for suffix in entry.suffixes)

RAW_REASON = "camera RAW needs the optional extra: pip install 'fovea[raw]'"
VIDEO_INSTALL = "pip install 'fovea[video]'"
VIDEO_REASON = f"videos need the optional extra: {VIDEO_INSTALL}"


def extension(name: bytes) -> bytes:
    """Return the lower-case extension of a file name with its dot, or ``b""``."""
    dot = name.rfind(b".")
    return name[dot:].lower() if dot > 0 else b""


def raw_available() -> bool:
    """Say whether the optional extra that develops camera RAW is installed (without loading it)."""
    return find_spec("rawpy") is not None


def is_video(path: bytes) -> bool:
    """Say whether a file is a video by its name."""
    return extension(os.path.basename(path)) in VIDEO_EXTENSIONS


def video_available() -> bool:
    """Say whether the optional extra that decodes videos is installed (without loading it)."""
    return find_spec("av") is not None
