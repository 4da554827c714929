"""Fixtures of these tests."""

import warnings

import pytest
import torch

from fovea.search.clip.model import CLIP
from small_clips import (
    VIT,
    hub_model,
    published_names,
    write_archive,
)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """A half-precision TorchScript archive, and the hub's model with the same rounded weights."""
    model = hub_model()
    with torch.no_grad():
        for tensor in model.parameters():
            if tensor.dim() > 1:
                tensor.copy_(tensor.half().float())
    ours = CLIP(VIT).eval()
    ours.load_state_dict(published_names(model.state_dict()))
    path = tmp_path_factory.mktemp("archive") / "ViT.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write_archive(path, ours)
    return path, model
