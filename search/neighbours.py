"""The images nearest to words, to a picture, or to both."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from .errors import LibraryError
from .hits import Hit, Place, places
from .index import VectorIndex
from .library import Library
from .pictures import Drafting, open_image, shown

__all__ = ["Encoder", "combined", "search", "search_by_vector", "similar"]


class Encoder(Protocol):
    """What turns pictures and words into embeddings; ``search.clip`` has the real one."""

    @property
    def name(self) -> str: ...

    @property
    def identity(self) -> str: ...

    @property
    def preprocess(self) -> Drafting: ...

    def encode_images(self, images: Sequence[Image.Image]) -> np.ndarray:
        """float32 (n, d), unit rows."""
        ...

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """float32 (n, d), unit rows."""
        ...


def search(
    library: Library,
    index: VectorIndex,
    encoder: Encoder,
    *,
    text: str | None = None,
    image: Image.Image | None = None,
    k: int = 10,
) -> list[Hit]:
    """The ``k`` images nearest to words, to a picture, or to both, best first.

    Both together mean the normalised sum of their unit vectors. Raise ``ValueError`` if neither
    is given, ``LibraryError`` if the encoder is not the model of the index.
    """
    if text is None and image is None:
        raise ValueError("search for words, for a picture, or for both")
    _check_model(index, encoder)
    parts = []
    if text is not None:
        parts.append(encoder.encode_texts([text]))
    if image is not None:
        parts.append(encoder.encode_images([image]))
    return search_by_vector(library, index, combined(np.concatenate(parts)), k=k)


def similar(
    library: Library, index: VectorIndex, encoder: Encoder, file: Path, k: int = 10
) -> list[Hit]:
    """The ``k`` images nearest to that of a file, which need not be in the library.

    If its content is, its stored embedding is used and it is not its own answer. Raise
    ``LibraryError`` for a file that cannot be read.
    """
    try:
        digest = hashlib.sha256(Path(file).read_bytes()).digest()
    except OSError as exc:
        raise LibraryError(f"cannot read {shown(file)}: {exc.strerror or exc}") from exc
    known = library.image_by_hash([digest]).get(digest)
    exclude = () if known is None else (known,)
    vector = None if known is None else _stored_vector(library, known, index.model.id)
    if vector is None:
        _check_model(index, encoder)
        with open_image(file, encoder.preprocess) as image:
            vector = combined(encoder.encode_images([image]))
    return search_by_vector(library, index, vector, k=k, exclude=exclude)


def search_by_vector(
    library: Library,
    index: VectorIndex,
    vector: np.ndarray,
    *,
    k: int = 10,
    exclude: Sequence[int] = (),
) -> list[Hit]:
    """The ``k`` images nearest to a unit vector, float32 (d,), that some file shows.

    Images whose files are all missing do not make the answer shorter.
    """
    index.refresh(library)
    asked = k
    while True:
        found = index.search(vector[None], asked, exclude=exclude or None)
        near = [int(image_id) for image_id in found.ids[0] if image_id >= 0]
        seen = places(library, near)
        if len(seen) >= k or len(near) < asked:
            break
        asked *= 4  # some have no file left
    scores = dict(zip(near, found.scores[0].tolist(), strict=False))
    visible = [image_id for image_id in near if image_id in seen][:k]
    return [
        _hit(rank, scores[image_id], image_id, seen[image_id])
        for rank, image_id in enumerate(visible, start=1)
    ]


def _hit(rank: int, score: float, image_id: int, place: Place) -> Hit:
    score = max(-1.0, min(1.0, score))  # float16 rounds a little beyond
    return Hit(rank, score, image_id, place.paths[0], place.paths, place.offline)


def combined(vectors: np.ndarray) -> np.ndarray:
    """The normalised sum (d,) of unit rows (n, d), float32.

    Raise ``ValueError`` where they cancel each other out.
    """
    total = np.asarray(vectors, dtype=np.float32).sum(axis=0)
    length = float(np.linalg.norm(total))
    if not length > 1e-6:
        raise ValueError("these queries cancel each other out")
    return total / np.float32(length)


def _stored_vector(library: Library, image_id: int, model_id: int) -> np.ndarray | None:
    """The unit vector that a model gave an image, float32 (d,); ``None`` if there is none."""
    rows = library.rows(
        "SELECT vector FROM embeddings WHERE image_id = ? AND model_id = ?", (image_id, model_id)
    )
    return combined(np.frombuffer(rows[0][0], "<f2")[None]) if rows else None


def _check_model(index: VectorIndex, encoder: Encoder) -> None:
    """Raise ``LibraryError`` for an encoder whose embeddings these are not."""
    if encoder.identity != index.model.identity:
        raise LibraryError(
            f"this library was indexed with {index.model.name}, not with {encoder.name}; "
            f"search with {index.model.name}, or index again with --model {encoder.name}"
        )
