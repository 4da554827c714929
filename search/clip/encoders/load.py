"""Open a model of any family as an encoder."""

from pathlib import Path

from fovea.search.clip.checkpoints.checkpoint import Checkpoint
from fovea.search.clip.checkpoints.families import family_of

from .base import TorchEncoder, pick_device, pick_dtype
from .clip import ClipEncoder

__all__ = ["load_encoder"]


def load_encoder(
    folder: Path, *, name: str | None = None, device: str = "auto", dtype: str = "auto"
) -> TorchEncoder:
    """Open the model in ``folder`` (or a single weights file) on a device.

    ``transformers`` computes those of other families than CLIP. ``device`` is auto, cpu, cuda,
    cuda:N or mps; ``dtype`` auto, float32, bfloat16 or float16. Raise ``ModelError`` if the device
    is not available or the model cannot be used.
    """
    place = pick_device(device)
    precision = pick_dtype(dtype, place)
    if family := family_of(folder):
        from .transformers_models import TransformersEncoder

        return TransformersEncoder(
            folder, family, name=name or folder.stem, device=place, dtype=precision
        )
    checkpoint = Checkpoint.open(folder)
    return ClipEncoder(checkpoint, name=name or folder.stem, device=place, dtype=precision)
