"""A snapshot: one model's vectors and their index in one file, checked before it is used.

    page 0      magic, length and SHA-256 of the header; the header, JSON
    page 1 ...  sections, each at a multiple of 64 bytes: vectors (float16), embedding_ids and
                image_ids (int64), and the stored form of an index if it has one, without the
                vectors

The header has the library's id, the model's identity, the generation (the highest embedding id
that was seen), the last tombstone that was applied, the count, and a checksum of everything
after page 0: the SHA-256 of the SHA-256s of its chunks, so that several threads can check it.
"""

import contextlib
import hashlib
import json
import mmap
import os
import struct
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from fovea.search.clip.atomic import sync_folder

__all__ = ["Header", "Rows", "Snapshot", "SnapshotWriter", "UnusableSnapshot", "read_snapshot"]

MAGIC = b"foveaIX1"
PAGE = 4096
PREFIX = struct.Struct("<8sI32s")  # magic, the header's length, its SHA-256
ALIGNMENT = 64
CHUNK = 8 << 20  # bytes hashed at a time
THREADS = min(8, os.cpu_count() or 1)


class UnusableSnapshot(Exception):
    """A snapshot failed a check, and its message says why; the index is rebuilt."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Embeddings in the order of their ids."""

    embedding_ids: np.ndarray  # int64 (n,), ascending
    image_ids: np.ndarray  # int64 (n,)
    vectors: np.ndarray  # float16 (n, d)

    def __len__(self) -> int:
        return len(self.embedding_ids)

    @classmethod
    def none(cls, dim: int) -> "Rows":
        ids = np.empty(0, dtype=np.int64)
        return cls(ids, ids, np.empty((0, dim), dtype=np.float16))


@dataclass(frozen=True, slots=True)
class Header:
    """What a snapshot says about itself."""

    library: str
    model: str
    dim: int
    count: int
    generation: int
    tombstone: int
    kind: str | None = None  # of the index that was last built, even if it was not good enough
    built_on: int = 0  # vectors when it was
    settings: dict[str, Any] | None = None  # the stored index's own


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot that has passed its checks; the arrays are the memory-mapped file."""

    header: Header
    checksum: str
    rows: Rows
    form: np.ndarray | None  # uint8, the stored index


class SnapshotWriter:
    """Write a snapshot to a temporary file, which replaces the old one whole or not at all.

    Write the sections, then ``seal``, then ``publish``; leaving the block without that discards it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        self._sections: dict[str, tuple[int, int]] = {}
        self._file: BinaryIO

    def __enter__(self) -> "SnapshotWriter":
        self._file = open(self.temporary, "w+b")  # noqa: SIM115  # closed in __exit__
        self._file.write(bytes(PAGE))
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()
        self.temporary.unlink(missing_ok=True)

    def write(self, name: str, arrays: Iterable[np.ndarray]) -> None:
        """Write one section from consecutive arrays."""
        self._file.write(bytes(-self._file.tell() % ALIGNMENT))
        start = self._file.tell()
        for array in arrays:
            self._file.write(np.ascontiguousarray(array).view(np.uint8).reshape(-1).data)
        self._sections[name] = (start, self._file.tell() - start)

    def mapped(self, name: str, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
        """Return a section that is written already as an array."""
        self._file.flush()
        return _array(_map(self._file), self._sections[name], dtype, shape)

    def seal(self, header: Header) -> str:
        """Write the header, flush everything to the disk, and return the checksum."""
        self._file.flush()
        size = self._file.seek(0, os.SEEK_END)
        checksum = _checksum(_map(self._file))
        fields = asdict(header) | {"sections": self._sections, "size": size, "checksum": checksum}
        text = json.dumps(fields, sort_keys=True).encode()
        page = PREFIX.pack(MAGIC, len(text), hashlib.sha256(text).digest()) + text
        if len(page) > PAGE:
            raise ValueError(f"a header of {len(page)} bytes does not fit into {PAGE}")
        self._file.seek(0)
        self._file.write(page)
        self._file.flush()
        os.fsync(self._file.fileno())
        return checksum

    def publish(self) -> None:
        """Move the sealed file into place."""
        self._file.close()
        os.replace(self.temporary, self.path)
        with contextlib.suppress(OSError):  # not every system can synchronise a folder
            sync_folder(self.path.parent)


def read_snapshot(path: Path) -> Snapshot:
    """Map a snapshot into memory and check all of it. Raise ``UnusableSnapshot`` on any doubt."""
    try:
        with open(path, "rb") as file:
            page = file.read(PAGE)
            fields = _header(page)
            size = os.fstat(file.fileno()).st_size
            if size != fields.get("size"):
                raise UnusableSnapshot(f"it has {size} bytes instead of {fields.get('size')}")
            mapped = _map(file)
    except OSError as exc:
        raise UnusableSnapshot(exc.strerror or str(exc)) from exc
    if _checksum(mapped) != fields.get("checksum"):
        raise UnusableSnapshot("its checksum does not match its content")
    try:
        return _snapshot(mapped, fields)
    except (KeyError, TypeError, ValueError) as exc:
        raise UnusableSnapshot(f"it was written by another version: {exc}") from exc


def _header(page: bytes) -> dict[str, Any]:
    """Return the fields of the header, checked by its own SHA-256."""
    if len(page) < PAGE or not page.startswith(MAGIC):
        raise UnusableSnapshot("it is not a snapshot that this version can read")
    _, length, digest = PREFIX.unpack_from(page)
    text = page[PREFIX.size : PREFIX.size + length]
    if hashlib.sha256(text).digest() != digest:
        raise UnusableSnapshot("its header is damaged")
    fields: dict[str, Any] = json.loads(text)
    return fields


def _snapshot(mapped: mmap.mmap, fields: dict[str, Any]) -> Snapshot:
    sections, checksum = fields.pop("sections"), fields.pop("checksum")
    del fields["size"]
    header = Header(**fields)
    count = (header.count,)
    rows = Rows(
        _array(mapped, sections["embedding_ids"], "<i8", count),
        _array(mapped, sections["image_ids"], "<i8", count),
        _array(mapped, sections["vectors"], "<f2", (header.count, header.dim)),
    )
    form = sections.get("form")
    return Snapshot(
        header, checksum, rows, _array(mapped, form, "u1", (form[1],)) if form else None
    )


def _map(file: BinaryIO) -> mmap.mmap:
    return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _array(
    mapped: mmap.mmap, section: tuple[int, int], dtype: str, shape: tuple[int, ...]
) -> np.ndarray:
    return np.ndarray(shape, dtype, buffer=mapped, offset=section[0])


def _checksum(mapped: mmap.mmap) -> str:
    """Hash the chunks' SHA-256s, without page 0; hashing releases Python's lock."""
    view = memoryview(mapped)
    with contextlib.suppress(AttributeError, OSError):  # not on every system
        mapped.madvise(mmap.MADV_WILLNEED)
    total = hashlib.sha256()

    def digest_of(start: int) -> bytes:
        return hashlib.sha256(view[start : start + CHUNK]).digest()

    with ThreadPoolExecutor(THREADS) as pool:
        for digest in pool.map(digest_of, range(PAGE, len(view), CHUNK)):
            total.update(digest)
    return total.hexdigest()


def chunks(
    array: np.ndarray, chosen: np.ndarray | None, size: int = 1 << 16
) -> Iterator[np.ndarray]:
    """Yield the rows of an array, or those that a mask selects, some at a time."""
    for start in range(0, len(array), size):
        part = array[start : start + size]
        yield part if chosen is None else part[chosen[start : start + size]]
