"""What ships with fovea, and what an optional package ships for its demo."""

from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

BUNDLED = "fovea-small"
WEIGHTS = "model.safetensors"

# Bundled models of earlier versions, by their names now. They came as ``BUNDLED``, and libraries
# indexed with them still know them by that name and the SHA-256 of their weights.
FORMER = {"fovea-small-1": "50d89c9f07bf0a9433d9925e56d78cea32605e5d4d9505e015245579fcd0a5dd"}

# Photographs in scikit-image's wheel; most are in the public domain, and all may be shared.
DEMO_PHOTOGRAPHS = (
    "astronaut.png",
    "brick.png",
    "camera.png",
    "chelsea.png",
    "coffee.png",
    "coins.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "moon.png",
    "motorcycle_left.png",
    "page.png",
    "rocket.jpg",
)


def bundled_model() -> Path | None:
    """Return the folder of the bundled model, in a checkout and in an installed copy alike."""
    return _model_folder(BUNDLED)


def former_models() -> dict[str, Path]:
    """Return the folders of the former bundled models, by name; those left out are not listed."""
    folders = {name: _model_folder(name) for name in FORMER}
    return {name: folder for name, folder in folders.items() if folder is not None}


def former_name(identity: str) -> str | None:
    """Return the name of the former bundled model whose weights have this SHA-256, in hex.

    None for all other models.
    """
    return next((name for name, known in FORMER.items() if known == identity), None)


def shipped(name: str) -> Path:
    """Return where a file or folder lies that ships with fovea."""
    return Path(str(files(__name__))) / name


def _model_folder(name: str) -> Path | None:
    folder = shipped(name)
    return folder if (folder / WEIGHTS).is_file() else None


def demo_photographs() -> list[Path]:
    """Return the photographs that scikit-image brings along; none where it is not installed."""
    spec = find_spec("skimage")
    places = spec.submodule_search_locations if spec is not None else None
    folders = [Path(place) / "data" for place in places or ()]
    found = (folder / name for folder in folders for name in DEMO_PHOTOGRAPHS)
    return [path for path in found if path.is_file()]
