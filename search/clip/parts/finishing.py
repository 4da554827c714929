"""Finish a model that was made of parts: how much of what it learned is written."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from fovea.search.clip.errors import ModelError
from fovea.search.clip.model import CLIP

from .joining import with_class_gain
from .packaged import open_text_part

__all__ = ["Finish", "finished"]


@dataclass(frozen=True, slots=True)
class Finish:
    """What is done to the weights before they are written.

    ``trained`` is the share of the trained text tower, the rest being the part ``text_tower`` as it
    was (weight-space ensembles: Wortsman et al. 2021, arXiv:2109.01903, equation 1): words that
    training never used stay where they were. For ``class_gain`` see ``joining.with_class_gain``.
    """

    text_tower: str | None = None
    trained: float = 1.0
    class_gain: float | None = None

    def __post_init__(self) -> None:
        """Raise ``ModelError`` for invalid values."""
        if not _is_number(self.trained) or not 0 <= self.trained <= 1:
            raise ModelError(f"finish: trained is {self.trained!r}; give a share from 0 to 1")
        if self.trained < 1 and not isinstance(self.text_tower, str):
            raise ModelError("finish: trained needs text_tower, the part to mix the rest from")
        gain = self.class_gain
        if gain is not None and not (_is_number(gain) and gain > 0):
            raise ModelError(f"finish: class_gain is {gain!r}; give a number above 0")

    @classmethod
    def from_dict(cls, entry: Mapping[str, object]) -> "Finish":
        """Read a recipe's table; raise ``ModelError`` for a field that it does not have."""
        known = cls.__slots__
        if unknown := sorted(set(entry) - set(known)):
            raise ModelError(f"finish has no field {unknown[0]!r}; it has {', '.join(known)}")
        return cls(**entry)  # type: ignore[arg-type]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@torch.no_grad()
def finished(model: CLIP, finish: Finish) -> CLIP:
    """Return a finished copy of a model, which is not changed.

    Its text projection is mixed with the identity, with which models of parts start. Raise
    ``ModelError`` if the model's text tower is not of the part's shape, or has no class names.
    """
    made = with_class_gain(copy.deepcopy(model), finish.class_gain)
    if finish.trained == 1 or finish.text_tower is None:
        return made
    own = made.state_dict()
    width, d = made.text_projection.shape
    first = dict(open_text_part(finish.text_tower).state)
    if width != d:
        raise ModelError("finish: trained is for a model whose text projection is square")
    first["text_projection"] = torch.eye(d)
    for name, tensor in first.items():
        if name not in own or own[name].shape != tensor.shape:
            raise ModelError(f"the model was not made of {finish.text_tower}: {name} does not fit")
        own[name].lerp_(tensor.to(own[name].device), 1 - finish.trained)
    return made
