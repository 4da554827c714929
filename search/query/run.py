"""The images nearest to words, to a picture, or to both."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from fovea.search.errors import LibraryError
from fovea.search.index.vector_index import VectorIndex
from fovea.search.library.library import Library
from fovea.search.library.pictures import Drafting, file_bytes, open_image

from .cutoff import lined
from .hits import Hit
from .language import Query, parse
from .likelihood import Background, likelihoods
from .rank import Picture, TextEncoder, hits, left_out, rank, stored_vector

__all__ = ["Encoder", "answer", "known_image", "search", "similar", "similar_to"]


class ModelEncoder(TextEncoder, Protocol):
    """What turns words into embeddings of a certain model."""

    @property
    def name(self) -> str: ...

    @property
    def identity(self) -> str: ...


class Encoder(ModelEncoder, Protocol):
    """What turns pictures and words into embeddings; ``fovea.search.clip`` has the real one."""

    @property
    def preprocess(self) -> Drafting: ...

    def encode_images(self, images: Sequence[Image.Image]) -> np.ndarray:
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
    """The ``k`` images nearest to a query, to a picture, or to both, best first.

    ``text`` is in the query language, as ``fovea search`` takes it. A picture counts as much as
    words without a weight. Raise ``ValueError`` if neither is given, ``QueryError`` for a query
    that cannot be read, and ``LibraryError`` if its terms cancel each other out, or if the encoder
    is not the model of the index.
    """
    if text is None and image is None:
        raise ValueError("search for words, for a picture, or for both")
    _check_model(index, encoder)
    pictures = [] if image is None else [Picture(encoder.encode_images([image])[0])]
    return answer(library, index, encoder, parse(text or ""), pictures=pictures, k=k)


def similar(
    library: Library, index: VectorIndex, encoder: Encoder, file: Path, k: int = 10
) -> list[Hit]:
    """The ``k`` images nearest to that of a file, which need not be in the library.

    If its content is, its stored embedding is used and it is not its own answer. Else it is decoded
    in this process. Raise ``LibraryError`` for a file that cannot be read.
    """
    known = known_image(library, file)

    def embed() -> np.ndarray:
        with open_image(file, encoder.preprocess) as image:
            [vector] = encoder.encode_images([image])
        return vector

    return similar_to(library, index, encoder, known, embed=embed, k=k)


def known_image(library: Library, file: Path) -> int | None:
    """The image that has a file's content; None for a content that the library does not know.

    Raise ``LibraryError`` for a file that cannot be read.
    """
    digest = hashlib.sha256(file_bytes(file)).digest()
    return library.image_by_hash([digest]).get(digest)


def similar_to(
    library: Library,
    index: VectorIndex,
    encoder: ModelEncoder,
    known: int | None,
    *,
    embed: Callable[[], np.ndarray],
    k: int = 10,
) -> list[Hit]:
    """The ``k`` images nearest to a known one, itself left out, or to what ``embed`` returns.

    That is asked for a unit vector, float32 (d,), where nothing is known or nothing stored.
    """
    vector = None if known is None else stored_vector(library, known, index.model.id)
    if vector is None:
        _check_model(index, encoder)
        vector = embed()
    return answer(library, index, encoder, Query(), pictures=[Picture(vector)], without=known, k=k)


def answer(
    library: Library,
    index: VectorIndex,
    encoder: TextEncoder,
    query: Query,
    *,
    pictures: Sequence[Picture] = (),
    without: int | None = None,
    k: int = 10,
) -> list[Hit]:
    """The first ``k`` hits of a query and pictures; ``without`` is an image to leave out.

    Each says how likely it is a match where indexing or serving has left what that takes, and the
    likely ones come first then, unless the query asks for another order.
    """
    limit = k if without is None else k + 1
    ranking = rank(library, index, encoder, query, pictures=pictures, limit=limit)
    if without is not None:
        ranking = left_out(ranking, without)
    background = Background.load(library.folder, index.model.identity)
    likely = None
    if background is not None:
        likely = likelihoods(library, index, background, ranking)
    if likely is None:
        return hits(library, ranking, 0, k)
    if query.sort in (None, "score"):
        drawn = lined(ranking, likely)
        ranking, likely = drawn.ranking, drawn.likelihoods
    found = hits(library, ranking, 0, k)
    return [replace(hit, likelihood=float(likely[hit.rank - 1])) for hit in found]


def _check_model(index: VectorIndex, encoder: ModelEncoder) -> None:
    """Raise ``LibraryError`` for an encoder whose embeddings these are not."""
    if encoder.identity != index.model.identity:
        raise LibraryError(
            f"this library answers by {index.model.name}, not by {encoder.name}; search with "
            f"{index.model.name}, or change its model: fovea models use {encoder.name}"
        )
