"""Write a trained model as a folder of weights, configuration and vocabulary."""

import json
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from fovea.search.clip.disk import replace_file
from fovea.search.clip.errors import ModelError
from fovea.search.clip.model import CLIP
from fovea.search.clip.protocols import TextTokenizer

from .int8 import SCALE, is_stored_as_int8, quantise


def save_model(
    model: CLIP,
    tokenizer: TextTokenizer,
    folder: Path,
    *,
    dtype: torch.dtype = torch.float16,
    int8_text: bool = False,
) -> Path:
    """Write ``model.safetensors`` (in ``dtype``), ``config.json`` and the vocabulary.

    With ``int8_text`` the text tower's matrices are stored as int8 (``int8.py``). The same weights
    give the same bytes. Each file replaces an earlier one atomically, the weights last. Raise
    ``ModelError`` if one cannot be written or a weight is not finite. The counters of batch
    normalisation are left out: they matter only to training without momentum.
    """
    for name, tensor in model.state_dict().items():
        if not tensor.isfinite().all():
            raise ModelError(f"{name} has values that are not finite; the model is not written")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise ModelError(f"cannot make the folder {folder}: {exc.strerror}") from exc
    state: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        if int8_text and is_stored_as_int8(name, tensor.numpy(force=True)):
            values, scale = quantise(tensor.numpy(force=True))
            state |= {name: torch.from_numpy(values), name + SCALE: torch.from_numpy(scale)}
        elif not name.endswith("num_batches_tracked"):
            state[name] = _stored(tensor, dtype)
    config = json.dumps(model.config.to_dict(), indent=2) + "\n"
    tokenizer.save(folder)
    replace_file(folder / "config.json", lambda file: file.write(config.encode()))
    weights = save(state, metadata={"format": "pt"})
    replace_file(folder / "model.safetensors", lambda file: file.write(weights))
    return folder


def _stored(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a tensor in ``dtype``, or unchanged if one of its values would overflow."""
    tensor = tensor.detach().cpu().contiguous()
    narrow = tensor.to(dtype)
    return narrow if narrow.isfinite().all() else tensor
