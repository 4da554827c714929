"""Learn from a frozen classifier: how it sees real images, and classes without an image.

For n and d see ``model.py``; c is the number of classes drawn for a batch.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fovea.search.clip.datasets.pairs import name_prompt
from fovea.search.clip.efficientnet import EfficientNetLite
from fovea.search.clip.errors import ModelError
from fovea.search.clip.model import CLIP
from fovea.search.clip.protocols import TextTokenizer

__all__ = ["ClassGuide", "check_guidable"]

LIKELY = 2  # likeliest classes of each image that are drawn before any others,
LIKELY_SHARE = 3 / 4  # up to this share of a batch's classes
GAINS = (6.0, 14.0)  # range of k: what a virtual image adds to its class's logit


class ClassGuide:
    """The losses of the classes that a model's classifier knows, drawn anew for each batch.

    ``pooled`` yields float (m, 1280): features of real images, pooled by the tower that the
    classifier was trained with. ``names`` are those of its classes. Raise ``ModelError`` for a
    model without class names, and for images that do not differ.
    """

    def __init__(
        self,
        model: CLIP,
        tokenizer: TextTokenizer,
        names: Sequence[Sequence[str]],
        pooled: Iterable[np.ndarray],
        *,
        classes: int,
        seed: int,
    ) -> None:
        check_guidable(model)
        visual = model.visual
        assert isinstance(visual, EfficientNetLite)
        count, covariance = _covariance(pooled)
        if count < 2:
            raise ModelError("virtual images need two or more images that can be decoded")
        self._model, self._tokenizer, self._names, self._seed = model, tokenizer, names, seed
        self._count = min(classes, len(names))
        self._related = _related(names)
        with torch.no_grad():
            sigma = torch.from_numpy(covariance).float().to(visual.fc.weight.device)
            shift = sigma @ visual.fc.weight.T  # (1280, classes): Σ W
            gain = (visual.fc.weight.T * shift).sum(dim=0)  # what it adds to each class's logit
            if not (gain > 0).all():
                raise ModelError("virtual images need images that differ from each other")
            self._shift = (shift / gain).T.contiguous()  # (classes, 1280), adds 1

    def losses(
        self, images: Tensor, pooled: Tensor, scale: Tensor, step: int
    ) -> tuple[Tensor, Tensor]:
        """Return the losses of distillation and of virtual images, scalars.

        ``images`` (n, d) are unit rows of real images, ``pooled`` (n, 1280) what the frozen tower
        pooled from them, and ``scale`` the factor of the cosines. What is drawn depends on the seed
        and the ``step``.

        Distillation (Hinton et al. 2015, arXiv:1503.02531, section 2, at a temperature of 1): the
        Kullback–Leibler divergence of the similarities to class names from the classifier's
        probabilities, in nats, over the classes drawn. Virtual images: ``pooled`` + k Σ W_c, for
        the covariance Σ of real features and the classifier's weights W_c, lies where the
        classifier sees class c (if all classes had the covariance Σ, Σ W_c would lead to the mean
        of class c, as in Fisher 1936); it is contrasted with the names of all classes drawn, but
        for those of classes that share a name with c, which may be right for it too.

        Distillation needs no such exception: the classifier tells those classes apart, and where
        their texts are the same, the gradient is that of a single class with their probability.
        """
        visual = self._model.visual
        assert isinstance(visual, EfficientNetLite)
        rng = np.random.default_rng((self._seed, 1 << 35, step))
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            logits = visual.fc(pooled.float())  # (n, classes)
        chosen = self._draw(logits, rng)
        tokens = self._prompts(chosen, rng)
        texts = self._model.unit_texts(tokens.to(images.device))  # (c, d)
        unclear = self._unclear(chosen, tokens).to(images.device)
        virtual = F.normalize(visual.project(self._virtual(pooled, chosen, rng)).float(), dim=-1)
        with torch.autocast(images.device.type, enabled=False):  # as for the contrastive loss
            teacher = logits[:, chosen].log_softmax(dim=-1)
            student = (scale * images @ texts.T).log_softmax(dim=-1)
            distilled = F.kl_div(student, teacher, log_target=True, reduction="batchmean")
            cosines = (scale * virtual @ texts.T).masked_fill(unclear, -torch.inf)  # (c, c)
            right = torch.arange(len(chosen), device=cosines.device)
            contrast = F.cross_entropy(cosines, right) + F.cross_entropy(cosines.T, right)
        return distilled, contrast / 2

    def _draw(self, logits: Tensor, rng: np.random.Generator) -> list[int]:
        """Draw distinct classes: first some that are likely for an image, then any others."""
        likely = logits.topk(min(LIKELY, len(self._names)), dim=1).indices
        first = rng.permutation(likely.flatten().unique().cpu().numpy())
        first = first[: int(self._count * LIKELY_SHARE)]
        others = np.setdiff1d(np.arange(len(self._names)), first)
        rest = rng.permutation(others)[: self._count - len(first)]
        return [int(number) for number in np.concatenate([first, rest])]

    def _prompts(self, chosen: Sequence[int], rng: np.random.Generator) -> Tensor:
        """Return token ids (c, l) of one prompt for each class."""
        texts = [name_prompt(self._names[number], rng).text for number in chosen]
        tokens = self._tokenizer.tokenize(texts, self._model.config.text.context_length)
        return torch.from_numpy(tokens[:, : int(self._tokenizer.lengths(tokens).max())])

    def _unclear(self, chosen: Sequence[int], tokens: Tensor) -> Tensor:
        """Return bool (c, c): pairs of different classes with the same text or a common name."""
        same = (tokens[:, None] == tokens).all(dim=-1)
        related = torch.from_numpy(self._related[np.ix_(chosen, chosen)])
        return (same | related).fill_diagonal_(False)

    def _virtual(self, pooled: Tensor, chosen: Sequence[int], rng: np.random.Generator) -> Tensor:
        """Shift a real feature towards each class; return (c, 1280), none below 0."""
        rows = torch.from_numpy(rng.integers(len(pooled), size=len(chosen)))
        gains = torch.from_numpy(rng.uniform(*GAINS, size=(len(chosen), 1))).float()
        shift = self._shift[chosen] * gains.to(pooled.device)
        return (pooled[rows.to(pooled.device)] + shift).clamp_min(0)


def _covariance(parts: Iterable[np.ndarray]) -> tuple[int, np.ndarray]:
    """Return how many rows (m, w) there are in all and their covariance (w, w), float64.

    Parts are merged as in Chan, Golub and LeVeque 1983 ("Algorithms for computing the sample
    variance"), equation 2.1, so that memory holds one of them at a time.
    """
    count, mean, products = 0, np.zeros(1), np.zeros((1, 1))
    for part in parts:
        if not len(part):
            continue
        rows = part.astype(np.float64)
        own = rows.mean(axis=0)
        centred, away, total = rows - own, own - mean, count + len(rows)
        products = products + centred.T @ centred
        products += np.outer(away, away) * (count * len(rows) / total)
        mean, count = mean + away * (len(rows) / total), total
    return count, products / max(1, count - 1)


def _related(names: Sequence[Sequence[str]]) -> np.ndarray:
    """Return bool (classes, classes): which share a name, in upper or lower case."""
    owners: dict[str, list[int]] = {}
    for number, own in enumerate(names):
        for name in own:
            owners.setdefault(name.lower(), []).append(number)
    related = np.eye(len(names), dtype=bool)
    for numbers in owners.values():
        related[np.ix_(numbers, numbers)] = True
    return related


def check_guidable(model: CLIP) -> None:
    """Raise ``ModelError`` unless the model has a classifier and its class names."""
    if not isinstance(model.visual, EfficientNetLite) or not model.visual.classes:
        raise ModelError(
            "distil and virtual need a model with class names; add class_names, or leave them out"
        )
