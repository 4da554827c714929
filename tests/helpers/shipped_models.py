"""Small models in the place of those that are bundled or recommended."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fovea.data as data
from fovea.search.clip.tokenizer import Tokenizer
from fovea.search.models.named_hub import RECOMMENDED
from loopback import serving_hub
from small_clips import MERGES, RESNET, VIT, random_clip, write_model, write_open_clip

FORMER_NAME = "fovea-small-1"

FILE = "open_clip_model.safetensors"
WEIGHTS = f"/{RECOMMENDED.hub_id}/{FILE}"
RESOLVED = f"/{RECOMMENDED.hub_id}/resolve/main/{FILE}"


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


@contextmanager
def serving_recommended(folder: Path, patch) -> Iterator:
    """Serve the model; processes started meanwhile find this hub, and keep models in a folder."""
    write_open_clip(folder / "source", random_clip(VIT, seed=7).state_dict(), VIT)
    Tokenizer(MERGES).save(folder / "source")
    with serving_hub() as served:
        for path in (folder / "source").iterdir():
            served.files[f"/{RECOMMENDED.hub_id}/{path.name}"] = path.read_bytes()
        for name in ("FOVEA_OFFLINE", "HF_HUB_OFFLINE"):
            patch.delenv(name, raising=False)
        patch.setenv("HF_ENDPOINT", served.url)
        patch.setenv("HF_HOME", str(folder / "hub"))
        patch.setenv("FOVEA_MODELS", str(folder / "models"))
        patch.setenv("no_proxy", "*")
        yield served


def parts(served) -> list[str | None]:
    """Return the parts of the weights that were asked for."""
    return [part for path, part in served.asked if path == RESOLVED and part]
