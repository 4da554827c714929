"""Measure a model during training, on pairs that it is not trained on."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fovea.search.clip.datasets.pairs import PairSet, PairSource, open_pairs
from fovea.search.clip.evaluation.evaluate import Accuracy, embed_pairs
from fovea.search.clip.model import CLIP
from fovea.search.clip.preprocess import Preprocess
from fovea.search.clip.protocols import TextTokenizer

from .learner import mixed_precision

TEXTS = 256  # in one pass


class HeldOut:
    """The held-out pairs of several sources."""

    def __init__(self, sources: Sequence[PairSource]) -> None:
        self.sets: list[tuple[str, PairSet]] = [(_name(s), open_pairs(s)) for s in sources]

    def figures(
        self, model: CLIP, tokenizer: TextTokenizer, device: torch.device, dtype: torch.dtype
    ) -> dict[str, float]:
        """Return figures from 0 to 1 by name: "flickr8k: recall@10", "tinyimagenet: top-1".

        Recall is that of images by their captions. The model's state is not changed.
        """
        found: dict[str, float] = {}
        with measuring(model):
            encoder = TrainingEncoder(model, tokenizer, device, dtype)
            for name, pairs in self.sets:
                figures = embed_pairs(encoder, pairs).figures()
                if isinstance(figures, Accuracy):
                    found |= {f"{name}: top-1": figures.top1, f"{name}: top-5": figures.top5}
                else:
                    recall = figures.text_to_image
                    found |= {f"{name}: recall@{k}": share for k, share in recall.items()}
        return found


def _name(source: PairSource) -> str:
    path: Path = source.captions or source.labels or source.images[0]
    return path.name.partition(".")[0]


@contextmanager
def measuring(model: CLIP) -> Iterator[None]:
    """Put every module into evaluation mode, and restore each one's mode afterwards."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


class TrainingEncoder:
    """The reference model as an encoder: slower than ``ClipEncoder``, but up to date."""

    name = "the model in training"

    def __init__(
        self, model: CLIP, tokenizer: TextTokenizer, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.preprocess = Preprocess.from_config(model.config)
        self._model, self._tokenizer, self._device, self._dtype = model, tokenizer, device, dtype

    def encode_pixels(self, pixels: np.ndarray) -> np.ndarray:
        """Embed uint8 (n, s, s, 3) as float32 unit rows (n, d)."""
        x = torch.from_numpy(self.preprocess.normalise(pixels)).to(self._device)
        return self._unit_rows(self._model.encode_image, x)

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Embed texts as float32 unit rows (n, d); longer ones are cut at the context length."""
        length = self._model.config.text.context_length
        parts = []
        for start in range(0, len(texts), TEXTS):
            tokens = self._tokenizer.tokenize(texts[start : start + TEXTS], length)
            longest = int(self._tokenizer.lengths(tokens).max())
            x = torch.from_numpy(tokens[:, :longest]).to(self._device)
            parts.append(self._unit_rows(self._model.encode_text, x))
        return np.concatenate(parts)

    @torch.no_grad()
    def _unit_rows(self, encode: Callable[[Tensor], Tensor], x: Tensor) -> np.ndarray:
        with mixed_precision(self._device, self._dtype):
            rows = encode(x)
        unit: np.ndarray = F.normalize(rows.float(), dim=-1).cpu().numpy()
        return unit
