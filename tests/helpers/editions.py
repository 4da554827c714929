"""fovea as it shipped before its bundled model was replaced, and as it ships since."""

import hashlib

import fovea.data as data
from small_clips import RESNET, write_model

FORMER_NAME = "fovea-small-1"


def write_editions(folder):
    """Write a former bundled model and the one that replaced it."""
    write_model(folder / FORMER_NAME)
    write_model(folder / "fovea-small", RESNET, seed=1)


def identity(folder):
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def ship_before(patch, folder):
    """Ship the former model alone, as ``fovea-small``."""
    patch.setattr(data, "FORMER", {})
    patch.setattr(data, "shipped", lambda name: folder / FORMER_NAME)


def ship_now(patch, folder):
    """Ship both models of ``write_editions``."""
    patch.setattr(data, "FORMER", {FORMER_NAME: identity(folder / FORMER_NAME)})
    patch.setattr(data, "shipped", lambda name: folder / name)
