"""The contrastive objective of Radford et al. 2021 (arXiv:2103.00020), figure 3."""

import torch
import torch.nn.functional as F
from torch import Tensor


def contrastive_loss(
    images: Tensor, texts: Tensor, scale: Tensor, keys: Tensor | None = None
) -> Tensor:
    """Return the symmetric cross-entropy over all pairs of a batch.

    ``images`` and ``texts`` are unit rows (n, d) in the same order: the n pairs on the diagonal
    are positives, the other n² - n negatives. ``scale`` multiplies the cosines. ``keys`` is int64
    (n, m): pairs that agree in any column where both are non-negative (the same image, label or
    caption) are not each other's negatives and drop out.
    """
    logits = scale * images @ texts.T  # (n, n), a row an image
    if keys is not None:
        logits = logits.masked_fill(alike(keys), float("-inf"))
    target = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def alike(keys: Tensor) -> Tensor:
    """Return bool (n, n): which other rows share a non-negative key with each row (n, m)."""
    same = torch.zeros(len(keys), len(keys), dtype=torch.bool, device=keys.device)
    for column in keys.T:
        same |= (column[:, None] == column[None, :]) & (column >= 0)[:, None]
    return same.fill_diagonal_(False)
