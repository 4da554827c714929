"""The answers of two models to one query, over the same library."""

import time
from dataclasses import dataclass

from fovea.search.index.vector_index import VectorIndex
from fovea.search.library.library import Library
from fovea.search.library.rows import ModelRow

from .hits import Hit
from .language import parse
from .rank import TextEncoder, hits, rank

__all__ = ["Side", "answered"]


@dataclass(frozen=True, slots=True)
class Side:
    """One model's answer, and over how many images."""

    model: ModelRow
    embedded: int
    took_ms: float
    hits: list[Hit]


def answered(library: Library, model: ModelRow, encoder: TextEncoder, query: str, k: int) -> Side:
    """What a model that the library knows answers, whether it is the library's own or not.

    Raise ``QueryError`` for a query that cannot be read.
    """
    asked = parse(query)
    index = VectorIndex.open(library, model.id)
    started = time.perf_counter()
    ranking = rank(library, index, encoder, asked, limit=k)
    found = hits(library, ranking, 0, k)
    took_ms = round((time.perf_counter() - started) * 1000, 1)
    return Side(model, len(index), took_ms, found)
