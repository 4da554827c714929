"""What encoders on torch share: batches, locking, the device and the precision.

Each tower loads on its first use and runs in the precision that its device multiplies fastest:
bfloat16 on CPUs with units for it, half precision on GPUs, float32 elsewhere.
"""

import ctypes
import platform
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import normalize

from fovea.search.clip.checkpoints.checkpoint import weights_sha256
from fovea.search.clip.engines.adapting import Chooser
from fovea.search.clip.engines.choose import Sources
from fovea.search.clip.errors import ModelError
from fovea.search.clip.preprocess import Preprocess

Tower = Callable[[torch.Tensor], torch.Tensor]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
TEXT_BATCH = 64

# <malloc.h> of glibc
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_HIGH = 1 << 30  # bytes


class TorchEncoder(ABC):
    """An encoder on one device, in one precision, that embeds images in batches."""

    def __init__(
        self,
        weights: Path,
        dim: int,
        preprocess: Preprocess,
        *,
        name: str,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.name, self.dim, self.preprocess = name, dim, preprocess
        self.device, self.dtype = device, dtype
        self._weights, self._lock = weights, threading.RLock()
        self._chooser: Chooser | None = None
        keep_allocations()

    @property
    @abstractmethod
    def batch_size(self) -> int:
        """How many images one pass takes; multiples are as fast, fewer may be slower."""

    @cached_property
    def identity(self) -> str:
        """The SHA-256 of the weights, in hex; the first access reads the whole file."""
        return weights_sha256(self._weights)

    @cached_property
    @abstractmethod
    def logit_scale(self) -> float:
        """The factor of cosines in zero-shot logits (Radford et al. 2021, section 2.3)."""

    @abstractmethod
    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Embed texts as float32 unit rows (n, d); longer ones are cut at the context length."""

    def encode_images(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Embed decoded images as float32 unit rows (n, d)."""
        size = self.preprocess.size
        pixels = np.empty((len(images), size, size, 3), np.uint8)
        for row, image in zip(pixels, images, strict=True):
            row[:] = self.preprocess.pixels(image)
        return self.encode_pixels(pixels)

    def encode_pixels(self, pixels: np.ndarray) -> np.ndarray:
        """Embed uint8 (n, s, s, 3) as float32 unit rows (n, d)."""
        size = self.preprocess.size
        if pixels.dtype != np.uint8 or pixels.shape[1:] != (size, size, 3):
            raise ValueError(
                f"pixels are {pixels.dtype} {pixels.shape}, not uint8 (n, {size}, {size}, 3)"
            )
        chooser = self._chooser
        if chooser is None:
            return self._run(lambda: self._image_tower, pixels, self.batch_size)
        with self._lock:
            started = time.monotonic()
            tower = chooser.tower()
            try:
                rows = self._run(lambda: tower or self._image_tower, pixels, self.batch_size)
            except Exception as exc:  # OpenVINO raises anything
                if not chooser.gives_up(exc):
                    raise
                rows = self._run(lambda: self._image_tower, pixels, self.batch_size)
            if chooser.saw(pixels, time.monotonic() - started):
                self.__dict__.pop("_image_tower", None)  # the chosen one may do without
            return rows

    def follow(self, chooser: Chooser) -> None:
        """Take the image tower that ``chooser`` chooses, from the first picture on."""

        def sources() -> Sources:
            size, batch = self.preprocess.size, self.batch_size
            return Sources(size, batch, chooser.default, self._tower_in, self._module())

        chooser.sources, self._chooser = sources, chooser

    def adapt(self) -> None:
        """Measure in which precision this CPU embeds fastest, with the pictures to come."""
        if self._chooser is not None:
            self._chooser.adapt()

    def _run(self, tower: Callable[[], Tower], rows: np.ndarray, batch: int) -> np.ndarray:
        """Pass rows through a tower, ``batch`` at a time; a GPU computes while more are sent."""
        with self._lock, torch.inference_mode():
            out = [
                normalize(tower()(send(rows[start : start + batch], self.device)).float(), dim=-1)
                for start in range(0, len(rows), batch)
            ]
            if not out:
                return np.empty((0, self.dim), np.float32)
            return torch.cat(out).cpu().numpy()

    @property
    @abstractmethod
    def _image_tower(self) -> Tower:
        """The function from uint8 (n, s, s, 3) to features (n, d), not yet of unit length."""

    @abstractmethod
    def _tower_in(self, precision: str) -> Tower:
        """Return ``_image_tower`` in another precision, for comparison."""

    @abstractmethod
    def _module(self) -> Callable[[], torch.nn.Module] | None:
        """Return what makes ``_image_tower`` as a module in float32; None if that is impossible."""


def send(rows: np.ndarray, device: torch.device) -> torch.Tensor:
    """Copy an array to a device; a GPU receives it while it computes."""
    x = torch.from_numpy(np.require(rows, requirements=["C", "W"]))
    if device.type == "cuda":
        return x.pin_memory().to(device, non_blocking=True)
    return x.to(device)


def pick_device(name: str) -> torch.device:
    """Return the device of this name; ``auto`` is the fastest available."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    kind, _, number = name.partition(":")
    mps = int(torch.backends.mps.is_available())
    counts = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": mps}
    if kind not in counts or (number and not number.isdecimal()):
        raise ModelError(f"there is no device {name!r}; choose auto, cpu, cuda, cuda:N or mps")
    if int(number or 0) >= counts[kind]:
        raise ModelError(f"{name} is not available here; use cpu")
    return torch.device(name)


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """Return the precision of this name; ``auto`` is the device's fastest."""
    if name == "auto":
        if device.type == "cpu":
            return torch.bfloat16 if multiplies_bfloat16() else torch.float32
        return torch.float16
    if name not in DTYPES:
        raise ModelError(f"there is no dtype {name!r}; choose auto, {', '.join(DTYPES)}")
    if name == "float16" and device.type == "cpu":
        raise ModelError("float16 is for GPUs; on the CPU use auto, float32 or bfloat16")
    return DTYPES[name]


def multiplies_bfloat16() -> bool:
    """Whether this CPU has units for bfloat16 products that torch uses.

    On x86 oneDNN also says yes if it can only emulate them, so ask for the instructions as well.
    """
    if not torch.backends.mkldnn.is_available() or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    if platform.machine().lower() in ("x86_64", "amd64"):
        return _has("_is_avx512_bf16_supported") or _has("_is_amx_tile_supported")
    return True


def _has(question: str) -> bool:
    ask = getattr(torch.cpu, question, None)
    return bool(ask and ask())


@cache
def keep_allocations() -> bool:
    """Tell glibc to keep large freed blocks for reuse; return whether it agreed.

    By default each activation of a few megabytes is mapped afresh and its pages zeroed one fault
    at a time, which costs an encoder on the CPU up to a third of its speed. Other C libraries are
    left alone.
    """
    try:
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018 - only glibc has it
        set_option = libc.mallopt
    except (OSError, AttributeError, TypeError):
        return False
    kept = set_option(_M_MMAP_THRESHOLD, _HIGH)
    return bool(set_option(_M_TRIM_THRESHOLD, _HIGH) and kept)
