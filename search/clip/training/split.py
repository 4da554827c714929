"""Split a CLIP: the lower halves are locked, the last blocks and projections are trained.

The lower half's output for an image never changes, so it is computed once, and an update costs
only the upper half (as in locked-image tuning, Zhai et al. 2021, arXiv:2111.07991).

For n, l, w and d see ``model.py``; c and s' are the channels and side of a feature map.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fovea.search.clip.efficientnet import EfficientNetLite
from fovea.search.clip.model import CLIP, ModifiedResNet, VisionTransformer

from .partial import first_tuned

MOST_BYTES = 1 << 30  # of the features of texts

# the beginnings of the names of the tensors below an image tower's first block
_STEMS: dict[type, tuple[str, ...]] = {
    EfficientNetLite: ("conv_stem.", "bn0."),
    ModifiedResNet: tuple(f"{part}{number}." for part in ("conv", "bn") for number in (1, 2, 3)),
    VisionTransformer: ("conv1.", "class_embedding", "positional_embedding", "ln_pre."),
}


class Halves(nn.Module):
    """Both halves of both towers; the upper ones have ``image_blocks`` and ``text_blocks`` blocks.

    The lower halves compute features: (l, w) per image for a Vision Transformer, (c, s', s') for
    the others, and (l, w) per text. ``keeps_texts`` is for texts that come again: their features
    below the trained blocks are then computed once and kept, the first ``MOST_BYTES`` of them.
    """

    keeps_texts = False

    def __init__(self, model: CLIP, image_blocks: int, text_blocks: int) -> None:
        super().__init__()
        self.model = model
        self._image_cut = first_tuned(len(list(model.visual.blocks)), image_blocks)
        self._text_cut = first_tuned(len(model.text_blocks), text_blocks)
        self._kept: dict[bytes, Tensor] = {}  # by a text's ids: float16 (l, w)
        self._bytes = 0  # that they take

    def forward(self, features: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Do as ``CLIP.forward``, given the images' features instead of their pixels."""
        return self.upper_images(features), self.unit_texts(tokens), self.model.logit_scale.exp()

    def unit_texts(self, tokens: Tensor) -> Tensor:
        """Embed token ids (n, l) as unit rows (n, d), float32."""
        if self._text_cut == 0 or not self.keeps_texts:
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
            if self._bytes + found.nbytes <= MOST_BYTES:
                self._bytes += found.nbytes
                self._kept[key] = found
        return found

    def locked_names(self) -> list[str]:
        """Return the names, in the image tower, of the tensors that its features depend on.

        They are those of the stem and of the lower half's blocks, running statistics included;
        none if the lower half has no block.
        """
        visual = self.model.visual
        blocks = self._image_blocks()[: self._image_cut]
        if not blocks:
            return []
        locked = {id(t) for block in blocks for t in (*block.parameters(), *block.buffers())}
        return [
            name
            for name, tensor in visual.state_dict(keep_vars=True).items()
            if (id(tensor) in locked or name.startswith(_STEMS[type(visual)]))
            and not name.endswith("num_batches_tracked")
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
