"""Attention with gradients, in the form that the device computes fastest."""

import torch.nn.functional as F
from torch import Tensor

__all__ = ["attend"]


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mix ``v`` (n, h, l, d) by the softmax of ``q`` (n, h, m, d) times ``k``, over the root of d.

    ``mask``, broadcast to (n, h, m, l), is added to the logits. Return (n, h, m, d). Radford et al.
    2021 take this from Vaswani et al. 2017 (arXiv:1706.03762), equation 1. On CPUs the backward
    pass of torch's fused attention is slower than that of plain products.
    """
    if q.is_cuda:
        mask = mask if mask is None else mask.to(q.dtype)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)  # (n, h, m, l)
    if mask is not None:
        logits = logits + mask.to(logits.dtype)
    return logits.softmax(dim=-1).to(v.dtype) @ v
