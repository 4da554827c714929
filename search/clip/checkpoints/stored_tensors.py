"""Read tensors of a safetensors file, each into memory of its own.

The file is not mapped: whoever shortens or rewrites a mapped file changes the weights of a running
program, or ends it (SIGBUS). The format: github.com/huggingface/safetensors, "Format".
"""

import json
import math
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["StoredTensor", "StoredTensors", "open_tensors"]

LONGEST_HEADER = 100_000_000  # bytes, as in the reference implementation
# The format's names of types -> torch's names, NumPy's names (None: it has none), bits.
TYPES: dict[str, tuple[str, str | None, int]] = {
    "BOOL": ("bool", "?", 8),
    "U8": ("uint8", "u1", 8),
    "I8": ("int8", "i1", 8),
    "F8_E4M3": ("float8_e4m3fn", None, 8),
    "F8_E5M2": ("float8_e5m2", None, 8),
    "U16": ("uint16", "<u2", 16),
    "I16": ("int16", "<i2", 16),
    "F16": ("float16", "<f2", 16),
    "BF16": ("bfloat16", None, 16),
    "U32": ("uint32", "<u4", 32),
    "I32": ("int32", "<i4", 32),
    "F32": ("float32", "<f4", 32),
    "U64": ("uint64", "<u8", 64),
    "I64": ("int64", "<i8", 64),
    "F64": ("float64", "<f8", 64),
    "C64": ("complex64", "<c8", 64),
}


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Where a tensor lies in its file."""

    dtype: str  # a key of ``TYPES``
    shape: tuple[int, ...]
    start: int  # bytes from the beginning of the file
    size: int  # bytes


class StoredTensors:
    """An open file: what it has, and a way to read each."""

    def __init__(self, file: BinaryIO, found: dict[str, StoredTensor]) -> None:
        self._file, self.found = file, found

    def array(self, name: str) -> np.ndarray:
        """Read a tensor. Raise ``ValueError`` if it is cut off or of a type that NumPy lacks."""
        stored = self.found[name]
        kind = TYPES[stored.dtype][1]
        if kind is None:
            raise ValueError(f"{name} is of the type {stored.dtype}, which NumPy lacks")
        made = np.empty(stored.shape, kind)
        self._fill(name, made.reshape(-1).view(np.uint8))
        return made

    def tensor(self, name: str) -> "Tensor":
        """Read a tensor for torch. Raise ``ValueError`` if it is cut off."""
        import torch

        stored = self.found[name]
        made = torch.empty(stored.shape, dtype=getattr(torch, TYPES[stored.dtype][0]))
        self._fill(name, made.reshape(-1).view(torch.uint8).numpy())
        return made

    def _fill(self, name: str, room: np.ndarray) -> None:
        """Fill uint8 (n,) with the bytes of a tensor."""
        view, done = room.data, 0
        self._file.seek(self.found[name].start)
        while done < len(room):
            got = self._file.readinto(view[done:])  # type: ignore[attr-defined]
            if not got:
                raise ValueError(f"it ends within {name}")
            done += got


@contextmanager
def open_tensors(path: Path) -> Iterator[StoredTensors]:
    """Open a file and read its header. Raise ``ValueError`` if that is not sound."""
    with path.open("rb", buffering=0) as file:
        yield StoredTensors(file, _header(file))


def _header(file: Any) -> dict[str, StoredTensor]:
    size = file.seek(0, 2)
    file.seek(0)
    prefix = file.read(8)
    length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
    if not 2 <= length <= min(LONGEST_HEADER, size - 8):
        raise ValueError("its header is cut off or not one of safetensors")
    try:
        listed = json.loads(_exactly(file, length).decode())
    except RecursionError as exc:
        raise ValueError("its header is nested too deeply") from exc
    if not isinstance(listed, dict):
        raise ValueError("its header is not an object of JSON")
    listed.pop("__metadata__", None)
    found = {name: _stored(name, entry, 8 + length) for name, entry in listed.items()}
    end = 8 + length
    for stored in sorted(found.values(), key=lambda one: (one.start, one.size)):
        if stored.start != end:
            raise ValueError("its tensors overlap, or have gaps between them")
        end += stored.size
    if end != size:
        raise ValueError(f"it has {size:,} bytes, but its header describes {end:,}")
    return found


def _exactly(file: Any, length: int) -> bytes:
    parts = []
    while length and (part := file.read(length)):
        parts.append(part)
        length -= len(part)
    return b"".join(parts)


def _stored(name: str, entry: Any, base: int) -> StoredTensor:
    try:
        dtype, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    except (KeyError, TypeError, ValueError) as exc:
        raise ValueError(f"its header does not describe {name}") from exc
    if not isinstance(dtype, str) or dtype not in TYPES:
        raise ValueError(f"{name} is of an unknown type, {dtype}")
    numbers = (*shape, begin, end)
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise ValueError(f"its header does not describe {name}")
    size = math.prod(shape) * TYPES[dtype][2] // 8
    if end - begin != size:
        raise ValueError(f"{name} has {end - begin:,} bytes instead of {size:,}")
    return StoredTensor(dtype, shape, base + begin, size)
