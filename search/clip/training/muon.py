"""The Muon optimizer: momentum, orthogonalised before each step.

The method is that of Jordan et al. 2024 (https://kellerjordan.github.io/posts/muon/). PyTorch's
own ``torch.optim.Muon``, from 2.9 on, takes only matrices; here a convolution's kernel counts as
one, with a row per output channel.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

# the odd quintic that lifts singular values between 0 and 1 to about 1 in five rounds
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ROUNDS = 5


class Muon(torch.optim.Optimizer):
    """Orthogonalised Nesterov momentum with decoupled weight decay.

    Parameters have two dimensions or more, the first the outputs. Each step moves every direction
    of a matrix by about the rate, or by sqrt(outputs / inputs) of it where that is more.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.02,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Make one update of every parameter that has a gradient."""
        assert closure is None
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._move(weight, group)

    def _move(self, weight: Tensor, group: dict[str, Any]) -> None:
        state = self.state[weight]
        if not state:
            state["momentum"] = torch.zeros_like(weight)
        average: Tensor = state["momentum"]
        average.lerp_(weight.grad, 1 - group["momentum"])  # type: ignore[arg-type]
        ahead = weight.grad.lerp(average, group["momentum"])  # type: ignore[union-attr]
        direction = orthogonal(ahead.flatten(1)).view(weight.shape)
        gain = max(1.0, weight.shape[0] / weight[0].numel()) ** 0.5
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        weight.add_(direction.to(weight.dtype), alpha=-group["lr"] * gain)


def orthogonal(matrix: Tensor) -> Tensor:
    """Return the matrix (m, n) with its singular values brought near 1, as bfloat16.

    Five rounds of a Newton-Schulz iteration leave them between about 0.7 and 1.2.
    """
    a, b, c = _COEFFICIENTS
    x = matrix.bfloat16()
    tall = x.shape[0] > x.shape[1]
    if tall:
        x = x.T
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(_ROUNDS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x
