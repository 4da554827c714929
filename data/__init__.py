"""What ships with fovea, and what an optional package ships for its demo."""

from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

BUNDLED = "fovea-small"

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
    folder = Path(str(files(__name__))) / BUNDLED
    return folder if (folder / "model.safetensors").is_file() else None


def demo_photographs() -> list[Path]:
    """Return the photographs that scikit-image brings along; none where it is not installed."""
    spec = find_spec("skimage")
    places = spec.submodule_search_locations if spec is not None else None
    folders = [Path(place) / "data" for place in places or ()]
    found = (folder / name for folder in folders for name in DEMO_PHOTOGRAPHS)
    return [path for path in found if path.is_file()]
