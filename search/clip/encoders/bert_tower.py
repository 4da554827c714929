"""The BERT for inference, equal to that of ``bert.py``.

For n, l, w, h and d see ``model.py``.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from fovea.search.clip.bert import text_lengths
from fovea.search.clip.config import BERT_NORM_EPS, BertConfig, ClipConfig

from .kernels import Linear, State, Target, attend
from .transformer_towers import Norm


class BertLayer:
    """One post-norm Transformer layer."""

    def __init__(self, target: Target, state: State, name: str, heads: int) -> None:
        self.heads = heads
        parts = [f"{name}.attention.self.{part}" for part in ("query", "key", "value")]
        weight = torch.cat([state[f"{part}.weight"].float() for part in parts])  # (3w, w)
        bias = torch.cat([state[f"{part}.bias"].float() for part in parts])
        width = weight.shape[1]
        scale = torch.ones(3 * width, 1)
        scale[:width] = (width // heads) ** -0.5
        self.in_proj = Linear(target, weight * scale, bias * scale[:, 0])
        self.out_proj, self.c_fc, self.c_proj = (
            Linear(target, state[f"{name}.{part}.dense.weight"], state[f"{name}.{part}.dense.bias"])
            for part in ("attention.output", "intermediate", "output")
        )
        self.ln_1, self.ln_2 = (
            Norm(target, state, f"{name}.{part}.LayerNorm", BERT_NORM_EPS)
            for part in ("attention.output", "output")
        )

    def __call__(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Map ``x`` (n, l, w) to its shape; ``mask`` (n, 1, 1, l) is True where a text is."""
        n, length, _ = x.shape
        qkv = self.in_proj(x).view(n, length, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (n, h, l, w/h)
        x = self.ln_1(self.out_proj.added_to(attend(q, k, v, mask), x))
        return self.ln_2(self.c_proj.added_to(self.c_fc(x, "gelu"), x))


class BertTower:
    """The BERT, from token ids to embeddings."""

    def __init__(self, state: State, config: ClipConfig, target: Target) -> None:
        text, tables = config.text, "bert.embeddings"
        assert isinstance(text, BertConfig)
        self.target = target
        # The table keeps its stored precision and may be mapped: a query needs few of its rows.
        self.tokens = state[f"{tables}.word_embeddings.weight"].to(target.device)
        segment = state[f"{tables}.token_type_embeddings.weight"][0].float()
        positions = state[f"{tables}.position_embeddings.weight"].float()
        self.positions = target.put(positions + segment)
        self.norm = Norm(target, state, f"{tables}.LayerNorm", BERT_NORM_EPS)
        self.layers = [
            BertLayer(target, state, f"bert.encoder.layer.{number}", text.heads)
            for number in range(text.layers)
        ]
        self.proj = Linear(target, state["text_projection"].t())

    def __call__(self, tokens: Tensor) -> Tensor:
        """Embed ids (n, l), padded with 0, as (n, d); padding beyond the longest is left out."""
        lengths = text_lengths(tokens)
        length = int(lengths.max())
        real = torch.arange(length, device=tokens.device) < lengths[:, None]  # (n, l)
        x = self.target.put(F.embedding(tokens[:, :length], self.tokens))
        x = self.norm(x + self.positions[:length])
        mask = None if bool(real.all()) else real[:, None, None]
        for layer in self.layers:
            x = layer(x, mask)
        total = (x * real[..., None]).sum(dim=1, dtype=torch.float32)
        return self.proj(self.target.put(total / lengths[:, None]))
