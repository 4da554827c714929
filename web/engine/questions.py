"""What is asked: words, pictures, or both."""

import hashlib
from collections.abc import Hashable
from dataclasses import dataclass

from fovea.search.query.language import Query, Term, parse
from fovea.search.query.rank import Picture

__all__ = ["Question"]


@dataclass(frozen=True, slots=True)
class Question:
    """A query as it was written and as it was read; ``without`` is an image to leave out."""

    text: str
    query: Query
    pictures: tuple[Picture, ...] = ()
    without: int | None = None

    @classmethod
    def of(cls, text: str) -> "Question":
        """Read a query. Raise ``QueryError`` where it cannot be read."""
        return cls(text, parse(text))

    @classmethod
    def like(cls, image_id: int) -> "Question":
        """Ask for the other images that are nearest to one."""
        query = Query((Term("like", image_id, 1.0),), (), None)
        return cls(str(query), query, without=image_id)

    @property
    def key(self) -> Hashable:
        """Equal for questions that have the same answer."""
        pictures = [
            (hashlib.sha256(picture.vector.tobytes()).digest(), picture.weight)
            for picture in self.pictures
        ]
        return str(self.query), tuple(pictures), self.without
