"""Split a CLIP: the lower halves are locked, the last blocks and projections are trained.

The lower half's output for an image never changes, so it is computed once, and an update costs
only the upper half (as in locked-image tuning, Zhai et al. 2021, arXiv:2111.07991).

For n, l, w and d see ``model.py``; c and s' are the channels and side of a feature map.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from fovea.search.clip.model import CLIP

from .partial import first_tuned


class Halves(nn.Module):
    """Both halves of both towers; the upper ones have ``image_blocks`` and ``text_blocks`` blocks.

    The lower halves compute features: (l, w) per image for a Vision Transformer, (c, s', s') for
    the others, and (l, w) per text.
    """

    def __init__(self, model: CLIP, image_blocks: int, text_blocks: int) -> None:
        super().__init__()
        self.model = model
        self._image_cut = first_tuned(len(list(model.visual.blocks)), image_blocks)
        self._text_cut = first_tuned(len(model.text_blocks), text_blocks)

    def forward(self, features: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Do as ``CLIP.forward``, given the images' features instead of their pixels.

        Token ids pass through the whole text tower.
        """
        images = self.upper_images(features)
        texts = self.model.unit_texts(tokens)
        return images, texts, self.model.logit_scale.exp()

    def lower_images(self, pixels: Tensor) -> Tensor:
        """Return the features (n, …) of normalised pixels (n, 3, s, s)."""
        visual = self.model.visual
        return _through(list(visual.blocks)[: self._image_cut], visual.stem(pixels))

    def top_images(self, features: Tensor) -> Tensor:
        """Return the output of the last block (n, …) from the features of images."""
        return _through(list(self.model.visual.blocks)[self._image_cut :], features)

    def upper_images(self, features: Tensor) -> Tensor:
        """Return unit rows (n, d) from the features of images."""
        return F.normalize(self.model.visual.head(self.top_images(features)).float(), dim=-1)

    def lower_texts(self, tokens: Tensor) -> Tensor:
        """Return the features (n, l, w) of token ids (n, l)."""
        model = self.model
        x = model.text_stem(tokens)
        mask = model.text_mask(x, model.text_lengths(tokens))
        for block in model.text_blocks[: self._text_cut]:
            x = block(x, mask)
        return x

    def upper_texts(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Return unit rows (n, d) from the features of texts with these ``lengths`` (n,)."""
        x, mask = features, self.model.text_mask(features, lengths)
        for block in self.model.text_blocks[self._text_cut :]:
            x = block(x, mask)
        return F.normalize(self.model.text_head(x, lengths).float(), dim=-1)


def _through(blocks: Sequence[nn.Module], x: Tensor) -> Tensor:
    for block in blocks:
        x = block(x)
    return x
