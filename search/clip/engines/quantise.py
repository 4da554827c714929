"""Turn a tower into int8 after training, with NNCF (github.com/openvinotoolkit/nncf).

Calibrated with a library's own pictures. Each method is gentler than the one before it; the first
that is faithful is taken.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from .openvino_runtime import nncf, quietly
from .record import cpu_features

__all__ = ["methods", "quantised", "sums_exactly"]

EARLY = 4  # convolutions whose roundings do most harm
_VNNI = ("vnni", "amx_int8")
_BEFORE_VNNI = ("SSE41", "AVX", "AVX2", "AVX512_CORE")  # levels of oneDNN's switch


def methods(model: Any) -> list[str]:
    """Name the ways to quantise a model of OpenVINO, those that keep more in float32 last."""
    kinds = [operation.get_type_name() for operation in model.get_ordered_ops()]
    if "GroupConvolution" in kinds:
        return ["depthwise", "depthwise-late"]
    if sum(kind == "Convolution" for kind in kinds) > 1:
        return ["mixed", "late"]
    return ["transformer", "transformer-late"]


def quantised(model: Any, pixels: np.ndarray, method: str) -> Any:
    """Return an int8 version of a model, calibrated with pixels, uint8 (n, s, s, 3)."""
    library = nncf()
    options: dict[str, Any] = {"subset_size": len(pixels)}
    advanced = library.AdvancedQuantizationParameters()
    if not sums_exactly():
        advanced.overflow_fix = library.OverflowFix.ENABLE
    if method.startswith("transformer"):
        options["model_type"] = library.ModelType.TRANSFORMER
    else:
        options["preset"] = library.QuantizationPreset.MIXED
    if left := list(_left_exact(model, method)):
        options["ignored_scope"] = library.IgnoredScope(names=left)
    data = library.Dataset([pixels[row : row + 1] for row in range(len(pixels))])
    with quietly():
        return library.quantize(model.clone(), data, advanced_parameters=advanced, **options)


def sums_exactly() -> bool:
    """Whether the CPU sums products of bytes in 32 bits; in 16 bits they saturate.

    x86 before VNNI does the latter, for which NNCF's overflow fix leaves weights 7 bits.
    """
    found = cpu_features()
    if found["machine"].lower() not in ("x86_64", "amd64"):
        return True
    is_hidden = str(found.get("ONEDNN_MAX_CPU_ISA", "")).upper() in _BEFORE_VNNI
    flags = found.get("features", [])
    return not is_hidden and any(word in flag for flag in flags for word in _VNNI)


def _left_exact(model: Any, method: str) -> Iterator[str]:
    """Name the operations that a method leaves in float32.

    The gentler methods leave the first convolutions, whose errors all later layers pass on; that of
    a network with depthwise convolutions also leaves these, whose channels differ most in range,
    and what follows the pooling: all of it is little work.
    """
    operations = [(one.get_friendly_name(), one.get_type_name()) for one in model.get_ordered_ops()]
    convolutions = [name for name, kind in operations if kind.endswith("Convolution")]
    products = [name for name, kind in operations if kind == "MatMul"]
    if method.startswith("depthwise"):
        yield from (name for name, kind in operations if kind == "GroupConvolution")
        yield from products
        first = EARLY if method == "depthwise" else len(convolutions) // 3
        yield from convolutions[:first]
    elif method == "late":
        yield from (*convolutions[:EARLY], *products)
    elif method == "transformer-late":
        yield from (*convolutions, *products[: len(products) // 6], *products[-1:])
