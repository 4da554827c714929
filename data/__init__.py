"""What ships with fovea: the bundled model."""

from importlib.resources import files
from pathlib import Path

BUNDLED = "fovea-small"


def bundled_model() -> Path | None:
    """Return the folder of the bundled model, in a checkout and in an installed copy alike."""
    folder = Path(str(files(__name__))) / BUNDLED
    return folder if (folder / "model.safetensors").is_file() else None
