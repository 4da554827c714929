"""Answer a query: rank it, compute likelihoods, draw the line, fetch the hits.

The terminal, the page, the API and Python all call this module, so they get the same order,
likelihoods and line, however many hits they ask for: rankings end at fixed depths (``DEPTHS``), and
ranking deeper only appends hits.
"""

import hashlib
import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from fovea.search.clip.protocols import TextEncoder
from fovea.search.errors import Unanswerable
from fovea.search.index.vector_index import VectorIndex
from fovea.search.library.library import Library
from fovea.search.library.rows import ModelRow
from fovea.search.seam.asking import Source

from .columns import Columns
from .cutoff import falling, line_drawn
from .empty import Hint, hints_for, unlikely
from .filters import Filter
from .hits import ALL, Answer, Hit, Order, hits
from .language import Query, Term, parse
from .likelihood import LINE, Background, Surroundings, likelihoods, surroundings
from .rank import DEEPEST, Embedded, Picture, Ranking, Remembered, made_anew, ranked, reordered

__all__ = ["DEPTHS", "Listing", "Question", "Searcher"]

DEPTHS = (200, 2_000, DEEPEST)  # hits ranked at a time: few people look beyond the first page
EVERYTHING = 2**31 - 1  # a limit for browsing

_parsed = lru_cache(maxsize=256)(parse)  # people page through a few queries and repeat them


@dataclass(frozen=True, slots=True)
class Question:
    """A query as typed and as parsed, with pictures; ``without`` is an image to leave out.

    With ``likely_only``, the answer ends where the likely matches end.
    """

    text: str
    query: Query
    pictures: tuple[Picture, ...] = ()
    without: int | None = None
    likely_only: bool = False

    @classmethod
    def of(cls, text: str, *pictures: Picture) -> "Question":
        """Parse a query. Raise ``QueryError`` if it is malformed."""
        return cls(text, _parsed(text), pictures)

    @classmethod
    def like(cls, image_id: int, at: int | None = None) -> "Question":
        """Ask for the images nearest to an image, without that image itself.

        ``at`` asks for those nearest to a video's moment, in milliseconds.
        """
        query = Query((Term("like", image_id, 1.0, at),), (), None)
        return cls(str(query), query, without=image_id)

    @property
    def browses(self) -> bool:
        """Whether it asks for no picture in particular, so that no index and model are needed."""
        return not self.query.terms and not self.pictures

    @property
    def key(self) -> Hashable:
        """A cache key, equal for questions with the same answer."""
        pictures = [
            (hashlib.sha256(picture.vector.tobytes()).digest(), picture.weight)
            for picture in self.pictures
        ]
        return str(self.query), tuple(pictures), self.without, self.likely_only


@dataclass(frozen=True, slots=True)
class Listing:
    """A question with its ranking so far."""

    question: Question
    ranking: Ranking
    likely: int | None  # how many of the first hits are likely; None where no line is drawn
    total: int  # hits that can be reached by ranking deeper
    hints: tuple[Hint, ...] = ()  # why there are none

    @property
    def order(self) -> Order:
        """What the hits are ordered by.

        Among the nearest, images whose names match are mixed with the first. Likely ones come
        before all others where a line is drawn, in every order.
        """
        sort = self.question.query.sort
        if sort == "name":
            return "name"
        return "date" if sort == "date" or self.ranking.kind == "browse" else "nearest"

    @property
    def is_whole(self) -> bool:
        """Whether the ranking has all hits that can be reached."""
        return len(self.ranking.ids) >= self.total


@dataclass(frozen=True, slots=True)
class Searcher:
    """Answers questions about a library, using one model's index, encoder and background."""

    library: Library
    index: VectorIndex | None  # None before anything is indexed, or where it only browses
    encoder: TextEncoder | None  # None before anything is indexed
    background: Background | None  # None: hits have no likelihoods
    remembered: Remembered = made_anew  # where many questions are asked, to count once
    columns: Columns | None = None  # of the library as it is now; None: SQL filters and sorts

    @property
    def source(self) -> Source:
        """The library as questions are put to it."""
        return Embedded(self.library, self.index, self.remembered, self.columns)

    def around(self, background: Background) -> Surroundings:
        """Return the library's surroundings, as likelihoods take them; it has an embedding."""
        assert self.index is not None
        return surroundings(self.library, self.index.model.id, background)

    @property
    def model_name(self) -> str | None:
        """The name of the model in use; None before anything is indexed."""
        return None if self.index is None else self.index.model.name

    @classmethod
    def of(
        cls, library: Library, model: ModelRow | None, encoder: TextEncoder | None
    ) -> "Searcher":
        """Open a model's index and background; ``model`` is None before anything is indexed."""
        if model is None:
            return cls(library, None, encoder, None)
        index = VectorIndex.open(library, model.id)
        return cls(library, index, encoder, Background.load(library.folder, model.identity))

    def answer(self, question: Question, k: int = 10) -> Answer:
        """Return the first ``k`` hits.

        Raise ``Unanswerable`` for a question without an answer, such as for likely matches where
        the model draws no line; ``ValueError`` for a negative ``k``.
        """
        if k < 0:
            raise ValueError(f"k is {k}; it cannot be negative")
        started = time.perf_counter()
        listing = self.deepened(self.listing(question), k)
        found = self.hits(listing, 0, k)
        took_ms = round((time.perf_counter() - started) * 1000, 1)
        model = self.model_name
        counts = (listing.total, listing.likely)
        return Answer(
            question.text, model, took_ms, *counts, listing.order, tuple(found), listing.hints
        )

    def listing(self, question: Question) -> Listing:
        """Rank a question, deep enough for a first page and for the line."""
        listing = self._ranked(question)
        if not listing.total:
            return replace(listing, hints=self._hints(question.query.filters))
        if question.likely_only:
            listing = self._likely_alone(listing)
        return listing if listing.total else replace(listing, hints=(unlikely(),))

    def _ranked(self, question: Question) -> Listing:
        ranking = self._rank(question, DEPTHS[0])
        chances, likely = self._likelihoods(ranking), None
        if chances is not None:
            ranking, likely = line_drawn(ranking, chances)
        listing = Listing(question, ranking, likely, ranking.total)
        while not listing.is_whole and len(listing.ranking.ids) < DEEPEST:
            if 10 * (listing.likely or 0) <= 9 * len(listing.ranking.ids):
                break
            listing = self._deeper(listing)  # nearly all are likely: the line may be further down
        is_sorted = question.query.sort in ("date", "name")
        return self._sorted(listing) if is_sorted and not question.browses else listing

    def _sorted(self, listing: Listing) -> Listing:
        """Order what is ranked so far by date or name, the likely ones first; it is whole then."""
        query, line = listing.question.query, listing.likely or 0
        ranking, line = reordered(self.source, listing.ranking, query, line)
        likely = None if listing.likely is None else line
        return replace(listing, ranking=ranking, likely=likely, total=len(ranking.ids))

    def deepened(self, listing: Listing, k: int) -> Listing:
        """Return the listing ranked to at least ``k`` hits, or to its end; hits are only added."""
        while k > len(listing.ranking.ids) and not listing.is_whole:
            listing = self._deeper(listing)
        return listing

    def hits(
        self, listing: Listing, start: int, stop: int, wanted: frozenset[str] = ALL
    ) -> list[Hit]:
        """Return the hits ``start`` to ``stop - 1``, leaving out images deleted since.

        Fields of hits that are not ``wanted`` may be empty.
        """
        filters = listing.question.query.filters
        self.source.hold(listing.ranking.ids[start:stop].tolist())
        return hits(self.library, listing.ranking, start, stop, filters, wanted)

    def _likely_alone(self, listing: Listing) -> Listing:
        """Return a listing of its likely matches; of browsing, all that pass the filters.

        Raise ``Unanswerable`` where no line is drawn.
        """
        ranking, likely = listing.ranking, listing.likely
        if ranking.scores is None:
            return listing
        if ranking.likelihoods is None or likely is None:
            model = self.model_name or "this model"
            message = (
                f"{model} does not say which pictures are likely matches: it has not been measured "
                "for that; search without asking for likely ones only"
            )
            raise Unanswerable(message, "query.no_line", model=model)
        found = replace(  # in every order the likely ones are the first
            ranking,
            ids=ranking.ids[:likely],
            scores=ranking.scores[:likely],
            likelihoods=ranking.likelihoods[:likely],
            total=likely,
        )
        return replace(listing, ranking=found, total=likely)

    def _deeper(self, listing: Listing) -> Listing:
        """Rank a listing to the next depth, or to its end when browsing."""
        head, depth = listing.ranking, EVERYTHING
        if head.scores is not None:
            depth = next((depth for depth in DEPTHS if depth > len(head.ids)), EVERYTHING)
        deep = self._rank(listing.question, depth)
        if head.scores is None and np.array_equal(deep.ids[: len(head.ids)], head.ids):
            return replace(listing, ranking=deep, total=len(deep.ids))  # of browsing, unchanged
        new = ~np.isin(deep.ids, head.ids)
        ids, scores = np.concatenate([head.ids, deep.ids[new]]), None
        if head.scores is not None and deep.scores is not None:
            scores = np.concatenate([head.scores, deep.scores[new]])
        by_name, by_text = head.by_name | deep.by_name, head.by_text | deep.by_text
        ranking = replace(deep, ids=ids, scores=scores, by_name=by_name, by_text=by_text)
        likely = None
        chances = None if head.likelihoods is None else self._likelihoods(ranking)
        if head.likelihoods is not None and chances is not None:  # else the line is gone since
            by_score = ~np.isin(head.ids, list(head.by_words))  # they keep their own likelihoods
            most = float(head.likelihoods[by_score].min(initial=1.0))
            more = falling(chances[len(head.ids) :], most)
            joined = np.concatenate([head.likelihoods, more])
            ranking = replace(ranking, likelihoods=joined)
            if listing.likely is not None:
                likely = listing.likely + int(np.count_nonzero(more >= LINE))
        reaches_end = depth >= DEEPEST or len(deep.ids) < depth
        return replace(
            listing,
            ranking=ranking,
            likely=likely,
            total=len(ids) if reaches_end else max(listing.total, len(ids)),
        )

    def _rank(self, question: Question, limit: int) -> Ranking:
        if self._is_empty(question):
            return Ranking(np.empty(0, np.int64), None, 0, "browse")
        assert self.encoder is not None
        return ranked(
            self.source,
            self.encoder,
            question.query,
            pictures=question.pictures,
            without=question.without,
            limit=limit,
        )

    def _is_empty(self, question: Question) -> bool:
        return self.encoder is None or (self.index is None and not question.browses)

    def _hints(self, filters: Sequence[Filter]) -> tuple[Hint, ...]:
        return hints_for(self.library, filters, self.columns)

    def _likelihoods(self, ranking: Ranking) -> np.ndarray | None:
        if self.index is None or self.background is None:
            return None
        return likelihoods(self.library, self.index, self.background, ranking)
