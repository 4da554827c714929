"""What queries ask of a library. Answers are put together from this alone."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from fovea.search.library.rows import ModelRow

__all__ = ["Eligible", "Index", "Source", "Vectors"]

Filters = Sequence[Any]  # each one of ``query.filters.Filter``


class Eligible(Protocol):
    """The images that an answer may hold: visible, passing the filters, and not excluded."""

    def count(self) -> int:
        """Count them, embedded or not."""

    def searchable(self) -> int:
        """Count those with an embedding; it may stop at as many as an answer ranks."""

    def nearest(self, vector: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the nearest to a vector, float32 (d,) of unit length: ids (n,), cosines (n,).

        Best first; n is at most ``limit``, and less only where there are no more.
        """

    def scores(self, vector: np.ndarray, image_ids: Sequence[int]) -> dict[int, float]:
        """Return the cosines of those of the images that have an embedding."""

    def named(self, words: str, limit: int) -> list[int]:
        """Return at most ``limit`` images whose file and folder names have all words."""

    def texted(self, words: str, limit: int) -> list[int]:
        """Return at most ``limit`` images that show all words."""


class Source(Protocol):
    """A library as queries see it, with the model that it uses."""

    def check(self, filters: Filters) -> None:
        """Raise ``Unanswerable`` for a filter that cannot be answered, naming it."""

    def browse(self, filters: Filters, sort: str | None, limit: int) -> tuple[np.ndarray, int]:
        """Return the first images that pass, newest first or by name, and how many can be reached.

        ``sort`` is the query's own; for "name", ids are by the name of the first file that passes.
        """

    def eligible(self, filters: Filters, without: int | None) -> Eligible:
        """Return what an answer may hold: what passes the filters, without one image."""

    def vector(self, image_id: int, at: int | None = None) -> np.ndarray | None:
        """Return an image's embedding, float32 (d,), unit length; None if it has none.

        With ``at``, that of a video's moment, in milliseconds.
        """

    def moments(self, image_ids: np.ndarray, vector: np.ndarray) -> Mapping[int, int]:
        """Return the moment nearest to a vector of each video among images, in milliseconds."""

    def ordered(self, image_ids: np.ndarray, filters: Filters, sort: str | None) -> np.ndarray:
        """Return those of the images that are still there, in the order that ``browse`` has."""

    def hold(self, image_ids: Collection[int]) -> None:
        """See to it that the rows that hits are joined to are at hand."""


class Index(Protocol):
    """The embeddings of a library with one model, as pages and protocols know them."""

    @property
    def kind(self) -> str:
        """``exhaustive``, or what else it is."""

    @property
    def recall(self) -> float:
        """recall@10 against exhaustive search."""

    @property
    def model(self) -> ModelRow:
        """The model that made the embeddings."""

    def __len__(self) -> int:
        """Count the embeddings."""

    def vectors(self, image_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return as ``Vectors`` does."""


class Vectors(Protocol):
    """The embeddings of a library, as likelihoods need them; ``VectorIndex`` is SQLite's."""

    def vectors(self, image_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return places in ``image_ids``, int64 (m,), and vectors, float32 (m, d), of those known.

        The places are in any order.
        """

    def sample(self) -> np.ndarray:
        """Return the embeddings (m, d) of some images, the same for every process."""
