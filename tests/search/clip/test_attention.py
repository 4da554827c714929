"""Attention with gradients against torch's own, on every device that is here."""

import pytest
import torch
import torch.nn.functional as F

from fovea.search.clip.attention import attend

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("length", [1, 16, 50, 77])
@pytest.mark.parametrize("masked", [False, True])
def test_values_and_gradients_equal_those_of_torch(device, length, masked):
    generator = torch.Generator().manual_seed(length)
    drawn = [torch.randn(2, 3, length, 8, generator=generator) for _ in range(3)]
    mask = torch.full((length, length), -torch.inf).triu(1) if masked else None
    found = []
    for place, mix in ((device, attend), ("cpu", F.scaled_dot_product_attention)):
        q, k, v = (rows.to(place).requires_grad_() for rows in drawn)
        out = mix(q, k, v, None if mask is None else mask.to(place))
        out.square().sum().backward()
        found.append([rows.cpu() for rows in (out.detach(), q.grad, k.grad, v.grad)])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
