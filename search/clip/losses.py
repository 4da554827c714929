"""The contrastive objective of Radford et al. 2021 (arXiv:2103.00020), figure 3."""

import torch
import torch.nn.functional as F
from torch import Tensor


def contrastive_loss(
    images: Tensor, texts: Tensor, scale: Tensor, tags: Tensor | None = None
) -> Tensor:
    """Return the symmetric cross-entropy over all pairs of a batch.

    ``images`` and ``texts`` are unit rows (n, d) in the same order: the n pairs on the diagonal
    are positives, the other n² - n negatives. ``scale`` multiplies the cosines. ``tags`` is int64
    (n, m): pairs that share one (the same image, label or caption) are not each other's negatives
    and drop out.
    """
    logits = scale * images @ texts.T  # (n, n), a row an image
    if tags is not None:
        logits = logits.masked_fill(alike(tags), float("-inf"))
    target = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def alike(tags: Tensor) -> Tensor:
    """Return bool (n, n): which other rows share a tag with each row of int64 (n, m).

    Tags may stand in any column; negative ones fill a row up and are no tags.
    """
    values, places, counts = tags.unique(return_inverse=True, return_counts=True)
    shared = (counts > 1) & (values >= 0)  # (u,), most tags belong to one row alone
    columns = torch.where(shared, shared.cumsum(0), 0)[places]  # (n, m), 0 for what is not shared
    has = torch.zeros(len(tags), int(shared.sum()) + 1, device=tags.device)
    has = has.scatter_(1, columns, 1.0)[:, 1:]  # (n, shared tags)
    return (has @ has.T > 0).fill_diagonal_(False)
