"""Split a CLIP: the lower half is frozen, the last blocks and projections are tuned.

The lower half's output for an image or text never changes, so it is computed once, and an update
costs only the upper half.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from fovea.search.clip.model import CLIP, causal_mask
from fovea.search.clip.training.partial import first_tuned


class Halves(nn.Module):
    """Both halves of both towers; ``count`` is the number of blocks in each upper half.

    The lower halves compute features: (l, w) per image for a Vision Transformer, (c, s', s') for a
    ResNet, and (l, w) per text.
    """

    def __init__(self, model: CLIP, count: int) -> None:
        super().__init__()
        self.model = model
        image, text = model.visual.blocks, list(model.transformer.resblocks)
        self._image_cut = first_tuned(len(image), count)
        self._text_cut = first_tuned(len(text), count)

    def lower_images(self, pixels: Tensor) -> Tensor:
        """Return the features (n, …) of normalised pixels (n, 3, s, s)."""
        visual = self.model.visual
        return _through(visual.blocks[: self._image_cut], visual.stem(pixels))

    def upper_images(self, features: Tensor) -> Tensor:
        """Return unit rows (n, d) from the features of images."""
        visual = self.model.visual
        x = visual.head(_through(visual.blocks[self._image_cut :], features))
        return F.normalize(x.float(), dim=-1)

    def lower_texts(self, tokens: Tensor) -> Tensor:
        """Return the features (n, l, w) of token ids (n, l)."""
        x = self.model.text_stem(tokens)
        mask = causal_mask(x.shape[1], x)
        for block in self.model.transformer.resblocks[: self._text_cut]:
            x = block(x, mask)
        return x

    def upper_texts(self, features: Tensor, ends: Tensor) -> Tensor:
        """Return unit rows (n, d) from the features of texts, each with its end at ``ends`` (n,).

        Positions after the end do not matter: the tower is causal.
        """
        x, mask = features, causal_mask(features.shape[1], features)
        for block in self.model.transformer.resblocks[self._text_cut :]:
            x = block(x, mask)
        return F.normalize(self.model.text_head(x, ends).float(), dim=-1)


def _through(blocks: Sequence[nn.Module], x: Tensor) -> Tensor:
    for block in blocks:
        x = block(x)
    return x
