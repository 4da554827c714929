"""Split a CLIP: the lower halves are locked, the last blocks and projections are trained.

The lower half's output for an image never changes, so it is computed once, and an update costs
only the upper half (as in locked-image tuning, Zhai et al. 2021, arXiv:2111.07991).

For n, l, w and d see ``model.py``; c and s' are the channels and side of a feature map.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fovea.search.clip.model import CLIP

from .partial import first_tuned

MOST_TEXTS = 1 << 16


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
        self._kept: dict[bytes, Tensor] = {}  # by a text's ids: float16 (l, w)

    def forward(self, features: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Do as ``CLIP.forward``, given the images' features instead of their pixels."""
        return self.upper_images(features), self.unit_texts(tokens), self.model.logit_scale.exp()

    def unit_texts(self, tokens: Tensor) -> Tensor:
        """Embed token ids (n, l) as unit rows (n, d), float32.

        The features of a text below the trained blocks are computed once and kept, for the
        ``MOST_TEXTS`` first ones.
        """
        if self._text_cut == 0:
            return self.model.unit_texts(tokens)
        lengths = self.model.text_lengths(tokens)
        own = [self._lower_text(row[:n]) for row, n in zip(tokens, lengths.tolist(), strict=True)]
        padded = nn.utils.rnn.pad_sequence(own, batch_first=True).float()
        return self.upper_texts(padded.to(tokens.device), lengths)

    @torch.no_grad()
    def _lower_text(self, ids: Tensor) -> Tensor:
        """Return float16 features (l, w) of one text's ids (l,), on the CPU.

        Computed alone, so that they do not depend on the batch in which it first came.
        """
        key = ids.cpu().numpy().tobytes()
        found = self._kept.get(key)
        if found is None:
            found = self.lower_texts(ids[None])[0].half().cpu()
            if len(self._kept) < MOST_TEXTS:
                self._kept[key] = found
        return found

    def locked_names(self) -> list[str]:
        """Return the names, in the image tower, of the parameters of its lower half's blocks."""
        locked = {
            id(w) for block in self._image_blocks()[: self._image_cut] for w in block.parameters()
        }
        return [
            name for name, weight in self.model.visual.named_parameters() if id(weight) in locked
        ]

    def _image_blocks(self) -> list[nn.Module]:
        return list(self.model.visual.blocks)

    def lower_images(self, pixels: Tensor) -> Tensor:
        """Return the features (n, …) of normalised pixels (n, 3, s, s)."""
        stem = self.model.visual.stem(pixels)
        return _through(self._image_blocks()[: self._image_cut], stem)

    def top_images(self, features: Tensor) -> Tensor:
        """Return the output of the last block (n, …) from the features of images."""
        return _through(self._image_blocks()[self._image_cut :], features)

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
