"""Open a model of any family as an encoder."""

from pathlib import Path

import torch

from fovea.search.clip.checkpoints.checkpoint import Checkpoint
from fovea.search.clip.checkpoints.families import family_of
from fovea.search.clip.engines.adapting import Chooser
from fovea.search.clip.engines.record import Kept
from fovea.search.clip.errors import ModelError

from .base import TorchEncoder, pick_device, pick_dtype
from .clip import ClipEncoder

__all__ = ["load_encoder"]


def load_encoder(
    folder: Path,
    *,
    name: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    kept: Kept | None = None,
) -> TorchEncoder:
    """Open the model in ``folder`` (or a single weights file) on a device.

    ``transformers`` computes those of other families than CLIP. ``device`` is auto, cpu, cuda,
    cuda:N or mps; ``dtype`` auto, float32, bfloat16, float16 or, on a CPU, int8. ``kept`` is where
    what was measured of this model on this machine is kept, which ``auto`` follows and int8 needs.
    Raise ``ModelError`` if the device is not available or the model cannot be used.
    """
    place, chooser = pick_device(device), None
    called = name or folder.stem
    if dtype == "int8" and (place.type != "cpu" or kept is None):
        raise ModelError("int8 is for models on the CPU: choose device cpu, or dtype auto")
    if kept is not None and place.type == "cpu" and dtype in ("auto", "float32", "int8"):
        default = str(pick_dtype("auto", place)).removeprefix("torch.")
        chooser = Chooser(kept, called, dtype, default)
        dtype = chooser.precision
    encoder = _opened(folder, called, place, pick_dtype(dtype, place))
    if chooser is not None:
        encoder.follow(chooser)
    return encoder


def _opened(folder: Path, name: str, device: torch.device, dtype: torch.dtype) -> TorchEncoder:
    if family := family_of(folder):
        from .transformers_models import TransformersEncoder

        return TransformersEncoder(folder, family, name=name, device=device, dtype=dtype)
    return ClipEncoder(Checkpoint.open(folder), name=name, device=device, dtype=dtype)
