"""An array in an ``.npy`` file, read piece by piece from where it lies.

The file is not mapped: whoever shortens a mapped file ends the program that reads it (SIGBUS).
"""

import math
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["StoredArray"]


class StoredArray:
    """An array on the disk, of ``shape`` and ``dtype``.

    Indexing by whole numbers gives a part that is still on the disk; ``np.asarray`` reads. Several
    threads may read at once.
    """

    def __init__(self, file: "_File", shape: tuple[int, ...], dtype: np.dtype, start: int) -> None:
        self.shape, self.dtype = shape, dtype
        self._file, self._start = file, start

    @classmethod
    def open(cls, path: Path) -> "StoredArray":
        """Open a file. Raise ``ValueError`` or ``OSError`` if it is not a whole array."""
        file = path.open("rb", buffering=0)
        try:
            version = np.lib.format.read_magic(file)
            read = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }.get(version)
            if read is None:
                raise ValueError(f"{path} is of the unknown version {version}")
            shape, is_fortran, dtype = read(file)
            start = file.tell()
            size = math.prod(shape) * dtype.itemsize
            if is_fortran or dtype.hasobject or os.fstat(file.fileno()).st_size - start != size:
                raise ValueError(f"{path} is not a whole array")
        except BaseException:
            file.close()
            raise
        with file:
            return cls(_File(os.dup(file.fileno())), shape, dtype, start)

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator["StoredArray"]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, place: int | tuple[int, ...]) -> "StoredArray":
        places = place if isinstance(place, tuple) else (place,)
        shape, start = self.shape, self._start
        for index in places:
            if not -shape[0] <= index < shape[0]:
                raise IndexError(f"{index} of {shape[0]}")
            first, *rest = shape
            shape = tuple(rest)
            start += index % first * math.prod(shape) * self.dtype.itemsize
        return StoredArray(self._file, shape, self.dtype, start)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Read it. Raise ``OSError`` if the file has become shorter."""
        made = np.empty(self.shape, self.dtype)
        self._file.fill(made.reshape(-1).view(np.uint8), self._start)
        return made if dtype is None else made.astype(dtype, copy=False)


class _File:
    """An open file that several arrays are parts of; it is closed with the last one."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._turn = descriptor, threading.Lock()

    def __del__(self) -> None:
        os.close(self._descriptor)

    def fill(self, room: np.ndarray, start: int) -> None:
        """Fill uint8 (n,) with the bytes from ``start`` on."""
        view, done = room.data, 0
        while done < len(room):
            if hasattr(os, "preadv"):
                got = os.preadv(self._descriptor, [view[done:]], start + done)
            else:  # on Windows
                with self._turn:
                    os.lseek(self._descriptor, start + done, os.SEEK_SET)
                    part = os.read(self._descriptor, len(room) - done)
                got = len(part)
                view[done : done + got] = part
            if not got:
                raise OSError("the file has become shorter")
            done += got
