"""Write a trained model as a folder: weights, configuration, vocabulary."""

import json
import os
from pathlib import Path

import torch
from safetensors.torch import save

from .model import CLIP
from .tokenizer import Tokenizer


def save_model(
    model: CLIP,
    tokenizer: Tokenizer,
    folder: Path,
    *,
    dtype: torch.dtype = torch.float16,
) -> Path:
    """Write ``model.safetensors`` (in ``dtype``), ``config.json`` and ``bpe.txt.gz``.

    Each file replaces an earlier one whole. Counters of batch normalisation are left out: they
    only matter to training without momentum.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        name: tensor.detach().to("cpu", dtype).contiguous()
        for name, tensor in model.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    partial = folder / "model.safetensors.part"
    partial.write_bytes(save(state, metadata={"format": "pt"}))
    os.replace(partial, folder / "model.safetensors")
    text = json.dumps(model.config.to_dict(), indent=2) + "\n"
    (folder / "config.json").write_text(text, encoding="utf-8")
    tokenizer.save(folder)
    return folder
