"""Learn from a frozen classifier: its judgement of real images, and images of classes without any.

For d see ``model.py``; c is the number of classes of a batch.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fovea.search.clip.datasets.pairs import LABEL_TEMPLATES
from fovea.search.clip.efficientnet import EfficientNetLite
from fovea.search.clip.errors import ModelError
from fovea.search.clip.model import CLIP
from fovea.search.clip.protocols import TextTokenizer

__all__ = ["ClassGuide"]

LIKELY = 2  # classes of each image that are certainly among those of a batch
GAIN = (6.0, 14.0)  # range of what a virtual image adds to its class's logit


class ClassGuide:
    """The losses of classes, drawn anew for each batch.

    ``pooled`` (n, 1280) are features of real images, as the classifier was trained on; ``names``
    those of its classes.
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
        visual = model.visual
        if not isinstance(visual, EfficientNetLite) or not visual.classes:
            raise ModelError("virtual images and distillation need a model with class names")
        self._model, self._tokenizer, self._names, self._seed = model, tokenizer, names, seed
        self._count = min(classes, len(names))
        with torch.no_grad():
            device = visual.fc.weight.device
            rows = torch.from_numpy(pooled).float().to(device)
            shift = torch.cov(rows.T) @ visual.fc.weight.T  # (1280, classes): Σ W
            gain = (visual.fc.weight.T * shift).sum(dim=0)  # what it adds to each class's logit
            self._shift = (shift / gain).T.contiguous()  # (classes, 1280), adds 1

    def losses(
        self, images: Tensor, pooled: Tensor, scale: Tensor, step: int
    ) -> tuple[Tensor, Tensor]:
        """Return the losses of distillation and of virtual images.

        ``images`` (n, d) are unit rows of real images and ``pooled`` (n, 1280) what the frozen
        tower pooled from them.

        Distillation (Hinton et al. 2015, arXiv:1503.02531): the Kullback–Leibler divergence of
        the similarities to class names from the classifier's probabilities, over the classes
        drawn. Virtual images: ``pooled`` + k Σ W_c, for the covariance Σ of real features and the
        classifier's weights W_c, lies where the classifier sees class c (under a common Gaussian
        Σ W_c is the direction of the class's mean, as in Fisher 1936); it is contrasted with the
        names of all classes drawn.
        """
        visual = self._model.visual
        assert isinstance(visual, EfficientNetLite)
        rng = np.random.default_rng((self._seed, 1 << 35, step))
        with torch.no_grad():
            logits = visual.fc(pooled)  # (n, classes)
        chosen = self._draw(logits, rng)
        texts = self._model.unit_texts(self._prompts(chosen, rng).to(images.device))  # (c, d)
        teacher = logits[:, chosen].log_softmax(dim=-1)
        student = (scale * images @ texts.T).log_softmax(dim=-1)
        distilled = F.kl_div(student, teacher, log_target=True, reduction="batchmean")
        virtual = F.normalize(visual.project(self._virtual(pooled, chosen, rng)).float(), dim=-1)
        cosines = scale * virtual @ texts.T  # (c, c)
        right = torch.arange(len(chosen), device=cosines.device)
        contrast = F.cross_entropy(cosines, right) + F.cross_entropy(cosines.T, right)
        return distilled, contrast / 2

    def _draw(self, logits: Tensor, rng: np.random.Generator) -> list[int]:
        """Draw classes: those likely for some image of the batch first, then any others."""
        likely = logits.topk(LIKELY, dim=1).indices.flatten().unique().cpu().numpy()
        likely = rng.permutation(likely)[: self._count * 3 // 4]
        others = np.setdiff1d(np.arange(len(self._names)), likely)
        rest = rng.permutation(others)[: self._count - len(likely)]
        return [int(number) for number in np.concatenate([likely, rest])]

    def _prompts(self, chosen: Sequence[int], rng: np.random.Generator) -> Tensor:
        texts = []
        for number in chosen:
            names = self._names[number]
            name = names[0] if rng.random() < 0.6 else names[int(rng.integers(len(names)))]
            plain = rng.random() < 0.5
            place = 0 if plain else int(rng.integers(len(LABEL_TEMPLATES)))
            texts.append(LABEL_TEMPLATES[place].format(name))
        tokens = self._tokenizer.tokenize(texts, self._model.config.text.context_length)
        return torch.from_numpy(tokens[:, : int(self._tokenizer.lengths(tokens).max())])

    def _virtual(self, pooled: Tensor, chosen: Sequence[int], rng: np.random.Generator) -> Tensor:
        """Shift a real feature towards each class; return (c, 1280), not below 0 as real ones."""
        rows = torch.from_numpy(rng.integers(len(pooled), size=len(chosen)))
        gains = torch.from_numpy(rng.uniform(*GAIN, size=(len(chosen), 1))).float()
        shift = self._shift[chosen] * gains.to(pooled.device)
        return (pooled[rows.to(pooled.device)] + shift).clamp_min(0)
