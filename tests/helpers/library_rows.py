"""What the tests of one subject share."""

import numpy as np

from fovea.search.library.library import Library
from fovea.search.library.rows import FileWrite, ImageMetadata, NewImage, WriteBatch


def content(number: int) -> bytes:
    """A stand-in for a SHA-256."""
    return number.to_bytes(32, "big")


def unit(number: int, dim: int = 3) -> np.ndarray:
    vector = np.random.default_rng(number).standard_normal(dim).astype("float32")
    return vector / np.linalg.norm(vector)


def put(library: Library, root_id: int, path: bytes, number: int, state: str = "indexed") -> None:
    """Write one file with the content ``number``."""
    library.set_model("toy", "a" * 64, 3, "test")
    batch = WriteBatch(
        [NewImage(content(number), 10, ImageMetadata(4, 3), unit(number))],
        [FileWrite(path, root_id, 10, 99, content(number), state)],
    )
    library.write_batch(batch)


def paths(library: Library) -> dict[bytes, str]:
    return {entry.path: entry.state for entry in library.entries()}


def images(library: Library) -> list[int]:
    return [row[0] for row in library.rows("SELECT id FROM images ORDER BY id")]
