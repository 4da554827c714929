"""Learn from a frozen classifier: how it sees real images, and classes without an image.

For n and d see ``model.py``; c is the number of classes drawn for a batch.
"""

from collections.abc import Sequence

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

    ``pooled`` is float (m, 1280): features of real images, pooled by the tower that the classifier
    was trained with. ``names`` are those of its classes. Raise ``ModelError`` for a model without
    class names, and for images that do not differ.
    """

    def __init__(
        self,
        model: CLIP,
        tokenizer: TextTokenizer,
        names: Sequence[Sequence[str]],
        pooled: np.ndarray,
        *,
        classes: int,
        seed: int,
    ) -> None:
        check_guidable(model)
        visual = model.visual
        assert isinstance(visual, EfficientNetLite)
        if len(pooled) < 2:
            raise ModelError("virtual images need two or more images that can be decoded")
        self._model, self._tokenizer, self._names, self._seed = model, tokenizer, names, seed
        self._count = min(classes, len(names))
        with torch.no_grad():
            device = visual.fc.weight.device
            rows = torch.from_numpy(pooled).float().to(device)
            shift = torch.cov(rows.T) @ visual.fc.weight.T  # (1280, classes): Σ W
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
        of class c, as in Fisher 1936); it is contrasted with the names of all classes drawn.
        """
        visual = self._model.visual
        assert isinstance(visual, EfficientNetLite)
        rng = np.random.default_rng((self._seed, 1 << 35, step))
        with torch.no_grad():
            logits = visual.fc(pooled).float()  # (n, classes)
        chosen = self._draw(logits, rng)
        texts = self._model.unit_texts(self._prompts(chosen, rng).to(images.device))  # (c, d)
        virtual = F.normalize(visual.project(self._virtual(pooled, chosen, rng)).float(), dim=-1)
        with torch.autocast(images.device.type, enabled=False):  # as for the contrastive loss
            teacher = logits[:, chosen].log_softmax(dim=-1)
            student = (scale * images @ texts.T).log_softmax(dim=-1)
            distilled = F.kl_div(student, teacher, log_target=True, reduction="batchmean")
            cosines = scale * virtual @ texts.T  # (c, c)
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

    def _virtual(self, pooled: Tensor, chosen: Sequence[int], rng: np.random.Generator) -> Tensor:
        """Shift a real feature towards each class; return (c, 1280), none below 0."""
        rows = torch.from_numpy(rng.integers(len(pooled), size=len(chosen)))
        gains = torch.from_numpy(rng.uniform(*GAINS, size=(len(chosen), 1))).float()
        shift = self._shift[chosen] * gains.to(pooled.device)
        return (pooled[rows.to(pooled.device)] + shift).clamp_min(0)


def check_guidable(model: CLIP) -> None:
    """Raise ``ModelError`` unless the model has a classifier and its class names."""
    if not isinstance(model.visual, EfficientNetLite) or not model.visual.classes:
        raise ModelError(
            "distil and virtual need a model with class names; add class_names, or leave them out"
        )
