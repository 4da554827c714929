"""How close two computations of the same values must be, whichever processor made them.

Processors differ in how many products they add at a time, and so in how a sum is rounded. A sum of
n terms is off by about sqrt(n) roundings of its largest terms (Higham 2002, "Accuracy and
Stability of Numerical Algorithms", section 2.8), a network by some multiple of that. So each
tolerance grows with the values and with the precision's spacing, eps. An error of substance (a
weight, mask or scale forgotten) is larger by orders of magnitude.
"""

import numpy as np
import torch

EPS = {"float32": 2.0**-23, "bfloat16": 2.0**-7, "float16": 2.0**-10}
ROUNDINGS = 32  # of the largest value, for each square root of a term
ROW_ROUNDINGS = {"float32": 512, "bfloat16": 6, "float16": 12}  # after a dozen layers


def assert_close(
    got, want, *, terms: int = 1, dtype: str = "float32", roundings: float = ROUNDINGS
) -> None:
    """Compare arrays or tensors of one shape whose values are sums of about ``terms`` products."""
    got, want = _float64(got), _float64(want)
    assert got.shape == want.shape
    assert np.isfinite(want).all()
    tolerance = roundings * EPS[dtype] * np.sqrt(terms) * max(abs(want).max(initial=0), 1e-30)
    error = abs(got - want).max(initial=0)
    assert error <= tolerance, f"off by {error:.3g}, where {tolerance:.3g} is allowed"


def assert_close_rows(got, want, dtype: str = "float32") -> None:
    """Compare embeddings: rows of unit length (n, d) that point the same way.

    The error is the distance between two rows, which is the angle between them in radians. In
    float32 6e-5 is allowed (a cosine of 1 - 2e-9), in bfloat16 0.047 (0.9989).
    """
    got, want = _float64(got), _float64(want)
    assert got.shape == want.shape
    for rows in (got, want):
        assert abs(np.linalg.norm(rows, axis=-1) - 1).max(initial=0) < 1e-5, "not unit rows"
    tolerance = ROW_ROUNDINGS[dtype] * EPS[dtype]
    error = np.linalg.norm(got - want, axis=-1).max(initial=0)
    assert error <= tolerance, f"turned by {error:.3g}, where {tolerance:.3g} is allowed"


def _float64(values) -> np.ndarray:
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().double().numpy()
    return np.asarray(values, np.float64)
