"""What the tests of one subject share."""

from coloured import COLOURS
from fovea.search.models import installed

ODD = b"caf\xe9\n\x1b[31m.png"


def settle(patch, folder):
    """Let commands find the library and the models of a folder, and no network."""
    patch.setenv("FOVEA_LIBRARY", str(folder / "library"))
    patch.setenv("FOVEA_MODELS", str(folder / "models"))
    patch.setenv("FOVEA_OFFLINE", "1")
    patch.setattr(installed, "bundled_model", lambda: folder / "model")


def pictures(folder):
    """The pictures that differ from each other."""
    return [folder / "photos" / f"{colour}.png" for colour in COLOURS]
