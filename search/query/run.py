"""One query's way out: ranked, likelihoods, the line, hits. Whoever asks, asks here.

The terminal, the page, the API and Python get the same order, the same likelihoods and the same
line, however many hits they ask for: an answer is ranked to one of the depths in ``DEPTHS``, and
going deeper changes nothing of what is there.
"""

import hashlib
import time
from collections.abc import Hashable
from dataclasses import dataclass, replace

import numpy as np

from fovea.search.clip.protocols import TextEncoder
from fovea.search.index.vector_index import VectorIndex
from fovea.search.library.library import Library
from fovea.search.library.rows import ModelRow

from .cutoff import falling, line_drawn
from .hits import Answer, Hit, hits
from .language import Query, Term, parse
from .likelihood import LINE, Background, likelihoods
from .rank import DEEPEST, Picture, Ranking, rank

__all__ = ["DEPTHS", "Listing", "Question", "Searcher"]

DEPTHS = (200, 2_000, DEEPEST)  # hits ranked: most people look at the first page, few any further
EVERYTHING = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Question:
    """A query as it was written and as it was read; ``without`` is an image to leave out."""

    text: str
    query: Query
    pictures: tuple[Picture, ...] = ()
    without: int | None = None

    @classmethod
    def of(cls, text: str, *pictures: Picture) -> "Question":
        """Read a query. Raise ``QueryError`` where it cannot be read."""
        return cls(text, parse(text), pictures)

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


@dataclass(frozen=True, slots=True)
class Listing:
    """The images that a question leads to, in their order, as deep as they were ranked."""

    question: Question
    ranking: Ranking
    likely: int | None  # how many of the first are likely; None where no line is drawn
    total: int  # how many hits can be reached

    @property
    def is_whole(self) -> bool:
        """Whether the ranking goes as far as any cursor leads."""
        return len(self.ranking.ids) >= self.total


@dataclass(frozen=True, slots=True)
class Searcher:
    """What it takes to answer: a library, the index and encoder of its model, its background.

    ``index`` is None before anything is indexed, ``background`` until likelihoods can be told.
    """

    library: Library
    index: VectorIndex | None
    encoder: TextEncoder | None  # None as the index is
    background: Background | None

    @classmethod
    def of(
        cls, library: Library, model: ModelRow | None, encoder: TextEncoder | None
    ) -> "Searcher":
        """Open what a model has left in a library; None is a library before its first model."""
        if model is None:
            return cls(library, None, encoder, None)
        index = VectorIndex.open(library, model.id)
        return cls(library, index, encoder, Background.load(library.folder, model.identity))

    def answer(self, question: Question, k: int = 10) -> Answer:
        """The first ``k`` hits. Raise ``Unanswerable`` where the question has no answer."""
        started = time.perf_counter()
        listing = self.deepened(self.listing(question), k)
        found = self.hits(listing, 0, k)
        took_ms = round((time.perf_counter() - started) * 1000, 1)
        model = None if self.index is None else self.index.model.name
        return Answer(question.text, model, took_ms, listing.total, listing.likely, tuple(found))

    def listing(self, question: Question) -> Listing:
        """What a question leads to, deep enough for a first page and for the line."""
        ranking = self._rank(question, DEPTHS[0])
        chances, likely = self._likelihoods(ranking), None
        if chances is not None and question.query.sort in ("date", "name"):
            ranking = replace(ranking, likelihoods=chances)
        elif chances is not None:
            ranking, likely = line_drawn(ranking, chances)
        listing = Listing(question, ranking, likely, ranking.total)
        while not listing.is_whole and len(listing.ranking.ids) < DEPTHS[1]:
            if 10 * (listing.likely or 0) <= 9 * len(listing.ranking.ids):
                break
            listing = self._deeper(listing)  # nearly all are likely: the line may lie further down
        return listing

    def deepened(self, listing: Listing, k: int) -> Listing:
        """The listing with at least ``k`` hits, if there are as many; what was there stays."""
        while k > len(listing.ranking.ids) and not listing.is_whole:
            listing = self._deeper(listing)
        return listing

    def hits(self, listing: Listing, start: int, stop: int) -> list[Hit]:
        """The hits from ``start`` to before ``stop``; images that have gone since are left out."""
        filters = listing.question.query.filters
        return hits(self.library, listing.ranking, start, stop, filters)

    def _deeper(self, listing: Listing) -> Listing:
        """The listing ranked to the next depth."""
        head = listing.ranking
        depth = next((depth for depth in DEPTHS if depth > len(head.ids)), EVERYTHING)
        deep = self._rank(listing.question, depth if head.scores is not None else EVERYTHING)
        new = ~np.isin(deep.ids, head.ids)
        ids, scores = np.concatenate([head.ids, deep.ids[new]]), None
        if head.scores is not None and deep.scores is not None:
            scores = np.concatenate([head.scores, deep.scores[new]])
        ranking = replace(deep, ids=ids, scores=scores, by_name=head.by_name | deep.by_name)
        likely = listing.likely
        if head.likelihoods is not None:
            chances = self._likelihoods(ranking)
            assert chances is not None
            more = falling(chances[len(head.ids) :], float(head.likelihoods.min(initial=1.0)))
            joined = np.concatenate([head.likelihoods, more])
            ranking = replace(ranking, likelihoods=joined)
            likely = None if likely is None else likely + int(np.count_nonzero(more >= LINE))
        reaches_end = depth >= DEEPEST or len(deep.ids) < depth
        return replace(
            listing,
            ranking=ranking,
            likely=likely,
            total=len(ids) if reaches_end else max(listing.total, len(ids)),
        )

    def _rank(self, question: Question, limit: int) -> Ranking:
        if self.index is None or self.encoder is None:
            return Ranking(np.empty(0, np.int64), None, 0, "browse")
        return rank(
            self.library,
            self.index,
            self.encoder,
            question.query,
            pictures=question.pictures,
            without=question.without,
            limit=limit,
        )

    def _likelihoods(self, ranking: Ranking) -> np.ndarray | None:
        if self.index is None or self.background is None:
            return None
        return likelihoods(self.library, self.index, self.background, ranking)
