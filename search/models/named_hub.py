"""Models of the Hugging Face hub that fovea recommends, and so knows by a short name."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["NAMED_HUB_MODELS", "RECOMMENDED", "NamedHubModel", "find_named", "plain_name"]


@dataclass(frozen=True, slots=True)
class NamedHubModel:
    """A model of the hub with a short name; ``accuracy`` ranks it among the published ones."""

    name: str
    hub_id: str
    aliases: Iterable[str]
    accuracy: float  # zero-shot ImageNet, per cent: docs/openclip_results.csv of open_clip
    bytes: int  # of the download, about: four for each parameter


RECOMMENDED = NamedHubModel(
    "ViT-B-32-256",
    "laion/CLIP-ViT-B-32-256x256-DataComp-s34B-b86K",  # Gadre et al. 2023, arXiv:2304.14108
    (
        "ViT-B/32@256px",
        "ViT-B-32-256x256",
        "ViT-B-32-256-DataComp",
        "ViT-B-32-256/datacomp_s34b_b86k",  # as open_clip calls the model and its weights
        "CLIP-ViT-B-32-256x256-DataComp-s34B-b86K",
    ),
    72.8,
    605_000_000,
)
NAMED_HUB_MODELS = (RECOMMENDED,)


def find_named(name: str) -> NamedHubModel | None:
    """Return the model of this short name, alias or hub id, whatever its punctuation and case."""
    wanted = plain_name(name)
    for model in NAMED_HUB_MODELS:
        if wanted in map(plain_name, (model.name, model.hub_id, *model.aliases)):
            return model
    return None


def plain_name(name: str) -> str:
    """Return a name's letters and digits, in lower case."""
    return re.sub(r"[^a-z0-9]", "", name.lower())
