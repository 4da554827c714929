"""A snapshot: one model's vectors and their index in one file, checked before it is used.

    page 0      magic, length and SHA-256 of the header; the header, JSON
    page 1 ...  sections, each at a multiple of 64 bytes: vectors (float16), embedding_ids and
                image_ids (int64), and the stored form of an index if it has one, without the
                vectors; vectors that stay in the database are left out

The header has the library's id, the model's identity, the generation (the highest embedding id
that was seen), the last tombstone that was applied, the count, and a checksum of everything
after page 0: the SHA-256 of the SHA-256s of its chunks, so that several threads can check it.

A snapshot is read into memory and not mapped: what another program does to the file afterwards
neither changes an answer nor ends the process (SIGBUS, where a mapped file has become shorter).
"""

import contextlib
import hashlib
import json
import mmap
import os
import struct
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from fovea.search.clip.disk import sync_folder
from fovea.search.library.library import DATABASE

from .stored_vectors import StoredVectors, Vectors

__all__ = [
    "Header",
    "Rows",
    "Snapshot",
    "SnapshotWriter",
    "UnusableSnapshot",
    "read_header",
    "read_snapshot",
]

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
    vectors: Vectors  # float16 (n, d)

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
    """A snapshot that has passed its checks; its arrays are in memory.

    Without a section of vectors they are read from the database beside it.
    """

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
        try:
            self._file.write(bytes(PAGE))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        with contextlib.suppress(OSError):  # a full disk refuses the last bytes once more
            self._file.close()
        with contextlib.suppress(OSError):
            self.temporary.unlink(missing_ok=True)

    def write(self, name: str, arrays: Iterable[np.ndarray]) -> None:
        """Write one section from consecutive arrays."""
        self._file.write(bytes(-self._file.tell() % ALIGNMENT))
        start = self._file.tell()
        for array in arrays:
            self._file.write(np.ascontiguousarray(array).view(np.uint8).reshape(-1).data)
        self._sections[name] = (start, self._file.tell() - start)

    def seal(self, header: Header) -> str:
        """Write the header, flush everything to the disk, and return the checksum."""
        self._file.flush()
        size = self._file.seek(0, os.SEEK_END)
        checksum = _read_back(self._file, size)
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
    """Read a snapshot into memory and check all of it. Raise ``UnusableSnapshot`` on any doubt."""
    try:
        with open(path, "rb") as file:
            page = file.read(PAGE)
            fields = _header(page)
            size = os.fstat(file.fileno()).st_size
            if size != fields.get("size"):
                raise UnusableSnapshot(f"it has {size} bytes instead of {fields.get('size')}")
            content, checksum = _read_whole(file, size)
    except OSError as exc:
        raise UnusableSnapshot(exc.strerror or str(exc)) from exc
    except MemoryError as exc:
        raise UnusableSnapshot(f"its {size:,} bytes do not fit into memory") from exc
    if checksum != fields.get("checksum"):
        raise UnusableSnapshot("its checksum does not match its content")
    try:
        return _snapshot(content, fields, path.with_name(DATABASE))
    except (KeyError, TypeError, ValueError) as exc:
        raise UnusableSnapshot(f"it was written by another version: {exc}") from exc


def read_header(path: Path) -> tuple[Header, str]:
    """Return a snapshot's header and checksum, without a look at what it holds.

    Raise ``UnusableSnapshot`` if they cannot be read.
    """
    try:
        with open(path, "rb") as file:
            fields = _header(file.read(PAGE))
            size = os.fstat(file.fileno()).st_size
    except OSError as exc:
        raise UnusableSnapshot(exc.strerror or str(exc)) from exc
    try:
        if fields.pop("size") != size:
            raise UnusableSnapshot(f"it has {size} bytes")
        del fields["sections"]
        checksum = str(fields.pop("checksum"))
        return Header(**fields), checksum
    except (KeyError, TypeError) as exc:
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


def _snapshot(content: np.ndarray, fields: dict[str, Any], database: Path) -> Snapshot:
    sections, checksum = fields.pop("sections"), fields.pop("checksum")
    del fields["size"]
    header = Header(**fields)
    embedding_ids, image_ids = (
        _array(content, sections[name], "<i8", (header.count,))
        for name in ("embedding_ids", "image_ids")
    )
    if "vectors" in sections:
        vectors = _array(content, sections["vectors"], "<f2", (header.count, header.dim))
        rows = Rows(embedding_ids, image_ids, vectors)
    else:  # copies, so that the index is not in memory twice for as long as they are
        embedding_ids, image_ids = embedding_ids.copy(), image_ids.copy()
        stored = StoredVectors(database, embedding_ids, header.dim)
        rows = Rows(embedding_ids, image_ids, stored)
    form = sections.get("form")
    return Snapshot(
        header, checksum, rows, _array(content, form, "u1", (form[1],)) if form else None
    )


def _array(
    content: np.ndarray, section: tuple[int, int], dtype: str, shape: tuple[int, ...]
) -> np.ndarray:
    return np.ndarray(shape, dtype, buffer=content.data, offset=section[0])


def _read_whole(file: BinaryIO, size: int) -> tuple[np.ndarray, str]:
    """Read a file of so many bytes; return it, uint8 (size,), read-only, and its checksum.

    Each chunk is hashed as soon as it has arrived, while it is in the processor's cache. Raise
    ``UnusableSnapshot`` if the file has become shorter.
    """
    content = _memory(size)
    view, read = content.data, _reader(file)
    read(view[:PAGE], 0)

    def arrive(start: int) -> bytes:
        chunk = view[start : start + CHUNK]
        read(chunk, start)
        return hashlib.sha256(chunk).digest()

    with ThreadPoolExecutor(THREADS) as pool:
        checksum = _sum(pool.map(arrive, range(PAGE, size, CHUNK)))
    content.flags.writeable = False
    return content, checksum


def _memory(size: int) -> np.ndarray:
    """Return zeros, uint8 (size,), that begin at a page like the file.

    NumPy would ask for huge pages, which cost a virtual machine seconds a gigabyte when it first
    touches them.
    """
    if not hasattr(mmap, "MAP_ANONYMOUS"):  # on Windows
        return np.zeros(size, np.uint8)
    own = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return np.frombuffer(own, np.uint8)


def _read_back(file: BinaryIO, size: int) -> str:
    """Return the checksum of what has been written to a file."""
    read, rooms = _reader(file), threading.local()

    def arrive(start: int) -> bytes:
        room = getattr(rooms, "room", None)
        if room is None:
            room = rooms.room = memoryview(bytearray(CHUNK))
        chunk = room[: min(CHUNK, size - start)]
        read(chunk, start)
        return hashlib.sha256(chunk).digest()

    with ThreadPoolExecutor(THREADS) as pool:
        return _sum(pool.map(arrive, range(PAGE, size, CHUNK)))


def _reader(file: BinaryIO) -> Callable[[memoryview, int], None]:
    """Return a function that fills a buffer from an offset on; threads may call it at once.

    Reading and hashing release Python's lock.
    """
    turn = threading.Lock()

    def read(buffer: memoryview, start: int) -> None:
        done = 0
        while done < len(buffer):
            if hasattr(os, "preadv"):
                got = os.preadv(file.fileno(), [buffer[done:]], start + done)
            else:  # on Windows
                with turn:
                    file.seek(start + done)
                    got = file.readinto(buffer[done:])  # type: ignore[attr-defined]
            if not got:
                raise UnusableSnapshot("it has become shorter while it was read")
            done += got

    return read


def _sum(digests: Iterable[bytes]) -> str:
    """Hash the chunks' SHA-256s."""
    total = hashlib.sha256()
    for digest in digests:
        total.update(digest)
    return total.hexdigest()


def chunks(array: Vectors, chosen: np.ndarray | None, size: int = 1 << 16) -> Iterator[np.ndarray]:
    """Yield the rows of an array, or those that a mask selects, some at a time."""
    for start in range(0, len(array), size):
        part = array[start : start + size]
        yield part if chosen is None else part[chosen[start : start + size]]
