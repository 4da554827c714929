"""The contrastive objective of Radford et al. 2021 (arXiv:2103.00020), figure 3."""

import torch
import torch.nn.functional as F
from torch import Tensor


def contrastive_loss(
    images: Tensor,
    texts: Tensor,
    scale: Tensor,
    owners: Tensor | None = None,
    hidden: Tensor | None = None,
) -> Tensor:
    """Return the symmetric cross-entropy over all pairs of a batch.

    ``images`` (n, d) and ``texts`` (t, d) are unit rows; ``owners`` is int64 (t,), the image that
    a text describes, or -1 if it is a negative of every image. By default the pairs on the diagonal
    are positives, the other n² - n negatives. ``scale`` multiplies the cosines. ``hidden`` is bool
    (n, t): negatives to leave out. An image's texts are each a positive, never each other's
    negatives, and share the image's weight.
    """
    if owners is None:
        owners = torch.arange(len(images), device=images.device)
    logits = scale * images @ texts.T  # (n, t), a row an image
    none = torch.finfo(logits.dtype).min  # not -inf: a row may have no negatives
    if hidden is not None:
        logits = logits.masked_fill(hidden, none)
    columns = (owners >= 0).nonzero()[:, 0]  # (p,), the positive texts
    rows = owners[columns]
    own = logits[rows, columns]
    positive = torch.zeros_like(logits, dtype=torch.bool)
    positive[rows, columns] = True
    negatives = logits.masked_fill(positive, none).logsumexp(dim=1)  # (n,)
    to_text = torch.logaddexp(own, negatives[rows]) - own
    to_image = F.cross_entropy(logits.T[columns], rows, reduction="none")
    share = 1 / rows.bincount(minlength=len(images))[rows]
    return ((to_text + to_image) * share).sum() / (2 * len(images))


def hidden_negatives(tags: Tensor, owners: Tensor, sources: Tensor, images: Tensor) -> Tensor:
    """Return bool (n, t): which texts not to use as negatives of which images.

    ``tags`` int64 (t, m), ``owners`` and ``sources`` int64 (t,) are those of the texts; ``images``
    int64 (n,) is each image's first text. Hidden are texts that share a tag with it (the same
    image, label or caption) and prompts of another source's classes, which may describe the image.
    Positives are never hidden.
    """
    foreign = (owners < 0) & (sources[images][:, None] != sources)
    of_image = owners == torch.arange(len(images), device=owners.device)[:, None]
    return (alike(tags)[images] | foreign) & ~of_image


def alike(tags: Tensor) -> Tensor:
    """Return bool (n, n): which other rows share a tag with each row of int64 (n, m).

    Tags may be in any column; negative values are padding.
    """
    values, places, counts = tags.unique(return_inverse=True, return_counts=True)
    shared = (counts > 1) & (values >= 0)  # (u,), few tags are
    columns = torch.where(shared, shared.cumsum(0), 0)[places]  # (n, m), 0 if not shared
    has = torch.zeros(len(tags), int(shared.sum()) + 1, device=tags.device)
    has = has.scatter_(1, columns, 1.0)[:, 1:]  # (n, shared tags)
    return (has @ has.T > 0).fill_diagonal_(False)
